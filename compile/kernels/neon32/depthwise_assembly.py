"""Depthwise 3x3 kernels in A32: eight channels, half of what A64 does at once, in the same three columns.

    void NAME(const int8_t *const *rows, int8_t *out, long pixel_bytes, long width, long count, const void *parameters,
              long channel, long out_bytes)

As on A64 (`neon.depthwise_assembly`), with parameters for eight channels: weights int8 ``[9][8]``, multipliers int32
``[8]``, zero point int16 ``[8]``, lowest, highest, input's zero point int8 ``[8]`` each, bias int32 ``[8]``.
"""

from __future__ import annotations

import functools

from thumbnet.compile.kernels.neon.accumulation import DEPTHWISE_PARTS
from thumbnet.compile.kernels.neon.depthwise_assembly import DepthwiseFunction, DepthwiseShape
from thumbnet.compile.kernels.neon32.assembly import A32Function, requantize

#: Channels of a block.
BLOCK = 8
#: d0 to d8 are columns, d9 to d17 weights, q9 the zero point, d20 and d21 the clamp, q11 and q12 multipliers, q13 a
#: part of the sum, q14 and q15 the sum.
_WEIGHTS = 9


class _A32Depthwise(A32Function, DepthwiseFunction):
    counter, branch = "r11", "b"
    columns = ((0, 1, 2), (3, 4, 5), (6, 7, 8))

    def load(self, *columns: tuple[int, ...]) -> None:
        for column in columns:
            self.emit(*(f"vld1.8 {{d{register}}}, [r{8 + row}], r2" for row, register in enumerate(column)))

    def pad(self, column: tuple[int, ...]) -> None:
        self.emit(*(f"vldr d{register}, [r5]" for register in column))

    def branch_if_even(self, label: str) -> None:
        self.emit(f"tst {self.counter}, #1")
        self.branch_on("eq", label)

    def output(self, *columns: tuple[int, ...]) -> None:
        emit, epilogue = self.emit, self.shape.epilogue
        taps = [columns[column][row] for row in range(3) for column in range(3)]
        emit("vldmia r6, {d28-d31}")
        tap = 0
        for size in DEPTHWISE_PARTS[self.shape.parts]:
            for index in range(size):
                emit(f"{'vmlal' if index else 'vmull'}.s8 q13, d{taps[tap]}, d{_WEIGHTS + tap}")
                tap += 1
            emit("vaddw.s16 q14, q14, d26", "vaddw.s16 q15, q15, d27")
        requantize(self, (14, 15), (11, 12), epilogue)
        emit("vqmovn.s32 d28, q14", "vqmovn.s32 d29, q15", "vqadd.s16 q14, q14, q9", "vqmovn.s16 d28, q14")
        if epilogue.clamped:
            emit("vmax.s8 d28, d28, d20", "vmin.s8 d28, d28, d21")
        emit("vst1.8 {d28}, [r1], r7")


@functools.cache
def depthwise_kernel(shape: DepthwiseShape) -> A32Function:
    """Return the function for a shape."""
    function = _A32Depthwise(shape)
    emit = function.emit
    function.save_registers()
    for register, number in ((4, 5), (5, 6), (12, 7), (7, 8)):
        function.argument(register, number)
    emit("vldmia r5!, {d9-d17}", "vldmia r5!, {d22-d25}", "vldmia r5!, {d18-d21}", "add r6, r5, #8")
    function.label("row")
    emit("ldm r0, {r8-r10}", f"add r0, r0, #{4 * shape.stride}")
    emit(*(f"add r{8 + row}, r{8 + row}, r12" for row in range(3)))
    # Outputs whose right column is in the image; one more where the last one's isn't.
    emit("sub r11, r3, #1" if shape.right else "mov r11, r3")
    function.row()
    emit("subs r4, r4, #1", f"bne {function.local('row')}")
    function.restore_and_return()
    return function
