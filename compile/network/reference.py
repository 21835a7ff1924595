"""The reference: a quantized network computed in NumPy with the arithmetic of `thumbnet.compile.network.fixed_point`.

Every backend must give these bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.network.fixed_point import add_round_half_up, requantize_round_half_up
from thumbnet.compile.network.integer_network import (
    NETWORK_INPUT,
    Add,
    AveragePool,
    Convolution,
    DepthwiseConvolution,
    IntegerNetwork,
    Layer,
    MaxPool,
)
from thumbnet.compile.network.windows import largest_of_windows, windows_of

Activation = NDArray[np.int8]


def run_reference(network: IntegerNetwork, image: Activation) -> NDArray[np.int8]:
    """Return the output ``[classes]`` int8 for one image ``[H, W, C]`` int8."""
    return run_reference_layers(network, image)[network.output.name].reshape(-1)


def run_reference_layers(network: IntegerNetwork, image: Activation) -> dict[str, Activation]:
    """Return every layer's output ``[H, W, C]`` int8 by the layer's name, for one image ``[H, W, C]`` int8.

    Raises
    ------
    ValueError
        The image has another shape or dtype.
    """
    if image.shape != network.input_shape or image.dtype != np.int8:
        raise ValueError(f"image is {image.dtype} {image.shape}, the network takes int8 {network.input_shape}")
    values: dict[str, Activation] = {NETWORK_INPUT: image}
    for layer in network.layers:
        values[layer.name] = run_layer(layer, *(values[source] for source in layer.sources))
    del values[NETWORK_INPUT]
    return values


def run_layer(layer: Layer, *inputs: Activation) -> Activation:
    """Compute one layer from its inputs ``[H, W, C]`` int8."""
    match layer:
        case Add():
            return add_round_half_up(inputs[0], inputs[1], layer.parameters)
        case MaxPool():
            return largest_of_windows(layer, inputs[0], -128)
        case AveragePool():
            acc = inputs[0].astype(np.int32).sum(axis=(0, 1), keepdims=True) + np.int32(layer.bias)
        case Convolution():
            acc = _convolve(layer, inputs[0])
        case DepthwiseConvolution():
            acc = _convolve_depthwise(layer, inputs[0])
    return requantize_round_half_up(acc, layer.requantization)


def _convolve(layer: Convolution, image: Activation) -> NDArray[np.int32]:
    # float64 holds every sum exactly (they are below 2**31) and multiplies matrices much faster than integers do.
    acc: NDArray[Any] = np.broadcast_to(layer.bias.astype(np.float64), layer.output_shape).copy()
    for row, column, seen in windows_of(layer, image, layer.input_zero_point):
        taps = layer.weight[:, row, column, :].astype(np.float64)
        acc += seen.astype(np.float64) @ taps.T
    return acc.astype(np.int32)


def _convolve_depthwise(layer: DepthwiseConvolution, image: Activation) -> NDArray[np.int32]:
    acc = np.broadcast_to(layer.bias, layer.output_shape).copy()
    for row, column, seen in windows_of(layer, image, layer.input_zero_point):
        wide = np.repeat(seen, layer.multiplier, axis=2).astype(np.int32)
        acc += wide * layer.weight[row, column].astype(np.int32)
    return acc
