"""How a firmware gets onto a board, as a devices.toml says it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Literal, get_args

from thumbnet.targets.host_port import is_host_port

FlashTool = Literal["gdb", "pyocd", "openocd", "uf2", "command"]
#: What a command may name of the image.
PLACEHOLDERS = ("elf", "hex", "bin", "uf2")
#: What can be told which of several probes to take.
_CHOOSES_PROBE = ("pyocd", "openocd")
_FORMS = 'it must be "gdb:HOST:PORT", "pyocd", "pyocd:TARGET", "openocd:BOARD.cfg", "uf2:FOLDER or LABEL" or "command:"'


@dataclass(frozen=True)
class FlashWay:
    """How a firmware gets onto a board.

    Parameters
    ----------
    tool : {"gdb", "pyocd", "openocd", "uf2", "command"}
        What does it: GDB by the server of a probe, pyOCD, OpenOCD, a copy to a drive, a command of one's own.
    argument : str
        The server's ``HOST:PORT``; pyOCD's name of the chip, or empty; OpenOCD's script; the drive's folder or label;
        the command, with ``{elf}``, ``{hex}``, ``{bin}`` or ``{uf2}`` where the image's path goes.
    probe : str
        pyOCD and OpenOCD: serial number of the probe, empty where there is only one.
    """

    tool: FlashTool
    argument: str = ""
    probe: str = ""


def parse_flash_way(text: str, probe: str = "") -> FlashWay:
    """Read what a devices.toml says, and which probe it names.

    Raises
    ------
    ValueError
        It says nothing that is known; the message tells the forms. Or a probe is named to what doesn't choose one.
    """
    name, _, argument = text.partition(":")
    argument = argument.strip()
    tool = next((known for known in get_args(FlashTool) if known == name), None)
    if tool is None:
        raise ValueError(_FORMS)
    if tool == "gdb" and not is_host_port(argument):
        raise ValueError("behind gdb: stands HOST:PORT")
    if tool == "pyocd" and argument and not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", argument):
        raise ValueError("behind pyocd: stands pyOCD's name of the chip, see `pyocd list --targets`")
    if tool in ("openocd", "uf2") and (not argument or argument.startswith("-")):
        raise ValueError(
            f"behind {tool}: {'a script of OpenOCD' if tool == 'openocd' else 'a folder or label'} is missing"
        )
    if tool == "uf2" and "/" in argument and not Path(argument).is_absolute():
        raise ValueError("behind uf2: stands a folder from / on, or the label of a drive")
    if tool == "command":
        _check_command(argument)
    if probe and tool not in _CHOOSES_PROBE:
        raise ValueError(f"probe = ... is for {' and '.join(_CHOOSES_PROBE)}; leave it out")
    if probe and not re.fullmatch(r"[A-Za-z0-9_.:-]{1,128}", probe):
        raise ValueError("the serial number of a probe has letters, digits, and some of _ . : -")
    return FlashWay(tool, argument, probe)


def _check_command(command: str) -> None:
    try:
        fields = [field for _, field, _, _ in Formatter().parse(command) if field is not None]
    except ValueError as error:
        raise ValueError(f"the braces of the command don't match ({error})") from error
    if unknown := [field for field in fields if field not in PLACEHOLDERS]:
        raise ValueError(
            f"a command has no {{{unknown[0]}}}; it can have {', '.join(f'{{{p}}}' for p in PLACEHOLDERS)}"
        )
    if not fields:
        raise ValueError("the command names no image: {elf}, {hex}, {bin} or {uf2} is missing in it")
