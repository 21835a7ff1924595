"""The image rows under a convolution's kernel, and which of their values stands in which slot."""

from __future__ import annotations

from dataclasses import dataclass

from thumbnet.compile.integer_network import Convolution

#: Slots of the IM2COL3 kernel: taps (row * 9 + column * 3 + channel) in the order in which SXTB16 of words gives them.
IM2COL3_SLOTS = [
    *(0, 2, 1, 3, 4, 6, 5, 7),
    *(9, 11, 10, 12, 13, 15, 14, 16),
    *(18, 20, 19, 21, 22, 24, 23, 25),
    *(8, 17, 26, -1),
]


@dataclass(frozen=True)
class Im2col:
    """How the taps of a convolution are gathered.

    Parameters
    ----------
    fast : bool
        By the IM2COL3 kernel: 3x3, stride 2, 3 channels.
    slots : int
        Taps, rounded up to a multiple of four.
    row_bytes : int
        Of a row of the image with its border, as copied under the kernel.
    """

    fast: bool
    slots: int
    row_bytes: int


def plan_im2col(layer: Convolution) -> Im2col:
    """Return how a convolution's taps are gathered."""
    kernel_h, kernel_w = layer.kernel
    _, width, channels = layer.input_shape
    fast = (kernel_h, kernel_w, *layer.stride, channels) == (3, 3, 2, 2, 3)
    # Pixels come in pairs: the last pair may reach one pixel further than the image and its border.
    last = (2 * -(-layer.output_shape[1] // 2) - 1) * layer.stride[1] + kernel_w
    columns = max(layer.padding[1] + width + layer.padding[3], last)
    row_bytes = -(-columns * channels // 4) * 4
    return Im2col(fast, -(-kernel_h * kernel_w * channels // 4) * 4, row_bytes)
