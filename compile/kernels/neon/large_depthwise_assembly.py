"""Depthwise 5x5 and 7x7 kernels: some neighbouring outputs of a row at a time, row of taps by row.

The taps of a row stand in registers, its columns move along beside them; a group of outputs is a loop over the kernel's
rows. What a function is made for has the width of a row in it, so that columns beyond the image are known where the
code is written. The products of int8 of a row of taps are added up in int16, in as few parts as the weights allow
(`accumulation.fewest_parts`), and each part in int32.

The functions have `depthwise_assembly`'s arguments, of which `width` isn't asked; `rows` are as many for the first
output row as the kernel has. Parameters: weights int8 ``[K * K][16]``, else the same.
"""

from __future__ import annotations

import functools
import itertools
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from thumbnet.compile.kernels.neon.assembly import Epilogue, Function

#: How the taps of a kernel's row are parted, by columns and the number of parts.
ROW_PARTS: dict[int, dict[int, tuple[int, ...]]] = {
    5: {1: (5,), 2: (3, 2), 3: (2, 2, 1)},
    7: {1: (7,), 2: (4, 3), 3: (3, 2, 2), 4: (2, 2, 2, 1)},
}


@dataclass(frozen=True)
class RowShape:
    """How a row of a depthwise layer lies over its input's row.

    Parameters
    ----------
    taps : int
        Rows and columns of the kernel.
    stride : int
        Of rows and columns, 1 or 2.
    width, input_width : int
        Pixels of a row of the output and of the input.
    left : int
        Columns of padding before the first.
    """

    taps: int
    stride: int
    width: int
    input_width: int
    left: int

    def columns(self, first: int, outputs: int) -> tuple[int, ...]:
        """Return the columns under so many outputs from one on; those beyond the image are negative, or too large."""
        begin = first * self.stride - self.left
        return tuple(range(begin, begin + (outputs - 1) * self.stride + self.taps))


@dataclass(frozen=True)
class Group:
    """Outputs that are made together.

    Parameters
    ----------
    outputs : int
        How many.
    inside : tuple of bool
        Of each column under them, whether it is in the image.
    step : int
        Columns from its first one in the image to that of the next group.
    """

    outputs: int
    inside: tuple[bool, ...]
    step: int


def row_groups(shape: RowShape, most: int) -> Iterator[tuple[Group, int]]:
    """Yield the groups of a row, each of `most` outputs but for the last one, and how many alike follow each other."""
    firsts = range(0, shape.width, most)
    seen = [next(column for column in shape.columns(first, 1) if column >= 0) for first in firsts]
    groups = []
    for first, begin, then in zip(firsts, seen, [*seen[1:], seen[-1]], strict=True):
        outputs = min(most, shape.width - first)
        inside = tuple(0 <= column < shape.input_width for column in shape.columns(first, outputs))
        groups.append(Group(outputs, inside, then - begin))
    for group, alike in itertools.groupby(groups):
        yield group, len(list(alike))


class LargeDepthwise(Function):
    """A large depthwise function while it is written: what is the same on A64 and A32, for int8 and float32.

    Registers 0 to ``taps - 1`` hold a row of taps, as many behind them its columns.
    """

    #: Outputs of a group by the kernel's columns.
    most: ClassVar[dict[int, int]]

    def __init__(self, name: str, row: RowShape) -> None:
        edge = row.columns(0, row.width)[-1] + 1 - row.input_width
        shape = (row.taps, row.stride, row.width, row.left, max(edge, 0))
        super().__init__(f"{name}_{'_'.join(map(str, shape))}")
        self.shape = row

    @abstractmethod
    def begin(self, outputs: int) -> None:
        """Emit what comes before the rows of taps of so many outputs: sums that hold the bias, row and taps."""

    @abstractmethod
    def begin_taps(self) -> None:
        """Emit the loads of a row of taps, and the address of its input's row."""

    @abstractmethod
    def load(self, register: int) -> None:
        """Emit the load of the row's next column."""

    @abstractmethod
    def products(self, output: int, columns: list[int | None]) -> None:
        """Emit a row's products for one output, from the registers of its columns; None is beyond the image."""

    @abstractmethod
    def end_taps(self, label: str) -> None:
        """Emit a jump to a label while there are rows of taps."""

    @abstractmethod
    def finish(self, outputs: int) -> None:
        """Emit what comes behind the rows of taps: the sums' way to the output."""

    @abstractmethod
    def move(self, columns: int) -> None:
        """Emit the way to columns further on."""

    @abstractmethod
    def repeat(self, label: str, times: int) -> None:
        """Emit the count of turns where `label` is to be repeated so often, or, with 0, the jump back to it."""

    def row(self) -> None:
        """Emit a row of outputs."""
        for at, (group, times) in enumerate(row_groups(self.shape, self.most[self.shape.taps])):
            turn, taps = f"turn{at}", f"taps{at}"
            if times > 1:
                self.repeat(turn, times)
            self.label(turn)
            self.begin(group.outputs)
            self.label(taps)
            self.begin_taps()
            self._row_of_taps(group)
            self.end_taps(taps)
            self.finish(group.outputs)
            if group.step:
                self.move(group.step)
            if times > 1:
                self.repeat(turn, 0)

    def _row_of_taps(self, group: Group) -> None:
        taps, stride = self.shape.taps, self.shape.stride
        loaded = 0
        for output in range(group.outputs):
            needed = range(output * stride, output * stride + taps)
            for column in range(loaded, needed.stop):
                if group.inside[column]:
                    self.load(taps + column % taps)
            loaded = needed.stop
            self.products(output, [taps + column % taps if group.inside[column] else None for column in needed])

    def row_instructions(self) -> int:
        """Return the instructions of a row of outputs."""
        labels, total = self.labels, 0
        groups = list(row_groups(self.shape, self.most[self.shape.taps]))
        for at, (_, times) in enumerate(groups):
            behind = labels[f"turn{at + 1}"] if at + 1 < len(groups) else labels["done"]
            body = labels[f"rows_end{at}"] - labels[f"taps{at}"]
            total += times * (behind - labels[f"turn{at}"] + (self.shape.taps - 1) * body)
        return total


