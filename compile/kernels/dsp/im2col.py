"""The image under a convolution's kernel: which of its values stands in which slot, and how they are gathered."""

from __future__ import annotations

from dataclasses import dataclass

from thumbnet.compile.network.integer_network import Convolution

#: Slots of the IM2COL3 kernel: taps (row * 9 + column * 3 + channel) in the order in which SXTB16 of words gives them.
IM2COL3_SLOTS = [
    *(0, 2, 1, 3, 4, 6, 5, 7),
    *(9, 11, 10, 12, 13, 15, 14, 16),
    *(18, 20, 19, 21, 22, 24, 23, 25),
    *(8, 17, 26, -1),
]
#: Bytes of an image's row under a pair of pixels of that kernel, and how far apart such rows are put.
PATCH_BYTES, PATCH_PITCH = 15, 16


@dataclass(frozen=True)
class Im2col:
    """How the taps of a convolution are gathered.

    Parameters
    ----------
    fast : bool
        By the IM2COL3 kernel, straight from the image (3x3, stride 2, 3 channels); pairs of pixels whose taps pass the
        image's edge from a patch that is copied with its border. Other convolutions copy whole rows with their border.
    slots : int
        Taps, rounded up to a multiple of four.
    row_bytes : int
        Of a row of the image with its border, as copied under the kernel.
    image_bytes : int
        Size of the copied rows, or of the patch.
    chunk_pairs : int
        Pairs of output pixels that are gathered at a time, a row being a whole number of chunks.
    inner_pairs : range
        Fast: pairs of a row that pass neither the left nor the right edge.
    """

    fast: bool
    slots: int
    row_bytes: int
    image_bytes: int
    chunk_pairs: int
    inner_pairs: range


def plan_im2col(layer: Convolution, block_bytes: int | None = None) -> Im2col:
    """Return how a convolution's taps are gathered, those of a chunk in `block_bytes` where possible."""
    kernel_h, kernel_w = layer.kernel
    _, width, channels = layer.input_shape
    fast = (kernel_h, kernel_w, *layer.stride, channels) == (3, 3, 2, 2, 3)
    pairs = -(-layer.output_shape[1] // 2)
    slots = -(-kernel_h * kernel_w * channels // 4) * 4
    # Pixels come in pairs: the last pair may reach one pixel further than the image and its border.
    last = (2 * pairs - 1) * layer.stride[1] + kernel_w
    left = layer.padding[1]
    columns = max(left + width + layer.padding[3], last)
    row_bytes = -(-columns * channels // 4) * 4
    if not fast:
        return Im2col(False, slots, row_bytes, kernel_h * row_bytes + 8, pairs, range(0))
    # A pair reads columns 4 * pair - left to 4 * pair - left + 4.
    first, end = -(-left // 4), max((width + left - 5) // 4 + 1, 0)
    chunk = pairs
    if block_bytes is not None:
        fitting = max(block_bytes // (4 * slots), 1)
        chunk = next(size for size in range(min(fitting, pairs), 0, -1) if pairs % size == 0)
    return Im2col(True, slots, row_bytes, kernel_h * PATCH_PITCH, chunk, range(min(first, end, pairs), min(end, pairs)))
