"""Boards that are found by their USB serial number, and what is at the serial ports of this computer."""

import contextlib
import json
import os
import subprocess
import tomllib
import tty

import pytest
from click.testing import CliRunner
from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo

from thumbnet.runtime_tests.errors import DeviceUnreachableError
from thumbnet.runtime_tests.mcu.exchange import HEADER, Command
from thumbnet.runtime_tests.mcu.firmware_build import build_firmware
from thumbnet.runtime_tests.mcu.framing import FrameReader, decode_frame
from thumbnet.runtime_tests.mcu.microcontroller_session import MicrocontrollerSession
from thumbnet.runtime_tests.mcu.serial_ports import find_port, list_serial_ports
from thumbnet.runtime_tests.mcu.serial_transport import SerialTransport
from thumbnet.targets.device import Device
from thumbnet.targets.devices import list_devices
from thumbnet.targets.registry import get_board
from thumbnet.tools.cli import thumbnet

NETDUINO = get_board("netduinoplus2")
emulated = pytest.mark.emulated
needs_tools = pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")


@pytest.fixture
def plugged(monkeypatch):
    """Let the system list these ports: path, serial number, location as Linux writes it, None for no USB port."""

    def plug(*ports):
        infos = []
        for path, serial_number, location in ports:
            info = ListPortInfo(path, skip_link_detection=True)
            info.serial_number, info.location = serial_number, location
            info.vid = None if location is None else 0x0483
            infos.append(info)
        monkeypatch.setattr(list_ports, "comports", lambda: infos)

    return plug


