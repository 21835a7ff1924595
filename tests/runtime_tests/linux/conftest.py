"""A tracker with a board's server on it, both TVM's own, as whoever has a real board starts them."""

import shutil
import socket
import sys
from dataclasses import dataclass

import pytest
from tvm.rpc.base import RPC_TRACKER_MAGIC, TrackerCode, recvjson, sendjson
from tvm.rpc.tracker import PopenTrackerServerState

from thumbnet.runtime_tests.instruction_counter import InstructionCounter
from thumbnet.targets.device import Device
from thumbnet.targets.devices import get_device

from ...processes import Programs, wait_until


@dataclass(frozen=True)
class Desk:
    """A tracker, and the server that is registered on it under the key ``desk``."""

    port: int
    server: object

    def device(self, key="desk"):
        return Device("desk", get_device("local").board, "rpc", address=f"127.0.0.1:{self.port}", key=key)

    def ask(self, *message):
        """Say something to the tracker, as anybody may, and return its answer."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(RPC_TRACKER_MAGIC.to_bytes(4, "little"))
            connection.recv(4, socket.MSG_WAITALL)
            sendjson(connection, list(message))
            return recvjson(connection)

    def is_free(self):
        status, summary = self.ask(TrackerCode.SUMMARY)
        return status == TrackerCode.SUCCESS and summary["queue_info"].get("desk", {}).get("free", 0) == 1


@pytest.fixture(scope="module")
def tracker():
    """The port of a tracker without any device."""
    state = PopenTrackerServerState("127.0.0.1", 9190, 9290, silent=True)
    yield state.port
    Desk(state.port, None).ask(TrackerCode.STOP, state.stop_key)
    state.thread.join()


@pytest.fixture(scope="module")
def desk(tracker):
    """The tracker with a device."""
    programs = Programs()
    command = [sys.executable, "-m", "tvm.exec.rpc_server", "--host", "127.0.0.1", "--key", "desk"]
    server = programs.start([*command, "--tracker", f"127.0.0.1:{tracker}"], stderr=-3)
    on_it = Desk(tracker, server)
    try:
        wait_until(on_it.is_free, server)
        yield on_it
    finally:
        programs.end()


@pytest.fixture
def counter_that_stands_still(monkeypatch):
    """Let the emulators started in the test count into another file than the one that is read."""
    options = InstructionCounter.qemu_options.fget

    def count_elsewhere(counter):
        elsewhere = f"{counter.path}-elsewhere"
        shutil.copy(counter.path, elsewhere)
        return [option.replace(str(counter.path), elsewhere) for option in options(counter)]

    monkeypatch.setattr(InstructionCounter, "qemu_options", property(count_elsewhere))
