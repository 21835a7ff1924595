"""What the calls to a firmware cost: counted exactly in emulation, or by a board's timer, whose clock is checked."""

from __future__ import annotations

from collections.abc import Sequence

from thumbnet.runtime_tests.mcu.board_timer import BoardTimer
from thumbnet.runtime_tests.mcu.clock_check import check_clock
from thumbnet.runtime_tests.mcu.counted_calls import CountedCalls
from thumbnet.runtime_tests.mcu.protocol import ProtocolClient
from thumbnet.runtime_tests.session import CheckedClock, MeasurementKind
from thumbnet.targets.device import Device

#: Empty calls whose shortest is the overhead of the board's timer.
CALIBRATIONS = 5


class RunMeter:
    """The meter of one firmware, calibrated by a call that does nothing.

    Parameters
    ----------
    device : Device
        Where the firmware runs.
    client : ProtocolClient
        With an open session.
    counter : CountedCalls or None
        Counts what an emulated board executes; without one its timer is taken.

    Raises
    ------
    SessionError
        The board fails.

    Attributes
    ----------
    clock : CheckedClock or None
        That of a real board, once it was compared with this computer's.
    """

    def __init__(self, device: Device, client: ProtocolClient, counter: CountedCalls | None) -> None:
        self.clock: CheckedClock | None = None
        self._emulated = device.kind == "emulated"
        self._counter = counter
        self._timer: BoardTimer | None = None
        identity = client.identity
        if counter is not None:
            counter.clear()
            client.calibrate()
            counter.calibrate()
            return
        kind: MeasurementKind = "cycles" if identity.tick_kind == "cycles" else "seconds on the board"
        if self._emulated:
            kind = "instructions"
        # The first calls may be slow: caches, or an emulator's translation.
        overhead = min(client.calibrate() for _ in range(CALIBRATIONS))
        self._timer = BoardTimer(kind, identity.tick_hz, overhead)

    @property
    def kind(self) -> MeasurementKind:
        """What costs are counted in."""
        return "instructions" if self._timer is None else self._timer.kind

    @property
    def error(self) -> float:
        """Largest error of a cost; 0 means exact."""
        return 0.0 if self._timer is None else self._timer.error

    def start(self) -> None:
        """Forget the calls measured so far."""
        if self._counter is not None:
            self._counter.clear()

    def check_clock(self, client: ProtocolClient) -> None:
        """Compare a real board's clock with this computer's, once; a time is told only after that.

        Raises
        ------
        ClockError
            See `check_clock`.
        """
        if self.clock is None and not self._emulated:
            self.clock = check_clock(client.clock, client.identity.tick_hz)

    def read_run(self, ticks: int, call_s: float) -> float:
        """Return the cost of the one call since `start`, of so many ticks; it took `call_s` seconds here.

        Raises
        ------
        DeviceFaultError
            It can't be true.
        """
        if self._timer is not None:
            return self._timer.convert(ticks, call_s)
        return self._counted(1)[0]

    def read_layers(self, ticks: Sequence[int], call_s: float) -> list[float]:
        """Return the cost of each layer's call since `start`; see `read_run`."""
        if self._timer is not None:
            return self._timer.convert_layers(ticks, call_s)
        return self._counted(len(ticks))

    def _counted(self, calls: int) -> list[float]:
        assert self._counter is not None
        return [float(count) for count in self._counter.read(calls)]
