"""Constants in the order in which the kernels of this folder read them, and which kernels those are."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.kernels.neon.accumulation import (
    DEPTHWISE_PARTS,
    LANES,
    even_parts,
    fewest_parts,
    longest_runs,
)
from thumbnet.compile.kernels.neon.assembly import Epilogue, Function
from thumbnet.compile.kernels.neon.depthwise_assembly import BLOCK, DepthwiseShape, depthwise_kernel
from thumbnet.compile.kernels.neon.large_depthwise_assembly import ROW_PARTS, RowShape, large_depthwise_kernel
from thumbnet.compile.kernels.neon.narrow_assembly import VECTOR, WIDTHS, fits_registers, narrow_kernel
from thumbnet.compile.kernels.neon.pointwise_assembly import (
    CHANNELS,
    JUMP,
    REPEATS,
    TILE_PIXELS,
    pointwise_kernel,
    schedule,
    tile_instructions,
)
from thumbnet.compile.kernels.neon.runs import Runs, cheapest_runs
from thumbnet.compile.network.fixed_point import Requantization
from thumbnet.compile.network.integer_network import Convolution, DepthwiseConvolution
from thumbnet.compile.network.layers import DepthwiseLayer

#: Inputs of a pixel beyond which a lane for each output channel never pays.
_NARROW_INPUTS = 32
#: Bytes of `vector_ends`.
VECTOR_ENDS_BYTES = 48
#: Instructions of a call from C with its arguments.
CALL = 40

Made = TypeVar("Made")
ConvolutionLayer = TypeVar("ConvolutionLayer", Convolution, DepthwiseConvolution)


def kept_by_layer(make: Callable[[ConvolutionLayer], Made]) -> Callable[[ConvolutionLayer], Made]:
    """Keep what is made of a layer as long as the layer lives: a planner asks for it thousands of times."""
    kept: dict[int, tuple[weakref.ref[Any], Made]] = {}

    @functools.wraps(make)
    def once(layer: ConvolutionLayer) -> Made:
        found = kept.get(id(layer))
        if found is None or found[0]() is not layer:
            found = kept[id(layer)] = weakref.ref(layer), make(layer)
        return found[1]

    return once


def block_starts(channels: int, block: int) -> list[int]:
    """Return the first channel of each block; the last one reaches back over channels that are done."""
    return [min(start, max(channels - block, 0)) for start in range(0, channels, block)]


def weight_matrix(layer: Convolution) -> NDArray[np.int8]:
    """Return the weights ``[N, K]``."""
    return layer.weight.reshape(layer.weight.shape[0], -1)


def vector_ends(requantization: Requantization, lanes: int = VECTOR, *, epilogue: Epilogue | None = None) -> bytes:
    """Return zero point, lowest and highest (int8) as vectors, the latter of so many lanes.

    The zero point is int16, or what an epilogue makes of it.
    """
    r = requantization
    zero_point = (epilogue or Epilogue.of(r)).zero_point_vector(r.zero_point)
    return zero_point + b"".join(np.full(lanes, value, np.int8).tobytes() for value in (r.minimum, r.maximum))


@dataclass(frozen=True)
class PointwisePlan:
    """A convolution's tiles: which output channels each has, and after which runs its sums are widened."""

    starts: tuple[int, ...]
    runs: tuple[tuple[Runs, ...], ...]
    epilogue: Epilogue

    def instructions(self, pixels: int) -> float:
        """Return the instructions for so many pixels."""
        threes, ones = divmod(pixels, TILE_PIXELS[0])
        total = 0.0
        for runs in self.runs:
            for size, count in zip(TILE_PIXELS, (threes, ones), strict=True):
                total += (CALL + count * tile_instructions(size, runs, self.epilogue)) if count else 0
        return total

    @property
    def schedule_length(self) -> int:
        """Entries of each tile's schedule: the longest one's."""
        return max(map(len, self.runs)) + 1

    def functions(self) -> list[Function]:
        """Return the kernels, for the sizes of `TILE_PIXELS`."""
        return [pointwise_kernel(pixels, self.epilogue) for pixels in TILE_PIXELS]


