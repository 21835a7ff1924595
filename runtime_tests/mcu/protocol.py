"""The calls to a microcontroller's firmware and what they return, checked. The other end is rpc.c."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NoReturn

from thumbnet.runtime_tests.errors import ArenaOverrunError, DeviceFaultError, ProtocolError
from thumbnet.runtime_tests.mcu.exchange import Command, Exchange, Reply
from thumbnet.runtime_tests.mcu.framing import LONGEST_FRAME
from thumbnet.runtime_tests.mcu.transport import Transport

#: What the firmware says instead of an index for "none".
NONE = 0xFFFF_FFFF

_SIZES = struct.Struct("<8IBI")
_RUN = struct.Struct("<5I")


@dataclass(frozen=True)
class Identity:
    """What a firmware says of itself: sizes in bytes, ticks in hertz.

    `missing` is what of the board's set-up did not come, so that its core runs at another clock; empty as a rule.
    """

    chunk: int
    input_bytes: int
    output_bytes: int
    arena_bytes: int
    layer_count: int
    golden_count: int
    stack_bytes: int
    tick_hz: int
    tick_kind: Literal["timer", "cycles"]
    input_address: int
    model: str
    model_hash: str
    board: str
    missing: str = ""


@dataclass(frozen=True)
class Run:
    """What the firmware says of a run of the network, and of the output that it left.

    Parameters
    ----------
    sequence : int
        By which its output is read, until the network or its input is touched again.
    ticks : int
        Of the board's timer.
    stack_bytes : int
        Stack used.
    output_bytes, output_address, output_crc : int
        Size, place on the board, and CRC-32 of the output.
    """

    sequence: int
    ticks: int
    stack_bytes: int
    output_bytes: int
    output_address: int
    output_crc: int

    def check_output(self, data: bytes) -> bytes:
        """Return the output that was read; `DeviceFaultError` where it isn't what the run left."""
        if zlib.crc32(data) != self.output_crc:
            raise DeviceFaultError(
                f"the output read has CRC {zlib.crc32(data):08x}, the run left {self.output_crc:08x}; run it again"
            )
        return data


@dataclass(frozen=True)
class SelfTest:
    """Result of the self-test; `mismatch` is the index of the first wrong golden vector, None where all are right."""

    vectors: int
    mismatch: int | None
    output_index: int | None


