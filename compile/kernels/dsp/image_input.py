"""How the input of a chain on the DSP kernels is brought into pixel pairs, and weights into streams."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from thumbnet.compile.kernels.chains import Gather
from thumbnet.compile.kernels.dsp.im2col import PATCH_BYTES, PATCH_PITCH
from thumbnet.compile.kernels.dsp.storage import DspChain, pixel_pairs
from thumbnet.compile.kernels.stage_code import Index
from thumbnet.compile.network.integer_network import Convolution


class DspInput(DspChain):
    """Emits what comes before the multiplications."""

    def _widen(self, index: int, group: Index, stream: tirx.Expr, channel_bytes: int, *, fours: bool) -> None:
        """Emit the widening of the weights of a group of four output channels, or of a pair behind all fours.

        `channel_bytes` is how far apart the outputs of two channels are.
        """
        layer = self.layers[index]
        assert isinstance(layer, Convolution)
        slots = self.slots_of(layer)
        first = 0 if fours else self.channel_groups(layer)[0] * (8 + slots)
        flash = self._at(f"weight{index}", first + group * (8 + slots if fours else 4 + slots // 2))
        arguments = (stream, flash, layer.requantization.zero_point, channel_bytes)
        if fours:
            self._call(self._define("WIDEN4", "widen4"), *arguments, slots)
        elif slots % 32 == 0:
            self._call(self._define("WIDEN32", "widen"), *arguments, slots)
        else:
            self._call(self._define("WIDEN", f"widen_{slots}", slots), *arguments)

    def _prepare(self) -> None:
        if self.im2col is None:
            return
        layer = self.layers[0]
        assert isinstance(layer, Convolution)
        planes = self.windows[1] if 1 in self.windows else self.target
        channel_bytes = planes.channel_bytes if planes.planar else layer.output_shape[2]
        for fours in (True, False):
            count = self.channel_groups(layer)[not fours]
            if count:
                with self._loop("group", count) as group:
                    self._widen(0, group, self._conv_stream(group, fours=fours), channel_bytes, fours=fours)
        if not self.im2col.fast:
            with self._loop("byte", self.im2col.image_bytes) as i:
                T.buffer_store(self.buffers["image_rows"], T.int8(layer.input_zero_point), [i])

    def _conv_stream(self, group: Index, *, fours: bool) -> tirx.Expr:
        """Return where the image's convolution has the widened weights of a group of output channels."""
        layer = self.layers[0]
        assert isinstance(layer, Convolution)
        of_four, of_pair = self.stream_words(layer)
        first = 0 if fours else self.channel_groups(layer)[0] * of_four
        return self._at("conv_stream", first + group * (of_four if fours else of_pair))

    # ---- the image, straight from the input ----------------------------------------------------------------------

    def _gather_chunk(self, layer: Convolution, row: Index, first: int, inside: bool) -> None:
        """Emit im2col of the chunk of pixel pairs from pair `first` on of an output row.

        `inside` says that all rows under the kernel lie in the image.
        """
        im2col = self.im2col
        assert im2col is not None
        pairs = range(first, first + im2col.chunk_pairs)
        inner = range(max(first, im2col.inner_pairs.start), min(pairs.stop, im2col.inner_pairs.stop))
        if not inside:
            with self._loop("pair", len(pairs)) as pair:
                self._gather_patch(layer, row, first + pair, pair)
            return
        for pair in pairs:
            if pair not in inner:
                self._gather_edge(layer, row, pair, pair - first)
        if inner:
            name = self._define_im2col(layer.input_shape[1] * 3)
            buffer, begin = self._image_at(layer, row)
            at = begin + (4 * inner.start - layer.padding[1]) * 3
            self._call(
                name, self._at(buffer, at), self._at("act", (inner.start - first) * 2 * im2col.slots), len(inner)
            )

    def _define_im2col(self, row_bytes: int) -> str:
        return self._define("IM2COL3", f"im2col3_{row_bytes}", row_bytes)

    def _gather_edge(self, layer: Convolution, row: Index, pair: int, place: int) -> None:
        """Emit im2col of a pair of pixels at the image's left or right edge."""
        assert self.im2col is not None
        width = layer.input_shape[1]
        buffer, first = self._image_at(layer, row)
        column = 4 * pair - layer.padding[1]
        begin, end = min(max(column, 0), width), min(column + 5, width)
        for tap in range(3):
            patch = tap * PATCH_PITCH
            if end - begin < 5:
                self._call("memset", self._at("image_rows", patch), layer.input_zero_point, PATCH_BYTES)
            if end > begin:
                source = self._at(buffer, first + (tap * width + begin) * 3)
                target = self._at("image_rows", patch + (begin - column) * 3)
                self._call("memcpy", target, source, (end - begin) * 3)
        name = self._define_im2col(PATCH_PITCH)
        self._call(name, self._at("image_rows", 0), self._at("act", place * 2 * self.im2col.slots), 1)

    def _gather_patch(self, layer: Convolution, row: Index, pair: Index, place: Index) -> None:
        """Emit im2col of a pair of pixels anywhere, value by value."""
        assert self.im2col is not None
        height, width, _ = layer.input_shape
        top, left, _, _ = layer.padding
        with self._loops(tap=3, column=5, channel=3) as (tap, x, channel):
            line, column = row * 2 + tap - top, pair * 4 + x - left
            inside = tirx.all(line >= 0, line < height, column >= 0, column < width)
            # The address has to be one even where it isn't read.
            at = T.max(T.min(line, height - 1), 0) * (width * 3) + T.max(T.min(column, width - 1), 0) * 3 + channel
            value = tirx.if_then_else(inside, self.buffers["input0"][at], T.int8(layer.input_zero_point))
            T.buffer_store(self.buffers["image_rows"], value, [tap * PATCH_PITCH + x * 3 + channel])
        name = self._define_im2col(PATCH_PITCH)
        self._call(name, self._at("image_rows", 0), self._at("act", place * (2 * self.im2col.slots)), 1)

    def _in_image(self, layer: Convolution, row: Index, emit: Callable[[bool], None]) -> None:
        """Emit for rows whose taps lie in the image, and for others, with a test only where there are such."""
        if self._rows_inside(layer):
            emit(True)
            return
        line = row * layer.stride[0] - layer.padding[0]
        with T.If(tirx.all(line >= 0, line + layer.kernel[0] <= layer.input_shape[0])):
            with T.Then():
                emit(True)
            with T.Else():
                emit(False)

    # ---- the image, by copies of its rows ------------------------------------------------------------------------

    def _gather_image_rows(self, layer: Convolution, row: Index) -> None:
        """Emit the copy of the image's rows under the kernel, with border, and im2col of them."""
        im2col = self.im2col
        assert im2col is not None
        height, width, channels = layer.input_shape
        top, left, _, _ = layer.padding
        for tap in range(layer.kernel[0]):
            line = row * layer.stride[0] + (tap - top)
            begin = tap * im2col.row_bytes + left * channels
            if self.streamed:
                source = self._at("image", tap * (width * channels))
                self._call("memcpy", self._at("image_rows", begin), source, width * channels)
                continue
            inside = tirx.all(line >= 0, line < height)
            with T.If(inside):
                with T.Then():
                    source = self._at("input0", line * (width * channels))
                    self._call("memcpy", self._at("image_rows", begin), source, width * channels)
                with T.Else():
                    self._call("memset", self._at("image_rows", begin), layer.input_zero_point, width * channels)
        taps = layer.kernel[1] * channels
        with self._loops(pair=pixel_pairs(layer), pixel=2, tap_row=layer.kernel[0], tap=taps) as (pair, pixel, tap, k):
            target = _in_pair16(im2col.slots, pair, pixel, tap * taps + k)
            source = tap * im2col.row_bytes + (pair * 2 + pixel) * (layer.stride[1] * channels) + k
            T.buffer_store(self.buffers["act"], self.buffers["image_rows"][source].astype("int16"), [target])

    # ---- pixels of the network inside ----------------------------------------------------------------------------

    def _widen_pixels(self, layer: Convolution, first: Index, count: Index) -> None:
        """Emit the conversion of int8 rows, pixels, channels into pair16."""
        _, width, channels = layer.input_shape
        slots = self.slots_of(layer)
        row_elements = width * channels
        if self.stationary(0):
            name = self._define("TO_WIDE8", "to_wide8")
            self._call(name, self._at("input0", first * row_elements), self._at("act", 0), count * (width // 2))
            return
        if channels % 8 == 0:
            name = self._define("TO_PAIR16", f"to_pair16_{channels}", channels)
            if width % 2 == 0 or self.in_one_row(0):
                pairs = self.block_pairs(0, count)
                self._call(name, self._at("input0", first * row_elements), self._at("act", 0), pairs)
                return
            with self._loop("row", count) as row:
                act = self._at("act", row * (pixel_pairs(layer) * 2 * slots))
                self._call(name, self._at("input0", (first + row) * row_elements), act, pixel_pairs(layer))
            return
        rows, pairs = (1, self.block_pairs(0, count)) if self.in_one_row(0) else (count, pixel_pairs(layer))
        with self._loops(row=rows, pair=pairs, pixel=2, channel=channels) as (row, pair, pixel, k):
            target = _in_pair16(slots, row * pairs + pair, pixel, k)
            source = (first + row) * row_elements + (pair * 2 + pixel) * channels + k
            T.buffer_store(self.buffers["act"], self.buffers["input0"][source].astype("int16"), [target])

    def _gather(self, layer: Gather, step: Index, first: Index, count: Index) -> None:
        """Emit the copy of rows of pixels into the planes of the first window."""
        window = self.windows[1]
        _, width, channels = layer.input_shape
        row_elements, plane = window.row_bytes // window.element_bytes, window.channel_bytes // window.element_bytes
        position = self._window_position(1, step, first)
        with self._loops(row=count, channel=channels, column=width) as (y, c, x):
            value = self.buffers["input0"][(first + y) * (width * channels) + x * channels + c].astype(window.dtype)
            target = c * plane + (position + y) * row_elements + window.border[1] + x
            T.buffer_store(self.buffers["window1"], value, [target])


def _in_pair16(slots: int, pair: Index, pixel: Index, slot: Index) -> Index:
    """Return the element of a slot of a pixel in pair16."""
    return (pair * (slots // 2) + slot // 2) * 4 + pixel * 2 + slot % 2
