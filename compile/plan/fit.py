"""Will it fit? Known before anything is flashed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from thumbnet.compile.errors import DoesNotFitError
from thumbnet.compile.plan.lowered_network import LoweredNetwork
from thumbnet.targets.board import Board, Memory
from thumbnet.targets.placement import Placement, arena_memories, largest_arena, place

#: Where the network hasn't been built: room for start-up code, drivers and the layers' own code beside the constants,
#: and for stack and data beside the arena. The linker has the last word; this is what the least firmware takes.
CODE_RESERVE_BYTES = 16 << 10
STACK_RESERVE_BYTES = 4 << 10


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes of a board's flash, and of its RAM: the arena with what else the network keeps, and the stack."""

    flash_bytes: int
    arena_bytes: int
    stack_bytes: int = 0

    @property
    def ram_bytes(self) -> int:
        """Of the RAM in all."""
        return self.arena_bytes + self.stack_bytes

    @classmethod
    def least(cls, lowered: LoweredNetwork) -> MemoryNeed:
        """Return what a network takes in any case: its constants and its arena."""
        return cls(lowered.constant_bytes, lowered.plan.arena_bytes)

    @classmethod
    def estimate(cls, lowered: LoweredNetwork) -> MemoryNeed:
        """Return what a network takes that hasn't been built: reserves stand in for what isn't known of it."""
        least = cls.least(lowered)
        return cls(least.flash_bytes + CODE_RESERVE_BYTES, least.arena_bytes, STACK_RESERVE_BYTES)


def arena_limit(board: Board) -> int | None:
    """Return the bytes an arena may take on a board, None where an operating system gives what is asked for."""
    return None if board.ram is None else largest_arena(board, STACK_RESERVE_BYTES)


def check_fit(name: str, need: MemoryNeed, board: Board) -> dict[str, Any]:
    """Check what a network takes against a board's memories, where it has some of its own; return the manifest's entry.

    Raises
    ------
    DoesNotFitError
        With what is needed and what there is.
    """
    if board.flash is None or board.ram is None:
        return {}
    room = {"flash_bytes": board.flash.size - CODE_RESERVE_BYTES, "ram_bytes": arena_limit(board)}
    if need.flash_bytes > board.flash.size:
        raise DoesNotFitError(_too_much(name, need.flash_bytes, "flash", board, (board.flash,)), **room)
    placement = place(board, need.arena_bytes, need.stack_bytes)
    if placement is None:
        raise DoesNotFitError(_too_much(name, need.ram_bytes, "RAM", board, arena_memories(board)), **room)
    return {"memories": _describe(placement, need, board)}


def _describe(placement: Placement, need: MemoryNeed, board: Board) -> dict[str, Any]:
    """Return what lies in which memory, and how many bytes each has and the network takes of it."""
    used = {board.flash_banks[0].name: need.flash_bytes}
    for memory, taken in ((placement.arena, need.arena_bytes), (placement.data, need.stack_bytes)):
        used[memory.name] = used.get(memory.name, 0) + taken
    # Banks that the arena's memory is made of aren't beside it.
    beside = [bank for bank in board.ram_banks if not bank.overlaps(placement.arena)]
    return {
        "arena": placement.arena.name,
        "stack": placement.data.name,
        "banks": [
            {"name": memory.name, "used_bytes": used.get(memory.name, 0), "bytes": memory.size}
            for memory in (*board.flash_banks, placement.arena, *beside)
        ],
    }


def _too_much(name: str, needed: int, what: str, board: Board, memories: Sequence[Memory]) -> str:
    said = f"{name} needs {-(-needed // 1024)} KiB of {what}"
    if len(memories) == 1:
        return f"{said}, {board.name} has {memories[0].size // 1024} KiB" + (
            f" of {memories[0].name}" if len(board.ram_banks) > 1 and what == "RAM" else ""
        )
    sizes = ", ".join(f"{memory.name} {memory.size // 1024}" for memory in memories)
    return f"{said} in one memory, {board.name} has {sizes} KiB"


def check_ram_limit(name: str, arena_bytes: int, ram_limit: int | None, board: Board) -> None:
    """Check an arena against the bytes of RAM that were asked for.

    Raises
    ------
    DoesNotFitError
        With what is needed and what was asked for.
    """
    if ram_limit is not None and arena_bytes > ram_limit:
        raise DoesNotFitError(
            f"{name}: the leanest arena found takes {arena_bytes} bytes, --ram-limit is {ram_limit}",
            flash_bytes=None if board.flash is None else board.flash.size - CODE_RESERVE_BYTES,
            ram_bytes=ram_limit,
        )