class ProtocolClient:
    """One microcontroller at the other end of an open transport.

    All methods end at the deadline of each call they make, and raise what `Exchange.call` does; further
    `ArenaOverrunError` where the network wrote outside its arena, `DeviceFaultError` where the core faulted, and
    `ProtocolError` where a reply's length or fields make no sense.

    Parameters
    ----------
    transport : Transport
        Open line.
    reply_timeout_s, run_timeout_s, resend_s, clock
        See `Exchange`.
    """

    def __init__(
        self,
        transport: Transport,
        reply_timeout_s: float = 10.0,
        run_timeout_s: float = 300.0,
        resend_s: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._exchange = Exchange(transport, reply_timeout_s, run_timeout_s, resend_s, clock)
        self._identity: Identity | None = None

    @property
    def identity(self) -> Identity:
        """What the firmware said when the session was opened."""
        if self._identity is None:
            raise ProtocolError("no session is open on the board; open one first")
        return self._identity

    def open(self) -> Identity:
        """Open a session, which ends the one before; nothing written or computed in that can be read any more."""
        self._identity = _read_identity(self._call(Command.OPEN))
        return self._identity

    def write_input(self, data: bytes) -> None:
        """Write the network's input."""
        chunk = self.identity.chunk
        for offset in range(0, len(data), chunk):
            self._call(Command.WRITE_INPUT, struct.pack("<I", offset) + data[offset : offset + chunk], expected=0)

    def confirm_input(self, data: bytes) -> None:
        """Say that the network's input has been put into memory at `Identity.input_address`; the firmware checks it."""
        self._call(Command.INPUT_PLACED, struct.pack("<I", zlib.crc32(data)), expected=0)

    def run(self) -> Run:
        """Run one inference."""
        return self._run(Command.RUN, b"", self.identity.output_bytes)

    def run_layer(self, layer: int, output_bytes: int) -> Run:
        """Run one layer, whose output has `output_bytes`, after the one before it."""
        return self._run(Command.RUN_LAYER, struct.pack("<I", layer), output_bytes)

    def read_output(self, run: Run) -> bytes:
        """Read the output of the last run."""
        data = b""
        while len(data) < run.output_bytes:
            size = min(self.identity.chunk, run.output_bytes - len(data))
            arguments = struct.pack("<3I", run.sequence, len(data), size)
            data += self._call(Command.READ_OUTPUT, arguments, expected=size)
        return run.check_output(data)

    def profile(self) -> list[int]:
        """Run all layers one by one; return the ticks of each."""
        count = self.identity.layer_count
        run = self._run(Command.PROFILE, b"", 4 * count)
        return list(struct.unpack(f"<{count}I", self.read_output(run)))

    def self_test(self) -> SelfTest:
        """Let the firmware check itself against the golden vectors in its image."""
        vectors, mismatch, index = struct.unpack("<3I", self._call(Command.SELF_TEST, expected=12))
        right = mismatch == NONE
        if vectors != self.identity.golden_count or not (right or mismatch < vectors):
            _refuse(Command.SELF_TEST, f"vector {mismatch} of {vectors}, expected {self.identity.golden_count} vectors")
        if not right and index >= self.identity.output_bytes:
            _refuse(Command.SELF_TEST, f"byte {index} of an output of {self.identity.output_bytes} bytes")
        return SelfTest(vectors, None, None) if right else SelfTest(vectors, mismatch, index)

    def calibrate(self) -> int:
        """Measure a call that does nothing; return its ticks."""
        (ticks,) = struct.unpack("<I", self._call(Command.CALIBRATE, expected=4))
        return int(ticks)

    def clock(self) -> int:
        """Return the ticks that the board's timer has counted, modulo 2**32.

        Until the next call the core stays awake: some counters stand still while it sleeps.
        """
        (ticks,) = struct.unpack("<I", self._call(Command.CLOCK, expected=4))
        return int(ticks)

    def _run(self, command: Command, arguments: bytes, output_bytes: int) -> Run:
        results = self._call(command, arguments, expected=_RUN.size)
        run = Run(self._exchange.sequence, *_RUN.unpack(results))
        if run.output_bytes != output_bytes:
            _refuse(command, f"an output of {run.output_bytes} bytes, expected {output_bytes}")
        if run.stack_bytes > self.identity.stack_bytes:
            _refuse(command, f"{run.stack_bytes} bytes of stack used, the firmware has {self.identity.stack_bytes}")
        return run

    def _call(self, command: Command, arguments: bytes = b"", expected: int | None = None) -> bytes:
        """Make one call; return its results, as many bytes as expected."""
        status, results = self._exchange.call(command, arguments)
        if status is Reply.FAULT:
            raise DeviceFaultError(_describe_fault(command, results))
        if status is Reply.ARENA_OVERRUN:
            raise _arena_overrun(command, results, self.identity.layer_count)
        if expected is not None and len(results) != expected:
            _refuse(command, f"{len(results)} bytes of results, expected {expected}")
        return results


def _refuse(command: Command, what: str) -> NoReturn:
    raise ProtocolError(f"{command.name}: the firmware replied {what}; flash it again")


def _read_identity(data: bytes) -> Identity:
    names: list[str] = []
    rest = data[_SIZES.size :]
    while rest and len(rest) > rest[0]:
        names.append(rest[1 : 1 + rest[0]].decode("ascii", errors="replace"))
        rest = rest[1 + rest[0] :]
    if len(names) != 4 or rest or not all(names[:3]) or not all(name.isprintable() for name in names):
        _refuse(Command.OPEN, f"an identity of {len(data)} bytes that makes no sense")
    chunk, inputs, outputs, arena, layers, golden, stack, hz, kind, address = _SIZES.unpack_from(data)
    if not all((chunk, inputs, outputs, arena, layers, stack, hz)) or chunk > LONGEST_FRAME or kind > 1:
        _refuse(Command.OPEN, f"sizes, layers, ticks a second or a kind of ticks ({kind}) that can't be")
    tick_kind: Literal["timer", "cycles"] = "cycles" if kind else "timer"
    return Identity(chunk, inputs, outputs, arena, layers, golden, stack, hz, tick_kind, address, *names)


def _arena_overrun(command: Command, data: bytes, layer_count: int) -> ArenaOverrunError:
    if len(data) != 12:
        _refuse(command, f"a write outside the arena in {len(data)} bytes, expected 12")
    behind, reach, stage = struct.unpack("<3I", data)
    if behind > 1 or reach == 0 or not (stage == NONE or stage < layer_count):
        _refuse(command, f"a write outside the arena of {reach} bytes on side {behind} after stage {stage}")
    side = "behind the end" if behind else "before the start"
    seen = "the whole inference" if stage == NONE else f"stage {stage}"
    return ArenaOverrunError(
        f"the network wrote up to {reach} bytes {side} of its arena, seen after {seen}",
        behind=bool(behind),
        reach_bytes=reach,
        stage=None if stage == NONE else stage,
    )


def _describe_fault(command: Command, data: bytes) -> str:
    if len(data) != 16:
        _refuse(command, f"a fault in {len(data)} bytes, expected 16")
    cfsr, hfsr, address, pc = struct.unpack("<4I", data)
    kinds = [
        (0xFF, "memory protection fault"),
        (0x7F00, "bus fault"),
        (0x10000, "undefined instruction"),
        (0x20000, "invalid state"),
        (0x80000, "no coprocessor"),
        (0x100000, "stack overflow"),
        (0x1000000, "unaligned access"),
        (0x2000000, "division by zero"),
    ]
    names = [name for mask, name in kinds if cfsr & mask] or ["fault"]
    where = f" of address {address:#010x}" if cfsr & 0x8080 else ""
    return f"the core faulted: {', '.join(names)}{where} at {pc:#010x} (CFSR {cfsr:#010x}, HFSR {hfsr:#010x})"
