"""What a chain on the MVE kernels will execute: an estimate that ranks plans, from the kernels' loops.

The counts of the inner loops are those of the assembly in `include/thumbnet_mve.h`; what surrounds them is rounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thumbnet.compile.integer_network import Add, AveragePool, Convolution, DepthwiseConvolution
from thumbnet.compile.kernels.chains import Gather

if TYPE_CHECKING:
    from thumbnet.compile.kernels.mve_stage import MveStage

#: A call with its arguments, the kernel's entry and exit.
_CALL = 45
#: For each element a loop of C touches: a store of a border, a copy, a value gathered from the image's edge.
_FILL, _COPY, _EDGE = 0.8, 6, 2.5
#: Carried rows: a channel, and each byte.
_MOVE, _MOVE_BYTE = 7, 3 / 16


def predict_instructions(stage: MveStage) -> float:
    """Return the estimated instructions of one inference."""
    total = 100.0
    for group in stage.groups:
        last = group[-1]
        rows, block, per_step = stage.plan[last].height, stage.block_rows(group), stage.plan[last].rows
        whole = block >= per_step or stage.steps == 1
        blocks = -(-rows // block) if whole else -(-rows // per_step) * -(-per_step // block)
        total += stage.steps * 30 + blocks * 20
        total += sum(_layer(stage, index, blocks, rows) for index in group)
    for index, window in stage.windows.items():
        plan = stage.plan[index]
        _, _, channels = window.shape
        total += _FILL * channels * window.shape[0] * (window.border[1] + window.border[3])
        if stage.steps > 1 and plan.new_row:
            moves = 1 if window.row_major else channels
            total += stage.steps * (_CALL + moves * (_MOVE + plan.new_row * window.row_bytes * _MOVE_BYTE))
    if stage.target.planar:
        height, width, channels = stage.target.shape
        top, left, bottom, right = stage.target.border
        total += _FILL * channels * (height * (left + right) + (top + bottom) * width)
    return total


def _layer(stage: MveStage, index: int, blocks: int, rows: int) -> float:
    layer = stage.layers[index]
    height, width, channels = layer.output_shape
    match layer:
        case Gather():
            return _COPY * height * width * channels
        case Add():
            return blocks * _CALL + 2 * height * width * channels
        case AveragePool():
            pixels = layer.input_shape[0] * layer.input_shape[1]
            return _CALL + channels / 4 * (10 + pixels * (3 if pixels <= 16 else 5))
        case DepthwiseConvolution():
            planes = stage.source if index == 0 else stage.windows[index]
            return blocks * (_CALL + channels * _depthwise_rows(layer, rows / blocks, planes.row_bytes))
        case Convolution():
            steps = -(-int(layer.weight[0].size) // 16)
            pairs = width // 2 + 0.7 * (width % 2)
            products = -(-channels // 4) * (rows * (pairs * (14 * steps + 13) + 7) + blocks * 20) + blocks * _CALL
            return products + (0 if layer.kernel == (1, 1) else _image(layer))
    raise AssertionError(layer)


def _depthwise_rows(layer: DepthwiseConvolution, rows: float, row_bytes: int) -> float:
    """Return what a block of rows of one channel takes."""
    width = layer.output_shape[1]
    blocks = -(-width // 4)
    if layer.stride == (1, 1) and width >= 4:
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
    return height * (_CALL + width * 7) + edges * taps * _EDGE
