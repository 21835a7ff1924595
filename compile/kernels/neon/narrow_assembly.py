"""Kernels for few inputs: one pixel by 16 to 64 output channels, a lane each.

Where K is small, summing across lanes and widening cost more than the products. Here lanes are output channels, each
input value is spread over a vector, and the sum is parted so that each part fits int16
(`accumulation.fewest_parts`).

    void NAME(const int8_t *pixels, const int8_t *weights, int8_t *out, long pixel_bytes, long out_bytes,
              const void *parameters, long count, const void *ends)

Weights are ``[K][channels]``; parameters, for each 16 channels, 16 biases and 16 multipliers (int32); ends: zero point
(`Epilogue.zero_point_vector`), lowest, highest (int8 ``[16]`` each).
"""

from __future__ import annotations

import functools
from itertools import accumulate

from thumbnet.compile.kernels.neon.assembly import Epilogue, Function

#: Channels a kernel may have, the best first, and channels of a vector.
WIDTHS, VECTOR = (64, 48, 32, 16), 16
#: Vectors of int16 that are free for sums.
_SUMS = 26


def fits_registers(width: int, parts: int) -> bool:
    """Tell whether a kernel's sums have room."""
    return 2 * (width // VECTOR) * parts <= _SUMS


@functools.cache
def narrow_kernel(width: int, parts: tuple[int, ...], epilogue: Epilogue) -> Function:
    """Return the function for a number of channels, the sum's parts adding up to K."""
    function = Function(f"narrow_{width}_{sum(parts)}_{len(parts)}{epilogue.suffix}")
    emit = function.emit
    vectors = width // VECTOR
    each = 2 * vectors
    sums = [[32 - each * len(parts) + part * each + half for half in range(each)] for part in range(len(parts))]
    weights = f"{{v1.16b-v{vectors}.16b}}" if vectors > 1 else "{v1.16b}"
    function.save_vectors()
    function.label("pixel")
    emit("mov x9, x0", "add x0, x0, x3", "mov x10, x1", "mov x11, x5", "mov x12, x2", "add x2, x2, x4")
    begins = set(accumulate((0, *parts)))
    part = -1
    for k in range(sum(parts)):
        part += k in begins
        emit("ld1r {v0.16b}, [x9], #1", f"ld1 {weights}, [x10], #{width}")
        operation = "smull" if k in begins else "smlal"
        for vector in range(vectors):
            low, high = sums[part][2 * vector : 2 * vector + 2]
            emit(
                f"{operation} v{low}.8h, v{1 + vector}.8b, v0.8b", f"{operation}2 v{high}.8h, v{1 + vector}.16b, v0.16b"
            )
    for vector in range(vectors):
        _finish(function, [pair[2 * vector : 2 * vector + 2] for pair in sums], epilogue)
    emit("subs x6, x6, #1", f"b.ne {function.local('pixel')}")
    function.restore_and_return()
    return function


def _finish(function: Function, sums: list[list[int]], epilogue: Epilogue) -> None:
    """Emit bias, requantization and store of sixteen channels; their sums' registers are free afterwards."""
    emit = function.emit
    emit("ld1 {v0.4s-v3.4s}, [x11], #64")
    for low, high in sums:
        emit(f"saddw v0.4s, v0.4s, v{low}.4h", f"saddw2 v1.4s, v1.4s, v{low}.8h")
        emit(f"saddw v2.4s, v2.4s, v{high}.4h", f"saddw2 v3.4s, v3.4s, v{high}.8h")
    emit(*epilogue.shifts(range(4)))
    m, n = sums[0]
    for i in (0, 2):
        emit(f"ldp q{m}, q{n}, [x11], #32", f"sqrdmulh v{i}.4s, v{i}.4s, v{m}.4s")
        emit(f"sqrdmulh v{i + 1}.4s, v{i + 1}.4s, v{n}.4s")
    emit(f"ldr q{m}, [x7]")
    emit(*epilogue.halves(0, 1), *epilogue.halves(2, 3), *epilogue.outputs((0, 2), m))
    if epilogue.clamped:
        emit("ldp q2, q3, [x7, #16]", *epilogue.clamps([0], 2, 3))
    emit("str q0, [x12], #16")
