"""What a chain on the DSP kernels will execute: an estimate that ranks plans, from the kernels' loops.

The counts of the inner loops are those of the assembly in `include/thumbnet_dsp.h`; what surrounds them is rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from thumbnet.compile.fixed_point import Requantization
from thumbnet.compile.integer_network import Add, Convolution, DepthwiseConvolution
from thumbnet.compile.kernels.chains import Gather

if TYPE_CHECKING:
    from thumbnet.compile.kernels.dsp_chain import DspChain

#: Instructions for two outputs of a depthwise kernel, by stride and size of the planes' elements.
_DEPTHWISE_PAIR = {(1, 2): 22, (2, 2): 25, (1, 1): 27, (2, 1): 34}
#: A call with its arguments, the kernel's entry and exit.
_CALL = 45
#: For each element a loop of C touches: a store of a constant, a clamp, a copy.
_FILL, _CLAMP, _COPY = 4, 7, 6
#: Carried rows: a channel, and each byte.
_MOVE, _MOVE_BYTE = 15, 0.65


def predict_instructions(stage: DspChain) -> float:
    """Return the estimated instructions of one inference."""
    total = 100.0
    for group in stage.groups:
        last = group[-1]
        rows = stage.plan[last].height
        block = stage.block_rows(group)
        per_step = stage.plan[last].rows
        blocks = (
            -(-rows // block) if block >= per_step or stage.steps == 1 else -(-rows // per_step) * -(-per_step // block)
        )
        total += stage.steps * 30 + blocks * 20
        for index in group:
            total += _layer(stage, index, blocks, rows)
    total += sum(_window(stage, index) for index in stage.windows)
    if stage.target.planar:
        height, width, channels = stage.target.shape
        top, left, bottom, right = stage.target.border
        total += _FILL * channels * (height * (left + right) + (top + bottom) * width)
    return total


def _layer(stage: DspChain, index: int, blocks: int, rows: int) -> float:
    layer = stage.layers[index]
    height, width, channels = layer.output_shape
    match layer:
        case Gather():
            return _COPY * height * width * channels
        case Add():
            return 7 * height * width * channels
        case DepthwiseConvolution():
            planes = stage.source if index == 0 else stage.windows[index]
            row = 6 + width / 2 * _DEPTHWISE_PAIR[layer.stride[0], planes.element_bytes]
            return (
                blocks * (4 * _CALL + 25 * channels)
                + channels * rows * row
                + _clamps(layer.requantization, layer.output_shape)
            )
        case Convolution():
            return (
                _products(stage, index, blocks, rows)
                + _clamps(layer.requantization, layer.output_shape)
                + _pixels(stage, index, rows)
            )
    raise AssertionError(layer)


def _products(stage: DspChain, index: int, blocks: int, rows: int) -> float:
    """Return what pixel pairs times channel pairs take, and the widening of weights."""
    layer = stage.layers[index]
    assert isinstance(layer, Convolution)
    _, width, channels = layer.output_shape
    if stage.stationary(index):
        return blocks * channels * _CALL + rows * channels * (8 + 7.8 * width)
    slots = stage.slots_of(layer)
    if layer.output_shape[:2] == (1, 1):
        return -(-channels // 2) * (2 * _CALL + 4 * slots)
    channel_pairs, pairs = -(-layer.output_shape[2] // 2), -(-layer.output_shape[1] // 2)
    products = rows * channel_pairs * (10 + pairs * (19 + 2.5 * slots))
    if layer.kernel == (1, 1):
        return products + blocks * channel_pairs * (2 * _CALL + 2.5 * slots)
    assert stage.im2col is not None
    chunks = pairs // stage.im2col.chunk_pairs
    return products + rows * chunks * channel_pairs * _CALL


def _pixels(stage: DspChain, index: int, rows: int) -> float:
    """Return what the gathering or widening of pixels before the products takes."""
    layer = stage.layers[index]
    assert isinstance(layer, Convolution)
    pairs = -(-layer.output_shape[1] // 2)
    if layer.kernel != (1, 1):
        assert stage.im2col is not None
        if stage.im2col.fast:
            edges = pairs - len(stage.im2col.inner_pairs)
            return rows * (pairs * 52 + edges * 250)
        return rows * pairs * stage.im2col.slots * 2 * 8
    if index > 0:
        return 0.0
    channels = layer.input_shape[2]
    return rows * pairs * (3 + channels / 8 * 11) if channels % 8 == 0 else rows * pairs * 2 * channels * 8


def _window(stage: DspChain, index: int) -> float:
    """Return what borders take, and rows carried to the next step."""
    window, rows = stage.windows[index], stage.plan[index]
    _, _, channels = window.shape
    columns = window.border[1] + window.border[3]
    filled = _FILL * channels * window.shape[0] * columns
    if stage.steps == 1 or rows.new_row == 0:
        return filled
    moves = 1 if window.row_major else channels
    return filled + stage.steps * moves * _MOVE + stage.steps * rows.new_row * window.row_bytes * moves * _MOVE_BYTE


def _clamps(requantization: Requantization, shape: Sequence[int]) -> float:
    if (requantization.minimum, requantization.maximum) == (-128, 127):
        return 0.0
    height, width, channels = shape
    return _CLAMP * height * width * channels
