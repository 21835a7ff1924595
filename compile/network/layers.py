"""What a network's layers are whatever their numbers: what is planned, and what kernels find their way by.

`integer_network` and `float_network` add the arithmetic. Activations are NHWC without the batch dimension; a layer
names its inputs by the layers that made them, or ``"input"``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray

#: The name under which layers refer to the network's input.
NETWORK_INPUT = "input"

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class ConvolutionLayer:
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
        ``[out, kernel_h, kernel_w, in]``.
    bias : ndarray
        ``[out]``.
    input_zero_point : int
        What padding is made of.
    stride : (int, int)
        Rows, columns.
    padding : (int, int, int, int)
        Top, left, bottom, right.
    """

    name: str
    source: str
    input_shape: Shape
    output_shape: Shape
    weight: NDArray[Any]
    bias: NDArray[Any]
    input_zero_point: int
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]

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
class DepthwiseLayer:
    """A convolution of each channel with kernels of its own; fields as in `ConvolutionLayer`, but for the weights.

    Parameters
    ----------
    weight : ndarray
        ``[kernel_h, kernel_w, out]``; output channel ``n`` is made of input channel ``n // multiplier``.
    """

    name: str
    source: str
    input_shape: Shape
    output_shape: Shape
    weight: NDArray[Any]
    bias: NDArray[Any]
    input_zero_point: int
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    kind: ClassVar[str] = "depthwise_conv2d"

    @property
    def kernel(self) -> tuple[int, int]:
        """Height and width of the kernel."""
        return self.weight.shape[0], self.weight.shape[1]

    @property
    def multiplier(self) -> int:
        """Output channels of an input channel."""
        return self.output_shape[2] // self.input_shape[2]

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return (self.source,)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference, padding counted."""
        return self.output_shape[0] * self.output_shape[1] * self.weight.size


@dataclass(frozen=True)
class AveragePoolLayer:
    """The mean over all pixels."""

    name: str
    source: str
    input_shape: Shape
    output_shape: Shape
    kind: ClassVar[str] = "average_pool"

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return (self.source,)

    @property
    def macs(self) -> int:
        """Nothing is multiplied."""
        return 0


@dataclass(frozen=True)
class MaxPoolLayer:
    """The largest value under a window, of each channel; fields as in `ConvolutionLayer`.

    Parameters
    ----------
    kernel : (int, int)
        Height and width of the window; what lies beyond the image is never the largest.
    """

    name: str
    source: str
    input_shape: Shape
    output_shape: Shape
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    kind: ClassVar[str] = "max_pool"

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return (self.source,)

    @property
    def macs(self) -> int:
        """Nothing is multiplied."""
        return 0


@dataclass(frozen=True)
class AddLayer:
    """The sum of two tensors of one shape (a residual connection)."""

    name: str
    source_a: str
    source_b: str
    output_shape: Shape
    kind: ClassVar[str] = "add"

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


AnyLayer = ConvolutionLayer | DepthwiseLayer | AveragePoolLayer | MaxPoolLayer | AddLayer


class Network:
    """Layers in an order in which they can be executed; the last one makes the network's output.

    Parameters
    ----------
    input_shape : (H, W, C)
        Of one image.
    layers : tuple of layers
        Each layer's sources are ``"input"`` or come before it.
    dtype : str
        Of the activations: NumPy's name.
    element_bytes : int
        Size of one of their values.
    """

    input_shape: Shape
    layers: tuple[AnyLayer, ...]
    dtype: ClassVar[str]
    element_bytes: ClassVar[int]

    @property
    def output(self) -> AnyLayer:
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
