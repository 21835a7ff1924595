"""A float32 network as a list of layers, batch norms folded in: what our own kernels compute for Cortex-A."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.network.layers import (
    AddLayer,
    AveragePoolLayer,
    ConvolutionLayer,
    DepthwiseLayer,
    MaxPoolLayer,
    Network,
    Shape,
)


@dataclass(frozen=True)
class FloatConvolution(ConvolutionLayer):
    """A convolution over all input channels: ``clamp(bias + sum(x * w))``; fields as in `ConvolutionLayer`, and these.

    Parameters
    ----------
    weight, bias : ndarray
        float32.
    minimum, maximum : float
        The clamp: 0 and 6 for ReLU6, infinite where there is none.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    minimum: float = -np.inf
    maximum: float = np.inf


@dataclass(frozen=True)
class FloatDepthwiseConvolution(DepthwiseLayer):
    """A convolution of each channel with its own kernel; fields as in `FloatConvolution`."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    minimum: float = -np.inf
    maximum: float = np.inf


@dataclass(frozen=True)
class FloatAveragePool(AveragePoolLayer):
    """The mean over all pixels, clamped."""

    minimum: float = -np.inf
    maximum: float = np.inf


@dataclass(frozen=True)
class FloatMaxPool(MaxPoolLayer):
    """The largest value under a window, clamped."""

    minimum: float = -np.inf
    maximum: float = np.inf


@dataclass(frozen=True)
class FloatAdd(AddLayer):
    """The sum of two tensors of one shape, clamped."""

    minimum: float = -np.inf
    maximum: float = np.inf


FloatLayer = FloatConvolution | FloatDepthwiseConvolution | FloatAveragePool | FloatMaxPool | FloatAdd


@dataclass(frozen=True)
class FloatNetwork(Network):
    """Layers of float32, see `Network`."""

    input_shape: Shape
    layers: tuple[FloatLayer, ...]
    dtype: ClassVar[str] = "float32"
    element_bytes: ClassVar[int] = 4
