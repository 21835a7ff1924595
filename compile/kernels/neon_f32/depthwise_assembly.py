"""Depthwise 3x3 kernels in float32: four channels, some rows of outputs from three columns that move along.

    void NAME(const float *const *rows, float *out, long pixel_bytes, long width, long count, const float *parameters,
              long channel, long out_bytes)

computes `count` times its rows of `width` outputs. `rows` are the input's rows that the first output row reads, and as
many more as the stride for each further one; `channel` is the first channel's offset in a pixel, in bytes. Parameters:
weights ``[9][4]``, bias, lowest, highest ``[4]`` each. Taps are added up column by column, each rounded once, columns
beyond the image left out.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

from thumbnet.compile.kernels.neon.assembly import Function
from thumbnet.compile.kernels.neon_f32.clamp import Clamp

#: Channels of a block, and floats of its parameters.
BLOCK, PARAMETER_FLOATS = 4, 48
#: Rows of outputs at once by stride: as many as 32 registers hold the columns of, the rest by its binary digits.
ROWS = {1: (4, 2, 1), 2: (2, 1)}
_BIAS, _LOW, _HIGH, _FIRST_COLUMN = 9, 10, 11, 12

Column = list[int]


@dataclass(frozen=True)
class FloatDepthwiseShape:
    """What a depthwise function is made for.

    Parameters
    ----------
    rows : int
        Of outputs at once, of `ROWS`.
    stride : int
        Of rows and columns, 1 or 2.
    left, right : bool
        Whether the first output's left column, and the last one's right column, are beyond the image.
    lone : bool
        Whether a row is one output.
    clamp : Clamp
        At its end.
    """

    rows: int
    stride: int
    left: bool
    right: bool
    lone: bool
    clamp: Clamp


class _Depthwise(Function):
    """A depthwise function while it is written; a column is the registers of its rows."""

    def __init__(self, shape: FloatDepthwiseShape) -> None:
        edges = ("l" if shape.left else "") + ("r" if shape.right else "") + ("1" if shape.lone else "")
        super().__init__(f"depthwise_f32_{shape.rows}s{shape.stride}{edges}{shape.clamp.suffix}")
        self.shape = shape
        self.input_rows = (shape.rows - 1) * shape.stride + 3
        registers = iter(range(_FIRST_COLUMN, 32))
        self.columns = [[next(registers) for _ in range(self.input_rows)] for _ in range(3)]
        #: For two rows at a time.
        self.sums = [*registers][:2]
        #: Where the rows of outputs are written.
        self.outputs = ["x1", "x5", "x16", "x17"][: shape.rows]

    def load(self, *columns: Column) -> None:
        """Emit the loads of the next columns."""
        for column in columns:
            self.emit(*(f"ld1 {{v{register}.4s}}, [x{8 + row}], x2" for row, register in enumerate(column)))

    def output(self, *columns: Column | None) -> None:
        """Emit the outputs of three columns, one a row; None is a column beyond the image."""
        for first in range(0, self.shape.rows, 2):
            outputs = self.outputs[first : first + 2]
            sums = self.sums[: len(outputs)]
            self.emit(*(f"mov v{sum_}.16b, v{_BIAS}.16b" for sum_ in sums))
            for x, column in enumerate(columns):
                for y in range(3) if column else ():
                    for row, sum_ in enumerate(sums, first):
                        assert column is not None
                        self.emit(f"fmla v{sum_}.4s, v{column[row * self.shape.stride + y]}.4s, v{3 * y + x}.4s")
            self.emit(*self.shape.clamp.instructions(sums, _LOW, _HIGH))
            self.emit(*(f"st1 {{v{sum_}.4s}}, [{to}], x7" for sum_, to in zip(sums, outputs, strict=True)))


@functools.cache
def depthwise_kernel(shape: FloatDepthwiseShape) -> Function:
    """Return the function for a shape."""
    function = _Depthwise(shape)
    emit = function.emit
    function.save_vectors()
    emit("ld1 {v0.4s-v3.4s}, [x5], #64", "ld1 {v4.4s-v7.4s}, [x5], #64", "ld1 {v8.4s-v11.4s}, [x5]", "mul x15, x3, x7")
    function.label("rows")
    emit(*(f"add {to}, {before}, x15" for before, to in itertools.pairwise(function.outputs)))
    emit(*(f"ldr x{8 + row}, [x0, #{8 * row}]" for row in range(function.input_rows)))
    emit(f"add x0, x0, #{8 * shape.stride * shape.rows}")
    emit(*(f"add x{8 + row}, x{8 + row}, x6" for row in range(function.input_rows)))
    if shape.lone:
        _lone_output(function)
    else:
        # Outputs with all three columns.
        emit(f"sub x14, x3, #{shape.left + shape.right}")
        (_row_of_stride_1 if shape.stride == 1 else _row_of_stride_2)(function)
    function.label("done")
    if shape.rows > 1:
        emit(f"mov x1, {function.outputs[-1]}")
    emit("subs x4, x4, #1", f"b.ne {function.local('rows')}")
    function.restore_and_return()
    return function


def _lone_output(function: _Depthwise) -> None:
    a, b, c = function.columns
    seen = (None if function.shape.left else a, b, None if function.shape.right else c)
    function.load(*(column for column in seen if column))
    function.output(*seen)


def _row_of_stride_1(function: _Depthwise) -> None:
    """Emit a row: three outputs a turn, after which the columns stand where they stood; then none, one or two."""
    emit, local = function.emit, function.local
    a, b, c = function.columns
    turns = ((a, b, c), (b, c, a), (c, a, b))
    function.load(a, b)
    if function.shape.left:
        function.output(None, a, b)
    emit("subs x14, x14, #3", f"b.lt {local('rest')}")
    function.label("turn")
    for columns in turns:
        function.load(columns[2])
        function.output(*columns)
    emit("subs x14, x14, #3", f"b.ge {local('turn')}")
    function.label("rest")
    emit("adds x14, x14, #2", f"b.eq {local('one')}", f"b.gt {local('two')}")
    for name, count in (("none", 0), ("one", 1), ("two", 2)):
        function.label(name)
        for columns in turns[:count]:
            function.load(columns[2])
            function.output(*columns)
        if function.shape.right:
            function.output(*turns[count][:2], None)
        if name != "two":
            emit(f"b {local('done')}")


def _row_of_stride_2(function: _Depthwise) -> None:
    """Emit a row: two outputs a turn, then none or one."""
    emit, local = function.emit, function.local
    a, b, c = function.columns
    if function.shape.left:
        function.load(b, a)
        function.output(None, b, a)
    else:
        function.load(a)
    emit("subs x14, x14, #2", f"b.lt {local('rest')}")
    function.label("turn")
    for columns in ((a, b, c), (c, b, a)):
        function.load(*columns[1:])
        function.output(*columns)
    emit("subs x14, x14, #2", f"b.ge {local('turn')}")
    function.label("rest")
    emit(f"tbz x14, #0, {local('even')}")
    function.load(b, c)
    function.output(a, b, c)
    if function.shape.right:
        function.load(b)
        function.output(c, b, None)
    emit(f"b {local('done')}")
    function.label("even")
    if function.shape.right:
        function.load(b)
        function.output(a, b, None)


def rows_instructions(shape: FloatDepthwiseShape, width: int) -> float:
    """Return the instructions of the rows of outputs that the function computes at once, nearly."""
    labels = depthwise_kernel(shape).labels
    around = labels["done"] - labels["rows"]
    if shape.lone:
        return around + 3
    turn, outputs = labels["rest"] - labels["turn"] - 2, 3 if shape.stride == 1 else 2
    before = labels["turn"] - labels["rows"]
    # The last output's column beyond the image is counted like the others.
    return before + (width - shape.left) * (turn + 2) / outputs + 8
