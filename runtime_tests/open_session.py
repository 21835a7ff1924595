"""From a device to the session that reaches it."""

from __future__ import annotations

from thumbnet.runtime_tests.linux.tvm_rpc_session import TvmRpcSession
from thumbnet.runtime_tests.mcu.microcontroller_session import MicrocontrollerSession
from thumbnet.runtime_tests.session import DeviceSession
from thumbnet.targets.device import Device


def open_session(device: Device) -> DeviceSession:
    """Open a device; nothing is put on it yet.

    Raises
    ------
    SessionError
        Of the specific type: not reachable, emulator missing.
    """
    if device.board.artifact == "c":
        return MicrocontrollerSession(device)
    return TvmRpcSession(device)
