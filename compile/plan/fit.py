"""Will it fit? Known before anything is flashed."""

from __future__ import annotations

from dataclasses import dataclass

from thumbnet.compile.errors import DoesNotFitError
from thumbnet.compile.plan.lowered_network import LoweredNetwork
from thumbnet.targets.board import Board

#: Where the network hasn't been built: room for start-up code, drivers and the layers' own code beside the constants,
#: and for stack and data beside the arena. The linker has the last word; this is what the least firmware takes.
CODE_RESERVE_BYTES = 16 << 10
STACK_RESERVE_BYTES = 4 << 10


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes of a board's flash, and of its RAM with the stack."""

    flash_bytes: int
    ram_bytes: int

    @classmethod
    def least(cls, lowered: LoweredNetwork) -> MemoryNeed:
        """Return what a network takes in any case: its constants and its arena."""
        return cls(lowered.constant_bytes, lowered.plan.arena_bytes)

    @classmethod
    def estimate(cls, lowered: LoweredNetwork) -> MemoryNeed:
        """Return what a network takes that hasn't been built: reserves stand in for what isn't known of it."""
        least = cls.least(lowered)
        return cls(least.flash_bytes + CODE_RESERVE_BYTES, least.ram_bytes + STACK_RESERVE_BYTES)


def arena_limit(board: Board) -> int | None:
    """Return the bytes an arena may take on a board, None where an operating system gives what is asked for."""
    return None if board.ram is None else board.ram.size - STACK_RESERVE_BYTES


def check_fit(name: str, need: MemoryNeed, board: Board) -> None:
    """Check what a network takes against a board's memories, where it has some of its own.

    Raises
    ------
    DoesNotFitError
        With what is needed and what there is.
    """
    if board.flash is None or board.ram is None:
        return
    for memory, bytes_, size in (
        ("flash", need.flash_bytes, board.flash.size),
        ("RAM", need.ram_bytes, board.ram.size),
    ):
        if bytes_ > size:
            raise DoesNotFitError(
                f"{name} needs {-(-bytes_ // 1024)} KiB of {memory}, {board.name} has {size // 1024} KiB",
                flash_bytes=board.flash.size - CODE_RESERVE_BYTES,
                ram_bytes=arena_limit(board),
            )


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
