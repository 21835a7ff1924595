"""Programs that end with this process, however it ends, and with all that they have started themselves."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

#: Runs a command, and kills its process group when standard input breaks. The parent-death signal of Linux would do the
#: same only as long as the thread that started the command lives. Nothing is left running either when the command ends.
_GUARD = (
    'exec 3<&0; "$@" </dev/null 3<&- & child=$!; '
    "(read -r _ <&3; kill -9 0) >/dev/null 2>&1 & watcher=$!; "
    "wait $child; status=$?; kill -9 $watcher 2>/dev/null; exit $status"
)


@functools.cache
def _lifeline() -> int:
    """Return the end to read of a pipe that breaks when this process ends; nobody inherits the other end."""
    to_read, _ = os.pipe()
    return to_read


def start_guarded(
    command: Sequence[str],
    *,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
    lifeline: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program that ends with this process, or with a lifeline; further options are `subprocess.Popen`'s.

    Ctrl-C doesn't reach it: whoever started it ends it, with `kill_guarded` or by its lifeline.
    """
    return subprocess.Popen(
        ["/bin/sh", "-c", _GUARD, "sh", *command],
        stdin=_lifeline() if lifeline is None else lifeline,
        stdout=stdout,
        stderr=stderr,
        cwd=cwd,
        pass_fds=pass_fds,
        start_new_session=True,
    )


def kill_guarded(process: subprocess.Popen[bytes]) -> None:
    """End a program and all it has started, at once. May be called twice."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def shared_lifeline() -> Iterator[int]:
    """Give a lifeline for programs that run in several threads: what still runs when the block ends is killed."""
    to_read, to_break = os.pipe()
    try:
        yield to_read
    finally:
        os.close(to_break)
        os.close(to_read)


def run_guarded(
    command: Sequence[str], cwd: Path | None = None, lifeline: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program that ends with this process, or with a lifeline; return its exit code and output."""
    process = start_guarded(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd, lifeline=lifeline)
    try:
        output, errors = process.communicate()
    except BaseException:
        kill_guarded(process)
        raise
    return subprocess.CompletedProcess(
        command, process.returncode, output.decode(errors="replace"), errors.decode(errors="replace")
    )
