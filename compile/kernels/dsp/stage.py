"""A chain of layers on the micro-kernels of `thumbnet_dsp.h`, as one TIR function.

The chain is computed in steps of rows (`rolling_rows`); between its layers there are only windows of rows. Activations
are int16 (or int8) planes before a depthwise layer and pixel pairs (pair16) before a pointwise one; weights of four
output channels are widened into a stream once a block. Where the layouts come from stands in the header.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from thumbnet.compile.kernels.chains import Gather
from thumbnet.compile.kernels.cycle_prices import CyclePrices, Executed
from thumbnet.compile.kernels.dsp.cost import predict_executed
from thumbnet.compile.kernels.dsp.image_input import DspInput
from thumbnet.compile.kernels.dsp.packing import depthwise_bytes
from thumbnet.compile.kernels.dsp.storage import STATIONARY_CHANNELS, fits_int16, left_shift, pixel_pairs
from thumbnet.compile.kernels.layouts import Layout
from thumbnet.compile.kernels.stage_code import Index
from thumbnet.compile.network.fixed_point import Requantization
from thumbnet.compile.network.integer_network import Add, Convolution, DepthwiseConvolution


class DspStage(DspInput):
    """Emits the kernel of one chain; parameters as in `RollingStage`."""

    def _compute(self, group: Sequence[int], step: Index, first: Index, count: Index) -> None:
        for index in group:
            layer = self.layers[index]
            match layer:
                case Gather():
                    self._gather(layer, step, first, count)
                case DepthwiseConvolution():
                    self._depthwise(index, step, first, count)
                case Convolution() if layer.kernel == (1, 1):
                    if index == 0:
                        self._widen_pixels(layer, first, count)
                    self._multiply(index, step, first, count)
                case Convolution():
                    self._convolve(layer, step, first)
                case Add():
                    self._add(index, first, count)

    def _carry(self, window: str, *sizes: int) -> None:
        self._call("tn_carry", self._at(window, 0), *sizes)

    def predicted_instructions(self) -> float:
        """Return the estimate of `cost`."""
        return self._executed.instructions

    def predicted_cycles(self, prices: CyclePrices) -> float:
        """Return the estimate of `cost`, priced."""
        return self._executed.cycles(prices)

    @cached_property
    def _executed(self) -> Executed:
        return predict_executed(self)

    # ---- depthwise ---------------------------------------------------------------------------------------------

    def _depthwise(self, index: int, step: Index, first: Index, count: Index) -> None:
        layer, layout = self.layers[index], self._planes(index)
        assert isinstance(layer, DepthwiseConvolution)
        stride, channels = layer.stride[0], layer.output_shape[2]
        half = 2 * -(-channels // 4)
        large = layer.kernel != (3, 3)
        name = self._define_large_depthwise(index, half) if large else self._define_depthwise(index, half)
        bytes_ = depthwise_bytes(layer.kernel)
        rows = (count,) if large else (count * stride * layout.row_bytes,)
        plane_of_int16 = (self._at("plane", 0),) if self.widens_planes(index) else ()
        row = first * stride
        if index > 0:
            row = self._window_position(index, step, row - layer.padding[0])
        start = row * (layout.row_bytes // layout.element_bytes)
        planes = "input0" if index == 0 else f"window{index}"
        plane = layout.channel_bytes // layout.element_bytes
        weight = f"weight{index}"

        def every_second(slot: Index, begin: Index, end: Index) -> None:
            self._call(
                name,
                self._at(weight, begin * bytes_),
                self._at(planes, start + begin * plane),
                self._at("act", slot),
                self._at(weight, end * bytes_),
                *(*rows, *plane_of_int16),
            )

        for slot, begin in enumerate(range(0, channels, half)):
            every_second(slot, begin, min(begin + half, channels))
        self._clamp_act(layer.requantization, self.block_pairs(index + 1, count) * 4 * half)

    def _act_steps(self, index: int, half: int) -> tuple[int, int, int]:
        """Return the bytes between pixel pairs of act, the pixels of a pair, every second slot: wide(8), or pair16."""
        return (32, 16, 4) if self.stationary(index + 1) else (8 * half, 4, 8)

    def _define_depthwise(self, index: int, half: int) -> str:
        layer, layout = self.layers[index], self._planes(index)
        assert isinstance(layer, DepthwiseConvolution)
        stride, (height, width, _) = layer.stride[0], layer.output_shape
        size = "" if layout.element_bytes == 2 else "_P8"
        rows_unrolled = height if self.in_one_row(index + 1) else 1
        shape = (width, rows_unrolled, layout.row_bytes, layout.channel_bytes, *self._act_steps(index, half))
        name = f"depthwise3x3s{stride}{size.lower()}_" + "_".join(map(str, shape)) + f"_{_word(layer)}"
        return self._define(f"DW3X3S{stride}{size}", name, *shape, *_constants(layer))

    def _define_large_depthwise(self, index: int, half: int) -> str:
        layer, layout = self.layers[index], self._planes(index)
        assert isinstance(layer, DepthwiseConvolution)
        size, pitch = "", tuple[int, ...]()
        if self.widens_planes(index):
            size, pitch = "_P8", (layout.border[1] + layout.shape[1] + layout.border[3],)
        packed = int(self.in_one_row(index + 1))
        steps = self._act_steps(index, half)
        shape = (layer.output_shape[1], packed, *pitch, layout.row_bytes, layout.channel_bytes, *steps)
        (taps, _), stride = layer.kernel, layer.stride[0]
        stem = f"depthwise{taps}x{taps}s{stride}{size.lower()}_"
        name = stem + "_".join(map(str, shape)) + f"_{_word(layer)}"
        return self._define(f"DW_LARGE{size}", name, taps, stride, *shape, *_constants(layer))

    # ---- convolution and pointwise -----------------------------------------------------------------------------

    def _convolve(self, layer: Convolution, step: Index, row: Index) -> None:
        """Emit a row of the convolution over the image, chunk by chunk of its pixels."""
        assert self.im2col is not None
        im2col = self.im2col
        self._read_rows(layer, row)
        if not im2col.fast:
            self._gather_image_rows(layer, row)
            self._multiply(0, step, row, 1)
            return

        def emit(inside: bool) -> None:
            for pair in range(0, pixel_pairs(layer), im2col.chunk_pairs):
                self._gather_chunk(layer, row, pair, inside)
                self._multiply(0, step, row, 1, pair)

        self._in_image(layer, row, emit)

    def _multiply(self, index: int, step: Index, first: Index, count: Index, first_pair: int = 0) -> None:
        """Emit act times weights into the next window, the sum's rows or the output.

        For the image's convolution `first_pair` says where in the row the pixels of act stand.
        """
        layer = self.layers[index]
        assert isinstance(layer, Convolution)
        follower = self.layers[index + 1] if index + 1 < len(self.layers) else None
        if isinstance(follower, DepthwiseConvolution):
            position = self._window_position(index + 1, step, first)
            self._to_planes(
                index, f"window{index + 1}", self.windows[index + 1], position, count, first_pair=first_pair
            )
        elif isinstance(follower, Add):
            self._to_pixels(index, "sum", 0, count, first_pair=first_pair)
        elif self.target.planar:
            self._to_planes(index, "output", self.target, first + self.target.border[0], count, first_pair=first_pair)
        else:
            _, width, channels = layer.output_shape
            self._to_pixels(index, "output", first * (width * channels), count, first_pair=first_pair)

    def _pairs_of(self, layer: Convolution) -> int:
        """Return the pixel pairs of a row that lie in act at a time."""
        return pixel_pairs(layer) if layer.kernel == (1, 1) or self.im2col is None else self.im2col.chunk_pairs

    def _to_planes(
        self, index: int, buffer: str, layout: Layout, position: Index, count: Index, *, first_pair: int
    ) -> None:
        layer = self.layers[index]
        assert isinstance(layer, Convolution)
        if self.stationary(index):
            self._multiply_stationary(index, buffer, layout, position, count)
            self._clamp_planes(layer, buffer, layout, position, count)
            return
        element = layout.element_bytes
        kind, extra = "PLANAR8", tuple[str, ...]()
        pairs, width = self._pairs_of(layer), layer.output_shape[1]
        slots = self.slots_of(layer)
        if element == 2:
            kind, extra = "PLANAR", ("FITS" if fits_int16(layer) else "ANY",)
        first = position * (layout.row_bytes // element) + layout.border[1] + 2 * first_pair
        plane = layout.channel_bytes // element
        gap = layout.row_bytes - 2 * pairs * element

        def store(channel: Index, stream: tirx.Expr, size: str) -> None:
            self._call(
                self._pointwise(size, kind, layer, *extra),
                self._at("act", 0),
                self._at(buffer, first + channel * plane),
                self._at("act", pairs * 2 * slots),
                stream,
                count,
                gap,
            )

        self._for_channel_groups(index, layout.channel_bytes, store)
        if first_pair + pairs < pixel_pairs(layer):
            return
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
        unrolled = next(pixels for pixels in (16, 12, 8, 6, 4, 2) if width % pixels == 0)
        gap = layout.row_bytes - width * element
        kind = "PLANAR8" if element == 1 else "PLANAR_FITS" if fits_int16(layer) else "PLANAR_ANY"
        name = f"pointwise8_{kind.lower()}_{unrolled}_{2 * row}_{gap}"
        self._define("PW_K8", name, unrolled, 2 * row, gap, f"TN_K8_{kind}")
        first = position * (layout.row_bytes // element) + layout.border[1]
        with self._loop("channel", channels) as channel:
            self._call(
                name,
                self._at("act", 0),
                self._at(buffer, first + channel * (layout.channel_bytes // element)),
                self._at("act", row),
                self._at(f"weight{index}", channel * 7),
                count,
            )

    def _to_pixels(self, index: int, buffer: str, first: Index, count: Index, *, first_pair: int) -> None:
        layer = self.layers[index]
        assert isinstance(layer, Convolution)
        _, width, channels = layer.output_shape
        start = first + 2 * first_pair * channels
        pair_elements = 2 * self.slots_of(layer)
        act_row = self._pairs_of(layer) * pair_elements
        one = layer.output_shape[:2] == (1, 1)

        def store(channel: Index, stream: tirx.Expr, size: str) -> None:
            name = self._pointwise("1X2" if one else size, "NHWC", layer)
            if width % 2 == 0 or self.in_one_row(index):
                elements = count * act_row if width % 2 == 0 else self.block_pairs(index, count) * pair_elements
                self._call(
                    name,
                    self._at("act", 0),
                    self._at(buffer, start + channel),
                    self._at("act", elements),
                    stream,
                )
                return
            # Rows of an odd width are pairs of their own: the pixel too many is the next row's first, written after it.
            with self._loop("row", count) as row:
                self._call(
                    name,
                    self._at("act", row * act_row),
                    self._at(buffer, start + row * (width * channels) + channel),
                    self._at("act", (row + 1) * act_row),
                    stream,
                )

        self._for_channel_groups(index, channels, store)
        lowest, highest = layer.requantization.minimum, layer.requantization.maximum
        if (lowest, highest) != (-128, 127) and first_pair + self._pairs_of(layer) == pixel_pairs(layer):
            with self._loop("value", count * width * channels) as i:
                self._clamp(buffer, first + i, lowest, highest)

    def _pointwise(self, size: str, kind: str, layer: Convolution, *extra: str) -> str:
        """Define the kernel of so many pixels and channels for a layer, and return its name."""
        parameters = (self.slots_of(layer), left_shift(layer.requantization), *extra)
        name = "_".join(str(part).lower() for part in ("pointwise" + size, kind, *parameters))
        return self._define(f"PW{size}_{kind}", name, *parameters)

    def _for_channel_groups(
        self, index: int, channel_bytes: int, store: Callable[[Index, tirx.Expr, str], None]
    ) -> None:
        """Emit the loops over fours and pairs of output channels, each with its weights widened.

        `store` is given the first channel, the weights' stream and the size of the kernel.
        """
        layer = self.layers[index]
        assert isinstance(layer, Convolution)
        fours, pairs = self.channel_groups(layer)

        def emit(group: Index, *, is_four: bool) -> None:
            channel = 4 * group if is_four else 4 * fours + 2 * group
            size = "2X4" if is_four else "2X2"
            if layer.kernel != (1, 1):
                store(channel, self._conv_stream(group, fours=is_four), size)
                return
            self._widen(index, group, self._at("stream", 0), channel_bytes, fours=is_four)
            store(channel, self._at("stream", 0), size)

        # With an odd number of channels the last group's last one falls on a neighbour, which is written later.
        for count, is_four in ((pairs, False), (fours, True)):
            if count:
                with self._loop("group", count) as turn:
                    emit(count - 1 - turn if layer.output_shape[2] % 2 else turn, is_four=is_four)

    # ---- residual add ------------------------------------------------------------------------------------------

    def _add(self, index: int, first: Index, count: Index) -> None:
        layer = self.layers[index]
        assert isinstance(layer, Add)
        _, width, channels = layer.output_shape
        p = layer.parameters
        shortcut, chain = self._add_multipliers(index)
        row = width * channels
        whole_range = (p.minimum, p.maximum) == (-128, 127)
        if row % 4 == 0 and whole_range:
            with self._loop("word", count * (row // 4)) as word:
                at = first * row + word * 4
                self._call(
                    "tn_add4",
                    *(self._at("output", at), self._at("input0", at), self._at("sum", word * 4)),
                    *(shortcut | chain << 16, p.constant, p.shift),
                )
            return
        with self._loop("value", count * row) as i:
            a = self.buffers["input0"][first * row + i].astype("int32") * shortcut
            b = self.buffers["sum"][i].astype("int32") * chain
            value = (a + b + p.constant) >> p.shift
            T.buffer_store(
                self.buffers["output"], T.max(T.min(value, p.maximum), p.minimum).astype("int8"), [first * row + i]
            )

    # ---- clamps ----------------------------------------------------------------------------------------------------

    def _clamp_act(self, requantization: Requantization, elements: Index) -> None:
        if (requantization.minimum, requantization.maximum) != (-128, 127):
            with self._loop("value", elements) as i:
                self._clamp("act", i, requantization.minimum, requantization.maximum)

    def _clamp_planes(self, layer: Convolution, buffer: str, layout: Layout, position: Index, count: Index) -> None:
        lowest, highest = layer.requantization.minimum, layer.requantization.maximum
        if (lowest, highest) == (-128, 127):
            return
        row, plane = layout.row_bytes // layout.element_bytes, layout.channel_bytes // layout.element_bytes
        _, width, channels = layer.output_shape
        with self._loops(channel=channels, row=count, column=width) as (channel, y, x):
            at = channel * plane + (position + y) * row + layout.border[1] + x
            self._clamp(buffer, at, lowest, highest)


def _constants(layer: DepthwiseConvolution) -> tuple[int, int]:
    return layer.requantization.zero_point, left_shift(layer.requantization)


def _word(layer: DepthwiseConvolution) -> str:
    zero_point = layer.requantization.zero_point
    return f"z{'m' if zero_point < 0 else ''}{abs(zero_point)}_{left_shift(layer.requantization)}"
