"""Pixels by output channels on FMLA by lane: the sum of four channels of a pixel grows by one input a step.

Eight pixels by twelve channels take 24 sums; four registers hold eight pixels of two inputs, four more the weights, so
that every load brings four. For that the pixels are *packed*: for two inputs each, a vector of the two inputs of two
pixels, four of them. 64 inputs are 1536 FMLA and 80 loads. What pixels are left of eights is computed from where they
lie, sixteen inputs of a pixel a load.

    void NAME(const float *pixels, const float *weights, float *out, long pixel_bytes, long out_bytes,
              const float *parameters, long tiles, long steps)

computes `tiles` times its number of pixels; `steps` are the whole steps of 64 inputs. Weights are ``[K][channels]``;
parameters bias ``[channels]``, lowest and highest ``[4]`` each. Inputs are added up in their order, each rounded once.

    void pack_f32(const float *pixels, float *packed, long pixel_bytes, long blocks, long eights, long four)

packs `blocks` times eight pixels of ``8 * eights + 4 * four`` inputs.
"""

from __future__ import annotations

import functools

from thumbnet.compile.kernels.neon.assembly import Function
from thumbnet.compile.kernels.neon_f32.clamp import Clamp

#: Pixels of a packed tile, and of the others: the rest by its binary digits.
PACKED_PIXELS = 8
REST_PIXELS = (4, 2, 1)
#: Output channels of a tile.
TILE_CHANNELS = (12, 8, 4)
#: Inputs of a step, and those by which packed pixels are rounded up.
STEP, PACKED_INPUTS = 64, 4
#: Vectors that one load brings, and their bytes.
_LOAD, _VECTOR_BYTES = 4, 16
#: Where the biases are read that begin with the first, the second and the third.
_BIASES = ("sp", "x17", "x14")


