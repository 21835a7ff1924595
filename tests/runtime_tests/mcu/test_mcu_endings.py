"""Emulated boards that are reset, stopped or killed, and programs that end in the middle: told, and nothing is left."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from thumbnet.runtime_tests.errors import DeviceFaultError, DeviceUnreachableError, SessionError
from thumbnet.runtime_tests.mcu.exchange import Command
from thumbnet.runtime_tests.mcu.microcontroller_session import MicrocontrollerSession
from thumbnet.runtime_tests.mcu.transport import Transport
from thumbnet.targets.devices import get_device

from ...processes import wait_until

pytestmark = [pytest.mark.emulated, pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")]

DEVICE = get_device("qemu_mps2_an386")


def reset_board(session):
    """Do what the board's reset button does."""
    port = session._emulator.debug_port
    with port._board_paused():
        port._send(b"$qRcmd,%s#" % b"system_reset".hex().encode())
        checksum = sum(b"qRcmd," + b"system_reset".hex().encode()) & 0xFF
        port._send(b"%02x" % checksum)
        port._acknowledged()
        while port._receive() != b"OK":
            pass


class Acting(Transport):
    """Does something once, just before a request of some command is sent for the n-th time."""

    def __init__(self, inner):
        self._inner, self.action, self.command, self.left = inner, None, None, 0

    def open(self):
        self._inner.open()

    def close(self):
        self._inner.close()

    def read(self, n, timeout_s):
        return self._inner.read(n, timeout_s)

    def write(self, data, timeout_s):
        # Zero, COBS code, version, command: none of them is a zero, which COBS would move.
        if self.action is not None and data[3] == self.command:
            self.left -= 1
            if self.left == 0:
                action, self.action = self.action, None
                action()
        self._inner.write(data, timeout_s)

    def do(self, action, command, count=1):
        self.action, self.command, self.left = action, command, count


@contextlib.contextmanager
def acting_session(artifact, **options):
    lines = []

    def wrap(inner):
        lines.append(Acting(inner))
        return lines[-1]

    with MicrocontrollerSession(DEVICE, wrap_transport=wrap, **options) as session:
        session.load(artifact)
        yield session, lines[-1]


@pytest.mark.parametrize("shortcut", [True, False], ids=["debug port", "serial line"])
def test_a_board_that_is_reset_never_gives_a_wrong_answer(tiny, stand_in, shortcut):
    image = stand_in.make_images(1)[0]
    write = Command.INPUT_PLACED if shortcut else Command.WRITE_INPUT
    with acting_session(tiny, shortcut=shortcut) as (session, _):
        read_layer = [] if shortcut else [(Command.READ_OUTPUT, session.run_layers)]
        for command, call in [
            *((command, session.run) for command in (write, Command.RUN, Command.READ_OUTPUT)),
            *((command, session.run_layers) for command in (write, Command.RUN_LAYER)),
            *((command, session.profile) for command in (write, Command.PROFILE, Command.READ_OUTPUT)),
            *read_layer,
            (Command.SELF_TEST, lambda image: session.self_test()),
        ]:
            session._transport.do(lambda: reset_board(session), command)
            with pytest.raises(DeviceFaultError, match=f"^qemu_mps2_an386: the board was reset during {command.name}"):
                call(image)
            with pytest.raises(DeviceFaultError, match="the board was reset"):  # until it is loaded again
                session.run(image)
            session.load(tiny)
            assert session.run(image).tolist() == stand_in.compute_pool(image).tolist()


def test_a_layer_read_from_a_board_that_was_reset_is_told(tiny, stand_in, monkeypatch):
    image = stand_in.make_images(1)[0]
    with MicrocontrollerSession(DEVICE) as session:
        session.load(tiny)
        read_memory = session._emulator.debug_port.read_memory

        def read_after_reset(address, size):
            reset_board(session)
            return read_memory(address, size)

        monkeypatch.setattr(session._emulator.debug_port, "read_memory", read_after_reset)
        # The reset may take effect only after the memory was read; then the next call finds it out.
        with pytest.raises(
            DeviceFaultError, match=r"the output read has CRC .*, the run left|board was reset during RUN_"
        ):
            session.run_layers(image)


def stop_for(session, seconds):
    group = session._emulator._process.pid
    os.killpg(group, signal.SIGSTOP)
    if seconds is not None:
        threading.Timer(seconds, os.killpg, (group, signal.SIGCONT)).start()


@pytest.mark.parametrize("command", [Command.RUN, Command.READ_OUTPUT])
def test_a_board_that_pauses_goes_on(tiny, stand_in, command):
    image = stand_in.make_images(1)[0]
    with acting_session(tiny) as (session, line):
        line.do(lambda: stop_for(session, 1), command)
        assert session.run(image).tolist() == stand_in.compute_pool(image).tolist()
        assert session.run(image).tolist() == stand_in.compute_pool(image).tolist()


def test_a_board_that_stops_is_told(tiny, stand_in):
    image = stand_in.make_images(1)[0]
    with acting_session(tiny, run_timeout_s=2) as (session, line):
        line.do(lambda: stop_for(session, None), Command.RUN)
        with pytest.raises(DeviceUnreachableError, match="did not answer RUN in 2 s"):
            session.run(image)


