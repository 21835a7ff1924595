"""Puts a float32 network together layer by layer; what scales, shifts or clamps a layer's output becomes part of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.errors import UnsupportedOperatorError
from thumbnet.compile.network.float_network import (
    FloatAdd,
    FloatAveragePool,
    FloatConvolution,
    FloatDepthwiseConvolution,
    FloatLayer,
    FloatMaxPool,
    FloatNetwork,
)
from thumbnet.compile.network.layers import NETWORK_INPUT, Shape

Padding: TypeAlias = tuple[int, int, int, int]
Pair: TypeAlias = tuple[int, int]
NO_PADDING: Padding = (0, 0, 0, 0)
ONE: Pair = (1, 1)


@dataclass(frozen=True)
class Activation:
    """A tensor of a network that is being put together.

    Parameters
    ----------
    layer : str
        What makes it.
    padding : (int, int, int, int)
        Zeros around it: top, left, bottom, right.
    flat : bool
        It was flattened, in PyTorch's order: channels, rows, columns.
    """

    layer: str
    padding: Padding = NO_PADDING
    flat: bool = False


class NetworkBuilder:
    """Takes layers in an order in which they can be executed.

    Parameters
    ----------
    input_shape : (H, W, C)
        Of the image.
    """

    def __init__(self, input_shape: Shape) -> None:
        self.input_shape = input_shape
        self._layers: dict[str, FloatLayer] = {}

    def shape(self, activation: Activation) -> Shape:
        """Return an activation's shape, with what it is padded with."""
        height, width, channels = (
            self.input_shape if activation.layer == NETWORK_INPUT else self._layers[activation.layer].output_shape
        )
        top, left, bottom, right = activation.padding
        return height + top + bottom, width + left + right, channels

    def network(self, output: Activation) -> FloatNetwork:
        """Return the layers that the output is made of.

        Raises
        ------
        UnsupportedOperatorError
            It is no row of classes.
        """
        height, width, channels = self.shape(output)
        if output.layer == NETWORK_INPUT or (height, width) != (1, 1):
            raise UnsupportedOperatorError(
                f"{output.layer}: the output is {height} x {width} pixels of {channels} channels, one row of classes is"
                " wanted"
            )
        needed = {output.layer}
        for layer in reversed(self._layers.values()):
            if layer.name in needed:
                needed.update(layer.sources)
        return FloatNetwork(self.input_shape, tuple(layer for layer in self._layers.values() if layer.name in needed))

    def free_name(self, path: str, operator: str) -> str:
        """Return a name for a layer: its module's path, with the operator's name where that is taken."""
        wanted = path if path and path != NETWORK_INPUT else ".".join(part for part in (path, operator) if part)
        # Where names have no dots, a.b and a_b are one.
        taken = {name.replace(".", "_") for name in self._layers}
        if wanted.replace(".", "_") not in taken:
            return wanted
        wanted = wanted if wanted.endswith(operator) else f"{wanted}.{operator}"
        numbers = (wanted if number == 1 else f"{wanted}_{number}" for number in range(1, len(self._layers) + 2))
        return next(name for name in numbers if name.replace(".", "_") not in taken)

    # ---- layers --------------------------------------------------------------------------------------------------

    def convolution(
        self,
        name: str,
        source: Activation,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32] | None,
        *,
        stride: Pair = ONE,
        padding: Padding = NO_PADDING,
        groups: int = 1,
    ) -> Activation:
        """Add a convolution; `weight` is PyTorch's ``[out, in / groups, kernel_h, kernel_w]``.

        Raises
        ------
        UnsupportedOperatorError
            It has groups of several channels.
        """
        inputs, outputs = self.shape(replace(source, padding=NO_PADDING)), weight.shape[0]
        depthwise = groups > 1
        if depthwise and (weight.shape[1] != 1 or groups != inputs[2]):
            raise UnsupportedOperatorError(
                f"{name}: PyTorch's conv2d in {groups} groups of {weight.shape[1]} channels has no form here; take 1"
                f" group, or one for each of the {inputs[2]} channels"
            )
        padding = sum_padding(padding, source.padding)
        layer_type: type[FloatConvolution | FloatDepthwiseConvolution]
        layer_type = FloatDepthwiseConvolution if depthwise else FloatConvolution
        layer = layer_type(
            name=name,
            source=source.layer,
            input_shape=inputs,
            output_shape=(*_extents(inputs, weight.shape[2:], stride, padding), outputs),
            weight=np.ascontiguousarray(weight[:, 0].transpose(1, 2, 0) if depthwise else weight.transpose(0, 2, 3, 1)),
            bias=np.zeros(outputs, np.float32) if bias is None else bias,
            input_zero_point=0,
            stride=stride,
            padding=padding,
        )
        return self._add(layer)

    def linear(
        self, name: str, source: Activation, weight: NDArray[np.float32], bias: NDArray[np.float32] | None
    ) -> Activation:
        """Add a fully connected layer, of `weight` ``[out, in]``: over an image a convolution as large as that."""
        height, width, channels = self.shape(source)
        return self.convolution(
            name, replace(self.unpadded(source), flat=False), weight.reshape(-1, channels, height, width), bias
        )

    def average_pool(self, name: str, source: Activation) -> Activation:
        """Add the mean over all pixels."""
        source = self.unpadded(source)
        height, width, channels = self.shape(source)
        return self._add(FloatAveragePool(name, source.layer, (height, width, channels), (1, 1, channels)))

    def window_average(
        self, name: str, source: Activation, kernel: Pair, stride: Pair, padding: Padding = NO_PADDING
    ) -> Activation:
        """Add the mean over a window; zeros around the image count."""
        channels = self.shape(source)[2]
        weight = np.full((channels, 1, *kernel), 1 / math.prod(kernel), np.float32)
        return self._by_channels(name, source, weight, None, stride=stride, padding=padding)

    def max_pool(
        self, name: str, source: Activation, kernel: Pair, stride: Pair, padding: Padding = NO_PADDING
    ) -> Activation:
        """Add the largest value under a window."""
        source = self.unpadded(source)
        inputs = self.shape(source)
        shape = (*_extents(inputs, kernel, stride, padding), inputs[2])
        return self._add(FloatMaxPool(name, source.layer, inputs, shape, kernel, stride, padding))

    def add(self, name: str, a: Activation, b: Activation) -> Activation:
        """Add the sum of two activations.

        Raises
        ------
        UnsupportedOperatorError
            They have different shapes.
        """
        a, b = self.unpadded(a), self.unpadded(b)
        shapes = self.shape(a), self.shape(b)
        if shapes[0] != shapes[1]:
            raise UnsupportedOperatorError(
                f"{name}: PyTorch's add of {_spell(shapes[0])} and {_spell(shapes[1])} has no form here; both must"
                " have one shape"
            )
        return replace(self._add(FloatAdd(name, a.layer, b.layer, shapes[0])), flat=a.flat)

    # ---- what becomes part of a layer ------------------------------------------------------------------------------

    def affine(
        self,
        name: str,
        source: Activation,
        scale: NDArray[np.float64],
        shift: NDArray[np.float64],
        *,
        read_once: bool,
    ) -> Activation:
        """Multiply each channel and add to it: in the convolution that makes it, or in a layer of its own.

        Parameters
        ----------
        name : str
            For a layer of its own.
        source : Activation
            What to change.
        scale, shift : ndarray
            ``[C]``.
        read_once : bool
            Nothing else reads the source as it is.
        """
        layer = self._own(source) if read_once else None
        plain = layer is not None and (layer.minimum, layer.maximum) == (-np.inf, np.inf)
        if plain and isinstance(layer, FloatConvolution | FloatDepthwiseConvolution):
            factor = scale[:, None, None, None] if isinstance(layer, FloatConvolution) else scale
            self._layers[layer.name] = replace(
                layer,
                weight=(layer.weight.astype(np.float64) * factor).astype(np.float32),
                bias=(layer.bias.astype(np.float64) * scale + shift).astype(np.float32),
            )
            return source
        weight = scale.astype(np.float32)[:, None, None, None]
        return replace(self._by_channels(name, source, weight, shift.astype(np.float32)), flat=source.flat)

    def clamp(self, name: str, source: Activation, minimum: float, maximum: float, *, read_once: bool) -> Activation:
        """Clamp an activation: in the layer that makes it, or in a layer of its own; parameters as of `affine`."""
        layer = self._own(source) if read_once else None
        if layer is None:
            source = replace(self._copy(name, source), flat=source.flat)
            layer = self._layers[source.layer]
        # What was clamped before stays within that.
        low, high = (float(np.clip(end, minimum, maximum)) for end in (layer.minimum, layer.maximum))
        self._layers[layer.name] = replace(layer, minimum=low, maximum=high)
        return source

    def unpadded(self, activation: Activation) -> Activation:
        """Return an activation without zeros around it: where there are some, a copy that holds them."""
        if not any(activation.padding):
            return activation
        return self._copy(self.free_name(activation.layer, "pad"), activation)

    def _copy(self, name: str, source: Activation) -> Activation:
        channels = self.shape(source)[2]
        return self._by_channels(name, source, np.ones((channels, 1, 1, 1), np.float32), None)

    def _by_channels(
        self,
        name: str,
        source: Activation,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32] | None,
        *,
        stride: Pair = ONE,
        padding: Padding = NO_PADDING,
    ) -> Activation:
        groups = self.shape(source)[2]
        source = replace(source, flat=False)
        return self.convolution(name, source, weight, bias, stride=stride, padding=padding, groups=groups)

    def _own(self, activation: Activation) -> FloatLayer | None:
        """Return the layer that makes an activation, if its output is that as it is."""
        return None if any(activation.padding) else self._layers.get(activation.layer)

    def _add(self, layer: FloatLayer) -> Activation:
        if min(layer.output_shape) < 1:
            raise UnsupportedOperatorError(
                f"{layer.name}: of {_spell(layer.input_shape)} nothing is left; take a larger input"
            )
        assert layer.name not in self._layers, layer.name
        self._layers[layer.name] = layer
        return Activation(layer.name)


def _extents(shape: Shape, kernel: tuple[int, ...], stride: Pair, padding: Padding) -> Pair:
    top, left, bottom, right = padding
    height, width = shape[0] + top + bottom, shape[1] + left + right
    return (height - kernel[0]) // stride[0] + 1, (width - kernel[1]) // stride[1] + 1


def sum_padding(first: Padding, second: Padding) -> Padding:
    """Return what is around a tensor that is padded twice."""
    top, left, bottom, right = (a + b for a, b in zip(first, second, strict=True))
    return top, left, bottom, right


def _spell(shape: Shape) -> str:
    height, width, channels = shape
    return f"{height} x {width} pixels of {channels} channels"
