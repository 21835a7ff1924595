"""The fast kernels by the instruction set a board names."""

from __future__ import annotations

from thumbnet.compile.kernels.dsp.stage import DspStage
from thumbnet.compile.kernels.mve.stage import MveStage
from thumbnet.compile.kernels.rolling_stage import RollingStage

#: By `Board.instruction_set`.
KERNELS: dict[str, type[RollingStage]] = {"dsp": DspStage, "mve": MveStage}
