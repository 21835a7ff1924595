"""The firmware as a program of this computer, at the end of a line that misbehaves, in a time of its own."""

import select
import socket
import struct
import subprocess
from dataclasses import dataclass, field

from thumbnet.runtime_tests.errors import DeviceUnreachableError
from thumbnet.runtime_tests.mcu.transport import Transport, TransportTimeoutError

FAULTS = ("drop", "flip", "duplicate", "delay", "cut", "truncate", "noise")


class HostBoard:
    """port_host.c running. It has no clock: it has answered when it waits for the next byte."""

    def __init__(self, program):
        self.program = program
        self.resets = 0
        self._start()

    def _start(self):
        self._line, line = socket.socketpair()
        self._idle, idle = socket.socketpair()
        self.sent = self.taken = 0
        self.process = subprocess.Popen(
            [self.program, str(idle.fileno())],
            stdin=line,
            stdout=line,
            stderr=subprocess.PIPE,
            pass_fds=[idle.fileno()],
        )
        line.close()
        idle.close()

    def reset(self):
        """Lose everything, as a board does that loses power."""
        self.close()
        self.resets += 1
        self._start()

    def write(self, data):
        self.sent += len(data)
        self._line.sendall(data)

    def read(self):
        """Return all it has to say to what it was sent."""
        data = b""
        while True:
            waited_for = [self._line] if self.taken == self.sent else [self._line, self._idle]
            # Only a hung program takes a minute. One that has taken all and waits has said all, too.
            ready, _, _ = select.select(waited_for, [], [], 0 if self.taken == self.sent else 60)
            if self._line in ready:
                part = self._line.recv(1 << 16)
                if not part:
                    raise DeviceUnreachableError(f"the program has ended: {self.process.communicate()[1].decode()}")
                data += part
            elif self._idle in ready:
                (self.taken,) = struct.unpack_from("=Q", self._idle.recv(1 << 16)[-8:])
            else:
                assert self.taken == self.sent, "the program neither answers nor waits"
                return data

    def close(self):
        """End it; a sanitizer's complaint is an error."""
        self._line.close()
        self._idle.close()
        try:
            _, errors = self.process.communicate(timeout=300)
        finally:
            self.process.kill()
        assert self.process.returncode == 0, errors.decode()


@dataclass
class FaultyLine(Transport):
    """A line whose every message may be damaged, either way, and whose board may be reset at any time.

    Its clock moves only while it is waited for something, and a little for every message, so that limits of time are
    kept or broken the same on any computer.
    """

    board: HostBoard
    random: object
    rate: float = 0.0
    reset_rate: float = 0.0
    now: float = 0.0
    messages: int = 0
    faults: dict = field(default_factory=dict)
    reset_at: int | None = None

    def __post_init__(self):
        self._inbox = b""
        self._held = []

    def clock(self):
        return self.now

    def open(self):
        """Forget what is under way, as a port does that is opened again."""
        self._inbox = b""
        self._held = []
        self.board.read()

    def close(self):
        self.board.close()

    def write(self, data, timeout_s):
        self._pass(data, self.board.write)

    def read(self, n, timeout_s):
        deadline = self.now + timeout_s
        while True:
            arrived = self.board.read()
            if arrived:
                self._pass(arrived, self._receive)
            if self._inbox:
                data, self._inbox = self._inbox[:n], self._inbox[n:]
                return data
            due = min(self._held, default=None, key=lambda held: held[0])
            if due is None or due[0] > deadline:
                self.now = max(self.now, deadline)
                raise TransportTimeoutError("silence")
            self._held.remove(due)
            self.now = max(self.now, due[0])
            due[2](due[1])

    def _receive(self, data):
        self._inbox += data

    def _pass(self, data, to):
        self.now += 0.001
        self.messages += 1
        if self.messages == self.reset_at or self.random.random() < self.reset_rate:
            self.board.reset()
            data = data[: self.random.choice([len(data), self.random.randrange(len(data))])]
        if self.random.random() >= self.rate:
            to(data)
            return
        kind = self.random.choice(FAULTS)
        self.faults[kind] = self.faults.get(kind, 0) + 1
        if kind == "delay":
            self._held.append((self.now + self.random.uniform(0, 5), data, to))
        for part in self._damage(kind, data):
            to(part)

    def _damage(self, kind, data):
        at = self.random.randrange(len(data) or 1)
        end = at + self.random.randint(1, 8)
        if kind == "flip":
            return [
                data[:at],
                bytes(byte ^ 1 << self.random.randrange(8) for byte in data[at : at + 1]),
                data[at + 1 :],
            ]
        if kind == "cut":
            return [data[:at], data[end:]]
        if kind == "truncate":
            return [data[:at]]
        if kind == "noise":
            return [data[:at], self.random.randbytes(self.random.randint(1, 2000)), data[at:]]
        if kind == "duplicate":
            return [data] * self.random.randint(2, 4)
        return []
