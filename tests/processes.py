"""Programs that tests start: with signals that work, waited for while they make progress, ended with the test."""

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
import uuid

import psutil

#: A program that does nothing for so long, or that takes so much processor time, has failed. Neither limits how long it
#: may take on a busy computer.
IDLE_S, WORK_S = 30, 300
_LOOK_S = 0.05
#: A line of `thumbnet.tools.progress` on standard error: on a busy computer a step may take so long that it is told.
PROGRESS = re.compile(r"thumbnet: (?!error: ).* \(\d+ s\)")
_MARK = "THUMBNET_TEST_PROGRAM"


@contextlib.contextmanager
def signals_by_default():
    """Give programs started in the block the default actions of signals, though the tests ignore them (nohup, `&`)."""
    ignored = [
        number
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT)
        if signal.getsignal(number) == signal.SIG_IGN
    ]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


class Programs:
    """Starts programs; `end` kills what is left of them and of whatever they started."""

    def __init__(self):
        self._mark = uuid.uuid4().hex
        self._started = []

    def start(self, command, env=None, **options):
        environment = {**(os.environ if env is None else env), _MARK: self._mark}
        with signals_by_default():
            process = subprocess.Popen(list(map(str, command)), env=environment, **options)
        self._started.append(process)
        return process

    def run(self, command, **options):
        """Run to the end; returns what `subprocess.run` does, with the output as text."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = self.start(command, **{**pipes, "text": True, **options})
        out, err = communicate(process)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def alive(self, command=""):
        """Return what is there of all that was started, children's children included; with a word of its command."""
        return [process for process in psutil.process_iter() if self._is_ours(process, command)]

    def _is_ours(self, process, command):
        try:
            ours = process.environ().get(_MARK) == self._mark and process.status() != psutil.STATUS_ZOMBIE
            return ours and command in " ".join(process.cmdline())
        except psutil.Error:
            return False

    def end(self):
        for process in self.alive():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for process in self._started:
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()


def processor_seconds(process):
    """Return the processor time of a process and those it started, or None when it has ended."""
    try:
        leader = psutil.Process(process.pid)
        if leader.status() == psutil.STATUS_ZOMBIE:
            return None
        processes = [leader, *leader.children(recursive=True)]
    except psutil.NoSuchProcess:
        return None
    total = 0.0
    for one in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            total += times.user + times.system
    return total


def wait_until(condition, process, idle_s=IDLE_S, work_s=WORK_S):
    """Wait until a condition holds, as long as a process works for it."""
    first = last = processor_seconds(process) or 0.0
    idle_looks = 0
    while not condition():
        time.sleep(_LOOK_S)
        now = processor_seconds(process)
        idle_looks = idle_looks + 1 if now == last else 0
        last = now
        assert idle_looks * _LOOK_S < idle_s, f"the program has done nothing for {idle_s} s, or ended"
        assert now is None or now - first < work_s, f"the program has computed for {work_s} s"


def wait_for_end(process, idle_s=IDLE_S, work_s=WORK_S):
    """Wait for a process to end, as long as it works; returns its exit code."""
    wait_until(lambda: process.poll() is not None, process, idle_s, work_s)
    return process.wait()


def communicate(process, idle_s=IDLE_S, work_s=WORK_S):
    """Read all a process says until it ends, as long as it works; returns standard output and error."""
    said = []
    reader = threading.Thread(target=lambda: said.extend(process.communicate()), daemon=True)
    reader.start()
    wait_until(lambda: not reader.is_alive(), process, idle_s, work_s)
    reader.join()
    return tuple(said)
