"""Opens a weights file: a regular one of a sane size, read once."""

from __future__ import annotations

import stat
from pathlib import Path

from thumbnet.models.errors import WeightsFileError

#: Of a file, and of what an archive expands to: a MobileNet V1 of width 1 with its optimizer's state takes 50 MB.
LARGEST_BYTES = 512 * 2**20


def read_weights_file(file: Path) -> bytes:
    """Return the content of a file.

    Raises
    ------
    WeightsFileError
        It is missing, can't be read, is no regular file (a pipe or a device may never end), or is too large.
    """
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise WeightsFileError(f"{file}: can't be read (not a regular file); give a weights file")
        check_size(file, status.st_size, "has")
        with file.open("rb") as opened:
            # It may grow while it is read.
            data = opened.read(LARGEST_BYTES + 1)
    except FileNotFoundError as error:
        raise WeightsFileError(f"{file}: no such weights file") from error
    except OSError as error:
        raise WeightsFileError(f"{file}: can't be read ({error.strerror})") from error
    # A path with a zero byte in it.
    except ValueError as error:
        raise WeightsFileError(f"{str(file)!r}: can't be read ({error})") from error
    check_size(file, len(data), "has")
    return data


def check_size(file: Path, size: int, verb: str) -> None:
    """Refuse more bytes than `LARGEST_BYTES`.

    Raises
    ------
    WeightsFileError
        There are more.
    """
    if size > LARGEST_BYTES:
        raise WeightsFileError(
            f"{file}: {verb} {size:,} bytes, at most {LARGEST_BYTES:,} are read; save the weights alone"
        )


def shorten(text: object, length: int = 80) -> str:
    """Return a name out of a file as it can stand in a line for the person."""
    line = "".join(character if character.isprintable() else "?" for character in str(text)[: length + 1])
    return line if len(line) <= length else f"{line[:length]}..."
