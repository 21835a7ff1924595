"""What the ticks of a board's timer say of a run, and whether they can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from thumbnet.runtime_tests.errors import ClockError
from thumbnet.runtime_tests.session import MeasurementKind

#: With -icount shift=0 QEMU's clock advances by one nanosecond an instruction.
_ICOUNT_HZ = 1_000_000_000
#: The timer counts in 32 bits.
_WRAP_TICKS = 1 << 32
#: How much faster than said a board's clock may run.
_CLOCK_TOLERANCE = 1.1


@dataclass(frozen=True)
class BoardTimer:
    """A board's timer.

    Parameters
    ----------
    kind : {"instructions", "cycles", "seconds on the board"}
        What measurements are converted to; instructions are for emulators with -icount.
    hz : int
        Ticks a second.
    overhead : int
        Ticks of a call that does nothing.
    """

    kind: MeasurementKind
    hz: int
    overhead: int

    @property
    def unit(self) -> float:
        """A tick in the unit of `kind`."""
        return {"instructions": _ICOUNT_HZ / self.hz, "cycles": 1.0, "seconds on the board": 1 / self.hz}[self.kind]

    @property
    def error(self) -> float:
        """Largest error of a measurement: either end may be off by a tick, and so may the calibration."""
        return 2 * self.unit

    def convert(self, ticks: int, call_s: float) -> float:
        """Return the cost of an inference of so many ticks; the call it was made in took `call_s` seconds here.

        Raises
        ------
        ClockError
            They can't be true: no more than a call that does nothing, or more than the whole call.
        """
        self._check(ticks, ticks, self.overhead, call_s)
        return (ticks - self.overhead) * self.unit

    def convert_layers(self, ticks: Sequence[int], call_s: float) -> list[float]:
        """Return the cost of each layer; see `convert`.

        A layer alone may be too short for the timer, and costs 0 within the error; all of them together may not.
        """
        self._check(max(ticks), sum(ticks), self.overhead, call_s)
        return [max(0, count - self.overhead) * self.unit for count in ticks]

    def _check(self, longest: int, total: int, least: int, call_s: float) -> None:
        if longest <= least:
            raise ClockError(
                f"the board's timer counted {longest} ticks in a run and {least} in an empty call: "
                f"it stands still, or {self.hz} Hz are too coarse"
            )
        if self.kind == "instructions":
            return  # an emulated clock, which has nothing to do with this computer's
        if call_s * self.hz >= _WRAP_TICKS:
            raise ClockError(
                f"the run took up to {call_s:.1f} s, the board's timer of {self.hz} Hz starts again after "
                f"{_WRAP_TICKS / self.hz:.1f} s: its {total} ticks say nothing"
            )
        if total > call_s * self.hz * _CLOCK_TOLERANCE:
            raise ClockError(
                f"the board's timer counted {total / self.hz:.6f} s in a call of {call_s:.6f} s: "
                f"it doesn't count up at {self.hz} Hz"
            )
