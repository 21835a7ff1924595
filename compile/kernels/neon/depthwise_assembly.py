"""Depthwise 3x3 kernels: sixteen channels, a row of outputs from three columns that move along in registers.

The nine products of a channel are added up in int16, in as few parts as the weights allow
(`accumulation.fewest_parts`), and each part in int32.

    void NAME(const int8_t *const *rows, int8_t *out, long pixel_bytes, long width, long count, const void *parameters,
              long channel, long out_bytes)

computes `count` rows of `width` outputs. `rows` are the input's rows, three for the first output row and as many more
as the stride for each further one; `channel` is the first channel's offset in a pixel. Parameters: weights int8
``[9][16]``, multipliers int32 ``[16]``, zero point int16 ``[8]``, lowest, highest, input's zero point int8 ``[16]``
each, bias int32 ``[16]``.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from thumbnet.compile.kernels.neon.accumulation import DEPTHWISE_PARTS
from thumbnet.compile.kernels.neon.assembly import Epilogue, Function

#: Channels of a block.
BLOCK = 16


@dataclass(frozen=True)
class DepthwiseShape:
    """What a depthwise function is made for.

    Parameters
    ----------
    stride : int
        Of rows and columns, 1 or 2.
    parts : int
        A key of `DEPTHWISE_PARTS`.
    left, right : bool
        Whether the first output's left column, and the last one's right column, are padding.
    epilogue : Epilogue
        Of its requantization.
    """

    stride: int
    parts: int
    left: bool
    right: bool
    epilogue: Epilogue


class DepthwiseFunction(Function):
    """A depthwise function while it is written; a column is the registers of its three rows.

    What is the same on A64 and A32: how the columns of a row follow each other.
    """

    #: What the functions' names begin with.
    stem: ClassVar[str] = "depthwise3x3"
    #: The register that counts a row's outputs, and what the mnemonics of conditional branches begin with.
    counter: ClassVar[str]
    branch: ClassVar[str]
    columns: ClassVar[tuple[tuple[int, ...], ...]]

    def __init__(self, shape: DepthwiseShape) -> None:
        edges = ("l" if shape.left else "") + ("r" if shape.right else "")
        super().__init__(f"{self.stem}s{shape.stride}_{shape.parts}{edges}{shape.epilogue.suffix}")
        self.shape = shape

    @abstractmethod
    def load(self, *columns: tuple[int, ...]) -> None:
        """Emit the loads of the next columns."""

    @abstractmethod
    def pad(self, column: tuple[int, ...]) -> None:
        """Emit a column of padding."""

    @abstractmethod
    def output(self, *columns: tuple[int, ...]) -> None:
        """Emit an output of three columns."""

    @abstractmethod
    def branch_if_even(self, label: str) -> None:
        """Emit a branch that is taken where the counter is even."""

    def count_by(self, operation: str, amount: int) -> None:
        """Emit an addition to the counter, or a subtraction, that sets the flags."""
        self.emit(f"{operation} {self.counter}, {self.counter}, #{amount}")

    def branch_on(self, condition: str, label: str) -> None:
        """Emit a conditional branch."""
        self.emit(f"{self.branch}{condition} {self.local(label)}")

    def row(self) -> None:
        """Emit a row, which ends at the label ``done``; the counter is the outputs whose right column is no padding."""
        (self.pad if self.shape.left else self.load)(self.columns[0])
        if self.shape.stride == 1:
            self._row_of_stride_1()
        else:
            self._row_of_stride_2()
        self.label("done")

    def _row_of_stride_1(self) -> None:
        """Emit a row: three outputs a turn, after which the columns stand where they stood; then none, one or two."""
        a, b, c = self.columns
        turns = ((a, b, c), (b, c, a), (c, a, b))
        self.load(b)
        self.count_by("subs", 3)
        self.branch_on("lt", "rest")
        self.label("three")
        for columns in turns:
            self.load(columns[2])
            self.output(*columns)
        self.count_by("subs", 3)
        self.branch_on("ge", "three")
        self.label("rest")
        self.count_by("adds", 2)
        self.branch_on("eq", "one")
        self.branch_on("gt", "two")
        for name, count in (("none", 0), ("one", 1), ("two", 2)):
            self.label(name)
            for columns in turns[:count]:
                self.load(columns[2])
                self.output(*columns)
            if self.shape.right:
                self.pad(turns[count][2])
                self.output(*turns[count])
            if name != "two":
                self.emit(f"b {self.local('done')}")

    def _row_of_stride_2(self) -> None:
        """Emit a row: two outputs a turn, then none or one."""
        a, b, c = self.columns
        self.count_by("subs", 2)
        self.branch_on("lt", "rest")
        self.label("two")
        for columns in ((a, b, c), (c, b, a)):
            self.load(*columns[1:])
            self.output(*columns)
        self.count_by("subs", 2)
        self.branch_on("ge", "two")
        self.label("rest")
        self.branch_if_even("even")
        self.load(b, c)
        self.output(a, b, c)
        if self.shape.right:
            self.load(b)
            self.pad(a)
            self.output(c, b, a)
        self.emit(f"b {self.local('done')}")
        self.label("even")
        if self.shape.right:
            self.load(b)
            self.pad(c)
            self.output(a, b, c)


class A64Depthwise(DepthwiseFunction):
    """A depthwise function in A64, sixteen channels at once."""

    counter, branch = "x11", "b."
    columns: ClassVar[tuple[tuple[int, ...], ...]] = ((14, 15, 16), (17, 18, 19), (20, 21, 22))

    def load(self, *columns: tuple[int, ...]) -> None:
        """Emit the loads of the next columns."""
        for column in columns:
            self.emit(*(f"ld1 {{v{register}.16b}}, [x{8 + row}], x2" for row, register in enumerate(column)))

    def pad(self, column: tuple[int, ...]) -> None:
        """Emit a column of padding."""
        self.emit(*(f"mov v{register}.16b, v31.16b" for register in column))

    def output(self, *columns: tuple[int, ...]) -> None:
        """Emit an output of three columns."""
        _output(self, columns, DEPTHWISE_PARTS[self.shape.parts], self.shape.epilogue)

    def branch_if_even(self, label: str) -> None:
        """Emit a branch that is taken where the counter is even."""
        self.emit(f"tbz {self.counter}, #0, {self.local(label)}")

    def rows(self) -> None:
        """Emit all rows."""
        self.label("row")
        self.emit("ldp x8, x9, [x0]", "ldr x10, [x0, #16]", f"add x0, x0, #{8 * self.shape.stride}")
        self.emit(*(f"add x{8 + row}, x{8 + row}, x6" for row in range(3)))
        # Outputs whose right column is in the image; one more where the last one's isn't.
        self.emit("sub x11, x3, #1" if self.shape.right else "mov x11, x3")
        self.row()
        self.emit("subs x4, x4, #1", f"b.ne {self.local('row')}")


def output_instructions(function: Function) -> float:
    """Return the instructions of one output in the loop of a depthwise function."""
    labels = function.labels
    begin, outputs = ("three", 3) if "three" in labels else ("two", 2)
    return (labels["rest"] - labels[begin]) / outputs


@functools.cache
def depthwise_kernel(shape: DepthwiseShape) -> Function:
    """Return the function for a shape."""
    function = A64Depthwise(shape)
    emit = function.emit
    function.save_vectors()
    emit("ld1 {v0.16b-v3.16b}, [x5], #64", "ld1 {v4.16b-v7.16b}, [x5], #64", "ld1 {v8.16b}, [x5], #16")
    emit("ld1 {v9.4s-v12.4s}, [x5], #64", "ld1 {v13.16b}, [x5], #16", "ld1 {v29.16b-v31.16b}, [x5], #48")
    if shape.epilogue.flips:
        emit("movi v13.16b, #0x80")
    function.rows()
    function.restore_and_return()
    return function


def _output(
    function: Function, columns: tuple[tuple[int, ...], ...], parts: tuple[int, ...], epilogue: Epilogue
) -> None:
    """Emit sixteen channels of one output: v0 to v8 are weights, v9 to v12 multipliers, v13 the zero point."""
    emit = function.emit
    taps = [columns[column][row] for row in range(3) for column in range(3)]
    emit("ld1 {v25.4s-v28.4s}, [x5]")
    tap = 0
    for size in parts:
        for index in range(size):
            operation = "smlal" if index else "smull"
            emit(
                f"{operation} v23.8h, v{taps[tap]}.8b, v{tap}.8b", f"{operation}2 v24.8h, v{taps[tap]}.16b, v{tap}.16b"
            )
            tap += 1
        emit("saddw v25.4s, v25.4s, v23.4h", "saddw2 v26.4s, v26.4s, v23.8h")
        emit("saddw v27.4s, v27.4s, v24.4h", "saddw2 v28.4s, v28.4s, v24.8h")
    emit(*epilogue.shifts(range(25, 29)))
    emit(*(f"sqrdmulh v{25 + i}.4s, v{25 + i}.4s, v{9 + i}.4s" for i in range(4)))
    emit(*epilogue.halves(25, 26), *epilogue.halves(27, 28), *epilogue.outputs((25, 27), 13))
    emit(*epilogue.clamps([25], 29, 30))
    emit("st1 {v25.16b}, [x1], x7")
