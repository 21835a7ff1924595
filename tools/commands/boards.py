"""`thumbnet boards`: which types of board are known."""

# ruff: noqa: PLC0415 - heavy imports sit in the function, so that --help is there at once

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from thumbnet.tools.commands.devices import devices_option
from thumbnet.tools.output import json_option, print_table, write_json

if TYPE_CHECKING:
    from thumbnet.targets.board import Board, Memory


@click.command()
@click.argument("name", required=False)
@devices_option
@json_option
def boards(name: str | None, devices_file: Path | None, json_file: Path | None) -> None:
    """List the types of board that networks can be compiled for; with NAME, print the file that describes one.

    Such a file, under another name and changed to your own board, is what --board-file and a table [boards.NAME] in
    devices.toml take. The JSON has the same fields.
    """
    from thumbnet.targets.devices import read_own_boards
    from thumbnet.targets.registry import described_by, get_board, list_boards

    own = read_own_boards(devices_file)
    known = [*list_boards(), *own] if name is None else [get_board(name, own)]
    if name is None:
        _print_boards(known)
    else:
        file = described_by(known[0])
        if file is None:
            raise click.UsageError(f"no file describes {name}: it is this computer, or a board of your own")
        click.echo(file.read_text(), nl=False)
    write_json(
        json_file,
        [
            {
                "name": board.name,
                "family": board.family,
                "core": board.core,
                "flash_bytes": sum(bank.size for bank in board.flash_banks) or None,
                "ram_bytes": sum(bank.size for bank in board.ram_banks) or None,
                "clock_hz": board.clock_hz,
                "caches": board.caches and asdict(board.caches),
                "description": board.description,
                "board_file": (file := described_by(board)) and tomllib.loads(file.read_text()),
            }
            for board in known
        ],
    )


def _print_boards(known: Sequence[Board]) -> None:
    print_table(
        "Boards",
        [
            "name",
            "core",
            "flash (KiB)",
            "RAM (KiB)",
            "clock (MHz)",
            "L1 data / L2 / L3 (KiB)",
            "artifact",
            "description",
        ],
        [
            (
                board.name,
                board.core,
                _sizes(board.flash_banks),
                _sizes(board.ram_banks),
                board.clock_hz and board.clock_hz / 1e6,
                _caches(board),
                "C sources" if board.artifact == "c" else "shared library",
                board.description,
            )
            for board in known
        ],
    )


def _sizes(banks: Sequence[Memory]) -> str | None:
    """Return the sizes of banks, with their names where there are several."""
    if len(banks) < 2:
        return f"{banks[0].size >> 10:,}" if banks else None
    return ", ".join(f"{bank.name} {bank.size >> 10:,}" for bank in banks)


def _caches(board: Board) -> str | None:
    if board.caches is None:
        return None
    return " / ".join(f"{size >> 10:,}" for size in asdict(board.caches).values() if size is not None)
