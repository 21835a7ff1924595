"""A chain of layers on the micro-kernels of `include/thumbnet_dsp.h`, as one TIR function.

The chain is computed in steps of rows (`rolling`); between its layers there are only windows of rows. Activations are
int16 (or int8) planes before a depthwise layer and pixel pairs (pair16) before a pointwise one; weights of a channel
pair are widened into a stream once a step. Where the layouts come from stands in the header.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from thumbnet.compile.fixed_point import Requantization
from thumbnet.compile.integer_network import Add, Convolution, DepthwiseConvolution
from thumbnet.compile.kernels.dsp_chain import STATIONARY_CHANNELS, fits_int16, left_shift, pixel_pairs
from thumbnet.compile.kernels.dsp_input import DspInput
from thumbnet.compile.kernels.dsp_packing import DEPTHWISE_BYTES
from thumbnet.compile.kernels.kernel import Kernel
from thumbnet.compile.kernels.layouts import Layout
from thumbnet.compile.kernels.stage_code import Index


class DspStage(DspInput):
    """Emits the kernel of one chain; parameters as in `DspChain`."""

    def build(self) -> Kernel:
        """Return the kernel."""
        with IRBuilder() as builder:
            with T.prim_func(s_tir=True):
                T.func_name("stage")
                self._declare()
                self._before()
                if self.steps == 1:
                    self._step(0)
                else:
                    with T.serial(0, self.steps) as step:
                        IRBuilder.name("step", step)
                        self._step(step)
        rows = "whole" if self.steps == 1 else f"{self.plan[-1].rows} rows a step"
        kinds = "+".join(_SHORT[layer.kind] for layer in self.layers)
        return Kernel(
            f"dsp {kinds}, {rows}", builder.get(), self.constants, self.scratch, tuple(dict.fromkeys(self.definitions))
        )

    # ---- the code ----------------------------------------------------------------------------------------------

    def _before(self) -> None:
        """Emit what is done once: borders of windows and output, widened weights and borders of the convolution."""
        for index, window in self.windows.items():
            layer = self.layers[index]
            assert isinstance(layer, DepthwiseConvolution)
            self._fill_columns(f"window{index}", window, layer.input_zero_point, 0, window.shape[0])
            self._fill_rows(f"window{index}", window, layer.input_zero_point, 0, -self.plan[index].first_row)
        if self.target.planar:
            height, top, bottom = self.target.shape[0], self.target.border[0], self.target.border[2]
            value = self.border
            self._fill_columns("output", self.target, value, top, height)
            self._fill_rows("output", self.target, value, 0, top)
            self._fill_rows("output", self.target, value, top + height, bottom)
        if self.im2col is not None:
            self._prepare_convolution(self.im2col)

    def _step(self, step: Index) -> None:
        for index, layer in enumerate(self.layers):
            first, count = self._rows_of(index, step)
            follower = index + 1
            emit: Callable[[], None]
            match layer:
                case DepthwiseConvolution():
                    emit = partial(self._depthwise, index, step, first, count)
                case Add():
                    emit = partial(self._add, index, first, count)
                case _:
                    emit = partial(self._convolve, index, step, first, count)
            self._when(count, emit)
            if follower in self.windows:
                self._fill_below(follower, step)
        if self.steps > 1:
            for index, window in self.windows.items():
                self._carry(index, window)

    def _when(self, count: Index, emit: Callable[[], None]) -> None:
        """Emit under the condition that there are rows: the kernels' loops run at least once."""
        if isinstance(count, int):
            emit()
            return
        with T.If(count > 0), T.Then():
            emit()

    # ---- depthwise ---------------------------------------------------------------------------------------------

    def _depthwise(self, index: int, step: Index, first: Index, count: Index) -> None:
        layer, layout = self.layers[index], self._planes(index)
        assert isinstance(layer, DepthwiseConvolution)
        stride, (_, width, channels) = layer.stride[0], layer.output_shape
        groups = -(-channels // 4)
        shift = left_shift(layer.requantization)
        size = "" if layout.element_bytes == 2 else "_P8"
        # Between pixel pairs, the pixels of a pair, and the groups of four slots: pair16, or wide(8).
        steps = (32, 16, 8) if self._stationary(index + 1) else (16 * groups, 8, 16)
        shape = (width, 1, layout.row_bytes, layout.channel_bytes, *steps)
        name = f"depthwise3x3s{stride}{size.lower()}_" + "_".join(map(str, shape)) + f"_{_word(layer)}"
        self._define(f"DW3X3S{stride}{size}", name, *shape, layer.requantization.zero_point, shift)
        # The first row read, in rows of the planes.
        row = first * stride
        if index > 0:
            base = 0 if self.steps == 1 else step * self.plan[index].step_rows + self.plan[index].first_row
            row = row - layer.padding[0] - base if self.steps > 1 else row
        start = row * layout.row_bytes // layout.element_bytes
        if self.steps > 1:
            start = row * (layout.row_bytes // layout.element_bytes)
        planes = "input0" if index == 0 else f"window{index}"
        plane = layout.channel_bytes // layout.element_bytes
        weight = f"weight{index}"

        def quarter(slot: Index, begin: Index, end: Index) -> None:
            self._call(
                name,
                self._at(weight, begin * DEPTHWISE_BYTES),
                self._at(planes, start + begin * plane),
                self._at("act", slot),
                self._at(weight, end * DEPTHWISE_BYTES),
                count * stride * layout.row_bytes,
            )

        if channels % 4 == 0:
            with T.serial(0, 4) as slot:
                IRBuilder.name("slot", slot)
                quarter(slot, slot * groups, (slot + 1) * groups)
        else:
            for begin in range(0, channels, groups):
                quarter(begin // groups, begin, min(begin + groups, channels))
        self._clamp_act(layer.requantization, count * (-(-width // 2)) * 8 * groups)

    # ---- convolution and pointwise -----------------------------------------------------------------------------

    def _convolve(self, index: int, step: Index, first: Index, count: Index) -> None:
        layer = self.layers[index]
        assert isinstance(layer, Convolution)
        if layer.kernel != (1, 1):
            with T.serial(0, count) as row:
                IRBuilder.name("row", row)
                self._gather_image_rows(layer, first + row)
                self._multiply(index, step, first + row, 1, row)
            return
        if index == 0:
            self._widen_pixels(layer, first, count)
        self._multiply(index, step, first, count)

    def _multiply(self, index: int, step: Index, first: Index, count: Index, sum_row: Index = 0) -> None:
        """Emit act times weights into the next window, the sum's rows from one on, or the output."""
        layer = self.layers[index]
        assert isinstance(layer, Convolution)
        follower = self.layers[index + 1] if index + 1 < len(self.layers) else None
        if isinstance(follower, DepthwiseConvolution):
            layout = self.windows[index + 1]
            rows = self.plan[index + 1]
            position = first + rows.new_row if self.steps == 1 else first - step * rows.step_rows - rows.first_row
            self._to_planes(index, f"window{index + 1}", layout, position, count)
        elif isinstance(follower, Add):
            self._to_pixels(index, "sum", sum_row * layer.output_shape[1] * layer.output_shape[2], count)
        elif self.target.planar:
            self._to_planes(index, "output", self.target, first + self.target.border[0], count)
        else:
            self._to_pixels(index, "output", first * layer.output_shape[1] * layer.output_shape[2], count)

    def _to_planes(self, index: int, buffer: str, layout: Layout, position: Index, count: Index) -> None:
        layer = self.layers[index]
        assert isinstance(layer, Convolution)
        if self._stationary(index):
            self._multiply_stationary(index, buffer, layout, position, count)
            self._clamp_planes(layer, buffer, layout, position, count)
            return
        element = layout.element_bytes
        slots = self._slots_of(layer)
        shift = left_shift(layer.requantization)
        suffix = f"{slots}_{shift}"
        if element == 2:
            fits = fits_int16(layer)
            saturation = "FITS" if fits else "ANY"
            name = self._define(
                "PW2X2_PLANAR",
                f"pointwise_planar16_{saturation.lower()}_{suffix}",
                slots,
                shift,
                f"TN_SAT_PIX_{saturation}",
            )
        else:
            name = self._define("PW2X2_PLANAR8", f"pointwise_planar8_{suffix}", slots, shift)
        first = position * (layout.row_bytes // element) + layout.border[1]
        plane = layout.channel_bytes // element
        gap = layout.row_bytes - 2 * pixel_pairs(layer) * element

        def store(pair: Index, stream: tirx.Expr) -> None:
            self._call(
                name,
                self._at("act", 0),
                self._at(buffer, first + pair * (2 * plane)),
                self._at("act", pixel_pairs(layer) * 2 * slots),
                stream,
                count,
                gap,
            )

        self._for_channel_pairs(index, layout.channel_bytes, store)
        width = layer.output_shape[1]
        if width % 2:
            # The second pixel of the last pair fell on the border.
            value = self._border_value(index + 1)
            self._fill_columns(buffer, layout, value, position, count, right_only=True)
        self._clamp_planes(layer, buffer, layout, position, count)

    def _multiply_stationary(self, index: int, buffer: str, layout: Layout, position: Index, count: Index) -> None:
        layer, element = self.layers[index], layout.element_bytes
        assert isinstance(layer, Convolution)
        _, width, channels = layer.output_shape
        row = width * STATIONARY_CHANNELS
        unrolled = next(pixels for pixels in (8, 6, 4, 2) if width % pixels == 0)
        gap = layout.row_bytes - width * element
        kind = "PLANAR8" if element == 1 else "PLANAR_FITS" if fits_int16(layer) else "PLANAR_ANY"
        name = f"pointwise8_{kind.lower()}_{unrolled}_{2 * row}_{gap}"
        self._define("PW_K8", name, unrolled, 2 * row, gap, f"TN_K8_{kind}")
        first = position * (layout.row_bytes // element) + layout.border[1]
        with T.serial(0, channels) as channel:
            IRBuilder.name("channel", channel)
            self._call(
                name,
                self._at("act", 0),
                self._at(buffer, first + channel * (layout.channel_bytes // element)),
                self._at("act", row),
                self._at(f"weight{index}", channel * 7),
                count,
            )

    def _to_pixels(self, index: int, buffer: str, first: Index, count: Index) -> None:
        layer = self.layers[index]
        assert isinstance(layer, Convolution)
        _, width, channels = layer.output_shape
        slots = self._slots_of(layer)
        shift = left_shift(layer.requantization)
        name = self._define("PW2X2_NHWC", f"pointwise_nhwc_{slots}_{channels}_{shift}", slots, shift, channels)
        act_row = pixel_pairs(layer) * 2 * slots

        def store(pair: Index, stream: tirx.Expr) -> None:
            if width % 2 == 0:
                self._call(
                    name,
                    self._at("act", 0),
                    self._at(buffer, first + 2 * pair),
                    self._at("act", count * act_row),
                    stream,
                )
                return
            # Rows of an odd width are pairs of their own: the pixel too many is the next row's first, written after it.
            with T.serial(0, count) as row:
                IRBuilder.name("row", row)
                self._call(
                    name,
                    self._at("act", row * act_row),
                    self._at(buffer, first + row * (width * channels) + 2 * pair),
                    self._at("act", (row + 1) * act_row),
                    stream,
                )

        self._for_channel_pairs(index, channels, store)
        lowest, highest = layer.requantization.minimum, layer.requantization.maximum
        if (lowest, highest) != (-128, 127):
            with T.serial(0, count * width * channels) as i:
                self._clamp(buffer, first + i, lowest, highest)

    def _for_channel_pairs(self, index: int, plane_bytes: int, store: Callable[[Index, tirx.Expr], None]) -> None:
        """Emit the loop over pairs of output channels, each with its weights widened."""
        layer = self.layers[index]
        assert isinstance(layer, Convolution)
        slots = self._slots_of(layer)
        pairs = -(-layer.output_shape[2] // 2)
        words = slots + 8
        odd = layer.output_shape[2] % 2
        with T.serial(0, pairs) as turn:
            IRBuilder.name("pair", turn)
            # With an odd number of channels the last pair's second one falls on a neighbour, which is written later.
            pair = pairs - 1 - turn if odd else turn
            if layer.kernel != (1, 1):
                store(pair, self._at("conv_stream", pair * words))
                return
            self._widen(index, pair, self._at("stream", 0), plane_bytes)
            store(pair, self._at("stream", 0))

    # ---- residual add ------------------------------------------------------------------------------------------

    def _add(self, index: int, first: Index, count: Index) -> None:
        layer = self.layers[index]
        assert isinstance(layer, Add)
        _, width, channels = layer.output_shape
        p = layer.parameters
        through = self.layers[index - 1].name
        shortcut, chain = (
            (p.multiplier_b, p.multiplier_a) if layer.source_a == through else (p.multiplier_a, p.multiplier_b)
        )
        row = width * channels
        whole_range = (p.minimum, p.maximum) == (-128, 127)
        if row % 4 == 0 and whole_range:
            with T.serial(0, count * (row // 4)) as word:
                IRBuilder.name("word", word)
                at = first * row + word * 4
                self._call(
                    "tn_add4",
                    *(self._at("output", at), self._at("input0", at), self._at("sum", word * 4)),
                    *(shortcut | chain << 16, p.constant, p.shift),
                )
            return
        with T.serial(0, count * row) as i:
            a = self.buffers["input0"][first * row + i].astype("int32") * shortcut
            b = self.buffers["sum"][i].astype("int32") * chain
            value = (a + b + p.constant) >> p.shift
            T.buffer_store(
                self.buffers["output"], T.max(T.min(value, p.maximum), p.minimum).astype("int8"), [first * row + i]
            )

    # ---- borders, carrying, clamps -----------------------------------------------------------------------------

    def _border_value(self, index: int) -> int:
        """Return what the border of a depthwise layer's input is made of; behind the last layer, of the output."""
        if index == len(self.layers):
            return self.border
        layer = self.layers[index]
        assert isinstance(layer, DepthwiseConvolution)
        return layer.input_zero_point

    def _fill_below(self, index: int, step: Index) -> None:
        """Emit the border below the image, in the steps whose new rows pass its end."""
        layer, rows, window = self.layers[index], self.plan[index], self.windows[index]
        assert isinstance(layer, DepthwiseConvolution)
        height = layer.input_shape[0]
        if self.steps == 1:
            below = rows.window_rows - rows.new_row - height
            self._fill_rows(f"window{index}", window, layer.input_zero_point, rows.new_row + height, below)
            return
        new = step * rows.step_rows + rows.first_row + rows.new_row
        with T.If(new + rows.step_rows > height), T.Then():
            missing = T.max(height - new, 0)
            position = rows.new_row + missing
            self._fill_rows(f"window{index}", window, layer.input_zero_point, position, rows.step_rows - missing)

    def _carry(self, index: int, window: Layout) -> None:
        rows = self.plan[index]
        if rows.new_row == 0:
            return
        row, plane = window.row_bytes // window.element_bytes, window.channel_bytes // window.element_bytes
        with T.serial(0, window.shape[2]) as channel:
            IRBuilder.name("channel", channel)
            self._call(
                "memmove",
                self._at(f"window{index}", channel * plane),
                self._at(f"window{index}", channel * plane + rows.step_rows * row),
                rows.new_row * window.row_bytes,
            )

    def _clamp_act(self, requantization: Requantization, elements: Index) -> None:
        if (requantization.minimum, requantization.maximum) != (-128, 127):
            with T.serial(0, elements) as i:
                self._clamp("act", i, requantization.minimum, requantization.maximum)

    def _clamp_planes(self, layer: Convolution, buffer: str, layout: Layout, position: Index, count: Index) -> None:
        lowest, highest = layer.requantization.minimum, layer.requantization.maximum
        if (lowest, highest) == (-128, 127):
            return
        row, plane = layout.row_bytes // layout.element_bytes, layout.channel_bytes // layout.element_bytes
        with T.grid(layer.output_shape[2], count, layer.output_shape[1]) as (channel, y, x):
            at = channel * plane + (position + y) * row + layout.border[1] + x
            self._clamp(buffer, at, lowest, highest)


_SHORT = {"conv2d": "conv", "depthwise_conv2d": "dw", "pointwise_conv2d": "pw", "fully_connected": "pw", "add": "add"}


def _word(layer: DepthwiseConvolution) -> str:
    zero_point = layer.requantization.zero_point
    return f"z{'m' if zero_point < 0 else ''}{abs(zero_point)}_{left_shift(layer.requantization)}"
