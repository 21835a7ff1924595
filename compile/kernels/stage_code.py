"""What the TIR of every kernel is written with: calls, addresses, borders, clamps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from thumbnet.compile.kernels.layouts import Layout

#: A position or a count: known, or an expression of the loops around it.
Index: TypeAlias = tirx.Expr | int


class StageCode:
    """Emits TIR into the function that is being built.

    Parameters
    ----------
    buffers : dict
        The function's parameters by name, flat.
    definitions : list of str
        C lines that define the functions called.
    """

    def __init__(self) -> None:
        self.buffers: dict[str, tirx.Buffer] = {}
        self.definitions: list[str] = []

    def _at(self, buffer: str, element: Index) -> tirx.Expr:
        return T.address_of(self.buffers[buffer][element])

    def _call(self, name: str, *arguments: Index) -> None:
        T.evaluate(T.call_extern("void", name, *arguments))

    def _fill(self, place: tirx.Expr, value: int, count: Index) -> None:
        """Fill `count` bytes; C's memset takes how many as an unsigned number."""
        self._call("memset", place, value, count if isinstance(count, int) else count.astype("uint32"))

    def _define(self, macro: str, name: str, *arguments: object) -> str:
        self.definitions.append(f"TN_DEF_{macro}({', '.join([name, *map(str, arguments)])})")
        return name

    def _define_shaped(self, macro: str, stem: str, *shape: int) -> str:
        """Define a kernel that is made of its constants alone, and named by them."""
        name = "_".join([stem, *(f"m{-value}" if value < 0 else str(value) for value in shape)])
        return self._define(macro, name, *shape)

    @contextmanager
    def _loop(self, name: str, count: Index) -> Iterator[tirx.Var]:
        """Emit a loop that runs from 0 to before `count`; the generated C calls its variable `name`."""
        with T.serial(0, count) as variable:
            IRBuilder.name(name, variable)
            yield variable

    @contextmanager
    def _loops(self, **counts: Index) -> Iterator[list[tirx.Var]]:
        """Emit loops in each other, the outermost first, by the names of their variables."""
        with T.grid(*counts.values()) as variables:
            for name, variable in zip(counts, variables, strict=True):
                IRBuilder.name(name, variable)
            yield list(variables)

    def _fill_rows(self, buffer: str, layout: Layout, value: int, first: Index, count: Index) -> None:
        if isinstance(count, int) and count <= 0:
            return
        pitch = layout.border[1] + layout.shape[1] + layout.border[3]
        row, plane = layout.row_bytes // layout.element_bytes, layout.channel_bytes // layout.element_bytes
        if not layout.planar:
            # Pixels: of int8, or of float32 and filled with zeros.
            self._fill(self._at(buffer, first * row), value, count * layout.row_bytes)
            return
        if layout.element_bytes == 1:
            if layout.row_major:
                self._fill(self._at(buffer, first * row), value, count * row)
                return
            with self._loop("channel", layout.shape[2]) as channel:
                self._fill(self._at(buffer, channel * plane + first * row), value, count * pitch)
            return
        with self._loops(channel=layout.shape[2], row=count, column=pitch) as (channel, y, x):
            at = channel * plane + (first + y) * row + x
            T.buffer_store(self.buffers[buffer], tirx.const(value, layout.dtype), [at])

    def _fill_columns(
        self, buffer: str, layout: Layout, value: int, first: Index, count: Index, *, right_only: bool = False
    ) -> None:
        left, width, right = layout.border[1], layout.shape[1], layout.border[3]
        row, plane = layout.row_bytes // layout.element_bytes, layout.channel_bytes // layout.element_bytes
        columns = [left + width + x for x in range(right)]
        if not right_only:
            columns = [*range(left), *columns]
        if not columns:
            return
        with self._loops(channel=layout.shape[2], row=count) as (channel, y):
            for column in columns:
                at = channel * plane + (first + y) * row + column
                T.buffer_store(self.buffers[buffer], tirx.const(value, layout.dtype), [at])

    def _clamp(self, buffer: str, element: Index, lowest: int, highest: int) -> None:
        value = T.max(T.min(self.buffers[buffer][element], highest), lowest)
        T.buffer_store(self.buffers[buffer], value, [element])
