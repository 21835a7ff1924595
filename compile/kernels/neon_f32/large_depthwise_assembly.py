"""Depthwise 5x5 and 7x7 kernels in float32: four channels, eight neighbouring outputs of a row at a time.

The functions have `depthwise_assembly`'s arguments, of which `width` isn't asked, and parameters: weights
``[K * K][4]``, lowest, highest, bias and bias again ``[4]`` each. Taps are added up row by row, each rounded once,
columns beyond the image left out.
"""

from __future__ import annotations

import functools
from typing import ClassVar

from thumbnet.compile.kernels.neon.large_depthwise_assembly import LargeDepthwise, RowShape
from thumbnet.compile.kernels.neon_f32.clamp import Clamp

_LOW, _HIGH = 30, 31


class _FloatLargeDepthwise(LargeDepthwise):
    """Sums stand behind taps and columns, from v14 or v10 on."""

    most: ClassVar[dict[int, int]] = {5: 8, 7: 8}

    def __init__(self, row: RowShape, clamp: Clamp) -> None:
        super().__init__(f"depthwise_f32_large{clamp.suffix}", row)
        self.clamp = clamp

    def _sum(self, output: int) -> int:
        return 2 * self.shape.taps + output

    def begin(self, outputs: int) -> None:
        self.emit(*(f"ldr q{self._sum(output)}, [x13]" for output in range(outputs)))
        self.emit("mov x9, x0", "mov x10, x5", f"mov w12, #{self.shape.taps}")

    def begin_taps(self) -> None:
        rest = self.shape.taps - 4
        last = f"-v{3 + rest}.4s" if rest > 1 else ""
        self.emit("ldr x8, [x9], #8", "add x8, x8, x11", "ld1 {v0.4s-v3.4s}, [x10], #64")
        self.emit(f"ld1 {{v4.4s{last}}}, [x10], #{16 * rest}")

    def load(self, register: int) -> None:
        self.emit(f"ld1 {{v{register}.4s}}, [x8], x2")

    def products(self, output: int, columns: list[int | None]) -> None:
        for tap, register in enumerate(columns):
            if register is not None:
                self.emit(f"fmla v{self._sum(output)}.4s, v{register}.4s, v{tap}.4s")

    def end_taps(self, label: str) -> None:
        self.emit("subs w12, w12, #1", f"b.ne {self.local(label)}")
        self.label(label.replace("taps", "rows_end"))

    def finish(self, outputs: int) -> None:
        sums = [self._sum(output) for output in range(outputs)]
        self.emit(*self.clamp.instructions(sums, _LOW, _HIGH))
        self.emit(*(f"st1 {{v{sum_}.4s}}, [x1], x7" for sum_ in sums))

    def move(self, columns: int) -> None:
        self.emit(f"mov w16, #{columns}", "madd x11, x16, x2, x11")

    def repeat(self, label: str, times: int) -> None:
        if times:
            self.emit(f"mov w17, #{times}")
        else:
            self.emit("subs w17, w17, #1", f"b.ne {self.local(label)}")


@functools.cache
def large_depthwise_kernel(row: RowShape, clamp: Clamp) -> LargeDepthwise:
    """Return the function for a row and a clamp."""
    function = _FloatLargeDepthwise(row, clamp)
    emit = function.emit
    function.save_vectors()
    emit(f"add x14, x5, #{16 * row.taps**2}", "add x13, x14, #32", f"ld1 {{v{_LOW}.4s, v{_HIGH}.4s}}, [x14]")
    function.label("row")
    emit("mov x11, x6")
    function.row()
    function.label("done")
    emit(f"add x0, x0, #{8 * row.stride}", "subs x4, x4, #1", f"b.ne {function.local('row')}")
    function.restore_and_return()
    return function
