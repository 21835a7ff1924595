"""What a chain of layers on the DSP kernels needs: windows, constants, scratch.

Activations are int16 (or int8) planes before a depthwise layer and pixel pairs (pair16) before a pointwise one. Where
the layouts come from stands in `thumbnet_dsp.h`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from thumbnet.compile.kernels.chains import Link
from thumbnet.compile.kernels.dsp.im2col import IM2COL3_SLOTS, Im2col, plan_im2col
from thumbnet.compile.kernels.dsp.packing import (
    channel_groups,
    depthwise_slots,
    pack_depthwise,
    pack_pointwise,
    pack_stationary,
    plain_slots,
    widened_slots,
)
from thumbnet.compile.kernels.kernel import Scratch
from thumbnet.compile.kernels.layouts import Layout, nhwc_layout, planar_layout
from thumbnet.compile.kernels.rolling_stage import RollingStage
from thumbnet.compile.kernels.stage_code import Index
from thumbnet.compile.network.fixed_point import Requantization
from thumbnet.compile.network.integer_network import Add, Convolution, DepthwiseConvolution, accumulator_bound
from thumbnet.compile.network.layers import DepthwiseLayer, Shape

#: Input channels of the pointwise layers that PW_K8 computes.
STATIONARY_CHANNELS = 8
#: Elements that kernels read beyond a plane at most.
_READ_BEYOND = 4
#: Pixels of an image that a depthwise kernel computes as if they were one row: it unrolls them all.
_MOST_IN_ONE_ROW = 12


class DspChain(RollingStage):
    """Parameters as in `RollingStage`."""

    instruction_set = "dsp"
    headers = tuple(
        Path(__file__).with_name(f"thumbnet_dsp{part}.h")
        for part in (
            "",
            "_depthwise",
            "_large_depthwise",
            "_pointwise",
            "_pointwise_pairs",
            "_widening",
            "_pixels",
            "_portable",
        )
    )
    one_pixel_kinds = frozenset({"fully_connected"})
    depthwise_kernels = frozenset({(3, 3), (5, 5), (7, 7)})
    window_sizes = (2, 1)

    @classmethod
    def target_layouts(cls, shape: Shape, reader: DepthwiseLayer | None) -> list[Layout]:
        """Return planes for a depthwise reader, of int16 and int8, and pixels."""
        pixels = nhwc_layout(shape)
        if reader is None:
            return [pixels]
        planes = [
            planar_layout(shape, 2, reader.padding),
            planar_layout(shape, 1, reader.padding),
            planar_layout(shape, 1, reader.padding, rows_first=True),
        ]
        return [*(layout for layout in planes if _reachable(layout, reader)), pixels]

    def _window_layout(self, index: int, layer: DepthwiseLayer) -> Layout:
        _, left, _, right = layer.padding
        _, width, channels = layer.input_shape
        shape = (self.plan[index].window_rows, width, channels)
        planes = planar_layout(shape, self.window_bytes, (0, left, 0, right))
        return planes if _reachable(planes, layer) else planar_layout(shape, 1, (0, left, 0, right))

    def _plan_scratch(self) -> None:
        self.im2col: Im2col | None = None
        act, stream, plane = 0, 0, 0
        for index, window in self.windows.items():
            self.scratch[f"window{index}"] = Scratch(window.dtype, window.size // window.element_bytes)
        for group in self.groups:
            block = self.block_rows(group)
            for index in group:
                layer = self.layers[index]
                match layer:
                    case Convolution() if layer.kernel == (1, 1):
                        slots = self.slots_of(layer)
                        act = max(act, self.block_pairs(index, block) * 2 * slots)
                        if not self.stationary(index):
                            stream = max(stream, *self.stream_words(layer))
                    case Convolution():
                        self.im2col = plan_im2col(layer, self.block_bytes)
                        act = max(act, self.im2col.chunk_pairs * 2 * self.im2col.slots)
                        groups = zip(self.channel_groups(layer), self.stream_words(layer), strict=True)
                        self.scratch["conv_stream"] = Scratch("int32", sum(count * words for count, words in groups))
                        self.scratch["image_rows"] = Scratch("int8", self.im2col.image_bytes)
                    case Add():
                        _, width, channels = layer.output_shape
                        self.scratch["sum"] = Scratch("int8", block * width * channels + channels + 1)
                    case DepthwiseConvolution() if self.widens_planes(index):
                        plane = max(plane, self.widened_rows(index, block) * widened_pitch(self._planes(index)))
                    case _:
                        pass
        if act:
            self.scratch["act"] = Scratch("int16", act)
        if plane:
            self.scratch["plane"] = Scratch("int16", plane + _READ_BEYOND)
        if stream:
            self.scratch["stream"] = Scratch("int32", stream)

    def _pack_constants(self) -> None:
        for index, layer in enumerate(self.layers):
            match layer:
                case Convolution() if self.stationary(index):
                    self.constants[f"weight{index}"] = pack_stationary(
                        layer.weight[:, 0, 0], layer.bias, layer.requantization, self._slots(index)
                    )
                case Convolution():
                    self.constants[f"weight{index}"] = pack_pointwise(
                        layer.weight.reshape(layer.weight.shape[0], -1),
                        layer.bias,
                        layer.requantization,
                        self._slots(index),
                        self.channel_groups(layer),
                    )
                case DepthwiseConvolution():
                    dtype = self._planes(index).dtype
                    self.constants[f"weight{index}"] = pack_depthwise(
                        layer.weight, layer.bias, layer.requantization, dtype, layer.stride[0]
                    )
                case _:
                    pass

    def _group_row_bytes(self, group: Sequence[int]) -> int:
        bytes_ = 0
        for index in group:
            layer = self.layers[index]
            if isinstance(layer, Convolution):
                bytes_ += pixel_pairs(layer) * 4 * self.slots_of(layer)
            elif isinstance(layer, Add):
                bytes_ += layer.output_shape[1] * layer.output_shape[2]
        return bytes_

    def reads_rows_in_parts(self) -> bool:
        """Tell whether a row is written before all that it is computed from has been read."""
        return self.im2col is not None and self.im2col.chunk_pairs < pixel_pairs(self.layers[0])

    def in_one_row(self, index: int) -> bool:
        """Tell whether a pointwise layer's pixels are paired across rows: an odd row has a pair less half full then.

        Its whole image has to be there at once, and its outputs have to follow each other as the pixels do.
        """
        if index == len(self.layers):
            return False
        layer = self.layers[index]
        if not isinstance(layer, Convolution) or layer.kernel != (1, 1) or layer.output_shape[1] % 2 == 0:
            return False
        height, width, _ = layer.output_shape
        if index > 0 and height * width > _MOST_IN_ONE_ROW:
            return False
        last = index + 1 == len(self.layers)
        pixels = not self.target.planar if last else isinstance(self.layers[index + 1], Add)
        group = next(group for group in self.groups if index in group)
        return pixels and self.steps == 1 and self.block_rows(group) >= height

    def block_pairs(self, index: int, rows: Index) -> Index:
        """Return the pixel pairs of some rows of a pointwise layer's block in act."""
        layer = self.layers[index]
        if self.in_one_row(index):
            return -(-layer.output_shape[0] * layer.output_shape[1] // 2)
        return rows * pixel_pairs(layer)

    def stationary(self, index: int) -> bool:
        """Tell whether a layer is computed by the kernel that holds one channel's weights in registers (PW_K8)."""
        if index == len(self.layers):
            return False
        layer = self.layers[index]
        last = index + 1 == len(self.layers)
        planes = self.target.planar if last else isinstance(self.layers[index + 1], DepthwiseConvolution)
        return (
            isinstance(layer, Convolution)
            and layer.kernel == (1, 1)
            and layer.input_shape[2] == STATIONARY_CHANNELS
            and layer.output_shape[1] % 2 == 0
            and left_shift(layer.requantization) == 0
            and planes
        )

    def _slots(self, index: int) -> list[int]:
        """Return which value of a pixel, or tap of the image's convolution, stands in which slot of `act`."""
        layer = self.layers[index]
        if isinstance(layer, Convolution) and layer.kernel != (1, 1):
            assert self.im2col is not None
            return IM2COL3_SLOTS if self.im2col.fast else plain_slots(layer.weight[0].size)
        channels = layer.input_shape[2]
        if index > 0 and isinstance(self.layers[index - 1], DepthwiseConvolution):
            return depthwise_slots(channels)
        return widened_slots(channels) if channels % 8 == 0 else plain_slots(channels)

    def channel_groups(self, layer: Convolution) -> tuple[int, int]:
        """Return the fours and pairs of output channels: of a layer of one pixel pairs only, each has little to do."""
        channels = layer.output_shape[2]
        return (0, -(-channels // 2)) if layer.output_shape[:2] == (1, 1) else channel_groups(channels)

    def stream_words(self, layer: Convolution) -> tuple[int, int]:
        """Return the words of a stream of four channels' weights and of a pair's, 0 where the layer has none."""
        slots, (fours, pairs) = self.slots_of(layer), self.channel_groups(layer)
        return (2 * slots + 14) * bool(fours), (slots + 8) * bool(pairs)

    def _planes(self, index: int) -> Layout:
        """Return the layout a depthwise layer reads."""
        return self.source if index == 0 else self.windows[index]

    def widens_planes(self, index: int) -> bool:
        """Tell whether a depthwise layer's kernel widens a channel's planar8 before it reads it: 5x5 and 7x7 ones."""
        layer = self.layers[index]
        assert isinstance(layer, DepthwiseConvolution)
        return layer.kernel != (3, 3) and self._planes(index).element_bytes == 1

    def widened_rows(self, index: int, rows: int) -> int:
        """Return the rows of a plane that some output rows of a depthwise layer read."""
        layer = self.layers[index]
        assert isinstance(layer, DepthwiseConvolution)
        return (rows - 1) * layer.stride[0] + layer.kernel[0]

    def slots_of(self, layer: Convolution) -> int:
        """Return the slots of a pixel in act before a layer: its taps, rounded up to a multiple of four."""
        if layer.kernel != (1, 1):
            assert self.im2col is not None
            return self.im2col.slots
        return -(-layer.input_shape[2] // 4) * 4


def _reachable(layout: Layout, reader: DepthwiseLayer) -> bool:
    """Tell whether the 3x3 kernels' loads reach the third row of a plane: LDRD up to 1020 bytes, LDR up to 4095."""
    return reader.kernel != (3, 3) or 2 * layout.row_bytes <= (1020 if layout.element_bytes == 2 else 4084)


def widened_pitch(layout: Layout) -> int:
    """Return the elements of a row of a widened plane: planar8 is widened four at a time."""
    return -(-(layout.border[1] + layout.shape[1] + layout.border[3]) // 4) * 4


def pixel_pairs(layer: Link) -> int:
    """Return the pixel pairs of an output row."""
    return -(-layer.output_shape[1] // 2)


def left_shift(requantization: Requantization) -> int:
    """Return the shift of a layer's accumulators, the same for all channels."""
    return int(requantization.left_shift[0])


def fits_int16(layer: Convolution) -> bool:
    """Tell whether every result lies in int16 before the clamp, for any input."""
    r = layer.requantization
    bound = (
        (accumulator_bound(layer) << left_shift(r)).astype(np.float64) * r.multiplier / 2.0**31 + abs(r.zero_point) + 1
    )
    return bool(np.all(bound < 2**15))
