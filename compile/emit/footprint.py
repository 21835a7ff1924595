"""What a network's C sources take on their board, before anything is flashed: built as a program builds them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thumbnet.compile.emit.run_tool import run_tool
from thumbnet.compile.emit.stack_usage import STACK_FLAG, STACK_KIND, StackUsage, StackUse
from thumbnet.compile.errors import ToolchainError
from thumbnet.compile.plan.fit import STACK_RESERVE_BYTES, MemoryNeed
from thumbnet.compile.progress import Progress, say_nothing
from thumbnet.targets.board import Board

#: -O3 is what instruction counts are published with.
CODE_FLAGS = ("-std=gnu11", "-O3", "-ffunction-sections", "-fdata-sections")

#: What a program calls. Everything that these don't need is dropped by the linker.
_API = ("run", "run_layer", "input", "output", "arena", "layers")
_SCRIPT = """
SECTIONS {{
    . = {flash:#x};
    .network_code : {{ network_*.o(.text .text.*) }}
    .network_constants : {{ network_*.o(.rodata .rodata.*) }}
    .program : {{ program_*.o(.text .text.*) }}
    .library : {{ *(.text .text.* .rodata .rodata.*) }}
    .ARM.exidx : {{ *(.ARM.exidx*) }}
    . = {ram:#x};
    .data : {{ *(.data .data.*) }}
    .bss : {{ *(.bss .bss.* COMMON) }}
}}
"""
#: Of boards that run Linux: what the C library has is left open.
_SYSTEMS_LIBRARY = ("-static", "-nolibc", "-Wl,--unresolved-symbols=ignore-all")
_ROW_SOURCE = "#include <stdint.h>\nvoid {name}_read_row(int32_t row, int8_t *pixels) {{ (void)row, (void)pixels; }}\n"


@dataclass(frozen=True)
class Footprint:
    """Bytes that a network takes on its board.

    Parameters
    ----------
    compiler : str
        Which compiler built it, in its own words.
    code_bytes : int
        Machine code of the generated sources.
    constant_bytes : int
        Their constants, with names and the gaps of alignment.
    library_bytes : int
        What they need of the C library (``memcpy`` and the like); a program that uses it anyway has it once, and on
        boards that run Linux the system has it.
    static_bytes : int
        Static RAM: the arena, with input and output in it, whoever has it.
    stack : StackUse
        Worst case of one inference.
    """

    compiler: str
    code_bytes: int
    constant_bytes: int
    library_bytes: int
    static_bytes: int
    stack: StackUse

    @property
    def need(self) -> MemoryNeed:
        """What has to fit: code, constants and library; static RAM and stack, for an unknown one a reserve."""
        stack = STACK_RESERVE_BYTES if self.stack.bytes is None else self.stack.bytes
        return MemoryNeed(self.code_bytes + self.constant_bytes + self.library_bytes, self.static_bytes, stack)

    def as_json(self) -> dict[str, Any]:
        """Return the entry of the manifest."""
        return {
            "compiler": self.compiler,
            "flags": list(CODE_FLAGS),
            "code_bytes": self.code_bytes,
            "constant_bytes": self.constant_bytes,
            "library_bytes": self.library_bytes,
            "static_bytes": self.static_bytes,
            "stack_bytes": self.stack.bytes,
            "stack_kind": STACK_KIND,
            "stack_path": list(self.stack.path),
            "stack_unknown_because": self.stack.unknown_because,
        }


def measure_footprint(
    files: Sequence[Path],
    name: str,
    board: Board,
    *,
    streamed: bool = False,
    caller_arena_bytes: int = 0,
    progress: Progress = say_nothing,
) -> Footprint:
    """Build the sources of a network for its board, and look what came out.

    Parameters
    ----------
    files : sequence of Path
        Sources and headers, all that is built; what else lies beside them is not seen.
    name : str
        The network's name as a C identifier.
    board : Board
        One that takes C sources.
    streamed : bool
        The network reads its image from the program, whose own part is not counted.
    caller_arena_bytes : int
        Size of an arena that the program has, for the network has none; it counts as the network's.
    progress : callable
        Told before each step what is done next.

    Raises
    ------
    ToolchainError
        The board's compiler or something it needs is missing, or it refuses the sources.
    """
    compiler = shutil.which(board.cross_compiler)
    if compiler is None:
        raise ToolchainError(f"not known without {board.cross_compiler}")
    # In that folder, which is made aside itself: a killed run leaves nothing elsewhere.
    with tempfile.TemporaryDirectory(prefix=".footprint-", dir=files[0].parent) as aside_name:
        aside = Path(aside_name).resolve()
        sources = aside / "network"
        sources.mkdir()
        for file in files:
            shutil.copy(file, sources)
        objects = []
        for source in sorted(sources.glob("*.c")):
            objects.append(f"network_{source.stem}.o")
            flags = (*board.core_flags, *CODE_FLAGS, STACK_FLAG, "-I", str(sources))
            progress(f"compiling {source.name} for {board.core}")
            run_tool([compiler, *flags, "-c", str(source), "-o", objects[-1]], aside)
        if streamed:
            # The program's own; what it takes is not the network's.
            (aside / "program_rows.c").write_text(_ROW_SOURCE.format(name=name))
            objects.append("program_rows.o")
            flags = (*board.core_flags, *CODE_FLAGS, STACK_FLAG)
            run_tool([compiler, *flags, "-c", "program_rows.c", "-o", "program_rows.o"], aside)
        progress("measuring memory and stack")
        (aside / "network.ld").write_text(_SCRIPT.format(**_origins(board)))
        roots = ",".join(f"-u,{name}_{what}" for what in _API)
        options = ("-nostartfiles", "-Tnetwork.ld", f"-Wl,--gc-sections,-e,{name}_run,{roots}")
        library = _SYSTEMS_LIBRARY if board.runs_linux else ()
        run_tool([compiler, *board.core_flags, *options, *library, *objects, "-o", "network.elf"], aside)
        binutils = compiler.removesuffix("gcc")
        sizes = _read_sizes(run_tool([f"{binutils}size", "-A", "network.elf"], aside))
        if board.runs_linux:
            stack = StackUse(None, unknown_because="it is the system's to give, and its C library's calls are in it")
        else:
            usage = StackUsage.of_program(aside / "network.elf", binutils, sorted(aside.glob("*.ci")))
            stack = usage.worst_case(f"{name}_run")
        return Footprint(
            compiler=run_tool([compiler, "--version"], aside).splitlines()[0],
            code_bytes=sizes.get(".network_code", 0),
            constant_bytes=sizes.get(".network_constants", 0),
            library_bytes=sizes.get(".library", 0) + sizes.get(".ARM.exidx", 0),
            static_bytes=sizes.get(".data", 0) + sizes.get(".bss", 0) + caller_arena_bytes,
            stack=stack,
        )


def _origins(board: Board) -> dict[str, int]:
    """Return where code and data go: an operating system has them anywhere, but apart."""
    if board.flash is None or board.ram is None:
        return {"flash": 0x10000, "ram": 0x4000_0000}
    return {"flash": board.flash.origin, "ram": board.ram.origin}


def _read_sizes(text: str) -> dict[str, int]:
    fields = [line.split() for line in text.splitlines()]
    return {field[0]: int(field[1]) for field in fields if len(field) == 3 and field[1].isdecimal()}
