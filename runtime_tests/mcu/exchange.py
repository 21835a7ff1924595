"""One call to a microcontroller's firmware over a line that loses and damages bytes. The numbers are rpc.h's."""

from __future__ import annotations

import secrets
import struct
import time
from collections.abc import Callable
from enum import IntEnum

from thumbnet.runtime_tests.errors import DeviceFaultError, DeviceUnreachableError, ProtocolError, SessionError
from thumbnet.runtime_tests.mcu.framing import FrameDamagedError, FrameReader, decode_frame, encode_frame
from thumbnet.runtime_tests.mcu.transport import Transport, TransportTimeoutError

VERSION = 5
#: Version, command, session, sequence.
HEADER = struct.Struct("<BBII")


class Command(IntEnum):
    """What the firmware can be asked; rpc.h lists arguments and results."""

    OPEN = 1
    WRITE_INPUT = 2
    INPUT_PLACED = 3
    RUN = 4
    RUN_LAYER = 5
    PROFILE = 6
    READ_OUTPUT = 7
    SELF_TEST = 8
    CALIBRATE = 9
    CLOCK = 10


class Reply(IntEnum):
    """How the firmware answers."""

    OK = 0
    ACCEPTED = 1
    BAD_VERSION = 2
    NO_SESSION = 3
    UNKNOWN = 4
    BAD_LENGTH = 5
    BAD_RANGE = 6
    BAD_CRC = 7
    NO_INPUT = 8
    NO_OUTPUT = 9
    ARENA_OVERRUN = 10
    FAULT = 11


#: Calls that run the network: they may take long, and the firmware says ACCEPTED first.
LONG_CALLS = {Command.RUN, Command.RUN_LAYER, Command.PROFILE, Command.SELF_TEST}

#: Refusals, which come without results.
_REASONS = {
    Reply.UNKNOWN: "the firmware doesn't know that call",
    Reply.BAD_LENGTH: "the firmware expects other arguments",
    Reply.BAD_RANGE: "outside the network's input, output or layers",
    Reply.BAD_CRC: "the input in memory is not the one sent",
    Reply.NO_INPUT: "an inference needs its input written first",
    Reply.NO_OUTPUT: "that output is no more: the network was touched since",
}


class Exchange:
    """Calls of one session, one after the other.

    A call is sent again and again until its reply arrives whole or its deadline has passed; whatever else arrives,
    damaged frames and late replies to earlier calls, is passed over. Session and sequence number make sure that a
    repeated request is executed once, and that no reply is taken for another's. A board that was reset has forgotten
    the session, and says so.

    Parameters
    ----------
    transport : Transport
        Open line.
    reply_timeout_s : float
        The deadline of a short call. A long one, of which not one byte has been heard for as long, ends as well.
    run_timeout_s : float
        The deadline of a call that runs the network.
    resend_s : float
        How long to wait for a reply before the request is sent again. Best no shorter than the longest request and
        reply take on the line.
    clock : callable
        Seconds, from any start.
    """

    def __init__(
        self,
        transport: Transport,
        reply_timeout_s: float,
        run_timeout_s: float,
        resend_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._reply_timeout_s = reply_timeout_s
        self._run_timeout_s = run_timeout_s
        self._resend_s = resend_s
        self._clock = clock
        self._session = 0
        self._sequence = 0
        self._frames = FrameReader()

    @property
    def sequence(self) -> int:
        """Number of the last call in its session; outputs are known by it."""
        return self._sequence

    def call(self, command: Command, arguments: bytes = b"") -> tuple[Reply, bytes]:
        """Make one call; return `Reply.OK`, `Reply.ARENA_OVERRUN` or `Reply.FAULT`, and what came with it.

        OPEN begins a new session. The call ends at its deadline, see `Exchange`, whatever happens on the line.

        Raises
        ------
        DeviceUnreachableError
            No reply before the deadline, or the line is gone.
        DeviceFaultError
            The firmware refused the call, was reset, or a run did not end in time.
        ProtocolError
            Only damaged frames came before the deadline, the firmware speaks another version, or its reply makes no
            sense.
        """
        if command is Command.OPEN:
            self._session, self._sequence = 1 + secrets.randbelow(0xFFFF_FFFF), 0
        self._sequence += 1
        header = HEADER.pack(VERSION, command, self._session, self._sequence)
        frame = encode_frame(header + arguments)
        started = next_send = self._clock()
        limit_s = self._run_timeout_s if command in LONG_CALLS else self._reply_timeout_s
        silence_s = min(limit_s, self._reply_timeout_s)
        heard = accepted = False
        damaged = 0
        while (now := self._clock()) < (ends := started + (limit_s if heard else silence_s)):
            try:
                if now >= next_send:
                    next_send = now + self._resend_s
                    self._transport.write(frame, ends - now)
                data = self._transport.read(4096, max(0.0, min(next_send, ends) - self._clock()))
            except TransportTimeoutError:
                continue
            heard = True
            for arrived in self._frames.take(data):
                try:
                    payload = decode_frame(arrived)
                except FrameDamagedError:
                    damaged += 1
                    continue
                reply = _read_reply(command, header, payload)
                if reply is not None and reply[0] is not Reply.ACCEPTED:
                    return reply
                accepted = accepted or reply is not None
        raise _no_reply(command, limit_s if heard else silence_s, accepted, damaged)


def _read_reply(command: Command, header: bytes, payload: bytes) -> tuple[Reply, bytes] | None:
    """Return the status and results of a reply, None where it belongs to another call."""
    if command is Command.OPEN and (len(payload) <= HEADER.size or payload[0] != VERSION):
        # Before version 3 the version was not in the header, and headers were shorter.
        theirs = f"version {payload[0]}" if len(payload) > HEADER.size else "another version"
        raise ProtocolError(f"the firmware speaks {theirs} of the protocol, thumbnet {VERSION}; flash it again")
    if payload[: HEADER.size] != header or len(payload) == HEADER.size:
        return None
    code, results = payload[HEADER.size], payload[HEADER.size + 1 :]
    if code not in set(Reply):
        raise ProtocolError(f"{command.name}: status {code}, which version {VERSION} of the protocol hasn't")
    status = Reply(code)
    if status in (Reply.ACCEPTED, Reply.ARENA_OVERRUN) and command not in LONG_CALLS:
        raise ProtocolError(f"{command.name}: {status.name}, which only calls that run the network may be answered")
    if status in (Reply.OK, Reply.ARENA_OVERRUN, Reply.FAULT):
        return status, results
    if results:
        raise ProtocolError(f"{command.name}: {status.name} with {len(results)} bytes of results, expected none")
    if status is Reply.ACCEPTED:
        return status, results
    if status is Reply.NO_SESSION:
        raise DeviceFaultError(f"the board was reset during {command.name}, or opened by another program")
    raise DeviceFaultError(f"{command.name} failed on the board: {_REASONS.get(status, status.name)}")


def _no_reply(command: Command, limit_s: float, accepted: bool, damaged: int) -> SessionError:
    if accepted:
        return DeviceFaultError(f"{command.name} began but did not end in {limit_s:g} s; the firmware hangs")
    if damaged:
        return ProtocolError(
            f"{command.name}: {damaged} damaged frames and no whole reply in {limit_s:g} s; check cable and baud"
        )
    return DeviceUnreachableError(f"the board did not answer {command.name} in {limit_s:g} s; is the firmware on it?")
