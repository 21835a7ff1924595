"""A TCP proxy that spoils a connection at a byte chosen beforehand.

It is a program of its own: TVM lets no other thread of Python run while it waits for a server to free something.
"""

import contextlib
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from enum import Enum


class Fault(Enum):
    """What happens to a connection."""

    NONE = "none"
    DROP = "both ends are closed"
    RESET = "both ends are reset, and nothing listens any more"
    CUT = "one direction ends, the other goes on"
    STALL = "one direction carries nothing any more, and nothing is closed"
    DELAY = "one direction waits for a while"


@dataclass(frozen=True)
class Plan:
    """When what happens, in every connection through the proxy.

    Parameters
    ----------
    fault : Fault
        What.
    to_server : bool
        In which direction.
    after_bytes : int
        What has passed in that direction before: exactly so many, in the middle of a message too.
    delay_s : float
        How long `Fault.DELAY` waits.
    """

    fault: Fault
    to_server: bool = True
    after_bytes: int = 0
    delay_s: float = 0.0


class FaultyProxy:
    """Listens on a free port of the loopback address and passes on what comes to another port of it."""

    def __init__(self, server_port, plan):
        words = (server_port, plan.fault.name, int(plan.to_server), plan.after_bytes, plan.delay_s)
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.port = int(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class _Pumps:
    def __init__(self, server_port, plan):
        self._server_port, self._plan = server_port, plan
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                for source, sink, to_server in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pump, args=(source, sink, to_server), daemon=True).start()

    def _pump(self, source, sink, to_server):
        left = self._plan.after_bytes if to_server == self._plan.to_server else None
        try:
            while data := source.recv(1 << 16):
                if left is not None and len(data) > left:
                    sink.sendall(data[:left])
                    if not self._spoil(source, sink):
                        return
                    data, left = data[left:], None
                sink.sendall(data)
                left = None if left is None else left - len(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:  # a server that is killed with something unread resets the connection: that is passed on too
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_RDWR)

    def _spoil(self, source, sink):
        """Do what is planned; returns whether the rest is passed on."""
        fault = self._plan.fault
        if fault is Fault.DROP:
            for end in (source, sink):
                end.shutdown(socket.SHUT_RDWR)
        elif fault is Fault.RESET:
            for end in (source, sink):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os._exit(0)  # another thread reads from them: closing them here would do nothing
        elif fault is Fault.CUT:
            sink.shutdown(socket.SHUT_WR)
        elif fault is Fault.STALL:
            while source.recv(1 << 16):  # the end of the source is passed on: nobody could hide it from the other
                pass
            sink.shutdown(socket.SHUT_RDWR)
        elif fault is Fault.DELAY:
            time.sleep(self._plan.delay_s)
        return fault in (Fault.NONE, Fault.DELAY)


if __name__ == "__main__":
    port, fault, to_server, after_bytes, delay_s = sys.argv[1:]
    pumps = _Pumps(int(port), Plan(Fault[fault], to_server == "1", int(after_bytes), float(delay_s)))
    print(pumps.port, flush=True)
    sys.stdin.read()
