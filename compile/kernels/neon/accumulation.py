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


def longest_runs(weight: NDArray[np.int8], lanes: int = LANES) -> NDArray[np.int64]:
    """Return how many steps from each on fit int16; a step adds a product to each lane of a tile's output channels.

    Parameters
    ----------
    weight : ndarray
        int8 ``[tiles, channels, K]``, K a multiple of `lanes`.
    lanes : int
        Of a channel: lane j adds up inputs j, j + lanes, j + 2 lanes, ...

    Returns
    -------
    ndarray
        int64 ``[tiles, K / lanes]``, each from 2 (less at the end) to `LONGEST_RUN`.
    """
    wide = weight.astype(np.int64).reshape(*weight.shape[:2], -1, lanes)
    steps = wide.shape[2]
    before = ((0, 0), (0, 0), (1, 0), (0, 0))
    positive, negative = (np.pad(np.maximum(sign * wide, 0).cumsum(axis=2), before) for sign in (1, -1))
    longest = np.zeros((len(weight), steps), np.int64)
    for length in range(1, min(LONGEST_RUN, steps) + 1):
        sums = [total[:, :, length:] - total[:, :, :-length] for total in (positive, negative)]
        # What fits with one product more fits without it.
        longest[:, : steps - length + 1] += fits_int16(*sums).all(axis=(1, 3))
    return longest


def run_lengths(weight: NDArray[np.int8], lanes: int = LANES) -> list[int]:
    """Return the lengths of a tile's runs, each as long as it can be; parameters as in `longest_runs`, of one tile."""
    [longest] = longest_runs(weight[None], lanes)
    runs: list[int] = []
    start = 0
    while start < len(longest):
        runs.append(int(longest[start]))
        start += runs[-1]
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
