"""`thumbnet boards`: which types of board are known."""

# ruff: noqa: PLC0415 - heavy imports sit in the function, so that --help is there at once

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from thumbnet.tools.output import json_option, print_table, write_json

if TYPE_CHECKING:
    from thumbnet.targets.board import Board


@click.command()
@json_option
def boards(json_file: Path | None) -> None:
    """List the types of board that networks can be compiled for."""
    from thumbnet.targets.registry import list_boards

    known = list_boards()
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
                board.flash and board.flash.size // 1024,
                board.ram and board.ram.size // 1024,
                board.clock_hz and board.clock_hz / 1e6,
                _caches(board),
                "C sources" if board.artifact == "c" else "shared library",
                board.description,
            )
            for board in known
        ],
    )
    write_json(
        json_file,
        [
            {
                "name": board.name,
                "family": board.family,
                "core": board.core,
                "flash_bytes": board.flash and board.flash.size,
                "ram_bytes": board.ram and board.ram.size,
                "clock_hz": board.clock_hz,
                "caches": board.caches and asdict(board.caches),
                "description": board.description,
            }
            for board in known
        ],
    )


def _caches(board: Board) -> str | None:
    if board.caches is None:
        return None
    return " / ".join(f"{size >> 10:,}" for size in asdict(board.caches).values() if size is not None)
