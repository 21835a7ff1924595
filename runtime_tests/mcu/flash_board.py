"""A firmware onto a board, by whatever its device says: GDB, pyOCD, OpenOCD, a boot loader's drive, a command."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import tempfile
import time
from pathlib import Path

from thumbnet.compile.progress import Progress, say_nothing
from thumbnet.runtime_tests.errors import FlashError
from thumbnet.runtime_tests.guarded_process import run_guarded
from thumbnet.runtime_tests.mcu.firmware_build import FirmwareImage
from thumbnet.runtime_tests.mcu.gdb_flash import flash_by_gdb
from thumbnet.runtime_tests.mcu.image_files import formats_for, write_image
from thumbnet.runtime_tests.mcu.pyocd_flash import flash_by_pyocd
from thumbnet.runtime_tests.run_folder import run_folder
from thumbnet.targets.board import Board
from thumbnet.targets.flash_way import FlashWay

#: Where systems put drives.
_DRIVES = ("/media", "/run/media", "/mnt", "/Volumes")
#: What every boot loader with a drive keeps there.
_UF2_INFO = "INFO_UF2.TXT"
#: How the boot ROMs call their boards there.
_UF2_BOARDS = {"rp2040": "RPI-RP2", "rp2350": "RP2350"}
#: A person holds a button and plugs a cable in.
UF2_WAIT_S = 30.0
_POLL_S = 0.2
#: What OpenOCD says of the usual faults, and what they mean.
_OPENOCD_FAULTS = {
    "** Verify Failed **": "what is on the board is not what was sent",
    "LIBUSB_ERROR_BUSY": "another program holds the probe",
    "LIBUSB_ERROR_ACCESS": "the probe may not be opened: its udev rule is missing",
    "UNEXPECTED idcode": "another chip is there than the script is for",
    "expected 1 of 1": "another chip is there than the script is for",
    "init mode failed (unable to connect to the target)": "the probe finds no chip: is the board powered?",
    "open failed": "no probe is there",
    "no device found": "no probe is there",
    "Can't find": "there is no such script",
}


def flash_board(way: FlashWay, board: Board, image: FirmwareImage, progress: Progress = say_nothing) -> None:
    """Put a firmware on a board, verify it as far as the tool can, and start it.

    Parameters
    ----------
    way : FlashWay
        By what.
    board : Board
        What it was built for.
    image : FirmwareImage
        The firmware.
    progress : callable
        Told before each step what is done next.

    Raises
    ------
    FlashError
        One line: what went wrong, where, and what to look at.
    ToolchainError
        The image can't be made in the format that is asked for.
    """
    progress(f"flashing {board.name} by {way.tool}")
    if way.tool == "gdb":
        flash_by_gdb(way.argument, board, image.elf)
    elif way.tool == "pyocd":
        _flash_by_pyocd(way, board, image)
    elif way.tool == "openocd":
        _flash_by_openocd(way.argument, way.probe, image.elf)
    elif way.tool == "uf2":
        _flash_by_drive(way.argument, board, image, progress)
    else:
        _flash_by_command(way.argument, board, image)


def _flash_by_pyocd(way: FlashWay, board: Board, image: FirmwareImage) -> None:
    with tempfile.TemporaryDirectory(dir=run_folder()) as name:
        content = write_image(image, board, "bin", Path(name) / "firmware.bin").read_bytes()
        flash_by_pyocd(way, board, image.elf, content)


def _flash_by_openocd(script: str, probe: str, elf: Path) -> None:
    openocd = shutil.which("openocd")
    if openocd is None:
        raise FlashError("openocd is not installed; `apt install openocd` brings it")
    # OpenOCD's own language: braces keep the path one word.
    chosen = ["-c", f"adapter serial {probe}"] if probe else []
    done = run_guarded([openocd, "-f", script, *chosen, "-c", f"program {{{elf}}} verify reset exit"])
    said = f"{done.stdout}\n{done.stderr}"
    for words, meaning in _OPENOCD_FAULTS.items():
        if words in said:
            raise FlashError(f"openocd {script}: {meaning} ({words.strip('* ')})")
    if done.returncode != 0:
        raise FlashError(f"openocd {script}: {_last_line(said)}")


def _flash_by_command(command: str, board: Board, image: FirmwareImage) -> None:
    with tempfile.TemporaryDirectory(dir=run_folder()) as name:
        files = {
            form: write_image(image, board, form, Path(name) / f"firmware.{form}")
            for form in formats_for(board)
            if f"{{{form}}}" in command
        }
        try:
            words = [word.format(**files) for word in shlex.split(command)]
        except KeyError as error:
            raise FlashError(f"{board.name}: its firmware has no {error.args[0]} file for the command") from error
        except ValueError as error:
            raise FlashError(f"the command of flash can't be read: {error}") from error
        if not words or shutil.which(words[0]) is None:
            raise FlashError(f"{words[0] if words else 'nothing'}: the command of flash is not installed")
        done = run_guarded(words)
    if done.returncode != 0:
        raise FlashError(f"{words[0]} ended with {done.returncode}: {_last_line(done.stderr or done.stdout)}")


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["it said nothing"])[-1][:300]


def _flash_by_drive(place: str, board: Board, image: FirmwareImage, progress: Progress) -> None:
    if "uf2" not in formats_for(board):
        raise FlashError(f"{board.name} has no boot loader that takes UF2 files; flash it in another way")
    progress(f"waiting for the drive {place}: plug {board.name} in with its boot button held")
    drive = _wait_for_drive(place, board)
    with tempfile.TemporaryDirectory(dir=run_folder()) as name:
        file = write_image(image, board, "uf2", Path(name) / "firmware.uf2")
        progress(f"copying to {drive}")
        _copy(file, drive)


def _wait_for_drive(place: str, board: Board) -> Path:
    """Return the folder of the boot loader's drive once it is there, of the right chip."""
    ends = time.monotonic() + UF2_WAIT_S
    while True:
        for folder in _folders(place):
            with contextlib.suppress(OSError):
                info = (folder / _UF2_INFO).read_text(errors="replace")
                wanted = _UF2_BOARDS[board.series or ""]
                found = next((line[9:].strip() for line in info.splitlines() if line.startswith("Board-ID:")), "?")
                if found != wanted:
                    raise FlashError(
                        f"{folder}: the chip there is {found}, {board.name} has {wanted}; nothing was flashed"
                    )
                return folder
        if time.monotonic() >= ends:
            raise FlashError(
                f"{place}: no drive of a boot loader came in {UF2_WAIT_S:g} s; plug {board.name} in with its boot "
                "button held, and mount the drive"
            )
        time.sleep(_POLL_S)


def _folders(place: str) -> list[Path]:
    if "/" in place:
        return [Path(place)]
    return [path for top in map(Path, _DRIVES) for depth in ("", "*/") for path in top.glob(f"{depth}{place}")]


def _copy(file: Path, drive: Path) -> None:
    """Copy a UF2 file to a drive that is gone as soon as the chip has all of it."""
    written = 0
    data = file.read_bytes()
    try:
        with (drive / file.name).open("wb", buffering=0) as target:
            while written < len(data):
                written += target.write(data[written : written + (1 << 16)])
            with contextlib.suppress(OSError):  # the chip may have started already
                os.fsync(target.fileno())
    except OSError as error:
        if written < len(data):
            raise FlashError(
                f"{drive}: {error.strerror} after {written:,} of {len(data):,} bytes; plug the board in anew, with its "
                "boot button held"
            ) from error
