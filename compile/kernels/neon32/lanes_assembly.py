"""Convolutions over pixels in A32: one pixel by 8 to 24 output channels, lanes of a channel and a pair of inputs.

With sixteen vectors, tiles of pixels by channels that sum across lanes leave little room for anything but sums, and the
summing costs more than on A64. So lanes are four output channels by two inputs: eight products with a pair of the
pixel's inputs, spread over a register, are a VMULL or VMLAL into int16. After a run of such steps, as long as the
weights allow (`accumulation.run_lengths`), VPADAL adds the two lanes of each channel to its int32: no sum across lanes
is left for the end, and every result lies where it is stored from. VLD2 to VLD4 to all lanes spread as many pairs at
once.

There is straight code for each length of a run, and the block's schedule is the list of places to go to: two
instructions from one run to the next, and no test.

    void NAME(const int8_t *pixels, const int8_t *block, int8_t *out, long pixel_bytes, long out_bytes,
              const uint16_t *schedule, long count)

A block is bias (int32 ``[channels]``), weights ``[K / 2 rounded up][channels][2]``, multiplier (int32 ``[channels]``),
zero point (int16 ``[8]``), lowest and highest (int8 ``[16]`` each).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from thumbnet.compile.kernels.neon.accumulation import LONGEST_RUN
from thumbnet.compile.kernels.neon.assembly import Epilogue
from thumbnet.compile.kernels.neon32.assembly import A32Function, clamp, d_list, requantize

#: Output channels of a block.
WIDTHS = (24, 16, 8)
#: Inputs of a step: lanes of a channel.
PAIR = 2
#: For each width, steps whose pairs of inputs are loaded together, and whose weights are.
_AT_ONCE = {24: (2, 1), 16: (4, 3), 8: (4, 4)}
#: First register of the weights; those before it hold pairs.
_WEIGHTS = {24: 2, 16: 4, 8: 4}
_BASE, _END = "base", "end"


@functools.cache
def lanes_kernel(width: int, stored: int, epilogue: Epilogue) -> A32Function:
    """Return the function for blocks of so many channels, of which `stored` are written: all, or fewer than eight."""
    function = A32Function(f"lanes_{width}_{stored}{epilogue.suffix}")
    emit = function.emit
    vectors = width // 4
    narrow = range(16 - 2 * vectors, 16 - vectors)
    wide = range(16 - vectors, 16)

    def next_run() -> None:
        emit("ldrh r12, [r6], #2", "add pc, r8, r12, lsl #2")

    function.save_registers()
    for register, number in ((4, 5), (5, 6), (7, 7)):
        function.argument(register, number)
    emit(f"adr r8, {function.local(_BASE)}")
    function.label("pixel")
    emit("mov r9, r0", "add r0, r0, r3", "mov r10, r1", "mov r6, r5")
    emit(f"vldmia r10!, {d_list(2 * wide[0], 2 * vectors)}")
    next_run()
    function.label(_BASE)
    for length in range(1, LONGEST_RUN + 1):
        function.label(_place(length))
        _steps(function, width, length, narrow)
        emit(*(f"vpadal.s16 q{w}, q{n}" for w, n in zip(wide, narrow, strict=True)))
        next_run()
    function.label(_END)
    emit(f"vldmia r10!, {d_list(2 * narrow[0], 2 * vectors)}")
    requantize(function, wide, narrow, epilogue)
    _store(function, width, stored, wide, epilogue)
    emit("subs r7, r7, #1", f"bne {function.local('pixel')}")
    function.restore_and_return()
    return function


def _place(length: int) -> str:
    return f"run_{length}"


def _steps(function: A32Function, width: int, length: int, narrow: range) -> None:
    """Emit the products of a run."""
    emit = function.emit
    pairs_at_once, weights_at_once = _AT_ONCE[width]
    size = width * PAIR // 8
    for first in range(0, length, pairs_at_once):
        pairs = min(pairs_at_once, length - first)
        emit(f"vld{pairs}.16 {{{', '.join(f'd{pair}[]' for pair in range(pairs))}}}, [r9]!")
        for step in range(pairs):
            place = step % weights_at_once
            if place == 0:
                emit(f"vldmia r10!, {d_list(_WEIGHTS[width], size * min(weights_at_once, pairs - step))}")
            operation = "vmlal" if first + step else "vmull"
            for lane, register in enumerate(narrow):
                emit(f"{operation}.s8 q{register}, d{_WEIGHTS[width] + place * size + lane}, d{step}")


def _store(function: A32Function, width: int, stored: int, wide: range, epilogue: Epilogue) -> None:
    """Emit what follows the multiplication: zero point, clamp, stores; q0 to q3 and what held the sums are free."""
    emit = function.emit
    # Vectors of four int32 become neighbouring halves of vectors of int16.
    emit(*(f"vqmovn.s32 d{register}, q{w}" for register, w in enumerate(wide)))
    halves = -(-len(wide) // 2)
    ends = 8
    emit(f"vldmia r10, {d_list(2 * ends, 6)}")
    emit(*(f"vqadd.s16 q{half}, q{half}, q{ends}" for half in range(halves)))
    emit(*(f"vqmovn.s16 d{half}, q{half}" for half in range(halves)))
    if epilogue.clamped:
        parts = {1: ["d{}"], 2: ["q{}"], 3: ["q{}", "d{}"]}[halves]
        registers = [part.format(at) for part, at in zip(parts, (0, 2), strict=False)]
        bounds = [[part.format(2 * at if part[0] == "d" else at) for part in parts] for at in (ends + 1, ends + 2)]
        clamp(function, registers, *bounds)
    if stored == width:
        emit(f"vst1.8 {d_list(0, halves)}, [r2], r4")
        return
    # Nothing is written beyond the pixel: what lies there may still be read.
    emit("mov r12, r2", "add r2, r2, r4")
    at = 0
    for size in (4, 2, 1):
        if stored & size:
            emit(f"vst1.{8 * size} {{d0[{at // size}]}}, [r12]!")
            at += size


def schedule(width: int, runs: Sequence[int]) -> list[int]:
    """Return the places a block's code goes through, in instructions from its base, the end last.

    They are the same for every epilogue, which is behind them.
    """
    labels = lanes_kernel(width, width, Epilogue(0, clamped=False)).labels
    return [labels[place] - labels[_BASE] for place in [*map(_place, runs), _END]]


def pixel_instructions(width: int, runs: Sequence[int], epilogue: Epilogue) -> int:
    """Return the instructions of one pixel."""
    function = lanes_kernel(width, width, epilogue)
    labels = function.labels
    ends = [labels[_place(length)] for length in range(2, LONGEST_RUN + 1)] + [labels[_END]]
    run = {length: ends[length - 1] - labels[_place(length)] for length in set(runs)}
    # Behind the last pixel stand the registers' return, two instructions.
    return labels[_BASE] - labels["pixel"] + sum(map(run.__getitem__, runs)) + function.count - 2 - labels[_END]
