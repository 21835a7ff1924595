"""What a chain on these kernels will execute: an estimate that ranks plans.

The kernels' own instructions are counted along the paths of their assembly; what surrounds them is rounded.
"""

from __future__ import annotations

from functools import partial

from thumbnet.compile.kernels import stage_cost
from thumbnet.compile.kernels.neon.large_depthwise_assembly import LargeDepthwise
from thumbnet.compile.kernels.neon.packing import CALL
from thumbnet.compile.kernels.neon_f32.depthwise_assembly import BLOCK, depthwise_instructions
from thumbnet.compile.kernels.neon_f32.packing import TilePlan, depthwise_function, depthwise_shape
from thumbnet.compile.kernels.rolling_stage import RollingStage
from thumbnet.compile.kernels.stage_cost import SurroundingCost, row_counts
from thumbnet.compile.network.float_network import (
    FloatAdd,
    FloatAveragePool,
    FloatConvolution,
    FloatDepthwiseConvolution,
)

#: Rows are filled and carried by memset and memmove.
_SURROUNDING = SurroundingCost(fill=0.3, carry_channel=30, carry_byte=1 / 16)


def predict_instructions(stage: RollingStage) -> float:
    """Return the estimated instructions of one inference."""
    return stage_cost.predict_instructions(stage, _SURROUNDING, partial(_layer, stage))


def _layer(stage: RollingStage, index: int, blocks: int, _: int) -> float:
    layer = stage.layers[index]
    height, width, channels = layer.output_shape
    parts = row_counts(stage, index)
    match layer:
        case FloatAdd():
            return blocks * CALL + 0.6 * height * width * channels
        case FloatAveragePool():
            return 0.6 * layer.input_shape[0] * layer.input_shape[1] * channels + 2 * channels
        case FloatDepthwiseConvolution():
            each = sum(times * (CALL + _depthwise(layer, width, count)) for count, times in parts.items())
            zeros = layer.input_shape[1] * layer.input_shape[2] / 8
            return blocks * (CALL + zeros) + 12 * height * layer.stride[0] + -(-channels // BLOCK) * each
        case FloatConvolution():
            gather = 0 if layer.kernel == (1, 1) else height * width * (8 + 5 * layer.kernel[0])
            plan = TilePlan.of(layer)
            return sum(times * plan.instructions(width * count) for count, times in parts.items()) + gather
    raise AssertionError(layer)


def _depthwise(layer: FloatDepthwiseConvolution, width: int, count: int) -> float:
    """Return the instructions of so many rows of four channels."""
    function = depthwise_function(layer)
    if isinstance(function, LargeDepthwise):
        return 20 + count * (function.row_instructions() + 4)
    return depthwise_instructions(depthwise_shape(layer), width, count)
