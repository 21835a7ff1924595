"""What a network's file may say: scalars in their ranges, and arrays and layers that fit together.

Whoever computes a network read from a file may take it to be one: shapes, dtypes and sources are right, and nothing
makes the arithmetic leave its types, or memory and time their bounds.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from thumbnet.compile.manifest import Extent, Int8, Part, Text, check_elements
from thumbnet.compile.network.fixed_point import INT32_MAX
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

#: Of all layers' outputs together, and of one inference: a hundred times the largest MobileNet's and thirty times.
MOST_ACTIVATIONS, MOST_MACS = 1 << 27, 1 << 34

Hwc = Annotated[tuple[Extent, Extent, Extent], check_elements]
Quant = tuple[Annotated[float, Field(ge=1e-38, le=1e38)], Int8]
Int32 = Annotated[int, Field(ge=-INT32_MAX - 1, le=INT32_MAX)]
AddMultiplier = Annotated[int, Field(ge=0, lt=1 << 15)]
Stride = Annotated[int, Field(ge=1, le=64)]
Border = Annotated[int, Field(ge=0, le=64)]


class RequantizationFields(Part):
    """`fixed_point.Requantization` without its arrays."""

    zero_point: Int8
    minimum: Int8
    maximum: Int8


class AddParameterFields(Part):
    """`fixed_point.AddParameters`."""

    multiplier_a: AddMultiplier
    multiplier_b: AddMultiplier
    constant: Int32
    shift: Annotated[int, Field(ge=1, lt=32)]
    minimum: Int8
    maximum: Int8


class _LayerFields(Part):
    name: Text
    output_shape: Hwc
    output_quant: Quant


class ConvolutionFields(_LayerFields):
    """`Convolution` and `DepthwiseConvolution` without their arrays."""

    kind: Literal["Convolution", "DepthwiseConvolution"]
    source: Text
    input_shape: Hwc
    input_zero_point: Int8
    stride: tuple[Stride, Stride]
    padding: tuple[Border, Border, Border, Border]
    requantization: RequantizationFields


class AveragePoolFields(_LayerFields):
    """`AveragePool` without its arrays."""

    kind: Literal["AveragePool"]
    source: Text
    input_shape: Hwc
    bias: Int32
    requantization: RequantizationFields


class MaxPoolFields(_LayerFields):
    """`MaxPool`."""

    kind: Literal["MaxPool"]
    source: Text
    input_shape: Hwc
    kernel: tuple[Stride, Stride]
    stride: tuple[Stride, Stride]
    padding: tuple[Border, Border, Border, Border]


class AddFields(_LayerFields):
    """`Add`."""

    kind: Literal["Add"]
    source_a: Text
    source_b: Text
    parameters: AddParameterFields


AnyLayerFields = Annotated[
    ConvolutionFields | AveragePoolFields | MaxPoolFields | AddFields, Field(discriminator="kind")
]


class NetworkFields(Part):
    """The JSON of a network's file."""

    input_shape: Hwc
    input_quant: Quant
    layers: Annotated[list[AnyLayerFields], Field(min_length=1, max_length=10_000)]


def check_network(network: IntegerNetwork) -> None:
    """Check that arrays and layers fit together.

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
        _check_layer(layer)
        shapes[layer.name] = layer.output_shape
    activations = sum(math.prod(shape) for shape in shapes.values())
    if activations > MOST_ACTIVATIONS or network.macs > MOST_MACS:
        raise ValueError(
            f"{activations:,} activations and {network.macs:,} multiply-accumulates;"
            f" {MOST_ACTIVATIONS:,} and {MOST_MACS:,} at most are computed"
        )


def _check_layer(layer: Layer) -> None:
    channels = layer.output_shape[2]
    match layer:
        case Add():
            p = layer.parameters
            largest = 128 * (p.multiplier_a + p.multiplier_b) + abs(p.constant)
        case AveragePool():
            _expect(layer, "output_shape", layer.output_shape, (1, 1, layer.input_shape[2]))
            largest = 128 * math.prod(layer.input_shape[:2]) + abs(layer.bias)
        case MaxPool():
            _expect(layer, "output channels", channels, layer.input_shape[2])
            _check_extents(layer)
            return
        case Convolution() | DepthwiseConvolution():
            _check_convolution(layer)
            largest = int(accumulator_bound(layer).max())
    if not isinstance(layer, Add):
        _expect_array(layer, "multiplier", layer.requantization.multiplier, np.int32, (channels,))
        _expect_array(layer, "left_shift", layer.requantization.left_shift, np.int32, (channels,))
        multiplier, shift = layer.requantization.multiplier, layer.requantization.left_shift
        if multiplier.min() < 0 or multiplier.max() >= 1 << 30 or shift.min() < 0 or shift.max() > 31:
            raise ValueError(f"{layer.name}: a multiplier or a shift is out of range")
        largest <<= int(shift.max())
    if largest > INT32_MAX:
        raise ValueError(f"{layer.name}: its sums can reach {largest:,}, which is no int32")


def _check_convolution(layer: Convolution | DepthwiseConvolution) -> None:
    into, out = layer.input_shape[2], layer.output_shape[2]
    _expect_array(layer, "bias", layer.bias, np.int32, (out,))
    if layer.weight.ndim != (4 if isinstance(layer, Convolution) else 3):
        raise ValueError(f"{layer.name}: weight has {layer.weight.ndim} dimensions")
    kernel = layer.kernel
    _expect_array(
        layer,
        "weight",
        layer.weight,
        np.int8,
        (out, *kernel, into) if isinstance(layer, Convolution) else (*kernel, out),
    )
    if isinstance(layer, DepthwiseConvolution):
        _expect(layer, "output channels for each of the input", out % into, 0)
    _check_extents(layer)


def _check_extents(layer: Convolution | DepthwiseConvolution | MaxPool) -> None:
    top, left, bottom, right = layer.padding
    padded = (layer.input_shape[0] + top + bottom, layer.input_shape[1] + left + right)
    extents = tuple(
        (size - taps) // step + 1 for size, taps, step in zip(padded, layer.kernel, layer.stride, strict=True)
    )
    _expect(layer, "output_shape", layer.output_shape[:2], extents)


def _expect(layer: Layer, what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise ValueError(f"{layer.name}: {what} is {found}, it must be {wanted}")


def _expect_array(layer: Layer, what: str, array: NDArray[np.generic], dtype: type, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(
            f"{layer.name}: {what} is {array.dtype} {array.shape}, it must be {np.dtype(dtype).name} {shape}"
        )
