"""Pointwise kernels on weight-bounded accumulation: some pixels by four output channels, threaded code over the inputs.

Eight input channels are a half step: SMULL or SMLAL into int16. After a run of them, no longer than the weights allow
(`accumulation.longest_runs`), SADALP widens the sums into int32. There is straight code for each length, beginning at
either half of a vector, for the usual ones several times in a row, and the layer's schedule is the list of places to go
to (`runs.cheapest_runs`): three instructions from one to the next, and no test.

    void NAME(const int8_t *pixels, const int8_t *weights, int8_t *out, long pixel_bytes, long out_bytes,
              const void *parameters, long tiles, const int16_t *schedule)

computes `tiles` times its number of pixels. Weights are ``[step][4][16]``, parameters bias, multiplier (int32 ``[4]``),
zero point (`Epilogue.zero_point_vector`), lowest and highest (int8 ``[8]`` each).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

from thumbnet.compile.kernels.neon.accumulation import LONGEST_RUN
from thumbnet.compile.kernels.neon.assembly import Epilogue, Function
from thumbnet.compile.kernels.neon.runs import Runs

#: Output channels of a tile.
CHANNELS = 4
#: Pixels of a tile: most of them in threes, the rest alone.
TILE_PIXELS = (3, 1)
#: How many runs of a length stand in a row, where that isn't one.
REPEATS = {2: 8, 3: 4, 4: 4}
#: What a jump to the next place costs, in parts of widening the sums of a tile of most pixels.
JUMP = 3 / (TILE_PIXELS[0] * CHANNELS)
_BASE, _END = "base", "end"


def kernel_name(pixels: int, epilogue: Epilogue) -> str:
    """Return the symbol of a tile's function."""
    return f"pointwise_{pixels}x{CHANNELS}{epilogue.suffix}"


@functools.cache
def pointwise_kernel(pixels: int, epilogue: Epilogue) -> Function:
    """Return the function for tiles of so many pixels."""
    function = Function(kernel_name(pixels, epilogue))
    emit = function.emit
    sums = pixels * CHANNELS
    narrow = [[32 - 2 * sums + p * CHANNELS + c for c in range(CHANNELS)] for p in range(pixels)]
    wide = [[32 - sums + p * CHANNELS + c for c in range(CHANNELS)] for p in range(pixels)]
    data = [4 + p for p in range(pixels)]
    pointers = [9 + p for p in range(pixels)]

    def next_run() -> None:
        emit("ldrsh x16, [x14], #2", "add x16, x8, x16, lsl #2", "br x16")

    function.save_vectors()
    emit(f"adr x8, {function.local(_BASE)}")
    function.label("tile")
    emit("mov x9, x0", *(f"add x{at}, x{at - 1}, x3" for at in pointers[1:]), f"add x0, x{pointers[-1]}, x3")
    emit("mov x13, x1", "mov x14, x7")
    next_run()
    function.label(_BASE)

    def run(length: int, half: int, *, first: bool) -> None:
        for step in range(length):
            second = (half + step) % 2
            if not second:
                emit(*(f"ldr q{value}, [x{at}], #16" for value, at in zip(data, pointers, strict=True)))
                emit("ld1 {v0.16b-v3.16b}, [x13], #64")
            operation = ("smull" if step == 0 else "smlal") + ("2" if second else "")
            lanes = "16b" if second else "8b"
            for p in range(pixels):
                for c in range(CHANNELS):
                    emit(f"{operation} v{narrow[p][c]}.8h, v{c}.{lanes}, v{data[p]}.{lanes}")
        for p in range(pixels):
            for c in range(CHANNELS):
                emit(f"{'saddlp' if first else 'sadalp'} v{wide[p][c]}.4s, v{narrow[p][c]}.8h")

    for row, first, half in _rows():
        # Who begins within a row of runs does those that are left of it.
        for left in range(row.times, 0, -1):
            begin = (half + (row.times - left) * row.length) % 2
            function.label(_place(Runs(row.length, left), first=first, half=begin))
            run(row.length, begin, first=first)
        next_run()
    function.label(_END)
    _finish(function, wide, epilogue)
    emit("subs x6, x6, #1", f"b.ne {function.local('tile')}")
    function.restore_and_return()
    return function


def _rows() -> Iterator[tuple[Runs, bool, int]]:
    """Yield the rows of runs there is code for: what begins a tile, what goes on with either half of a vector."""
    for first, half in ((True, 0), (False, 0), (False, 1)):
        for length in range(1, LONGEST_RUN + 1):
            yield Runs(length, 1 if first else REPEATS.get(length, 1)), first, half


def _place(runs: Runs, *, first: bool, half: int) -> str:
    return f"{'first' if first else 'half'}{half}_{runs.times}x{runs.length}"


def _finish(function: Function, wide: list[list[int]], epilogue: Epilogue) -> None:
    """Emit what follows a tile's sums: across lanes, bias, requantization, stores."""
    emit = function.emit
    for a in wide:
        emit(f"addp v{a[0]}.4s, v{a[0]}.4s, v{a[1]}.4s", f"addp v{a[2]}.4s, v{a[2]}.4s, v{a[3]}.4s")
        emit(f"addp v{a[0]}.4s, v{a[0]}.4s, v{a[2]}.4s")
    emit("ld1 {v0.4s-v3.4s}, [x5]")
    results = [a[0] for a in wide]
    emit(*(f"add v{r}.4s, v{r}.4s, v0.4s" for r in results))
    emit(*epilogue.shifts(results))
    emit(*(f"sqrdmulh v{r}.4s, v{r}.4s, v1.4s" for r in results))
    if epilogue.clamped:
        emit("dup v0.2d, v3.d[0]", "dup v1.2d, v3.d[1]")
    out = results[0]
    if len(results) > 1:
        emit(*epilogue.halves(out, results[1]))
    # A vector of int16 alone.
    alone = results[2] if len(results) > 1 else out
    emit(f"sqxtn v{alone}.4h, v{alone}.4s", *epilogue.outputs(list(dict.fromkeys((out, alone))), 2))
    emit(*epilogue.clamps([out], 0, 1))
    emit(*(f"st1 {{v{out}.s}}[{p}], [x2], x4" for p in range(len(results))))


def schedule(pixels: int, runs: Sequence[Runs]) -> list[int]:
    """Return the places a tile's code goes through, in instructions from its base, the end last.

    They are the same for every epilogue, which is behind them.
    """
    labels = pointwise_kernel(pixels, Epilogue(0, clamped=False)).labels
    places, half = [], 0
    for index, each in enumerate(runs):
        places.append(labels[_place(each, first=index == 0, half=half)])
        half = (half + each.length * each.times) % 2
    return [place - labels[_BASE] for place in [*places, labels[_END]]]


def tile_instructions(pixels: int, runs: Sequence[Runs], epilogue: Epilogue) -> int:
    """Return the instructions of one tile."""
    function = pointwise_kernel(pixels, epilogue)
    rows = (function.labels[_place(row, first=first, half=half)] for row, first, half in _rows())
    ends = [*sorted(rows), function.labels[_END], function.count]
    begin = function.labels["tile"]
    total = function.labels[_BASE] - begin
    base = function.labels[_BASE]
    for place in schedule(pixels, runs):
        at = base + place
        total += next(end for end in ends if end > at) - at
    # Behind the end stand the way back, which is counted, and the return, which is not.
    return total - 5