@pytest.fixture
def board_port(tiny):
    """The path of the serial port of a board that runs the stand-in's firmware."""
    elf = build_firmware(tiny, NETDUINO).elf
    command = ["qemu-system-arm", "-M", NETDUINO.qemu, "-kernel", elf, "-display", "none", "-monitor", "none"]
    process = subprocess.Popen(
        [*command, "-serial", "pty"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    yield process.stdout.readline().split("redirected to ")[1].split()[0]
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def silent_port():
    """The path of a port where nothing answers, and the other end of it."""
    master, slave = os.openpty()
    tty.setraw(slave)
    yield os.ttyname(slave), master
    os.close(master)
    os.close(slave)


def test_what_the_system_lists_is_read(plugged):
    plugged(("/dev/ttyACM10", "B", "1-2.4:1.2"), ("/dev/ttyACM9", "A", "1-1"), ("/dev/ttyS0", None, None))
    found = {port.path: (port.serial_number, port.usb_device, port.interface) for port in list_serial_ports()}
    assert list(found.items()) == [
        ("/dev/ttyACM9", ("A", "1-1", None)),
        ("/dev/ttyACM10", ("B", "1-2.4", 2)),
        ("/dev/ttyS0", (None, None, None)),
    ]


def test_the_ports_of_this_computer_can_be_listed():
    assert all(port.path for port in list_serial_ports())


TWO_PORTS = (("/dev/ttyACM0", "A", "1-1:1.0"), ("/dev/ttyACM1", "A", "1-1:1.2"), ("/dev/ttyACM2", "B", "1-2:1.0"))


@pytest.mark.parametrize(
    ("ports", "wanted", "path"),
    [
        (TWO_PORTS, ("B",), "/dev/ttyACM2"),
        (TWO_PORTS, ("A", 2), "/dev/ttyACM1"),
        (TWO_PORTS, ("B", 7), "/dev/ttyACM2"),  # there is no choice
    ],
)
def test_a_board_is_found(plugged, ports, wanted, path):
    plugged(*ports)
    assert find_port("desk", *wanted) == path


@pytest.mark.parametrize(
    ("ports", "wanted", "says"),
    [
        ((), ("A",), "desk: no serial port has the USB serial number A; no port has one; is the board plugged in?"),
        (TWO_PORTS[2:], ("A",), r"number A; there are /dev/ttyACM2 \(B, interface 0\); is the board plugged in\?"),
        (
            TWO_PORTS,
            ("A",),
            r"has /dev/ttyACM0 \(A, interface 0\), /dev/ttyACM1 \(A, interface 2\); say which by inter",
        ),
        (
            TWO_PORTS,
            ("A", 1),
            "no serial port is interface 1 of the board with USB serial number A; it has /dev/ttyACM0",
        ),
        (
            (*TWO_PORTS[:1], ("/dev/ttyACM3", "A", "1-3:1.0")),
            ("A",),
            "2 boards have the USB serial number A, at /dev/tty",
        ),
        (tuple((f"/dev/ttyACM{n}", str(n), f"1-{n}") for n in range(10)), ("A",), r"/dev/ttyACM7 \(7\) and 2 more; is"),
    ],
)
def test_a_board_that_isnt_found_is_one_line(plugged, ports, wanted, says):
    plugged(*ports)
    with pytest.raises(DeviceUnreachableError, match=says) as caught:
        find_port("desk", *wanted)
    assert "\n" not in str(caught.value)


@emulated
@needs_tools
def test_a_session_by_serial_number(plugged, board_port, tiny, stand_in):
    plugged(("/dev/ttyACM0", "B", "1-1"), (board_port, "066CFF", "1-2"))
    image = stand_in.make_images(1)[0]
    device = Device("desk", NETDUINO, "serial", serial_number="066CFF")
    with MicrocontrollerSession(device) as session:
        session.load(tiny)
        assert session.run(image).tolist() == stand_in.compute_pool(image).tolist()
        assert session.place == "USB 066CFF"
        session.close()
        plugged()  # it is looked for whenever it is opened
        with pytest.raises(DeviceUnreachableError, match="no serial port has the USB serial number 066CFF"):
            session.load(tiny)


def _scan(folder, devices=""):
    (folder / "devices.toml").write_text(devices)
    options = ["devices", "--scan", "--devices", str(folder / "devices.toml"), "--json", str(folder / "ports.json")]
    done = CliRunner().invoke(thumbnet, options, standalone_mode=False)
    assert done.exception is None, done.exception
    return done.output, {entry["port"]: entry for entry in json.loads((folder / "ports.json").read_text())}


@emulated
@needs_tools
def test_a_scan_tells_what_is_where(plugged, board_port, silent_port, tmp_path, tiny):
    silent, far_end = silent_port
    with contextlib.closing(SerialTransport(silent, 115200)) as other_program:
        other_program.open()
        plugged((board_port, "066CFF", "1-1"), (silent, "77", "1-2:1.2"), ("/dev/ttyS7", None, None))
        output, found = _scan(tmp_path)
    model_hash = build_firmware(tiny, NETDUINO).model_hash
    names = ("state", "detail", "board", "model", "model_hash")
    assert [found[board_port][name] for name in names] == ["answers", None, "netduinoplus2", "tiny", model_hash]
    assert [found[silent][name] for name in names[:2]] == ["unusable", "another program holds it; close that first"]
    assert [found["/dev/ttyS7"][name] for name in names[:2]] == ["not asked", "no USB port"]
    assert f"netduinoplus2 runs tiny {model_hash}" in output
    output, found = _scan(tmp_path)
    assert found[silent]["state"] == "no answer"
    # Nothing was sent but questions who is there.
    os.set_blocking(far_end, False)
    frames = [HEADER.unpack_from(decode_frame(frame)) for frame in FrameReader().take(os.read(far_end, 1 << 16))]
    assert frames and {command for _, command, _, _ in frames} == {Command.OPEN}
    tables = output[output.index("[devices.") :].replace('"NAME"', '"rpi_pico"')
    assert tomllib.loads(tables)["devices"]["netduinoplus2_1"]["serial_number"] == "066CFF"
    # What it prints is what names the boards from then on.
    (tmp_path / "own.toml").write_text(tables)
    own = list_devices(tmp_path / "own.toml")[-2:]
    assert [(device.name, device.serial_number) for device in own] == [("netduinoplus2_1", "066CFF"), ("board_1", "77")]
    output, found = _scan(tmp_path, tables)
    assert [found[port]["device"] for port in (board_port, silent)] == ["netduinoplus2_1", "board_1"]
    assert "[devices." not in output


def test_ports_that_a_number_doesnt_tell_apart_are_told_by_more(plugged, tmp_path):
    gone = ("/dev/ttyNONE0", "/dev/ttyNONE1", "/dev/ttyNONE2", "/dev/ttyNONE3", "/dev/ttyNONE4")
    plugged(
        *((gone[0], "A", "1-1:1.0"), (gone[1], "A", "1-1:1.2")),  # one board
        *((gone[2], "B", "1-2"), (gone[3], "B", "1-3")),  # two
        (gone[4], None, "1-4"),
    )
    output, found = _scan(tmp_path)
    assert {entry["state"] for entry in found.values()} == {"unusable"}
    tables = tomllib.loads(output[output.index("[devices.") :])["devices"].values()
    places = [{key: value for key, value in table.items() if key not in ("board", "kind")} for table in tables]
    assert places == [
        *({"serial_number": "A", "interface": 0}, {"serial_number": "A", "interface": 2}),
        *({"port": path} for path in gone[2:]),
    ]


def test_a_desk_without_ports_has_an_empty_table(plugged, tmp_path):
    plugged()
    assert _scan(tmp_path)[1] == {}


def test_a_port_that_is_no_usb_port_is_asked_where_a_device_is_there(plugged, silent_port, tmp_path):
    silent, _ = silent_port
    plugged((silent, None, None))
    entry = f'[devices.desk]\nboard = "rpi_pico"\nkind = "serial"\nport = "{silent}"\n'
    assert [_scan(tmp_path, text)[1][silent]["state"] for text in ("", entry)] == ["not asked", "no answer"]
