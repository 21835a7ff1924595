"""A float32 network computed in NumPy, every layer in float64 from float32 inputs: what kernels come close to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.network.float_network import (
    FloatAdd,
    FloatAveragePool,
    FloatConvolution,
    FloatDepthwiseConvolution,
    FloatLayer,
    FloatMaxPool,
    FloatNetwork,
)
from thumbnet.compile.network.layers import NETWORK_INPUT
from thumbnet.compile.network.windows import largest_of_windows, windows_of

Activation = NDArray[np.float32]


def run_float_layers(network: FloatNetwork, image: Activation) -> dict[str, Activation]:
    """Return every layer's output ``[H, W, C]`` float32 by the layer's name, for one image ``[H, W, C]`` float32.

    Raises
    ------
    ValueError
        The image has another shape or dtype.
    """
    if image.shape != network.input_shape or image.dtype != np.float32:
        raise ValueError(f"image is {image.dtype} {image.shape}, the network takes float32 {network.input_shape}")
    values: dict[str, Activation] = {NETWORK_INPUT: image}
    for layer in network.layers:
        values[layer.name] = _run_layer(layer, *(values[source] for source in layer.sources))
    del values[NETWORK_INPUT]
    return values


def _run_layer(layer: FloatLayer, *inputs: Activation) -> Activation:
    wide = [values.astype(np.float64) for values in inputs]
    match layer:
        case FloatAdd():
            exact = wide[0] + wide[1]
        case FloatAveragePool():
            exact = wide[0].mean(axis=(0, 1), keepdims=True)
        case FloatMaxPool():
            exact = largest_of_windows(layer, wide[0], -np.inf)
        case FloatConvolution() | FloatDepthwiseConvolution():
            exact = _convolve(layer, wide[0])
    result: Activation = np.clip(exact, layer.minimum, layer.maximum).astype(np.float32)
    return result


def _convolve(layer: FloatConvolution | FloatDepthwiseConvolution, image: NDArray[np.float64]) -> NDArray[np.float64]:
    total: NDArray[Any] = np.broadcast_to(layer.bias.astype(np.float64), layer.output_shape).copy()
    for row, column, seen in windows_of(layer, image, 0.0):
        if isinstance(layer, FloatConvolution):
            total += seen @ layer.weight[:, row, column, :].astype(np.float64).T
        else:
            total += np.repeat(seen, layer.multiplier, axis=2) * layer.weight[row, column]
    return total
