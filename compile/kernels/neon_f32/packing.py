"""Constants in the order in which the kernels of this folder read them, and which kernels those are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.kernels.dotprod.packing import TileGroup, tile_groups
from thumbnet.compile.kernels.neon.assembly import Function
from thumbnet.compile.kernels.neon.packing import CALL, block_starts, row_shape
from thumbnet.compile.kernels.neon_f32.clamp import Clamp, clamp_vectors
from thumbnet.compile.kernels.neon_f32.depthwise_assembly import BLOCK, FloatDepthwiseShape, depthwise_kernel
from thumbnet.compile.kernels.neon_f32.large_depthwise_assembly import large_depthwise_kernel
from thumbnet.compile.kernels.neon_f32.tile_assembly import (
    PACKED_INPUTS,
    PACKED_PIXELS,
    REST_PIXELS,
    STEP,
    TILE_CHANNELS,
    pack_instructions,
    tile_instructions,
    tile_kernel,
)
from thumbnet.compile.network.float_network import FloatConvolution, FloatDepthwiseConvolution

#: Bytes of packed pixels that a second-level cache has room for beside the weights.
_PACKED_BYTES = 256 << 10


@dataclass(frozen=True)
class TilePlan:
    """How a convolution is computed: its groups of tiles, its inputs and outputs, the end of its kernels."""

    groups: tuple[TileGroup, ...]
    inputs: int
    outputs: int
    clamp: Clamp

    @classmethod
    def of(cls, layer: FloatConvolution) -> TilePlan:
        """Return the plan of a layer."""
        outputs, inputs = layer.weight.shape[0], int(layer.weight[0].size)
        return cls(tile_groups(outputs, TILE_CHANNELS), inputs, outputs, Clamp.of(layer))

    def functions(self, channels: int) -> list[Function]:
        """Return the kernels of a width, for packed pixels and for the rest."""
        sizes = (PACKED_PIXELS, *REST_PIXELS)
        steps, tail = divmod(self.inputs, STEP)
        return [tile_kernel(pixels, channels, tail, self.clamp, steps=steps > 0) for pixels in sizes]

    @property
    def chunk(self) -> int:
        """Pixels that are packed, and multiplied with all weights, before the next are."""
        packed = PACKED_PIXELS * self.packed_inputs * 4
        return max(_PACKED_BYTES // packed, 1) * PACKED_PIXELS

    @property
    def packed_inputs(self) -> int:
        """Inputs of a packed pixel."""
        return -(-self.inputs // PACKED_INPUTS) * PACKED_INPUTS

    def packed_floats(self, pixels: int) -> int:
        """Return the room that packing takes for so many pixels."""
        return min(pixels, self.chunk) // PACKED_PIXELS * PACKED_PIXELS * self.packed_inputs

    def instructions(self, pixels: int) -> float:
        """Return the instructions for so many pixels."""
        chunks, last = divmod(pixels, self.chunk)
        return chunks * self._chunk_instructions(self.chunk) + (self._chunk_instructions(last) if last else 0)

    def _chunk_instructions(self, pixels: int) -> float:
        eights, rest = divmod(pixels, PACKED_PIXELS)
        counts = {PACKED_PIXELS: eights} | {size: bool(rest & size) for size in REST_PIXELS}
        total = pack_instructions(eights, self.inputs) + CALL
        for group in self.groups:
            for size, count in counts.items():
                if count:
                    tile = tile_instructions(size, group.channels, self.inputs, self.clamp)
                    total += group.tiles * (CALL + size * group.channels // 4 + count * tile)
        return total


def pack_tiles(layer: FloatConvolution) -> NDArray[Any]:
    """Return a convolution's constants, float32: for each tile its parameters and weights as `tile_assembly` says.

    Channels that are not there repeat the last.
    """
    weight = layer.weight.reshape(layer.weight.shape[0], -1)
    records: list[bytes] = []
    for group in TilePlan.of(layer).groups:
        for first in range(group.first, group.first + group.tiles * group.channels, group.channels):
            channels = np.minimum(np.arange(first, first + group.channels), weight.shape[0] - 1)
            records += [layer.bias[channels].astype("<f4").tobytes(), clamp_vectors(layer)]
            records.append(np.ascontiguousarray(weight[channels].T, "<f4").tobytes())
    return np.frombuffer(b"".join(records), np.float32)


def depthwise_function(layer: FloatDepthwiseConvolution) -> Function:
    """Return a layer's kernel."""
    if layer.kernel != (3, 3):
        return large_depthwise_kernel(row_shape(layer), Clamp.of(layer))
    return depthwise_kernel(depthwise_shape(layer))


def depthwise_shape(layer: FloatDepthwiseConvolution) -> FloatDepthwiseShape:
    """Return what a layer's 3x3 kernel is made for."""
    width, stride, left = layer.output_shape[1], layer.stride[0], layer.padding[1]
    right = (width - 1) * stride - left + 3 > layer.input_shape[1]
    return FloatDepthwiseShape(stride, bool(left), right, width == 1, Clamp.of(layer))


def pack_depthwise(layer: FloatDepthwiseConvolution) -> NDArray[Any]:
    """Return a depthwise layer's constants, float32: for each block parameters as `depthwise_assembly` says.

    Channels that are not there repeat the last.
    """
    weight = layer.weight.reshape(-1, layer.weight.shape[2])
    records: list[bytes] = []
    for start in block_starts(weight.shape[1], BLOCK):
        channels = np.minimum(np.arange(start, start + BLOCK), weight.shape[1] - 1)
        records += [weight[:, channels].astype("<f4").tobytes(), clamp_vectors(layer)]
        records += 2 * [layer.bias[channels].astype("<f4").tobytes()]
    return np.frombuffer(b"".join(records), np.float32)
