"""Constants in the order in which the kernels of `thumbnet_dsp.h` read them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.network.fixed_point import Requantization

#: In a word of four bytes, SXTB16 takes bytes 0 and 2, rotated bytes 1 and 3.
_SXTB16_ORDER = (0, 2, 1, 3)
#: Where the nine taps of a depthwise kernel, row by row, stand among its bytes: so that SXTB16 gives the pairs needed.
_TAPS = {
    ("int16", 1): (1, 0, 2, 4, 3, 5, 7, 6, 8),
    ("int16", 2): (0, 2, 1, 4, 6, 3, 5, 7, 8),
    ("int8", 1): (0, 1, 2, 4, 3, 6, 5, 8, 7),
    ("int8", 2): (0, 1, 2, 4, 3, 6, 5, 8, 7),
}
#: The same of a row of taps of larger kernels, by their columns and stride.
_LARGE_TAPS = {
    (5, 1): (1, 0, 2, 3, 4),
    (5, 2): (0, 2, 1, 3, 4),
    (7, 1): (1, 0, 2, 3, 5, 4, 6),
    (7, 2): (0, 2, 1, 3, 4, 6, 5),
}


def depthwise_bytes(kernel: tuple[int, int]) -> int:
    """Return the bytes of a depthwise channel's parameters: taps, bias, multiplier."""
    return kernel[0] * kernel[1] + 8


def depthwise_slots(channels: int) -> list[int]:
    """Return which channel the depthwise kernels leave in each slot of pair16; -1 for a slot without one.

    Two calls cover all channels, each a half of them in a row, one slot of every two.
    """
    half = 2 * -(-channels // 4)
    slots = ((slot % 2) * half + slot // 2 for slot in range(2 * half))
    return [channel if channel < channels else -1 for channel in slots]


def channel_groups(channels: int) -> tuple[int, int]:
    """Return how many fours of output channels the pointwise kernels compute, and pairs behind them: none or one.

    With an odd number of channels the last group has one too many.
    """
    return (channels + 1) // 4, (channels + 1) % 4 // 2


def widened_slots(channels: int) -> list[int]:
    """Return which channel TO_PAIR16 leaves in each slot: four int8 of a word come out of SXTB16 in another order."""
    return [4 * (slot // 4) + _SXTB16_ORDER[slot % 4] for slot in range(channels)]


def plain_slots(channels: int) -> list[int]:
    """Return the channels in their own order, filled up to a multiple of four with -1."""
    return [channel if channel < channels else -1 for channel in range(-(-channels // 4) * 4)]


def pack_pointwise(
    weight: NDArray[np.int8],
    bias: NDArray[np.int32],
    requantization: Requantization,
    slots: Sequence[int],
    groups: tuple[int, int],
) -> NDArray[np.int32]:
    """Pack a matrix of weights for WIDEN4 and WIDEN.

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
    groups : (int, int)
        Fours of output channels, and pairs behind them.

    Returns
    -------
    ndarray
        int32: for each four channels their biases, then for each two slots a word of two channels' weights and one of
        the others', then their multipliers; for each pair its biases, its multipliers, and a word for each two slots.
    """
    channels = weight.shape[0]
    even = channels + channels % 2
    padded = np.zeros((even, weight.shape[1] + 1), np.int8)
    padded[:channels, :-1] = weight
    # The extra column of zeros is what slot -1 gets.
    ordered = padded[:, list(slots)].reshape(even // 2, 2, -1, 2).transpose(0, 2, 3, 1)
    # SXTB16 makes a word of channel 0's two slots of a word's even bytes, and channel 1's of the odd ones.
    words = np.ascontiguousarray(ordered).reshape(even // 2, -1, 4).view("<i4")[:, :, 0]
    biases, factors = np.zeros((2, even), np.int32)
    biases[:channels], factors[:channels] = bias, _doubled(requantization)
    parts: list[NDArray[np.int32]] = []
    fours, pairs = groups
    for pair in range(0, 2 * fours, 2):
        group = slice(2 * pair, 2 * pair + 4)
        parts += [biases[group], words[pair : pair + 2].T.reshape(-1), factors[group]]
    for pair in range(2 * fours, 2 * fours + pairs):
        group = slice(2 * pair, 2 * pair + 2)
        parts += [biases[group], factors[group], words[pair]]
    return np.concatenate(parts)


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
    """Pack kernels ``[K, K, C]`` for planes of int8 or int16: bytes of the taps, bias, multiplier a channel."""
    rows, columns, channels = weight.shape
    order = np.array(_TAPS[dtype, stride])
    if columns > 3:
        order = np.add.outer(columns * np.arange(rows), _LARGE_TAPS[columns, stride]).reshape(-1)
    packed = np.zeros((channels, depthwise_bytes((rows, columns))), np.int8)
    packed[:, order] = weight.reshape(-1, channels).T
    words = np.stack([bias, _doubled(requantization)], axis=1).astype("<i4")
    packed[:, rows * columns :] = words.view(np.int8)
    return packed.reshape(-1)


def _doubled(requantization: Requantization) -> NDArray[np.int32]:
    return (requantization.multiplier.astype(np.int64) * 2).astype(np.int32)
