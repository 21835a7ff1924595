"""Boards as data: what is read, and one line for what is wrong."""

import json
import tomllib

import pytest

from thumbnet.targets.board import Memory
from thumbnet.targets.board_file import parse_board, read_board
from thumbnet.targets.devices import get_device, list_devices, read_own_boards
from thumbnet.targets.errors import BoardError, DeviceError
from thumbnet.targets.registry import described_by, get_board, list_boards

OWN = """
description = "my board"
core = "cortex-m7"
clock_hz = 100_000_000
flash = [{ name = "FLASH", origin = 0x0800_0000, size = 0x10_0000 }]
ram = [
  { name = "DTCM", origin = 0x2000_0000, size = 0x1_0000 },
  { name = "SRAM", origin = 0x2001_0000, size = 0x4_0000 },
]

[port]
family = "stm32"
series = "f7"
uart_base = 0x4000_4800
uart_irq = 39
tx_pin = "PD8"
rx_pin = "PB11"
pin_function = 7
"""


def _changed(old, new):
    assert OWN.count(old) == 1
    return OWN.replace(old, new)


def test_a_board_of_ones_own_is_read_from_its_file(tmp_path):
    (tmp_path / "my_board.toml").write_text(OWN)
    board = read_board(tmp_path / "my_board.toml")
    assert (board.name, board.core, board.clock_hz, board.firmware) == ("my_board", "cortex-m7", 100_000_000, "stm32")
    assert board.ram_banks == (Memory("DTCM", 0x2000_0000, 64 << 10), Memory("SRAM", 0x2001_0000, 256 << 10))
    assert board.peripherals["TX_PIN"] == 3 * 16 + 8 and board.peripherals["RX_PIN"] == 16 + 11
    assert board.peripherals["UART_BASE"] == 0x4000_4800 and board.series == "f7"
    assert "MARKER_PIN" not in board.peripherals
    (tmp_path / "my_board.toml").write_text(OWN + 'marker_pin = "PA5"')
    assert read_board(tmp_path / "my_board.toml").peripherals["MARKER_PIN"] == 5


