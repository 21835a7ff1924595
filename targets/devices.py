"""What is on this desk: the built-in emulated devices, this computer, and the user's own from a devices.toml.

A devices.toml looks like this::

    [devices.my_nucleo]
    board = "nucleo_l4r5zi"
    kind = "serial"
    port = "/dev/ttyACM0"
    baud = 115200           # the default
    flash = "openocd:board/st_nucleo_l4.cfg"    # how a firmware gets there, see `flash_way`; may be left out

    [devices.my_other_nucleo]
    board = "nucleo_l4r5zi"
    kind = "serial"
    serial_number = "066CFF"    # in place of port: its USB serial number, see `thumbnet devices --scan`
    interface = 2               # only where that has several ports
    flash = "pyocd"
    probe = "066CFF"            # the probe's serial number, where there are several

    [devices.my_pi]
    board = "raspberry_pi_4"
    kind = "rpc"
    tracker = "192.168.1.2:9190"
    key = "pi4"

    [devices.my_old_pi]
    board = "raspberry_pi_2"
    kind = "tcp"
    address = "192.168.1.3:7355"

    [boards.my_board]       # a board of one's own, see `board_file`; or kind = "emulated" where it says `qemu`
    description = "..."
    ...
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thumbnet.targets.board import Board
from thumbnet.targets.board_file import parse_board, read_tables
from thumbnet.targets.device import Device
from thumbnet.targets.errors import BoardError, DeviceError
from thumbnet.targets.flash_way import FlashWay, parse_flash_way
from thumbnet.targets.host_port import is_host_port
from thumbnet.targets.registry import BOARDS, get_board
from thumbnet.targets.suggest import suggest

#: Where the user's devices are looked for when no file is named.
DEFAULT_FILE = Path("devices.toml")

BUILT_IN: tuple[Device, ...] = (
    *(Device(f"qemu_{board.name}", board, "emulated") for board in BOARDS if board.qemu is not None),
    Device("local", get_board("host"), "local"),
)

LONGEST_TEXT = 255
FASTEST_BAUD = 100_000_000
#: Fields of each kind of device in a devices.toml, beside board and kind: name, type, whether it must be there.
_FIELDS: dict[str, dict[str, tuple[type, bool]]] = {
    "serial": {
        "port": (str, False),
        "serial_number": (str, False),
        "interface": (int, False),
        "baud": (int, False),
        "flash": (str, False),
        "probe": (str, False),
    },
    "rpc": {"tracker": (str, True), "key": (str, True)},
    "tcp": {"address": (str, True)},
    "emulated": {},
}

#: How a real board is reached, by the kind of its device.
_WAYS = {
    "serial": "a microcontroller, reached over a serial port",
    "rpc": "reached by a tracker",
    "tcp": "reached by the address of its firmware, a program",
}


def list_devices(toml_path: Path | None = None) -> list[Device]:
    """Return the built-in devices, then the user's own.

    Parameters
    ----------
    toml_path : Path or None
        The user's devices.toml; None looks for ``./devices.toml``, which may be missing.

    Raises
    ------
    DeviceError
        The file is missing though named, is no TOML, or describes a device wrongly.
    """
    if toml_path is None:
        if not DEFAULT_FILE.is_file():
            return list(BUILT_IN)
        toml_path = DEFAULT_FILE
    return [*BUILT_IN, *_read_toml(toml_path)]


def get_device(name: str, toml_path: Path | None = None) -> Device:
    """Return the device of that name, see `list_devices`.

    Raises
    ------
    DeviceError
        There is none (the message names the nearest match and all known devices), or the file is wrong.
    """
    devices = {device.name: device for device in list_devices(toml_path)}
    if name in devices:
        return devices[name]
    raise DeviceError(f"unknown device {name}{suggest(name, list(devices))}; known: {', '.join(devices)}")


def devices_of(board: Board, toml_path: Path | None = None) -> list[Device]:
    """Return the devices of a type of board: the real ones or, where there are none, emulated ones.

    Raises
    ------
    DeviceError
        There is none, or the file is wrong, see `list_devices`.
    """
    devices = [device for device in list_devices(toml_path) if device.board.name == board.name]
    if not devices:
        raise DeviceError(
            f"no device is a {board.name}; a table [devices.NAME] in {toml_path or DEFAULT_FILE} adds one"
        )
    return [device for device in devices if not device.emulated] or devices


def check_places(devices: Sequence[Device]) -> None:
    """Check that no two devices are the same port; many on one tracker may well be.

    Raises
    ------
    DeviceError
        Two are.
    """
    seen: dict[str, Device] = {}
    for device in devices:
        if device.kind not in ("serial", "tcp"):
            continue
        by_path = device.kind == "serial" and device.address
        place = os.path.realpath(device.address) if by_path else device.place
        if (other := seen.setdefault(place, device)) is not device:
            raise DeviceError(f"{other.name} and {device.name} are both at {device.place}; name one of them")


def read_own_boards(toml_path: Path | None = None) -> list[Board]:
    """Return the boards of the user's own in a devices.toml, see `list_devices`.

    Raises
    ------
    DeviceError, BoardError
        The file is missing though named, is no TOML, or describes a board wrongly.
    """
    if toml_path is None and not DEFAULT_FILE.is_file():
        return []
    path = toml_path or DEFAULT_FILE
    tables = _tables_of(path, read_tables(path, DeviceError), "boards")
    boards = []
    for name, table in tables.items():
        where = f"{path}: board {name[:LONGEST_TEXT]!r}"
        if name in {board.name for board in BOARDS}:
            raise BoardError(f"{where}: that is the name of a built-in board; choose another")
        boards.append(parse_board(name, table, where))
    return boards


def _read_toml(path: Path) -> list[Device]:
    document = read_tables(path, DeviceError)
    extra = sorted(set(document) - {"devices", "boards"})
    if extra:
        raise DeviceError(
            f"{path}: unknown table or field {extra[0]}; a device is a table [devices.NAME], a board [boards.NAME]"
        )
    own = read_own_boards(path)
    return [_parse_device(path, name, table, own) for name, table in _tables_of(path, document, "devices").items()]


def _tables_of(path: Path, document: dict[str, Any], what: str) -> dict[str, Any]:
    tables = document.get(what, {})
    if not isinstance(tables, dict):
        raise DeviceError(f"{path}: {what} must be tables [{what}.NAME]")
    return tables


def _parse_device(path: Path, name: str, table: Any, own: Sequence[Board]) -> Device:  # noqa: ANN401 - of TOML
    where = f"{path}: device {name}"
    if not isinstance(table, dict):
        raise DeviceError(f"{where}: must be a table [devices.{name}]")
    if not _is_text(name):
        raise DeviceError(f"{path}: device {name[:LONGEST_TEXT]!r}: a name is 1 to {LONGEST_TEXT} printable characters")
    if name in {device.name for device in BUILT_IN}:
        raise DeviceError(f"{where}: that is the name of a built-in device; choose another")
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise DeviceError(f"{where}: kind is {kind!r}; known: {', '.join(_FIELDS)}")
    _check_fields(where, table, {"board": (str, True), "kind": (str, True), **_FIELDS[kind]})
    try:
        board = get_board(table["board"], own)
    except BoardError as error:
        raise DeviceError(f"{where}: {error}") from error
    if kind == "emulated":
        if board.qemu is None:
            raise DeviceError(f"{where}: no emulator is known for {board.name}; its board says none by qemu = ...")
        return Device(name, board, "emulated")
    fitting = _kind_of_real_device(board)
    if kind != fitting:
        raise DeviceError(f'{where}: {board.name} is {_WAYS[fitting]}; use kind = "{fitting}"')
    if kind == "serial":
        return _serial_device(where, name, board=board, table=table)
    place = "tracker" if kind == "rpc" else "address"
    if not is_host_port(table[place]):
        raise DeviceError(f"{where}: {place} is {table[place]!r}, it must be HOST:PORT")
    return Device(name, board, "rpc" if kind == "rpc" else "tcp", address=table[place], key=table.get("key", ""))


def _kind_of_real_device(board: Board) -> str:
    """Return the one kind of device that a real board can be."""
    if not board.runs_linux:
        return "serial"
    return "tcp" if board.artifact == "c" else "rpc"


def _check_fields(where: str, table: dict[str, Any], fields: dict[str, tuple[type, bool]]) -> None:
    for field in table:
        if field not in fields:
            known = ", ".join(fields)
            raise DeviceError(f"{where}: unknown field {field}{suggest(field, list(fields))}; it can have {known}")
    for field, (wanted, required) in fields.items():
        if field not in table:
            if required:
                raise DeviceError(f"{where}: {field} is missing")
        elif not isinstance(table[field], wanted) or isinstance(table[field], bool):
            kind_name = "text" if wanted is str else "a whole number"
            raise DeviceError(f"{where}: {field} is {reprlib.repr(table[field])}, it must be {kind_name}")
        elif wanted is str and not _is_text(table[field]):
            raise DeviceError(
                f"{where}: {field} is {reprlib.repr(table[field])}, it must be text of 1 to {LONGEST_TEXT} printable"
                " characters"
            )


def _serial_device(where: str, name: str, board: Board, table: dict[str, Any]) -> Device:
    if "port" not in table and "serial_number" not in table:
        raise DeviceError(f"{where}: port is missing, or serial_number")
    if "port" in table and len({"serial_number", "interface"} & set(table)):
        raise DeviceError(f"{where}: port says which one it is; leave serial_number and interface out, or port")
    interface = table.get("interface")
    if interface is not None and not 0 <= interface < 256:
        raise DeviceError(f"{where}: interface is {reprlib.repr(interface)}, it must be 0 to 255")
    baud = table.get("baud", Device.baud)
    if not 0 < baud <= FASTEST_BAUD:
        raise DeviceError(f"{where}: baud is {reprlib.repr(baud)}, it must be 1 to {FASTEST_BAUD:,}")
    flash: FlashWay | None = None
    if "probe" in table and "flash" not in table:
        raise DeviceError(f"{where}: probe says by which probe flash = ... goes; flash is missing")
    if "flash" in table:
        try:
            flash = parse_flash_way(table["flash"], table.get("probe", ""))
        except ValueError as error:
            raise DeviceError(f"{where}: flash is {reprlib.repr(table['flash'])}: {error}") from error
    return Device(
        *(name, board, "serial"),
        address=table.get("port", ""),
        serial_number=table.get("serial_number", ""),
        interface=interface,
        baud=baud,
        flash=flash,
    )


def _is_text(value: str) -> bool:
    return 0 < len(value) <= LONGEST_TEXT and value.isprintable()
