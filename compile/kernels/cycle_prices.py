"""What a core takes for kinds of instructions: how a planner turns what a kernel executes into cycles.

An estimate for choosing between plans; `runtime_tests.cycles` prices what code that is there executes, block by block,
from the same tables.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from thumbnet.targets.board import Board
from thumbnet.targets.registry import get_board


@dataclass(frozen=True)
class Executed:
    """How many instructions of each kind are executed, and what makes them wait.

    Parameters
    ----------
    simple : float
        One cycle on Cortex-M4: arithmetic, stores of a register, loads right behind another.
    loads : float
        Loads of a register with no other in front.
    multiple, words : float
        Loads and stores of several registers, and these registers.
    jumps : float
        Taken.
    unaligned : float
        Accesses across a word; no instructions.
    flash_reads : float
        Reads of 8 bytes that no cache has; no instructions.
    """

    simple: float = 0
    loads: float = 0
    multiple: float = 0
    words: float = 0
    jumps: float = 0
    unaligned: float = 0
    flash_reads: float = 0

    # Field by field: planners add and multiply some hundred thousand of them.
    def __add__(self, other: Executed) -> Executed:
        """Return both."""
        return Executed(
            self.simple + other.simple,
            self.loads + other.loads,
            self.multiple + other.multiple,
            self.words + other.words,
            self.jumps + other.jumps,
            self.unaligned + other.unaligned,
            self.flash_reads + other.flash_reads,
        )

    def __mul__(self, times: float) -> Executed:
        """Return what is executed so many times."""
        return Executed(
            self.simple * times,
            self.loads * times,
            self.multiple * times,
            self.words * times,
            self.jumps * times,
            self.unaligned * times,
            self.flash_reads * times,
        )

    @property
    def instructions(self) -> float:
        """All kinds."""
        return self.simple + self.loads + self.multiple + self.jumps

    def cycles(self, prices: CyclePrices) -> float:
        """Return what they take on a core."""
        return (
            self.simple * prices.simple
            + self.loads * prices.loads
            + self.multiple * prices.multiple
            + self.words * prices.words
            + self.jumps * prices.jumps
            + self.unaligned * prices.unaligned
            + self.flash_reads * prices.flash_reads
        )


@dataclass(frozen=True)
class CyclePrices:
    """Cycles of each kind of `Executed`."""

    simple: float
    loads: float
    multiple: float
    words: float
    jumps: float
    unaligned: float = 0
    flash_reads: float = 0


#: An instruction of compiled C, on average over what surrounds the kernels.
COMPILED = Executed(simple=0.72, loads=0.13, multiple=0.03, words=0.15, jumps=0.12)

#: Cortex-M4's timing table, see `runtime_tests/cycles/core_timing.py`; Cortex-M33 has none of its own, and M3's differs
#: where these kernels execute nothing.
_M4 = CyclePrices(simple=1, loads=2, multiple=1, words=1, jumps=3, unaligned=1)
#: By core.
PRICES = {
    "cortex-m3": _M4,
    "cortex-m4": _M4,
    "cortex-m33": _M4,
    # By least squares over the stages of two networks, from LLVM's model of the core: it issues two instructions at a
    # time, so that loads and jumps go along with arithmetic.
    "cortex-m7": CyclePrices(simple=0.89, loads=0, multiple=1.5, words=0, jumps=0),
}


def prices_of(board: Board) -> CyclePrices | None:
    """Return the prices of a board's core with the waits for its flash; None where they aren't known.

    An emulated board has those of the board that it stands for.
    """
    board = get_board(board.stands_for) if board.stands_for else board
    prices = PRICES.get(board.core)
    if prices is None or board.flash_timing is None:
        return prices
    return replace(prices, flash_reads=board.flash_timing.wait_states)
