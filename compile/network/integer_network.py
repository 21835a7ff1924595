"""A quantized network as a list of integer layers: what the passes reason about and the C backend emits.

The Relax module stays the one truth: `integer_relax` writes it from these layers and reads them back from it. This is
the view of it in which a layer is one object. Activations are int8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.network.fixed_point import AddParameters, Requantization
from thumbnet.compile.network.layers import (
    NETWORK_INPUT,
    AddLayer,
    AveragePoolLayer,
    ConvolutionLayer,
    DepthwiseLayer,
    MaxPoolLayer,
    Network,
    Shape,
)
from thumbnet.compile.network.quantization import TensorQuant

__all__ = [
    "NETWORK_INPUT",
    "Add",
    "AveragePool",
    "Convolution",
    "DepthwiseConvolution",
    "IntegerNetwork",
    "Layer",
    "MaxPool",
    "Shape",
    "accumulator_bound",
]


@dataclass(frozen=True)
class Convolution(ConvolutionLayer):
    """A convolution over all input channels; fields as in `ConvolutionLayer`, and these.

    Parameters
    ----------
    weight : ndarray
        int8 ``[out, kernel_h, kernel_w, in]`` in [-127, 127].
    bias : ndarray
        int32 ``[out]``, with ``-input_zero_point * sum(weight)`` folded in: the accumulator is ``bias + sum(x * w)``
        over raw int8 values.
    requantization : Requantization
        To int8.
    output_quant : TensorQuant
        What the output's numbers mean.
    """

    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    requantization: Requantization
    output_quant: TensorQuant


@dataclass(frozen=True)
class DepthwiseConvolution(DepthwiseLayer):
    """A convolution of each channel with its own kernel; fields as in `Convolution`, but for the weights.

    Parameters
    ----------
    weight : ndarray
        int8 ``[kernel_h, kernel_w, out]`` in [-127, 127].
    """

    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    requantization: Requantization
    output_quant: TensorQuant


@dataclass(frozen=True)
class AveragePool(AveragePoolLayer):
    """The mean over all pixels: ``requantize(bias + sum(x))``.

    Parameters
    ----------
    bias : int
        ``-H * W * input_zero_point``.
    """

    bias: int
    requantization: Requantization
    output_quant: TensorQuant


@dataclass(frozen=True)
class MaxPool(MaxPoolLayer):
    """The largest value under a window: values are moved, and keep their quantization."""

    output_quant: TensorQuant


@dataclass(frozen=True)
class Add(AddLayer):
    """The sum of two tensors of one shape (a residual connection)."""

    parameters: AddParameters
    output_quant: TensorQuant


Layer = Convolution | DepthwiseConvolution | AveragePool | MaxPool | Add


@dataclass(frozen=True)
class IntegerNetwork(Network):
    """Layers of int8, see `Network`.

    Parameters
    ----------
    input_quant : TensorQuant
        What the input's numbers mean.
    """

    input_shape: Shape
    input_quant: TensorQuant
    layers: tuple[Layer, ...]
    dtype: ClassVar[str] = "int8"
    element_bytes: ClassVar[int] = 1

    @property
    def output(self) -> Layer:
        """The layer that makes the output."""
        return self.layers[-1]


def accumulator_bound(layer: Convolution | DepthwiseConvolution) -> NDArray[np.int64]:
    """Return the largest magnitude ``[out]`` any int8 input can bring the accumulator to."""
    axes = (1, 2, 3) if isinstance(layer, Convolution) else (0, 1)
    bound: NDArray[np.int64] = np.abs(layer.weight.astype(np.int64)).sum(axis=axes) * 128 + np.abs(
        layer.bias.astype(np.int64)
    )
    return bound
