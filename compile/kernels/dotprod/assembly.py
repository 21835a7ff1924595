"""Pixels by output channels on SDOT, which multiplies four times four input channels and adds each four to a lane.

A vector of weights is four output channels by four inputs; of a pixel's vector one lane, four inputs, is multiplied
with it. Seven pixels by twelve channels take 21 sums, seven vectors of pixels and three of weights: all but one
register, and no pixel has to be packed. A step of 16 inputs is 84 SDOT and 11 loads.

    void NAME(const int8_t *pixels, const int8_t *weights, int8_t *out, long pixel_bytes, long out_bytes,
              const void *parameters, long tiles, const void *steps)

computes `tiles` times its number of pixels; `steps`, cast from a number, are the whole steps of 16 inputs. Weights are
``[K / 4 rounded up][channels][4]``; parameters bias, multiplier (int32 ``[channels]`` each), zero point
(`Epilogue.zero_point_vector`), lowest and highest (int8 ``[16]`` each).
"""

from __future__ import annotations

import functools

from thumbnet.compile.kernels.neon.assembly import Epilogue, Function

#: Pixels of a tile: most in sevens, the rest by its binary digits.
TILE_PIXELS = (7, 4, 2, 1)
#: Output channels of a tile.
TILE_CHANNELS = (12, 8, 4)
#: Inputs of a step, and of an SDOT's lane.
STEP, LANE = 16, 4


@functools.cache
def sdot_kernel(pixels: int, channels: int, tail: int, epilogue: Epilogue) -> Function:
    """Return the function for tiles of so many pixels and channels.

    `tail` is the number of lanes, 0 to 3, that the inputs have beyond whole steps.
    """
    function = Function(f"sdot_{pixels}x{channels}_{tail}{epilogue.suffix}")
    emit, local = function.emit, function.local
    vectors = channels // 4
    sums = [[32 - pixels * vectors + p * vectors + v for v in range(vectors)] for p in range(pixels)]
    weights = list(range(vectors))
    data = [vectors + p for p in range(pixels)]
    pointers = [8 + p for p in range(pixels)]
    flat = [register for pixel in sums for register in pixel]

    def lanes(count: int) -> None:
        emit(*(f"ldr q{value}, [x{at}], #16" for value, at in zip(data, pointers, strict=True)))
        for lane in range(count):
            emit(f"ld1 {{{_registers(weights, '16b')}}}, [x15], #{16 * vectors}")
            for p in range(pixels):
                for v in range(vectors):
                    emit(f"sdot v{sums[p][v]}.4s, v{weights[v]}.16b, v{data[p]}.4b[{lane}]")

    function.save_vectors()
    # The sums begin with the biases: a copy for each pixel, so that four registers are one load.
    room = 16 * len(flat)
    emit(f"sub sp, sp, #{room}", f"ld1 {{{_registers(weights, '4s')}}}, [x5], #{16 * vectors}")
    emit(*(f"str q{weights[index % vectors]}, [sp, #{16 * index}]" for index in range(len(flat))))
    function.label("tile")
    emit(f"mov x{pointers[0]}, x0", *(f"add x{at}, x{at - 1}, x3" for at in pointers[1:]))
    emit(f"add x0, x{pointers[-1]}, x3", "mov x15, x1", "mov x17, sp", "mov x16, x7")
    for begin in range(0, len(flat), 4):
        part = flat[begin : begin + 4]
        emit(f"ld1 {{{_registers(part, '4s')}}}, [x17], #{16 * len(part)}")
    emit(f"cbz x16, {local('rest')}")
    function.label("step")
    lanes(STEP // LANE)
    emit("subs x16, x16, #1", f"b.ne {local('step')}")
    function.label("rest")
    if tail:
        lanes(tail)
    _finish(function, sums, epilogue)
    emit("subs x6, x6, #1", f"b.ne {local('tile')}", f"add sp, sp, #{room}")
    function.restore_and_return()
    return function


def _registers(registers: list[int], lanes: str) -> str:
    return ", ".join(f"v{register}.{lanes}" for register in registers)


def _finish(function: Function, sums: list[list[int]], epilogue: Epilogue) -> None:
    """Emit requantization and stores; what held weights and pixels is free, v0 to v2 at least."""
    emit = function.emit
    vectors = len(sums[0])
    free = min(min(pixel) for pixel in sums)
    emit("mov x17, x5", f"ld1 {{{_registers(list(range(vectors)), '4s')}}}, [x17], #{16 * vectors}")
    flat = [register for pixel in sums for register in pixel]
    emit(*epilogue.shifts(flat))
    emit(*(f"sqrdmulh v{sums[p][v]}.4s, v{sums[p][v]}.4s, v{v}.4s" for p in range(len(sums)) for v in range(vectors)))
    assert free >= 3, "zero point and clamp need three registers"
    emit("ld1 {v0.16b-v2.16b}, [x17]")
    for first in range(0, len(sums), 2):
        _store(function, sums[first : first + 2], epilogue)


def _store(function: Function, sums: list[list[int]], epilogue: Epilogue) -> None:
    """Emit the narrowing of one or two pixels' sums, zero point, clamp, and their stores.

    Eight channels of a pixel make a vector of int16; four of each of the two pixels make one together.
    """
    emit = function.emit
    a, b = sums[0], sums[-1]
    two, vectors = len(sums) == 2, len(a)
    eights = [pixel[0] for pixel in sums] if vectors >= 2 else []
    fours = [a[-1]] if vectors != 2 else []
    for pixel in sums[: len(eights)]:
        emit(*epilogue.halves(pixel[0], pixel[1]))
    for four in fours:
        emit(*(epilogue.halves(four, b[-1]) if two else [f"sqxtn v{four}.4h, v{four}.4s"]))
    results = [*eights[:1], *fours]
    if eights:
        emit(*epilogue.bytes(eights, 0))
    for four in fours:
        emit(*epilogue.bytes([four], 0))
    emit(*epilogue.clamps(results, 1, 2))
    if vectors == 3:
        emit("add x17, x2, #8")
    for index in range(len(sums)):
        emit(*(f"st1 {{v{register}.d}}[{index}], [x2], x4" for register in eights[:1]))
        emit(*(f"st1 {{v{register}.s}}[{index}], [{'x17' if eights else 'x2'}], x4" for register in fours))


def tile_instructions(pixels: int, channels: int, inputs: int, epilogue: Epilogue) -> int:
    """Return the instructions of one tile."""
    lanes = -(-inputs // LANE)
    steps, tail = divmod(lanes, STEP // LANE)
    function = sdot_kernel(pixels, channels, tail, epilogue)
    step = function.labels["rest"] - function.labels["step"]
    # Behind the last tile stand the stack's release, four loads of vectors kept and the return.
    return function.count - 6 - function.labels["tile"] + (steps - 1) * step
