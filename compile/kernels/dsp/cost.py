"""What a chain on the DSP kernels will execute: an estimate that ranks plans, from the kernels' loops.

The counts of the inner loops are those of the assembly in `thumbnet_dsp.h`; what surrounds them is rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from thumbnet.compile.kernels import stage_cost
from thumbnet.compile.kernels.chains import Gather
from thumbnet.compile.kernels.dsp.storage import DspChain
from thumbnet.compile.kernels.stage_cost import CALL, COPY, SurroundingCost
from thumbnet.compile.network.fixed_point import Requantization
from thumbnet.compile.network.integer_network import Add, Convolution, DepthwiseConvolution

#: Instructions for two outputs of a depthwise kernel, by stride and size of the planes' elements.
_DEPTHWISE_PAIR = {(1, 2): 22, (2, 2): 25, (1, 1): 27, (2, 1): 34}
#: A clamp that is no saturation, for each value.
_CLAMP = 7
#: Borders are stored value by value, rows carried by words.
_SURROUNDING = SurroundingCost(fill=4, carry_channel=15, carry_byte=0.65)


def predict_instructions(stage: DspChain) -> float:
    """Return the estimated instructions of one inference."""
    return stage_cost.predict_instructions(stage, _SURROUNDING, partial(_layer, stage))


def _layer(stage: DspChain, index: int, blocks: int, rows: int) -> float:
    layer = stage.layers[index]
    height, width, channels = layer.output_shape
    match layer:
        case Gather():
            return COPY * height * width * channels
        case Add():
            return 7 * height * width * channels
        case DepthwiseConvolution():
            planes = stage.source if index == 0 else stage.windows[index]
            row = 6 + width / 2 * _DEPTHWISE_PAIR[layer.stride[0], planes.element_bytes]
            return (
                blocks * (4 * CALL + 25 * channels)
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
        return blocks * channels * CALL + rows * channels * (8 + 7.8 * width)
    slots = stage.slots_of(layer)
    if layer.output_shape[:2] == (1, 1):
        return -(-channels // 2) * (2 * CALL + 2.8 * slots)
    channel_pairs, pairs = -(-layer.output_shape[2] // 2), -(-layer.output_shape[1] // 2)
    products = rows * channel_pairs * (10 + pairs * (19 + 2.5 * slots))
    if layer.kernel == (1, 1):
        return products + blocks * channel_pairs * (2 * CALL + 1.3 * slots)
    assert stage.im2col is not None
    chunks = pairs // stage.im2col.chunk_pairs
    return products + rows * chunks * channel_pairs * CALL


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


def _clamps(requantization: Requantization, shape: Sequence[int]) -> float:
    if (requantization.minimum, requantization.maximum) == (-128, 127):
        return 0.0
    height, width, channels = shape
    return _CLAMP * height * width * channels
