"""What values a quantized network's tensors can take at all: interval arithmetic over every possible int8 input.

An interval of inputs becomes an interval of accumulators, whose ends are reached by the ends of the inputs (each tap's
one or the other, by the sign of its weight); and requantization never decreases, so it takes the ends to the ends.
Intervals are kept pixel by pixel: at a border some taps read padding, whose one value is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.network.fixed_point import INT32_MAX, AddParameters, add_round_half_up, requantize_round_half_up
from thumbnet.compile.network.integer_network import (
    NETWORK_INPUT,
    Add,
    AveragePool,
    Convolution,
    DepthwiseConvolution,
    IntegerNetwork,
    Layer,
    MaxPool,
    Shape,
    accumulator_bound,
)
from thumbnet.compile.network.windows import largest_of_windows, windows_of


@dataclass(frozen=True)
class TensorRange:
    """The least and the largest value of each element of a tensor, over all inputs of the network.

    Parameters
    ----------
    low, high : ndarray
        int8 ``[H, W, C]``, both included.
    """

    low: NDArray[np.int8]
    high: NDArray[np.int8]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Of each channel ``[C]``: every pixel has one value whatever the input is, maybe not all pixels the same."""
        known: NDArray[np.bool_] = (self.low == self.high).all(axis=(0, 1))
        return known

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Of each channel ``[C]``: all pixels have one and the same value whatever the input is."""
        constant: NDArray[np.bool_] = self.low.min(axis=(0, 1)) == self.high.max(axis=(0, 1))
        return constant


def tensor_ranges(network: IntegerNetwork) -> dict[str, TensorRange]:
    """Return the range of the network's input and of every layer's output, by name.

    A range may be wider than what inputs can reach (it takes elements to be independent), never narrower.
    """
    shape = network.input_shape
    ranges = {NETWORK_INPUT: _filled(shape, -128, 127)}
    for layer in network.layers:
        ranges[layer.name] = _output_range(layer, *(ranges[source] for source in layer.sources))
    return ranges


def fits_int32(layer: Layer) -> bool:
    """Tell whether no int8 input brings the accumulator, shifted left as requantization does, out of int32.

    Every layer of a compiled network does fit; where one doesn't, the arithmetic isn't the integers' and nothing may
    be concluded from it.
    """
    match layer:
        case Add(parameters=p):
            bound, shift = np.array(128 * (p.multiplier_a + p.multiplier_b) + abs(p.constant)), np.array(0)
        case AveragePool():
            height, width, _ = layer.input_shape
            bound, shift = np.array(128 * height * width + abs(layer.bias)), layer.requantization.left_shift
        case MaxPool():
            return True
        case _:
            bound, shift = accumulator_bound(layer), layer.requantization.left_shift
    return bool(np.all(bound.astype(np.int64) << shift <= INT32_MAX))


def accumulator_range(
    layer: Convolution | DepthwiseConvolution, data: TensorRange
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the ends of a layer's accumulators, int32 ``[out_h, out_w, out]``; the layer has to fit int32.

    With w > 0 the low end is at x = low, with w < 0 at x = high, so twice the sum over the taps is
    ``sum(w * (low + high)) - sum(abs(w) * (high - low))``: two convolutions for both ends, where splitting the weights
    by sign takes four.
    """
    low, high = data.low.astype(np.int32), data.high.astype(np.int32)
    centres = window_sums(layer, low + high, layer.weight, 2 * layer.input_zero_point)
    widths = window_sums(layer, high - low, np.abs(layer.weight.astype(np.int32)), 0)
    # Both sums are even or both odd.
    ends = ((centres - widths) / 2 + layer.bias, (centres + widths) / 2 + layer.bias)
    return ends[0].astype(np.int32), ends[1].astype(np.int32)


def window_sums(
    layer: Convolution | DepthwiseConvolution, image: NDArray[Any], weight: NDArray[Any], padding_value: int
) -> NDArray[np.float64]:
    """Sum ``image * weight`` over the windows of a layer, without its bias.

    Parameters
    ----------
    layer : Convolution or DepthwiseConvolution
        Whose kernel size, stride, padding and output size are used.
    image : ndarray
        Integers ``[H, W, in]``; of a convolution maybe some of its input channels only.
    weight : ndarray
        Integers as the layer's: ``[out, kernel_h, kernel_w, in]``, or ``[kernel_h, kernel_w, channels]``.
    padding_value : int
        What `image` is surrounded by.

    Returns
    -------
    ndarray
        float64 ``[out_h, out_w, out]``, which holds these sums exactly: they stay far below 2**53.
    """
    weight = weight.astype(np.float64)
    sums = np.zeros(layer.output_shape)
    for row, column, seen in windows_of(layer, image.astype(np.float64), padding_value):
        if isinstance(layer, Convolution):
            sums += seen @ weight[:, row, column].T
        else:
            sums += np.repeat(seen, layer.multiplier, axis=2) * weight[row, column]
    return sums


def _filled(shape: Shape, low: int, high: int) -> TensorRange:
    return TensorRange(np.full(shape, low, np.int8), np.full(shape, high, np.int8))


def _output_range(layer: Layer, *inputs: TensorRange) -> TensorRange:
    if isinstance(layer, MaxPool):
        return TensorRange(*(largest_of_windows(layer, end, -128) for end in (inputs[0].low, inputs[0].high)))
    if not fits_int32(layer):
        clamp: Any = layer.parameters if isinstance(layer, Add) else layer.requantization
        return _filled(layer.output_shape, clamp.minimum, clamp.maximum)
    match layer:
        case Add():
            return _sum_range(layer.parameters, *inputs)
        case AveragePool():
            low, high = (
                end.astype(np.int32).sum(axis=(0, 1), keepdims=True) + np.int32(layer.bias)
                for end in (inputs[0].low, inputs[0].high)
            )
        case _:
            low, high = accumulator_range(layer, inputs[0])
    return TensorRange(
        requantize_round_half_up(low, layer.requantization), requantize_round_half_up(high, layer.requantization)
    )


def _sum_range(parameters: AddParameters, a: TensorRange, b: TensorRange) -> TensorRange:
    # Neither multiplier is negative.
    return TensorRange(add_round_half_up(a.low, b.low, parameters), add_round_half_up(a.high, b.high, parameters))
