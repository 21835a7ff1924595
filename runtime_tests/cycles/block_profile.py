"""What an emulated processor executes, block by block, and what caches before a flash would miss: a QEMU plugin."""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from thumbnet.runtime_tests.qemu_plugin import build_plugin
from thumbnet.runtime_tests.run_folder import run_folder
from thumbnet.targets.board import FlashTiming, Memory

SOURCE = Path(__file__).with_name("profile_blocks.c")

# profile_blocks.c's `struct profile`.
_MOST_BLOCKS, _MOST_CODE = 65536, 4 << 20
_HEADER = ("measuring", "calls", "armed", "generation", "blocks", "code_bytes", "overflowed")
_COUNTS = ("executions", "entered", "left", "fetch_misses", "data_misses", "unaligned")
_BLOCK = np.dtype(
    [
        *((name, "=u8") for name in ("address", *_COUNTS)),
        *((name, "=u4") for name in ("length", "code_offset")),
        ("call", "=u8"),
    ]
)
_PROFILE = np.dtype(
    [
        *((name, "=u8") for name in _HEADER),
        ("block", _BLOCK, _MOST_BLOCKS),
        ("code", "u1", _MOST_CODE),
    ]
)


@dataclass(frozen=True)
class ExecutedBlock:
    """Instructions that were executed one behind the other.

    Parameters
    ----------
    address : int
        Of the first.
    code : bytes
        Their machine code.
    executions : int
        How often they were executed.
    call : int
        In which of the measured calls since `BlockProfile.start`, the first being 0.
    entered, left : int
        How often by a jump to the first, and by a jump from the last.
    fetch_misses, data_misses : int
        Reads of the flash that its caches missed, for instructions and for data.
    unaligned : int
        Accesses to data that crossed their own alignment.
    """

    address: int
    code: bytes
    executions: int
    call: int
    entered: int
    left: int
    fetch_misses: int = 0
    data_misses: int = 0
    unaligned: int = 0


class BlockProfile:
    """The profile that the plugin shares with this process.

    Parameters
    ----------
    marks : sequence of int
        Addresses of two instructions: what is executed from the first to before the second is recorded. Empty where the
        guest itself sets the profile's first word, see profile_blocks.c.
    flash : Memory or None
        Where the guest's flash is; None leaves the caches out.
    timing : FlashTiming or None
        The caches before it.

    Raises
    ------
    ToolchainError
        The plugin can't be built.
    """

    def __init__(
        self, marks: Sequence[int] = (), flash: Memory | None = None, timing: FlashTiming | None = None
    ) -> None:
        self._plugin = build_plugin(SOURCE)
        self._marks = tuple(marks)
        self._flash, self._timing = flash, timing
        handle, name = tempfile.mkstemp(prefix="profile-", dir=run_folder())
        self.path = Path(name)
        try:
            os.ftruncate(handle, _PROFILE.itemsize)
            self._map = mmap.mmap(handle, 0)
        except BaseException:
            self.path.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)

    @property
    def qemu_options(self) -> list[str]:
        """QEMU's options that load the plugin; for qemu-system as well as for qemu-user."""
        options = [str(self._plugin), f"profile={self.path}"]
        options += [f"{name}={mark:#x}" for name, mark in zip(("begin", "end"), self._marks, strict=False)]
        flash, timing = self._flash, self._timing
        if flash is not None and timing is not None:
            options.append(
                f"flash={flash.origin:#x}:{flash.size}:{timing.read_bytes}:{timing.line_bytes}"
                f":{timing.instruction_lines}:{timing.data_lines}"
            )
        return ["-plugin", ",".join(options)]

    def start(self) -> None:
        """Record from now on, and forget what was recorded. Only while the guest isn't measured."""
        profile = self._profile
        for field in ("calls", "blocks", "code_bytes", "overflowed"):
            profile[field] = 0
        profile["generation"] += 1
        profile["armed"] = 1

    def stop(self) -> list[ExecutedBlock]:
        """Record no more; return what was executed since `start`, in the order it was first reached.

        Raises
        ------
        OverflowError
            More blocks than there is room for.
        """
        profile = self._profile
        profile["armed"] = 0
        if profile["overflowed"]:
            raise OverflowError(f"more than {_MOST_BLOCKS} blocks or {_MOST_CODE} bytes of code were executed")
        code = profile["code"][: int(profile["code_bytes"])].tobytes()
        blocks = profile["block"][: int(profile["blocks"])]
        return [
            ExecutedBlock(
                address=int(block["address"]),
                code=code[int(block["code_offset"]) :][: int(block["length"])],
                call=int(block["call"]) - 1,
                **{name: int(block[name]) for name in _COUNTS},
            )
            for block in blocks
        ]

    @property
    def call_ended(self) -> bool:
        """Whether a measured call has ended since `start`."""
        return bool(self._profile["calls"] and not self._profile["measuring"])

    @property
    def _profile(self) -> Any:  # noqa: ANN401 - a record of NumPy's, by its fields
        return np.frombuffer(self._map, _PROFILE, 1)[0]

    def close(self) -> None:
        """Remove the shared file. May be called twice."""
        with contextlib.suppress(ValueError, BufferError):
            self._map.close()
        self.path.unlink(missing_ok=True)