@pytest.mark.parametrize("command", [Command.INPUT_PLACED, Command.RUN, Command.READ_OUTPUT])
def test_an_emulator_that_is_killed_is_told(tiny, stand_in, command):
    image = stand_in.make_images(1)[0]
    with acting_session(tiny) as (session, line):
        line.do(lambda: os.killpg(session._emulator._process.pid, signal.SIGKILL), command)
        with pytest.raises(DeviceUnreachableError, match="qemu_mps2_an386"):
            session.run(image)
        with pytest.raises(DeviceUnreachableError, match="qemu_mps2_an386"):
            session.run(image)


# ---------------------------------------------------------------------- what is left behind

PROGRAM = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may have had it ignored
signal.signal(signal.SIGTERM, signal.SIG_DFL)
from thumbnet.compile.artifact import Artifact
from thumbnet.runtime_tests.mcu.microcontroller_session import MicrocontrollerSession
from thumbnet.runtime_tests.run_folder import run_folder
from thumbnet.targets.devices import get_device
print(run_folder(), flush=True)
with MicrocontrollerSession(get_device("qemu_mps2_an386")) as session:
    session.load(Artifact.load(Path(sys.argv[1])))
    print("up", flush=True)
    time.sleep(600)
"""
ENDS = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]


@contextlib.contextmanager
def program_running(artifact, cache, before=""):
    """A program with a session of its own, a cache of its own, and nothing of which is left when a test fails."""
    child = subprocess.Popen(
        [sys.executable, "-c", before + PROGRAM, str(artifact.folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
        for line in processes_with(cache.parent):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(line.split()[1]), signal.SIGKILL)


def processes_with(text):
    """Return process, process group and command of whatever has a text among its arguments."""
    listing = subprocess.run(["ps", "-ww", "-eo", "pid,pgid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listing.splitlines() if str(text) in line and int(line.split()[1]) != os.getpgrp()]


def wait_until_none_has(text):
    deadline = time.monotonic() + 60
    while processes_with(text) and time.monotonic() < deadline:
        time.sleep(0.05)
    return processes_with(text)


def assert_the_next_run_cleans(cache):
    program = (
        "from thumbnet.runtime_tests.run_folder import run_folder; print(*run_folder().parent.iterdir(), run_folder())"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    there, own = done.stdout.split()
    assert there == own
    assert list((cache / "thumbnet" / "runs").iterdir()) == []


@pytest.mark.parametrize("end", ENDS)
def test_however_a_program_ends_it_leaves_no_emulator_and_no_files(end, tiny, tmp_path):
    cache = tmp_path / "cache"
    with program_running(tiny, cache) as child:
        folder = Path(child.stdout.readline().strip())
        assert folder.parent == cache / "thumbnet" / "runs"
        assert child.stdout.readline() == "up\n"
        assert any("qemu-system-arm" in line for line in processes_with(cache))
        assert list(folder.iterdir())  # the counter
        child.send_signal(end)
        child.wait(timeout=60)
        assert wait_until_none_has(cache) == []
        wait_until(lambda: not folder.exists(), psutil.Process())
    assert_the_next_run_cleans(cache)


@pytest.mark.parametrize("end", ENDS)
def test_a_build_that_is_interrupted_leaves_no_compiler_and_no_half_image(end, tiny, tmp_path):
    cache = tmp_path / "cache"
    tools = tmp_path / "tools"
    tools.mkdir()
    # A compiler that takes its time once it has to do with the network.
    (tools / "arm-none-eabi-gcc").write_text(
        f'#!/bin/sh\ncase "$*" in *tiny_layers.c*) touch {tools}/waits; sleep 600 & wait;; esac\n'
        'PATH="${PATH#*:}" exec arm-none-eabi-gcc "$@"\n'
    )
    (tools / "arm-none-eabi-gcc").chmod(0o755)
    slow = f"import os; os.environ['PATH'] = {str(tools)!r} + ':' + os.environ['PATH']\n"
    with program_running(tiny, cache, before=slow) as child:
        child.stdout.readline()
        deadline = time.monotonic() + 60
        while not (tools / "waits").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert processes_with(f"{tools}/arm-none-eabi-gcc")
        child.send_signal(end)
        child.wait(timeout=60)
        assert wait_until_none_has(tools) == []
        assert list((cache / "thumbnet" / "firmware").iterdir()) == []
    assert_the_next_run_cleans(cache)


def test_close_ends_the_emulator_and_may_come_twice(tmp_path, stand_in):
    artifact = stand_in.write_artifact(tmp_path / "a", main=stand_in.MAIN + f"\n/* close {tmp_path} */\n")
    session = MicrocontrollerSession(DEVICE)
    session.load(artifact)
    assert any("qemu-system-arm" in line for line in processes_with(session.elf))
    session.close()
    session.close()
    assert wait_until_none_has(session.elf) == []
    with pytest.raises(SessionError, match="no network is loaded"):
        session.run(np.zeros((4, 4, 3), np.int8))