class _A64LargeDepthwise(LargeDepthwise):
    """In A64, sixteen channels of int8: sums from v14 or v10 on, a part's in v26 and v27, v31 the padding."""

    most: ClassVar[dict[int, int]] = {5: 4, 7: 3}
    _LOW, _HIGH, _PADDING = 26, 27, 31

    def __init__(self, row: RowShape, parts: int, epilogue: Epilogue) -> None:
        super().__init__(f"depthwise_large_{parts}{epilogue.suffix}", row)
        self.parts, self.epilogue = ROW_PARTS[row.taps][parts], epilogue

    def _sums(self, output: int) -> range:
        first = 2 * self.shape.taps + 4 * output
        return range(first, first + 4)

    def begin(self, outputs: int) -> None:
        for output in range(outputs):
            sums = self._sums(output)
            self.emit(f"ld1 {{v{sums[0]}.4s-v{sums[-1]}.4s}}, [x15]")
        self.emit("mov x9, x0", "mov x10, x5", f"mov w12, #{self.shape.taps}")

    def begin_taps(self) -> None:
        self.emit("ldr x8, [x9], #8", "add x8, x8, x11", "ld1 {v0.16b-v3.16b}, [x10], #64")
        rest = self.shape.taps - 4
        last = f"-v{3 + rest}.16b" if rest > 1 else ""
        self.emit(f"ld1 {{v4.16b{last}}}, [x10], #{16 * rest}")

    def load(self, register: int) -> None:
        self.emit(f"ld1 {{v{register}.16b}}, [x8], x2")

    def products(self, output: int, columns: list[int | None]) -> None:
        low, high, sums = self._LOW, self._HIGH, self._sums(output)
        tap = 0
        for size in self.parts:
            for index in range(size):
                operation, data = "smlal" if index else "smull", columns[tap] or self._PADDING
                self.emit(f"{operation} v{low}.8h, v{data}.8b, v{tap}.8b")
                self.emit(f"{operation}2 v{high}.8h, v{data}.16b, v{tap}.16b")
                tap += 1
            for at, part in ((0, low), (2, high)):
                self.emit(f"saddw v{sums[at]}.4s, v{sums[at]}.4s, v{part}.4h")
                self.emit(f"saddw2 v{sums[at + 1]}.4s, v{sums[at + 1]}.4s, v{part}.8h")

    def end_taps(self, label: str) -> None:
        self.emit("subs w12, w12, #1", f"b.ne {self.local(label)}")
        self.label(label.replace("taps", "rows_end"))

    def finish(self, outputs: int) -> None:
        emit, epilogue = self.emit, self.epilogue
        emit("ld1 {v0.4s-v3.4s}, [x13]", "ld1 {v4.16b-v6.16b}, [x14]")
        if epilogue.flips:
            emit("movi v4.16b, #0x80")
        for output in range(outputs):
            sums = self._sums(output)
            emit(*epilogue.shifts(sums))
            emit(*(f"sqrdmulh v{s}.4s, v{s}.4s, v{m}.4s" for m, s in enumerate(sums)))
            emit(*epilogue.halves(*sums[:2]), *epilogue.halves(*sums[2:]), *epilogue.outputs(sums[::2], 4))
            emit(*epilogue.clamps(sums[:1], 5, 6), f"st1 {{v{sums[0]}.16b}}, [x1], x7")

    def move(self, columns: int) -> None:
        self.emit(f"mov w16, #{columns}", "madd x11, x16, x2, x11")

    def repeat(self, label: str, times: int) -> None:
        if times:
            self.emit(f"mov w17, #{times}")
        else:
            self.emit("subs w17, w17, #1", f"b.ne {self.local(label)}")


@functools.cache
def large_depthwise_kernel(row: RowShape, parts: int, epilogue: Epilogue) -> LargeDepthwise:
    """Return the function for a row, sums of so many parts and an end."""
    function = _A64LargeDepthwise(row, parts, epilogue)
    emit = function.emit
    function.save_vectors()
    emit(f"add x13, x5, #{16 * row.taps**2}", "add x14, x13, #64", "add x15, x13, #128", "ldr q31, [x13, #112]")
    function.label("row")
    emit("mov x11, x6")
    function.row()
    function.label("done")
    emit(f"add x0, x0, #{8 * row.stride}", "subs x4, x4, #1", f"b.ne {function.local('row')}")
    function.restore_and_return()
    return function
