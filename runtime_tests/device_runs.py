"""The same test on several devices at once: each in a thread of its own, and what became of it there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from thumbnet.runtime_tests.errors import DeviceUnreachableError, FlashError
from thumbnet.runtime_tests.report import Report
from thumbnet.runtime_tests.session import DeviceSession
from thumbnet.targets.device import Device

#: Failures of cables, probes and supplies, which may be over the next time. What a network does wrong is not among
#: them: wrong bytes, a write outside the arena, a fault of the core.
WORTH_ANOTHER_TRY = (DeviceUnreachableError, FlashError)
#: How long a device is left alone before the next try, in seconds.
REST_S = 1.0


class RunStatus(Enum):
    """The closed set of what can become of a test on a device."""

    PASSED = "passed"
    #: A check failed.
    FAILED = "failed"
    #: The device, or what builds its program, failed.
    ERROR = "error"
    #: Left out on purpose.
    SKIPPED = "skipped"
    #: Ended by somebody before it was done.
    STOPPED = "stopped"


@dataclass
class DeviceRun:
    """A test on one device.

    Parameters
    ----------
    device : Device
        Where.
    skipped_because : str or None
        Why it is left out, None where it isn't.
    report : Report
        The checks so far: all of them, unless the device failed or the test was stopped.
    error : Exception or None
        What the last try ended with.
    retried : list of Exception
        What the tries before that ended with.
    seconds : float
        How long it took here, all tries together; says nothing of how fast the device is.
    ended : bool
        Whether nothing more is going to be tried.
    """

    device: Device
    skipped_because: str | None = None
    report: Report = field(default_factory=Report)
    error: Exception | None = None
    retried: list[Exception] = field(default_factory=list)
    seconds: float = 0.0
    ended: bool = False

    @property
    def status(self) -> RunStatus:
        """How it went, or stands."""
        if self.skipped_because is not None:
            return RunStatus.SKIPPED
        if not self.report.passed:
            return RunStatus.FAILED
        if not self.ended:
            return RunStatus.STOPPED
        return RunStatus.PASSED if self.error is None else RunStatus.ERROR


class _StoppedError(Exception):
    """Somebody ended the tests."""


class Stop:
    """Whether the tests are to end; tests look at it between their steps."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def ask(self) -> None:
        """Let all tests end at their next step."""
        self._asked.set()

    def look(self) -> None:
        """End the test where that was asked for."""
        if self._asked.is_set():
            raise _StoppedError

    def rest(self, seconds: float) -> None:
        """Wait so long, or until the tests are to end, and end the test then."""
        self._asked.wait(seconds)
        self.look()


def run_on_devices(
    runs: Sequence[DeviceRun],
    open_device: Callable[[Device], DeviceSession],
    test: Callable[[DeviceSession, DeviceRun, Stop], None],
    *,
    retries: int = 0,
    rest_s: float = REST_S,
) -> None:
    """Test on all devices that are not left out, all at once, and put into each run what became of it.

    Whatever ends this before (Ctrl-C) ends the tests at their next step; the runs then hold what there is. One device
    is tested in the calling thread.

    Parameters
    ----------
    runs : sequence of DeviceRun
        New ones.
    open_device : callable
        Opens a device; called by several threads at once.
    test : callable
        Given an open device, the run whose report it fills, and the `Stop` to look at between steps. Called by several
        threads at once; its errors are the device's.
    retries : int
        How often a device that fails as in `WORTH_ANOTHER_TRY` is tested anew.
    rest_s : float
        Pause before each of these.
    """
    stop = Stop()

    def run(one: DeviceRun) -> None:
        started = time.monotonic()
        try:
            _try_often(one, open_device, test, stop=stop, retries=retries, rest_s=rest_s)
            one.ended = True
        except _StoppedError:
            pass
        finally:
            one.seconds = time.monotonic() - started

    tested = [one for one in runs if one.skipped_because is None]
    if len(tested) == 1:
        run(tested[0])
        return
    # They don't keep this process from ending where somebody insists.
    threads = [threading.Thread(target=run, args=(one,), name=one.device.name, daemon=True) for one in tested]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:
        stop.ask()
        for thread in threads:
            if thread.ident is not None:  # it was started
                thread.join()
        raise


def _try_often(
    run: DeviceRun,
    open_device: Callable[[Device], DeviceSession],
    test: Callable[[DeviceSession, DeviceRun, Stop], None],
    *,
    stop: Stop,
    retries: int,
    rest_s: float,
) -> None:
    for tries_left in range(retries, -1, -1):
        run.report, run.error = Report(), None
        try:
            with open_device(run.device) as session:
                test(session, run, stop)
            return
        except WORTH_ANOTHER_TRY as error:
            run.error = error
            if not tries_left or not run.report.passed:  # no further try makes up for a failed check
                return
        except _StoppedError:
            raise
        except Exception as error:  # whatever a device, its connection or the compiler raises
            run.error = error
            return
        run.retried.append(run.error)
        stop.rest(rest_s)
