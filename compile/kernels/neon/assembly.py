"""A64 functions as text: written once for every shape by the generators beside this, with the counts of their paths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from thumbnet.compile.network.fixed_point import Requantization
from thumbnet.compile.network.integer_network import Convolution, DepthwiseConvolution, accumulator_bound

#: An A64 instruction.
INSTRUCTION_BYTES = 4
INT16_MAX = 2**15 - 1


@dataclass
class Function:
    """An assembly function that grows line by line.

    Parameters
    ----------
    name : str
        Its symbol, local to the file.
    lines : list of str
        Instructions and labels.
    labels : dict
        Number of instructions in front of each label.
    count : int
        Instructions so far.
    """

    name: str
    lines: list[str] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    count: int = 0

    def emit(self, *instructions: str) -> None:
        """Add instructions."""
        self.lines += [f"  {instruction}" for instruction in instructions]
        self.count += len(instructions)

    def label(self, name: str) -> None:
        """Set a label here, local to the function."""
        self.labels[name] = self.count
        self.lines.append(f"{self.local(name)}:")

    def local(self, name: str) -> str:
        """Return a label as instructions name it."""
        return f".L{self.name}_{name}"

    def save_vectors(self) -> None:
        """Keep what the Procedure Call Standard wants kept of the vector registers: the low halves of v8 to v15."""
        self.emit("stp d8, d9, [sp, #-64]!", *(f"stp d{i}, d{i + 1}, [sp, #{8 * (i - 8)}]" for i in (10, 12, 14)))

    def restore_and_return(self) -> None:
        """Undo `save_vectors` and return."""
        self.emit(*(f"ldp d{i}, d{i + 1}, [sp, #{8 * (i - 8)}]" for i in (14, 12, 10)), "ldp d8, d9, [sp], #64", "ret")

    def definition(self, macro: str = "TN_NEON_FN") -> str:
        """Return the C line that defines the function by a macro of the headers, on a processor that has it."""
        body = "\n".join(f'    "{line}\\n"' for line in self.lines)
        return f"{macro}({self.name},\n{body})"


@dataclass(frozen=True)
class Epilogue:
    """What a requantization asks of a kernel's end: a shift in front of it, a clamp behind it.

    Parameters
    ----------
    shift : int
        Left shift of the accumulators.
    clamped : bool
        Whether the clamp is tighter than int8's own saturation.
    fits : bool
        Whether every result, before the zero point and whatever the input, fits int16.
    flips : bool
        Whether the zero point is -128, as it is behind ReLU and ReLU6: the result saturated to uint8, its highest bit
        flipped, is the output.
    """

    shift: int
    clamped: bool
    fits: bool = False
    flips: bool = False

    @classmethod
    def of(cls, requantization: Requantization) -> Epilogue:
        """Return the epilogue of a layer, whose channels all have one shift; of its results nothing is known."""
        whole = (requantization.minimum, requantization.maximum) == (-128, 127)
        return cls(int(requantization.left_shift[0]), not whole)

    @classmethod
    def of_layer(cls, layer: Convolution | DepthwiseConvolution) -> Epilogue:
        """Return the epilogue of a layer with what its weights and its zero point tell."""
        r = layer.requantization
        largest = (2 * (accumulator_bound(layer) << r.left_shift) * r.multiplier + 2**31) >> 32
        return replace(cls.of(r), fits=bool(largest.max() <= INT16_MAX), flips=r.zero_point == -128)

    @property
    def suffix(self) -> str:
        """What distinguishes the kernels' names."""
        shift = f"_shift{self.shift}" if self.shift else ""
        fits, flips = "_fits" * self.fits, "_flips" * self.flips
        return "_clamped" * self.clamped + shift + fits + flips

    def shifts(self, registers: Iterable[int]) -> list[str]:
        """Return the shifts of int32 vectors."""
        return [f"shl v{register}.4s, v{register}.4s, #{self.shift}" for register in registers] if self.shift else []

    def halves(self, low: int, high: int) -> list[str]:
        """Return the narrowing of two int32 vectors to one of int16, in place of the first."""
        if self.fits:
            return [f"uzp1 v{low}.8h, v{low}.8h, v{high}.8h"]
        return [f"sqxtn v{low}.4h, v{low}.4s", f"sqxtn2 v{low}.8h, v{high}.4s"]

    def outputs(self, registers: Sequence[int], zero_point: int) -> list[str]:
        """Return the zero point's addition to one or two int16 vectors, and their narrowing in place of the first.

        The register `zero_point` holds what `zero_point_vector` says.
        """
        first = registers[0]
        narrow = "sqxtun" if self.flips else "sqxtn"
        narrowed = [f"{narrow} v{first}.8b, v{first}.8h", *(f"{narrow}2 v{first}.16b, v{r}.8h" for r in registers[1:])]
        if self.flips:
            return [*narrowed, f"eor v{first}.16b, v{first}.16b, v{zero_point}.16b"]
        return [*(f"sqadd v{r}.8h, v{r}.8h, v{zero_point}.8h" for r in registers), *narrowed]

    def clamps(self, registers: Iterable[int], lowest: int, highest: int) -> list[str]:
        """Return the clamping of int8 vectors between those in two registers."""
        if not self.clamped:
            return []
        return [
            instruction
            for r in registers
            for instruction in (
                f"smax v{r}.16b, v{r}.16b, v{lowest}.16b",
                f"smin v{r}.16b, v{r}.16b, v{highest}.16b",
            )
        ]

    def zero_point_vector(self, zero_point: int) -> bytes:
        """Return what kernels read as the zero point: int16 ``[8]``, or the highest bit of every byte."""
        return b"\x80" * 16 if self.flips else np.full(8, zero_point, "<i2").tobytes()
