"""Pixels by output channels on SDOT, which multiplies four times four input channels and adds each four to a lane.

A vector of weights is four output channels by four inputs; of a pixel's vector one lane, four inputs, is multiplied
with it. Four pixels by sixteen channels take 16 sums, eight vectors of pixels and four of weights: one load brings 32
inputs of a pixel, another the weights of four inputs, so that 32 inputs are 128 SDOT and 12 loads. Three registers hold
the zero point and the clamp.

    void NAME(const int8_t *pixels, const int8_t *weights, int8_t *out, long pixel_bytes, long out_bytes,
              const void *parameters, long tiles, const void *steps)

computes `tiles` times its number of pixels; `steps`, cast from a number, are the whole steps of 64 inputs. Weights are
``[K / 4 rounded up][channels][4]``; parameters bias, multiplier (int32 ``[channels]`` each), zero point
(`Epilogue.zero_point_vector`), lowest and highest (int8 ``[16]`` each).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from thumbnet.compile.kernels.neon.assembly import Epilogue, Function

#: Pixels of a tile: most in fours, the rest by its binary digits.
TILE_PIXELS = (4, 2, 1)
#: Output channels of a tile.
TILE_CHANNELS = (16, 8, 4)
#: Inputs of a step, of the vectors of a pixel that one load brings, and of an SDOT's lane.
STEP, PAIR, LANE = 64, 32, 4
#: Registers that one load brings.
_LOAD = 4
_WEIGHTS, _ZERO_POINT, _LOWEST, _HIGHEST = 8, 29, 30, 31


class _Tile(Function):
    """A tile's function while it is written."""

    def __init__(self, name: str, pixels: int, channels: int, epilogue: Epilogue) -> None:
        super().__init__(name)
        self.channels, self.vectors, self.epilogue = channels, channels // 4, epilogue
        first = _WEIGHTS + _LOAD
        self.sums = [list(range(first + p * self.vectors, first + (p + 1) * self.vectors)) for p in range(pixels)]
        self.pointers = [8 + p for p in range(pixels)]

    @property
    def flat(self) -> list[int]:
        """All sums."""
        return [register for pixel in self.sums for register in pixel]

    def multiply(self, lanes: int) -> None:
        """Emit so many lanes of inputs, up to those of a pair of vectors."""
        for p, at in enumerate(self.pointers):
            wide = lanes > PAIR // LANE // 2
            self.emit(f"ldp q{2 * p}, q{2 * p + 1}, [x{at}], #32" if wide else f"ldr q{2 * p}, [x{at}], #16")
        count = lanes * self.vectors
        for index in range(count):
            lane, v = divmod(index, self.vectors)
            if index % _LOAD == 0:
                weights = range(_WEIGHTS, _WEIGHTS + min(_LOAD, count - index))
                self.emit(f"ld1 {{{_registers(weights, '16b')}}}, [x15], #{16 * len(weights)}")
            for p, sums in enumerate(self.sums):
                data = f"v{2 * p + lane // 4}.4b[{lane % 4}]"
                self.emit(f"sdot v{sums[v]}.4s, v{_WEIGHTS + index % _LOAD}.16b, {data}")

    def finish(self) -> None:
        """Emit requantization and stores; what held weights and pixels is free."""
        self.emit(f"ld1 {{{_registers(range(self.vectors), '4s')}}}, [x16]")
        self.emit(*self.epilogue.shifts(self.flat))
        self.emit(*(f"sqrdmulh v{r}.4s, v{r}.4s, v{v}.4s" for sums in self.sums for v, r in enumerate(sums)))
        for begin in range(0, len(self.flat), 4):
            self._store(self.flat[begin : begin + 4])

    def _store(self, sums: list[int]) -> None:
        """Emit the narrowing of up to four vectors of neighbouring channels, or pixels, to one, and its stores."""
        pairs = [sums[begin : begin + 2] for begin in range(0, len(sums), 2)]
        for first, *second in pairs:
            self.emit(*(self.epilogue.halves(first, *second) if second else [f"sqxtn v{first}.4h, v{first}.4s"]))
        self.emit(*self.epilogue.outputs([pair[0] for pair in pairs], _ZERO_POINT))
        self.emit(*self.epilogue.clamps(sums[:1], _LOWEST, _HIGHEST))
        for pixel in range(len(sums) // self.vectors):
            part = {16: ".16b}", 8: f".d}}[{pixel}]", 4: f".s}}[{pixel}]"}[self.channels]
            self.emit(f"st1 {{v{sums[0]}{part}, [x2], x4")


@functools.cache
def sdot_kernel(pixels: int, channels: int, tail: int, epilogue: Epilogue, *, steps: bool = True) -> Function:
    """Return the function for tiles of so many pixels and channels.

    `tail` is the number of lanes that the inputs have beyond whole steps; whether there are such says `steps`.
    """
    function = _Tile(f"sdot_{pixels}x{channels}_{'n' * steps}{tail}{epilogue.suffix}", pixels, channels, epilogue)
    emit, local = function.emit, function.local
    function.save_vectors()
    emit(f"add x16, x5, #{4 * channels}", f"add x17, x16, #{4 * channels}")
    emit(f"ld1 {{{_registers(range(_ZERO_POINT, _HIGHEST + 1), '16b')}}}, [x17]")
    function.label("tile")
    emit("mov x8, x0", *(f"add x{at}, x{at - 1}, x3" for at in function.pointers[1:]))
    emit(f"add x0, x{function.pointers[-1]}, x3", "mov x15, x1")
    emit(*(f"ld1 {{{_registers(sums, '4s')}}}, [x5]" for sums in function.sums))
    if steps:
        emit("mov x17, x7")
        function.label("step")
        for _ in range(STEP // PAIR):
            function.multiply(PAIR // LANE)
        emit("subs x17, x17, #1", f"b.ne {local('step')}")
    function.label("rest")
    for first in range(0, tail, PAIR // LANE):
        function.multiply(min(tail - first, PAIR // LANE))
    function.finish()
    emit("subs x6, x6, #1", f"b.ne {local('tile')}")
    function.label("done")
    function.restore_and_return()
    return function


def _registers(registers: Iterable[int], lanes: str) -> str:
    return ", ".join(f"v{register}.{lanes}" for register in registers)


def tile_instructions(pixels: int, channels: int, inputs: int, epilogue: Epilogue) -> int:
    """Return the instructions of one tile."""
    steps, tail = divmod(-(-inputs // LANE), STEP // LANE)
    labels = sdot_kernel(pixels, channels, tail, epilogue, steps=steps > 0).labels
    step = labels["rest"] - labels["step"] if steps else 0
    return labels["done"] - labels["tile"] + max(steps - 1, 0) * step
