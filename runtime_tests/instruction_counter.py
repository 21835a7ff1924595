"""Exact counts of the instructions an emulated processor executes, by a QEMU plugin built on this computer."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import shutil
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path

from thumbnet.compile.errors import ToolchainError
from thumbnet.runtime_tests.guarded_process import run_guarded
from thumbnet.runtime_tests.run_folder import cache_folder, run_folder

SOURCE = Path(__file__).with_name("count_instructions.c")
_FLAGS = ("-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror")
_HEADER = struct.Struct("=QQ")
_PAIR = struct.Struct("=QQ")


def build_plugin() -> Path:
    """Return the plugin's shared library, built by this computer's gcc the first time.

    Raises
    ------
    ToolchainError
        gcc is missing or failed.
    """
    gcc = shutil.which("gcc")
    if gcc is None:
        raise ToolchainError("gcc is not installed, the instruction counter needs it; `apt install gcc libc6-dev`")
    digest = hashlib.sha256(SOURCE.read_bytes() + " ".join(_FLAGS).encode()).hexdigest()[:16]
    library = cache_folder("plugins") / f"count_instructions-{digest}.so"
    if library.is_file():
        return library
    with tempfile.TemporaryDirectory(dir=run_folder()) as folder:
        aside = Path(folder) / library.name
        done = run_guarded([gcc, *_FLAGS, "-o", str(aside), str(SOURCE)])
        if done.returncode != 0:
            raise ToolchainError(f"{SOURCE.name}: gcc failed: {first_error(done.stderr)}")
        aside.replace(library)
    return library


def first_error(output: str) -> str:
    """Return the line of a compiler's or linker's output that says what is wrong."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith("collect2:")]
    return next((line for line in lines if "error" in line), lines[-1] if lines else "no output")


class InstructionCounter:
    """The counter and the log of marks that the plugin shares with this process; count_instructions.c says the layout.

    Parameters
    ----------
    marks : sequence of int
        Addresses of instructions; each time one is executed, the count before it is logged.
    room : int
        Most marks the log takes between two calls of `take_marks`.
    threads : bool
        Several threads may run at once. All their instructions are counted, by whole blocks.

    Raises
    ------
    ToolchainError
        The plugin can't be built.
    """

    def __init__(self, marks: Sequence[int] = (), room: int = 4096, *, threads: bool = False) -> None:
        self._plugin = build_plugin()
        self._threads = threads
        self._marks = tuple(marks)
        handle, name = tempfile.mkstemp(prefix="count-", dir=run_folder())
        self.path = Path(name)
        try:
            os.ftruncate(handle, _HEADER.size + room * _PAIR.size)
            self._map = mmap.mmap(handle, 0)
        except BaseException:
            self.path.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)
        self._room = room

    @property
    def qemu_options(self) -> list[str]:
        """QEMU's options that load the plugin; for qemu-system as well as for qemu-user."""
        marks = (f"mark={mark:#x}" for mark in self._marks)
        threads = ("threads=on",) if self._threads else ()
        return ["-plugin", ",".join([str(self._plugin), f"counter={self.path}", *threads, *marks])]

    @property
    def count(self) -> int:
        """Instructions executed so far."""
        return int(_HEADER.unpack_from(self._map)[0])

    def clear_marks(self) -> None:
        """Forget the marks logged so far. Only while the guest passes none."""
        struct.pack_into("=Q", self._map, 8, 0)

    def read_marks(self) -> list[tuple[int, int]]:
        """Return (address, instructions executed before it) of each mark passed since `clear_marks`.

        Raises
        ------
        OverflowError
            More were passed than there was room for.
        """
        passed = int(_HEADER.unpack_from(self._map)[1])
        if passed > self._room:
            raise OverflowError(f"{passed} marks passed, there is room for {self._room}")
        return [_PAIR.unpack_from(self._map, _HEADER.size + i * _PAIR.size) for i in range(passed)]

    def close(self) -> None:
        """Remove the shared file. May be called twice."""
        with contextlib.suppress(ValueError):
            self._map.close()
        self.path.unlink(missing_ok=True)
