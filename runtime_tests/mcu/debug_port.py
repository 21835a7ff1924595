"""Memory of an emulated board, read and written through QEMU's GDB stub.

QEMU's model of the UART takes a byte a turn of its main loop, some 8 microseconds: 1.2 s for the input of a network at
224 x 224. Through the stub it is a hundredth of that. What has been written is still checked by the firmware.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from thumbnet.runtime_tests.errors import DeviceUnreachableError

#: Bytes of memory in a packet: QEMU's packets have at most 4096 characters, two a byte.
_CHUNK = 1900


class DebugPort:
    """The GDB remote protocol, as much of it as memory needs. The board stands still while it is used.

    After an error the port is closed: an answer that comes late must not be taken for that to a later question.

    Parameters
    ----------
    connected : socket.socket
        Connected to the stub.
    timeout_s : float
        How long reading or writing memory may take in all.
    """

    def __init__(self, connected: socket.socket, timeout_s: float = 30.0) -> None:
        self._socket = connected
        self._timeout_s = timeout_s
        self._deadline = 0.0
        self._pending = b""

    def write_memory(self, address: int, data: bytes) -> None:
        """Write bytes from an address on.

        Raises
        ------
        DeviceUnreachableError
            The stub is gone or does not answer in time, or there is no memory at that address.
        """
        with self._board_paused():
            for offset in range(0, len(data), _CHUNK):
                part = data[offset : offset + _CHUNK]
                if self._ask(f"M{address + offset:x},{len(part):x}:{part.hex()}") != b"OK":
                    raise DeviceUnreachableError(
                        f"the emulator has no memory at {address + offset:#010x} to be written"
                    )

    def read_memory(self, address: int, size: int) -> bytes:
        """Read `size` bytes from an address on.

        Raises
        ------
        DeviceUnreachableError
            The stub is gone or does not answer in time, or there is no memory at that address.
        """
        data = b""
        with self._board_paused():
            while len(data) < size:
                count = min(_CHUNK, size - len(data))
                answer = self._ask(f"m{address + len(data):x},{count:x}")
                if len(answer) != 2 * count:
                    raise DeviceUnreachableError(
                        f"the emulator has no memory at {address + len(data):#010x} to be read"
                    )
                data += bytes.fromhex(answer.decode())
        return data

    def close(self) -> None:
        """Close the connection. May be called twice."""
        self._socket.close()

    @contextmanager
    def _board_paused(self) -> Iterator[None]:
        self._deadline = time.monotonic() + self._timeout_s
        try:
            self._send(b"\x03")
            self._receive()  # why it stopped
            yield
            self._send(_packet("c"))
            self._acknowledged()
        except BaseException as error:
            self.close()
            if isinstance(error, (OSError, ValueError)):
                raise DeviceUnreachableError(f"the emulator's debug port broke ({error})") from error
            raise

    def _ask(self, command: str) -> bytes:
        self._send(_packet(command))
        self._acknowledged()
        return self._receive()

    def _send(self, data: bytes) -> None:
        self._limit_time()
        self._socket.sendall(data)

    def _acknowledged(self) -> None:
        if self._take(1) != b"+":
            raise DeviceUnreachableError("the emulator's debug port lost a packet")

    def _receive(self) -> bytes:
        while b"#" not in self._pending:
            self._fill()
        answer, _, self._pending = self._pending.partition(b"#")
        self._take(2)  # a socket needs no checksum
        self._send(b"+")
        return answer[answer.index(b"$") + 1 :]

    def _take(self, n: int) -> bytes:
        while len(self._pending) < n:
            self._fill()
        taken, self._pending = self._pending[:n], self._pending[n:]
        return taken

    def _fill(self) -> None:
        self._limit_time()
        data = self._socket.recv(1 << 16)
        if not data:
            raise DeviceUnreachableError("the emulator closed its debug port")
        self._pending += data

    def _limit_time(self) -> None:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise DeviceUnreachableError(f"the emulator's debug port does not answer in {self._timeout_s:g} s")
        self._socket.settimeout(left_s)


def _packet(command: str) -> bytes:
    return f"${command}#{sum(command.encode()) & 0xFF:02x}".encode()
