"""A connection over TCP to the firmware of a board that runs Linux."""

from __future__ import annotations

import contextlib
import socket

from thumbnet.runtime_tests.errors import DeviceUnreachableError
from thumbnet.runtime_tests.mcu.transport import SocketTransport, Transport

_CONNECT_TIMEOUT_S = 10.0
#: A board that is gone from the network is noticed in half a minute.
_KEEPALIVE = {socket.TCP_KEEPIDLE: 15, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}


class TcpTransport(Transport):
    """A connection that `open` makes.

    Parameters
    ----------
    address : str
        ``HOST:PORT``.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._line: SocketTransport | None = None

    def open(self) -> None:
        """See `Transport.open`."""
        host, _, port = self._address.rpartition(":")
        try:
            connected = socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT_S)
        except OSError as error:
            reason = error.strerror or error
            raise DeviceUnreachableError(
                f"{self._address}: can't be connected ({reason}); is the firmware started there?"
            ) from error
        with contextlib.ExitStack() as opened:
            opened.enter_context(connected)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE.items():
                connected.setsockopt(socket.IPPROTO_TCP, option, value)
            opened.pop_all()
        self._line = SocketTransport(connected, self._address)

    def close(self) -> None:
        """End the connection."""
        if self._line is not None:
            self._line.close()

    def read(self, n: int, timeout_s: float) -> bytes:
        """See `Transport.read`."""
        return self._opened().read(n, timeout_s)

    def write(self, data: bytes, timeout_s: float) -> None:
        """See `Transport.write`."""
        self._opened().write(data, timeout_s)

    def _opened(self) -> SocketTransport:
        if self._line is None:
            raise DeviceUnreachableError(f"{self._address}: is not open")
        return self._line
