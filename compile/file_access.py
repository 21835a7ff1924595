"""Reading files that anybody may have put there: regular ones of a sane size only, and arrays that are what they claim.

A FIFO would wait for ever, ``/dev/zero`` never ends, and a header of a few bytes can claim terabytes.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.errors import AGAIN, ArtifactError, explain_os_error

#: No network's library, weights or arrays come near it.
MOST_BYTES = 1 << 30
_BLOCK = 1 << 20


def read_file(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """Return the content of a regular file.

    Raises
    ------
    ArtifactError
        It can't be read, is a link or no regular file, or is larger than `most_bytes`.
    """
    with _open_regular(path, most_bytes) as file:
        return file.read(most_bytes)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a regular file in hexadecimal; raises as `read_file` does."""
    digest = hashlib.sha256()
    with _open_regular(path, MOST_BYTES) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def open_to_append(path: Path) -> int:
    """Return a handle of a regular file that is to be added to, made where it is missing.

    Raises
    ------
    ArtifactError
        It can't be opened, or is a link or no regular file.
    """
    return _open_handle(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)


def _open_regular(path: Path, most_bytes: int) -> IO[bytes]:
    handle = _open_handle(path, os.O_RDONLY)
    size = os.fstat(handle).st_size
    if size <= most_bytes:
        return os.fdopen(handle, "rb")
    os.close(handle)
    raise ArtifactError(f"{path}: has {size:,} bytes, {most_bytes:,} at most are read")


def _open_handle(path: Path, flags: int) -> int:
    try:
        # O_NONBLOCK: opening a FIFO would wait for who writes to it. It changes nothing for regular files.
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if path.is_symlink():
            raise ArtifactError(f"{path}: is a link, where a file of its own belongs") from error
        raise ArtifactError(explain_os_error(error, path)) from error
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise ArtifactError(f"{path}: is no regular file")


def walk_folder(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield what is in a folder at any depth, by name; links are not followed."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        yield entry
        if entry.is_dir(follow_symlinks=False):
            yield from walk_folder(Path(entry.path))


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an .npz by name; what their headers claim is compared with what is there first.

    Raises
    ------
    ArtifactError
        The file is no .npz, an array is of Python objects, or they are too large.
    """
    content = read_file(path)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            # zipfile never decompresses more than an entry says it has.
            if sum(entry.file_size for entry in entries) > MOST_BYTES:
                raise ValueError(f"more than {MOST_BYTES:,} bytes unpacked")
            return {entry.filename.removesuffix(".npy"): _read_array(archive, entry) for entry in entries}
    except Exception as error:  # what damaged data make zipfile and NumPy raise has no common type
        raise ArtifactError(f"{path}: not NumPy arrays ({error or type(error).__name__}); {AGAIN}") from error


def _read_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    data = archive.read(entry)
    file = io.BytesIO(data)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise ValueError(f"{entry.filename} is of version {version}")
    shape, fortran_order, dtype = readers[version](file)
    if dtype.hasobject:
        raise ValueError(f"{entry.filename} holds Python objects")
    rest = len(data) - file.tell()
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != rest:
        raise ValueError(f"{entry.filename} claims {dtype} {shape} and has {rest:,} bytes")
    array: NDArray[Any] = np.frombuffer(data, dtype, offset=file.tell())
    # A copy of its own: what is read from a file may be written to, as after numpy.load.
    return array.reshape(shape, order="F" if fortran_order else "C").copy()
