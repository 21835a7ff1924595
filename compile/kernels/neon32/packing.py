"""Constants in the order in which the kernels of this folder read them, and which kernels those are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.kernels.neon.accumulation import run_lengths
from thumbnet.compile.kernels.neon.assembly import Epilogue, Function
from thumbnet.compile.kernels.neon.packing import (
    CALL,
    VECTOR_ENDS_BYTES,
    DepthwisePlan,
    kept_by_layer,
    plan_depthwise_blocks,
    vector_ends,
    weight_matrix,
)
from thumbnet.compile.kernels.neon32.depthwise_assembly import BLOCK, depthwise_kernel
from thumbnet.compile.kernels.neon32.lanes_assembly import PAIR, WIDTHS, lanes_kernel, pixel_instructions, schedule
from thumbnet.compile.kernels.neon32.large_depthwise_assembly import large_depthwise_kernel
from thumbnet.compile.network.integer_network import Convolution, DepthwiseConvolution

_WIDEST, _, _NARROWEST = WIDTHS
#: Pixels at which widths are compared.
_MANY_PIXELS = 300


@dataclass(frozen=True)
class LanesBlock:
    """Output channels that are computed together: the first, how many, and after which runs their sums are widened."""

    first: int
    width: int
    runs: tuple[int, ...]


@dataclass(frozen=True)
class LanesPlan:
    """How a convolution is computed: its blocks in order, its inputs and outputs, the end of its kernels."""

    blocks: tuple[LanesBlock, ...]
    inputs: int
    outputs: int
    epilogue: Epilogue

    @property
    def schedule_length(self) -> int:
        """Entries of each block's schedule: the longest one's."""
        return max(len(block.runs) for block in self.blocks) + 1

    def groups(self) -> Iterator[tuple[int, list[LanesBlock]]]:
        """Return the blocks of one width that follow each other, and how many blocks stand before them."""
        before = 0
        for _, group in itertools.groupby(self.blocks, key=lambda block: block.width):
            blocks = list(group)
            yield before, blocks
            before += len(blocks)

    def block_bytes(self, width: int) -> int:
        """Return the bytes of a block in `pack_lanes`."""
        return width * (8 + -(-self.inputs // PAIR) * PAIR) + VECTOR_ENDS_BYTES

    def function(self, width: int) -> Function:
        """Return the kernel of a width."""
        return lanes_kernel(width, min(width, self.outputs), self.epilogue)

    def instructions(self, pixels: int) -> float:
        """Return the instructions for so many pixels."""
        return sum(CALL + pixels * pixel_instructions(block.width, block.runs, self.epilogue) for block in self.blocks)


@kept_by_layer
def plan_lanes(layer: Convolution) -> LanesPlan:
    """Return how a convolution is computed: in wide blocks, or in narrower ones where longer runs make up for it."""
    plans = [_plan_widths(layer, widest) for widest in WIDTHS[:2]]
    return min(plans, key=lambda plan: plan.instructions(_MANY_PIXELS))


def _plan_widths(layer: Convolution, widest: int) -> LanesPlan:
    weight = _paired_weights(layer)
    outputs = weight.shape[0]
    blocks = []
    first = 0
    for width in block_widths(outputs, widest):
        # The last block reaches back over channels that are done.
        first = max(min(first, outputs - width), 0)
        runs = run_lengths(weight[first : first + width], PAIR)
        blocks.append(LanesBlock(first, width, tuple(runs)))
        first += width
    inputs = int(layer.weight[0].size)
    return LanesPlan(tuple(blocks), inputs, outputs, Epilogue.of(layer.requantization))


def block_widths(outputs: int, widest: int = _WIDEST) -> list[int]:
    """Return the widths of the fewest blocks that have all outputs, the last ones narrower where that is enough.

    None is wider than the outputs are many, but the one of less than the narrowest's.
    """
    widest = max(width for width in WIDTHS if width <= max(outputs, _NARROWEST) and width <= widest)
    widths = [widest] * -(-outputs // widest)
    at = len(widths)
    for _ in range((sum(widths) - outputs) // _NARROWEST):
        at = at - 1 if at else len(widths) - 1
        widths[at] -= _NARROWEST
    return widths


def _paired_weights(layer: Convolution) -> NDArray[np.int8]:
    """Return the weights ``[N, K]``, K even."""
    weight = weight_matrix(layer)
    return np.pad(weight, ((0, 0), (0, -weight.shape[1] % PAIR)))


def pack_lanes(layer: Convolution) -> dict[str, NDArray[Any]]:
    """Pack a convolution for `lanes_assembly`.

    Returns
    -------
    dict
        weight: int8, the blocks in order, channels that are not there repeating the last; schedule: int16
        ``[block][plan.schedule_length]``.
    """
    plan, weight, r = plan_lanes(layer), _paired_weights(layer), layer.requantization
    records: list[bytes] = []
    places = np.zeros((len(plan.blocks), plan.schedule_length), np.int16)
    for index, block in enumerate(plan.blocks):
        channels = np.minimum(np.arange(block.first, block.first + block.width), plan.outputs - 1)
        lanes = weight[channels].reshape(block.width, -1, PAIR).transpose(1, 0, 2)
        records += [layer.bias[channels].astype("<i4").tobytes(), lanes.tobytes()]
        records += [r.multiplier[channels].astype("<i4").tobytes(), vector_ends(r)]
        places[index, : len(block.runs) + 1] = schedule(block.width, block.runs)
    return {"weight": np.frombuffer(b"".join(records), np.int8), "schedule": places.reshape(-1)}


@kept_by_layer
def plan_depthwise(layer: DepthwiseConvolution) -> DepthwisePlan:
    """Return how a depthwise layer is computed."""
    return plan_depthwise_blocks(layer, BLOCK, depthwise_kernel, large_depthwise_kernel)
