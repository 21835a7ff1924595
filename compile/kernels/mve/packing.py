"""Constants in the order in which the kernels of `thumbnet_mve.h` read them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.network.fixed_point import Requantization
from thumbnet.compile.network.integer_network import DepthwiseConvolution

#: Channels of a vector, and output channels a kernel makes at a time.
VECTOR, BLOCK = 16, 4


def block_starts(channels: int) -> list[int]:
    """Return the first output channel of each block of four.

    The last block reaches back over channels that are computed already rather than beyond the last one.
    """
    return [min(start, max(channels - BLOCK, 0)) for start in range(0, channels, BLOCK)]


def pack_pointwise(
    weight: NDArray[np.int8], bias: NDArray[np.int32], requantization: Requantization
) -> NDArray[np.int32]:
    """Pack a matrix of weights.

    Parameters
    ----------
    weight : ndarray
        int8 ``[N, K]``.
    bias : ndarray
        int32 ``[N]``.
    requantization : Requantization
        Its multipliers go in as they are: VQRDMLASH doubles.

    Returns
    -------
    ndarray
        int32: for each block of four channels (`block_starts`; with fewer than four the last one repeated) the
        weights, int8 ``[K / 16 rounded up][4][16]`` with zeros at the end, then four biases and four multipliers.
    """
    outputs, inputs = weight.shape
    padded = np.zeros((outputs, -(-inputs // VECTOR) * VECTOR), np.int8)
    padded[:, :inputs] = weight
    blocks = []
    for start in block_starts(outputs):
        channels = np.minimum(np.arange(start, start + BLOCK), outputs - 1)
        vectors = np.ascontiguousarray(padded[channels].reshape(BLOCK, -1, VECTOR).transpose(1, 0, 2))
        blocks += [vectors.reshape(-1).view("<i4"), bias[channels], requantization.multiplier[channels]]
    packed: NDArray[np.int32] = np.concatenate(blocks).astype(np.int32)
    return packed


def pack_depthwise(
    weight: NDArray[np.int8], bias: NDArray[np.int32], requantization: Requantization, *, patches: bool
) -> NDArray[np.int32]:
    """Pack 3x3 kernels ``[3, 3, C]``: three words of taps, bias, multiplier a channel.

    `patches` says for which of the two kernels: taps by columns of four rows, the fourth zero, or row by row.
    """
    channels = weight.shape[2]
    taps = np.zeros((channels, 12), np.int8)
    if patches:
        taps.reshape(channels, 3, 4)[:, :, :3] = weight.transpose(2, 1, 0)
    else:
        taps[:, :9] = weight.reshape(9, channels).T
    packed: NDArray[np.int32] = np.concatenate(
        [taps.view("<i4"), bias[:, None], requantization.multiplier[:, None]], axis=1
    ).astype(np.int32)
    return packed.reshape(-1)


def pack_depthwise_pairs(
    weight: NDArray[np.int8], bias: NDArray[np.int32], requantization: Requantization
) -> NDArray[np.int32]:
    """Pack kernels ``[K, K, C]``: of a channel pairs of rows interleaved, up to whole words, then bias, multiplier."""
    taps, _, channels = weight.shape
    pairs = np.zeros((channels, -(-taps * (taps + 1) // 4) * 4), np.int8)
    rows = np.zeros((taps + 1, taps, channels), np.int8)
    rows[:taps] = weight
    interleaved = rows.reshape(-1, 2, taps, channels).transpose(3, 0, 2, 1)
    pairs[:, : taps * (taps + 1)] = interleaved.reshape(channels, -1)
    packed: NDArray[np.int32] = np.concatenate(
        [pairs.view("<i4"), bias[:, None], requantization.multiplier[:, None]], axis=1
    ).astype(np.int32)
    return packed.reshape(-1)


def in_patches(layer: DepthwiseConvolution) -> bool:
    """Tell whether a depthwise layer is computed by the kernel on patches of 4 x 4 pixels."""
    return layer.kernel == (3, 3) and layer.stride == (1, 1) and layer.output_shape[1] >= 4
