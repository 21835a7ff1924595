"""A device on a TVM RPC tracker: registered under its board's key, and one client at a time given a process of its own.

A tracker that isn't there, or is started anew, is tried again until it is back; a client that is served meanwhile
notices nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import hmac
import os
import select
import signal
import socket
import struct
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

from tvm.rpc.base import RPC_CODE_MISMATCH, RPC_CODE_SUCCESS, RPC_MAGIC, TrackerCode

from thumbnet.runtime_tests.errors import DeviceUnreachableError
from thumbnet.runtime_tests.linux.farm_key import new_match_key, shown_key
from thumbnet.runtime_tests.linux.rpc_connection import keep_alive
from thumbnet.runtime_tests.linux.tracker import TrackedDevice, Tracker

#: How often a tracker that is gone is tried again, in seconds.
RETRY_S = 2.0
#: How often the tracker is asked whether a client has taken the key.
_PING_S = 1.0
#: A client that took the key has so many pings to connect; then the key is offered anew.
_PINGS_TO_CONNECT = 3
_HANDSHAKE_S = 3.0
_LONGEST_GREETING = 1 << 10
_PR_SET_PDEATHSIG = 1


class Listener:
    """Serves a device's clients until it is closed; a context manager.

    It listens on the one address of this computer that the tracker is reached from: with a tracker on 127.0.0.1 nobody
    but this computer's users reaches it. Of whoever does, only who has the owner's secret is served, see `farm_key`.

    Parameters
    ----------
    device : TrackedDevice
        Where to register, and under which key.
    serve : callable
        Given the number of a connection's file, serves that client to its end; in a process of its own, which is there
        at once, and ends with this one.
    say : callable
        Told what a person may want to know, a line each.
    """

    def __init__(self, device: TrackedDevice, serve: Callable[[int], None], say: Callable[[str], None]) -> None:
        self._device, self._serve, self._say = device, serve, say
        self._tracker: Tracker | None = None
        self._retry_at = 0.0
        self._complaint: str | None = None
        self._socket: socket.socket | None = None
        self._client: _Child | None = None
        #: What the next client has to show the tracker's word for; None while nobody is awaited.
        self._match_key: str | None = None
        self._unused_pings = 0

    def serve_forever(self) -> None:
        """Serve one client after the other."""
        while True:
            try:
                self._serve_once()
            except (DeviceUnreachableError, TimeoutError) as error:
                self._lose_tracker(str(error))

    def _serve_once(self) -> None:
        """Wait until something happens, and do what it asks for."""
        if self._tracker is None and time.monotonic() >= self._retry_at:
            self._register()
        if self._tracker is not None and self._client is None and self._match_key is None:
            self._offer(self._tracker)
        awaited: list[socket.socket | int] = []
        if self._tracker is not None:
            awaited.append(self._tracker.socket)
        if self._client is not None:
            awaited.append(self._client.end)
        elif self._socket is not None:
            awaited.append(self._socket)
        ready = select.select(awaited, [], [], _PING_S)[0]
        if self._client is not None and self._client.end in ready:
            self._end_client()
        if self._tracker is not None and self._tracker.socket in ready:  # it says nothing unasked
            raise DeviceUnreachableError(f"the tracker {self._tracker.place} went away")
        if self._socket in ready:
            self._accept()
        elif not ready and self._tracker is not None:
            self._ping(self._tracker)

    def _register(self) -> None:
        tracker = Tracker(self._device.host, self._device.port)
        with contextlib.ExitStack() as opened:
            opened.enter_context(tracker)
            host = tracker.socket.getsockname()[0]
            if self._socket is None:
                self._socket = socket.create_server((host, 0), family=tracker.socket.family)
            key, port = self._device.key, self._socket.getsockname()[1]
            tracker.call(TrackerCode.UPDATE_INFO, {"key": f"server:{key}", "addr": [host, port]})
            opened.pop_all()
        self._tracker, self._complaint = tracker, None
        self._say(f"on the tracker {tracker.place} as {key}, listening at {host}:{port}")

    def _offer(self, tracker: Tracker) -> None:
        assert self._socket is not None
        host, port = self._socket.getsockname()[:2]
        match_key = new_match_key(self._device.key)
        tracker.call(TrackerCode.PUT, self._device.key, [port, match_key], host)
        self._match_key, self._unused_pings = match_key, 0

    def _ping(self, tracker: Tracker) -> None:
        """Ask the tracker whether it is there, and whether a client that took the key doesn't come."""
        pending = tracker.call(TrackerCode.GET_PENDING_MATCHKEYS)
        if self._match_key is not None:
            self._unused_pings = 0 if self._match_key in pending else self._unused_pings + 1
            if self._unused_pings > _PINGS_TO_CONNECT:
                self._match_key = None

    def _lose_tracker(self, reason: str) -> None:
        if self._tracker is not None:
            self._tracker.socket.close()
        self._tracker = self._match_key = None
        self._retry_at = time.monotonic() + RETRY_S
        if reason != self._complaint:  # once, however long it lasts
            self._complaint = reason
            self._say(f"{reason}; trying again every {RETRY_S:g} s")

    def _accept(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(OSError):
            connection, (host, *_) = self._socket.accept()
            with connection:
                connection.settimeout(_HANDSHAKE_S)
                if self._shake_hands(connection):
                    connection.settimeout(None)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    keep_alive(connection)
                    self._match_key = None
                    self._client = _Child(lambda: self._serve_client(connection))
                    self._say(f"serving a client at {host}")

    def _shake_hands(self, connection: socket.socket) -> bool:
        """Take what a client of TVM's shows; return whether it is what was offered."""
        assert self._socket is not None
        magic, length = struct.unpack("<ii", _receive(connection, 8))
        if magic != RPC_MAGIC or not 0 < length <= _LONGEST_GREETING:
            return False
        shown = _receive(connection, length).decode(errors="replace").split(" ")[0].removeprefix("client:")
        wanted = None if self._match_key is None else shown_key(self._match_key, *self._socket.getsockname()[:2])
        if wanted is None or not hmac.compare_digest(shown.encode(), wanted.encode()):
            connection.sendall(struct.pack("<i", RPC_CODE_MISMATCH))
            return False
        name = f"server:{self._device.key}".encode()
        connection.sendall(struct.pack("<ii", RPC_CODE_SUCCESS, len(name)) + name)
        return True

    def _serve_client(self, connection: socket.socket) -> None:
        """Do so in the child, which keeps neither the place nor the tracker's connection."""
        self._close_sockets()
        self._serve(connection.fileno())

    def _end_client(self) -> None:
        if self._client is not None:
            self._client.kill()
            self._client = None

    def _close_sockets(self) -> None:
        for opened in (self._socket, None if self._tracker is None else self._tracker.socket):
            if opened is not None:
                opened.close()

    def close(self) -> None:
        """Leave the tracker, and end the client that is served. May be called twice."""
        self._end_client()
        self._close_sockets()

    def __enter__(self) -> Listener:
        """Return the listener itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


class _Child:
    """A process that is this one, to do one thing and end, and to end with this one, however that ends."""

    def __init__(self, work: Callable[[], None]) -> None:
        parent = os.getpid()
        self._process = os.fork()
        if self._process == 0:
            _run_child(parent, work)
        self.end = os.pidfd_open(self._process)

    def kill(self) -> None:
        """End it, if it hasn't ended yet."""
        signal.pidfd_send_signal(self.end, signal.SIGKILL)
        os.waitpid(self._process, 0)
        os.close(self.end)


def _run_child(parent: int, work: Callable[[], None]) -> NoReturn:
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()  # Ctrl-C is the parent's
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if os.getppid() == parent:
            work()
            status = 0
    except BaseException:  # nothing of the parent's may run here
        traceback.print_exc()
    finally:
        os._exit(status)


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionResetError("the client has gone")
        data += part
    return data
