"""A chain of layers on the kernels of `thumbnet_neon.h`, as one TIR function.

Activations are int8 pixels everywhere, sixteen channels being a vector: no layer needs planes, and a depthwise layer
reads the chain's input where it lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from thumbnet.compile.kernels.kernel import Scratch
from thumbnet.compile.kernels.layouts import Layout, nhwc_layout
from thumbnet.compile.kernels.neon.assembly import Function
from thumbnet.compile.kernels.neon.cost import predict_instructions
from thumbnet.compile.kernels.neon.narrow_assembly import narrow_kernel
from thumbnet.compile.kernels.neon.packing import (
    NarrowPlan,
    narrow_offsets,
    pack_depthwise,
    pack_narrow,
    pack_pointwise,
    plan_depthwise,
    plan_pointwise,
)
from thumbnet.compile.kernels.neon.shapes import act_stride, narrow_or_none, reads_source
from thumbnet.compile.kernels.rolling_stage import RollingStage
from thumbnet.compile.kernels.stage_code import Index
from thumbnet.compile.network.fixed_point import Requantization
from thumbnet.compile.network.integer_network import (
    Add,
    AveragePool,
    Convolution,
    DepthwiseConvolution,
    Layer,
    Shape,
)

#: What the kernels may read or write beyond a tensor: a vector.
_SLACK = 16
#: Multiply-accumulates that are worth the waking of a thread.
_SHARED_MACS = 100_000
#: Output channels that a kernel writes at least.
_LEAST_CHANNELS = 4


class NeonStage(RollingStage):
    """Emits the kernel of one chain; parameters as in `RollingStage`, `window_bytes` being 1."""

    instruction_set = "neon"
    headers: tuple[Path, ...] = tuple(Path(__file__).with_name(f"thumbnet_{part}.h") for part in ("neon", "threads"))
    one_pixel_kinds = frozenset({"fully_connected", "average_pool"})
    bytes_read_beyond = _SLACK
    window_sizes = (1,)
    gathers_pixels = False

    @classmethod
    def takes(cls, layer: Layer) -> bool:
        """Tell whether there is a kernel: depthwise layers with at most one column of padding on either side."""
        if not isinstance(layer, DepthwiseConvolution):
            return True
        _, left, _, _ = layer.padding
        beyond = (layer.output_shape[1] - 1) * layer.stride[1] - left + 3 - layer.input_shape[1]
        return left <= 1 and beyond <= 1

    @classmethod
    def target_layouts(cls, shape: Shape, reader: DepthwiseConvolution | None) -> list[Layout]:
        """Return pixels, whoever reads them."""
        pixels = nhwc_layout(shape)
        # Tiles are four channels wide at least: with fewer, the last pixel's end lies beyond the tensor.
        return [pixels if shape[2] >= _LEAST_CHANNELS else replace(pixels, size=pixels.size + _LEAST_CHANNELS)]

    def _window_layout(self, index: int, layer: DepthwiseConvolution) -> Layout:
        _, width, channels = layer.input_shape
        return nhwc_layout((self.plan[index].window_rows, width, channels))

    def _plan_scratch(self) -> None:
        act, padding = 0, 0
        for index, window in self.windows.items():
            self.scratch[f"window{index}"] = Scratch("int8", window.size + _SLACK)
        for group in self.groups:
            block = self.block_rows(group)
            for index in group:
                layer = self.layers[index]
                if isinstance(layer, Convolution) and not reads_source(self.layers, index):
                    act = max(act, block * layer.output_shape[1] * act_stride(layer) + _SLACK)
                elif isinstance(layer, DepthwiseConvolution):
                    padding = max(padding, layer.input_shape[1] * layer.input_shape[2] + _SLACK)
                elif isinstance(layer, Add):
                    _, width, channels = layer.output_shape
                    self.scratch["sum"] = Scratch("int8", block * width * channels + _SLACK)
        if act:
            self.scratch["act"] = Scratch("int8", act)
        if padding:
            self.scratch["padding"] = Scratch("int8", padding)

    def _pack_constants(self) -> None:
        for index, layer in enumerate(self.layers):
            packed: dict[str, NDArray[Any]] = {}
            if isinstance(layer, Convolution):
                packed = self._pack_convolution(layer)
            elif isinstance(layer, DepthwiseConvolution):
                packed = pack_depthwise(layer)
            self.constants |= {f"{name}{index}": array for name, array in packed.items()}

    def _pack_convolution(self, layer: Convolution) -> dict[str, NDArray[Any]]:
        plan = narrow_or_none(layer)
        return pack_pointwise(layer) if plan is None else pack_narrow(layer, plan)

    def _prepare(self) -> None:
        pass

    def _group_row_bytes(self, group: Sequence[int]) -> int:
        bytes_ = 0
        for index in group:
            layer = self.layers[index]
            if isinstance(layer, Convolution) and not reads_source(self.layers, index):
                bytes_ += layer.output_shape[1] * act_stride(layer)
            elif isinstance(layer, Add):
                bytes_ += layer.output_shape[1] * layer.output_shape[2]
        return bytes_

    def reads_rows_in_parts(self) -> bool:
        """Tell whether a row is written before all that it is computed from has been read."""
        # A tile of output channels is written while the next still needs the pixels.
        return reads_source(self.layers, 0) or isinstance(self.layers[0], AveragePool)

    def predicted_instructions(self) -> float:
        """Return the estimate of `cost`."""
        return predict_instructions(self, self.convolution_instructions)

    def convolution_instructions(self, layer: Convolution, pixels: int) -> float:
        """Return the instructions of so many pixels of a convolution."""
        narrow = narrow_or_none(layer)
        return (plan_pointwise(layer) if narrow is None else narrow).instructions(pixels)

    # ---- the code ------------------------------------------------------------------------------------------------

    def _compute(self, group: Sequence[int], step: Index, first: Index, count: Index) -> None:
        for index in group:
            layer = self.layers[index]
            match layer:
                case DepthwiseConvolution():
                    self._depthwise(index, step, first, count)
                case Convolution():
                    if layer.kernel != (1, 1):
                        self._im2col(layer, first)
                    self._multiply(index, step, first, count)
                case Add():
                    self._add(index, first, count)
                case AveragePool():
                    self._average(layer)

    def _depthwise(self, index: int, step: Index, first: Index, count: Index) -> None:
        layer = self.layers[index]
        assert isinstance(layer, DepthwiseConvolution)
        plan = plan_depthwise(layer)
        functions = list(plan.functions.values())
        for function in functions:
            self.definitions += [function.definition(), f"TN_NEON_DECLARE({function.name})"]
        kernels = f"TN_LIST({', '.join(function.name for function in functions)})"
        stride, (height, width, channels) = layer.stride[0], layer.output_shape
        shape = (
            *(stride, layer.padding[1], layer.input_shape[1], channels, width, height),
            *(act_stride(layer), *requantized(layer.requantization)),
        )
        name = _named(f"depthwise_{'_'.join(map(str, plan.functions))}", *shape)
        self._define("NEON_DEPTHWISE", name, kernels, *shape)
        grain = max(_SHARED_MACS // (9 * width * channels), 1)
        shared = self._define("SHARED_ROWS", f"shared_{name}", name, stride, width * act_stride(layer), grain)
        row, rows = first * stride - layer.padding[0], layer.input_shape[0]
        if index > 0:
            row, rows = self._window_position(index, step, row), self.windows[index].shape[0]
        # A few instructions a step; the columns beyond the image are the kernel's.
        self._call("memset", self._at("padding", 0), layer.input_zero_point, layer.input_shape[1] * channels)
        self._call(
            shared,
            self._at("input0" if index == 0 else f"window{index}", 0),
            self._at("act", 0),
            self._at(f"weight{index}", 0),
            self._at(f"parts{index}", 0),
            self._at("padding", 0),
            *(row, rows, count),
        )

    def _multiply(self, index: int, step: Index, first: Index, count: Index) -> None:
        """Emit pixels times weights into the next window, the sum's rows or the output."""
        layer = self.layers[index]
        assert isinstance(layer, Convolution)
        _, width, channels = layer.output_shape
        follower = self.layers[index + 1] if index + 1 < len(self.layers) else None
        buffer, row = "output", first
        if isinstance(follower, DepthwiseConvolution):
            buffer, row = f"window{index + 1}", self._window_position(index + 1, step, first)
        elif isinstance(follower, Add):
            buffer, row = "sum", 0
        source, stride, begin = "act", act_stride(layer), 0
        if reads_source(self.layers, index):
            source, stride = "input0", layer.input_shape[2]
            begin = first * (width * stride)
        at, pixels = row * (width * channels), count * width
        self._multiply_pixels(index, (source, begin, stride), (buffer, at), pixels)

    def _multiply_pixels(
        self, index: int, source: tuple[str, Index, int], target: tuple[str, Index], pixels: Index
    ) -> None:
        """Emit a convolution of pixels: from buffer, element and bytes a pixel to buffer and element."""
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
        if channels < _LEAST_CHANNELS:
            # A pixel's tile is written over the next ones, which may be another thread's.
            return kernel
        grain = max(_SHARED_MACS // layer.weight.size, 1)
        return self._define("SHARED_PIXELS", f"shared_{kernel}", kernel, pixel_bytes, channels, grain)

    def _define_kernel(self, macro: str, stem: str, functions: Sequence[Function], *shape: int) -> str:
        """Define what walks over a layer with assembly functions."""
        return self._define(macro, _named(stem, *shape), *(function.name for function in functions), *shape)

    def _multiply_narrow(
        self, index: int, plan: NarrowPlan, source: tuple[str, Index, int], target: tuple[str, Index], pixels: Index
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

    def _im2col(self, layer: Convolution, row: Index) -> None:
        height, width, channels = layer.input_shape
        top, left, _, _ = layer.padding
        self._read_rows(layer, row)
        if self.streamed:
            # Just the rows under the kernel are there, those beyond the image filled.
            height, top, row = layer.kernel[0], 0, 0
        name = self._define_shaped(
            "NEON_IM2COL",
            "im2col",
            *(height, width, channels, *layer.kernel, *layer.stride, top, left),
            *(layer.output_shape[1], act_stride(layer), layer.input_zero_point),
        )
        self._call(name, self._at("image" if self.streamed else "input0", 0), self._at("act", 0), row)

    def _carry(self, window: str, *sizes: int) -> None:
        move, kept, _, _ = sizes
        self._call("memmove", self._at(window, 0), self._at(window, move), kept)

    def _average(self, layer: AveragePool) -> None:
        height, width, channels = layer.input_shape
        multiplier, (shift, *rest) = int(layer.requantization.multiplier[0]), requantized(layer.requantization)
        name = self._define_shaped(
            "NEON_AVERAGE", "average", height * width, channels, layer.bias, multiplier, shift, *rest
        )
        self._call(name, self._at("input0", 0), self._at("output", 0))

    def _add(self, index: int, first: Index, count: Index) -> None:
        layer = self.layers[index]
        assert isinstance(layer, Add)
        _, width, channels = layer.output_shape
        p = layer.parameters
        shortcut, chain = self._add_multipliers(index)
        name = self._define_shaped("NEON_ADD", "add", shortcut, chain, p.constant, p.shift, p.minimum, p.maximum)
        at = first * (width * channels)
        self._call(name, self._at("output", at), self._at("input0", at), self._at("sum", 0), count * (width * channels))


def _named(stem: str, *shape: int) -> str:
    return "_".join([stem, *(f"m{-value}" if value < 0 else str(value) for value in shape)])


def requantized(requantization: Requantization) -> tuple[int, int, int, int]:
    """Return the constants of a kernel: shift, zero point, clamp."""
    r = requantization
    return int(r.left_shift[0]), r.zero_point, r.minimum, r.maximum
