"""A32 functions as text: the same writing as on A64, another calling convention and half the registers.

Of the sixteen vectors, q0 to q15, each is two of the registers d0 to d31 that eight int8 fill: VMULL and VMLAL take
those.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from thumbnet.compile.kernels.neon.assembly import Epilogue, Function

#: Bytes that `A32Function.save_registers` puts between the stack pointer and the arguments on the stack.
_SAVED_BYTES = 8 * 8 + 9 * 4


class A32Function(Function):
    """A function in A32 that uses all registers; r0 to r3 are its first arguments."""

    def save_registers(self) -> None:
        """Keep what the Procedure Call Standard wants kept: r4 to r11, the return address, d8 to d15."""
        self.emit("push {r4-r11, lr}", "vpush {d8-d15}")

    def argument(self, register: int, number: int) -> None:
        """Emit the load of an argument from the stack, the fifth and those behind it."""
        self.emit(f"ldr r{register}, [sp, #{_SAVED_BYTES + 4 * (number - 5)}]")

    def restore_and_return(self) -> None:
        """Undo `save_registers` and return."""
        self.emit("vpop {d8-d15}", "pop {r4-r11, pc}")

    def definition(self, macro: str = "TN_NEON_FN") -> str:
        """Return the C line that defines the function, whichever of A32 and T32 the C around it becomes."""
        head, body = super().definition(macro).split("\n", 1)
        return f'{head}\n    "  .arm\\n"\n{body}'


def d_list(first: int, count: int) -> str:
    """Return so many registers of 64 bits as instructions name them."""
    return f"{{d{first}-d{first + count - 1}}}" if count > 1 else f"{{d{first}}}"


def requantize(function: Function, sums: Sequence[int], multipliers: Sequence[int], epilogue: Epilogue) -> None:
    """Emit shift and multiplication of int32 vectors, each by a vector of its own."""
    emit = function.emit
    if epilogue.shift:
        emit(*(f"vshl.i32 q{register}, q{register}, #{epilogue.shift}" for register in sums))
    emit(*(f"vqrdmulh.s32 q{r}, q{r}, q{m}" for r, m in zip(sums, multipliers, strict=True)))


def clamp(function: Function, registers: Iterable[str], lowest: Sequence[str], highest: Sequence[str]) -> None:
    """Emit the clamp of int8 registers between those of the same size."""
    for register, low, high in zip(registers, lowest, highest, strict=True):
        function.emit(f"vmax.s8 {register}, {register}, {low}", f"vmin.s8 {register}, {register}, {high}")