def test_every_built_in_board_is_a_start_for_ones_own(tmp_path):
    for board in list_boards():
        file = described_by(board)
        if file is None:
            continue
        for path, text in (
            (tmp_path / f"{board.name}.toml", file.read_text()),
            (tmp_path / f"{board.name}.json", json.dumps(tomllib.loads(file.read_text()))),
        ):
            path.write_text(text)
            assert read_board(path) == board


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_changed("clock_hz", "clok_hz"), "unknown field clok_hz, did you mean clock_hz"),
        (_changed("clock_hz = 100_000_000", ""), "clock_hz is missing"),
        (_changed("cortex-m7", "cortex-m8"), "unknown core cortex-m8, did you mean cortex-m"),
        (_changed("cortex-m7", "-mcpu=x"), "core is '-mcpu=x'"),
        (_changed('description = "my board"', ""), "description is missing"),
        (_changed("100_000_000", "true"), "clock_hz is True"),
        (_changed("100_000_000", '"fast"'), "clock_hz is 'fast'"),
        (_changed("100_000_000", "0"), "clock_hz is 0"),
        (_changed("0x1_0000 }", "0 }"), r"ram\.0\.size is 0"),
        (_changed("0x1_0000 }", "0x1_0004 }"), "DTCM and SRAM overlap"),
        (_changed("0x10_0000", "0xFFFF_FFFF"), "FLASH ends at 0x107ffffff, behind the last address"),
        (_changed('"DTCM"', '"SRAM"'), "two memories are called SRAM"),
        (_changed('"DTCM"', '"D*; }"'), r"ram\.0\.name is 'D\*; }'"),
        (_changed('"DTCM", origin', '"DTCM", orign'), r"unknown field ram\.0\.orign|ram\.0\.origin is missing"),
        (_changed("flash = [{", "flash = [] # {"), "needs both a flash and a ram"),
        (_changed('"stm32"', '"stm8"'), "port is .*stm8"),
        (_changed('family = "stm32"', ""), r"port\.family is missing"),
        (_changed('"f7"', '"f9"'), r"port\.series is 'f9'"),
        (_changed('"PD8"', '"PD16"'), r"port\.tx_pin is 'PD16': a port has pins 0 to 15, not 16"),
        (_changed('"PD8"', '"D8"'), r"port\.tx_pin is 'D8'"),
        (_changed("tx_pin", "txpin"), r"port\.tx_pin is missing|unknown field port\.txpin, did you mean tx_pin"),
        (_changed("pin_function = 7", "pin_function = 16"), r"port\.pin_function is 16"),
        (_changed("uart_irq = 39", "uart_irq = 480"), r"port\.uart_irq is 480"),
        (OWN + 'supply = "battery"', r"port\.supply is 'battery'"),
        (OWN + 'marker_pin = "PA16"', r"port\.marker_pin is 'PA16': a port has pins 0 to 15, not 16"),
        (OWN + 'marker_pin = "PD8"', r"port\.marker_pin is .*: the line needs that pin for itself"),
        (OWN + 'marker_pin = "PB11"', r"port\.marker_pin is .*: the line needs that pin for itself"),
        (OWN + "marker_pin = 5", r"port\.marker_pin is 5"),
        (OWN + 'marker = "PA5"', r"unknown field port\.marker, did you mean marker_pin"),
        (OWN + "[cache]\n", "unknown field cache, did you mean caches"),
        ("flash = 3\n" + _changed("flash = [{", "# ["), "flash is 3"),
        ("a = " + "[" * 20_000, "not TOML"),
    ],
)
def test_what_is_wrong_is_one_clear_line(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(BoardError, match=message) as caught:
        read_board(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["my board", "../x", "Board", "", "a" * 65])
def test_a_boards_name_is_an_identifier(name):
    with pytest.raises(BoardError, match=r"^here: name is"):
        parse_board(name, tomllib.loads(OWN), "here")


def test_other_files_are_refused(tmp_path):
    for path in ("/dev/zero", str(tmp_path)):
        with pytest.raises(BoardError, match="no regular file"):
            read_board(type(tmp_path)(path))
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(BoardError, match="not a table"):
        read_board(tmp_path / "list.json")


def _devices(tmp_path, board, devices):
    head, port = OWN.split("[port]")
    banks = head.replace("[\n", "[").replace("},\n", "},").replace("},]", "}]")
    path = tmp_path / "devices.toml"
    path.write_text(f"[boards.{board}]\n{banks}\n[boards.{board}.port]{port}\n{devices}")
    return path


def test_a_devices_toml_may_have_boards(tmp_path):
    path = _devices(tmp_path, "mine", '[devices.desk]\nboard = "mine"\nkind = "serial"\nport = "/dev/ttyACM0"\n')
    assert get_device("desk", path).board == read_own_boards(path)[0] == get_board("mine", read_own_boards(path))
    with pytest.raises(BoardError, match="unknown board mine"):
        get_board("mine")


def test_a_board_of_the_built_in_ones_name_is_refused(tmp_path):
    with pytest.raises(BoardError, match="name of a built-in board"):
        list_devices(_devices(tmp_path, "nucleo_f446re", ""))


def test_an_emulated_device_needs_an_emulator(tmp_path):
    path = _devices(tmp_path, "mine", '[devices.desk]\nboard = "mine"\nkind = "emulated"\n')
    with pytest.raises(DeviceError, match="no emulator is known for mine"):
        list_devices(path)
    path.write_text(path.read_text().replace('description = "my board"', 'description = "x"\nqemu = "netduinoplus2"'))
    assert get_device("desk", path).kind == "emulated"


@pytest.mark.parametrize(
    ("flash", "tool", "argument"),
    [
        ("gdb:localhost:3333", "gdb", "localhost:3333"),
        ("gdb:[::1]:2331", "gdb", "[::1]:2331"),
        ("pyocd", "pyocd", ""),
        ("pyocd:stm32l475xg", "pyocd", "stm32l475xg"),
        ("openocd:board/st_nucleo_l4.cfg", "openocd", "board/st_nucleo_l4.cfg"),
        ("uf2:RPI-RP2", "uf2", "RPI-RP2"),
        ("uf2:/media/me/RPI-RP2", "uf2", "/media/me/RPI-RP2"),
        ("command: st-flash --format ihex write {hex}", "command", "st-flash --format ihex write {hex}"),
    ],
)
def test_a_device_says_how_it_is_flashed(tmp_path, flash, tool, argument):
    serial = f'[devices.desk]\nboard = "mine"\nkind = "serial"\nport = "/dev/ttyACM0"\nflash = "{flash}"\n'
    way = get_device("desk", _devices(tmp_path, "mine", serial)).flash
    assert (way.tool, way.argument) == (tool, argument)


@pytest.mark.parametrize(
    ("flash", "message"),
    [
        ("jlink", 'it must be "gdb:HOST:PORT"'),
        ("gdb:localhost", "behind gdb: stands HOST:PORT"),
        ("gdb:h:99999", "behind gdb: stands HOST:PORT"),
        ("pyocd:a b", "pyOCD's name of the chip"),
        ("openocd:", "a script of OpenOCD"),
        ("openocd:-c shutdown", "a script of OpenOCD"),
        ("uf2:", "folder or label"),
        ("uf2:../x", "a folder from / on"),
        ("command: flash it", "names no image"),
        ("command: flash {exe}", r"has no {exe}; it can have {elf}"),
        ("command: flash {elf", "braces"),
    ],
)
def test_an_unknown_way_of_flashing_is_one_clear_line(tmp_path, flash, message):
    serial = f'[devices.desk]\nboard = "mine"\nkind = "serial"\nport = "/dev/ttyACM0"\nflash = "{flash}"\n'
    with pytest.raises(DeviceError, match=message) as caught:
        list_devices(_devices(tmp_path, "mine", serial))
    assert "device desk: flash is" in str(caught.value) and "\n" not in str(caught.value)
