"""The calls to a microcontroller's firmware, over any `Transport`. The other end is rpc.c, the numbers are rpc.h's."""

from __future__ import annotations

import struct
import time
import zlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from thumbnet.runtime_tests.errors import ArenaOverrunError, DeviceFaultError, DeviceUnreachableError, ProtocolError
from thumbnet.runtime_tests.mcu.framing import END, FrameDamagedError, FrameReader, decode_frame, encode_frame
from thumbnet.runtime_tests.mcu.transport import Transport, TransportTimeoutError

VERSION = 2
#: What the firmware says instead of an index for "none".
NONE = 0xFFFF_FFFF


class Command(IntEnum):
    """What the firmware can be asked; rpc.h lists arguments and results."""

    IDENTIFY = 1
    WRITE_INPUT = 2
    RUN = 3
    READ_OUTPUT = 4
    RUN_LAYER = 5
    READ_LAYER = 6
    PROFILE = 7
    SELF_TEST = 8
    CALIBRATE = 9
    INPUT_PLACED = 10


class Reply(IntEnum):
    """How the firmware answers."""

    OK = 0
    DAMAGED = 1
    UNKNOWN = 2
    BAD_LENGTH = 3
    BAD_RANGE = 4
    NO_INPUT = 5
    FAULT = 6
    ACCEPTED = 7
    BAD_CRC = 8
    ARENA_OVERRUN = 9


#: Calls that run the network: the firmware says ACCEPTED first, so that a long run is told from a lost request.
LONG_CALLS = {Command.RUN, Command.RUN_LAYER, Command.PROFILE, Command.SELF_TEST}

_REASONS = {
    Reply.UNKNOWN: "the firmware doesn't know that call",
    Reply.BAD_LENGTH: "the firmware expects other arguments",
    Reply.BAD_RANGE: "outside the network's input, output or layers",
    Reply.BAD_CRC: "the input in memory is not the one sent",
    Reply.NO_INPUT: "an inference needs its input written first",
}


@dataclass(frozen=True)
class Identity:
    """What a firmware says of itself: sizes in bytes, ticks in hertz."""

    version: int
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


@dataclass(frozen=True)
class SelfTest:
    """Result of the self-test; `mismatch` is the index of the first wrong golden vector, None where all are right."""

    vectors: int
    mismatch: int | None
    output_index: int | None


