"""What a chain will execute, whatever the core: an estimate that ranks plans.

The counts of inner loops are those of the kernels' assembly and come from the `cost` of each instruction set; what
surrounds them is rounded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from thumbnet.compile.kernels.rolling_stage import RollingStage

#: A call with its arguments, the kernel's entry and exit.
CALL = 45
#: For each value that a loop of C copies.
COPY = 6
#: For each step of a group and each of its blocks: loops, conditions, addresses.
_STEP, _BLOCK = 30, 20


@dataclass(frozen=True)
class SurroundingCost:
    """Instructions of what is done around the layers.

    Parameters
    ----------
    fill : float
        Of a value of a border.
    carry_channel, carry_byte : float
        Of rows carried to the next step: a channel, and each byte.
    """

    fill: float
    carry_channel: float
    carry_byte: float


def predict_instructions(
    stage: RollingStage, surrounding: SurroundingCost, layer_cost: Callable[[int, int, int], float]
) -> float:
    """Return the estimated instructions of one inference.

    Parameters
    ----------
    stage : RollingStage
        The chain.
    surrounding : SurroundingCost
        Of the core's kernels.
    layer_cost : callable
        Given a layer's index, the number of blocks it is computed in and its rows, what the layer takes.
    """
    return surrounding_instructions(stage, surrounding) + sum(layer_cost(*layer) for layer in layer_blocks(stage))


def layer_blocks(stage: RollingStage) -> Iterator[tuple[int, int, int]]:
    """Yield each layer's index, the number of blocks it is computed in, and its rows."""
    for group in stage.groups:
        plan = stage.plan[group[-1]]
        yield from ((index, _blocks_of(stage, group), plan.height) for index in group)


def surrounding_instructions(stage: RollingStage, surrounding: SurroundingCost) -> float:
    """Return the estimated instructions of what is done around the layers."""
    total = 100.0
    for group in stage.groups:
        total += stage.steps * _STEP + _blocks_of(stage, group) * _BLOCK
    for index, window in stage.windows.items():
        plan = stage.plan[index]
        total += surrounding.fill * window.shape[2] * window.shape[0] * (window.border[1] + window.border[3])
        if stage.steps > 1 and plan.new_row:
            channels = 1 if window.row_major else window.shape[2]
            carried = surrounding.carry_channel + plan.new_row * window.row_bytes * surrounding.carry_byte
            total += stage.steps * (CALL + channels * carried)
    if stage.target.planar:
        height, width, channels = stage.target.shape
        top, left, bottom, right = stage.target.border
        total += surrounding.fill * channels * (height * (left + right) + (top + bottom) * width)
    return total


def row_counts(stage: RollingStage, index: int) -> Counter[int]:
    """Return how often a layer computes how many rows, the lag at an image's edges left aside."""
    group = next(group for group in stage.groups if index in group)
    plan, block = stage.plan[group[-1]], stage.block_rows(group)
    counts: Counter[int] = Counter()
    for first in range(0, plan.height, plan.rows):
        rows = min(plan.rows, plan.height - first)
        counts[block] += rows // block
        counts[rows % block] += 1
    return +Counter({count: times for count, times in counts.items() if count})


def _blocks_of(stage: RollingStage, group: Sequence[int]) -> int:
    plan, block = stage.plan[group[-1]], stage.block_rows(group)
    if block >= plan.rows or stage.steps == 1:
        return -(-plan.height // block)
    return -(-plan.height // plan.rows) * -(-plan.rows // block)
