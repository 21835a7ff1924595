"""A chain of layers on the kernels of `thumbnet_neon_f32.h`, as one TIR function: float32 pixels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.kernels.kernel import Scratch
from thumbnet.compile.kernels.neon.assembly import Function
from thumbnet.compile.kernels.neon.stage import SHARED_MACS, NeonStage
from thumbnet.compile.kernels.neon_f32.cost import predict_instructions
from thumbnet.compile.kernels.neon_f32.depthwise_assembly import BLOCK
from thumbnet.compile.kernels.neon_f32.packing import TilePlan, depthwise_function, pack_depthwise, pack_tiles
from thumbnet.compile.kernels.neon_f32.tile_assembly import PACKED_INPUTS, PACKED_PIXELS, pack_kernel
from thumbnet.compile.kernels.pixel_stage import LEAST_CHANNELS, Pixels, PixelStage
from thumbnet.compile.kernels.stage_code import Index
from thumbnet.compile.network.float_network import (
    FloatAdd,
    FloatAveragePool,
    FloatConvolution,
    FloatDepthwiseConvolution,
    FloatLayer,
)
from thumbnet.compile.network.layers import AnyLayer, AveragePoolLayer, ConvolutionLayer, DepthwiseLayer


class NeonF32Stage(PixelStage):
    """Emits the kernel of one chain; parameters as in `RollingStage`, `window_bytes` being 4."""

    instruction_set = "neon_f32"
    headers: tuple[Path, ...] = (Path(__file__).with_name("thumbnet_neon_f32.h"), *NeonStage.headers)
    dtype = "float32"
    element_bytes = 4
    depthwise_kernels = frozenset({(3, 3), (5, 5), (7, 7)})
    window_sizes = (4,)
    portable_vectors = True

    def act_stride(self, layer: ConvolutionLayer | DepthwiseLayer) -> int:
        """Return the floats of a pixel that a convolution reads from, or a depthwise layer writes to, ``act``.

        A depthwise kernel writes whole vectors: with fewer channels the rest of the vector lies between the pixels.
        """
        if isinstance(layer, ConvolutionLayer) and layer.kernel != (1, 1):
            return -(-int(layer.weight[0].size) // PACKED_INPUTS) * PACKED_INPUTS
        return max(layer.input_shape[2], BLOCK)

    def _plan_scratch(self) -> None:
        super()._plan_scratch()
        packed = 0
        for group in self.groups:
            for index in group:
                layer = self.layers[index]
                if isinstance(layer, FloatConvolution):
                    pixels = self.block_rows(group) * layer.output_shape[1]
                    packed = max(packed, TilePlan.of(layer).packed_floats(pixels))
        if packed:
            self.scratch["packed"] = Scratch(self.dtype, packed)

    def _pack(self, layer: AnyLayer) -> dict[str, NDArray[Any]]:
        if isinstance(layer, FloatConvolution):
            return {"weight": pack_tiles(layer)}
        assert isinstance(layer, FloatDepthwiseConvolution)
        return {"weight": pack_depthwise(layer)}

    def predicted_instructions(self) -> float:
        """Return the estimate of `cost`."""
        return predict_instructions(self)

    def channel_tiles(self, layer: ConvolutionLayer) -> int:
        """Return how often a convolution goes over its pixels: once for each tile of output channels."""
        assert isinstance(layer, FloatConvolution)
        return sum(group.tiles for group in TilePlan.of(layer).groups)

    def _filter_rows(self, index: int, source: str, row: Index, rows: int, count: Index) -> None:
        layer = self.layers[index]
        assert isinstance(layer, FloatDepthwiseConvolution)
        kernel = depthwise_function(layer)
        self._declare_functions("DEPTHWISE", [kernel])
        (height, width, channels), stride, (taps, _) = layer.output_shape, layer.stride[0], layer.kernel
        large = layer.kernel != (3, 3)
        shape = (
            *([taps] if large else []),
            *(stride, layer.padding[1], layer.input_shape[1], channels, width, height, self.act_stride(layer)),
        )
        macro = "F32_DEPTHWISE_LARGE" if large else "F32_DEPTHWISE"
        name = self._define(macro, _named("depthwise", layer, *shape), kernel.name, *shape)
        grain, row_floats = max(SHARED_MACS // (taps * taps * width * channels), 1), width * self.act_stride(layer)
        self._call(
            self._define("F32_SHARED_ROWS", f"shared_{name}", name, stride, row_floats, grain),
            self._at(source, 0),
            self._at("act", 0),
            self._at(f"weight{index}", 0),
            self._at("padding", 0),
            *(row, rows, count),
        )

    def _multiply_pixels(self, index: int, source: Pixels, target: tuple[str, Index], pixels: Index) -> None:
        layer = self.layers[index]
        assert isinstance(layer, FloatConvolution)
        plan = TilePlan.of(layer)
        self.definitions += [pack_kernel().definition(), "TN_F32_PACK"]
        groups = []
        for group in plan.groups:
            functions = plan.functions(group.channels)
            self._declare_functions("TILE", functions)
            names = [function.name for function in functions]
            groups.append(f"TN_F32_GROUP({', '.join(map(str, [*names, group.first, group.channels, group.tiles]))})")
        shape = (plan.inputs, source[2], plan.outputs)
        name = self._define(
            "F32_POINTWISE", _named("pointwise", layer, *shape), f"TN_LIST({', '.join(groups)})", *shape
        )
        self._call(
            self._share_pixels(name, plan, source[2]),
            self._at(source[0], source[1]),
            self._at(target[0], target[1]),
            self._at(f"weight{index}", 0),
            self._at("packed", 0) if "packed" in self.scratch else 0,
            pixels,
        )

    def _share_pixels(self, kernel: str, plan: TilePlan, pixel_floats: int) -> str:
        """Define the function that packs pixels by parts and shares each part among threads."""
        grain = max(SHARED_MACS // (PACKED_PIXELS * plan.inputs * plan.outputs), 1)
        if plan.outputs < LEAST_CHANNELS:
            # A pixel's tile is written over the next ones, which may be another thread's: all are one piece.
            grain = plan.chunk
        shape = (pixel_floats, plan.outputs, plan.packed_inputs, plan.chunk, grain)
        return self._define("F32_SHARED_PIXELS", f"shared_{kernel}", kernel, *shape)

    def _declare_functions(self, kind: str, functions: Sequence[Function]) -> None:
        for function in functions:
            self.definitions += [function.definition(), f"TN_F32_{kind}({function.name})"]

    def _define_im2col(self, layer: ConvolutionLayer) -> str:
        top, left, _, _ = layer.padding
        shape = (*layer.input_shape, *layer.kernel, *layer.stride, top, left, layer.output_shape[1])
        return self._define_shaped("F32_IM2COL", "im2col", *shape, self.act_stride(layer))

    def _define_average(self, layer: AveragePoolLayer) -> str:
        assert isinstance(layer, FloatAveragePool)
        height, width, channels = layer.input_shape
        shape = (height * width, channels)
        return self._define("F32_AVERAGE", _named("average", layer, *shape), *shape, *_bounds(layer))

    def _define_add(self, index: int) -> str:
        layer = self.layers[index]
        assert isinstance(layer, FloatAdd)
        return self._define("F32_ADD", _named("add", layer), *_bounds(layer))


def _bounds(layer: FloatLayer) -> tuple[str, str]:
    """Return the clamp's bounds as C prints them."""
    low = f"{float(layer.minimum).hex()}f" if np.isfinite(layer.minimum) else "-INFINITY"
    high = f"{float(layer.maximum).hex()}f" if np.isfinite(layer.maximum) else "INFINITY"
    return low, high


def _named(stem: str, layer: FloatLayer, *shape: int) -> str:
    """Return a name for what is made of a shape and a clamp."""
    bounds = [re.sub(r"\W", "m", repr(float(bound))) for bound in (layer.minimum, layer.maximum)]
    return "_".join([stem, *map(str, shape), *bounds])
