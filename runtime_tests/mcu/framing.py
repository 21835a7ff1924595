"""Frames of the microcontroller protocol: COBS(payload, CRC-32), ended by a zero byte. The other end is frame.c."""

from __future__ import annotations

import struct
import zlib

from cobs import cobs

END = b"\0"
_CRC = struct.Struct("<I")


class FrameDamagedError(Exception):
    """A frame's bytes are no COBS, too few, or don't match their CRC."""


def encode_frame(payload: bytes) -> bytes:
    """Return the frame of a payload: COBS(payload, CRC-32 as 4 little-endian bytes), then a zero byte."""
    return bytes(cobs.encode(payload + _CRC.pack(zlib.crc32(payload)))) + END


def decode_frame(frame: bytes) -> bytes:
    """Return the payload of a frame, given with or without its closing zero byte.

    Raises
    ------
    FrameDamagedError
        The frame is not what `encode_frame` made of any payload.
    """
    try:
        data = bytes(cobs.decode(frame.removesuffix(END)))
    except cobs.DecodeError as error:
        raise FrameDamagedError(str(error)) from error
    if len(data) < _CRC.size:
        raise FrameDamagedError(f"a frame of {len(data)} bytes is too short for its CRC")
    payload, (crc,) = data[: -_CRC.size], _CRC.unpack(data[-_CRC.size :])
    if zlib.crc32(payload) != crc:
        raise FrameDamagedError(f"CRC is {zlib.crc32(payload):08x}, the frame says {crc:08x}")
    return payload


class FrameReader:
    """Cuts a stream of bytes, as it comes, into frames. Empty frames are skipped."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def take(self, data: bytes) -> list[bytes]:
        """Return the frames (without their zero byte, not yet decoded) that `data` completes."""
        self._pending += data
        *frames, rest = self._pending.split(END)
        self._pending = bytearray(rest)
        return [bytes(frame) for frame in frames if frame]
