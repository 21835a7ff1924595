"""How many products of int8 fit int16: known from the weights, so that sums are widened to int32 as rarely as can be.

Two products surely fit, which is what kernels that don't know the weights rely on. The compiler knows them: over all
inputs in [-128, 127], products with weights w sum to between ``-(128 * P + 127 * M)`` and ``127 * P + 128 * M``, where
P and -M are the sums of the positive and of the negative weights. As long as that lies in int16, no input overflows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Lanes of int16 in a vector: on A64 the input channels of a step, which is half a vector of int8.
LANES = 8
#: The kernels have straight code for runs up to so many steps.
LONGEST_RUN = 12
#: How the nine taps of a depthwise kernel are parted, by the number of parts.
DEPTHWISE_PARTS: dict[int, tuple[int, ...]] = {1: (9,), 2: (5, 4), 3: (3, 3, 3), 5: (2, 2, 2, 2, 1)}


def fits_int16(positive: NDArray[np.int64], negative: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell for which sums of positive weights, and of negative ones (as magnitudes), every sum of products fits."""
    fits: NDArray[np.bool_] = (127 * positive + 128 * negative <= 32767) & (128 * positive + 127 * negative <= 32768)
    return fits


def run_lengths(weight: NDArray[np.int8], lanes: int = LANES) -> list[int]:
    """Return after how many steps each a tile of output channels widens its sums; a step adds a product to each lane.

    Parameters
    ----------
    weight : ndarray
        int8 ``[channels, K]``, K a multiple of `lanes`.
    lanes : int
        Of a channel: lane j adds up inputs j, j + lanes, j + 2 lanes, ...

    Returns
    -------
    list of int
        In order, each from 2 (less at the end) to `LONGEST_RUN`; their sum is ``K / lanes``.
    """
    wide = weight.astype(np.int64).reshape(weight.shape[0], -1, lanes)
    positive, negative = np.maximum(wide, 0), np.maximum(-wide, 0)
    runs: list[int] = []
    start, steps = 0, wide.shape[1]
    while start < steps:
        end = min(start + LONGEST_RUN, steps)
        window = slice(start, end)
        fits = fits_int16(positive[:, window].cumsum(axis=1), negative[:, window].cumsum(axis=1)).all(axis=(0, 2))
        length = int(fits.argmin()) if not fits.all() else end - start
        runs.append(length)
        start += length
    return runs


def fewest_parts(weight: NDArray[np.int8], parts: dict[int, tuple[int, ...]]) -> int | None:
    """Return the fewest parts of a sum that each fit int16, or None where no choice of `parts` does.

    Parameters
    ----------
    weight : ndarray
        int8 ``[K, channels]``: what each channel sums up, in the order in which it is parted.
    parts : dict
        Sizes of the parts by their number, each summing to K.
    """
    wide = weight.astype(np.int64)
    for count in sorted(parts):
        starts = np.cumsum((0, *parts[count]))[:-1]
        positive, negative = (np.add.reduceat(np.maximum(sign * wide, 0), starts, axis=0) for sign in (1, -1))
        if fits_int16(positive, negative).all():
            return count
    return None


def even_parts(total: int, most: int) -> dict[int, tuple[int, ...]]:
    """Return parts of nearly equal sizes for 1 to `most` parts of a sum of `total` products."""
    bounds = {
        count: [(2 * index * total + count) // (2 * count) for index in range(count + 1)]
        for count in range(1, most + 1)
    }
    return {count: tuple(np.diff(ends).tolist()) for count, ends in bounds.items()}
