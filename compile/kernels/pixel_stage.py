"""A chain of layers whose activations are pixels everywhere, a vector being some of their channels: on Armv8-A.

No layer needs planes, and a depthwise layer reads the chain's input where it lies.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from numpy.typing import NDArray

from thumbnet.compile.kernels.chains import Link
from thumbnet.compile.kernels.kernel import Scratch
from thumbnet.compile.kernels.layouts import Layout, nhwc_layout
from thumbnet.compile.kernels.rolling_stage import RollingStage
from thumbnet.compile.kernels.stage_code import Index
from thumbnet.compile.network.layers import (
    AddLayer,
    AnyLayer,
    AveragePoolLayer,
    ConvolutionLayer,
    DepthwiseLayer,
    Shape,
)

#: Bytes that kernels may read or write beyond a tensor: a vector.
VECTOR_BYTES = 16
#: Output channels that a kernel writes at least.
LEAST_CHANNELS = 4

#: Where pixels lie: buffer, element, elements from one pixel to the next.
Pixels = tuple[str, Index, int]


def reads_source(layers: Sequence[Link], index: int) -> bool:
    """Tell whether a layer is a pointwise one that multiplies the chain's input where it lies."""
    layer = layers[index]
    return index == 0 and isinstance(layer, ConvolutionLayer) and layer.kernel == (1, 1)


