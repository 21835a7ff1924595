"""The options that name a board: a built-in one, or one of somebody's own."""

# ruff: noqa: PLC0415 - heavy imports sit in the function, so that --help is there at once

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from thumbnet.targets.board import Board

board_file_option = click.option(
    "--board-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A board of your own, as TOML (or JSON): `thumbnet boards NAME` prints one to start with. The file's name is"
    " the board's.",
)


def chosen_board(name: str | None, file: Path | None, devices_file: Path | None) -> Board:
    """Return the board that is asked for: by name, built-in or in devices.toml, or by a file of its own.

    Raises
    ------
    BoardError, DeviceError
        There is none, or it is described wrongly.
    UsageError
        Neither or both are given.
    """
    from thumbnet.targets.board_file import read_board
    from thumbnet.targets.devices import read_own_boards
    from thumbnet.targets.errors import BoardError
    from thumbnet.targets.registry import get_board, list_boards

    if (name is None) == (file is None):
        raise click.UsageError("give either --board or --board-file")
    if file is not None:
        board = read_board(file)
        if board.name in {known.name for known in list_boards()}:
            raise BoardError(f"{file}: {board.name} is the name of a built-in board; give the file another")
        return board
    assert name is not None
    return get_board(name, read_own_boards(devices_file))
