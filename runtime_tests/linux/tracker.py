"""Taking a device from a TVM RPC tracker, in bounded time.

A tracker is a list of free devices by key. It has no authentication and no encryption, and tells whoever asks what a
server wants to be shown: it belongs on a closed network. What thumbnet starts itself is on no tracker, but for what
`thumbnet serve` was asked to put there; that wants to be shown more than the tracker knows, see `farm_key`.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from dataclasses import dataclass
from typing import Any, Self

from tvm import rpc
from tvm.rpc.base import RPC_TRACKER_MAGIC, TrackerCode, recvjson, sendjson

from thumbnet.runtime_tests.errors import DeviceUnreachableError
from thumbnet.runtime_tests.linux.farm_key import is_served, shown_key
from thumbnet.runtime_tests.linux.rpc_connection import ANSWER_TIMEOUT_S, ServerAddress, connect_server
from thumbnet.targets.board import Board
from thumbnet.targets.device import Device, tracker_key

#: A connection to a server, and the server's address.
Connected = tuple[rpc.RPCSession, ServerAddress]


@dataclass(frozen=True)
class TrackedDevice:
    """A device that registered on a tracker.

    Parameters
    ----------
    host, port : str, int
        The tracker's address.
    key : str
        The key under which the device is registered there.
    """

    host: str
    port: int
    key: str

    @classmethod
    def of(cls, device: Device) -> TrackedDevice:
        """Return where a device of kind ``rpc`` is registered.

        Raises
        ------
        DeviceUnreachableError
            Its address isn't ``host:port``.
        """
        return cls(*_split(device.address), device.key)


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise DeviceUnreachableError(f"{address!r} is no tracker's address; it must be HOST:PORT")
    return host, int(port)


class Tracker:
    """A connection to a tracker; a context manager.

    Parameters
    ----------
    host, port : str, int
        Its address.
    timeout_s : float
        Seconds that each of its answers may take.

    Raises
    ------
    DeviceUnreachableError
        Nothing listens there, or no tracker.
    """

    def __init__(self, host: str, port: int, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self.place = f"{host}:{port}"
        try:
            self.socket = socket.create_connection((host.strip("[]"), port), timeout=timeout_s)
        except OSError as error:
            reason = error.strerror or "no answer"
            raise DeviceUnreachableError(
                f"no TVM tracker at {self.place} ({reason}); "
                f"`python -m tvm.exec.rpc_tracker --host ADDRESS --port {port} --port-end {port + 1}` starts one"
            ) from error
        magic = struct.pack("<i", RPC_TRACKER_MAGIC)
        with contextlib.ExitStack() as opened:
            opened.enter_context(self.socket)
            try:
                self.socket.sendall(magic)
                answer = self.socket.recv(4, socket.MSG_WAITALL)
            except OSError as error:
                raise self._no_tracker(error) from error
            if answer != magic:
                raise DeviceUnreachableError(f"what listens at {self.place} is no TVM tracker")
            opened.pop_all()

    def call(self, *message: object) -> Any:  # noqa: ANN401 - JSON
        """Say something and return the answer.

        Raises
        ------
        TimeoutError
            There is none in time.
        DeviceUnreachableError
            The tracker is gone, or none.
        """
        try:
            sendjson(self.socket, message)
            return recvjson(self.socket)
        except TimeoutError:
            raise
        except (OSError, ValueError) as error:
            raise self._no_tracker(error) from error

    def keys(self) -> list[str]:
        """Return the key of each server that is registered, busy ones too.

        Raises
        ------
        DeviceUnreachableError
            As `call`, and where there is no answer in time.
        """
        try:
            servers = self.call(TrackerCode.SUMMARY)[1]["server_info"]
            return [str(server["key"]).removeprefix("server:") for server in servers]
        except (LookupError, TypeError, TimeoutError) as error:
            raise self._no_tracker(error) from error

    def _no_tracker(self, error: Exception) -> DeviceUnreachableError:
        return DeviceUnreachableError(f"what listens at {self.place} is no TVM tracker ({error})")

    def __enter__(self) -> Self:
        """Return the connection itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.socket.close()


def find_devices(address: str, board: Board) -> list[Device]:
    """Return the boards of a type on a tracker: the real ones or, where there are none, emulated ones.

    Parameters
    ----------
    address : str
        The tracker's, ``HOST:PORT``.
    board : Board
        The type; boards stand under its key, see `tracker_key`.

    Raises
    ------
    DeviceUnreachableError
        No tracker there, or no such board on it.
    """
    with Tracker(*_split(address)) as tracker:
        keys = tracker.keys()
    for key in (tracker_key(board, emulated=False), tracker_key(board, emulated=True)):
        if count := keys.count(key):
            return [Device(f"{key}/{number}", board, "rpc", address, key=key) for number in range(1, count + 1)]
    raise DeviceUnreachableError(
        f"tracker {address}: no device under key {board.name}; {_known(keys)}; "
        f"`thumbnet serve --device DEVICE --tracker {address}` registers one"
    )


def connect_device(device: TrackedDevice, timeout_s: float = ANSWER_TIMEOUT_S, stay_s: float = 0) -> Connected:
    """Take a device from its tracker, connect to its server, and return the connection with the server's address.

    Parameters
    ----------
    device : TrackedDevice
        The device.
    timeout_s : float
        Seconds that each of the steps may take: the tracker's answers, and waiting for the device to become free.
    stay_s : float
        Seconds after which the server shall end the connection; 0 for never.

    Raises
    ------
    DeviceUnreachableError
        No tracker there, no such key on it, the device is held by another program, or its server doesn't answer.
    """
    server = _take_server(device, timeout_s)
    return connect_server(server, min(timeout_s, ANSWER_TIMEOUT_S), stay_s, answer_s=timeout_s), server


def _take_server(device: TrackedDevice, timeout_s: float) -> ServerAddress:
    host, port, key = device.host, device.port, device.key
    with Tracker(host, port, timeout_s) as tracker:
        keys = tracker.keys()
        if key not in keys:
            raise DeviceUnreachableError(
                f"tracker {host}:{port}: no device under key {key}; {_known(keys)}; start its server on the board with "
                f"`python -m tvm.exec.rpc_server --tracker {host}:{port} --key {key}`"
            )
        try:
            status, answer = tracker.call(TrackerCode.REQUEST, key, "thumbnet", 1)
            if status == TrackerCode.SUCCESS:
                server_host, server_port, match_key = str(answer[0]), int(answer[1]), str(answer[2])
                shown = shown_key(match_key, server_host, server_port)
                return ServerAddress(server_host, server_port, shown, serves_session=is_served(match_key))
        except TimeoutError as error:
            raise DeviceUnreachableError(
                f"tracker {host}:{port}: device {key} not free within {timeout_s:g} s; another program holds it, "
                "or its server died"
            ) from error
        except (ValueError, LookupError, TypeError) as error:
            raise DeviceUnreachableError(f"what listens at {host}:{port} is no TVM tracker ({error})") from error
    raise DeviceUnreachableError(f"tracker {host}:{port}: refused to give the device {key} (status {status})")


def _known(keys: list[str]) -> str:
    return f"it has {', '.join(sorted(set(keys)))}" if keys else "it has none"
