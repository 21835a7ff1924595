"""From a device to the session that reaches it."""

from __future__ import annotations

from thumbnet.compile.progress import Progress, say_nothing
from thumbnet.runtime_tests.errors import SessionError
from thumbnet.runtime_tests.linux.rpc_connection import close_connection
from thumbnet.runtime_tests.linux.tracker import TrackedDevice, connect_device
from thumbnet.runtime_tests.linux.tvm_rpc_session import TvmRpcSession
from thumbnet.runtime_tests.mcu.microcontroller_session import MicrocontrollerSession
from thumbnet.runtime_tests.served.served_session import ServedSession
from thumbnet.runtime_tests.session import DeviceSession
from thumbnet.targets.device import Device


def open_session(device: Device, threads: int = 1, progress: Progress = say_nothing) -> DeviceSession:
    """Open a device; nothing is put on it yet.

    Parameters
    ----------
    device : Device
        The device.
    threads : int
        Threads that share an inference's work, at least 1; the answer has the same bytes with any number.
    progress : callable
        Told before each step that may take long what is done next.

    Raises
    ------
    SessionError
        Of the specific type: not reachable, emulator missing; or several threads are asked of a microcontroller.
    """
    if device.kind == "rpc":
        return _open_tracked(device, threads, progress)
    if device.board.artifact == "c":
        if threads > 1:
            raise SessionError(
                f"{device.name}: a {device.board.core} runs a network in one thread; leave --threads {threads} out"
            )
        return MicrocontrollerSession(device)
    return TvmRpcSession(device, threads=threads, progress=progress)


def _open_tracked(device: Device, threads: int, progress: Progress) -> DeviceSession:
    """Take a device from its tracker: a whole session of `thumbnet serve`, or a board with a server of TVM's."""
    connection, address = connect_device(TrackedDevice.of(device))
    if address.serves_session:
        return ServedSession(device, connection, address, threads, progress)
    if device.board.artifact == "c" or device.emulated:
        close_connection(connection)
        raise SessionError(
            f"{device.name}: what is under key {device.key} at {device.address} is no server of `thumbnet serve`"
        )
    return TvmRpcSession(device, threads=threads, progress=progress, connected=(connection, address))
