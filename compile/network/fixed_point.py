"""The integer arithmetic of a quantized network: defined here once, equalled by every backend.

There is one rounding, half up (towards plus infinity on a tie), in the high half of a 64-bit product:

    ``requantize(acc) = (2 * acc * multiplier + 2**31) >> 32``

which is one instruction on every Arm core that has it: SMMULR (DSP extension, given ``2 * multiplier``), VQRDMULH
(MVE), SQRDMULH (AArch64). Where the real scale is 0.5 or more the accumulator is shifted left first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thumbnet.compile.errors import QuantizationError

#: Multipliers of a residual add are int16, so that one SMLAD computes ``a * ma + b * mb + constant``.
ADD_MULTIPLIER_BITS = 15
INT32_MAX = 2**31 - 1


@dataclass(frozen=True)
class Requantization:
    """How an int32 accumulator becomes an int8 output.

    Parameters
    ----------
    multiplier : ndarray
        int32 ``[channels]``, each in [0, 2**30).
    left_shift : ndarray
        int32 ``[channels]``, applied to the accumulator before the multiplication; nearly always 0.
    zero_point : int
        Added after rounding.
    minimum, maximum : int
        Clamp of the output: int8's limits, or tighter where an activation (ReLU, ReLU6) says so.
    """

    multiplier: NDArray[np.int32]
    left_shift: NDArray[np.int32]
    zero_point: int
    minimum: int
    maximum: int


@dataclass(frozen=True)
class AddParameters:
    """How two int8 tensors of different scales are added: ``(a * ma + b * mb + constant) >> shift``, clamped.

    Parameters
    ----------
    multiplier_a, multiplier_b : int
        int16, not negative.
    constant : int
        int32: the three zero points and the rounding half, folded.
    shift : int
        Arithmetic shift right.
    minimum, maximum : int
        Clamp of the output.
    """

    multiplier_a: int
    multiplier_b: int
    constant: int
    shift: int
    minimum: int
    maximum: int


def quantize_scale(scale: ArrayLike) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the ``multiplier`` and ``left_shift`` that stand for real scales.

    ``multiplier = round(scale / 2**left_shift * 2**31)`` with the smallest ``left_shift`` that keeps all channels'
    below 2**30: one shift a layer, so that kernels have it as a constant.

    Parameters
    ----------
    scale : array_like
        float64 ``[channels]``, positive: input scale * weight scale / output scale.

    Raises
    ------
    QuantizationError
        A scale that is not positive and finite, or is 2**8 or more.
    """
    scale = np.atleast_1d(np.asarray(scale, np.float64))
    if not np.all(np.isfinite(scale)) or np.any(scale <= 0) or np.any(scale >= 2**8):
        worst = scale[~(np.isfinite(scale) & (scale > 0) & (scale < 2**8))][0]
        raise QuantizationError(f"a requantization scale of {worst:g} is outside (0, 256)")
    shift = 0
    while np.any((multiplier := np.rint(scale / 2.0**shift * 2.0**31)) >= 2**30):
        shift += 1
    left_shift = np.full(scale.shape, shift, np.int32)
    return multiplier.astype(np.int32), left_shift


def requantize_round_half_up(acc: NDArray[np.int32], requantization: Requantization) -> NDArray[np.int8]:
    """Bring int32 accumulators ``[..., channels]`` to int8.

    ``clamp(zero_point + ((2 * (acc << left_shift) * multiplier + 2**31) >> 32), minimum, maximum)``

    The shifted accumulator has to fit int32, as it does in the layers `match_layers` accepts.
    """
    shifted = acc.astype(np.int64) << requantization.left_shift
    high = (2 * shifted * requantization.multiplier + 2**31) >> 32
    moved = high + requantization.zero_point
    clamped: NDArray[np.int64] = np.clip(moved, requantization.minimum, requantization.maximum)
    return clamped.astype(np.int8)


def add_parameters(
    scales: tuple[float, float, float], zero_points: tuple[int, int, int], minimum: int, maximum: int
) -> AddParameters:
    """Return the parameters of ``c = a + b`` from the scales and zero points of ``(a, b, c)``.

    The larger of the two multipliers gets all the bits an int16 has.

    Raises
    ------
    QuantizationError
        A ratio of input to output scale that leaves no sensible shift.
    """
    ratio_a, ratio_b = scales[0] / scales[2], scales[1] / scales[2]
    larger = max(ratio_a, ratio_b)
    shift = int(np.floor(ADD_MULTIPLIER_BITS - np.log2(larger)))
    if round(larger * 2.0**shift) >= 2**ADD_MULTIPLIER_BITS:
        shift -= 1
    # Above 22 the zero point alone, shifted left, would leave int32 no room for the sum.
    shift = min(shift, 22)
    if shift < 1:
        raise QuantizationError(f"a residual add's input scale is {larger:g} times its output's; at most 16384 works")
    multiplier_a, multiplier_b = round(ratio_a * 2.0**shift), round(ratio_b * 2.0**shift)
    constant = (
        (zero_points[2] << shift) + (1 << (shift - 1)) - multiplier_a * zero_points[0] - multiplier_b * zero_points[1]
    )
    return AddParameters(multiplier_a, multiplier_b, constant, shift, minimum, maximum)


def add_round_half_up(a: NDArray[np.int8], b: NDArray[np.int8], parameters: AddParameters) -> NDArray[np.int8]:
    """Add two int8 tensors of one shape: ``clamp((a * ma + b * mb + constant) >> shift, minimum, maximum)``."""
    total = (
        a.astype(np.int32) * parameters.multiplier_a
        + b.astype(np.int32) * parameters.multiplier_b
        + np.int32(parameters.constant)
    )
    clamped: NDArray[np.int32] = np.clip(total >> parameters.shift, parameters.minimum, parameters.maximum)
    return clamped.astype(np.int8)
