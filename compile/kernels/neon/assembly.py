"""A64 functions as text: written once for every shape by the generators beside this, with the counts of their paths."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from thumbnet.compile.network.fixed_point import Requantization

#: An A64 instruction.
INSTRUCTION_BYTES = 4


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
    """

    shift: int
    clamped: bool

    @classmethod
    def of(cls, requantization: Requantization) -> Epilogue:
        """Return the epilogue of a layer, whose channels all have one shift."""
        whole = (requantization.minimum, requantization.maximum) == (-128, 127)
        return cls(int(requantization.left_shift[0]), not whole)

    @property
    def suffix(self) -> str:
        """What distinguishes the kernels' names."""
        return ("_clamped" if self.clamped else "") + (f"_shift{self.shift}" if self.shift else "")

    def shifts(self, registers: Iterable[int]) -> list[str]:
        """Return the shifts of int32 vectors."""
        return [f"shl v{register}.4s, v{register}.4s, #{self.shift}" for register in registers] if self.shift else []
