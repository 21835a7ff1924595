"""QEMU's microcontroller boards, with their serial port as a socket."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from thumbnet.runtime_tests.errors import DeviceUnreachableError, EmulatorMissingError
from thumbnet.runtime_tests.mcu.debug_port import DebugPort
from thumbnet.runtime_tests.mcu.transport import SocketTransport

#: Runs a command, and kills it when this process ends in whatever way: the pipe at standard input breaks then. The
#: parent-death signal of Linux would do the same only as long as the thread that started QEMU lives. Nothing is left
#: running either when the command ends by itself, so that its end of the serial line closes.
_GUARD = (
    'exec 3<&0; "$@" </dev/null 3<&- & child=$!; '
    "(read -r _ <&3; kill -9 $child) 2>/dev/null & watcher=$!; wait $child; kill -9 $watcher 2>/dev/null"
)


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
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, "sh", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[theirs.fileno(), their_debug.fileno()],
                start_new_session=True,  # Ctrl-C reaches this process alone, which then closes the session
            )
        except BaseException:
            ours.close()
            our_debug.close()
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

    def close(self) -> None:
        """End QEMU. May be called twice."""
        self.transport.close()
        self.debug_port.close()
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._errors.close()
