"""An artifact takes another one's place: whole or not at all, and nothing that isn't an artifact's is ever deleted."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from thumbnet.compile.aside import OLD, aside_folder, locked_folder
from thumbnet.compile.errors import ArtifactError, explain_os_error
from thumbnet.compile.file_access import hash_file, walk_folder
from thumbnet.compile.manifest import MANIFEST, read_listing

#: Of Linux's renameat2.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
#: What it says where the kernel or the file system can't.
_NO_EXCHANGE = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


@contextlib.contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write into, which takes the place of `folder` when the block ends without error.

    An artifact is thus whole or not there: a failure or Ctrl-C leaves what was at `folder` untouched. Of two runs at
    once the last one's stays. Where `folder` is a link, what it points to is replaced.

    Raises
    ------
    ArtifactError
        `folder` exists and is neither empty nor an artifact and nothing else, or can't be written.
    """
    place = _resolve(folder)
    with contextlib.ExitStack() as stack:
        with _explained(folder):
            place.parent.mkdir(parents=True, exist_ok=True)
            with locked_folder(place.parent):
                _check_place(folder, place)
            aside = stack.enter_context(aside_folder(place.parent))
            new = aside / "new" / place.name
            new.mkdir(parents=True)
        try:
            yield new
        except OSError as error:
            places = [str(name) for name in (error.filename, error.filename2) if name is not None]
            # Any other error has a place of its own: a file that was to be read.
            if not (any(name.startswith(str(aside)) for name in places) or (not places and error.errno in _NO_ROOM)):
                raise
            raise ArtifactError(explain_os_error(error, folder)) from error
        with _explained(folder), locked_folder(place.parent):
            _put(new, place, aside / OLD / place.name)


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArtifactError(explain_os_error(error, folder)) from error


def _resolve(folder: Path) -> Path:
    try:
        return folder.resolve()
    except (OSError, RuntimeError) as error:  # the latter for links in a circle, before Python 3.13
        raise ArtifactError(f"{folder}: can't be followed ({error}); name the folder itself") from error


def _check_place(folder: Path, place: Path) -> None:
    if not os.path.lexists(place):
        return
    if not place.is_dir():
        raise ArtifactError(f"{folder}: exists and is not an artifact; name another folder")
    if os.path.ismount(place):
        raise ArtifactError(
            f"{folder}: is where a file system is mounted, which can't be replaced; name a folder in it"
        )
    if Path.cwd().is_relative_to(place):
        raise ArtifactError(f"{folder}: is the folder you are in, which can't be replaced; name another folder")
    _check_contents(folder, place)


def _check_contents(folder: Path, place: Path) -> None:
    """Refuse what holds anything but the files of an artifact, as they were compiled; an empty folder holds nothing."""
    if not any(place.iterdir()):
        return
    try:
        listed = read_listing(place / MANIFEST)
    except ArtifactError as error:
        raise ArtifactError(f"{folder}: exists and is not an artifact; name another folder") from error
    folders = {str(parent) for name in listed for parent in Path(name).parents}
    for entry in walk_folder(place):
        name = os.path.relpath(entry.path, place)
        is_folder = entry.is_dir(follow_symlinks=False)
        if name not in (folders if is_folder else {*listed, MANIFEST}) or entry.is_symlink():
            raise ArtifactError(f"{folder}: holds {name}, which is not the artifact's; move it, or name another folder")
        if not is_folder and name != MANIFEST and hash_file(Path(entry.path)) != listed[name]:
            raise ArtifactError(
                f"{folder}: {name} was changed since it was compiled; move or delete it, or name another folder"
            )


def _put(new: Path, place: Path, old: Path) -> None:
    """Rename `new` to `place`; what was there is looked at once more, and stays if it isn't an artifact's alone."""
    try:
        new.rename(place)  # nothing there, or an empty folder
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    if _exchange(new, place):
        try:
            _check_contents(place, new)
        except BaseException:
            _exchange(new, place)
            raise
        return
    # For a moment none is there. Whatever ends this run in that moment, `aside_folder` or the next run puts it back.
    old.parent.mkdir()
    place.rename(old)
    _check_contents(place, old)
    new.rename(place)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two folders at once; return whether that is possible here."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # no glibc, or one before 2.28
        return False
    if renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(second))
