"""A chain of layers on the micro-kernels of `thumbnet_mve.h`, as one TIR function.

Activations are int8 everywhere: planes before a depthwise layer, pixels before a pointwise one. `README.md` says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from thumbnet.compile.kernels.chains import Gather
from thumbnet.compile.kernels.kernel import Scratch
from thumbnet.compile.kernels.layouts import Layout, nhwc_layout, planar_layout
from thumbnet.compile.kernels.mve.cost import predict_instructions
from thumbnet.compile.kernels.mve.packing import (
    BLOCK,
    block_starts,
    in_patches,
    pack_depthwise,
    pack_depthwise_pairs,
    pack_pointwise,
)
from thumbnet.compile.kernels.rolling_stage import RollingStage
from thumbnet.compile.kernels.stage_code import Index
from thumbnet.compile.network.fixed_point import Requantization
from thumbnet.compile.network.integer_network import Add, AveragePool, Convolution, DepthwiseConvolution
from thumbnet.compile.network.layers import DepthwiseLayer, Shape

#: What the kernels may read or write beyond a pixel: a vector.
_SLACK = 16


class MveStage(RollingStage):
    """Emits the kernel of one chain; parameters as in `RollingStage`, `window_bytes` being 1."""

    instruction_set = "mve"
    headers = tuple(
        Path(__file__).with_name(f"thumbnet_mve{part}.h")
        for part in ("", "_pointwise", "_depthwise", "_large_depthwise", "_portable")
    )
    one_pixel_kinds = frozenset({"fully_connected", "average_pool"})
    depthwise_kernels = frozenset({(3, 3), (5, 5), (7, 7)})
    bytes_read_beyond = _SLACK
    window_sizes = (1,)

    @classmethod
    def target_layouts(cls, shape: Shape, reader: DepthwiseLayer | None) -> list[Layout]:
        """Return planes for a depthwise reader, whole ones and row by row, and pixels."""
        pixels = nhwc_layout(shape)
        if reader is None:
            return [pixels]
        planes = [planar_layout(shape, 1, reader.padding, rows_first=by_rows) for by_rows in (False, True)]
        return [*(layout for layout in planes if _reachable(layout)), pixels]

    def _window_layout(self, index: int, layer: DepthwiseLayer) -> Layout:
        _, left, _, right = layer.padding
        _, width, channels = layer.input_shape
        shape = (self.plan[index].window_rows, width, channels)
        planes = planar_layout(shape, 1, (0, left, 0, right))
        return planes if _reachable(planes) else planar_layout(shape, 1, (0, left, 0, right), rows_first=True)

    def _plan_scratch(self) -> None:
        act = 0
        for index, window in self.windows.items():
            self.scratch[f"window{index}"] = Scratch(window.dtype, window.size)
        for group in self.groups:
            block = self.block_rows(group)
            for index in group:
                layer = self.layers[index]
                if isinstance(layer, Convolution) and not self._reads_source(index):
                    act = max(act, block * layer.output_shape[1] * act_stride(layer) + _SLACK)
                elif isinstance(layer, Add):
                    _, width, channels = layer.output_shape
                    self.scratch["sum"] = Scratch("int8", block * width * channels)
        if act:
            self.scratch["act"] = Scratch("int8", act)

    def _pack_constants(self) -> None:
        for index, layer in enumerate(self.layers):
            if isinstance(layer, Convolution):
                weight = layer.weight.reshape(layer.weight.shape[0], -1)
                self.constants[f"weight{index}"] = pack_pointwise(weight, layer.bias, layer.requantization)
            elif isinstance(layer, DepthwiseConvolution) and layer.kernel != (3, 3):
                self.constants[f"weight{index}"] = pack_depthwise_pairs(layer.weight, layer.bias, layer.requantization)
            elif isinstance(layer, DepthwiseConvolution):
                self.constants[f"weight{index}"] = pack_depthwise(
                    layer.weight, layer.bias, layer.requantization, patches=in_patches(layer)
                )

    def _prepare(self) -> None:
        pass

    def _group_row_bytes(self, group: Sequence[int]) -> int:
        bytes_ = 0
        for index in group:
            layer = self.layers[index]
            if isinstance(layer, Convolution) and not self._reads_source(index):
                bytes_ += layer.output_shape[1] * act_stride(layer)
            elif isinstance(layer, Add):
                bytes_ += layer.output_shape[1] * layer.output_shape[2]
        return bytes_

    def reads_rows_in_parts(self) -> bool:
        """Tell whether a row is written before all that it is computed from has been read."""
        # A block of output channels is written while the next still needs the pixels.
        return self._reads_source(0) or isinstance(self.layers[0], AveragePool)

    def _reads_source(self, index: int) -> bool:
        """Tell whether a layer is a pointwise one that multiplies the chain's input where it lies."""
        layer = self.layers[index]
        return index == 0 and isinstance(layer, Convolution) and layer.kernel == (1, 1)

    def predicted_instructions(self) -> float:
        """Return the estimate of `cost`."""
        return predict_instructions(self)

    # ---- the code ------------------------------------------------------------------------------------------------

    def _compute(self, group: Sequence[int], step: Index, first: Index, count: Index) -> None:
        for index in group:
            layer = self.layers[index]
            match layer:
                case Gather():
                    self._gather(layer, step, first, count)
                case DepthwiseConvolution():
                    self._depthwise(index, step, first, count, self.block_rows(group))
                case Convolution():
                    if layer.kernel != (1, 1):
                        self._read_rows(layer, first)
                        self._in_image(layer, first)
                    self._multiply(index, step, first, count)
                case Add():
                    self._add(index, first, count)
                case AveragePool():
                    self._average(layer)

    def _depthwise(self, index: int, step: Index, first: Index, count: Index, most: int) -> None:
        """Emit a depthwise layer from its planes into act; `most` is the largest `count`."""
        layer = self.layers[index]
        assert isinstance(layer, DepthwiseConvolution)
        planes = self.source if index == 0 else self.windows[index]
        stride, (_, width, channels) = layer.stride[0], layer.output_shape
        shape = (width, planes.row_bytes, planes.channel_bytes, act_stride(layer))
        kernel: tuple[str, str, *tuple[int, ...]]
        if layer.kernel != (3, 3):
            taps = layer.kernel[0]
            kernel = ("MVE_DEPTHWISE_PAIRS", f"depthwise{taps}x{taps}", taps, stride, *shape)
        elif in_patches(layer):
            kernel = ("MVE_DEPTHWISE_PATCHES", "depthwise3x3_patches", *shape)
        else:
            kernel = ("MVE_DEPTHWISE", "depthwise3x3", stride, *shape, _heights(stride, count, most))
        name = self._define_shaped(*kernel, *requantized(layer.requantization))
        row = first * stride
        if index > 0:
            row = self._window_position(index, step, row - layer.padding[0])
        self._call(
            name,
            self._at("input0" if index == 0 else f"window{index}", row * planes.row_bytes),
            self._at("act", 0),
            self._at(f"weight{index}", 0),
            channels,
            count,
        )

    def _multiply(self, index: int, step: Index, first: Index, count: Index) -> None:
        """Emit pixels times weights into the next window, the sum's rows or the output."""
        layer = self.layers[index]
        assert isinstance(layer, Convolution)
        _, width, channels = layer.output_shape
        follower = self.layers[index + 1] if index + 1 < len(self.layers) else None
        planes: Layout | None = None
        if isinstance(follower, DepthwiseConvolution):
            buffer, planes = f"window{index + 1}", self.windows[index + 1]
            row = self._window_position(index + 1, step, first)
        elif isinstance(follower, Add):
            buffer, row = "sum", 0
        else:
            buffer, row = "output", first
            if self.target.planar:
                planes, row = self.target, first + self.target.border[0]
        if planes is not None:
            start, channel_bytes = row * planes.row_bytes + planes.border[1], planes.channel_bytes
            pixel_bytes, gap = 1, planes.row_bytes - width
        else:
            start, channel_bytes, pixel_bytes, gap = row * (width * channels), 1, channels, 0
        rows, pixels = count, width
        if planes is None and (width % 2 == 0 or isinstance(count, int)):
            # Without gaps all rows are one.
            rows, pixels = 1, width * count
        stride = layer.input_shape[2] if self._reads_source(index) else act_stride(layer)
        inputs = layer.weight[0].size
        odd = pixels % 2 if isinstance(pixels, int) else 0
        tail = channels % BLOCK if channels > BLOCK else 0
        name = self._define_shaped(
            "MVE_POINTWISE",
            "pointwise",
            *(inputs, stride, channel_bytes, pixel_bytes, min(channels, BLOCK) - 1, tail, odd),
            *requantized(layer.requantization),
        )
        self._call(
            name,
            self._at("input0", first * (width * stride)) if self._reads_source(index) else self._at("act", 0),
            self._at(buffer, start),
            self._at(f"weight{index}", 0),
            pixels // 2 if isinstance(pixels, int) else count * (width // 2),
            *(rows, gap, len(block_starts(channels))),
        )

    def _carry(self, window: str, *sizes: int) -> None:
        self._call(self._define("MVE_CARRY", "carry"), self._at(window, 0), *sizes)

    def _average(self, layer: AveragePool) -> None:
        height, width, channels = layer.input_shape
        # One scale in, one scale out: all channels have the same multiplier.
        multiplier, (shift, *rest) = int(layer.requantization.multiplier[0]), requantized(layer.requantization)
        name = self._define_shaped(
            "MVE_AVERAGE", "average", height * width, channels, layer.bias, multiplier, shift, *rest
        )
        self._call(name, self._at("input0", 0), self._at("output", 0), channels)

    # ---- the image -----------------------------------------------------------------------------------------------

    def _in_image(self, layer: Convolution, row: Index) -> None:
        """Emit im2col of an output row, with tests where its taps may lie above or below the image."""
        line = row * layer.stride[0] - layer.padding[0]
        inner = self._inner_pixels(layer)
        if not inner:
            self._gather_pixels(layer, row, range(layer.output_shape[1]))
        elif self._rows_inside(layer):
            self._im2col(layer, row, inner)
        else:
            with T.If(tirx.all(line >= 0, line + layer.kernel[0] <= layer.input_shape[0])):
                with T.Then():
                    self._im2col(layer, row, inner)
                with T.Else():
                    self._gather_pixels(layer, row, range(layer.output_shape[1]))

    def _inner_pixels(self, layer: Convolution) -> range:
        """Return the pixels of a row that the IM2COL kernel can gather; empty for shapes it is not made for."""
        kernel, step, left, width = layer.kernel, layer.stride[1], layer.padding[1], layer.input_shape[1]
        channels = layer.input_shape[2]
        if kernel[0] != 3 or kernel[1] * channels > _SLACK or step * channels > 127 or width * channels > 4095:
            return range(0)
        end = min((width + left - kernel[1]) // step + 1, layer.output_shape[1])
        return range(min(-(-left // step), max(end, 0)), max(end, 0))

    def _im2col(self, layer: Convolution, row: Index, inner: range) -> None:
        _, width, channels = layer.input_shape
        step, slots = layer.stride[1] * channels, act_stride(layer)
        name = self._define_shaped("MVE_IM2COL", "im2col", layer.kernel[1] * channels, width * channels, step, slots)
        buffer, begin = self._image_at(layer, row)
        column = inner.start * layer.stride[1] - layer.padding[1]
        self._call(name, self._at(buffer, begin + column * channels), self._at("act", inner.start * slots), len(inner))
        # After it: its last store passes the end of its last pixel.
        for edge in (range(inner.start), range(inner.stop, layer.output_shape[1])):
            if edge:
                self._gather_pixels(layer, row, edge)

    def _gather_pixels(self, layer: Convolution, row: Index, pixels: range) -> None:
        """Emit im2col of some pixels of a row, value by value."""
        height, width, channels = layer.input_shape
        top, left, _, _ = layer.padding
        kernel_h, kernel_w = layer.kernel
        with self._loops(pixel=len(pixels), tap_row=kernel_h, tap_column=kernel_w, channel=channels) as axes:
            pixel, tap, x, channel = axes
            # In the image, or in the rows of it that were read.
            line = tap if self.streamed else row * layer.stride[0] + tap - top
            lines = kernel_h if self.streamed else height
            column = (pixel + pixels.start) * layer.stride[1] + x - left
            inside = tirx.all(line >= 0, line < lines, column >= 0, column < width)
            # The address has to be one even where it isn't read.
            at = (T.max(T.min(line, lines - 1), 0) * width + T.max(T.min(column, width - 1), 0)) * channels + channel
            value = tirx.if_then_else(
                inside, self.buffers["image" if self.streamed else "input0"][at], T.int8(layer.input_zero_point)
            )
            slot = (pixel + pixels.start) * act_stride(layer) + (tap * kernel_w + x) * channels + channel
            T.buffer_store(self.buffers["act"], value, [slot])

    def _gather(self, layer: Gather, step: Index, first: Index, count: Index) -> None:
        """Emit the copy of rows of pixels into the planes of the first window."""
        window = self.windows[1]
        _, width, channels = layer.input_shape
        position = self._window_position(1, step, first)
        with self._loops(row=count, channel=channels, column=width) as (y, c, x):
            value = self.buffers["input0"][(first + y) * (width * channels) + x * channels + c]
            target = c * window.channel_bytes + (position + y) * window.row_bytes + window.border[1] + x
            T.buffer_store(self.buffers["window1"], value, [target])

    # ---- residual add ------------------------------------------------------------------------------------------

    def _add(self, index: int, first: Index, count: Index) -> None:
        layer = self.layers[index]
        assert isinstance(layer, Add)
        _, width, channels = layer.output_shape
        p = layer.parameters
        shortcut, chain = self._add_multipliers(index)
        row = width * channels
        name = self._define_shaped("MVE_ADD", "add", shortcut, chain, p.constant, p.shift, p.minimum, p.maximum)
        at = first * row
        self._call(name, self._at("output", at), self._at("input0", at), self._at("sum", 0), count * row)


def _reachable(layout: Layout) -> bool:
    """Tell whether four channels are in the reach of a scatter's 16-bit offsets, and the next row of a MOVW."""
    return 3 * layout.channel_bytes + 1 < 1 << 16 and layout.row_bytes < 1 << 16


def _heights(stride: int, count: Index, most: int) -> int:
    """Return the heights of blocks that `count` rows need, as a sum: of a known number just its parts."""
    largest = 4 if stride == 1 else 2
    heights = [height for height in (4, 2, 1) if height <= min(largest, most)]
    if isinstance(count, int):
        rest = count % largest
        heights = [height for height in heights if (count >= height if height == largest else rest & height)]
    return sum(heights)


def act_stride(layer: Convolution | DepthwiseConvolution) -> int:
    """Return the bytes of a pixel of act that a convolution reads, or a depthwise layer writes: words."""
    values = layer.weight[0].size if isinstance(layer, Convolution) else layer.output_shape[2]
    return -(-values // 4) * 4


def requantized(requantization: Requantization) -> tuple[int, int, int, int]:
    """Return the constants of a kernel: shift, zero point, clamp."""
    r = requantization
    return int(r.left_shift[0]), r.zero_point, r.minimum, r.maximum
