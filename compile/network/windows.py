"""What a window of rows and columns sees of an image, and the largest of it: the same for integers and floats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.network.layers import ConvolutionLayer, DepthwiseLayer, MaxPoolLayer


def windows_of(
    layer: ConvolutionLayer | DepthwiseLayer | MaxPoolLayer, image: NDArray[Any], padding_value: float
) -> Iterator[tuple[int, int, NDArray[Any]]]:
    """Return for each tap of a layer's kernel, by row and column, what it sees: ``[out_h, out_w, channels]``.

    Parameters
    ----------
    layer : ConvolutionLayer, DepthwiseLayer or MaxPoolLayer
        Whose kernel, stride, padding and output size are used.
    image : ndarray
        ``[H, W, channels]``.
    padding_value : int or float
        What lies beyond the image.
    """
    top, left, bottom, right = layer.padding
    padded = np.pad(image, ((top, bottom), (left, right), (0, 0)), constant_values=padding_value)
    out_h, out_w, _ = layer.output_shape
    for row in range(layer.kernel[0]):
        for column in range(layer.kernel[1]):
            yield row, column, padded[row :: layer.stride[0], column :: layer.stride[1]][:out_h, :out_w]


def largest_of_windows(layer: MaxPoolLayer, image: NDArray[Any], least: float) -> NDArray[Any]:
    """Return the largest value under each window, ``[out_h, out_w, channels]``; `least` is the least of the dtype."""
    largest = np.full(layer.output_shape, least, image.dtype)
    for _, _, seen in windows_of(layer, image, least):
        np.maximum(largest, seen, out=largest)
    return largest
