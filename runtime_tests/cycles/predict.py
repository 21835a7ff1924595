"""Predicted cycles of what an emulated board executed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thumbnet.runtime_tests.cycles.block_profile import ExecutedBlock
from thumbnet.runtime_tests.cycles.core_timing import TIMINGS
from thumbnet.runtime_tests.cycles.instruction_classes import count_classes
from thumbnet.runtime_tests.cycles.llvm_mca import TRIPLES, block_cycles
from thumbnet.targets.board import Board
from thumbnet.targets.errors import BoardError
from thumbnet.targets.registry import get_board


@dataclass(frozen=True)
class CyclePrediction:
    """Cycles that a board would take, by a model of its core; no measurement.

    Parameters
    ----------
    board : str
        Whose core and flash were assumed.
    cycles : float
        Of one inference.
    stages : mapping of str to float
        Of each stage alone, by its name.
    band : tuple of float or None
        Lowest and highest error of the model on published measurements, as fractions; None where there are none.
    basis : str
        What the model is, and what its band rests on, for people.
    """

    board: str
    cycles: float
    stages: Mapping[str, float]
    band: tuple[float, float] | None
    basis: str

    def as_json(self) -> dict[str, Any]:
        """Return the fields for a JSON file; the stages stand with their other costs."""
        return {
            "predicted_cycles": round(self.cycles),
            "predicted_cycles_band": None if self.band is None else list(self.band),
            "predicted_cycles_basis": f"as on {self.board}: {self.basis}",
        }

    def __str__(self) -> str:
        """Return the cycles with their band, for people."""
        sure = "no band" if self.band is None else f"{self.band[0]:+.0%} to {self.band[1]:+.0%}"
        return f"{self.cycles:,.0f} cycles predicted ({self.board}, {sure})"


class CycleModel:
    """What a board's core takes for what was executed.

    Parameters
    ----------
    board : Board
        Whose core and flash are assumed.

    Raises
    ------
    BoardError
        There is no model of the core.
    """

    def __init__(self, board: Board) -> None:
        self.board = board
        if board.core not in TIMINGS and board.core not in TRIPLES:
            raise BoardError(f"{board.name}: there is no model of the {board.core}'s timing")

    def price(self, blocks: Sequence[ExecutedBlock]) -> float:
        """Return the cycles of blocks of one call.

        Raises
        ------
        ToolchainError
            llvm-mca is missing or doesn't understand the code (cores that have no table).
        """
        timing, flash = TIMINGS.get(self.board.core), self.board.flash_timing
        if timing is None:
            return block_cycles(self.board.core, blocks)
        waits = 0 if flash is None else flash.wait_states * sum(b.fetch_misses + b.data_misses for b in blocks)
        return timing.price_all(count_classes(blocks)) + waits

    def predict(self, whole: Sequence[ExecutedBlock], stages: Mapping[str, Sequence[ExecutedBlock]]) -> CyclePrediction:
        """Return the cycles of an inference and of its stages, see `price`."""
        timing = TIMINGS.get(self.board.core)
        if timing is None:
            band, basis = (
                None,
                f"LLVM's model of the {self.board.core}, memory taken for near; proven by no measurement",
            )
        else:
            band, basis = timing.band, f"Arm's table of the {timing.source}"
            if band is not None:
                basis += f", {band[0]:+.0%} to {band[1]:+.0%} on {timing.cases} published cases"
            share = timing.multiple_share(count_classes(whole))
            basis += f"; {share:.0%} of these cycles are multiple loads and stores, which no published case tests"
        prices = {name: self.price(blocks) for name, blocks in stages.items()}
        return CyclePrediction(self.board.name, self.price(whole), prices, band, basis)


def model_of(board: Board) -> CycleModel | None:
    """Return the model of the board that an emulated one stands for; None where there is none."""
    try:
        return CycleModel(get_board(board.stands_for) if board.stands_for else board)
    except BoardError:
        return None
