"""A microcontroller at a serial port, and what goes over the serial line of an emulated one."""

import contextlib
import os
import select
import threading
import time
import tty

import numpy as np
import pytest

from thumbnet.runtime_tests.errors import DeviceUnreachableError
from thumbnet.runtime_tests.mcu.emulator import MachineEmulator
from thumbnet.runtime_tests.mcu.firmware_build import build_firmware
from thumbnet.runtime_tests.mcu.microcontroller_session import MicrocontrollerSession
from thumbnet.runtime_tests.mcu.protocol import ProtocolClient
from thumbnet.runtime_tests.mcu.transport import TransportTimeoutError
from thumbnet.targets.device import Device
from thumbnet.targets.devices import get_device
from thumbnet.targets.registry import get_board

pytestmark = [pytest.mark.emulated, pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")]


@pytest.fixture
def serial_board(tiny):
    """An emulated board at the far end of a serial port, as a real one would be; silent until `flash` is called."""
    master, slave = os.openpty()
    tty.setraw(master)
    tty.setraw(slave)
    emulators, stop = [], threading.Event()

    def flash(artifact):
        emulator = MachineEmulator("mps2-an386", build_firmware(artifact, get_board("mps2_an386")).elf)
        emulators.append(emulator)
        emulator.transport.open()

        def to_board():
            with contextlib.suppress(OSError, DeviceUnreachableError):
                while not stop.is_set():
                    if select.select([master], [], [], 0.1)[0]:
                        emulator.transport.write(os.read(master, 4096), 60)

        def from_board():
            while not stop.is_set():
                with contextlib.suppress(TransportTimeoutError):
                    os.write(master, emulator.transport.read(4096, 0.1))

        threads.extend(threading.Thread(target=target) for target in (to_board, from_board))
        for thread in threads:
            thread.start()

    threads = []
    device = Device("desk", get_board("mps2_an386"), "serial", address=os.ttyname(slave))
    yield device, flash
    stop.set()
    for thread in threads:
        thread.join()
    for emulator in emulators:
        emulator.close()
    os.close(master)
    os.close(slave)


def test_a_board_at_a_serial_port(serial_board, tmp_path, stand_in):
    device, flash = serial_board
    # Layers that take long beside the jitter of a clock that is this computer's.
    spin = "    for (volatile int n = 0; n < 20000; n++) {\n    }\n"
    layers = stand_in.LAYERS.replace("    for (int i = 0; i < 48", spin + "    for (int i = 0; i < 48")
    tiny = stand_in.write_artifact(
        tmp_path / "a", layers=layers.replace("    for (int c = 0", spin + "    for (int c = 0")
    )
    flash(tiny)
    image = stand_in.make_images(1)[0]
    with MicrocontrollerSession(device) as session:
        session.load(tiny)
        assert session.run(image).tolist() == stand_in.compute_pool(image).tolist()
        np.testing.assert_array_equal(session.run_layers(image)["scale"], stand_in.compute_scale(image))
        measurement = session.measure(image, 2)
        assert measurement.kind == "seconds on the board" and measurement.error > 0
        assert [layer.kind for layer in session.profile(image)] == ["seconds on the board"] * 2


def test_a_silent_serial_port_says_how_to_flash(serial_board, tiny, monkeypatch):
    device, _ = serial_board
    monkeypatch.setattr(ProtocolClient.__init__, "__defaults__", (0.05, 1.0, 0.02, time.monotonic))
    with (
        MicrocontrollerSession(device) as session,
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
