"""QEMU's microcontroller boards, with their serial port as a socket."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from thumbnet.runtime_tests.errors import DeviceUnreachableError, EmulatorMissingError
from thumbnet.runtime_tests.guarded_process import kill_guarded, start_guarded
from thumbnet.runtime_tests.mcu.debug_port import DebugPort
from thumbnet.runtime_tests.mcu.transport import SocketTransport


def find_qemu() -> str:
    """Return the path of qemu-system-arm.

    Raises
    ------
    EmulatorMissingError
        It is not installed.
    """
    path = shutil.which("qemu-system-arm")
    if path is None:
        raise EmulatorMissingError("qemu-system-arm is not installed; `apt install qemu-system-arm` brings it")
    return path


class Emulator:
    """One running QEMU board. It ends with `close`, with Ctrl-C, and with this process, however that ends.

    Parameters
    ----------
    machine : str
        QEMU's name of the board.
    image : Path
        ELF file to run.
    options : sequence of str
        More of QEMU's options.
    """

    def __init__(self, machine: str, image: Path, options: Sequence[str] = ()) -> None:
        self.machine = machine
        self._errors: IO[bytes] = tempfile.TemporaryFile()
        ours, theirs = socket.socketpair()
        our_debug, their_debug = socket.socketpair()
        command = [
            *(find_qemu(), "-machine", machine, "-kernel", str(image), "-display", "none", "-monitor", "none"),
            # The multiplexer has a buffer, which the UART lacks; its escape character is put out of the way.
            *("-chardev", f"socket,id=uart,mux=on,fd={theirs.fileno()}", "-echr", "0x1ff", "-serial", "chardev:uart"),
            *("-chardev", f"socket,id=debug,fd={their_debug.fileno()}", "-gdb", "chardev:debug"),
            *options,
        ]
        try:
            self._process = start_guarded(
                command, stderr=self._errors, pass_fds=[theirs.fileno(), their_debug.fileno()]
            )
        except BaseException:
            ours.close()
            our_debug.close()
            self._errors.close()
            raise
        finally:
            theirs.close()
            their_debug.close()
        self.transport = SocketTransport(ours, f"qemu {machine}")
        self.debug_port = DebugPort(our_debug)

    def explain(self, error: DeviceUnreachableError) -> DeviceUnreachableError:
        """Return the error with what QEMU said on its standard error, in one line."""
        self._errors.seek(0)
        said = " ".join(self._errors.read().decode(errors="replace").split())
        return DeviceUnreachableError(f"{error}; QEMU said: {said[-400:]}") if said else error

    @property
    def running(self) -> bool:
        """Whether QEMU still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End QEMU. May be called twice."""
        self.transport.close()
        self.debug_port.close()
        kill_guarded(self._process)
        self._errors.close()
