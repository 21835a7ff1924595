"""Which of a board's memories holds what: the arena by the board's order, stack and data where there is room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from thumbnet.targets.board import Board, Memory
from thumbnet.targets.errors import BoardError
from thumbnet.targets.suggest import suggest


@dataclass(frozen=True)
class Placement:
    """Where a network's data lie.

    Parameters
    ----------
    arena, data : Memory
        What holds the arena, and what holds stack and other data; may be the same.
    """

    arena: Memory
    data: Memory


def arena_memories(board: Board) -> list[Memory]:
    """Return what may hold an arena, best first: each bank of RAM in the board's order, then banks that adjoin as one.

    The latter are named after their parts: ``"DTCM+SRAM1"``. Where the board says which one, it is that alone.
    """
    known = _all_arena_memories(board)
    return known if board.arena_in is None else [memory for memory in known if memory.name == board.arena_in]


def with_arena_in(board: Board, name: str) -> Board:
    """Return the board with its arena in the memory of that name, see `arena_memories`.

    Raises
    ------
    BoardError
        The board has none.
    """
    known = [memory.name for memory in _all_arena_memories(board)]
    if name not in known:
        has = f"it has {', '.join(known)}" if known else "its system gives memory"
        raise BoardError(f"{board.name} has no RAM {name}{suggest(name, known)}; {has}")
    return replace(board, arena_in=name)


def _all_arena_memories(board: Board) -> list[Memory]:
    banks = sorted(board.ram_banks, key=lambda bank: bank.origin)
    # Banks that adjoin have the same distance to the sum of the sizes below them.
    below = [bank.origin - sum(other.size for other in banks[:index]) for index, bank in enumerate(banks)]
    runs = [[bank for bank, _ in run] for _, run in groupby(zip(banks, below, strict=True), key=lambda found: found[1])]
    return [*board.ram_banks, *(_joined(run) for run in runs if len(run) > 1)]


def place(board: Board, arena_bytes: int, data_bytes: int) -> Placement | None:
    """Return where an arena and the other data go, None where no memory has room.

    Parameters
    ----------
    board : Board
        One with memories of its own.
    arena_bytes : int
        Of the arena, which lies in one memory.
    data_bytes : int
        Of the stack and all other data, which lie in one memory.
    """
    for arena in arena_memories(board):
        if arena_bytes > arena.size:
            continue
        for bank in board.ram_banks:
            shared = bank.overlaps(arena)
            room = arena.size - arena_bytes if shared else bank.size
            if data_bytes <= room:
                return Placement(arena, arena if shared else bank)
    return None


def largest_arena(board: Board, data_bytes: int) -> int:
    """Return the bytes of the largest arena that can be placed beside so many bytes of data; see `place`."""
    return max(
        max(
            (memory.size - data_bytes if bank.overlaps(memory) else memory.size)
            for bank in board.ram_banks
            if bank.overlaps(memory) or data_bytes <= bank.size
        )
        for memory in arena_memories(board)
    )


def _joined(banks: Sequence[Memory]) -> Memory:
    return Memory("+".join(bank.name for bank in banks), banks[0].origin, sum(bank.size for bank in banks))
