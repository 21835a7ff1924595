"""A quantized network as a list of integer layers: what the passes reason about and the C backend emits.

The Relax module stays the one truth: `integer_relax` writes it from these layers and reads them back from it. This is
the view of it in which a layer is one object. Activations are int8 NHWC without the batch dimension; a layer names its
inputs by the layers that made them, or ``"input"``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.network.fixed_point import AddParameters, Requantization
from thumbnet.compile.network.quantization import TensorQuant

#: The name under which layers refer to the network's input.
NETWORK_INPUT = "input"

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Convolution:
    """A convolution over all input channels; with a 1x1 kernel a pointwise one, on 1x1 pixels a fully connected layer.

    Parameters
    ----------
    name : str
        PyTorch's module path.
    source : str
        The layer that made the input.
    input_shape, output_shape : (H, W, C)
        Of one image.
    weight : ndarray
        int8 ``[out, kernel_h, kernel_w, in]`` in [-127, 127].
    bias : ndarray
        int32 ``[out]``, with ``-input_zero_point * sum(weight)`` folded in: the accumulator is ``bias + sum(x * w)``
        over raw int8 values.
    input_zero_point : int
        What padding is made of.
    stride : (int, int)
        Rows, columns.
    padding : (int, int, int, int)
        Top, left, bottom, right.
    requantization : Requantization
        To int8.
    output_quant : TensorQuant
        What the output's numbers mean.
    """

    name: str
    source: str
    input_shape: Shape
    output_shape: Shape
    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    input_zero_point: int
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    requantization: Requantization
    output_quant: TensorQuant

    @property
    def kernel(self) -> tuple[int, int]:
        """Height and width of the kernel."""
        return self.weight.shape[1], self.weight.shape[2]

    @property
    def kind(self) -> str:
        """The field's word for it: conv2d, pointwise_conv2d or fully_connected."""
        if self.kernel != (1, 1):
            return "conv2d"
        return "fully_connected" if self.input_shape[:2] == (1, 1) else "pointwise_conv2d"

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return (self.source,)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference, padding counted."""
        return self.output_shape[0] * self.output_shape[1] * self.weight.size


@dataclass(frozen=True)
class DepthwiseConvolution:
    """A convolution of each channel with its own kernel; fields as in `Convolution`, but for the weights.

    Parameters
    ----------
    weight : ndarray
        int8 ``[kernel_h, kernel_w, channels]`` in [-127, 127].
    """

    name: str
    source: str
    input_shape: Shape
    output_shape: Shape
    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    input_zero_point: int
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    requantization: Requantization
    output_quant: TensorQuant
    kind = "depthwise_conv2d"

    @property
    def kernel(self) -> tuple[int, int]:
        """Height and width of the kernel."""
        return self.weight.shape[0], self.weight.shape[1]

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return (self.source,)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference, padding counted."""
        return self.output_shape[0] * self.output_shape[1] * self.weight.size


@dataclass(frozen=True)
class AveragePool:
    """The mean over all pixels: ``requantize(bias + sum(x))``.

    Parameters
    ----------
    bias : int
        ``-H * W * input_zero_point``.
    """

    name: str
    source: str
    input_shape: Shape
    output_shape: Shape
    bias: int
    requantization: Requantization
    output_quant: TensorQuant
    kind = "average_pool"

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return (self.source,)

    @property
    def macs(self) -> int:
        """Nothing is multiplied."""
        return 0


@dataclass(frozen=True)
class Add:
    """The sum of two tensors of one shape (a residual connection)."""

    name: str
    source_a: str
    source_b: str
    output_shape: Shape
    parameters: AddParameters
    output_quant: TensorQuant
    kind = "add"

    @property
    def input_shape(self) -> Shape:
        """Shape of both inputs."""
        return self.output_shape

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return (self.source_a, self.source_b)

    @property
    def macs(self) -> int:
        """An add is not counted as multiply-accumulates."""
        return 0


Layer = Convolution | DepthwiseConvolution | AveragePool | Add


@dataclass(frozen=True)
class IntegerNetwork:
    """Layers in an order in which they can be executed; the last one makes the network's output.

    Parameters
    ----------
    input_shape : (H, W, C)
        Of one image.
    input_quant : TensorQuant
        What the input's numbers mean.
    layers : tuple of Layer
        Each layer's sources are ``"input"`` or come before it.
    """

    input_shape: Shape
    input_quant: TensorQuant
    layers: tuple[Layer, ...]

    @property
    def output(self) -> Layer:
        """The layer that makes the output."""
        return self.layers[-1]

    def shape_of(self, name: str) -> Shape:
        """Return the shape of a layer's output, or of the network's input."""
        if name == NETWORK_INPUT:
            return self.input_shape
        return next(layer.output_shape for layer in self.layers if layer.name == name)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return sum(layer.macs for layer in self.layers)


def accumulator_bound(layer: Convolution | DepthwiseConvolution) -> NDArray[np.int64]:
    """Return the largest magnitude ``[out]`` any int8 input can bring the accumulator to."""
    axes = (1, 2, 3) if isinstance(layer, Convolution) else (0, 1)
    bound: NDArray[np.int64] = np.abs(layer.weight.astype(np.int64)).sum(axis=axes) * 128 + np.abs(
        layer.bias.astype(np.int64)
    )
    return bound
