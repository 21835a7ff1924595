"""Notice a server that hangs: while somebody waits for it, it works, or it is ended.

Limits follow what the server's processes do and not the clock on the wall: they mean the same on a busy computer.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator

import psutil

#: How long a server may do nothing while somebody waits for it, in seconds.
IDLE_S = 10.0
#: How much processor time one answer may take, in seconds.
WORK_S = 60.0
_LOOK_S = 0.25


class ServerWatch:
    """Watches a process of this computer and those it started.

    Parameters
    ----------
    process : subprocess.Popen
        It takes those it started along when it is killed.

    Attributes
    ----------
    verdict : str or None
        What it was killed for.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.verdict: str | None = None

    @contextlib.contextmanager
    def awaiting(self, idle_s: float = IDLE_S, work_s: float = WORK_S) -> Iterator[None]:
        """Kill the process if it hangs before the block ends: what waits for it in the block then fails.

        Parameters
        ----------
        idle_s : float
            How long it may do nothing, in seconds. They are counted in looks at it: while this process is stopped
            (Ctrl-Z) it doesn't look.
        work_s : float
            How much processor time it may take, in seconds.
        """
        done = threading.Event()
        thread = threading.Thread(target=self._look, args=(done, idle_s, work_s), name="server-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _look(self, done: threading.Event, idle_s: float, work_s: float) -> None:
        before = last = None
        idle_looks = 0
        while not done.wait(_LOOK_S):
            used = self._processor_seconds()
            if used is None:  # it has ended: its connections have too
                return
            before = used if before is None else before
            idle_looks = idle_looks + 1 if used == last else 0
            last = used
            if idle_looks * _LOOK_S >= idle_s:
                self.verdict = f"hung: it did nothing for {idle_s:g} s"
            elif used - before > work_s:
                self.verdict = f"didn't answer: it computed for {work_s:g} s"
            if self.verdict:
                self._process.kill()
                return

    def _processor_seconds(self) -> float | None:
        try:
            server = psutil.Process(self._process.pid)
            if server.status() == psutil.STATUS_ZOMBIE:
                return None
            processes = [server, *server.children(recursive=True)]
        except psutil.NoSuchProcess:
            return None
        total = 0.0
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total
