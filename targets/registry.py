"""Every board thumbnet knows: an explicit table, a line a board."""

from __future__ import annotations

import difflib

from thumbnet.targets.board import Board
from thumbnet.targets.boards import (
    host,
    mps2_an385,
    mps2_an386,
    mps2_an500,
    mps2_an505,
    mps3_an547,
    nucleo_f746zg,
    nucleo_l4r5zi,
    raspberry_pi_2,
    raspberry_pi_3,
    raspberry_pi_4,
    raspberry_pi_5,
)
from thumbnet.targets.errors import BoardError

BOARDS: tuple[Board, ...] = (
    mps2_an385.BOARD,
    mps2_an386.BOARD,
    mps2_an500.BOARD,
    mps2_an505.BOARD,
    mps3_an547.BOARD,
    nucleo_f746zg.BOARD,
    nucleo_l4r5zi.BOARD,
    raspberry_pi_2.BOARD,
    raspberry_pi_3.BOARD,
    raspberry_pi_4.BOARD,
    raspberry_pi_5.BOARD,
    host.BOARD,
)


def list_boards() -> list[Board]:
    """Return all boards, microcontrollers first."""
    return list(BOARDS)


def get_board(name: str) -> Board:
    """Return the board of that name.

    Raises
    ------
    BoardError
        There is none; the message names the nearest match and all known boards.
    """
    boards = {board.name: board for board in BOARDS}
    if name in boards:
        return boards[name]
    raise BoardError(f"unknown board {name}{suggest(name, list(boards))}; known: {', '.join(boards)}")


def suggest(name: str, known: list[str]) -> str:
    """Return ``", did you mean X?"`` for the nearest of the known names, or nothing where none is near."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f", did you mean {near[0]}?" if near else ""
