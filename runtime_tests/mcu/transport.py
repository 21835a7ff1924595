"""A line of bytes to a microcontroller, whatever it is made of."""

from __future__ import annotations

import contextlib
import select
import socket
from abc import ABC, abstractmethod
from typing import TextIO

from thumbnet.runtime_tests.errors import DeviceUnreachableError


class TransportTimeoutError(DeviceUnreachableError):
    """Nothing arrived, or not all could be sent, in the time given."""


class Transport(ABC):
    """A line of bytes. Lines lose and damage bytes; whole messages are the protocol's business."""

    @abstractmethod
    def open(self) -> None:
        """Take the line, and forget what arrived before.

        Raises
        ------
        DeviceUnreachableError
            There is no such line, or another program holds it.
        """

    @abstractmethod
    def close(self) -> None:
        """Let the line go. May be called twice."""

    @abstractmethod
    def read(self, n: int, timeout_s: float) -> bytes:
        """Return the bytes that have arrived, at least one and at most `n`; wait for the first one `timeout_s` seconds.

        Raises
        ------
        TransportTimeoutError
            None arrived.
        DeviceUnreachableError
            The line is gone.
        """

    @abstractmethod
    def write(self, data: bytes, timeout_s: float) -> None:
        """Send all bytes, within `timeout_s` seconds.

        Raises
        ------
        TransportTimeoutError
            The line takes no more; some bytes may have been sent.
        DeviceUnreachableError
            The line is gone.
        """


class SocketTransport(Transport):
    """A connected stream socket, such as the serial port of an emulator."""

    def __init__(self, connected: socket.socket, name: str) -> None:
        self._socket = connected
        self._name = name

    def open(self) -> None:
        """Do nothing: the socket is connected."""

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def read(self, n: int, timeout_s: float) -> bytes:
        """See `Transport.read`."""
        try:
            ready, _, _ = select.select([self._socket], [], [], timeout_s)
            if not ready:
                raise TransportTimeoutError(f"{self._name}: nothing arrived in {timeout_s:g} s")
            data = self._socket.recv(n)
        except (OSError, ValueError) as error:  # select says ValueError of a closed socket
            raise DeviceUnreachableError(f"{self._name}: the line broke ({error})") from error
        if not data:
            raise DeviceUnreachableError(f"{self._name}: the other end closed the line")
        return data

    def write(self, data: bytes, timeout_s: float) -> None:
        """See `Transport.write`."""
        try:
            self._socket.settimeout(timeout_s)
            self._socket.sendall(data)
        except TimeoutError as error:
            raise TransportTimeoutError(f"{self._name}: takes no bytes for {timeout_s:g} s") from error
        except (OSError, ValueError) as error:
            raise DeviceUnreachableError(f"{self._name}: the line broke ({error})") from error


class LoggingTransport(Transport):
    """Any transport, with all that passes written to a log as hexadecimal: ``>`` sent, ``<`` received."""

    def __init__(self, inner: Transport, log: TextIO) -> None:
        self._inner = inner
        self._log = log

    def open(self) -> None:
        """Open the inner transport."""
        self._log.write("open\n")
        self._inner.open()

    def close(self) -> None:
        """Close the inner transport."""
        with contextlib.suppress(ValueError):  # the log may be closed before a second close
            self._log.write("close\n")
            self._log.flush()
        self._inner.close()

    def read(self, n: int, timeout_s: float) -> bytes:
        """Read from the inner transport."""
        try:
            data = self._inner.read(n, timeout_s)
        except DeviceUnreachableError as error:
            self._log.write(f"! {error}\n")
            raise
        self._log.write(f"< {data.hex()}\n")
        return data

    def write(self, data: bytes, timeout_s: float) -> None:
        """Write to the inner transport."""
        self._log.write(f"> {data.hex()}\n")
        self._inner.write(data, timeout_s)
