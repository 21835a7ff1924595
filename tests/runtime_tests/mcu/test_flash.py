"""Firmware onto boards, by each tool, and the one line where that goes wrong."""

import json

import pytest
from click.testing import CliRunner

from thumbnet.runtime_tests.errors import DeviceUnreachableError, FlashError
from thumbnet.runtime_tests.mcu import deploy, flash_board
from thumbnet.runtime_tests.mcu.firmware_build import build_firmware
from thumbnet.runtime_tests.mcu.microcontroller_session import MicrocontrollerSession
from thumbnet.targets.device import Device
from thumbnet.targets.flash_way import FlashWay, parse_flash_way
from thumbnet.targets.registry import get_board
from thumbnet.tools.cli import thumbnet

from gdb_server import Between, EmptyBoard, damage_memory  # isort: skip

pytestmark = [pytest.mark.emulated, pytest.mark.needs_tools("arm-none-eabi-gcc")]
needs_gdb = pytest.mark.needs_tools("qemu-system-arm", "gdb-multiarch")

NETDUINO, PICO = get_board("netduinoplus2"), get_board("rpi_pico")


@pytest.fixture
def empty_board():
    board = EmptyBoard()
    yield board
    board.close()


@pytest.fixture
def between(empty_board):
    lines = []

    def make(change):
        lines.append(Between(empty_board.port, change))
        return lines[-1]

    yield make
    for line in lines:
        line.close()


def _desk(serial, flash):
    return Device("desk", NETDUINO, "serial", address=serial, flash=parse_flash_way(flash))


@needs_gdb
def test_an_empty_board_is_flashed_once(empty_board, tiny, stand_in, monkeypatch):
    image = stand_in.make_images(1)[0]
    device = _desk(empty_board.serial, f"gdb:{empty_board.address}")
    with MicrocontrollerSession(device) as session:
        session.load(tiny)
        assert session.run(image).tolist() == stand_in.compute_pool(image).tolist()
    monkeypatch.setattr(deploy, "flash_board", None)  # what is there already is left alone
    with MicrocontrollerSession(device) as session:
        session.load(tiny)
        assert session.run(image).tolist() == stand_in.compute_pool(image).tolist()


@needs_gdb
def test_another_network_takes_the_firsts_place(empty_board, tiny, stand_in, tmp_path):
    device = _desk(empty_board.serial, f"gdb:{empty_board.address}")
    layers = stand_in.LAYERS.replace("out[c] = (int8_t)(sum >> 4);", "out[c] = (int8_t)(1 + (sum >> 4));")
    images = stand_in.make_images(3)
    outputs = [stand_in.compute_pool(image) + 1 for image in images]
    other = stand_in.write_artifact(tmp_path / "other", layers=layers, outputs=outputs)
    for artifact, added in ((tiny, 0), (other, 1)):
        with MicrocontrollerSession(device) as session:
            session.load(artifact)
            assert session.run(images[0]).tolist() == (stand_in.compute_pool(images[0]) + added).tolist()


@needs_gdb
def test_a_server_that_goes_away_in_the_middle_is_told(empty_board, between, tiny):
    image = build_firmware(tiny, NETDUINO)
    passed = 0

    def cut(data):
        nonlocal passed
        passed += data.count(b"$OK#")
        return data if passed < 8 else None

    line = between(cut)
    with pytest.raises(
        FlashError, match=r"127.0.0.1:\d+: .* while the image was loaded; are probe and board"
    ) as caught:
        flash_board.flash_board(FlashWay("gdb", line.address), NETDUINO, image)
    assert "\n" not in str(caught.value)


@needs_gdb
def test_a_board_with_other_bytes_than_were_sent_is_told(between, tiny):
    line = between(damage_memory)
    with pytest.raises(FlashError, match=r"section \.\w+ at 0x0?80\w+ is not on the board as it was sent"):
        flash_board.flash_board(FlashWay("gdb", line.address), NETDUINO, build_firmware(tiny, NETDUINO))


