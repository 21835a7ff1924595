"""Flashing by pyOCD, which comes with the extra ``probe``."""

# ruff: noqa: PLC0415 - pyOCD is an extra

from __future__ import annotations

from pathlib import Path
from typing import Any

from thumbnet.runtime_tests.errors import FlashError
from thumbnet.runtime_tests.mcu.gdb_flash import CPUID, explain_core, part_number
from thumbnet.targets.board import Board
from thumbnet.targets.flash_way import FlashWay


def flash_by_pyocd(way: FlashWay, board: Board, elf: Path, content: bytes) -> None:
    """Load an image by a probe, compare what is on the board then, and start it.

    Parameters
    ----------
    way : FlashWay
        pyOCD's name of the chip, empty where the probe knows it; which probe, empty where only one is connected.
    board : Board
        What should be there.
    elf : Path
        The image.
    content : bytes
        What is in flash then, from its start.

    Raises
    ------
    FlashError
        One line: pyOCD or the probe is missing, several are there, the chip is another, the board has other bytes.
    """
    try:
        from pyocd.core.exceptions import Error
        from pyocd.core.helpers import ConnectHelper
        from pyocd.flash.file_programmer import FileProgrammer
    except ImportError as error:
        raise FlashError("pyOCD is not installed; `pip install 'thumbnet[probe]'` brings it") from error
    step = "while it was looked for"
    try:
        options = {"target_override": way.argument} if way.argument else {}
        chosen = {"blocking": False, "unique_id": way.probe or None}
        found = [probe.unique_id for probe in ConnectHelper.get_all_connected_probes(**chosen)]
        if len(found) > 1:
            raise FlashError(
                f"pyocd: {len(found)} probes are there ({', '.join(found)[:300]}); say by probe = ... which one it is"
            )
        session = ConnectHelper.session_with_chosen_probe(**chosen, return_first=True, options=options)
        if session is None:
            which = f"probe {way.probe}" if way.probe else "probe"
            raise FlashError(f"pyocd: no {which} is there; plug it in, or let the other program that holds it go")
        step = "while the board was connected"
        with session:
            _check_core(session, board)
            step = "while the image was loaded"
            FileProgrammer(session).program(str(elf))
            step = "while the image was compared"
            _compare(session, board, content)
            step = "while the board was started"
            session.target.reset()
    except Error as error:
        raise FlashError(f"pyocd: {_one_line(error)} {step}; are probe and board connected?") from error


def _check_core(session: Any, board: Board) -> None:  # noqa: ANN401 - pyOCD ships no types
    found = part_number(session.target.read32(CPUID))
    if (reason := explain_core(found, board)) is not None:
        raise FlashError(f"pyocd: {reason}")


def _compare(session: Any, board: Board, content: bytes) -> None:  # noqa: ANN401 - pyOCD ships no types
    assert board.flash is not None
    found = bytes(session.target.read_memory_block8(board.flash.origin, len(content)))
    if found != content:
        at = next(index for index, (one, other) in enumerate(zip(found, content, strict=True)) if one != other)
        raise FlashError(
            f"pyocd: what is on the board from {board.flash.origin + at:#010x} on is not what was sent: is its flash "
            f"write-protected or worn, or the chip smaller than {board.name}'s?"
        )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
