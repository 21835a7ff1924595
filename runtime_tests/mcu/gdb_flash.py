"""Flashing by GDB, through whatever serves its remote protocol: OpenOCD, pyOCD, J-Link, Black Magic Probe, QEMU."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from thumbnet.runtime_tests.errors import FlashError
from thumbnet.runtime_tests.guarded_process import run_guarded
from thumbnet.runtime_tests.run_folder import run_folder
from thumbnet.targets.board import Board

#: Debian's GDB for all cores, and the one of Arm's toolchain.
_GDBS = ("gdb-multiarch", "arm-none-eabi-gdb")
CPUID = 0xE000_ED00
#: The part number in it.
PART_NUMBERS = {
    "cortex-m0plus": 0xC60,
    "cortex-m3": 0xC23,
    "cortex-m4": 0xC24,
    "cortex-m7": 0xC27,
    "cortex-m33": 0xD21,
    "cortex-m55": 0xD22,
}
#: The board is halted after a reset, so that peripherals are as the firmware expects them. A server that doesn't know
#: these words says so, which is no error. `load` leaves the program counter at the firmware's start, where `detach`
#: lets it run. A Black Magic Probe has to look for its board first.
_SCRIPT = """\
set confirm off
set pagination off
set remotetimeout 20
set tcp connect-timeout 5
echo @connect\\n
target extended-remote {address}
if $_thread == 0
  monitor swdp_scan
  attach 1
end
monitor reset halt
echo @core\\n
set $part = (*(unsigned int *){cpuid:#x} >> 4) & 0xFFF
if $part != {part:#x}
  printf "@other core %#x\\n", $part
  disconnect
  quit 3
end
echo @load\\n
load
echo @verify\\n
compare-sections
echo @run\\n
detach
echo @done\\n
"""
_STEPS = {
    "connect": "before it was connected",
    "core": "while it looked at the core",
    "load": "while the image was loaded",
    "verify": "while the image was compared",
    "run": "before the board was started",
}


def flash_by_gdb(address: str, board: Board, elf: Path) -> None:
    """Load an image through a GDB server, compare what is on the board then, and start it.

    Parameters
    ----------
    address : str
        ``HOST:PORT`` of the server.
    board : Board
        What should be there.
    elf : Path
        The image.

    Raises
    ------
    FlashError
        One line: GDB or the server is missing, another core is there, the server went away, the board has other bytes.
    """
    gdb = next(filter(None, map(shutil.which, _GDBS)), None)
    if gdb is None:
        raise FlashError(f"{_GDBS[0]} is not installed; `apt install {_GDBS[0]}` brings it")
    with tempfile.TemporaryDirectory(dir=run_folder()) as name:
        script = Path(name) / "flash.gdb"
        script.write_text(_SCRIPT.format(address=address, cpuid=CPUID, part=PART_NUMBERS[board.core]))
        done = run_guarded([gdb, "--batch", "--nx", "-x", str(script), str(elf)])
    _check(f"{done.stdout}\n{done.stderr}", address, board)


def part_number(cpuid: int) -> int:
    """Return the part number in the value of the core's CPUID register."""
    return cpuid >> 4 & 0xFFF


def explain_core(part: int, board: Board) -> str | None:
    """Return what is wrong where a core is not the board's, None where it is."""
    if part == PART_NUMBERS[board.core]:
        return None
    names = {number: core for core, number in PART_NUMBERS.items()}
    there = names.get(part, f"an unknown one (part {part:#x})")
    return f"the core there is {there}, {board.name} has a {board.core}; nothing was flashed"


def _check(said: str, address: str, board: Board) -> None:
    """Raise what GDB's words mean, unless it came to the end and all sections matched."""
    if found := re.search("@other core (0x[0-9a-f]+)", said):
        raise FlashError(f"{address}: {explain_core(int(found[1], 16), board)}")
    if found := re.search(r"^Section (\S+), range (0x[0-9a-f]+) .*MIS-MATCHED", said, re.MULTILINE):
        raise FlashError(
            f"{address}: section {found[1]} at {found[2]} is not on the board as it was sent: is its flash "
            f"write-protected or worn, or the chip smaller than {board.name}'s?"
        )
    if "@done" in said:
        return
    step = re.findall("^@([a-z]+)$", said, re.MULTILINE)[-1:] or ["connect"]
    reason = _reason(said)
    if step == ["connect"]:
        raise FlashError(f"{address}: no GDB server answers there ({reason}); is OpenOCD, pyOCD or J-Link started?")
    raise FlashError(
        f"{address}: {reason} {_STEPS[step[0]]}; are probe and board still connected? Flash it again before you use it"
    )


def _reason(said: str) -> str:
    """Return the line that says what is wrong."""
    lines = [re.sub(r"^.*?: (?=\S)", "", line) if "flash.gdb" in line else line for line in said.splitlines()]
    lines = [line.strip().rstrip(".:") for line in lines if line.strip() and not line.startswith("@")]
    words = re.compile("closed|refused|timed out|error|fail|can't|cannot|no route|not known|reset by", re.IGNORECASE)
    telling = [line for line in lines if words.search(line) and "Error in sourced command file" not in line]
    return telling[-1] if telling else "GDB ended"
