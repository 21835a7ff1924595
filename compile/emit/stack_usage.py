"""The worst-case stack of a program: the deepest way through its calls, before it ever runs.

Frames are taken from the machine code of the linked program, so that assembly and the C library's functions count as
well as what the compiler made; for what the compiler made, its own account of the frame has to agree. Where the worst
case can't be known (recursion, calls through unknown pointers, frames that depend on the data), the reason is given.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from thumbnet.compile.emit.machine_code import Call, Function, read_frames, read_functions
from thumbnet.compile.errors import ToolchainError

#: Makes GCC write a ``.ci`` file beside the object: its frames and calls.
STACK_FLAG = "-fcallgraph-info=su"
STACK_KIND = "worst case over all calls, from the compiler's stack usage and the machine code; interrupts not included"


@dataclass(frozen=True)
class StackUse:
    """The worst-case stack of a function and of all it calls.

    Parameters
    ----------
    bytes : int or None
        Below the stack pointer at the function's entry; what interrupts push is not in it. None where unknown.
    path : tuple of str
        The functions of the deepest chain of calls, the outermost first.
    unknown_because : str or None
        Why it is unknown.
    """

    bytes: int | None
    path: tuple[str, ...] = ()
    unknown_because: str | None = None


class StackUsage:
    """The stack use of every function of a linked Arm program.

    Parameters
    ----------
    functions : mapping of str to Function
        From `read_functions`.
    frames : mapping of str to int or None
        The compiler's account, from `read_frames`.
    pointers : mapping of str to sequence of str
        What a function calls through its pointers, where that is known. GCC's clones (``name.constprop.0``) go by the
        name of the original.
    """

    def __init__(
        self,
        functions: Mapping[str, Function],
        frames: Mapping[str, int | None],
        pointers: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._functions = functions
        self._frames = frames
        self._pointers = pointers or {}
        self._known: dict[str, StackUse] = {}

    @classmethod
    def of_program(
        cls, elf: Path, binutils: str, callgraphs: Iterable[Path], pointers: Mapping[str, Sequence[str]] | None = None
    ) -> StackUsage:
        """Read a linked program.

        Parameters
        ----------
        elf : Path
            The program, with symbols.
        binutils : str
            What the names of objdump and readelf begin with: ``"arm-none-eabi-"``, or a path ending so.
        callgraphs : iterable of Path
            The ``.ci`` files of its translation units.
        pointers : mapping, optional
            See the class.

        Raises
        ------
        ToolchainError
            A tool is missing or fails.
        """
        disassembly = _run([f"{binutils}objdump", "-d", "--no-show-raw-insn", str(elf)])
        symbols = _run([f"{binutils}readelf", "-sW", str(elf)])
        frames = read_frames(path.read_text(errors="replace") for path in callgraphs)
        return cls(read_functions(disassembly, symbols), frames, pointers)

    def worst_case(self, function: str) -> StackUse:
        """Return the worst case of one function, named by its symbol."""
        return self._worst(function, ())

    def _worst(self, name: str, above: tuple[str, ...]) -> StackUse:
        if name in above:
            cycle = " -> ".join((*above[above.index(name) :], name))
            return StackUse(None, unknown_because=f"recursion: {cycle}")
        if name not in self._known:
            self._known[name] = self._add_up(name, (*above, name))
        return self._known[name]

    def _add_up(self, name: str, way: tuple[str, ...]) -> StackUse:
        function = self._functions.get(name)
        if function is None:
            return StackUse(None, unknown_because=f"{name} is not a function of the program")
        doubt = self._doubt(name, function)
        if doubt is not None:
            return StackUse(None, unknown_because=doubt)
        deepest = StackUse(function.frame_bytes, (name,))
        for call in function.calls:
            for target in self._targets(name, call):
                if target is None:
                    return StackUse(None, unknown_because=f"{name} calls through a pointer")
                below = self._worst(target, way)
                if below.bytes is None:
                    return below
                if call.depth + below.bytes > (deepest.bytes or 0):
                    deepest = StackUse(call.depth + below.bytes, (name, *below.path))
        return deepest

    def _doubt(self, name: str, function: Function) -> str | None:
        if function.unknown_because is not None:
            return f"{name}: {function.unknown_because}"
        told = self._frames.get(name, 0)
        if told is None:
            return f"{name}: its frame depends on the run, says the compiler"
        # More than the compiler knows of is what assembly inside the function pushes; less is a misreading.
        if told > function.frame_bytes:
            return f"{name}: the compiler says {told} bytes, its machine code {function.frame_bytes}"
        return None

    def _targets(self, name: str, call: Call) -> Sequence[str | None]:
        if call.target is not None:
            return (call.target,)
        return self._pointers.get(re.split(r"\.(?:constprop|part|isra|cold)\b", name)[0], (None,))


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        package = f"binutils-{Path(command[0]).name.rpartition('-')[0]}"
        raise ToolchainError(f"{command[0]} can't be run ({error.strerror}); `apt install {package}`") from error
    if done.returncode != 0:
        raise ToolchainError(f"{Path(command[-1]).name}: {Path(command[0]).name} failed: {done.stderr.strip()[-200:]}")
    return done.stdout
