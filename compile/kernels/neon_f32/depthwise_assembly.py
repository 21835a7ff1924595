"""Depthwise 3x3 kernels in float32: four channels, some rows of outputs from three columns that move along.

    void NAME(const float *const *rows, float *out, long pixel_bytes, long width, long count, const float *parameters,
              long channel, long out_bytes)

computes `count` rows of `width` outputs. `rows` are the input's rows, three for the first output row and as many more
as the stride for each further one; `channel` is the first channel's offset in a pixel, in bytes. Parameters: weights
``[9][4]``, lowest, highest, bias and bias again ``[4]`` each. Taps are added up column by column, each rounded once,
columns beyond the image left out.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

from thumbnet.compile.kernels.neon.assembly import Function
from thumbnet.compile.kernels.neon_f32.clamp import Clamp

#: Channels of a block, and floats of its parameters.
BLOCK, PARAMETER_FLOATS = 4, 52
#: Rows of outputs at once by stride: as many as 32 registers hold the columns of, the rest by its binary digits.
ROWS = {1: (4, 2, 1), 2: (2, 1)}
_LOW, _HIGH, _FIRST_COLUMN, _SUMS = 9, 10, 11, (30, 31)
#: Where the rows of outputs are written.
_OUTPUTS = ("x1", "x15", "x16", "x17")

Column = list[int]


@dataclass(frozen=True)
class FloatDepthwiseShape:
    """What a depthwise function is made for.

    Parameters
    ----------
    stride : int
        Of rows and columns, 1 or 2.
    left, right : bool
        Whether the first output's left column, and the last one's right column, are beyond the image.
    lone : bool
        Whether a row is one output.
    clamp : Clamp
        At its end.
    """

    stride: int
    left: bool
    right: bool
    lone: bool
    clamp: Clamp


class _Rows:
    """The code for some rows of outputs at once; a column is the registers of its input rows."""

    def __init__(self, function: Function, shape: FloatDepthwiseShape, rows: int) -> None:
        self.function, self.shape, self.rows, self.emit = function, shape, rows, function.emit
        self.input_rows = (rows - 1) * shape.stride + 3
        registers = iter(range(_FIRST_COLUMN, _SUMS[0]))
        self.columns = [[next(registers) for _ in range(self.input_rows)] for _ in range(3)]
        self.outputs = _OUTPUTS[:rows]

    def label(self, name: str) -> None:
        """Set a label of these rows."""
        self.function.label(f"{name}{self.rows}")

    def local(self, name: str) -> str:
        """Return a label of these rows as instructions name it."""
        return self.function.local(f"{name}{self.rows}")

    def load(self, *columns: Column) -> None:
        """Emit the loads of the next columns."""
        for column in columns:
            self.emit(*(f"ld1 {{v{register}.4s}}, [x{8 + row}], x2" for row, register in enumerate(column)))

    def output(self, *columns: Column | None) -> None:
        """Emit the outputs of three columns, two rows at a time; None is a column beyond the image."""
        seen = [(x, column) for x, column in enumerate(columns) if column]
        for first in range(0, self.rows, 2):
            outputs = self.outputs[first : first + 2]
            sums = _SUMS[: len(outputs)]
            self.emit("ldp q30, q31, [x5]" if len(sums) == 2 else "ldr q30, [x5]")
            for (x, column), y in itertools.product(seen, range(3)):
                for row, sum_ in enumerate(sums, first):
                    self.emit(f"fmla v{sum_}.4s, v{column[row * self.shape.stride + y]}.4s, v{3 * y + x}.4s")
            self.emit(*self.shape.clamp.instructions(sums, _LOW, _HIGH))
            self.emit(*(f"st1 {{v{sum_}.4s}}, [{to}], x7" for sum_, to in zip(sums, outputs, strict=True)))

    def compute(self) -> None:
        """Emit these rows, from the pointers to their input to the one to the output behind them."""
        pointers = [f"x{8 + row}" for row in range(self.input_rows)]
        if self.rows > 1:
            self.emit("mul x14, x3, x7")
            self.emit(*(f"add {to}, {before}, x14" for before, to in itertools.pairwise(self.outputs)))
        for row in range(0, self.input_rows - 1, 2):
            self.emit(f"ldp {pointers[row]}, {pointers[row + 1]}, [x0, #{8 * row}]")
        if self.input_rows % 2:
            self.emit(f"ldr {pointers[-1]}, [x0, #{8 * (self.input_rows - 1)}]")
        self.emit(f"add x0, x0, #{8 * self.shape.stride * self.rows}")
        self.emit(*(f"add {pointer}, {pointer}, x6" for pointer in pointers))
        if self.shape.lone:
            self._lone_output()
        else:
            # Outputs with all three columns.
            self.emit(f"sub x14, x3, #{self.shape.left + self.shape.right}")
            (self._stride_1 if self.shape.stride == 1 else self._stride_2)()
        self.label("done")
        if self.rows > 1:
            self.emit(f"mov x1, {self.outputs[-1]}")

    def _lone_output(self) -> None:
        a, b, c = self.columns
        seen = (None if self.shape.left else a, b, None if self.shape.right else c)
        self.load(*(column for column in seen if column))
        self.output(*seen)

    def _stride_1(self) -> None:
        """Emit three outputs a turn, after which the columns stand where they stood; then none, one or two."""
        a, b, c = self.columns
        turns = ((a, b, c), (b, c, a), (c, a, b))
        self.load(a, b)
        if self.shape.left:
            self.output(None, a, b)
        self.emit("subs x14, x14, #3", f"b.lt {self.local('rest')}")
        self.label("turn")
        for columns in turns:
            self.load(columns[2])
            self.output(*columns)
        self.emit("subs x14, x14, #3", f"b.ge {self.local('turn')}")
        self.label("rest")
        self.emit("adds x14, x14, #2", f"b.eq {self.local('one_of_')}", f"b.gt {self.local('two_of_')}")
        for name, count in (("none_of_", 0), ("one_of_", 1), ("two_of_", 2)):
            self.label(name)
            for columns in turns[:count]:
                self.load(columns[2])
                self.output(*columns)
            if self.shape.right:
                self.output(*turns[count][:2], None)
            if count < 2:
                self.emit(f"b {self.local('done')}")

    def _stride_2(self) -> None:
        """Emit two outputs a turn, then none or one."""
        a, b, c = self.columns
        if self.shape.left:
            self.load(b, a)
            self.output(None, b, a)
        else:
            self.load(a)
        self.emit("subs x14, x14, #2", f"b.lt {self.local('rest')}")
        self.label("turn")
        for columns in ((a, b, c), (c, b, a)):
            self.load(*columns[1:])
            self.output(*columns)
        self.emit("subs x14, x14, #2", f"b.ge {self.local('turn')}")
        self.label("rest")
        self.emit(f"tbz x14, #0, {self.local('even')}")
        self.load(b, c)
        self.output(a, b, c)
        if self.shape.right:
            self.load(b)
            self.output(c, b, None)
        self.emit(f"b {self.local('done')}")
        self.label("even")
        if self.shape.right:
            self.load(b)
            self.output(a, b, None)


@functools.cache
def depthwise_kernel(shape: FloatDepthwiseShape) -> Function:
    """Return the function for a shape."""
    edges = ("l" if shape.left else "") + ("r" if shape.right else "") + ("1" if shape.lone else "")
    function = Function(f"depthwise_f32_s{shape.stride}{edges}{shape.clamp.suffix}")
    emit, local = function.emit, function.local
    function.save_vectors()
    emit("ld1 {v0.4s-v3.4s}, [x5], #64", "ld1 {v4.4s-v7.4s}, [x5], #64", "ld1 {v8.4s-v10.4s}, [x5], #48")
    most = ROWS[shape.stride][0]
    for rows, fewer in itertools.pairwise((*ROWS[shape.stride], 0)):
        function.label(f"rows{rows}")
        if rows == most:
            emit(f"subs x4, x4, #{rows}", f"b.lt {local(f'rows{fewer}')}")
        else:
            emit(f"tbz x4, #{rows.bit_length() - 1}, {local(f'rows{fewer}')}")
        _Rows(function, shape, rows).compute()
        if rows == most:
            emit(f"b {local(f'rows{rows}')}")
    function.label("rows0")
    function.restore_and_return()
    return function


def depthwise_instructions(shape: FloatDepthwiseShape, width: int, count: int) -> float:
    """Return the instructions of so many rows of four channels, nearly."""
    labels = depthwise_kernel(shape).labels
    total = 20.0
    for rows in ROWS[shape.stride]:
        times, count = divmod(count, rows)
        around = labels[f"done{rows}"] - labels[f"rows{rows}"] + 3
        if not shape.lone:
            turn, outputs = labels[f"rest{rows}"] - labels[f"turn{rows}"], 3 if shape.stride == 1 else 2
            # The last output's column beyond the image is counted like the others.
            before = labels[f"turn{rows}"] - labels[f"rows{rows}"]
            around = before + round((width - shape.left) * turn / outputs) + 8
        total += times * around
    return total
