"""A test on several devices at once: what becomes of each, what is tried again, and what ends it."""

import threading

import pytest

from thumbnet.runtime_tests.device_runs import DeviceRun, RunStatus, run_on_devices
from thumbnet.runtime_tests.errors import ArenaOverrunError, DeviceFaultError, DeviceUnreachableError, FlashError
from thumbnet.runtime_tests.mcu.microcontroller_session import MicrocontrollerSession
from thumbnet.runtime_tests.report import Status
from thumbnet.targets.devices import get_device

pytestmark = [pytest.mark.emulated, pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")]

M4, OTHER_M4 = get_device("qemu_mps2_an386"), get_device("qemu_netduinoplus2")


@pytest.fixture
def check(tiny, stand_in):
    """Test the stand-in's bytes on an open device."""
    image = stand_in.make_images(1)[0]

    def check(session, run, stop):
        stop.look()
        session.load(tiny)
        right = session.run(image).tolist() == stand_in.compute_pool(image).tolist()
        run.report.add("bytes", Status.PASSED if right else Status.FAILED, "of one image")

    return check


class Failing:
    """Opens devices, of which the first ones fail."""

    def __init__(self, *errors):
        self.errors, self.opened = list(errors), 0

    def __call__(self, device):
        self.opened += 1
        if self.errors:
            raise self.errors.pop(0)
        return MicrocontrollerSession(device)


def test_devices_work_at_the_same_time(check):
    together = threading.Barrier(2, timeout=300)

    def test(session, run, stop):
        check(session, run, stop)
        together.wait()

    runs = [DeviceRun(M4), DeviceRun(OTHER_M4), DeviceRun(M4, skipped_because="is broken")]
    run_on_devices(runs, MicrocontrollerSession, test)
    assert [run.status for run in runs] == [RunStatus.PASSED, RunStatus.PASSED, RunStatus.SKIPPED]
    assert [len(run.report.checks) for run in runs] == [1, 1, 0]
    assert runs[0].seconds > 0


@pytest.mark.parametrize("error", [DeviceUnreachableError("no answer"), FlashError("no probe")])
def test_a_device_that_fails_is_tried_again(check, error):
    for retries, status, opened in ((2, RunStatus.PASSED, 3), (1, RunStatus.ERROR, 2)):
        run, open_device = DeviceRun(M4), Failing(error, error)
        run_on_devices([run], open_device, check, retries=retries, rest_s=0)
        assert (run.status, open_device.opened) == (status, opened)
        assert run.retried == [error] * retries
        assert (run.error is None) == (status is RunStatus.PASSED)


@pytest.mark.parametrize(
    "error",
    [
        DeviceFaultError("the core faulted"),
        ArenaOverrunError("the network wrote", behind=True, reach_bytes=1, stage=None),
        ZeroDivisionError("a bug"),
    ],
)
def test_what_the_network_does_wrong_is_not_tried_again(check, error):
    run, open_device = DeviceRun(M4), Failing(error)
    run_on_devices([run], open_device, check, retries=9, rest_s=0)
    assert (run.status, run.error, open_device.opened) == (RunStatus.ERROR, error, 1)


def test_a_failed_check_is_not_tried_away(check):
    def test(session, run, stop):
        run.report.add("bytes", Status.FAILED, "wrong")
        raise DeviceUnreachableError("and then it went away")

    run, open_device = DeviceRun(M4), Failing()
    run_on_devices([run], open_device, test, retries=9, rest_s=0)
    assert (run.status, open_device.opened) == (RunStatus.FAILED, 1)


def test_one_that_fails_takes_no_other_along(check):
    def open_device(device):
        if device is OTHER_M4:
            raise DeviceUnreachableError("gone")
        return MicrocontrollerSession(device)

    runs = [DeviceRun(OTHER_M4), DeviceRun(M4)]
    run_on_devices(runs, open_device, check)
    assert [run.status for run in runs] == [RunStatus.ERROR, RunStatus.PASSED]


def test_what_ends_it_leaves_what_is_done(check, monkeypatch):
    """The main thread is interrupted while it waits; one device is done then, the other at work."""
    done, closed = threading.Event(), threading.Event()

    class Session(MicrocontrollerSession):
        def close(self):
            super().close()
            if self.device is OTHER_M4:
                closed.set()

    def test(session, run, stop):
        if session.device is M4:
            return check(session, run, stop)
        run.report.add("first", Status.PASSED, "")
        while True:
            stop.rest(0.01)

    join = threading.Thread.join

    def interrupted(thread, *arguments):
        join(thread, *arguments)
        if not done.is_set():
            done.set()
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    runs = [DeviceRun(M4), DeviceRun(OTHER_M4)]
    with pytest.raises(KeyboardInterrupt):
        run_on_devices(runs, Session, test)
    assert [run.status for run in runs] == [RunStatus.PASSED, RunStatus.STOPPED]
    assert [len(run.report.checks) for run in runs] == [1, 1]
    assert closed.is_set()
