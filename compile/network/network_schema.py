"""What a network's file may say: scalars in their ranges, and arrays and layers that fit together.

Whoever computes a network read from a file may take it to be one: shapes, dtypes and sources are right, and nothing
makes the arithmetic leave its types, or memory and time their bounds.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from thumbnet.compile.manifest import Extent, Int8, Part, Text, check_elements
from thumbnet.compile.network.fixed_point import INT32_MAX
from thumbnet.compile.network.integer_network import (
    Add,
    AveragePool,
    Convolution,
    DepthwiseConvolution,
    IntegerNetwork,
    Layer,
    MaxPool,
    accumulator_bound,
)
from thumbnet.compile.network.layer_checks import check_convolution, check_layers, check_max_pool, expect, expect_array

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
    check_layers(network, _check_layer)


def _check_layer(layer: Layer) -> None:
    channels = layer.output_shape[2]
    match layer:
        case Add():
            p = layer.parameters
            largest = 128 * (p.multiplier_a + p.multiplier_b) + abs(p.constant)
        case AveragePool():
            expect(layer.name, "output_shape", layer.output_shape, (1, 1, layer.input_shape[2]))
            largest = 128 * math.prod(layer.input_shape[:2]) + abs(layer.bias)
        case MaxPool():
            check_max_pool(layer)
            return
        case Convolution() | DepthwiseConvolution():
            check_convolution(layer, np.int8, np.int32)
            largest = int(accumulator_bound(layer).max())
    if not isinstance(layer, Add):
        expect_array(layer.name, "multiplier", layer.requantization.multiplier, np.int32, (channels,))
        expect_array(layer.name, "left_shift", layer.requantization.left_shift, np.int32, (channels,))
        multiplier, shift = layer.requantization.multiplier, layer.requantization.left_shift
        if multiplier.min() < 0 or multiplier.max() >= 1 << 30 or shift.min() < 0 or shift.max() > 31:
            raise ValueError(f"{layer.name}: a multiplier or a shift is out of range")
        largest <<= int(shift.max())
    if largest > INT32_MAX:
        raise ValueError(f"{layer.name}: its sums can reach {largest:,}, which is no int32")
