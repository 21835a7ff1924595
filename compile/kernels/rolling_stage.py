"""A chain of layers as one TIR function that computes some rows a step: what is the same on every core's kernels.

Between the layers of a chain there are only windows of rows (`rolling_rows`). Layers that hand pixels to each other
without a window form a group; a group computes its rows block by block, so that what lies between its layers is small.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from thumbnet.compile.kernels.chains import Gather, Link
from thumbnet.compile.kernels.cycle_prices import CyclePrices
from thumbnet.compile.kernels.kernel import Kernel, Scratch
from thumbnet.compile.kernels.layouts import Layout
from thumbnet.compile.kernels.rolling_rows import plan_rows
from thumbnet.compile.kernels.stage_code import Index, StageCode
from thumbnet.compile.network.integer_network import Add
from thumbnet.compile.network.layers import AddLayer, AnyLayer, ConvolutionLayer, DepthwiseLayer, Shape

#: What a streamed chain calls, by the network's name, with the number of an image's row and the place for its values.
READ_ROW = "read_row"


class RollingStage(StageCode):
    """Builds the kernel of one chain; a core's kernels are a subclass.

    Parameters
    ----------
    layers : sequence of Layer
        A chain that `chains.chain_lengths` accepts.
    source, target : Layout
        Of the chain's input and output.
    rows : int
        Rows of the output a step.
    window_bytes : int
        Size of an element of the windows before depthwise layers: 1 or 2.
    border : int
        What the depthwise layer that reads the output pads with, where the target has a border.
    block_bytes : int, optional
        Size that what lies between a group's layers should not pass; without it a step's rows are computed at once.
    streamed : bool
        The chain starts with a convolution over an image that does not lie in the arena: its rows come from
        `READ_ROW`, each once, in order.
    """

    #: How the kernels are called in reports.
    instruction_set = ""
    #: The kernels' C headers; the first includes the others.
    headers: tuple[Path, ...] = ()
    #: Which layers whose output is one pixel there are kernels for: fully_connected, average_pool.
    one_pixel_kinds: frozenset[str] = frozenset()
    #: Rows and columns of the depthwise layers there are kernels for.
    depthwise_kernels: frozenset[tuple[int, int]] = frozenset({(3, 3)})
    #: Whether depthwise layers read planes, so that pixels have to be gathered into them.
    gathers_pixels = True
    #: What kernels may read beyond the arena's last tensor.
    bytes_read_beyond = 0
    #: Whether the code depends on the weights themselves.
    weights_choose_code = False
    #: The sizes an element of a window may have, the fastest first.
    window_sizes: tuple[int, ...] = (1,)
    #: Whether the C compiler makes vectors of the portable kernels' sums and pools.
    portable_vectors = False

    def __init__(
        self,
        layers: Sequence[AnyLayer],
        source: Layout,
        target: Layout,
        *,
        rows: int,
        window_bytes: int = 2,
        border: int = 0,
        block_bytes: int | None = None,
        streamed: bool = False,
    ) -> None:
        super().__init__()
        self.streamed = streamed
        self.border = border
        gather = self.gathers_pixels and isinstance(layers[0], DepthwiseLayer) and not source.planar
        self.layers: list[Link] = [*([Gather(layers[0].input_shape)] if gather else []), *layers]
        self.source, self.target = source, target
        self.window_bytes, self.block_bytes = window_bytes, block_bytes
        self.plan, self.steps = plan_rows(self.layers, rows)
        self.scratch: dict[str, Scratch] = {}
        self.constants: dict[str, np.ndarray] = {}
        self.windows = {
            index: self._window_layout(index, layer)
            for index, layer in enumerate(self.layers)
            if index > 0 and isinstance(layer, DepthwiseLayer)
        }
        self.groups = list(_groups(self.layers))
        if streamed:
            image = self.layers[0]
            assert isinstance(image, ConvolutionLayer)
            _, width, channels = image.input_shape
            self.scratch["image"] = Scratch("int8", image.kernel[0] * width * channels)
        self._plan_scratch()

    @classmethod
    def takes(cls, layer: AnyLayer) -> bool:
        """Tell whether there is a kernel for a layer of a chain."""
        return not isinstance(layer, DepthwiseLayer) or layer.kernel in cls.depthwise_kernels

    @classmethod
    @abstractmethod
    def target_layouts(cls, shape: Shape, reader: DepthwiseLayer | None) -> list[Layout]:
        """Return the layouts an output may have, given the depthwise layer that alone reads it, if there is one."""

    # ---- what a core's kernels add --------------------------------------------------------------------------------

    @abstractmethod
    def _window_layout(self, index: int, layer: DepthwiseLayer) -> Layout:
        """Return the layout of the rows a depthwise layer inside the chain reads."""

    @abstractmethod
    def _plan_scratch(self) -> None:
        """Enter what the kernels need in `scratch`, cheaply: planners make many stages that are never built."""

    @abstractmethod
    def _pack_constants(self) -> None:
        """Enter the weights in `constants`."""

    @abstractmethod
    def _prepare(self) -> None:
        """Emit what the kernels need once, before the first step."""

    @abstractmethod
    def _compute(self, group: Sequence[int], step: Index, first: Index, count: Index) -> None:
        """Emit a group's layers for `count` rows of its output from row `first` on."""

    @abstractmethod
    def _carry(self, window: str, *sizes: int) -> None:
        """Emit the move of rows that the next step needs again to a window's start.

        The sizes are the bytes they are moved by and their bytes in each channel, the number of channels, and the bytes
        from one to the next.
        """

    @abstractmethod
    def _group_row_bytes(self, group: Sequence[int]) -> int:
        """Return the bytes that lie between the layers of a group for one row."""

    @abstractmethod
    def predicted_instructions(self) -> float:
        """Return an estimate of the instructions one inference executes in this stage."""

    def predicted_cycles(self, prices: CyclePrices) -> float | None:
        """Return an estimate of the cycles one inference takes in this stage; None where the kernels have none."""
        return None

    # ---- rows ----------------------------------------------------------------------------------------------------

    def block_rows(self, group: Sequence[int]) -> int:
        """Return how many rows a group computes at a time."""
        rows = self.plan[group[-1]].rows
        layer = self.layers[group[0]]
        if isinstance(layer, ConvolutionLayer) and layer.kernel != (1, 1):
            return 1
        if self.block_bytes is None:
            return rows
        return min(rows, max(1, self.block_bytes // max(self._group_row_bytes(group), 1)))

    def rows_done(self, index: int, step: int) -> int:
        """Return how many rows of a layer are there when a step is over."""
        rows = self.plan[index]
        return rows.height if self.steps == 1 else min(max((step + 1) * rows.rows - rows.lag, 0), rows.height)

    def reads_rows_in_parts(self) -> bool:
        """Tell whether a row is written before all that it is computed from has been read."""
        return False

    # ---- the code ------------------------------------------------------------------------------------------------

    def build(self) -> Kernel:
        """Return the kernel."""
        self._pack_constants()
        with IRBuilder() as builder:
            with T.prim_func(s_tir=True):
                T.func_name("stage")
                self._declare()
                self._before()
                if self.steps == 1:
                    self._step(0)
                else:
                    with self._loop("step", self.steps) as step:
                        self._step(step)
        rows = "whole" if self.steps == 1 else f"{self.plan[-1].rows} rows a step"
        kinds = "+".join(_SHORT[layer.kind] for layer in self.layers)
        return Kernel(
            f"{self.instruction_set} {kinds}, {rows}",
            builder.get(),
            self.constants,
            self.scratch,
            tuple(dict.fromkeys(self.definitions)),
        )

    def _declare(self) -> None:
        def declare(name: str, dtype: str, elements: int) -> None:
            self.buffers[name] = T.arg(name, T.Buffer((elements,), dtype))

        if not self.streamed:
            declare("input0", self.source.dtype, self.source.size // self.source.element_bytes)
        declare("output", self.target.dtype, self.target.size // self.target.element_bytes)
        for name, array in self.constants.items():
            declare(name, str(array.dtype), array.size)
        for name, scratch in self.scratch.items():
            declare(name, scratch.dtype, scratch.elements)

    def _before(self) -> None:
        """Emit what is done once: borders of windows and of an output in planes."""
        for index, window in self.windows.items():
            layer = self.layers[index]
            assert isinstance(layer, DepthwiseLayer)
            self._fill_columns(f"window{index}", window, layer.input_zero_point, 0, window.shape[0])
            self._fill_rows(f"window{index}", window, layer.input_zero_point, 0, -self.plan[index].first_row)
        if self.target.planar and not self.target.row_major:
            height, top, bottom = self.target.shape[0], self.target.border[0], self.target.border[2]
            self._fill_columns("output", self.target, self.border, top, height)
            self._fill_rows("output", self.target, self.border, 0, top)
            self._fill_rows("output", self.target, self.border, top + height, bottom)
        self._prepare()

    def _step(self, step: Index) -> None:
        for group in self.groups:
            first, count = self._rows_of(group[-1], step)
            self._in_blocks(group, step, first, count)
            follower = group[-1] + 1
            if follower in self.windows:
                self._fill_below(follower, step)
        if self.steps > 1:
            for index, window in self.windows.items():
                if self.plan[index].new_row:
                    rows = self.plan[index]
                    sizes = (rows.step_rows * window.row_bytes, rows.new_row * window.row_bytes)
                    channels = 1 if window.row_major else window.shape[2]
                    self._carry(f"window{index}", *sizes, channels, window.channel_bytes)

    def _rows_of(self, index: int, step: Index) -> tuple[Index, Index]:
        """Return the first row a layer computes in a step, and how many."""
        rows = self.plan[index]
        if self.steps == 1:
            return 0, rows.height

        def bound(at: Index) -> Index:
            return T.min(T.max(at * rows.rows - rows.lag, 0), rows.height)

        first = bound(step)
        return first, bound(step + 1) - first

    def _in_blocks(self, group: Sequence[int], step: Index, first: Index, count: Index) -> None:
        rows, block = self.plan[group[-1]].rows, self.block_rows(group)
        if block >= rows:
            self._when(count, partial(self._rows_computed, group, step, first, count))
        elif block == 1:
            with self._loop("row", count) as row:
                self._rows_computed(group, step, first + row, 1)
        else:
            with self._loop("block", -(-rows // block)) as turn:
                rest = T.min(count - turn * block, block)
                # Whole blocks in one step need no test.
                whole = isinstance(count, int) and count % block == 0
                emit = partial(self._rows_computed, group, step, first + turn * block, block if whole else rest)
                self._when(block if whole else rest, emit)

    def _rows_computed(self, group: Sequence[int], step: Index, first: Index, count: Index) -> None:
        """Emit a group's rows and, where the output is planes in the order of rows, the borders of its rows."""
        self._compute(group, step, first, count)
        last = group[-1] == len(self.layers) - 1
        if not (last and self.target.planar and self.target.row_major):
            return
        # After the rows: borders may fall on input that these were computed from.
        height, top, bottom = self.target.shape[0], self.target.border[0], self.target.border[2]
        self._fill_columns("output", self.target, self.border, first + top, count)
        if top:
            self._if(first == 0, partial(self._fill_rows, "output", self.target, self.border, 0, top))
        if bottom:
            below = partial(self._fill_rows, "output", self.target, self.border, top + height, bottom)
            self._if(first + count == height, below)

    def _if(self, condition: tirx.Expr | bool, emit: Callable[[], None]) -> None:
        if isinstance(condition, bool):
            if condition:
                emit()
            return
        with T.If(condition), T.Then():
            emit()

    def _when(self, count: Index, emit: Callable[[], None]) -> None:
        """Emit under the condition that there are rows: the kernels' loops run at least once."""
        self._if(count > 0, emit)

    # ---- the image ----------------------------------------------------------------------------------------------

    def _image_at(self, layer: ConvolutionLayer, row: Index) -> tuple[str, Index]:
        """Return where the image's rows under the kernel begin for a row of the output: buffer and element."""
        _, width, channels = layer.input_shape
        if self.streamed:
            return "image", 0
        return "input0", (row * layer.stride[0] - layer.padding[0]) * (width * channels)

    def _rows_inside(self, layer: ConvolutionLayer) -> bool:
        """Tell whether the kernel never passes the image's top or bottom, or the rows beyond them are read as well."""
        last = (layer.output_shape[0] - 1) * layer.stride[0] - layer.padding[0] + layer.kernel[0] - 1
        return self.streamed or (layer.padding[0] == 0 and last < layer.input_shape[0])

    def _read_rows(self, layer: ConvolutionLayer, row: Index) -> None:
        """Emit the reading of the rows under the kernel that the output row before did not have."""
        if not self.streamed:
            return
        kernel, stride = layer.kernel[0], layer.stride[0]
        kept = max(kernel - stride, 0)
        row_bytes = layer.input_shape[1] * layer.input_shape[2]

        def read(taps: range) -> None:
            with self._loop("tap", len(taps)) as tap:
                line = row * stride - layer.padding[0] + tap + taps.start
                place = self._at("image", (tap + taps.start) * row_bytes)
                with T.If(tirx.all(line >= 0, line < layer.input_shape[0])):
                    with T.Then():
                        self._call(READ_ROW, line, place)
                    with T.Else():
                        self._call("memset", place, layer.input_zero_point, row_bytes)

        with T.If(tirx.all(row == 0)):
            with T.Then():
                read(range(kernel))
            with T.Else():
                if kept:
                    self._carry("image", stride * row_bytes, kept * row_bytes, 1, row_bytes)
                read(range(kept, kernel))

    def _add_multipliers(self, index: int) -> tuple[int, int]:
        """Return the multipliers of an add's shortcut, the chain's input, and of what came through the chain."""
        layer, through = self.layers[index], self.layers[index - 1]
        assert isinstance(layer, Add) and isinstance(through, ConvolutionLayer)
        p = layer.parameters
        swapped = layer.source_a == through.name
        return (p.multiplier_b, p.multiplier_a) if swapped else (p.multiplier_a, p.multiplier_b)

    # ---- borders and carrying ------------------------------------------------------------------------------------

    def _window_position(self, index: int, step: Index, row: Index) -> Index:
        """Return where in the window before a layer a row of its input lies."""
        rows = self.plan[index]
        base = 0 if self.steps == 1 else step * rows.step_rows
        return row - base - rows.first_row

    def _border_value(self, index: int) -> int:
        """Return what the border of a depthwise layer's input is made of; behind the last layer, of the output."""
        if index == len(self.layers):
            return self.border
        layer = self.layers[index]
        assert isinstance(layer, DepthwiseLayer)
        return layer.input_zero_point

    def _fill_below(self, index: int, step: Index) -> None:
        """Emit the border below the image, in the steps whose new rows pass its end."""
        layer, rows, window = self.layers[index], self.plan[index], self.windows[index]
        assert isinstance(layer, DepthwiseLayer)
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


def _groups(layers: Sequence[Link]) -> list[list[int]]:
    groups: list[list[int]] = []
    for index, layer in enumerate(layers):
        joins = isinstance(layer, AddLayer) or (index > 0 and isinstance(layers[index - 1], DepthwiseLayer))
        if joins:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


_SHORT = {
    "conv2d": "conv",
    "depthwise_conv2d": "dw",
    "pointwise_conv2d": "pw",
    "fully_connected": "pw",
    "add": "add",
    "average_pool": "average",
    "gather": "gather",
}
