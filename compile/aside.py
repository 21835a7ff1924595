"""A folder aside, in which something is made whole before it takes its place by a rename.

Its owner holds a lock on it as long as it lives, so that what a killed run left behind is told from what another one is
at work on, and the next run removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = ".thumbnet-"
#: What was taken from its place to make room lies in here under its own name. Where its place is free at the end, for
#: nothing came to replace it, it is put back.
OLD = "old"

_NAME = re.compile(re.escape(PREFIX) + r"[a-z0-9_]{8}")


@contextlib.contextmanager
def aside_folder(parent: Path) -> Iterator[Path]:
    """Give an empty folder in `parent`, which is gone when the block ends, however it ends.

    Raises
    ------
    OSError
        It can't be made.
    """
    remove_abandoned(parent)
    folder, lock = _make(parent)
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError), locked_folder(parent):
            _discard(folder)
        os.close(lock)


def remove_abandoned(parent: Path) -> None:
    """Remove the folders in `parent` whose runs ended without doing so."""
    try:
        found = [path for path in parent.iterdir() if _NAME.fullmatch(path.name)]
    except OSError:
        return  # may not be listed: nothing is known to be abandoned
    for folder in found:
        with contextlib.suppress(OSError):  # another run was faster, it isn't ours, or it is at work still
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with locked_folder(parent):
                    _discard(folder)
            finally:
                os.close(handle)


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Wait until no other run is in such a block for the same folder; on file systems without locks, don't."""
    handle = -1
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle >= 0:
            os.close(handle)


def _discard(folder: Path) -> None:
    for old in (folder / OLD).iterdir() if (folder / OLD).is_dir() else ():
        if not os.path.lexists(folder.parent / old.name):
            old.rename(folder.parent / old.name)
    shutil.rmtree(folder)


def _make(parent: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        handle = -1
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), folder.stat()):
                return folder, handle
        except (BlockingIOError, FileNotFoundError):
            pass  # between the two calls another run took it for abandoned
        except OSError:
            # A file system without locks: nobody can take one there, so that nobody removes it either.
            if handle >= 0:
                return folder, handle
            raise
        if handle >= 0:
            os.close(handle)
