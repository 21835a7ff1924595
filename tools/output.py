"""How commands speak: tables for people, JSON files for programs."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import click
from rich.console import Console
from rich.table import Table

from thumbnet.compile.aside import aside_folder
from thumbnet.compile.errors import explain_os_error

_Command = TypeVar("_Command", bound=Callable[..., Any])


def json_option(command: _Command) -> _Command:
    """Give a command the option ``--json FILE``, as parameter ``json_file``."""
    return click.option(
        "--json",
        "json_file",
        type=click.Path(path_type=Path, dir_okay=False),
        callback=check_place,
        help="Also write the result to this file as JSON.",
    )(command)


def check_place(_: click.Context, __: click.Parameter, file: Path | None) -> Path | None:
    """Refuse a file that can't be written, before the work and not after it: the callback of an option.

    Raises
    ------
    click.BadParameter
        Its folder is missing or read-only.
    """
    if file is None or (file.exists() and not file.is_file()):
        return file
    folder = _follow(file).parent
    if not folder.is_dir():
        raise click.BadParameter(f"the folder {file.parent} does not exist")
    if not os.access(folder, os.W_OK):
        raise click.BadParameter(f"the folder {file.parent} can't be written to")
    return file


def _follow(file: Path) -> Path:
    try:
        return file.resolve()
    except RuntimeError as error:  # before Python 3.13
        raise click.ClickException(f"{file}: these links lead in a circle; name the file itself") from error


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, footer: Sequence[object] | None = None
) -> None:
    """Print a table to standard output.

    Parameters
    ----------
    title : str
        Above the table.
    columns : sequence of str
        Headings; units belong here.
    rows : iterable of sequences
        Cells. Integers get thousands separators and stand right, floats as they format; None is shown as a dash.
    footer : sequence or None
        A last row that stands apart, for totals.
    """
    cells = [list(row) for row in rows]
    table = Table(title=title, title_justify="left", show_footer=footer is not None, header_style="bold")
    for position, column in enumerate(columns):
        values = [row[position] for row in cells if row[position] is not None]
        numbers = bool(values) and all(isinstance(value, int | float) for value in values)
        table.add_column(
            column,
            footer="" if footer is None else _format(footer[position]),
            justify="right" if numbers else "left",
            overflow="fold",
        )
    for row in cells:
        table.add_row(*(_format(value) for value in row))
    # A pipe has no width: let a row have its line there, whole.
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=200)
    console.print(table)


def _format(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def write_json(file: Path | None, content: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write a result as JSON, whole or not at all; do nothing where no file was asked for."""
    if file is not None:
        replace_file(file, (json.dumps(content, indent=2, default=str) + "\n").encode())


def replace_file(file: Path, content: bytes) -> None:
    """Put a file in its place in one step, so that nobody ever sees a part of it.

    A link stays, and what it points to is replaced. What is no regular file (a terminal, a pipe, ``/dev/null``) is
    written to.

    Raises
    ------
    click.ClickException
        It can't be written there.
    """
    try:
        found = file.stat() if file.exists() else None
        if found is not None and (stream := _stream_of(file, found)) is not None:
            with stream:
                stream.write(content)
            return
        target = _follow(file)
        with aside_folder(target.parent) as aside:
            new = aside / "file"
            new.write_bytes(content)
            if found is not None:
                new.chmod(stat.S_IMODE(found.st_mode))
            new.replace(target)
    except OSError as error:
        raise click.ClickException(explain_os_error(error, f"{file}: can't be written")) from error


def _stream_of(file: Path, found: os.stat_result) -> BinaryIO | None:
    """Return what to write to where there is nothing to be replaced; None for a regular file."""
    sys.stdout.flush()
    for number in (1, 2):
        # Standard output may be a regular file, which the shell holds open: another one in its place would lose what
        # was printed.
        with contextlib.suppress(OSError):
            if os.path.samestat(found, os.fstat(number)):
                return os.fdopen(os.dup(number), "wb")
    return None if stat.S_ISREG(found.st_mode) else file.open("wb")
