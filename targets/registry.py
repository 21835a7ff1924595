"""Every board thumbnet knows: an explicit table, a line a board, each described by its file in ``boards``."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from thumbnet.targets.board import Board
from thumbnet.targets.board_file import read_board
from thumbnet.targets.errors import BoardError
from thumbnet.targets.suggest import suggest

FOLDER = Path(__file__).parent / "boards"

_DESCRIBED = (
    "mps2_an385",
    "mps2_an386",
    "mps2_an500",
    "mps2_an505",
    "mps3_an547",
    "netduinoplus2",
    "b_l475e_iot01a",
    "nucleo_f411re",
    "nucleo_f446re",
    "nucleo_f746zg",
    "nucleo_h743zi2",
    "nucleo_h7a3zi_q",
    "nucleo_l4r5zi",
    "nucleo_u575zi_q",
    "nrf52840dk",
    "nrf5340dk",
    "rpi_pico",
    "rpi_pico2",
    "raspberry_pi_2",
    "raspberry_pi_3",
    "raspberry_pi_4",
    "raspberry_pi_5",
)

#: This computer. "generic" is what every compiler and runtime of the machine's architecture agrees on; the triple names
#: it.
_HOST = Board(
    name="host",
    description=f"this computer ({platform.machine()})",
    family="host",
    core=platform.machine(),
    cross_compiler="gcc",
    llvm={"mtriple": f"{platform.machine()}-linux-gnu", "num-cores": os.cpu_count() or 1},
)

BOARDS: tuple[Board, ...] = (*(read_board(FOLDER / f"{name}.toml") for name in _DESCRIBED), _HOST)


def list_boards() -> list[Board]:
    """Return all boards, microcontrollers first."""
    return list(BOARDS)


def get_board(name: str, own: Sequence[Board] = ()) -> Board:
    """Return the board of that name, one of the built-in or of somebody's own.

    Raises
    ------
    BoardError
        There is none; the message names the nearest match and all known boards.
    """
    boards = {board.name: board for board in (*BOARDS, *own)}
    if name in boards:
        return boards[name]
    raise BoardError(f"unknown board {name}{suggest(name, list(boards))}; known: {', '.join(boards)}")


def described_by(board: Board) -> Path | None:
    """Return the file that describes a built-in board, None for this computer and boards of one's own."""
    return FOLDER / f"{board.name}.toml" if board.name in _DESCRIBED else None