class ProtocolClient:
    """One microcontroller at the other end of an open transport.

    Parameters
    ----------
    transport : Transport
        Open line.
    reply_timeout_s : float
        How long a short call may take.
    run_timeout_s : float
        How long a call that runs the network may take.
    attempts : int
        How often a request is sent in all when it or its reply is lost or damaged. A repeated request is not executed
        twice: the firmware knows it by its sequence number.
    """

    def __init__(
        self, transport: Transport, reply_timeout_s: float = 3.0, run_timeout_s: float = 300.0, attempts: int = 4
    ) -> None:
        self._transport = transport
        self._reply_timeout_s = reply_timeout_s
        self._run_timeout_s = run_timeout_s
        self._attempts = attempts
        # The firmware may remember the last request of an earlier client.
        self._sequence = time.monotonic_ns() & 0xFF
        self._frames = FrameReader()
        self._arrived: list[bytes] = []

    def identify(self) -> Identity:
        """Ask the firmware what it is.

        Raises
        ------
        ProtocolError
            It speaks another version.
        """
        data = self.call(Command.IDENTIFY)
        try:
            (version,) = struct.unpack_from("<I", data)
            if version != VERSION:
                raise ProtocolError(
                    f"the firmware speaks protocol version {version}, thumbnet {VERSION}; flash it again"
                )
            chunk, inputs, outputs, arena, layers, golden, stack, hz, kind, at = struct.unpack_from("<8IBI", data, 4)
            model, rest = _take_string(data[4 + struct.calcsize("<8IBI") :])
            model_hash, rest = _take_string(rest)
            board, _ = _take_string(rest)
        except (struct.error, IndexError, UnicodeDecodeError) as error:
            raise ProtocolError(
                f"the firmware's identity of {len(data)} bytes makes no sense; flash it again"
            ) from error
        tick_kind: Literal["timer", "cycles"] = "cycles" if kind else "timer"
        return Identity(
            version, chunk, inputs, outputs, arena, layers, golden, stack, hz, tick_kind, at, model, model_hash, board
        )

    def write_input(self, data: bytes, chunk: int) -> None:
        """Write the network's input in pieces of at most `chunk` bytes."""
        for offset in range(0, len(data), chunk):
            self.call(Command.WRITE_INPUT, struct.pack("<I", offset) + data[offset : offset + chunk])

    def confirm_input(self, data: bytes) -> None:
        """Say that the network's input has been put into memory at `Identity.input_address`; the firmware checks it."""
        self.call(Command.INPUT_PLACED, struct.pack("<I", zlib.crc32(data)))

    def run(self) -> tuple[int, int]:
        """Run one inference; return its ticks and its stack use in bytes."""
        ticks, stack = struct.unpack("<2I", self.call(Command.RUN))
        return ticks, stack

    def run_layer(self, layer: int) -> tuple[int, int]:
        """Run one layer, after the one before it; return its output's size in bytes and address."""
        _, _, size, address = struct.unpack("<4I", self.call(Command.RUN_LAYER, struct.pack("<I", layer)))
        return size, address

    def read_output(self, size: int, chunk: int) -> bytes:
        """Read the network's output of `size` bytes."""
        return self._read(Command.READ_OUTPUT, b"", size, chunk)

    def read_layer(self, layer: int, size: int, chunk: int) -> bytes:
        """Read the output of `size` bytes of the layer that ran last."""
        return self._read(Command.READ_LAYER, struct.pack("<I", layer), size, chunk)

    def profile(self, layer_count: int) -> list[int]:
        """Run all layers one by one; return the ticks of each."""
        ticks: list[int] = []
        while len(ticks) < layer_count:
            data = self.call(Command.PROFILE, struct.pack("<I", len(ticks)))
            if not data:
                raise ProtocolError(f"the firmware has {len(ticks)} layers, the artifact {layer_count}; flash it again")
            ticks += struct.unpack(f"<{len(data) // 4}I", data)
        return ticks

    def self_test(self) -> SelfTest:
        """Let the firmware check itself against the golden vectors in its image."""
        vectors, mismatch, index = struct.unpack("<3I", self.call(Command.SELF_TEST))
        return SelfTest(vectors, None, None) if mismatch == NONE else SelfTest(vectors, mismatch, index)

    def calibrate(self) -> int:
        """Measure a call that does nothing; return its ticks."""
        (ticks,) = struct.unpack("<I", self.call(Command.CALIBRATE))
        return int(ticks)

    def call(self, command: Command, arguments: bytes = b"") -> bytes:
        """Make one call and return its results.

        Raises
        ------
        DeviceUnreachableError
            No answer to any attempt.
        ArenaOverrunError
            The network wrote outside its arena.
        DeviceFaultError
            The firmware refused the call, its core faulted, or a run did not end in time.
        ProtocolError
            Frames were damaged on every attempt.
        """
        self._sequence = (self._sequence + 1) & 0xFF
        frame = END + encode_frame(bytes([self._sequence, command]) + arguments)
        damaged = 0
        for _ in range(self._attempts):
            self._transport.write(frame)
            try:
                return self._await_reply(command)
            except FrameDamagedError:
                damaged += 1
            except TransportTimeoutError:
                continue
        if damaged:
            raise ProtocolError(
                f"{command.name}: damaged {damaged} times of {self._attempts}; check the cable and baud"
            )
        total = self._attempts * self._reply_timeout_s
        raise DeviceUnreachableError(f"the board did not answer {command.name} in {total:g} s; is the firmware on it?")

    def _await_reply(self, command: Command) -> bytes:
        deadline = time.monotonic() + self._reply_timeout_s
        accepted = False
        while True:
            try:
                payload = self._next_payload(deadline)
            except TransportTimeoutError:
                if not accepted:
                    raise
                raise DeviceFaultError(
                    f"{command.name} began but did not end in {self._run_timeout_s:g} s; the firmware hangs"
                ) from None
            if len(payload) < 3:
                raise FrameDamagedError(f"a reply of {len(payload)} bytes")
            sequence, _, status = payload[:3]
            if status == Reply.DAMAGED:
                raise FrameDamagedError("the request arrived damaged")
            if status == Reply.FAULT:
                raise DeviceFaultError(_describe_fault(payload[3:]))
            if sequence != self._sequence:
                continue  # the late reply to an attempt before
            if status == Reply.ACCEPTED:
                accepted = True
                deadline = time.monotonic() + self._run_timeout_s
                continue
            if status == Reply.ARENA_OVERRUN:
                raise _arena_overrun(payload[3:])
            if status != Reply.OK:
                reason = _REASONS.get(Reply(status), f"status {status}") if status in set(Reply) else f"status {status}"
                raise DeviceFaultError(f"{command.name} failed on the board: {reason}")
            return payload[3:]

    def _next_payload(self, deadline: float) -> bytes:
        while not self._arrived:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TransportTimeoutError("no whole frame arrived in time")
            self._arrived += self._frames.take(self._transport.read(4096, left))
        return decode_frame(self._arrived.pop(0))

    def _read(self, command: Command, prefix: bytes, size: int, chunk: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.call(command, prefix + struct.pack("<2I", len(data), min(chunk, size - len(data))))
            if not part:
                raise ProtocolError(f"{command.name}: {len(data)} of {size} bytes, then none")
            data += part
        return data


def _take_string(data: bytes) -> tuple[str, bytes]:
    length = data[0]
    return data[1 : 1 + length].decode(), data[1 + length :]


def _arena_overrun(data: bytes) -> DeviceFaultError:
    if len(data) != 12:
        return DeviceFaultError("the network wrote outside its arena")
    behind, reach, stage = struct.unpack("<3I", data)
    side = "behind the end" if behind else "before the start"
    seen = "the whole inference" if stage == NONE else f"stage {stage}"
    return ArenaOverrunError(
        f"the network wrote up to {reach} bytes {side} of its arena, seen after {seen}",
        behind=bool(behind),
        reach_bytes=reach,
        stage=None if stage == NONE else stage,
    )


def _describe_fault(data: bytes) -> str:
    if len(data) != 16:
        return "the core faulted"
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
