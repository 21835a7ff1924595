"""Depthwise 5x5 and 7x7 kernels in A32: eight channels, half of what A64 does at once, in the same groups of outputs.

As on A64 (`neon.large_depthwise_assembly`), with the parameters of `depthwise_assembly` but for the weights: int8
``[K * K][8]``.
"""

from __future__ import annotations

import functools
from typing import ClassVar

from thumbnet.compile.kernels.neon.assembly import Epilogue
from thumbnet.compile.kernels.neon.large_depthwise_assembly import ROW_PARTS, LargeDepthwise, RowShape
from thumbnet.compile.kernels.neon32.assembly import A32Function, d_list, requantize

#: d0 to d6 are taps, d7 to d13 columns (of 5x5 d0 to d9), q7 or q5 to q12 sums, q14 a part of one, d30 the padding.
_PART, _PADDING = 14, 30


class _A32LargeDepthwise(A32Function, LargeDepthwise):
    most: ClassVar[dict[int, int]] = {5: 4, 7: 3}

    def __init__(self, row: RowShape, parts: int, epilogue: Epilogue) -> None:
        super().__init__(f"depthwise_large_{parts}{epilogue.suffix}", row)
        self.parts, self.epilogue = ROW_PARTS[row.taps][parts], epilogue

    def _sums(self, output: int) -> tuple[int, int]:
        first = self.shape.taps + 2 * output
        return first, first + 1

    def begin(self, outputs: int) -> None:
        self.emit("add lr, r6, #72")
        self.emit(*(f"vldmia lr, {d_list(2 * self._sums(output)[0], 4)}" for output in range(outputs)))
        self.emit("mov r9, r0", "mov r10, r5", f"mov lr, #{self.shape.taps}")

    def begin_taps(self) -> None:
        self.emit("ldr r8, [r9], #4", "add r8, r8, r11", f"vldmia r10!, {d_list(0, self.shape.taps)}")

    def load(self, register: int) -> None:
        self.emit(f"vld1.8 {{d{register}}}, [r8], r2")

    def products(self, output: int, columns: list[int | None]) -> None:
        low, high = self._sums(output)
        tap = 0
        for size in self.parts:
            for index in range(size):
                self.emit(f"{'vmlal' if index else 'vmull'}.s8 q{_PART}, d{columns[tap] or _PADDING}, d{tap}")
                tap += 1
            self.emit(f"vaddw.s16 q{low}, q{low}, d{2 * _PART}", f"vaddw.s16 q{high}, q{high}, d{2 * _PART + 1}")

    def end_taps(self, label: str) -> None:
        self.emit("subs lr, lr, #1", f"bne {self.local(label)}")
        self.label(label.replace("taps", "rows_end"))

    def finish(self, outputs: int) -> None:
        emit, epilogue = self.emit, self.epilogue
        # Multipliers, zero point, clamp.
        emit("vldmia r6, {d0-d7}")
        for output in range(outputs):
            low, high = self._sums(output)
            requantize(self, (low, high), (0, 1), epilogue)
            emit(f"vqmovn.s32 d28, q{low}", f"vqmovn.s32 d29, q{high}", "vqadd.s16 q14, q14, q2", "vqmovn.s16 d28, q14")
            if epilogue.clamped:
                emit("vmax.s8 d28, d28, d6", "vmin.s8 d28, d28, d7")
            emit("vst1.8 {d28}, [r1], r7")

    def move(self, columns: int) -> None:
        self.emit(f"mov r8, #{columns}", "mla r11, r8, r2, r11")

    def repeat(self, label: str, times: int) -> None:
        if times:
            self.emit(f"mov r3, #{times}")
        else:
            self.emit("subs r3, r3, #1", f"bne {self.local(label)}")


@functools.cache
def large_depthwise_kernel(row: RowShape, parts: int, epilogue: Epilogue) -> LargeDepthwise:
    """Return the function for a row, sums of so many parts and an end."""
    function = _A32LargeDepthwise(row, parts, epilogue)
    emit = function.emit
    function.save_registers()
    for register, number in ((4, 5), (5, 6), (12, 7), (7, 8)):
        function.argument(register, number)
    emit(f"add r6, r5, #{8 * row.taps**2}", "vldr d30, [r6, #64]")
    function.label("row")
    emit("mov r11, r12")
    function.row()
    function.label("done")
    emit(f"add r0, r0, #{4 * row.stride}", "subs r4, r4, #1", f"bne {function.local('row')}")
    function.restore_and_return()
    return function
