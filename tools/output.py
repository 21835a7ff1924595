"""How commands speak: tables for people, JSON files for programs."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

_Command = TypeVar("_Command", bound=Callable[..., Any])


def json_option(command: _Command) -> _Command:
    """Give a command the option ``--json FILE``, as parameter ``json_file``."""
    return click.option(
        "--json",
        "json_file",
        type=click.Path(path_type=Path, dir_okay=False),
        callback=_check_folder,
        help="Also write the result to this file as JSON.",
    )(command)


def _check_folder(_: click.Context, __: click.Parameter, file: Path | None) -> Path | None:
    # Before the work, not after it.
    if file is not None and not file.absolute().parent.is_dir():
        raise click.BadParameter(f"the folder {file.parent} does not exist")
    return file


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

    Raises
    ------
    click.ClickException
        It can't be written there.
    """
    try:
        handle, aside = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(content)
            # A temporary file is its owner's alone; give it the mode of any other new file.
            mask = os.umask(0)
            os.umask(mask)
            Path(aside).chmod(0o666 & ~mask)
            Path(aside).replace(file)
        finally:
            with contextlib.suppress(FileNotFoundError):
                Path(aside).unlink()
    except OSError as error:
        raise click.ClickException(f"{file}: can't be written ({error.strerror})") from error
