"""QEMU's GDB server without a kernel, and a line to it that misbehaves."""

import re
import socket
import subprocess
import threading
import time

PACKET = re.compile(rb"\$([^#]*)#..", re.DOTALL)


class EmptyBoard:
    """An STM32F405 with nothing in its flash, halted, a serial port, and a GDB server on loopback."""

    def __init__(self):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        command = ["qemu-system-arm", "-M", "netduinoplus2", "-S", "-display", "none", "-monitor", "none"]
        command += ["-gdb", f"tcp:127.0.0.1:{self.port}", "-serial", "pty"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.serial = self._process.stdout.readline().split("redirected to ")[1].split()[0]

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def close(self):
        """End it; may be called twice."""
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


class Between:
    """A line from GDB to a server: `change` gets what the server says and returns what arrives, None to cut it."""

    def __init__(self, port, change):
        self._server, self._change = socket.create_server(("127.0.0.1", 0)), change
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._to = _connect(port)
        threading.Thread(target=self._pass, daemon=True).start()

    def _pass(self):
        gdb, _ = self._server.accept()
        forward = threading.Thread(target=self._forward, args=(gdb,), daemon=True)
        forward.start()
        while data := self._receive(self._to):
            data = self._change(data)
            if data is None:
                break
            gdb.sendall(data)
        gdb.shutdown(socket.SHUT_RDWR)
        self._to.close()

    def _forward(self, gdb):
        try:
            while data := self._receive(gdb):
                self._to.sendall(data)
        except OSError:
            pass

    @staticmethod
    def _receive(line):
        try:
            return line.recv(1 << 16)
        except OSError:
            return b""

    def close(self):
        self._server.close()


def _connect(port):
    """Connect to a server that is starting."""
    for _ in range(600):
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise AssertionError("QEMU's server doesn't start")


def damage_memory(data):
    """Change a byte of every long piece of memory that is read."""

    def change(found):
        body = found[1]
        if len(body) > 100 and re.fullmatch(rb"[0-9a-f]+", body):
            body = (b"1" if body[:1] != b"1" else b"2") + body[1:]
        return b"$%s#%02x" % (body, sum(body) & 0xFF)

    return PACKET.sub(change, data)
