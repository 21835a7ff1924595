"""A tracker and servers on it, as a person starts them, each in a process of its own."""

import socket
import subprocess
import sys

import psutil

from thumbnet.runtime_tests.errors import DeviceUnreachableError
from thumbnet.runtime_tests.linux.tracker import Tracker, find_devices
from thumbnet.runtime_tests.open_session import open_session
from thumbnet.targets.registry import get_board

from ...processes import wait_until

THUMBNET = [sys.executable, "-c", "from thumbnet.tools.cli import main; main()"]
M4 = get_board("mps2_an386")


class Farm:
    """A tracker of TVM's, and servers of ours on it, each in a process of its own."""

    def __init__(self, programs):
        self.programs = programs
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.start_tracker()

    def start_tracker(self):
        port = str(self.port)
        command = [sys.executable, "-m", "tvm.exec.rpc_tracker", "--host", "127.0.0.1", "--port", port, "--port-end"]
        self.tracker = self.programs.start([*command, str(self.port + 1)], stderr=subprocess.DEVNULL)
        wait_until(self.answers, self.tracker)

    def end_tracker(self):
        # TVM's tracker is a child of its command.
        for process in (*psutil.Process(self.tracker.pid).children(recursive=True), self.tracker):
            process.kill()
        self.tracker.wait()

    def answers(self):
        try:
            with Tracker("127.0.0.1", self.port) as tracker:
                return tracker.keys() is not None
        except DeviceUnreachableError:
            return False

    def serve(self, device="qemu_mps2_an386", env=None):
        command = [*THUMBNET, "serve", "--device", device, "--tracker", self.address]
        server = self.programs.start(command, stdout=subprocess.PIPE, text=True, env=env)
        assert f"on the tracker {self.address} as" in server.stdout.readline()
        return server

    def count(self, board=M4):
        try:
            return len(find_devices(self.address, board))
        except DeviceUnreachableError:
            return 0

    def open(self, board=M4):
        return open_session(find_devices(self.address, board)[0])
