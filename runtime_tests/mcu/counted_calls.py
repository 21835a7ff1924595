"""Exact instruction counts of the firmware's measured calls, from the marks that the emulator logs."""

from __future__ import annotations

from collections.abc import Mapping

from thumbnet.runtime_tests.errors import DeviceFaultError
from thumbnet.runtime_tests.instruction_counter import InstructionCounter


class CountedCalls:
    """The counter of an emulated board whose firmware makes measured calls, see measure.c.

    Parameters
    ----------
    symbols : mapping of str to int
        Addresses in the firmware.

    Raises
    ------
    ToolchainError
        The counting plugin can't be built.
    """

    def __init__(self, symbols: Mapping[str, int]) -> None:
        self._places = [symbols["measure_begin"], symbols["measure_end"]]
        self._counter = InstructionCounter(self._places)
        self._overhead = 0

    @property
    def qemu_options(self) -> list[str]:
        """QEMU's options that load the plugin."""
        return self._counter.qemu_options

    def clear(self) -> None:
        """Forget the calls made so far."""
        self._counter.clear_marks()

    def calibrate(self) -> None:
        """Take the call since `clear`, of one instruction, for the measure: what it costs beyond is the call's own."""
        self._overhead = 0
        self._overhead = self.read(1)[0] - 1

    def read(self, calls: int) -> list[int]:
        """Return the instructions of each of the calls since `clear`.

        Raises
        ------
        DeviceFaultError
            Not so many were made, or they can't have cost what was counted.
        """
        try:
            marks = self._counter.read_marks()
        except OverflowError as error:
            raise DeviceFaultError(f"the emulator counts wrongly: {error}") from error
        counts = [count for _, count in marks]
        costs = [end - begin - self._overhead for begin, end in zip(counts[::2], counts[1::2], strict=False)]
        if [place for place, _ in marks] != calls * self._places or min(costs) <= 0:
            raise DeviceFaultError(
                f"the emulator counts wrongly: {len(marks)} marks passed in {calls} measured calls, "
                f"expected {2 * calls}; instructions {costs[:4]}"
            )
        return costs

    def close(self) -> None:
        """Let the counter go. May be called twice."""
        self._counter.close()
