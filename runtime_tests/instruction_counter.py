"""Exact counts of the instructions an emulated processor executes, by a QEMU plugin built on this computer."""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path

from thumbnet.runtime_tests.qemu_plugin import build_plugin
from thumbnet.runtime_tests.run_folder import run_folder

SOURCE = Path(__file__).with_name("count_instructions.c")
_HEADER = struct.Struct("=QQ")
_PAIR = struct.Struct("=QQ")


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
        self._plugin = build_plugin(SOURCE)
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
