"""Depthwise 3x3 kernels on SDOT: sixteen channels, a row of outputs from three columns that move along in registers.

TBL interleaves the vectors of a column's three rows: four bytes a channel, the fourth of which meets a weight of zero.
An SDOT then adds up the column of four channels in int32, whatever the weights.

    void NAME(const int8_t *const *rows, int8_t *out, long pixel_bytes, long width, long count, const void *parameters,
              long channel, long out_bytes)

is `neon`'s function, but for the parameters: bias, multiplier (int32 ``[16]`` each), zero point
(`Epilogue.zero_point_vector`), lowest, highest (int8 ``[16]`` each), weights int8 ``[3 columns][16][4]``, input's zero
point int8 ``[16]``.
"""

from __future__ import annotations

import functools

from thumbnet.compile.kernels.neon.assembly import Function
from thumbnet.compile.kernels.neon.depthwise_assembly import A64Depthwise, DepthwiseShape

#: Vectors of a column, each four channels.
_VECTORS = 4
#: v0 to v11 are weights. The rows of a column lie where the sums do later, before which TBL has read them.
_SUMS, _INDICES = (24, 25, 26, 27), (28, 29, 30, 31)
_ROWS = _SUMS[:3]
#: Bytes of bias, multipliers and ends in the parameters, and all.
_MULTIPLIERS, _ENDS, _WEIGHTS, _INPUT_ZERO_POINT = 64, 128, 176, 368
PARAMETER_BYTES = 384


class _SdotDepthwise(A64Depthwise):
    """A column is the registers of its vectors of four channels."""

    stem = "depthwise3x3sdot"
    columns = ((12, 13, 14, 15), (16, 17, 18, 19), (20, 21, 22, 23))

    def load(self, *columns: tuple[int, ...]) -> None:
        """Emit the loads of the next columns."""
        for column in columns:
            self.emit(*(f"ld1 {{v{register}.16b}}, [x{8 + row}], x2" for row, register in enumerate(_ROWS)))
            table = ", ".join(f"v{register}.16b" for register in _ROWS)
            self.emit(*(f"tbl v{c}.16b, {{{table}}}, v{at}.16b" for c, at in zip(column, _INDICES, strict=True)))

    def pad(self, column: tuple[int, ...]) -> None:
        """Emit a column of padding."""
        self.emit(*(f"dup v{register}.16b, w12" for register in column))

    def output(self, *columns: tuple[int, ...]) -> None:
        """Emit an output of three columns, of which no later one needs the first."""
        epilogue, emit = self.shape.epilogue, self.emit
        emit(f"ld1 {{v{_SUMS[0]}.4s-v{_SUMS[-1]}.4s}}, [x5]")
        for x, column in enumerate(columns):
            for v, register in enumerate(column):
                emit(f"sdot v{_SUMS[v]}.4s, v{_VECTORS * x + v}.16b, v{register}.16b")
        free = columns[0]
        emit(f"ld1 {{v{free[0]}.4s-v{free[-1]}.4s}}, [x13]", *epilogue.shifts(_SUMS))
        emit(*(f"sqrdmulh v{s}.4s, v{s}.4s, v{m}.4s" for s, m in zip(_SUMS, free, strict=True)))
        low, next_, high, last = _SUMS
        ends = free[:3] if epilogue.clamped else free[:1]
        emit(f"ld1 {{{', '.join(f'v{register}.16b' for register in ends)}}}, [x14]")
        emit(*epilogue.halves(low, next_), *epilogue.halves(high, last), *epilogue.outputs((low, high), free[0]))
        emit(*epilogue.clamps([low], free[1], free[2]), f"st1 {{v{low}.16b}}, [x1], x7")


@functools.cache
def sdot_depthwise_kernel(shape: DepthwiseShape) -> Function:
    """Return the function for a shape; a sum has one part."""
    function = _SdotDepthwise(shape)
    emit, local = function.emit, function.local
    function.save_vectors()
    emit(f"add x13, x5, #{_MULTIPLIERS}", f"add x14, x5, #{_ENDS}", f"add x15, x5, #{_WEIGHTS}")
    emit(*(f"ld1 {{v{first}.16b-v{first + 3}.16b}}, [x15], #64" for first in range(0, 3 * _VECTORS, 4)))
    emit(f"ldrsb w12, [x5, #{_INPUT_ZERO_POINT}]", f"adr x15, {local('indices')}")
    emit(f"ld1 {{v{_INDICES[0]}.16b-v{_INDICES[-1]}.16b}}, [x15]")
    function.rows()
    function.restore_and_return()
    function.label("indices")
    for channel in range(16):
        # Of the row behind the last TBL gives zero.
        function.lines.append(f"  .byte {', '.join(str(16 * row + channel) for row in range(4))}")
    return function
