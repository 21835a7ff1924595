"""What layers that were read from a file have to be: shapes, dtypes and sources that fit together, and bounded work."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.network.layers import (
    NETWORK_INPUT,
    ConvolutionLayer,
    DepthwiseLayer,
    MaxPoolLayer,
    Network,
    Shape,
)

#: Of all layers' outputs together, and of one inference: a hundred times the largest MobileNet's and thirty times.
MOST_ACTIVATIONS, MOST_MACS = 1 << 27, 1 << 34


def check_layers(network: Network, check_layer: Callable[[Any], None]) -> None:
    """Check that layers fit together, and each for itself by `check_layer`.

    Raises
    ------
    ValueError
        Naming the layer.
    """
    shapes: dict[str, Shape] = {NETWORK_INPUT: network.input_shape}
    for layer in network.layers:
        if layer.name in shapes:
            raise ValueError(f"{layer.name} stands there twice")
        for source in layer.sources:
            if source not in shapes:
                raise ValueError(f"{layer.name} reads {source}, which is not before it")
            if shapes[source] != layer.input_shape:
                raise ValueError(f"{layer.name} takes {layer.input_shape}, {source} gives {shapes[source]}")
        check_layer(layer)
        shapes[layer.name] = layer.output_shape
    activations = sum(math.prod(shape) for shape in shapes.values())
    if activations > MOST_ACTIVATIONS or network.macs > MOST_MACS:
        raise ValueError(
            f"{activations:,} activations and {network.macs:,} multiply-accumulates;"
            f" {MOST_ACTIVATIONS:,} and {MOST_MACS:,} at most are computed"
        )


def check_convolution(layer: ConvolutionLayer | DepthwiseLayer, weight_dtype: type, bias_dtype: type) -> None:
    """Check the arrays and extents of a convolution."""
    depthwise = isinstance(layer, DepthwiseLayer)
    into, out = layer.input_shape[2], layer.output_shape[2]
    expect_array(layer.name, "bias", layer.bias, bias_dtype, (out,))
    if layer.weight.ndim != (3 if depthwise else 4):
        raise ValueError(f"{layer.name}: weight has {layer.weight.ndim} dimensions")
    wanted = (*layer.kernel, out) if depthwise else (out, *layer.kernel, into)
    expect_array(layer.name, "weight", layer.weight, weight_dtype, wanted)
    if depthwise:
        expect(layer.name, "output channels for each of the input", out % into, 0)
    _check_extents(layer)


def check_max_pool(layer: MaxPoolLayer) -> None:
    """Check the extents of a maximum under windows."""
    expect(layer.name, "output channels", layer.output_shape[2], layer.input_shape[2])
    _check_extents(layer)


def _check_extents(layer: ConvolutionLayer | DepthwiseLayer | MaxPoolLayer) -> None:
    top, left, bottom, right = layer.padding
    padded = (layer.input_shape[0] + top + bottom, layer.input_shape[1] + left + right)
    extents = tuple(
        (size - taps) // step + 1 for size, taps, step in zip(padded, layer.kernel, layer.stride, strict=True)
    )
    expect(layer.name, "output_shape", layer.output_shape[:2], extents)


def expect(name: str, what: str, found: object, wanted: object) -> None:
    """Check what is said of a layer."""
    if found != wanted:
        raise ValueError(f"{name}: {what} is {found}, it must be {wanted}")


def expect_array(name: str, what: str, array: NDArray[np.generic], dtype: type, shape: tuple[int, ...]) -> None:
    """Check the type and shape of one of a layer's arrays."""
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{name}: {what} is {array.dtype} {array.shape}, it must be {np.dtype(dtype).name} {shape}")
