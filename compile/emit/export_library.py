"""Cross-link a compiled module into a shared library that a TVM runtime on the board loads."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thumbnet.compile.emit.run_tool import run_tool
from thumbnet.compile.errors import ToolchainError

if TYPE_CHECKING:
    import tvm

    from thumbnet.targets.board import Board

#: The Debian package that brings each linker driver.
DEBIAN_PACKAGES = {
    "gcc": "gcc",
    "g++": "g++",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
    "aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu",
    "arm-linux-gnueabihf-gcc": "gcc-arm-linux-gnueabihf",
    "arm-linux-gnueabihf-g++": "g++-arm-linux-gnueabihf",
}


def tvm_target(board: Board) -> tvm.target.Target:
    """Return TVM's LLVM target of a board that takes a shared library.

    Raises
    ------
    ToolchainError
        The board takes C sources instead, or TVM's LLVM doesn't know its processor.
    """
    import tvm  # noqa: PLC0415 - takes two seconds, which boards that take C sources don't need

    if not board.llvm:
        raise ToolchainError(f"{board.name} is a {board.core} board: it takes C sources, not a shared library")
    try:
        return tvm.target.Target({"kind": "llvm", **board.llvm})
    except (ValueError, RuntimeError, TypeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise ToolchainError(f"{board.name}: TVM refuses its target {board.llvm}: {reason}") from error


@functools.cache
def compiler_version(command: str) -> str:
    """Return the line that says a compiler's name and version.

    Raises
    ------
    ToolchainError
        It is not installed, or doesn't say.
    """
    return run_tool([find_compiler(command), "--version"], Path()).splitlines()[0]


def find_compiler(command: str) -> str:
    """Return the path of a compiler.

    Raises
    ------
    ToolchainError
        It is not installed; the message names the Debian package.
    """
    path = shutil.which(command)
    if path is None:
        package = DEBIAN_PACKAGES.get(command)
        way_out = f"`apt install {package}` brings it" if package else "install it and put it on PATH"
        raise ToolchainError(f"{command} is not installed; {way_out}")
    return path


def export_library(
    executable: tvm.runtime.Executable | tvm.runtime.Module, board: Board, path: Path, objects: Sequence[Path] = ()
) -> None:
    """Link a compiled module with the board's compiler; the library needs the C library and libm only.

    It is written aside and renamed, so that `path` is a whole library or what it was before.

    Parameters
    ----------
    executable : tvm.runtime.Executable or tvm.runtime.Module
        From ``tvm.compile`` for `tvm_target` of the same board.
    board : Board
        Its ``cross_compiler`` links; for the family ``host`` that is the computer's own.
    path : Path
        File to write, usually ``<name>.so``.
    objects : sequence of Path
        What the module calls beside its own code.

    Raises
    ------
    ToolchainError
        The compiler is missing or fails.
    """
    from tvm.support import cc  # noqa: PLC0415 - as above

    linker = find_compiler(board.cross_compiler)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as aside:
        linked = Path(aside) / "library.so"
        try:
            # TVM's own folder of objects in there too: a killed run leaves nothing elsewhere.
            link = cc.cross_compiler(linker, options=[str(file) for file in objects])
            with _objects_in_memory(Path(aside)):
                executable.export_library(str(linked), fcompile=link, workspace_dir=aside)
        except RuntimeError as error:  # the linker's output, behind TVM's own words
            words = ("error", "failed", "no space")
            said = " ".join(line for line in str(error).splitlines() if any(word in line.lower() for word in words))
            raise ToolchainError(f"{linker} could not link {path.name}: {said or error}"[:400]) from error
        linked.chmod(0o755)
        linked.replace(path)


@contextlib.contextmanager
def _objects_in_memory(folder: Path) -> Iterator[None]:
    """Have TVM write its object files in a folder into memory: where a disk is full LLVM ends the whole process."""
    with contextlib.ExitStack() as stack:
        for name in ("lib0.o", "devc.o"):
            handle = os.memfd_create(name)
            stack.callback(os.close, handle)
            (folder / name).symlink_to(f"/proc/{os.getpid()}/fd/{handle}")
        yield
