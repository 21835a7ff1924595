"""What went wrong, as one line for the person."""

from __future__ import annotations

import click

from thumbnet.compile.errors import CompileError, explain_os_error
from thumbnet.models.errors import ModelError
from thumbnet.runtime_tests.errors import SessionError
from thumbnet.targets.errors import TargetError

KNOWN_ERRORS = (ModelError, TargetError, CompileError, SessionError)
#: A line that is longer holds a name nobody chose for reading.
LONGEST_LINE = 2000


def error_line(error: Exception) -> str:
    """Return an error as one printable line: names come from files that anybody may have written."""
    line = printable(" ".join(_message(error).split()))
    if len(line) > LONGEST_LINE:
        line = f"{line[: LONGEST_LINE // 2]} ... {line[-LONGEST_LINE // 2 :]}"
    return line


def printable(text: str) -> str:
    """Return a text with escapes for what neither a terminal nor a file of XML should get."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _message(error: Exception) -> str:
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, KNOWN_ERRORS):
        return str(error)
    if isinstance(error, OSError):
        return explain_os_error(error)
    if isinstance(error, MemoryError):
        return "out of memory; close other programs, or choose a smaller network"
    # Not foreseen: the person gets what is known of it in a line, and a way to more.
    said = f"{type(error).__name__}: {error}"
    return f"{said[: LONGEST_LINE // 2]} (not foreseen by thumbnet; `thumbnet --debug ...` prints where)"
