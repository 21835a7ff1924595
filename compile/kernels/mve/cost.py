"""What a chain on the MVE kernels will execute: an estimate that ranks plans, from the kernels' loops.

The counts of the inner loops are those of the assembly in `thumbnet_mve.h`; what surrounds them is rounded.
"""

from __future__ import annotations

from functools import partial

from thumbnet.compile.kernels import stage_cost
from thumbnet.compile.kernels.chains import Gather
from thumbnet.compile.kernels.mve.packing import in_patches
from thumbnet.compile.kernels.rolling_stage import RollingStage
from thumbnet.compile.kernels.stage_cost import CALL, COPY, SurroundingCost
from thumbnet.compile.network.integer_network import Add, AveragePool, Convolution, DepthwiseConvolution

#: For a value gathered from the image's edge.
_EDGE = 2.5
#: Borders are stored and rows carried by vectors.
_SURROUNDING = SurroundingCost(fill=0.8, carry_channel=7, carry_byte=3 / 16)


def predict_instructions(stage: RollingStage) -> float:
    """Return the estimated instructions of one inference."""
    return stage_cost.predict_instructions(stage, _SURROUNDING, partial(_layer, stage))


def _layer(stage: RollingStage, index: int, blocks: int, rows: int) -> float:
    layer = stage.layers[index]
    height, width, channels = layer.output_shape
    match layer:
        case Gather():
            return COPY * height * width * channels
        case Add():
            return blocks * CALL + 2 * height * width * channels
        case AveragePool():
            pixels = layer.input_shape[0] * layer.input_shape[1]
            return CALL + channels / 4 * (10 + pixels * (3 if pixels <= 16 else 5))
        case DepthwiseConvolution():
            planes = stage.source if index == 0 else stage.windows[index]
            return blocks * (CALL + channels * _depthwise_rows(layer, rows / blocks, planes.row_bytes))
        case Convolution():
            steps = -(-int(layer.weight[0].size) // 16)
            pairs = width // 2 + 0.7 * (width % 2)
            products = -(-channels // 4) * (rows * (pairs * (14 * steps + 13) + 7) + blocks * 20) + blocks * CALL
            return products + (0 if layer.kernel == (1, 1) else _image(layer))
    raise AssertionError(layer)


def _depthwise_rows(layer: DepthwiseConvolution, rows: float, row_bytes: int) -> float:
    """Return what a block of rows of one channel takes."""
    width = layer.output_shape[1]
    blocks = -(-width // 4)
    if layer.kernel != (3, 3):
        taps, stride = layer.kernel[0], layer.stride[0]
        groups = (taps + 1) // 2
        pairs = groups + stride - 1
        chunks = -(-(stride * (max(width, 4) - 1) + 8) // 16)
        block = pairs * 4 + groups * (10 if stride == 1 else 9) + 17
        return (
            45 + groups * (6 if stride == 1 else 3) + -(-rows // 2) * (25 + pairs * (7 + 4 * chunks) + block * blocks)
        )
    if in_patches(layer):
        return 32 + -(-rows // 2) * (20 + 8 * -(-(width + 2) // 16) + 25 * blocks)
    far = row_bytes > 127
    if layer.stride == (1, 1):
        return 40 + rows / 4 * (73 + 6 * far) * blocks + rows % 4 * 6
    return 40 + -(-rows // 2) * (8 + (53 + 5 * far) * blocks)


def _image(layer: Convolution) -> float:
    """Return what the gathering of the image's pixels takes: a row each vector, and the edges value by value."""
    height, width, _ = layer.output_shape
    taps = int(layer.weight[0].size)
    if layer.kernel[0] != 3 or taps > 48:
        return height * width * taps * _EDGE
    edges = height * ((layer.padding[1] > 0) + (layer.padding[3] > 0)) + width * (
        (layer.padding[0] > 0) + (layer.padding[2] > 0)
    )
    return height * (CALL + width * 7) + edges * taps * _EDGE
