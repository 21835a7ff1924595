"""How the input of a chain on the DSP kernels is brought into pixel pairs, and weights into streams."""

from __future__ import annotations

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from thumbnet.compile.integer_network import Convolution
from thumbnet.compile.kernels.dsp_chain import DspChain, pixel_pairs
from thumbnet.compile.kernels.im2col import Im2col
from thumbnet.compile.kernels.stage_code import Index


class DspInput(DspChain):
    """Emits what comes before the multiplications."""

    def _widen(self, index: int, pair: Index, stream: tirx.Expr, plane_bytes: int) -> None:
        layer = self.layers[index]
        assert isinstance(layer, Convolution)
        slots = self._slots_of(layer)
        widen = self._define("WIDEN", f"widen_{slots}", slots)
        flash = self._at(f"weight{index}", pair * (4 + slots // 2))
        self._call(widen, stream, flash, layer.requantization.zero_point, plane_bytes)

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
                    self._call(
                        "memcpy",
                        self._at("image_rows", begin),
                        self._at("input0", line * (width * channels)),
                        width * channels,
                    )
                with T.Else():
                    self._call("memset", self._at("image_rows", begin), layer.input_zero_point, width * channels)
        if im2col.fast:
            name = self._define("IM2COL3", f"im2col3_{im2col.row_bytes}", im2col.row_bytes)
            self._call(name, self._at("image_rows", 0), self._at("act", 0), pixel_pairs(layer))
            return
        taps = layer.kernel[1] * channels
        with T.grid(pixel_pairs(layer), 2, layer.kernel[0], taps) as (pair, pixel, tap, k):
            slot = tap * taps + k
            target = (pair * (im2col.slots // 4) + slot // 4) * 8 + pixel * 4 + slot % 4
            source = tap * im2col.row_bytes + (pair * 2 + pixel) * (layer.stride[1] * channels) + k
            T.buffer_store(self.buffers["act"], self.buffers["image_rows"][source].astype("int16"), [target])

    def _widen_pixels(self, layer: Convolution, first: Index, count: Index) -> None:
        """Emit the conversion of int8 rows, pixels, channels into pair16."""
        _, width, channels = layer.input_shape
        slots = self._slots_of(layer)
        row_elements = width * channels
        if self._stationary(0):
            name = self._define("TO_WIDE8", "to_wide8")
            self._call(name, self._at("input0", first * row_elements), self._at("act", 0), count * (width // 2))
            return
        if channels % 8 == 0:
            name = self._define("TO_PAIR16", f"to_pair16_{channels}", channels)
            if width % 2 == 0:
                self._call(name, self._at("input0", first * row_elements), self._at("act", 0), count * (width // 2))
                return
            with T.serial(0, count) as row:
                IRBuilder.name("row", row)
                act = self._at("act", row * (pixel_pairs(layer) * 2 * slots))
                self._call(name, self._at("input0", (first + row) * row_elements), act, pixel_pairs(layer))
            return
        with T.grid(count, pixel_pairs(layer), 2, channels) as (row, pair, pixel, k):
            target = ((row * pixel_pairs(layer) + pair) * (slots // 4) + k // 4) * 8 + pixel * 4 + k % 4
            source = (first + row) * row_elements + (pair * 2 + pixel) * channels + k
            T.buffer_store(self.buffers["act"], self.buffers["input0"][source].astype("int16"), [target])