@needs_gdb
def test_another_chip_is_told_before_anything_is_written(empty_board, tiny):
    board = get_board("nucleo_f746zg")
    with pytest.raises(FlashError, match="the core there is cortex-m4, nucleo_f746zg has a cortex-m7; nothing was"):
        flash_board.flash_board(FlashWay("gdb", empty_board.address), board, build_firmware(tiny, board))


@needs_gdb
def test_no_server_is_told(empty_board, tiny):
    empty_board.close()
    with pytest.raises(FlashError, match=r"no GDB server answers there \(.+\); is OpenOCD"):
        flash_board.flash_board(FlashWay("gdb", empty_board.address), NETDUINO, build_firmware(tiny, NETDUINO))


@needs_gdb
def test_a_port_that_another_program_holds_is_told(empty_board, tiny):
    device = _desk(empty_board.serial, f"gdb:{empty_board.address}")
    with MicrocontrollerSession(device) as first, MicrocontrollerSession(device) as second:
        first.load(tiny)
        with pytest.raises(DeviceUnreachableError, match="another program holds it"):
            second.load(tiny)


def test_without_gdb_a_line_says_how_to_get_it(monkeypatch, tmp_path, tiny):
    image = build_firmware(tiny, NETDUINO)
    monkeypatch.setenv("PATH", str(tmp_path))
    for tool, package in (("gdb", "gdb-multiarch"), ("openocd", "openocd")):
        with pytest.raises(FlashError, match=f"{package} is not installed; `apt install {package}` brings it"):
            flash_board.flash_board(FlashWay(tool, "127.0.0.1:1"), NETDUINO, image)


def _command(*words):
    return CliRunner().invoke(thumbnet, ["flash", *map(str, words)], standalone_mode=False)


def test_the_command_writes_the_files_and_touches_no_board(tmp_path, tiny):
    toml = tmp_path / "devices.toml"
    toml.write_text('[devices.desk]\nboard = "rpi_pico2"\nkind = "serial"\nport = "/dev/none"\n')
    out = tmp_path / "out"
    done = _command(tiny.folder, "--device", "desk", "--devices", toml, "--only-build", "-o", out)
    assert done.exception is None, done.exception
    assert sorted(path.name for path in out.iterdir()) == ["tiny.bin", "tiny.elf", "tiny.hex", "tiny.uf2"]


@needs_gdb
def test_the_command_flashes_what_is_not_there(empty_board, tmp_path, tiny):
    toml, result = tmp_path / "devices.toml", tmp_path / "result.json"
    toml.write_text(
        f'[devices.desk]\nboard = "netduinoplus2"\nkind = "serial"\nport = "{empty_board.serial}"\n'
        f'flash = "gdb:{empty_board.address}"\n'
    )
    for options, flashed in (((), True), ((), False), (("--force",), True)):
        done = _command(tiny.folder, "--device", "desk", "--devices", toml, "--json", result, *options)
        assert done.exception is None, done.exception
        assert json.loads(result.read_text())["flashed"] is flashed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "qemu_netduinoplus2"], "an emulated board starts with its firmware"),
        (["--device", "qemu_raspberry_pi_2", "--only-build", "-o", "x"], "is no microcontroller"),
        (["--device", "qemu_netduinoplus2", "--only-build"], "go together"),
        (
            ["--device", "qemu_netduinoplus2", "--protocol", "mlperf-tiny"],
            "can't ask such a firmware what it runs; take",
        ),
        (
            ["--device", "qemu_netduinoplus2", "--protocol", "mlperf-tiny", "--only-build", "-o", "x"],
            "says nothing of its pixels; compile the network again",
        ),
    ],
)
def test_what_the_command_cant_do_is_told(tiny, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in str(_command(tiny.folder, *words).exception)


def test_a_device_that_says_nothing_of_flashing_is_told(tiny):
    device = Device("desk", NETDUINO, "serial", address="/dev/none")
    with pytest.raises(FlashError, match="desk: nobody has said how it is flashed; put flash = "):
        deploy.deploy(device, build_firmware(tiny, NETDUINO), None)
