"""What a chain on these kernels will execute: an estimate that ranks plans.

The kernels' own instructions are counted along the paths of their assembly; what surrounds them is rounded.
"""

from __future__ import annotations

from functools import partial

from thumbnet.compile.kernels import stage_cost
from thumbnet.compile.kernels.neon.packing import CALL
from thumbnet.compile.kernels.neon_f32.depthwise_assembly import BLOCK, ROWS, rows_instructions
from thumbnet.compile.kernels.neon_f32.packing import TilePlan, depthwise_shapes
from thumbnet.compile.kernels.rolling_stage import RollingStage
from thumbnet.compile.kernels.stage_cost import SurroundingCost
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


def _layer(stage: RollingStage, index: int, blocks: int, rows: int) -> float:
    layer = stage.layers[index]
    height, width, channels = layer.output_shape
    match layer:
        case FloatAdd():
            return blocks * CALL + 0.6 * height * width * channels
        case FloatAveragePool():
            return 0.6 * layer.input_shape[0] * layer.input_shape[1] * channels + 2 * channels
        case FloatDepthwiseConvolution():
            pairs, single = divmod(max(round(rows / blocks), 1), ROWS[0])
            each = sum(
                count * rows_instructions(shape, width) + (CALL + 26) * bool(count)
                for shape, count in zip(depthwise_shapes(layer), (pairs, single), strict=True)
            )
            zeros = layer.input_shape[1] * layer.input_shape[2] / 8
            return blocks * (CALL + zeros + 12 * rows / blocks + -(-channels // BLOCK) * each)
        case FloatConvolution():
            pixels = max(round(width * rows / blocks), 1)
            gather = 0 if layer.kernel == (1, 1) else height * width * layer.kernel[0] * 14
            return blocks * TilePlan.of(layer).instructions(pixels) + gather
    raise AssertionError(layer)
