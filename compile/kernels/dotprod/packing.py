"""Constants in the order in which the kernels of `assembly` read them, and which tiles a layer is computed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.kernels.dotprod.assembly import (
    LANE,
    STEP,
    TILE_CHANNELS,
    TILE_PIXELS,
    sdot_kernel,
    tile_instructions,
)
from thumbnet.compile.kernels.dotprod.depthwise_assembly import sdot_depthwise_kernel
from thumbnet.compile.kernels.neon.assembly import Epilogue, Function
from thumbnet.compile.kernels.neon.depthwise_assembly import BLOCK
from thumbnet.compile.kernels.neon.packing import (
    CALL,
    VECTOR_ENDS_BYTES,
    DepthwisePlan,
    block_starts,
    depthwise_shape,
    kept_by_layer,
    vector_ends,
    weight_matrix,
)
from thumbnet.compile.network.integer_network import Convolution, DepthwiseConvolution


@dataclass(frozen=True)
class TileGroup:
    """Tiles of one width beside each other.

    Parameters
    ----------
    first : int
        First output channel.
    channels : int
        Of a tile.
    tiles : int
        How many.
    """

    first: int
    channels: int
    tiles: int


@dataclass(frozen=True)
class SdotPlan:
    """How a convolution is computed: its groups of tiles, its inputs, the end of its kernels."""

    groups: tuple[TileGroup, ...]
    inputs: int
    epilogue: Epilogue

    @property
    def lanes(self) -> int:
        """SDOT lanes of a pixel."""
        return -(-self.inputs // LANE)

    def tile_bytes(self, channels: int) -> int:
        """Return the bytes of a tile in `pack_sdot`."""
        return channels * 8 + VECTOR_ENDS_BYTES + self.lanes * channels * LANE

    def functions(self, channels: int) -> list[Function]:
        """Return the kernels of a width, for the sizes of `TILE_PIXELS`."""
        steps, tail = divmod(self.lanes, STEP // LANE)
        return [sdot_kernel(pixels, channels, tail, self.epilogue, steps=steps > 0) for pixels in TILE_PIXELS]

    def instructions(self, pixels: int) -> float:
        """Return the instructions for so many pixels."""
        counts = tile_counts(pixels)
        return sum(
            group.tiles
            * sum(
                CALL + count * tile_instructions(size, group.channels, self.inputs, self.epilogue)
                for size, count in counts.items()
                if count
            )
            for group in self.groups
        )


def tile_counts(pixels: int) -> dict[int, int]:
    """Return how many tiles of each size so many pixels are."""
    counts, rest = {}, pixels
    for size in TILE_PIXELS:
        counts[size], rest = divmod(rest, size)
    return counts


def tile_groups(outputs: int, widths: tuple[int, int, int] = TILE_CHANNELS) -> tuple[TileGroup, ...]:
    """Return the tiles of so many output channels, of the widest as many as go, narrower ones for the rest."""
    widest, middle, least = widths
    groups: list[TileGroup] = []
    at = 0
    # Of the ways to make up the outputs from the widest and the middle ones the one with the fewest tiles.
    best = min(
        (
            (wide + medium + (rest > 0) * (0.9 if rest <= least else 1), wide, medium, rest)
            for medium in range(3)
            for wide in {max(outputs - middle * medium, 0) // widest}
            for rest in [outputs - widest * wide - middle * medium]
            if rest >= 0
        ),
    )
    _, wide, medium, rest = best
    for channels, tiles in ((widest, wide), (middle, medium)):
        if tiles:
            groups.append(TileGroup(at, channels, tiles))
            at += channels * tiles
    while at < outputs:
        # The narrowest tile that ends with the outputs, reaching back over channels that are done; where there aren't
        # as many, the widest that fits, and again.
        rest = outputs - at
        ending = [width for width in widths if rest <= width <= outputs]
        channels = min(ending) if ending else max(width for width in widths if width <= max(rest, least))
        first = max(min(at, outputs - channels), 0)
        groups.append(TileGroup(first, channels, 1))
        at = first + channels
    return tuple(groups)


@kept_by_layer
def plan_sdot(layer: Convolution) -> SdotPlan:
    """Return how a convolution is computed."""
    outputs, inputs = weight_matrix(layer).shape
    return SdotPlan(tile_groups(outputs), inputs, Epilogue.of_layer(layer))


def pack_sdot(layer: Convolution) -> dict[str, NDArray[Any]]:
    """Pack a convolution.

    Returns
    -------
    dict
        weight: int8, for each tile its parameters and weights as `assembly` says, channels that are not there repeating
        the last.
    """
    plan, weight, r = plan_sdot(layer), weight_matrix(layer), layer.requantization
    outputs, inputs = weight.shape
    padded = np.pad(weight, ((0, 0), (0, -inputs % LANE)))
    records: list[bytes] = []
    for group in plan.groups:
        for first in range(group.first, group.first + group.tiles * group.channels, group.channels):
            channels = np.minimum(np.arange(first, first + group.channels), outputs - 1)
            records += [values[channels].astype("<i4").tobytes() for values in (layer.bias, r.multiplier)]
            records.append(vector_ends(r, epilogue=plan.epilogue))
            records.append(padded[channels].reshape(group.channels, -1, LANE).transpose(1, 0, 2).tobytes())
    return {"weight": np.frombuffer(b"".join(records), np.int8)}


@kept_by_layer
def plan_sdot_depthwise(layer: DepthwiseConvolution) -> DepthwisePlan:
    """Return how a depthwise layer is computed: its sums, in int32 from the start, have one part."""
    starts = block_starts(layer.weight.shape[2], BLOCK)
    functions = {1: sdot_depthwise_kernel(depthwise_shape(layer, 1))}
    return DepthwisePlan(BLOCK, tuple(starts), (1,) * len(starts), functions)


def pack_sdot_depthwise(layer: DepthwiseConvolution) -> dict[str, NDArray[Any]]:
    """Pack a depthwise layer for `depthwise_assembly`.

    Returns
    -------
    dict
        weight: int8, for each block parameters as the kernel reads them, channels that are not there repeating the
        last; parts: int8, for each block the position of its kernel among the plan's, which is one.
    """
    plan, r, epilogue = plan_sdot_depthwise(layer), layer.requantization, Epilogue.of_layer(layer)
    records: list[bytes] = []
    for start in plan.starts:
        channels = np.minimum(np.arange(start, start + BLOCK), layer.weight.shape[2] - 1)
        records += [values[channels].astype("<i4").tobytes() for values in (layer.bias, r.multiplier)]
        # Four rows a column, the last of zeros.
        weight = np.pad(layer.weight[..., channels], ((0, 1), (0, 0), (0, 0))).transpose(1, 2, 0)
        records += [vector_ends(r, epilogue=epilogue), np.ascontiguousarray(weight).tobytes()]
        records.append(np.full(BLOCK, layer.input_zero_point, np.int8).tobytes())
    return {"weight": np.frombuffer(b"".join(records), np.int8), "parts": np.zeros(len(plan.starts), np.int8)}