@kept_by_layer
def plan_pointwise(layer: Convolution) -> PointwisePlan:
    """Return how a convolution is computed on weight-bounded accumulation."""
    weight = weight_matrix(layer)
    padded = np.pad(weight, ((0, 0), (0, -weight.shape[1] % LANES)))
    starts = block_starts(weight.shape[0], CHANNELS)
    tiles = np.stack([padded[_tile_channels(start, len(weight))] for start in starts])
    runs = cheapest_runs(longest_runs(tiles), REPEATS, JUMP)
    return PointwisePlan(tuple(starts), tuple(runs), Epilogue.of_layer(layer))


def _tile_channels(start: int, outputs: int) -> NDArray[np.int64]:
    """Return the output channels of a tile, those that are not there being the last."""
    return np.minimum(np.arange(start, start + CHANNELS), outputs - 1)


def pack_pointwise(layer: Convolution) -> dict[str, NDArray[Any]]:
    """Pack a convolution for `pointwise_assembly`.

    Returns
    -------
    dict
        weight: int8, for each tile parameters (64 bytes) and ``[K / 16 rounded up][4][16]``, channels that are not
        there repeating the last; schedule: int16 ``[tile][TILE_PIXELS][plan.schedule_length]``.
    """
    plan, weight = plan_pointwise(layer), weight_matrix(layer)
    outputs, inputs = weight.shape
    padded = np.pad(weight, ((0, 0), (0, -inputs % VECTOR)))
    r = layer.requantization
    records = []
    for start in plan.starts:
        channels = _tile_channels(start, outputs)
        records.append(layer.bias[channels].astype("<i4").tobytes() + r.multiplier[channels].astype("<i4").tobytes())
        records.append(vector_ends(r, LANES, epilogue=plan.epilogue))
        records.append(padded[channels].reshape(CHANNELS, -1, VECTOR).transpose(1, 0, 2).tobytes())
    places = np.zeros((len(plan.runs), len(TILE_PIXELS), plan.schedule_length), np.int16)
    for tile, runs in enumerate(plan.runs):
        for index, pixels in enumerate(TILE_PIXELS):
            places[tile, index, : len(runs) + 1] = schedule(pixels, runs)
    return {"weight": np.frombuffer(b"".join(records), np.int8), "schedule": places.reshape(-1)}


@dataclass(frozen=True)
class NarrowPlan:
    """A convolution of few inputs: first channel, channels and parts of the sum of each kernel's call."""

    blocks: tuple[tuple[int, int, tuple[int, ...]], ...]
    epilogue: Epilogue

    def instructions(self, pixels: int) -> float:
        """Return the instructions for so many pixels."""
        return sum(
            CALL + pixels * (narrow_kernel(width, parts, self.epilogue).count - 9) for _, width, parts in self.blocks
        )


@kept_by_layer
def plan_narrow(layer: Convolution) -> NarrowPlan | None:
    """Return how a convolution of few inputs is computed with a lane a channel; None where it can't be."""
    weight = weight_matrix(layer)
    outputs, inputs = weight.shape
    if inputs > _NARROW_INPUTS or outputs < VECTOR:
        return None
    choices = even_parts(inputs, min(inputs, 13))
    epilogue = Epilogue.of_layer(layer)
    blocks: list[tuple[int, int, tuple[int, ...]]] = []
    start = 0
    while start < outputs:
        found = []
        for width in WIDTHS:
            first = start if start + width <= outputs else outputs - width
            if first < 0 or first > start or (start - first >= VECTOR and width > VECTOR):
                continue
            parts = fewest_parts(weight[first : first + width].T, choices)
            if parts is not None and fits_registers(width, parts):
                cost = narrow_kernel(width, choices[parts], epilogue).count / (first + width - start)
                found.append((cost, (first, width, choices[parts])))
        if not found:
            return None
        blocks.append(min(found)[1])
        start = blocks[-1][0] + blocks[-1][1]
    return NarrowPlan(tuple(blocks), epilogue)


def pack_narrow(layer: Convolution, plan: NarrowPlan) -> dict[str, NDArray[Any]]:
    """Pack a convolution for `narrow_assembly`.

    Returns
    -------
    dict
        weight: int8, zero point and clamp (48 bytes), then for each block of the plan its parameters and
        ``[K][width]``.
    """
    weight, r = weight_matrix(layer), layer.requantization
    records = [vector_ends(r, epilogue=plan.epilogue)]
    for start, width, _ in plan.blocks:
        for first in range(start, start + width, VECTOR):
            channels = slice(first, first + VECTOR)
            records += [values[channels].astype("<i4").tobytes() for values in (layer.bias, r.multiplier)]
        records.append(np.ascontiguousarray(weight[start : start + width].T).tobytes())
    return {"weight": np.frombuffer(b"".join(records), np.int8)}


