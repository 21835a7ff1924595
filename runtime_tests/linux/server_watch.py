"""A process that looks after a server: ends it when it hangs while somebody waits, and when that somebody is gone.

It is a process of its own for two reasons. It acts whatever the one that waits is doing: TVM frees what lies on a
server without letting any other thread of Python run. And a server that is stopped (SIGSTOP) doesn't end by itself.

Limits follow what the server's processes do and not the clock on the wall: they mean the same on a busy computer.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

#: How long a server may do nothing while somebody waits for it, in seconds.
IDLE_S = 10.0
#: How much processor time one answer may take, in seconds.
WORK_S = 60.0
_LOOK_S = 0.25
#: The watch writes its verdict, then kills; a connection breaks before the verdict has been read.
_VERDICT_S = 0.5


class ServerWatch:
    """Watches a server, and those it started in its session; it takes them along when it is killed.

    Parameters
    ----------
    server : int
        The server's process, the leader of a session.
    """

    def __init__(self, server: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(server)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
        self._verdict = b""

    @contextlib.contextmanager
    def awaiting(self, idle_s: float = IDLE_S, work_s: float = WORK_S) -> Iterator[None]:
        """Have the server killed if it hangs before the block ends: what waits for it in the block then fails.

        Parameters
        ----------
        idle_s : float
            How long it may do nothing, in seconds; while this process is stopped (Ctrl-Z) they don't count.
        work_s : float
            How much processor time it may take, in seconds.
        """
        self._say(f"{idle_s} {work_s}\n")
        try:
            yield
        finally:
            self._say("\n")

    def verdict(self) -> str | None:
        """Return what the server was killed for, or None."""
        assert self._process.stdout is not None
        if not self._verdict and select.select([self._process.stdout], [], [], _VERDICT_S)[0]:
            self._verdict = self._process.stdout.read(1000) or b""
        return self._verdict.decode().strip() or None

    def close(self) -> None:
        """End the watch, and the server if it is still there."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _say(self, message: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended the server, and itself
            self._process.stdin.write(message.encode())


def _watch(server: int, parent: int) -> str | None:
    """Look after a server until somebody has to end it; returns the verdict, None if nobody is there to hear it."""
    limits: list[float] = []
    before = last = None
    idle_looks = 0
    while True:
        if select.select([sys.stdin], [], [], _LOOK_S if limits else None)[0]:
            said = os.read(sys.stdin.fileno(), 1 << 16).decode()
            if not said:
                return None
            # Only the last line counts; each begins or ends the waiting for another answer.
            limits = [float(word) for word in said.splitlines()[-1].split()]
            before, idle_looks = None, 0
            continue
        used = _processor_ticks(server)
        if _is_stopped(parent):
            continue
        before = used if before is None else before
        idle_looks = idle_looks + 1 if used == last else 0
        last = used
        idle_s, work_s = limits
        if idle_looks * _LOOK_S >= idle_s:
            return f"hung: it did nothing for {idle_s:g} s"
        if used - before > work_s * os.sysconf("SC_CLK_TCK"):
            return f"didn't answer: it computed for {work_s:g} s"


def _processor_ticks(session: int) -> int:
    """Return the processor time of all processes of a session."""
    return sum(
        int(fields[11]) + int(fields[12])
        for fields in map(_read_stat, Path("/proc").glob("[0-9]*"))
        if fields and int(fields[3]) == session
    )


def _is_stopped(process: int) -> bool:
    return _read_stat(Path(f"/proc/{process}"))[:1] == ["T"]


def _read_stat(process: Path) -> list[str]:
    """Return the fields of a process from its state on (proc(5)), none if it has ended."""
    try:
        # The name before them may hold spaces and brackets.
        return (process / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _main() -> None:
    try:
        handle = os.pidfd_open(int(sys.argv[1]))
    except ProcessLookupError:  # it ended at once
        return
    verdict = _watch(int(sys.argv[1]), os.getppid())
    with contextlib.suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), (verdict or "").encode())
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, signal.SIGKILL)


if __name__ == "__main__":
    _main()
