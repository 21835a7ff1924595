"""Constants in the order in which the kernels of `thumbnet_dsp.h` read them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.network.fixed_point import Requantization

#: In a word of four weight bytes, SXTB16 takes bytes 0 and 2, rotated bytes 1 and 3: stored so, neighbours come out.
_SXTB16_ORDER = (0, 2, 1, 3)
#: Where the nine taps of a depthwise kernel, row by row, stand among its bytes: so that SXTB16 gives the pairs needed.
_TAPS = {
    ("int16", 1): (1, 0, 2, 4, 3, 5, 7, 6, 8),
    ("int16", 2): (0, 2, 1, 4, 6, 3, 5, 7, 8),
    ("int8", 1): (0, 1, 2, 4, 3, 6, 5, 8, 7),
    ("int8", 2): (0, 1, 2, 4, 3, 6, 5, 8, 7),
}
#: Bytes of a depthwise channel's parameters: nine taps, bias, multiplier.
DEPTHWISE_BYTES = 17


def depthwise_slots(channels: int) -> list[int]:
    """Return which channel the depthwise kernels leave in each slot of pair16; -1 for a slot without one.

    Four calls cover all channels, each a quarter of them in a row, one slot of every group of four.
    """
    groups = -(-channels // 4)
    slots = ((slot % 4) * groups + slot // 4 for slot in range(4 * groups))
    return [channel if channel < channels else -1 for channel in slots]


def widened_slots(channels: int) -> list[int]:
    """Return which channel TO_PAIR16 leaves in each slot: four int8 of a word come out of SXTB16 in another order."""
    return [4 * (slot // 4) + _SXTB16_ORDER[slot % 4] for slot in range(channels)]


def plain_slots(channels: int) -> list[int]:
    """Return the channels in their own order, filled up to a multiple of four with -1."""
    return [channel if channel < channels else -1 for channel in range(-(-channels // 4) * 4)]


def pack_pointwise(
    weight: NDArray[np.int8], bias: NDArray[np.int32], requantization: Requantization, slots: Sequence[int]
) -> NDArray[np.int32]:
    """Pack a matrix of weights for WIDEN.

    Parameters
    ----------
    weight : ndarray
        int8 ``[N, K]``.
    bias : ndarray
        int32 ``[N]``.
    requantization : Requantization
        Its multipliers go in doubled, as SMMLAR takes them.
    slots : sequence of int
        Channel of each slot, -1 for none; a multiple of four.

    Returns
    -------
    ndarray
        int32: for each channel pair its two biases, its two multipliers, then for each four slots a word of the first
        channel's weights and one of the second's.
    """
    channels = weight.shape[0]
    even = channels + channels % 2
    padded = np.zeros((even, weight.shape[1] + 1), np.int8)
    padded[:channels, :-1] = weight
    # The extra column of zeros is what slot -1 gets.
    ordered = padded[:, list(slots)].reshape(even, -1, 4)[:, :, _SXTB16_ORDER]
    words = np.ascontiguousarray(ordered).view("<i4")[:, :, 0]
    interleaved = words.reshape(even // 2, 2, -1).transpose(0, 2, 1).reshape(even // 2, -1)
    head = np.zeros((2, even), np.int32)
    head[0, :channels] = bias
    head[1, :channels] = _doubled(requantization)
    pairs = head.reshape(2, even // 2, 2).transpose(1, 0, 2).reshape(even // 2, 4)
    packed: NDArray[np.int32] = np.concatenate([pairs, interleaved], axis=1).astype(np.int32).reshape(-1)
    return packed


def pack_stationary(
    weight: NDArray[np.int8], bias: NDArray[np.int32], requantization: Requantization, slots: Sequence[int]
) -> NDArray[np.int32]:
    """Pack ``[N, 8]`` for PW_K8: for each channel eight int16 weights, bias, multiplier, zero point."""
    words = np.ascontiguousarray(weight[:, list(slots)].astype("<i2")).view("<i4")
    zero_point = np.full_like(bias, requantization.zero_point)
    rest = np.stack([bias, _doubled(requantization), zero_point], axis=1)
    packed: NDArray[np.int32] = np.concatenate([words, rest], axis=1).astype(np.int32).reshape(-1)
    return packed


def pack_depthwise(
    weight: NDArray[np.int8],
    bias: NDArray[np.int32],
    requantization: Requantization,
    dtype: str,
    stride: int,
) -> NDArray[np.int8]:
    """Pack 3x3 kernels ``[3, 3, C]`` for planes of int8 or int16: bytes of nine taps, bias, multiplier a channel."""
    channels = weight.shape[2]
    packed = np.zeros((channels, DEPTHWISE_BYTES), np.int8)
    packed[:, list(_TAPS[dtype, stride])] = weight.reshape(9, channels).T
    words = np.stack([bias, _doubled(requantization)], axis=1).astype("<i4")
    packed[:, 9:] = words.view(np.int8)
    return packed.reshape(-1)


def _doubled(requantization: Requantization) -> NDArray[np.int32]:
    return (requantization.multiplier.astype(np.int64) * 2).astype(np.int32)