class PixelStage(RollingStage):
    """Emits the kernel of one chain; parameters as in `RollingStage`."""

    one_pixel_kinds = frozenset({"fully_connected", "average_pool"})
    bytes_read_beyond = VECTOR_BYTES
    gathers_pixels = False
    #: The activations' type, NumPy's name, and its size.
    dtype: ClassVar[str]
    element_bytes: ClassVar[int]

    # ---- what a set of kernels adds ------------------------------------------------------------------------------

    @abstractmethod
    def act_stride(self, layer: ConvolutionLayer | DepthwiseLayer) -> int:
        """Return the elements of a pixel that a convolution reads from, or a depthwise layer writes to, ``act``."""

    @abstractmethod
    def _pack(self, layer: AnyLayer) -> dict[str, NDArray[Any]]:
        """Return a layer's constants by their names."""

    @abstractmethod
    def _filter_rows(self, index: int, source: str, row: Index, rows: int, count: Index) -> None:
        """Emit `count` rows of a depthwise layer into ``act``, from a buffer of so many rows, from its row `row` on."""

    @abstractmethod
    def _multiply_pixels(self, index: int, source: Pixels, target: tuple[str, Index], pixels: Index) -> None:
        """Emit a convolution of pixels to buffer and element."""

    @abstractmethod
    def _define_im2col(self, layer: ConvolutionLayer) -> str:
        """Define what gathers a row's patches of the image, and return its name."""

    @abstractmethod
    def _define_average(self, layer: AveragePoolLayer) -> str:
        """Define what pools a layer's input, and return its name."""

    @abstractmethod
    def _define_add(self, index: int) -> str:
        """Define what adds a layer's two inputs, the shortcut first, and return its name."""

    def channel_tiles(self, layer: ConvolutionLayer) -> int:
        """Return how often a convolution goes over its pixels: once for each tile of output channels."""
        return -(-layer.output_shape[2] // LEAST_CHANNELS)

    # ---- what is the same for all --------------------------------------------------------------------------------

    @classmethod
    def takes(cls, layer: AnyLayer) -> bool:
        """Tell whether there is a kernel: depthwise layers have at most half of its columns as padding on a side."""
        if not isinstance(layer, DepthwiseLayer) or not super().takes(layer):
            return super().takes(layer)
        (_, left, _, _), columns = layer.padding, layer.kernel[1]
        beyond = (layer.output_shape[1] - 1) * layer.stride[1] - left + columns - layer.input_shape[1]
        return left <= columns // 2 and beyond <= columns // 2

    @classmethod
    def target_layouts(cls, shape: Shape, reader: DepthwiseLayer | None) -> list[Layout]:
        """Return pixels, whoever reads them."""
        pixels = nhwc_layout(shape, cls.element_bytes)
        # Tiles are four channels wide at least: with fewer, the last pixel's end lies beyond the tensor.
        beyond = 0 if shape[2] >= LEAST_CHANNELS else LEAST_CHANNELS * cls.element_bytes
        return [replace(pixels, size=pixels.size + beyond)]

    def _window_layout(self, index: int, layer: DepthwiseLayer) -> Layout:
        _, width, channels = layer.input_shape
        return nhwc_layout((self.plan[index].window_rows, width, channels), self.element_bytes)

    def _scratch(self, elements: int) -> Scratch:
        return Scratch(self.dtype, elements + VECTOR_BYTES // self.element_bytes)

    def _plan_scratch(self) -> None:
        act, padding = 0, 0
        for index, window in self.windows.items():
            self.scratch[f"window{index}"] = self._scratch(window.size // self.element_bytes)
        for group in self.groups:
            block = self.block_rows(group)
            for index in group:
                layer = self.layers[index]
                if isinstance(layer, ConvolutionLayer) and not reads_source(self.layers, index):
                    act = max(act, block * layer.output_shape[1] * self.act_stride(layer))
                elif isinstance(layer, DepthwiseLayer):
                    padding = max(padding, layer.input_shape[1] * layer.input_shape[2])
                elif isinstance(layer, AddLayer):
                    _, width, channels = layer.output_shape
                    self.scratch["sum"] = self._scratch(block * width * channels)
        if act:
            self.scratch["act"] = self._scratch(act)
        if padding:
            self.scratch["padding"] = self._scratch(padding)

    def _pack_constants(self) -> None:
        for index, layer in enumerate(self.layers):
            if isinstance(layer, ConvolutionLayer | DepthwiseLayer):
                self.constants |= {f"{name}{index}": array for name, array in self._pack(layer).items()}

    def _prepare(self) -> None:
        pass

    def _group_row_bytes(self, group: Sequence[int]) -> int:
        elements = 0
        for index in group:
            layer = self.layers[index]
            if isinstance(layer, ConvolutionLayer) and not reads_source(self.layers, index):
                elements += layer.output_shape[1] * self.act_stride(layer)
            elif isinstance(layer, AddLayer):
                elements += layer.output_shape[1] * layer.output_shape[2]
        return elements * self.element_bytes

    def reads_rows_in_parts(self) -> bool:
        """Tell whether a row is written before all that it is computed from has been read."""
        # A tile of output channels is written while the next still needs the pixels.
        return reads_source(self.layers, 0) or isinstance(self.layers[0], AveragePoolLayer)

    def _compute(self, group: Sequence[int], step: Index, first: Index, count: Index) -> None:
        for index in group:
            layer = self.layers[index]
            match layer:
                case DepthwiseLayer():
                    self._depthwise(index, step, first, count)
                case ConvolutionLayer():
                    if layer.kernel != (1, 1):
                        self._gather_patches(layer, first)
                    self._multiply(index, step, first, count)
                case AddLayer():
                    self._add(index, first, count)
                case AveragePoolLayer():
                    self._call(self._define_average(layer), self._at("input0", 0), self._at("output", 0))

    def _gather_patches(self, layer: ConvolutionLayer, row: Index) -> None:
        """Emit im2col of an output row; of a streamed image just the rows under the kernel are there."""
        self._read_rows(layer, row)
        image, row = ("image", 0) if self.streamed else ("input0", row)
        self._call(self._define_im2col(layer), self._at(image, 0), self._at("act", 0), row)

    def _depthwise(self, index: int, step: Index, first: Index, count: Index) -> None:
        layer = self.layers[index]
        assert isinstance(layer, DepthwiseLayer)
        row, rows = first * layer.stride[0] - layer.padding[0], layer.input_shape[0]
        if index > 0:
            row, rows = self._window_position(index, step, row), self.windows[index].shape[0]
        # A few instructions a step; the columns beyond the image are the kernel's.
        bytes_ = layer.input_shape[1] * layer.input_shape[2] * self.element_bytes
        self._call("memset", self._at("padding", 0), layer.input_zero_point, bytes_)
        self._filter_rows(index, "input0" if index == 0 else f"window{index}", row, rows, count)

    def _multiply(self, index: int, step: Index, first: Index, count: Index) -> None:
        """Emit pixels times weights into the next window, the sum's rows or the output."""
        layer = self.layers[index]
        assert isinstance(layer, ConvolutionLayer)
        _, width, channels = layer.output_shape
        follower = self.layers[index + 1] if index + 1 < len(self.layers) else None
        buffer, row = "output", first
        if isinstance(follower, DepthwiseLayer):
            buffer, row = f"window{index + 1}", self._window_position(index + 1, step, first)
        elif isinstance(follower, AddLayer):
            buffer, row = "sum", 0
        source, stride, begin = "act", self.act_stride(layer), 0
        if reads_source(self.layers, index):
            source, stride = "input0", layer.input_shape[2]
            begin = first * (width * stride)
        at, pixels = row * (width * channels), count * width
        self._multiply_pixels(index, (source, begin, stride), (buffer, at), pixels)

    def _carry(self, window: str, *sizes: int) -> None:
        move, kept, _, _ = sizes
        self._call("memmove", self._at(window, 0), self._at(window, move // self.element_bytes), kept)

    def _add(self, index: int, first: Index, count: Index) -> None:
        _, width, channels = self.layers[index].output_shape
        at = first * (width * channels)
        self._call(
            self._define_add(index),
            self._at("output", at),
            self._at("input0", at),
            self._at("sum", 0),
            count * (width * channels),
        )
