"""QEMU's boards at the other end of a socket: microcontrollers with their serial port, programs of 32-bit Linux.

The sockets have no address: nobody but this process and the emulator has their ends.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from thumbnet.runtime_tests.errors import DeviceUnreachableError, EmulatorMissingError
from thumbnet.runtime_tests.guarded_process import kill_guarded, start_guarded
from thumbnet.runtime_tests.mcu.debug_port import DebugPort
from thumbnet.runtime_tests.mcu.transport import SocketTransport
from thumbnet.targets.board import Board

#: What emulates boards without and with Linux, and the Debian packages that bring it.
_PACKAGES = {"qemu-system-arm": "qemu-system-arm", "qemu-arm": "qemu-user"}

#: Of QEMU's machines whose UART doesn't tell when it takes the next byte: a clock that goes on while the core sleeps
#: has QEMU look for one. What is counted touches no device, so that it is counted right with this clock, too.
_CLOCKS = {"b-l475e-iot01a": ("-icount", "shift=3,sleep=off")}


def find_qemu(board: Board) -> str:
    """Return the path of what emulates a board.

    Raises
    ------
    EmulatorMissingError
        It is not installed.
    """
    return _find("qemu-arm" if board.runs_linux else "qemu-system-arm")


def _find(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise EmulatorMissingError(f"{name} is not installed; `apt install {_PACKAGES[name]}` brings it")
    return path


class Emulator:
    """A running QEMU. It ends with `close`, with Ctrl-C, and with this process, however that ends.

    Parameters
    ----------
    name : str
        What messages call the line.
    sockets : int
        How many sockets QEMU gets; the first one is the line.
    command : callable
        Given their file descriptors, the command to run.

    Attributes
    ----------
    transport : SocketTransport
        The line.
    debug_port : DebugPort or None
        The way to the board's memory, where there is one.
    """

    def __init__(self, name: str, sockets: int, command: Callable[[Sequence[int]], Sequence[str]]) -> None:
        with contextlib.ExitStack() as opened, contextlib.ExitStack() as theirs:
            self._errors = opened.enter_context(tempfile.TemporaryFile())
            pairs = [socket.socketpair() for _ in range(sockets)]
            self._sockets = [opened.enter_context(ours) for ours, _ in pairs]
            files = [theirs.enter_context(their).fileno() for _, their in pairs]
            self._process = start_guarded(command(files), stderr=self._errors, pass_fds=files)
            opened.pop_all()
        self.transport = SocketTransport(self._sockets[0], name)
        self.debug_port: DebugPort | None = None

    def explain(self, error: DeviceUnreachableError) -> DeviceUnreachableError:
        """Return the error with what QEMU said on its standard error, in one line."""
        self._errors.seek(0)
        said = " ".join(self._errors.read().decode(errors="replace").split())
        if "unsupported machine type" in said:
            return DeviceUnreachableError(f"{error}; this QEMU has no such board, a later one may")
        return DeviceUnreachableError(f"{error}; QEMU said: {said[-400:]}") if said else error

    @property
    def running(self) -> bool:
        """Whether QEMU still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End QEMU. May be called twice."""
        for opened in self._sockets:
            opened.close()
        kill_guarded(self._process)
        self._errors.close()


class MachineEmulator(Emulator):
    """A microcontroller's board, with its serial port and its memory.

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
        qemu = _find("qemu-system-arm")
        clock = _CLOCKS.get(machine, ())
        buffered = "off" if clock else "on"

        def command(files: Sequence[int]) -> list[str]:
            uart, debug = files
            return [
                *(qemu, "-machine", machine, "-kernel", str(image), "-display", "none", "-monitor", "none"),
                # The multiplexer has a buffer, which the UART lacks; its escape character is put out of the way.
                *(
                    "-chardev",
                    f"socket,id=uart,mux={buffered},fd={uart}",
                    "-echr",
                    "0x1ff",
                    "-serial",
                    "chardev:uart",
                ),
                *("-chardev", f"socket,id=debug,fd={debug}", "-gdb", "chardev:debug"),
                *clock,
                *options,
            ]

        super().__init__(f"qemu {machine}", 2, command)
        self.debug_port = DebugPort(self._sockets[1])


class ProgramEmulator(Emulator):
    """A program of 32-bit Linux: its instructions are translated, its system calls go to this computer's kernel.

    Parameters
    ----------
    processor : str
        QEMU's name of it.
    image : Path
        The program, statically linked; see port_linux.c.
    options : sequence of str
        More of QEMU's options.
    """

    def __init__(self, processor: str, image: Path, options: Sequence[str] = ()) -> None:
        qemu = _find("qemu-arm")
        super().__init__(
            f"qemu {processor}",
            1,
            lambda files: [qemu, "-cpu", processor, *options, str(image), "--line", str(files[0])],
        )


def start_emulator(board: Board, image: Path, options: Sequence[str]) -> Emulator:
    """Start a firmware on the emulator of its board.

    Raises
    ------
    EmulatorMissingError
        QEMU is not installed, or has no such board.
    """
    if board.qemu is None:
        raise EmulatorMissingError(f"{board.name}: QEMU has no such board")
    kind = ProgramEmulator if board.runs_linux else MachineEmulator
    return kind(board.qemu, image, options)
