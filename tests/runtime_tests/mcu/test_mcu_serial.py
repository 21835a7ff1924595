"""A microcontroller at a serial port, and what goes over the serial line of an emulated one."""

import contextlib
import os
import re
import select
import threading
import time
import tty
from dataclasses import replace

import numpy as np
import pytest

from thumbnet.runtime_tests.cost_checks import check_cost
from thumbnet.runtime_tests.errors import DeviceUnreachableError
from thumbnet.runtime_tests.mcu.clock_check import UNCERTAINTY
from thumbnet.runtime_tests.mcu.emulator import MachineEmulator
from thumbnet.runtime_tests.mcu.firmware_build import build_firmware
from thumbnet.runtime_tests.mcu.microcontroller_session import MicrocontrollerSession
from thumbnet.runtime_tests.mcu.protocol import ProtocolClient
from thumbnet.runtime_tests.mcu.transport import Transport, TransportTimeoutError
from thumbnet.runtime_tests.report import Report, Status
from thumbnet.runtime_tests.session import TIMED_RUNS, WARM_UPS
from thumbnet.targets.device import Device
from thumbnet.targets.devices import get_device
from thumbnet.targets.registry import get_board

pytestmark = [pytest.mark.emulated, pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")]

BOARD = get_board("mps2_an386")


class Desk:
    """An emulated board at the far end of a serial port, as a real one would be; silent until it is flashed."""

    def __init__(self):
        self._master, self._slave = os.openpty()
        tty.setraw(self._master)
        tty.setraw(self._slave)
        self.device = Device("desk", BOARD, "serial", address=os.ttyname(self._slave))
        self._emulator, self._unplugged, self._threads = None, threading.Event(), []

    def flash(self, artifact, board=BOARD, noise=b""):
        """Let a board run a network; it says `noise` before anything else, once it is spoken to."""
        self._emulator = emulator = MachineEmulator("mps2-an386", build_firmware(artifact, board).elf)
        emulator.transport.open()

        def to_board(noise=noise):
            with contextlib.suppress(OSError, DeviceUnreachableError):
                while not self._unplugged.is_set():
                    if select.select([self._master], [], [], 0.1)[0]:
                        os.write(self._master, noise)
                        noise = b""
                        emulator.transport.write(os.read(self._master, 4096), 60)

        def from_board():
            while not self._unplugged.is_set():
                with contextlib.suppress(TransportTimeoutError):
                    os.write(self._master, emulator.transport.read(4096, 0.1))

        self._threads = [threading.Thread(target=target) for target in (to_board, from_board)]
        for thread in self._threads:
            thread.start()

    def unplug(self):
        """Take the board from its port. May be done twice."""
        if self._unplugged.is_set():
            return
        self._unplugged.set()
        for thread in self._threads:
            thread.join()
        os.close(self._master)
        os.close(self._slave)

    def close(self):
        self.unplug()
        if self._emulator is not None:
            self._emulator.close()


@pytest.fixture
def desk():
    desk = Desk()
    yield desk
    desk.close()


@pytest.fixture
def slow(tmp_path, stand_in):
    """Layers that take long beside the jitter of a clock that is this computer's."""
    spin = "    for (volatile int n = 0; n < 20000; n++) {\n    }\n"
    layers = stand_in.LAYERS.replace("    for (int i = 0; i < 48", spin + "    for (int i = 0; i < 48")
    return stand_in.write_artifact(
        tmp_path / "a", layers=layers.replace("    for (int c = 0", spin + "    for (int c = 0")
    )


def test_a_board_at_a_serial_port(desk, slow, stand_in):
    desk.flash(slow, noise=b"boot loader 1.3\r\n\x00\xff\x80 jumping\r\n" * 20)
    image = stand_in.make_images(1)[0]
    with MicrocontrollerSession(desk.device) as session:
        session.load(slow)
        assert session.run(image).tolist() == stand_in.compute_pool(image).tolist()
        np.testing.assert_array_equal(session.run_layers(image)["scale"], stand_in.compute_scale(image))
        measurement = session.measure(image, 2)
        assert measurement.kind == "seconds on the board" and measurement.error > 0
        assert [layer.kind for layer in session.profile(image)] == ["seconds on the board"] * 2
        assert (measurement.clock.hz, measurement.warm_ups) == (25_000_000, WARM_UPS)
        assert abs(measurement.clock.error) <= 0.02 and measurement.clock.uncertainty <= UNCERTAINTY


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (
            {"FPGAIO_HZ": 27_500_000},
            r"\d\.\d+ s at its 27,500,000 Hz in .* s of this computer's: -(8|9)\.\d%, 2% is allowed",
        ),
        ({"FPGAIO_BASE": 0x2030_0000}, r"0\.0000 s at its 25,000,000 Hz .*: it stands still"),
    ],
    ids=["10 % off", "dead timer"],
)
def test_a_board_with_a_wrong_clock_is_told_no_time_of(wrong, says, desk, slow, stand_in):
    board = replace(BOARD, peripherals={**BOARD.peripherals, **wrong})
    desk.flash(slow, board)
    image = stand_in.make_images(1)[0]
    with MicrocontrollerSession(replace(desk.device, board=board)) as session:
        session.load(slow)
        report = Report()
        check_cost(report, session, image)
        assert session.run(image).tolist() == stand_in.compute_pool(image).tolist()
    cost = next(check for check in report.checks if check.name == "cost of one inference")
    assert (cost.status, report.passed) == (Status.FAILED, False)
    assert re.match(rf"desk: the board's clock counted {says}", cost.detail)
    assert report.values["measurement"] is report.values["seconds_per_inference"] is None


