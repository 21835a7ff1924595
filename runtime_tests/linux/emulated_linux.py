"""A TVM RPC server of our own, for this run alone: in an emulated AArch64 Linux user space, or on this computer.

The emulator is QEMU's user mode: the server's AArch64 instructions are translated, its system calls go to this
computer's kernel. So it starts in a fraction of a second and needs no image of an operating system.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from tvm import rpc

from thumbnet.compile.errors import ToolchainError
from thumbnet.compile.progress import Progress, say_nothing
from thumbnet.runtime_tests.cycles.block_profile import BlockProfile
from thumbnet.runtime_tests.cycles.predict import CycleModel, model_of
from thumbnet.runtime_tests.errors import DeviceUnreachableError, EmulatorMissingError
from thumbnet.runtime_tests.instruction_counter import InstructionCounter
from thumbnet.runtime_tests.linux.rpc_connection import ServerAddress, close_connection, connect_server
from thumbnet.runtime_tests.linux.rpc_server_build import build_server
from thumbnet.runtime_tests.linux.server_watch import ServerWatch
from thumbnet.runtime_tests.run_folder import run_folder
from thumbnet.targets.board import Board
from thumbnet.targets.device import Device

#: Where Debian's cross packages put the C and C++ libraries of AArch64, and which package brings each.
_SYSROOT = Path("/usr/aarch64-linux-gnu")
_SYSROOT_FILES = {"lib/ld-linux-aarch64.so.1": "libc6-arm64-cross", "lib/libstdc++.so.6": "libstdc++6-arm64-cross"}

LOOPBACK = "127.0.0.1"
#: A server that hangs is ended by its watch long before.
_HANDSHAKE_TIMEOUT_S = 120.0


class LinuxServer:
    """One server. It ends with `close`, with Ctrl-C, and with this process, however that ends.

    It listens on the loopback address, which every user of this computer reaches, and serves only who shows a random
    key that it got through a pipe and that is told to nobody.

    Parameters
    ----------
    device : Device
        Of kind ``emulated`` (a Cortex-A board) or ``local``.
    threads : int
        Of TVM's pool in it, at least 1.
    progress : callable
        Told before each step what is done next.

    Attributes
    ----------
    address : ServerAddress
        Where it listens, and the key.
    watch : ServerWatch
        Ends it where it hangs.
    cycle_model : CycleModel or None
        Of an emulated board's core, where there is one.
    profile : BlockProfile or None
        Of the blocks that measured calls execute, where there is a `cycle_model`.
    counts_instructions : bool
        Whether time evaluators on it return executed instructions (times 1e-9) and not seconds.

    Raises
    ------
    EmulatorMissingError
        QEMU, a compiler, a library of the emulated system, or TVM's runtime for it is missing.
    DeviceUnreachableError
        The server ended at once.
    """

    def __init__(self, device: Device, threads: int = 1, progress: Progress = say_nothing) -> None:
        self.device = device
        self.threads = threads
        self.counts_instructions = device.kind == "emulated"
        self.cycle_model: CycleModel | None = None
        self.profile: BlockProfile | None = None
        self._open = contextlib.ExitStack()
        with contextlib.ExitStack() as opening:  # what is open already is closed when a later step fails
            opening.callback(self.close)
            self._start(progress)
            opening.pop_all()

    def _start(self, progress: Progress) -> None:
        files = build_server(self.device.board, progress)
        progress("starting the server")
        folder = tempfile.TemporaryDirectory(prefix="server-", dir=run_folder())
        self._folder = Path(self._open.enter_context(folder))
        environment, command = dict(os.environ), [str(files.server)]
        if self.counts_instructions:
            environment, command = self._emulate(command)
        environment["TVM_NUM_THREADS"] = str(self.threads)
        command += ["--folder", str(self._folder), "--load", str(files.instrument)]
        with (self._folder / "server.log").open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # held open: the server ends when it ends
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches this process alone, which then closes the session
            )
        self.watch = ServerWatch(self.process.pid)
        self._open.callback(self.watch.close)
        self._open.callback(self._stop)
        self.address = ServerAddress(LOOPBACK, self._await_port(key := secrets.token_hex(16)), key)

    def _emulate(self, command: list[str]) -> tuple[dict[str, str], list[str]]:
        """Return environment and command that run a command under QEMU with its instructions counted."""
        try:
            counter = InstructionCounter(threads=self.threads > 1)
        except ToolchainError as error:
            raise EmulatorMissingError(str(error)) from error
        self._open.callback(counter.close)
        plugins = counter.qemu_options
        environment = {
            "THUMBNET_INSTRUCTION_COUNTER": str(counter.path),
            "LD_BIND_NOW": "1",  # else the first call of each function counts its look-up too
        }
        # Blocks are recorded for one thread, as instructions are counted exactly.
        self.cycle_model = model_of(self.device.board) if self.threads == 1 else None
        if self.cycle_model is not None:
            self.profile = BlockProfile()
            self._open.callback(self.profile.close)
            environment["THUMBNET_BLOCK_PROFILE"] = str(self.profile.path)
            plugins += self.profile.qemu_options
        return environment, [*_qemu_command(self.device.board), *plugins, *command]

    def _await_port(self, key: str) -> int:
        assert self.process.stdin is not None and self.process.stdout is not None
        with self.watch.awaiting():
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.write(f"{key}\n".encode())
                self.process.stdin.flush()
            said = self.process.stdout.readline().decode(errors="replace").split()
        if said[:2] != ["listening", "on"]:
            reason = self.watch.verdict() or self.last_words() or "no word"
            raise DeviceUnreachableError(f"{self.device.name}: the RPC server didn't start: {reason}")
        return int(said[2])

    def connect(self) -> rpc.RPCSession:
        """Connect to the server; a connection that is still being ended is waited for.

        Raises
        ------
        DeviceUnreachableError
            It has ended, or hangs.
        """
        try:
            with self.watch.awaiting():
                connection = connect_server(self.address, _HANDSHAKE_TIMEOUT_S)
        except DeviceUnreachableError as error:
            raise DeviceUnreachableError(f"{self.device.name}: {self.explain_end() or error}") from error
        # Who listens where ours did is not ours.
        self.check_alive()
        return connection

    def check_answers(self) -> None:
        """Raise if the server doesn't take connections.

        Raises
        ------
        DeviceUnreachableError
            As `connect`.
        """
        with self.watch.awaiting():
            close_connection(self.connect())

    def check_alive(self) -> None:
        """Raise if the server has ended.

        Raises
        ------
        DeviceUnreachableError
            It has.
        """
        if self.process.poll() is not None:
            raise DeviceUnreachableError(f"{self.device.name}: {self.explain_end()}")

    def explain_end(self, within_s: float = 0.5) -> str | None:
        """Return why the server ended, in one line, or None if it runs; its connections may break a moment before."""
        try:
            code = self.process.wait(timeout=within_s)
        except subprocess.TimeoutExpired:
            return None
        if verdict := self.watch.verdict():
            return f"the server {verdict}; open the device again"
        return f"the server ended (exit {code}); open the device again"

    def explain(self, reason: str) -> str:
        """Return why a call failed: the server's end, or the reason and the last thing the server said."""
        if end := self.explain_end():
            return end
        words = self.last_words()
        return f"{reason}; the server said: {words}" if words else reason

    def last_words(self) -> str:
        """Return the last thing the server said on its standard error in one line."""
        try:
            lines = (self._folder / "server.log").read_text(errors="replace").splitlines()
        except OSError:
            return ""
        said = [line.strip() for line in lines if line.strip()]
        return said[-1][-300:] if said else ""

    def _stop(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()  # the server ends the connection it serves, and itself
        try:
            self.process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def close(self) -> None:
        """Stop the server. May be called twice."""
        self._open.close()

    def __enter__(self) -> Self:
        """Return the server itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server."""
        self.close()


def _qemu_command(board: Board) -> list[str]:
    qemu = shutil.which("qemu-aarch64")
    if qemu is None:
        raise EmulatorMissingError("qemu-aarch64 is not installed; `apt install qemu-user` brings it")
    for file, package in _SYSROOT_FILES.items():
        if not (_SYSROOT / file).exists():
            raise EmulatorMissingError(f"{_SYSROOT / file} is missing; `apt install {package}` brings it")
    return [qemu, "-L", str(_SYSROOT), "-cpu", board.qemu or board.core]
