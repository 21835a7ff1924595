"""A chain of layers on the micro-kernels of `include/thumbnet_dsp.h`, as one TIR function.

The chain is computed in steps of rows (`rolling`); between its layers there are only windows of rows. Activations are
int16 (or int8) planes before a depthwise layer and pixel pairs (pair16) before a pointwise one; weights of a channel
pair are widened into a stream once a step. Where the layouts come from stands in the header.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from thumbnet.compile.fixed_point import Requantization
from thumbnet.compile.integer_network import Add, Convolution, DepthwiseConvolution, Layer, accumulator_bound
from thumbnet.compile.kernels.dsp_packing import (
    depthwise_slots,
    pack_depthwise,
    pack_pointwise,
    plain_slots,
    widened_slots,
)
from thumbnet.compile.kernels.im2col import IM2COL3_SLOTS, Im2col, plan_im2col
from thumbnet.compile.kernels.kernel import Kernel, Scratch
from thumbnet.compile.kernels.layouts import Layout, planar_layout
from thumbnet.compile.kernels.rolling import RollingRows, plan_rows

Index = tirx.Expr | int


class DspStage:
    """Builds the kernel of one chain.

    Parameters
    ----------
    layers : sequence of Layer
        A chain that `supports` accepts.
    source, target : Layout
        Of the chain's input and output.
    rows : int
        Rows of the output a step.
    window_bytes : int
        Size of an element of the windows before depthwise layers: 1 or 2.
    """

    def __init__(
        self, layers: Sequence[Layer], source: Layout, target: Layout, *, rows: int, window_bytes: int = 2
    ) -> None:
        self.layers = list(layers)
        self.source, self.target = source, target
        self.plan, self.steps = plan_rows(self.layers, rows)
        self.window_bytes = window_bytes
        self.constants: dict[str, np.ndarray] = {}
        self.scratch: dict[str, Scratch] = {}
        self.definitions: list[str] = []
        self.buffers: dict[str, tirx.Buffer] = {}
        self.windows = {
            index: self._window(index)
            for index, layer in enumerate(self.layers)
            if index > 0 and isinstance(layer, DepthwiseConvolution)
        }
        self.im2col: Im2col | None = None
        self._collect()

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

    # ---- what is needed ----------------------------------------------------------------------------------------

    def _window(self, index: int) -> Layout:
        layer, rows = self.layers[index], self.plan[index]
        assert isinstance(layer, DepthwiseConvolution)
        _, left, _, right = layer.padding
        _, width, channels = layer.input_shape
        return planar_layout((rows.window_rows, width, channels), self.window_bytes, (0, left, 0, right))

    def _collect(self) -> None:
        act, stream = 0, 0
        for index, layer in enumerate(self.layers):
            if index in self.windows:
                window = self.windows[index]
                self.scratch[f"window{index}"] = Scratch(window.dtype, window.size // window.element_bytes)
            match layer:
                case Convolution() if layer.kernel == (1, 1):
                    packed_channels = -(-layer.input_shape[2] // 4) * 4
                    act = max(act, self.plan[index].rows * _pairs(layer) * 2 * packed_channels)
                    stream = max(stream, packed_channels + 8)
                    self.constants[f"weight{index}"] = pack_pointwise(
                        layer.weight[:, 0, 0], layer.bias, layer.requantization, self._slots(index)
                    )
                case Convolution():
                    self.im2col = plan_im2col(layer)
                    act = max(act, _pairs(layer) * 2 * self.im2col.slots)
                    channel_pairs = -(-layer.output_shape[2] // 2)
                    self.scratch["conv_stream"] = Scratch("int32", channel_pairs * (self.im2col.slots + 8))
                    self.scratch["image_rows"] = Scratch("int8", layer.kernel[0] * self.im2col.row_bytes + 8)
                    slots = IM2COL3_SLOTS if self.im2col.fast else plain_slots(layer.weight[0].size)
                    self.constants[f"weight{index}"] = pack_pointwise(
                        layer.weight.reshape(layer.weight.shape[0], -1), layer.bias, layer.requantization, slots
                    )
                case DepthwiseConvolution():
                    dtype = self._planes(index).dtype
                    self.constants[f"weight{index}"] = pack_depthwise(
                        layer.weight, layer.bias, layer.requantization, dtype, layer.stride[0]
                    )
                case Add():
                    height, width, channels = layer.output_shape
                    rows = min(self.plan[index].rows, height)
                    self.scratch["sum"] = Scratch("int8", rows * width * channels + channels + 1)
        if act:
            self.scratch["act"] = Scratch("int16", act)
        if stream:
            self.scratch["stream"] = Scratch("int32", stream)

    def _slots(self, index: int) -> list[int]:
        channels = self.layers[index].input_shape[2]
        if index > 0 and isinstance(self.layers[index - 1], DepthwiseConvolution):
            return depthwise_slots(channels)
        return widened_slots(channels) if channels % 8 == 0 else plain_slots(channels)

    def _planes(self, index: int) -> Layout:
        """Return the layout a depthwise layer reads."""
        return self.source if index == 0 else self.windows[index]

    def _declare(self) -> None:
        def declare(name: str, dtype: str, elements: int) -> None:
            self.buffers[name] = T.arg(name, T.Buffer((elements,), dtype))

        declare("input0", self.source.dtype, self.source.size // self.source.element_bytes)
        declare("output", self.target.dtype, self.target.size // self.target.element_bytes)
        for name, array in self.constants.items():
            declare(name, str(array.dtype), array.size)
        for name, scratch in self.scratch.items():
            declare(name, scratch.dtype, scratch.elements)

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
            value = self._output_zero_point()
            self._fill_columns("output", self.target, value, top, height)
            self._fill_rows("output", self.target, value, 0, top)
            self._fill_rows("output", self.target, value, top + height, bottom)
        if self.im2col is not None:
            self._prepare_convolution(self.im2col)

    def _step(self, step: Index) -> None:
        for index, layer in enumerate(self.layers):
            first, count = self._rows_of(index, step)
            follower = index + 1
            match layer:
                case DepthwiseConvolution():
                    self._when(count, lambda index=index, first=first, count=count: self._depthwise(index, step, first, count))
                case Add():
                    self._when(count, lambda index=index, first=first, count=count: self._add(index, first, count))
                case _:
                    self._when(count, lambda index=index, first=first, count=count: self._convolve(index, step, first, count))
            if follower in self.windows:
                self._fill_below(follower, step)
        if self.steps > 1:
            for index, window in self.windows.items():
                self._carry(index, window)

    def _rows_of(self, index: int, step: Index) -> tuple[Index, Index]:
        """Return the first row a layer computes in a step, and how many."""
        rows = self.plan[index]
        if self.steps == 1:
            return 0, rows.height

        def bound(at: Index) -> Index:
            return T.min(T.max(at * rows.rows - rows.lag, 0), rows.height)

        first = bound(step)
        return first, bound(step + 1) - first

    def _when(self, count: Index, emit: Callable[[], None]) -> None:
        """Emit under the condition that there are rows: the kernels' loops run at least once."""
        if isinstance(count, int):
            emit()
            return
        with T.If(count > 0), T.Then():
            emit()

    def _at(self, buffer: str, element: Index) -> tirx.Expr:
        return T.address_of(self.buffers[buffer][element])

    def _call(self, name: str, *arguments: Index) -> None:
        T.evaluate(T.call_extern("void", name, *arguments))

    def _define(self, macro: str, name: str, *arguments: object) -> str:
        self.definitions.append(f"TN_DEF_{macro}({', '.join([name, *map(str, arguments)])})")
        return name

    # ---- depthwise ---------------------------------------------------------------------------------------------

    def _depthwise(self, index: int, step: Index, first: Index, count: Index) -> None:
        layer, layout = self.layers[index], self._planes(index)
        assert isinstance(layer, DepthwiseConvolution)
        stride, (_, width, channels) = layer.stride[0], layer.output_shape
        groups = -(-channels // 4)
        shift = _shift(layer.requantization)
        size = "" if layout.element_bytes == 2 else "_P8"
        shape = (width, 1, layout.row_bytes, layout.channel_bytes, 16 * groups, 8, 16)
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
        for quarter in range(4):
            begin, end = quarter * groups, min((quarter + 1) * groups, channels)
            if begin < end:
                self._call(
                    name,
                    self._at(weight, 5 * begin),
                    self._at(planes, start + begin * plane),
                    self._at("act", quarter),
                    self._end(weight, 5 * end),
                    count * stride * layout.row_bytes,
                )
        self._clamp_act(layer.requantization, count * (-(-width // 2)) * 8 * groups)

    def _end(self, buffer: str, element: int) -> tirx.Expr:
        """Return the address behind an element, which may be the end of the buffer."""
        return self._at(buffer, element)

    # ---- convolution and pointwise -----------------------------------------------------------------------------

    def _convolve(self, index: int, step: Index, first: Index, count: Index) -> None:
        layer = self.layers[index]
        assert isinstance(layer, Convolution)
        if layer.kernel != (1, 1):
            with T.serial(0, count) as row:
                IRBuilder.name("row", row)
                self._gather_image_rows(layer, first + row)
                self._multiply(index, step, first + row, 1)
            return
        if index == 0:
            self._widen_pixels(layer, first, count)
        self._multiply(index, step, first, count)

    def _multiply(self, index: int, step: Index, first: Index, count: Index) -> None:
        """Emit act times weights into the next window, the sum's rows or the output."""
        layer = self.layers[index]
        assert isinstance(layer, Convolution)
        follower = self.layers[index + 1] if index + 1 < len(self.layers) else None
        if isinstance(follower, DepthwiseConvolution):
            layout = self.windows[index + 1]
            rows = self.plan[index + 1]
            position = first + rows.new_row if self.steps == 1 else first - step * rows.step_rows - rows.first_row
            self._to_planes(index, f"window{index + 1}", layout, position, count)
        elif isinstance(follower, Add):
            self._to_pixels(index, "sum", 0, count)
        elif self.target.planar:
            self._to_planes(index, "output", self.target, first + self.target.border[0], count)
        else:
            self._to_pixels(index, "output", first * layer.output_shape[1] * layer.output_shape[2], count)

    def _to_planes(self, index: int, buffer: str, layout: Layout, position: Index, count: Index) -> None:
        layer = self.layers[index]
        assert isinstance(layer, Convolution)
        element = layout.element_bytes
        slots = self._slots_of(layer)
        shift = _shift(layer.requantization)
        suffix = f"{slots}_{shift}"
        if element == 2:
            fits = _fits_int16(layer)
            saturation = "FITS" if fits else "ANY"
            name = self._define(
                "PW2X2_PLANAR", f"pointwise_planar16_{saturation.lower()}_{suffix}", slots, shift, f"TN_SAT_PIX_{saturation}"
            )
        else:
            name = self._define("PW2X2_PLANAR8", f"pointwise_planar8_{suffix}", slots, shift)
        first = position * (layout.row_bytes // element) + layout.border[1]
        plane = layout.channel_bytes // element
        gap = layout.row_bytes - 2 * _pairs(layer) * element

        def store(pair: Index, stream: tirx.Expr) -> None:
            self._call(
                name,
                self._at("act", 0),
                self._at(buffer, first + pair * (2 * plane)),
                self._at("act", _pairs(layer) * 2 * slots),
                stream,
                count,
                gap,
            )

        self._for_channel_pairs(index, layout.channel_bytes, store)
        width = layer.output_shape[1]
        if width % 2:
            # The second pixel of the last pair fell on the border.
            self._fill_columns(buffer, layout, layer.requantization.zero_point, position, count, right_only=True)
        self._clamp_planes(layer, buffer, layout, position, count)

    def _to_pixels(self, index: int, buffer: str, first: Index, count: Index) -> None:
        layer = self.layers[index]
        assert isinstance(layer, Convolution)
        _, width, channels = layer.output_shape
        slots = self._slots_of(layer)
        shift = _shift(layer.requantization)
        name = self._define("PW2X2_NHWC", f"pointwise_nhwc_{slots}_{channels}_{shift}", slots, shift, channels)
        act_row = _pairs(layer) * 2 * slots

        def store(pair: Index, stream: tirx.Expr) -> None:
            if width % 2 == 0:
                self._call(name, self._at("act", 0), self._at(buffer, first + 2 * pair), self._at("act", count * act_row), stream)
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

    def _widen(self, index: int, pair: Index, stream: tirx.Expr, plane_bytes: int) -> None:
        layer = self.layers[index]
        assert isinstance(layer, Convolution)
        slots = self._slots_of(layer)
        widen = self._define("WIDEN", f"widen_{slots}", slots)
        flash = self._at(f"weight{index}", pair * (4 + slots // 2))
        self._call(widen, stream, flash, layer.requantization.zero_point, plane_bytes)

    def _slots_of(self, layer: Convolution) -> int:
        if layer.kernel != (1, 1):
            assert self.im2col is not None
            return self.im2col.slots
        return -(-layer.input_shape[2] // 4) * 4

    # ---- the input of a first convolution ----------------------------------------------------------------------

    def _prepare_convolution(self, im2col: Im2col) -> None:
        layer = self.layers[0]
        assert isinstance(layer, Convolution)
        pairs = -(-layer.output_shape[2] // 2)
        planes = self.windows[1] if 1 in self.windows else self.target
        plane_bytes = planes.channel_bytes if planes.planar or 1 in self.windows else layer.output_shape[2]
        with T.serial(0, pairs) as pair:
            self._widen(0, pair, self._at("conv_stream", pair * (im2col.slots + 8)), plane_bytes)
        with T.serial(0, layer.kernel[0] * im2col.row_bytes + 8) as i:
            T.buffer_store(self.buffers["image_rows"], T.int8(layer.input_zero_point), [i])

    def _gather_image_rows(self, layer: Convolution, row: Index) -> None:
        """Emit the copy of the image's rows under the kernel, with border, and im2col of them."""
        assert self.im2col is not None
        im2col = self.im2col
        height, width, channels = layer.input_shape
        top, left, _, _ = layer.padding
        for tap in range(layer.kernel[0]):
            line = row * layer.stride[0] + (tap - top)
            begin = tap * im2col.row_bytes + left * channels
            inside = tirx.all(line >= 0, line < height)
            with T.If(inside):
                with T.Then():
                    self._call("memcpy", self._at("image_rows", begin), self._at("input0", line * (width * channels)), width * channels)
                with T.Else():
                    self._call("memset", self._at("image_rows", begin), layer.input_zero_point, width * channels)
        if im2col.fast:
            name = self._define("IM2COL3", f"im2col3_{im2col.row_bytes}", im2col.row_bytes)
            self._call(name, self._at("image_rows", 0), self._at("act", 0), _pairs(layer))
            return
        taps = layer.kernel[1] * channels
        with T.grid(_pairs(layer), 2, layer.kernel[0], taps) as (pair, pixel, tap, k):
            slot = tap * taps + k
            target = (pair * (im2col.slots // 4) + slot // 4) * 8 + pixel * 4 + slot % 4
            source = tap * im2col.row_bytes + (pair * 2 + pixel) * (layer.stride[1] * channels) + k
            T.buffer_store(self.buffers["act"], self.buffers["image_rows"][source].astype("int16"), [target])

    def _widen_pixels(self, layer: Convolution, first: Index, count: Index) -> None:
        """Emit the conversion of int8 rows, pixels, channels into pair16."""
        _, width, channels = layer.input_shape
        slots = self._slots_of(layer)
        row_elements = width * channels
        if channels % 8 == 0:
            name = self._define("TO_PAIR16", f"to_pair16_{channels}", channels)
            if width % 2 == 0:
                self._call(name, self._at("input0", first * row_elements), self._at("act", 0), count * (width // 2))
                return
            with T.serial(0, count) as row:
                IRBuilder.name("row", row)
                act = self._at("act", row * (_pairs(layer) * 2 * slots))
                self._call(name, self._at("input0", (first + row) * row_elements), act, _pairs(layer))
            return
        with T.grid(count, _pairs(layer), 2, channels) as (row, pair, pixel, k):
            target = ((row * _pairs(layer) + pair) * (slots // 4) + k // 4) * 8 + pixel * 4 + k % 4
            source = (first + row) * row_elements + (pair * 2 + pixel) * channels + k
            T.buffer_store(self.buffers["act"], self.buffers["input0"][source].astype("int16"), [target])

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

    def _output_zero_point(self) -> int:
        return self.layers[-1].output_quant.zero_point

    def _fill_rows(self, buffer: str, layout: Layout, value: int, first: Index, count: Index) -> None:
        if isinstance(count, int) and count <= 0:
            return
        pitch = layout.border[1] + layout.shape[1] + layout.border[3]
        row, plane = layout.row_bytes // layout.element_bytes, layout.channel_bytes // layout.element_bytes
        with T.grid(layout.shape[2], count, pitch) as (channel, y, x):
            at = channel * plane + (first + y) * row + x
            T.buffer_store(self.buffers[buffer], tirx.const(value, layout.dtype), [at])

    def _fill_columns(
        self, buffer: str, layout: Layout, value: int, first: Index, count: Index, *, right_only: bool = False
    ) -> None:
        left, width, right = layout.border[1], layout.shape[1], layout.border[3]
        row, plane = layout.row_bytes // layout.element_bytes, layout.channel_bytes // layout.element_bytes
        columns = [left + width + x for x in range(right)]
        if not right_only:
            columns = [*range(left), *columns]
        if not columns:
            return
        with T.grid(layout.shape[2], count) as (channel, y):
            for column in columns:
                at = channel * plane + (first + y) * row + column
                T.buffer_store(self.buffers[buffer], tirx.const(value, layout.dtype), [at])

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

    def _clamp(self, buffer: str, element: Index, lowest: int, highest: int) -> None:
        value = T.max(T.min(self.buffers[buffer][element], highest), lowest)
        T.buffer_store(self.buffers[buffer], value, [element])

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


def _pairs(layer: Layer) -> int:
    """Return the pixel pairs of an output row."""
    return -(-layer.output_shape[1] // 2)


def _shift(requantization: Requantization) -> int:
    return int(requantization.left_shift[0])


def _word(layer: DepthwiseConvolution) -> str:
    zero_point = layer.requantization.zero_point
    return f"z{'m' if zero_point < 0 else ''}{abs(zero_point)}_{_shift(layer.requantization)}"


def _fits_int16(layer: Convolution) -> bool:
    """Tell whether every result lies in int16 before the clamp, for any input."""
    r = layer.requantization
    bound = (accumulator_bound(layer) << _shift(r)).astype(np.float64) * r.multiplier / 2.0**31 + abs(r.zero_point) + 1
    return bool(np.all(bound < 2**15))