def test_a_report_has_the_time_its_spread_and_the_clock(desk, slow, stand_in):
    desk.flash(slow)
    report = Report()
    with MicrocontrollerSession(desk.device) as session:
        session.load(slow)
        check_cost(report, session, stand_in.make_images(1)[0])
    measured = report.values["measurement"]
    samples = sorted(1000 * sample for sample in measured["samples"])
    assert (len(samples), measured["warm_up_runs"], measured["kind"]) == (TIMED_RUNS, WARM_UPS, "seconds on the board")
    time, cycles = measured["milliseconds"], measured["cycles"]
    assert [time[key] for key in ("minimum", "median", "percentile_90")] == pytest.approx(
        [samples[0], samples[10], samples[18]]
    )
    assert cycles["median"] == pytest.approx(25_000 * time["median"])
    assert (time["kind"], cycles["kind"]) == ("measured by the board's timer", "from the time, at 25,000,000 Hz")
    assert measured["clock"]["hz"] == 25_000_000
    detail = report.checks[0].detail
    assert f"{time['median']:.3f} ms measured by the board's timer (minimum {time['minimum']:.3f}, 90th per" in detail
    assert "median of 21 after 3 to warm up" in detail and "clock of 25,000,000 Hz checked: " in detail


class Unplugging(Transport):
    """A line whose board is taken away once it has begun to answer."""

    def __init__(self, inner, desk):
        self._inner, self._desk, self.armed = inner, desk, False
        self.open, self.close, self.write = inner.open, inner.close, inner.write

    open = close = write = None

    def read(self, n, timeout_s):
        data = self._inner.read(n, timeout_s)
        if self.armed:
            self._desk.unplug()
        return data


@pytest.mark.parametrize("call", ["run", "clock"])
def test_a_board_that_is_unplugged_in_the_middle_is_one_line(call, desk, stand_in, tmp_path):
    endless = stand_in.LAYERS.replace("    for (int c = 0", "    for (;;) {\n    }\n    for (int c = 0")
    artifact = stand_in.write_artifact(tmp_path / "a", layers=endless)
    desk.flash(artifact)
    lines = []

    def wrap(inner):
        lines.append(Unplugging(inner, desk))
        return lines[-1]

    image = stand_in.make_images(1)[0]
    with MicrocontrollerSession(desk.device, wrap_transport=wrap) as session:
        session.load(artifact)
        write = session._write
        if call == "run":  # its input arrives whole, and the board says that it has begun

            def write_and_arm(image):
                write(image)
                lines[0].armed = True

            session._write = write_and_arm
        else:
            lines[0].armed = True
        with pytest.raises(DeviceUnreachableError, match=r"^desk: /dev/pts/\d+: the line broke") as caught:
            session.run(image) if call == "run" else session.measure(image, 1)
        assert "\n" not in str(caught.value)


def test_a_silent_serial_port_says_how_to_flash(desk, tiny, monkeypatch):
    monkeypatch.setattr(ProtocolClient.__init__, "__defaults__", (0.05, 1.0, 0.02, time.monotonic))
    with (
        MicrocontrollerSession(desk.device) as session,
        pytest.raises(
            DeviceUnreachableError, match=r"^desk: .*not answer OPEN.*If not, flash .*firmware\.elf"
        ) as caught,
    ):
        session.load(tiny)
    assert "\n" not in str(caught.value)


def test_inputs_and_layers_over_the_serial_line(tiny, stand_in):
    image = stand_in.make_images(1)[0]
    with MicrocontrollerSession(get_device("qemu_mps3_an547"), shortcut=False) as session:
        session.load(tiny)
        assert session.run(image).tolist() == stand_in.compute_pool(image).tolist()
        np.testing.assert_array_equal(session.run_layers(image)["pool"], stand_in.compute_pool(image))
