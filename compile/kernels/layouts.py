"""How a tensor lies in memory: strides, element size, border."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.network.layers import Shape

Padding = tuple[int, int, int, int]


@dataclass(frozen=True)
class Layout:
    """Where the values of a tensor ``[H, W, C]`` lie.

    In bytes from its start, value (y, x, c) is at ``first + y * row_bytes + x * pixel_bytes + c * channel_bytes``.

    Parameters
    ----------
    shape : (H, W, C)
        Without border.
    element_bytes : int
        1, 2 for int8 values kept as int16, or 4 for float32.
    first : int
        Bytes before value (0, 0, 0): the border.
    row_bytes, pixel_bytes, channel_bytes : int
        Strides.
    size : int
        Bytes in all, with borders and what kernels may touch beyond the last value.
    border : (int, int, int, int)
        Rows and columns of border: top, left, bottom, right; (0, 0, 0, 0) without one.
    """

    shape: Shape
    element_bytes: int
    first: int
    row_bytes: int
    pixel_bytes: int
    channel_bytes: int
    size: int
    border: Padding = (0, 0, 0, 0)

    @property
    def dtype(self) -> str:
        """int8, int16 or float32."""
        return {1: "int8", 2: "int16", 4: "float32"}[self.element_bytes]

    @property
    def planar(self) -> bool:
        """Whether the pixels of a row and channel are neighbours, not the channels of a pixel."""
        return self.channel_bytes > self.element_bytes

    @property
    def row_major(self) -> bool:
        """Whether all of a row lies before all of the next: what is read and written row by row can then overlap."""
        return self.row_bytes >= self.channel_bytes * self.shape[2]

    def pack(self, values: NDArray[Any], border: int = 0) -> bytes:
        """Return the bytes of a tensor's place in the arena.

        Parameters
        ----------
        values : ndarray
            ``[H, W, C]``, int8 or float32.
        border : int
            What stands in the border, and wherever no value does.
        """
        data = np.full(self.size // self.element_bytes, border, np.dtype(self.dtype).newbyteorder("<"))
        strides = (self.row_bytes, self.pixel_bytes, self.channel_bytes)
        place = np.ndarray(self.shape, data.dtype, buffer=data.data, offset=self.first, strides=strides)
        place[...] = values.reshape(self.shape)
        return data.tobytes().ljust(self.size, b"\0")

    def unpack(self, data: bytes) -> NDArray[Any]:
        """Return the tensor ``[H, W, C]``, int8 or float32, out of the bytes of its place in the arena."""
        view = np.ndarray(
            self.shape,
            np.dtype(self.dtype).newbyteorder("<"),
            buffer=data,
            offset=self.first,
            strides=(self.row_bytes, self.pixel_bytes, self.channel_bytes),
        )
        return view.astype(np.float32 if self.dtype == "float32" else np.int8)


def read_layout(fields: Mapping[str, Any]) -> Layout:
    """Return a layout from its fields as JSON has them."""
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    return Layout(**plain)


def nhwc_layout(shape: Shape, element_bytes: int = 1) -> Layout:
    """Return the plain layout: rows, pixels, channels.

    One spare pixel stands at the end, which kernels that work on two pixels or channels at a time may overwrite.
    """
    height, width, channels = shape
    pixel = channels * element_bytes
    size = height * width * pixel + pixel + element_bytes
    return Layout(shape, element_bytes, 0, width * pixel, pixel, element_bytes, size)


def planar_layout(shape: Shape, element_bytes: int, padding: Padding, *, rows_first: bool = False) -> Layout:
    """Return a plane a channel with a border, which a depthwise convolution reads.

    Parameters
    ----------
    shape : (H, W, C)
        Without border.
    element_bytes : int
        1 or 2.
    padding : (int, int, int, int)
        What the depthwise convolution pads: top, left, bottom, right. One column more stands right of an odd row, for
        the second pixel of the last pair.
    rows_first : bool
        Rows of all channels behind each other instead of planes: a tensor that is read and written row by row can then
        overlap with the next one.
    """
    height, width, channels = shape
    top, left, bottom, right = padding
    # Pixels are written in pairs; kernels load four values at a time, and planar16 rows have to be whole words.
    pitch = left + width + max(right, width % 2)
    pitch += pitch % 2
    rows = height + top + bottom
    # An odd number of channels is written in pairs too: one plane to spare. Loads pass the end by less than 8 bytes.
    even = channels + channels % 2
    row, plane = pitch * element_bytes, pitch * rows * element_bytes
    row_bytes, channel_bytes = (row * even, row) if rows_first else (row, plane)
    return Layout(
        shape,
        element_bytes,
        top * row_bytes + left * element_bytes,
        row_bytes,
        element_bytes,
        channel_bytes,
        pitch * rows * even * element_bytes + 8,
        (top, left, bottom, pitch - left - width),
    )
