"""The fast kernels by the instruction set a board names."""

from __future__ import annotations

from thumbnet.compile.kernels.dotprod.stage import DotprodStage
from thumbnet.compile.kernels.dsp.stage import DspStage
from thumbnet.compile.kernels.mve.stage import MveStage
from thumbnet.compile.kernels.neon.stage import NeonStage
from thumbnet.compile.kernels.rolling_stage import RollingStage
from thumbnet.targets.board import Board

#: By `Board.instruction_set`.
KERNELS: dict[str, type[RollingStage]] = {
    "dsp": DspStage,
    "mve": MveStage,
    "neon": NeonStage,
    "dotprod": DotprodStage,
}


def kernels_of(board: Board) -> type[RollingStage]:
    """Return the fast kernels for a board that has some."""
    assert board.instruction_set is not None
    return KERNELS[board.instruction_set]
