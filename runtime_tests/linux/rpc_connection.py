"""Connections to TVM's RPC servers that can't hang: made in bounded time, with limited answers, dropped at once."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tvm import rpc

from thumbnet.runtime_tests.errors import DeviceUnreachableError

#: How long a tracker, a device on it, or its server may take to answer, in seconds.
ANSWER_TIMEOUT_S = 10.0

#: After so many seconds of silence the kernel asks a peer whether it is there, as often as this, so many seconds apart:
#: a board that lost power or network is noticed in a quarter of a minute, however long it may take for an answer.
_KEEPALIVE = {socket.TCP_KEEPIDLE: 5, socket.TCP_KEEPCNT: 3, socket.TCP_KEEPINTVL: 3}
#: The same where data is under way, in milliseconds.
_UNACKNOWLEDGED_MS = 15_000


@dataclass(frozen=True)
class ServerAddress:
    """Where a server listens, and what it wants to be shown.

    Parameters
    ----------
    host, port : str, int
        Its address.
    key : str
        A client that doesn't show it is turned away.
    serves_session : bool
        Whether it is a server of `thumbnet serve`, and a whole session is behind it.
    """

    host: str
    port: int
    key: str = field(repr=False)
    serves_session: bool = False


def connect_server(
    server: ServerAddress, timeout_s: float = ANSWER_TIMEOUT_S, stay_s: float = 0, answer_s: float | None = None
) -> rpc.RPCSession:
    """Connect to a server.

    Parameters
    ----------
    server : ServerAddress
        The server.
    timeout_s : float
        Seconds that the server's handshake may take.
    stay_s : float
        Seconds after which the server shall end the connection; 0 for never.
    answer_s : float or None
        Seconds that each later answer may take, until `limit_answers` says otherwise; None for no limit.

    Raises
    ------
    DeviceUnreachableError
        Nothing listens there, it doesn't answer, or it wants another key.
    """
    place = f"{server.host}:{server.port}"
    outcome: list[Any] = []

    def connect() -> None:
        try:
            outcome.append(rpc.connect(server.host, server.port, server.key, session_timeout=stay_s))
        except Exception as error:
            outcome.append(error)

    # In a thread, because TVM waits for the handshake without a limit.
    thread = threading.Thread(target=connect, name="tvm-connect", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if not outcome:
        drop_connections(server)  # lets the thread end
        raise DeviceUnreachableError(f"the server at {place} didn't answer within {timeout_s:g} s; start it again")
    if isinstance(outcome[0], Exception):
        # TVM's own words would print the key.
        reason = last_line(outcome[0]).replace(server.key, "it was shown")
        raise DeviceUnreachableError(f"the server at {place} refused: {reason}") from None
    _notice_dead_peer(server)
    if answer_s is not None:
        limit_answers(server, answer_s)
    return outcome[0]


def limit_answers(server: ServerAddress, seconds: float) -> None:
    """Let calls over an RPC connection fail when the server says or takes nothing for so long, not wait for ever.

    TVM has no such limit and keeps its socket to itself: the socket is found among the process's own by its peer.
    """
    limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    for connection in _connections(server):
        with connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def _notice_dead_peer(server: ServerAddress) -> None:
    for connection in _connections(server):
        with connection:
            keep_alive(connection)


def keep_alive(connection: socket.socket) -> None:
    """Let a connection break when its other end loses power or network."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE.items():
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)


def drop_connections(server: ServerAddress) -> None:
    """End the RPC connections to a server: whatever is called or freed over them afterwards fails without delay."""
    for connection in _connections(server):
        with connection, contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def _connections(server: ServerAddress) -> Iterator[socket.socket]:
    """Yield duplicates of this process's TCP sockets that are connected to a server."""
    try:
        addresses = {info[4] for info in socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)}
        descriptors = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    except OSError:  # not Linux: calls have no limit there
        return
    for descriptor in descriptors:
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            candidate = socket.socket(fileno=os.dup(descriptor))
        except OSError:
            continue
        try:
            found = candidate.getpeername() in addresses
        except OSError:
            found = False
        if found:
            yield candidate
        else:
            candidate.close()


def last_line(error: BaseException) -> str:
    """Return the part of an error from TVM that says what happened, without its C++ trace."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def close_connection(session: rpc.RPCSession | None) -> None:
    """Tell a server that its client is done. Never fails: the server may be gone already."""
    if session is None:
        return
    with contextlib.suppress(Exception):
        session.get_function("CloseRPCConnection")()
