"""Devices that are known to misbehave and left out of tests, as a file says it.

Such a file looks like this::

    [[quarantine]]
    device = "my_nucleo"        # one device, by its name in devices.toml
    reason = "its cable is loose"

    [[quarantine]]
    board = "rpi_pico"          # all devices of a type of board
    reason = "new regulators are on their way"
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thumbnet.targets.board_file import read_tables
from thumbnet.targets.device import Device
from thumbnet.targets.errors import QuarantineError
from thumbnet.targets.suggest import suggest

_FIELDS = ("device", "board", "reason")


@dataclass(frozen=True)
class Quarantine:
    """Why which devices are left out.

    Parameters
    ----------
    devices, boards : dict of str to str
        Reason by the name of a device, and by that of a type of board.
    """

    devices: dict[str, str]
    boards: dict[str, str]

    def reason_for(self, device: Device) -> str | None:
        """Return why a device is left out, None where it isn't."""
        return self.devices.get(device.name) or self.boards.get(device.board.name)


def read_quarantine(path: Path) -> Quarantine:
    """Read a file of devices to leave out.

    Raises
    ------
    QuarantineError
        It can't be read, is no TOML, or an entry doesn't say which device and why.
    """
    document = read_tables(path, QuarantineError)
    entries = document.pop("quarantine", [])
    if document:
        raise QuarantineError(f"{path}: unknown table or field {min(document)[:80]!r}; an entry is a [[quarantine]]")
    if not isinstance(entries, list):
        raise QuarantineError(f"{path}: quarantine must be a list; an entry is a [[quarantine]]")
    found = Quarantine({}, {})
    for number, entry in enumerate(entries, 1):
        where = f"{path}: entry {number}"
        _check_entry(where, entry)
        names, kind = (found.devices, "device") if "device" in entry else (found.boards, "board")
        if entry[kind] in names:
            raise QuarantineError(f"{where}: {kind} {entry[kind]!r} is there already")
        names[entry[kind]] = entry["reason"]
    return found


def _check_entry(where: str, entry: Any) -> None:  # noqa: ANN401 - of TOML
    if not isinstance(entry, dict):
        raise QuarantineError(f"{where}: must be a table with device or board, and reason")
    for field, value in entry.items():
        if field not in _FIELDS:
            raise QuarantineError(f"{where}: unknown field {field[:80]!r}{suggest(field, list(_FIELDS))}")
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            raise QuarantineError(f"{where}: {field} must be printable text")
    if ("device" in entry) == ("board" in entry):
        raise QuarantineError(f"{where}: must name either a device or a board")
    if "reason" not in entry:
        raise QuarantineError(f"{where}: reason is missing")
