"""Will it fit? Known before anything is flashed."""

from __future__ import annotations

from thumbnet.compile.errors import DoesNotFitError
from thumbnet.compile.footprint import Footprint
from thumbnet.compile.lowered_network import LoweredNetwork
from thumbnet.targets.board import Board

#: Where the network hasn't been built: room for start-up code, drivers and the layers' own code beside the constants,
#: and for stack and data beside the arena. The linker has the last word; this is what the least firmware takes.
CODE_RESERVE_BYTES = 16 << 10
STACK_RESERVE_BYTES = 4 << 10


def arena_limit(board: Board) -> int:
    """Return the bytes an arena may take on a board."""
    assert board.ram is not None
    return board.ram.size - STACK_RESERVE_BYTES


def check_fit(
    name: str,
    lowered: LoweredNetwork,
    board: Board,
    asked_ram: int | None = None,
    *,
    built: Footprint | None = None,
    reserve: bool = True,
) -> None:
    """Check a network against a microcontroller's memories, and against the bytes of RAM that were asked for.

    Parameters
    ----------
    name : str
        The network, for the error.
    lowered : LoweredNetwork
        Its constants and arena.
    board : Board
        A microcontroller.
    asked_ram : int, optional
        Bytes that the arena may take.
    built : Footprint, optional
        What the network takes exactly.
    reserve : bool
        Whether reserves stand in for what isn't known of it; else only what can't fit in any case is refused.

    Raises
    ------
    DoesNotFitError
        With what is needed and what there is.
    """
    assert board.flash is not None and board.ram is not None
    flash_need = lowered.constant_bytes + CODE_RESERVE_BYTES * reserve
    ram_need = lowered.plan.arena_bytes + STACK_RESERVE_BYTES * reserve
    if built is not None:
        flash_need = built.flash_bytes
        ram_need = built.static_bytes + (STACK_RESERVE_BYTES if built.stack.bytes is None else built.stack.bytes)
    for memory, need, size in (("flash", flash_need, board.flash.size), ("RAM", ram_need, board.ram.size)):
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
