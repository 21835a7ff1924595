"""The cheapest way through a tile's inputs: how long its sums grow in int16, and where the code goes on without a jump.

Each run ends by widening the sums, which costs the same whatever its length, so that few and long ones are best. From
a run to the next the kernels jump, unless runs of one length follow each other: for some lengths there is straight code
for several. Where two runs of one length do instead of a longer and a shorter one, jumps are saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Runs:
    """Runs that follow each other without a jump.

    Parameters
    ----------
    length : int
        Half steps of each.
    times : int
        How many.
    """

    length: int
    times: int


def cheapest_runs(longest: NDArray[np.int64], repeats: Mapping[int, int], jump: float) -> list[tuple[Runs, ...]]:
    """Return the runs of each tile.

    Parameters
    ----------
    longest : ndarray
        int ``[tiles, steps]``: how long a run that begins there may be, at least 1.
    repeats : mapping
        How many runs of a length may follow each other without a jump; of those that are not in it one. What begins a
        tile is one run, whatever its length.
    jump : float
        Cost of a jump, that of widening the sums being 1.
    """
    tiles, steps = longest.shape
    choices = [Runs(length, times) for length in range(1, steps + 1) for times in range(1, repeats.get(length, 1) + 1)]
    choices = [choice for choice in choices if choice.length <= longest.max()]
    cost = np.full((steps + 1, tiles), np.inf)
    chosen = np.zeros((steps, tiles), np.int64)
    cost[steps] = 0
    for start in range(steps - 1, -1, -1):
        for index, runs in enumerate(choices):
            begins = range(start, start + runs.length * runs.times, runs.length)
            end = begins[-1] + runs.length
            if end > steps or (start == 0 and runs.times > 1):
                continue
            allowed = (longest[:, begins] >= runs.length).all(axis=1)
            found = np.where(allowed, runs.times + jump + cost[end], np.inf)
            better = found < cost[start]
            cost[start][better], chosen[start][better] = found[better], index
    return [_follow(choices, chosen[:, tile]) for tile in range(tiles)]


def _follow(choices: list[Runs], chosen: NDArray[np.int64]) -> tuple[Runs, ...]:
    """Return a tile's runs from the best choice at each start."""
    found: list[Runs] = []
    at = 0
    while at < len(chosen):
        found.append(choices[chosen[at]])
        at += found[-1].length * found[-1].times
    return tuple(found)