def narrow_offsets(plan: NarrowPlan, inputs: int) -> list[tuple[int, int]]:
    """Return where in `pack_narrow`'s bytes each block's parameters and weights begin."""
    offsets, at = [], VECTOR_ENDS_BYTES
    for _, width, _ in plan.blocks:
        offsets.append((at, at + width * 8))
        at += width * (8 + inputs)
    return offsets


@dataclass(frozen=True)
class DepthwisePlan:
    """A depthwise layer's blocks of `block` channels: first channel and parts of each, functions by parts."""

    block: int
    starts: tuple[int, ...]
    parts: tuple[int, ...]
    functions: dict[int, Function]


@kept_by_layer
def plan_depthwise(layer: DepthwiseConvolution) -> DepthwisePlan:
    """Return how a depthwise layer is computed."""
    return plan_depthwise_blocks(layer, BLOCK, depthwise_kernel, large_depthwise_kernel)


def plan_depthwise_blocks(
    layer: DepthwiseConvolution,
    block: int,
    kernel: Callable[[DepthwiseShape], Function],
    large_kernel: Callable[[RowShape, int, Epilogue], Function],
) -> DepthwisePlan:
    """Return how a depthwise layer is computed by functions for blocks of so many channels: 3x3 ones, and larger."""
    taps = layer.kernel[0]
    weight = layer.weight.reshape(taps * taps, -1)
    starts = block_starts(weight.shape[1], block)
    # In larger kernels each row is parted.
    choices = ROW_PARTS[taps] if taps in ROW_PARTS else DEPTHWISE_PARTS
    sums = {count: sizes * (taps if taps in ROW_PARTS else 1) for count, sizes in choices.items()}
    parts = tuple(
        # Two products always fit.
        fewest_parts(weight[:, start : start + block], sums) or max(sums)
        for start in starts
    )
    functions = {
        count: large_kernel(row_shape(layer), count, Epilogue.of_layer(layer))
        if taps in ROW_PARTS
        else kernel(depthwise_shape(layer, count))
        for count in sorted(set(parts))
    }
    return DepthwisePlan(block, tuple(starts), parts, functions)


def row_shape(layer: DepthwiseLayer) -> RowShape:
    """Return how the rows of a layer with a larger kernel lie over its input's."""
    return RowShape(layer.kernel[0], layer.stride[0], layer.output_shape[1], layer.input_shape[1], layer.padding[1])


def depthwise_shape(layer: DepthwiseConvolution, parts: int) -> DepthwiseShape:
    """Return what a layer's function is made for whose sums have so many parts."""
    _, left, _, _ = layer.padding
    right = (layer.output_shape[1] - 1) * layer.stride[1] - left + 3 > layer.input_shape[1]
    return DepthwiseShape(layer.stride[0], parts, bool(left), right, Epilogue.of_layer(layer))


def pack_depthwise(layer: DepthwiseConvolution, plan: DepthwisePlan) -> dict[str, NDArray[Any]]:
    """Pack a depthwise layer for the functions of its plan.

    Returns
    -------
    dict
        weight: int8, for each block parameters as the kernel reads them, channels that are not there repeating the
        last; parts: int8, for each block the position of its kernel among the plan's.
    """
    r = layer.requantization
    weight = layer.weight.reshape(-1, layer.weight.shape[2])
    records: list[bytes] = []
    for start in plan.starts:
        channels = np.minimum(np.arange(start, start + plan.block), weight.shape[1] - 1)
        records += [weight[:, channels].tobytes(), r.multiplier[channels].astype("<i4").tobytes()]
        records += [
            vector_ends(r, plan.block),
            np.full(plan.block, layer.input_zero_point, np.int8).tobytes(),
            layer.bias[channels].astype("<i4").tobytes(),
        ]
    kinds = list(plan.functions)
    return {
        "weight": np.frombuffer(b"".join(records), np.int8),
        "parts": np.array([kinds.index(count) for count in plan.parts], np.int8),
    }
