"""What a chain of layers on the DSP kernels needs: rows, windows, constants, scratch.

Activations are int16 (or int8) planes before a depthwise layer and pixel pairs (pair16) before a pointwise one. Where
the layouts come from stands in `include/thumbnet_dsp.h`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm.script.ir_builder import tirx as T

from thumbnet.compile.fixed_point import Requantization
from thumbnet.compile.integer_network import Add, Convolution, DepthwiseConvolution, Layer, accumulator_bound
from thumbnet.compile.kernels.dsp_packing import (
    depthwise_slots,
    pack_depthwise,
    pack_pointwise,
    pack_stationary,
    plain_slots,
    widened_slots,
)
from thumbnet.compile.kernels.im2col import IM2COL3_SLOTS, Im2col, plan_im2col
from thumbnet.compile.kernels.kernel import Scratch
from thumbnet.compile.kernels.layouts import Layout, planar_layout
from thumbnet.compile.kernels.rolling import plan_rows
from thumbnet.compile.kernels.stage_code import Index, StageCode

#: Input channels of the pointwise layers that PW_K8 computes.
STATIONARY_CHANNELS = 8


class DspChain(StageCode):
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
        self,
        layers: Sequence[Layer],
        source: Layout,
        target: Layout,
        *,
        rows: int,
        window_bytes: int = 2,
        border: int | None = None,
    ) -> None:
        super().__init__()
        self.border = layers[-1].output_quant.zero_point if border is None else border
        self.layers = list(layers)
        self.source, self.target = source, target
        self.plan, self.steps = plan_rows(self.layers, rows)
        self.window_bytes = window_bytes
        self.constants: dict[str, np.ndarray] = {}
        self.scratch: dict[str, Scratch] = {}
        self.windows = {
            index: self._window(index)
            for index, layer in enumerate(self.layers)
            if index > 0 and isinstance(layer, DepthwiseConvolution)
        }
        self.im2col: Im2col | None = None
        self._collect()

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
                    act = max(act, self.plan[index].rows * pixel_pairs(layer) * 2 * packed_channels)
                    if not self._stationary(index):
                        stream = max(stream, packed_channels + 8)
                    pack = pack_stationary if self._stationary(index) else pack_pointwise
                    self.constants[f"weight{index}"] = pack(
                        layer.weight[:, 0, 0], layer.bias, layer.requantization, self._slots(index)
                    )
                case Convolution():
                    self.im2col = plan_im2col(layer)
                    act = max(act, pixel_pairs(layer) * 2 * self.im2col.slots)
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

    def _stationary(self, index: int) -> bool:
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

    def _rows_of(self, index: int, step: Index) -> tuple[Index, Index]:
        """Return the first row a layer computes in a step, and how many."""
        rows = self.plan[index]
        if self.steps == 1:
            return 0, rows.height

        def bound(at: Index) -> Index:
            return T.min(T.max(at * rows.rows - rows.lag, 0), rows.height)

        first = bound(step)
        return first, bound(step + 1) - first

    def _slots_of(self, layer: Convolution) -> int:
        if layer.kernel != (1, 1):
            assert self.im2col is not None
            return self.im2col.slots
        return -(-layer.input_shape[2] // 4) * 4


def pixel_pairs(layer: Layer) -> int:
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