class _Tile(Function):
    """A tile's function while it is written."""

    def __init__(self, pixels: int, channels: int, tail: int, clamp: Clamp, *, steps: bool) -> None:
        super().__init__(f"tile_f32_{pixels}x{channels}_{'n' * steps}{tail}{clamp.suffix}")
        self.pixels, self.vectors, self.tail, self.clamp = pixels, channels // 4, tail, clamp
        self.packed = pixels == PACKED_PIXELS
        # The vectors of four pixels' pairs of inputs, or four of each pixel.
        self.data = [list(range(_LOAD * p, _LOAD * (p + 1))) for p in range(1 if self.packed else pixels)]
        self.weights = [_LOAD * len(self.data) + index for index in range(_LOAD)]
        first = 32 - pixels * self.vectors
        assert first > self.weights[-1], "sums, pixels and weights share 32 registers"
        self.sums = [[first + p * self.vectors + v for v in range(self.vectors)] for p in range(pixels)]
        self.pointers = [8 + p for p in range(0 if self.packed else pixels)]

    @property
    def flat(self) -> list[int]:
        """All sums."""
        return [register for pixel in self.sums for register in pixel]

    def load(self, registers: list[int], pointer: str) -> None:
        """Emit one load of up to four neighbouring registers."""
        self.emit(f"ld1 {{{vectors(registers)}}}, [{pointer}], #{_VECTOR_BYTES * len(registers)}")

    def multiply(self, inputs: int) -> None:
        """Emit so many inputs; loads of weights begin and end with them."""
        left = inputs * self.vectors
        for k in range(inputs):
            if self.packed and k % 2 == 0:
                self.load(self.data[0], "x0")
            elif not self.packed and k % (4 * _LOAD) == 0:
                for data, at in zip(self.data, self.pointers, strict=True):
                    self.load(data[: -(-(inputs - k) // 4)], f"x{at}")
            for v in range(self.vectors):
                place = (k * self.vectors + v) % _LOAD
                if place == 0:
                    self.load(self.weights[: min(left, _LOAD)], "x15")
                left -= 1
                for p in range(self.pixels):
                    self.emit(f"fmla v{self.sums[p][v]}.4s, v{self.weights[place]}.4s, {self._lane(p, k)}")

    def _lane(self, pixel: int, k: int) -> str:
        """Return the lane that holds an input of a pixel."""
        if self.packed:
            return f"v{self.data[0][pixel // 2]}.s[{pixel % 2 * 2 + k % 2}]"
        return f"v{self.data[pixel][k % (4 * _LOAD) // 4]}.s[{k % 4}]"


def vectors(registers: list[int]) -> str:
    """Return neighbouring registers as a load or store names them."""
    return ", ".join(f"v{register}.4s" for register in registers)


@functools.cache
def tile_kernel(pixels: int, channels: int, tail: int, clamp: Clamp, *, steps: bool = True) -> Function:
    """Return the function for tiles of so many pixels, packed where they are eight, and channels.

    `tail` is the number of inputs beyond whole steps; whether there are such says `steps`.
    """
    function = _Tile(pixels, channels, tail, clamp, steps=steps)
    emit, local = function.emit, function.local
    biases = list(range(function.vectors))
    function.save_vectors()
    # The sums begin with the biases, again and again, four registers a load, whichever bias is the first.
    copies = len(biases) + _LOAD
    room = _VECTOR_BYTES * -(-copies // 2) * 2
    emit(f"sub sp, sp, #{room}")
    function.load(biases, "x5")
    emit(*(f"str q{biases[at % len(biases)]}, [sp, #{_VECTOR_BYTES * at}]" for at in range(copies)))
    emit(*(f"add {begin}, sp, #{_VECTOR_BYTES * at}" for at, begin in enumerate(_BIASES) if at))
    function.label("tile")
    if function.pointers:
        emit("mov x8, x0", *(f"add x{at}, x{at - 1}, x3" for at in function.pointers[1:]))
        emit(f"add x0, x{function.pointers[-1]}, x3")
    emit("mov x15, x1")
    for begin in range(0, len(function.flat), _LOAD):
        sums = function.flat[begin : begin + _LOAD]
        emit(f"ld1 {{{vectors(sums)}}}, [{_BIASES[begin % len(biases)]}]")
    if steps:
        emit("mov x16, x7")
        function.label("step")
        function.multiply(STEP)
        emit("subs x16, x16, #1", f"b.ne {local('step')}")
    function.label("rest")
    function.multiply(tail)
    if function.packed and (unread := -(-tail // PACKED_INPUTS) * 2 - -(-tail // 2)):
        emit(f"add x0, x0, #{unread * _LOAD * _VECTOR_BYTES}")
    if clamp.low or clamp.high:
        emit("ldp q0, q1, [x5]", *clamp.instructions(function.flat, 0, 1))
    emit(*(f"st1 {{{vectors(pixel)}}}, [x2], x4" for pixel in function.sums))
    emit("subs x6, x6, #1", f"b.ne {local('tile')}")
    function.label("done")
    emit(f"add sp, sp, #{room}")
    function.restore_and_return()
    return function


def tile_instructions(pixels: int, channels: int, inputs: int, clamp: Clamp) -> int:
    """Return the instructions of one tile."""
    steps, tail = divmod(inputs, STEP)
    labels = tile_kernel(pixels, channels, tail, clamp, steps=steps > 0).labels
    step = labels["rest"] - labels["step"] if steps else 0
    return labels["done"] - labels["tile"] + max(steps - 1, 0) * step


@functools.cache
def pack_kernel() -> Function:
    """Return the function that packs pixels; it leaves the registers alone that a caller relies on."""
    function = Function("pack_f32")
    emit, local = function.emit, function.local
    pointers = [8 + p for p in range(PACKED_PIXELS)]

    def move(structure: int) -> None:
        """Emit so many pairs of inputs: a pixel's go to one half each of as many registers, another's to the other."""
        # v8 to v15 are the caller's.
        first = [pair * structure + (8 if pair * structure >= 8 else 0) for pair in range(4)]
        for p, at in enumerate(pointers):
            to = ", ".join(f"v{first[p // 2] + index}.d" for index in range(structure))
            emit(f"ld{structure} {{{to}}}[{p % 2}], [x{at}], #{8 * structure}")
        for index in range(structure):
            a, b, c, d = (register + index for register in first)
            emit(f"stp q{a}, q{b}, [x1], #32", f"stp q{c}, q{d}, [x1], #32")

    function.label("block")
    emit("mov x8, x0", *(f"add x{at}, x{at - 1}, x2" for at in pointers[1:]), f"add x0, x{pointers[-1]}, x2")
    emit("mov x16, x4", f"cbz x16, {local('four')}")
    function.label("eight")
    move(4)
    emit("subs x16, x16, #1", f"b.ne {local('eight')}")
    function.label("four")
    emit(f"cbz x5, {local('next')}")
    move(2)
    function.label("next")
    emit("subs x3, x3, #1", f"b.ne {local('block')}", "ret")
    return function


def pack_instructions(blocks: int, inputs: int) -> int:
    """Return the instructions of packing so many times eight pixels."""
    labels = pack_kernel().labels
    eights, four = divmod(-(-inputs // PACKED_INPUTS), 2)
    block = labels["eight"] + eights * (labels["four"] - labels["eight"]) + 3
    return blocks * (block + four * (labels["next"] - labels["four"] - 1))
