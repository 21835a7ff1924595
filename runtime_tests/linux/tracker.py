"""TVM's RPC tracker: one of our own on the loopback address, and taking a device from any, in bounded time.

A tracker is a list of free devices by key. TVM RPC has no authentication and no encryption: whoever reaches a tracker's
or a server's port can run code there. Ours listen on 127.0.0.1 only; a tracker of your own belongs on a closed network.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from tornado.ioloop import IOLoop
from tvm import rpc
from tvm.rpc.base import RPC_TRACKER_MAGIC, TrackerCode, recvjson, sendjson
from tvm.rpc.tracker import TrackerServerHandler

from thumbnet.runtime_tests.errors import DeviceUnreachableError

LOOPBACK = "127.0.0.1"

#: How long a tracker, a device on it, or its server may take to answer, in seconds.
ANSWER_TIMEOUT_S = 10.0


class LoopbackTracker:
    """A tracker for this process's own servers, on a free port of 127.0.0.1.

    It runs in a thread of this process: it is there at once (a process of its own would import TVM again, three
    seconds) and can't outlive the process. TVM's calls release Python's lock, so it answers while they wait.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        started = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(started,), name="tvm-tracker", daemon=True)
        self._thread.start()
        started.wait()

    def _serve(self, started: threading.Event) -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())
        self._loop = IOLoop.current()
        self._handler = TrackerServerHandler(self._listener, secrets.token_hex())
        started.set()
        self._handler.run()

    def close(self) -> None:
        """Stop. May be called twice."""
        if self._thread.is_alive():
            self._loop.add_callback(self._handler.stop)
            self._thread.join(timeout=5)

    def __enter__(self) -> Self:
        """Return the tracker itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the tracker."""
        self.close()


def parse_address(address: str) -> tuple[str, int]:
    """Split ``host:port``.

    Raises
    ------
    DeviceUnreachableError
        It isn't of that form.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise DeviceUnreachableError(f"{address!r} is no tracker's address; it must be HOST:PORT")
    return host, int(port)


def connect_device(
    host: str, port: int, key: str, timeout_s: float = ANSWER_TIMEOUT_S, stay_s: float = 0
) -> tuple[rpc.RPCSession, tuple[str, int]]:
    """Take a device from a tracker, connect to its server, and return the connection with the server's address.

    Parameters
    ----------
    host, port : str, int
        The tracker's address.
    key : str
        The key under which the device is registered there.
    timeout_s : float
        Seconds that each of the steps may take: the tracker's answers, waiting for the device to become free, the
        server's handshake. It stays the limit of every later answer until `limit_answers` says otherwise.
    stay_s : float
        Seconds after which the server shall end the connection; 0 for never.

    Raises
    ------
    DeviceUnreachableError
        No tracker there, no such key on it, the device is held by another program, or its server doesn't answer.
    """
    server_host, server_port, match_key = _take_server(host, port, key, timeout_s)
    session = _connect_server(server_host, server_port, match_key, timeout_s, stay_s)
    limit_answers((server_host, server_port), timeout_s)
    return session, (server_host, server_port)


def limit_answers(server: tuple[str, int], seconds: float) -> None:
    """Let calls over an RPC connection fail when the server says nothing for so long, instead of waiting for ever.

    TVM has no such limit and keeps its socket to itself: the socket is found among the process's own by its peer.
    """
    for connection in _connections(server):
        with connection:
            limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)


def drop_connections(server: tuple[str, int]) -> None:
    """End the RPC connections to a server: whatever is called or freed over them afterwards fails without delay."""
    for connection in _connections(server):
        with connection, contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def _take_server(host: str, port: int, key: str, timeout_s: float) -> tuple[str, int, str]:
    tracker = f"tracker {host}:{port}"
    try:
        connection = socket.create_connection((host, port), timeout=timeout_s)
    except OSError as error:
        reason = error.strerror or "no answer"
        raise DeviceUnreachableError(
            f"no TVM tracker at {host}:{port} ({reason}); "
            f"`python -m tvm.exec.rpc_tracker --host ADDRESS --port {port}` starts one"
        ) from error
    with connection:
        try:
            connection.sendall(struct.pack("<i", RPC_TRACKER_MAGIC))
            if connection.recv(4, socket.MSG_WAITALL) != struct.pack("<i", RPC_TRACKER_MAGIC):
                raise DeviceUnreachableError(f"what listens at {host}:{port} is no TVM tracker")
            sendjson(connection, [TrackerCode.SUMMARY])
            servers = recvjson(connection)[1]["server_info"]
            keys = sorted({server["key"].removeprefix("server:") for server in servers})
            if key not in keys:
                known = f"it has {', '.join(keys)}" if keys else "it has none"
                raise DeviceUnreachableError(
                    f"{tracker}: no device under key {key}; {known}; start its server on the board with "
                    f"`python -m tvm.exec.rpc_server --tracker {host}:{port} --key {key}`"
                )
            sendjson(connection, [TrackerCode.REQUEST, key, "thumbnet", 1])
            status, answer = recvjson(connection)
        except TimeoutError as error:
            raise DeviceUnreachableError(
                f"{tracker}: device {key} not free within {timeout_s:g} s; another program holds it, or its server died"
            ) from error
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise DeviceUnreachableError(f"what listens at {host}:{port} is no TVM tracker ({error})") from error
    if status != TrackerCode.SUCCESS:
        raise DeviceUnreachableError(f"{tracker}: refused to give the device {key} (status {status})")
    server_host, server_port, match_key = answer
    return str(server_host), int(server_port), str(match_key)


def _connect_server(host: str, port: int, match_key: str, timeout_s: float, stay_s: float) -> rpc.RPCSession:
    outcome: list[Any] = []

    def connect() -> None:
        try:
            outcome.append(rpc.connect(host, port, match_key, session_timeout=stay_s))
        except Exception as error:
            outcome.append(error)

    # In a thread, because TVM waits for the handshake without a limit.
    thread = threading.Thread(target=connect, name="tvm-connect", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if not outcome:
        drop_connections((host, port))  # lets the thread end
        raise DeviceUnreachableError(
            f"the server at {host}:{port} didn't answer within {timeout_s:g} s; start it again"
        )
    if isinstance(outcome[0], Exception):
        raise DeviceUnreachableError(f"the server at {host}:{port} refused: {last_line(outcome[0])}") from outcome[0]
    return outcome[0]


def _connections(server: tuple[str, int]) -> Iterator[socket.socket]:
    """Yield duplicates of this process's TCP sockets that are connected to a server."""
    try:
        addresses = {info[4] for info in socket.getaddrinfo(*server, type=socket.SOCK_STREAM)}
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
