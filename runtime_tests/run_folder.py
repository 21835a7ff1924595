"""Where thumbnet keeps files of its own: the user's cache, and in it a folder of temporary files for every run."""

from __future__ import annotations

import atexit
import fcntl
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from thumbnet.compile.errors import ToolchainError

#: Removes a folder when standard input breaks, and again while what is being killed still writes into it. In the
#: background: it is nobody's child.
_SWEEP = 'exec 3<&0; (read -r _ <&3; for _ in 1 2 3 4 5; do rm -rf -- "$1" && exit; sleep 1; done) >/dev/null 2>&1 &'


def cache_folder(*parts: str) -> Path:
    """Return thumbnet's folder of things that can be made again, for this user alone; it is made where it is missing.

    Raises
    ------
    ToolchainError
        It is another user's, whose programs would be run.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    root = (Path(base) if base else Path.home() / ".cache") / "thumbnet"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if {root.lstat().st_uid, root.stat().st_uid} != {os.geteuid()}:
        raise ToolchainError(f"{root}: belongs to another user; set XDG_CACHE_HOME to a folder of your own")
    root.chmod(0o700)
    folder = root / Path(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def run_folder() -> Path:
    """Return this process's folder of temporary files; on one file system with the cache, so that results are renamed.

    It is removed when the process ends, however it ends. What the end of the computer left the next run removes.
    """
    return _make_run_folder(cache_folder("runs"))


@functools.cache
def _make_run_folder(runs: Path) -> Path:
    with _locked(runs):  # no other run takes the new folder for an abandoned one before it is locked
        for folder in runs.iterdir():
            _remove_abandoned(folder)
        folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=runs))
        # Held until this process ends, however it ends; programs that it starts don't inherit it.
        fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _sweep_in_the_end(folder)
    return folder


def _sweep_in_the_end(folder: Path) -> None:
    """Have a folder removed when this process ends, also where it is killed."""
    breaks, _ = os.pipe()  # nobody inherits the other end, which stays open until then
    command = ["/bin/sh", "-c", _SWEEP, "sh", str(folder)]
    subprocess.run(command, stdin=breaks, cwd="/", start_new_session=True, check=True)
    os.close(breaks)


def _remove_abandoned(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return  # its process has just ended
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        pass  # its process runs
    finally:
        os.close(handle)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
