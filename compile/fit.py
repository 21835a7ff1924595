"""Will it fit? Known before anything is flashed."""

from __future__ import annotations

from thumbnet.compile.errors import DoesNotFitError
from thumbnet.compile.lowered_network import LoweredNetwork
from thumbnet.targets.board import Board

#: Room for start-up code, drivers and the layers' own code beside the constants, and for stack and data beside the
#: arena. The linker has the last word; this is what the least firmware takes.
CODE_RESERVE_BYTES = 16 << 10
STACK_RESERVE_BYTES = 4 << 10


def arena_limit(board: Board) -> int:
    """Return the bytes an arena may take on a board."""
    assert board.ram is not None
    return board.ram.size - STACK_RESERVE_BYTES


def check_fit(name: str, lowered: LoweredNetwork, board: Board, asked_ram: int | None = None) -> None:
    """Check a network against a microcontroller's memories, and against the bytes of RAM that were asked for.

    Raises
    ------
    DoesNotFitError
        With what is needed and what there is.
    """
    assert board.flash is not None and board.ram is not None
    needs = (
        ("flash", lowered.constant_bytes + CODE_RESERVE_BYTES, board.flash.size),
        ("RAM", lowered.plan.arena_bytes + STACK_RESERVE_BYTES, board.ram.size),
    )
    for memory, need, size in needs:
        if need > size:
            raise DoesNotFitError(
                f"{name} needs {-(-need // 1024)} KiB of {memory}, {board.name} has {size // 1024} KiB",
                flash_bytes=board.flash.size - CODE_RESERVE_BYTES,
                ram_bytes=board.ram.size - STACK_RESERVE_BYTES,
            )
    if asked_ram is not None and lowered.plan.arena_bytes > asked_ram:
        raise DoesNotFitError(
            f"{name}: the leanest arena found takes {lowered.plan.arena_bytes} bytes, --ram-limit is {asked_ram}",
            flash_bytes=board.flash.size - CODE_RESERVE_BYTES,
            ram_bytes=asked_ram,
        )
