"""Taking a device from a TVM RPC tracker, in bounded time.

A tracker is a list of free devices by key. It has no authentication and no encryption, and tells whoever asks what a
server wants to be shown: it belongs on a closed network. What thumbnet starts itself is on no tracker.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from tvm import rpc
from tvm.rpc.base import RPC_TRACKER_MAGIC, TrackerCode, recvjson, sendjson

from thumbnet.runtime_tests.errors import DeviceUnreachableError
from thumbnet.runtime_tests.linux.rpc_connection import ANSWER_TIMEOUT_S, ServerAddress, connect_server
from thumbnet.targets.device import Device


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
        host, _, port = device.address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise DeviceUnreachableError(f"{device.address!r} is no tracker's address; it must be HOST:PORT")
        return cls(host, int(port), device.key)


def connect_device(
    device: TrackedDevice, timeout_s: float = ANSWER_TIMEOUT_S, stay_s: float = 0
) -> tuple[rpc.RPCSession, ServerAddress]:
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
            if status == TrackerCode.SUCCESS:
                server_host, server_port, match_key = answer
                return ServerAddress(str(server_host), int(server_port), str(match_key))
        except TimeoutError as error:
            raise DeviceUnreachableError(
                f"{tracker}: device {key} not free within {timeout_s:g} s; another program holds it, or its server died"
            ) from error
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise DeviceUnreachableError(f"what listens at {host}:{port} is no TVM tracker ({error})") from error
    raise DeviceUnreachableError(f"{tracker}: refused to give the device {key} (status {status})")
