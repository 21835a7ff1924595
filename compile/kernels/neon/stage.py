"""A chain of layers on the kernels of `thumbnet_neon.h`: int8 pixels, sixteen channels a vector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from thumbnet.compile.kernels.neon.assembly import Function
from thumbnet.compile.kernels.neon.cost import depthwise_instructions, predict_instructions
from thumbnet.compile.kernels.neon.depthwise_assembly import BLOCK
from thumbnet.compile.kernels.neon.large_depthwise_assembly import ROW_PARTS
from thumbnet.compile.kernels.neon.narrow_assembly import narrow_kernel
from thumbnet.compile.kernels.neon.packing import (
    DepthwisePlan,
    NarrowPlan,
    narrow_offsets,
    pack_depthwise,
    pack_narrow,
    pack_pointwise,
    plan_depthwise,
    plan_pointwise,
)
from thumbnet.compile.kernels.neon.shapes import act_stride, narrow_or_none
from thumbnet.compile.kernels.pixel_stage import LEAST_CHANNELS, Pixels, PixelStage
from thumbnet.compile.kernels.stage_code import Index
from thumbnet.compile.network.fixed_point import Requantization
from thumbnet.compile.network.integer_network import Add, AveragePool, Convolution, DepthwiseConvolution
from thumbnet.compile.network.layers import AnyLayer, AveragePoolLayer, ConvolutionLayer, DepthwiseLayer

#: Multiply-accumulates that are worth the waking of a thread.
SHARED_MACS = 100_000


class NeonStage(PixelStage):
    """Emits the kernel of one chain; parameters as in `RollingStage`, `window_bytes` being 1."""

    instruction_set = "neon"
    headers: tuple[Path, ...] = tuple(Path(__file__).with_name(f"thumbnet_{part}.h") for part in ("neon", "threads"))
    dtype = "int8"
    element_bytes = 1
    weights_choose_code = True
    portable_vectors = True
    depthwise_kernels = frozenset({(3, 3), (5, 5), (7, 7)})
    #: Channels that a depthwise function computes, and the macro that walks over a layer with those of 3x3.
    block: ClassVar[int] = BLOCK
    depthwise_macro: ClassVar[str] = "NEON_DEPTHWISE"

    def act_stride(self, layer: ConvolutionLayer | DepthwiseLayer) -> int:
        """Return the bytes of a pixel that a convolution reads from, or a depthwise layer writes to, ``act``."""
        return act_stride(layer, self.block)

    def depthwise_plan(self, layer: DepthwiseConvolution) -> DepthwisePlan:
        """Return how a depthwise layer is computed."""
        return plan_depthwise(layer)

    def _pack(self, layer: AnyLayer) -> dict[str, NDArray[Any]]:
        if isinstance(layer, Convolution):
            return self._pack_convolution(layer)
        assert isinstance(layer, DepthwiseConvolution)
        return self._pack_depthwise(layer)

    def _pack_depthwise(self, layer: DepthwiseConvolution) -> dict[str, NDArray[Any]]:
        return pack_depthwise(layer, self.depthwise_plan(layer))

    def _pack_convolution(self, layer: Convolution) -> dict[str, NDArray[Any]]:
        plan = narrow_or_none(layer)
        return pack_pointwise(layer) if plan is None else pack_narrow(layer, plan)

    def predicted_instructions(self) -> float:
        """Return the estimate of `cost`."""
        return predict_instructions(self, self.convolution_instructions, self._depthwise_instructions)

    def _depthwise_instructions(self, layer: DepthwiseConvolution, calls: int, rows: int) -> float:
        return depthwise_instructions(layer, self.depthwise_plan(layer), calls, rows)

    def convolution_instructions(self, layer: Convolution, pixels: int) -> float:
        """Return the instructions of so many pixels of a convolution."""
        narrow = narrow_or_none(layer)
        return (plan_pointwise(layer) if narrow is None else narrow).instructions(pixels)

    def channel_tiles(self, layer: ConvolutionLayer) -> int:
        """Return how often a convolution goes over its pixels: once for each tile of output channels."""
        assert isinstance(layer, Convolution)
        narrow = narrow_or_none(layer)
        return super().channel_tiles(layer) if narrow is None else len(narrow.blocks)

    def _filter_rows(self, index: int, source: str, row: Index, rows: int, count: Index) -> None:
        layer = self.layers[index]
        assert isinstance(layer, DepthwiseConvolution)
        plan = self.depthwise_plan(layer)
        functions = list(plan.functions.values())
        for function in functions:
            self.definitions += [function.definition(), f"TN_NEON_DECLARE({function.name})"]
        kernels = f"TN_LIST({', '.join(function.name for function in functions)})"
        (taps, _), stride, (height, width, channels) = layer.kernel, layer.stride[0], layer.output_shape
        large = taps in ROW_PARTS
        shape = (
            *(plan.block, *([taps] if large else []), stride, layer.padding[1], layer.input_shape[1], channels),
            *(width, height, self.act_stride(layer), *requantized(layer.requantization)),
        )
        name = _named(f"depthwise_{'_'.join(map(str, plan.functions))}", *shape)
        self._define("NEON_DEPTHWISE_LARGE" if large else self.depthwise_macro, name, kernels, *shape)
        grain = max(SHARED_MACS // (taps * taps * width * channels), 1)
        self._call(
            self._define("SHARED_ROWS", f"shared_{name}", name, stride, width * self.act_stride(layer), grain),
            self._at(source, 0),
            self._at("act", 0),
            self._at(f"weight{index}", 0),
            self._at(f"parts{index}", 0),
            self._at("padding", 0),
            *(row, rows, count),
        )

    def _multiply_pixels(self, index: int, source: Pixels, target: tuple[str, Index], pixels: Index) -> None:
        layer = self.layers[index]
        assert isinstance(layer, Convolution)
        narrow = narrow_or_none(layer)
        if narrow is not None:
            self._multiply_narrow(index, narrow, source, target, pixels)
            return
        plan, channels = plan_pointwise(layer), layer.output_shape[2]
        functions = plan.functions()
        self.definitions += [function.definition() for function in functions]
        shape = (
            *(int(layer.weight[0].size), source[2], channels, channels, plan.schedule_length),
            *requantized(layer.requantization),
        )
        kernel = self._define_kernel("NEON_POINTWISE", "pointwise", functions, *shape)
        self._call(
            self._shared_pixels(kernel, layer, source[2]),
            self._at(source[0], source[1]),
            self._at(target[0], target[1]),
            self._at(f"weight{index}", 0),
            self._at(f"schedule{index}", 0),
            pixels,
        )

    def _shared_pixels(self, kernel: str, layer: Convolution, pixel_bytes: int) -> str:
        """Define the function that shares a convolution's pixels among threads, where that does no harm."""
        channels = layer.output_shape[2]
        if channels < LEAST_CHANNELS:
            # A pixel's tile is written over the next ones, which may be another thread's.
            return kernel
        grain = max(SHARED_MACS // layer.weight.size, 1)
        return self._define("SHARED_PIXELS", f"shared_{kernel}", kernel, pixel_bytes, channels, grain)

    def _define_kernel(self, macro: str, stem: str, functions: Sequence[Function], *shape: int) -> str:
        """Define what walks over a layer with assembly functions."""
        return self._define(macro, _named(stem, *shape), *(function.name for function in functions), *shape)

    def _multiply_narrow(
        self, index: int, plan: NarrowPlan, source: Pixels, target: tuple[str, Index], pixels: Index
    ) -> None:
        layer = self.layers[index]
        assert isinstance(layer, Convolution)
        inputs, channels = int(layer.weight[0].size), layer.output_shape[2]
        offsets = narrow_offsets(plan, inputs)
        for (start, width, parts), (parameters, _) in zip(plan.blocks, offsets, strict=True):
            function = narrow_kernel(width, parts, plan.epilogue)
            self.definitions.append(function.definition())
            shape = (inputs, source[2], channels, width, *requantized(layer.requantization))
            kernel = self._define_kernel("NEON_NARROW", f"narrow{len(parts)}", [function], *shape)
            self._call(
                self._shared_pixels(kernel, layer, source[2]),
                self._at(source[0], source[1]),
                self._at(target[0], target[1] + start),
                self._at(f"weight{index}", parameters),
                self._at(f"weight{index}", 0),
                pixels,
            )

    def _define_im2col(self, layer: ConvolutionLayer) -> str:
        height, width, channels = layer.input_shape
        top, left, _, _ = layer.padding
        if self.streamed:
            height, top = layer.kernel[0], 0
        return self._define_shaped(
            "NEON_IM2COL",
            "im2col",
            *(height, width, channels, *layer.kernel, *layer.stride, top, left),
            *(layer.output_shape[1], self.act_stride(layer), layer.input_zero_point),
        )

    def _define_average(self, layer: AveragePoolLayer) -> str:
        assert isinstance(layer, AveragePool)
        height, width, channels = layer.input_shape
        multiplier, (shift, *rest) = int(layer.requantization.multiplier[0]), requantized(layer.requantization)
        return self._define_shaped(
            "NEON_AVERAGE", "average", height * width, channels, layer.bias, multiplier, shift, *rest
        )

    def _define_add(self, index: int) -> str:
        layer = self.layers[index]
        assert isinstance(layer, Add)
        p = layer.parameters
        shortcut, chain = self._add_multipliers(index)
        return self._define_shaped("NEON_ADD", "add", shortcut, chain, p.constant, p.shift, p.minimum, p.maximum)


def _named(stem: str, *shape: int) -> str:
    return "_".join([stem, *(f"m{-value}" if value < 0 else str(value) for value in shape)])


def requantized(requantization: Requantization) -> tuple[int, int, int, int]:
    """Return the constants of a kernel: shift, zero point, clamp."""
    r = requantization
    return int(r.left_shift[0]), r.zero_point, r.minimum, r.maximum
