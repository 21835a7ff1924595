"""What a chain on these kernels will execute: an estimate that ranks plans.

The kernels' own instructions are counted along the paths of their assembly; what surrounds them is rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from thumbnet.compile.kernels import stage_cost
from thumbnet.compile.kernels.neon.depthwise_assembly import output_instructions
from thumbnet.compile.kernels.neon.large_depthwise_assembly import LargeDepthwise
from thumbnet.compile.kernels.neon.packing import CALL, DepthwisePlan
from thumbnet.compile.kernels.rolling_stage import RollingStage
from thumbnet.compile.kernels.stage_cost import SurroundingCost, row_counts
from thumbnet.compile.network.integer_network import Add, AveragePool, Convolution, DepthwiseConvolution

#: Rows are filled and carried by memset and memmove.
_SURROUNDING = SurroundingCost(fill=0.1, carry_channel=30, carry_byte=1 / 16)


def predict_instructions(
    stage: RollingStage,
    convolution: Callable[[Convolution, int], float],
    depthwise: Callable[[DepthwiseConvolution, int, int], float],
) -> float:
    """Return the estimated instructions of one inference.

    Parameters
    ----------
    stage : RollingStage
        The chain.
    convolution : callable
        Given a convolution and a number of pixels, what they take.
    depthwise : callable
        Given a depthwise layer, calls and rows, what they take.
    """
    return stage_cost.predict_instructions(stage, _SURROUNDING, partial(_layer, stage, convolution, depthwise))


def depthwise_instructions(layer: DepthwiseConvolution, plan: DepthwisePlan, calls: int, rows: int) -> float:
    """Return what so many calls for so many rows of a depthwise layer take."""
    each = 12.0 * len(plan.parts)
    for parts in plan.parts:
        function = plan.functions[parts]
        if isinstance(function, LargeDepthwise):
            each += function.row_instructions()
        else:
            each += layer.output_shape[1] * output_instructions(function)
    return calls * len(plan.parts) * (CALL + 24) + rows * each


def _layer(  # noqa: PLR0917 - the last three are stage_cost's
    stage: RollingStage,
    convolution: Callable[[Convolution, int], float],
    depthwise: Callable[[DepthwiseConvolution, int, int], float],
    index: int,
    blocks: int,
    rows: int,
) -> float:
    layer = stage.layers[index]
    height, width, channels = layer.output_shape
    match layer:
        case Add():
            return blocks * CALL + 1.1 * height * width * channels
        case AveragePool():
            return 0.6 * layer.input_shape[0] * layer.input_shape[1] * channels + 8 * channels
        case DepthwiseConvolution():
            return depthwise(layer, blocks, rows)
        case Convolution():
            each = sum(times * convolution(layer, width * count) for count, times in row_counts(stage, index).items())
            gather = 0 if layer.kernel == (1, 1) else height * width * (4 + 2 * layer.kernel[0])
            return each + gather
    raise AssertionError(layer)
