"""The fast kernels by the instruction set a board names."""

from __future__ import annotations

from thumbnet.compile.kernels.dotprod.stage import DotprodStage
from thumbnet.compile.kernels.dsp.stage import DspStage
from thumbnet.compile.kernels.mve.stage import MveStage
from thumbnet.compile.kernels.neon.stage import NeonStage
from thumbnet.compile.kernels.neon32.stage import Neon32Stage
from thumbnet.compile.kernels.neon_f32.stage import NeonF32Stage
from thumbnet.compile.kernels.rolling_stage import RollingStage
from thumbnet.targets.board import Board

#: By `Board.instruction_set`, for int8.
KERNELS: dict[str, type[RollingStage]] = {
    "dsp": DspStage,
    "mve": MveStage,
    "neon": NeonStage,
    "neon32": Neon32Stage,
    "dotprod": DotprodStage,
}
#: The same for float32.
FLOAT_KERNELS: dict[str, type[RollingStage]] = {"neon": NeonF32Stage, "dotprod": NeonF32Stage}


def kernels_of(board: Board) -> type[RollingStage]:
    """Return the fast int8 kernels for a board that has some."""
    assert board.instruction_set is not None
    return KERNELS[board.instruction_set]


def float_kernels_of(board: Board) -> type[RollingStage] | None:
    """Return the fast float32 kernels for a board, None where there are none."""
    return None if board.instruction_set is None else FLOAT_KERNELS.get(board.instruction_set)
