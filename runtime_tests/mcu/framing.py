"""Frames of the microcontroller protocol: COBS(payload, CRC-32) between zero bytes. The other end is frame.c."""

from __future__ import annotations

import struct
import zlib

from cobs import cobs

END = b"\0"
#: More than any frame of the protocol has.
LONGEST_FRAME = 4096
_CRC = struct.Struct("<I")


class FrameDamagedError(Exception):
    """A frame's bytes are no COBS, too few, or don't match their CRC."""


def encode_frame(payload: bytes) -> bytes:
    """Return the frame of a payload: a zero byte, COBS(payload, CRC-32 as 4 little-endian bytes), a zero byte.

    The first zero ends what noise may have begun at the other end.
    """
    return END + bytes(cobs.encode(payload + _CRC.pack(zlib.crc32(payload)))) + END


def decode_frame(frame: bytes) -> bytes:
    """Return the payload of a frame, given with or without its zero bytes.

    Raises
    ------
    FrameDamagedError
        The frame is not what `encode_frame` made of any payload.
    """
    try:
        data = bytes(cobs.decode(frame.removeprefix(END).removesuffix(END)))
    except cobs.DecodeError as error:
        raise FrameDamagedError(str(error)) from error
    if len(data) < _CRC.size:
        raise FrameDamagedError(f"a frame of {len(data)} bytes is too short for its CRC")
    payload, (crc,) = data[: -_CRC.size], _CRC.unpack(data[-_CRC.size :])
    if zlib.crc32(payload) != crc:
        raise FrameDamagedError(f"CRC is {zlib.crc32(payload):08x}, the frame says {crc:08x}")
    return payload


class FrameReader:
    """Cuts a stream of bytes, as it comes, into frames. Empty frames are skipped, endless ones cut off."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def take(self, data: bytes) -> list[bytes]:
        """Return the frames (without their zero bytes, not yet decoded) that `data` completes."""
        *ended, rest = data.split(END)
        frames = []
        for part in ended:
            self._append(part)
            if self._pending:
                frames.append(bytes(self._pending))
                self._pending.clear()
        self._append(rest)
        return frames

    def _append(self, part: bytes) -> None:
        # What is cut off here was noise: it can't be decoded anyway.
        self._pending += part[: max(0, LONGEST_FRAME - len(self._pending))]
