"""`thumbnet records`: what is in folders of tuning records."""

# ruff: noqa: PLC0415, PLR0917 - heavy imports sit in the function, so that --help is there at once

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from thumbnet.tools.output import json_option, print_table, write_json

if TYPE_CHECKING:
    from thumbnet.compile.tuning.stage_record import StageRecord

#: Rows of the table; all records are in the JSON.
SHOWN = 50
#: Exit code where a line is damaged.
DAMAGED = 1
KINDS = ("instructions", "predicted cycles", "cycles", "seconds on the board")

Command = TypeVar("Command", bound=Callable[..., Any])

_folder = click.argument("folder", type=click.Path(path_type=Path))
_output = click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to add them to; those that are there stay.",
)


@dataclass(frozen=True)
class Filter:
    """Which records are wanted, None where any is."""

    board: str | None
    core: str | None
    kind: str | None
    since: datetime | None

    def takes(self, record: StageRecord) -> bool:
        """Tell whether a record is wanted."""
        return (
            self.board in (None, record.board)
            and self.core in (None, record.core)
            and self.kind in (None, record.kind)
            and (self.since is None or datetime.fromisoformat(record.date) >= self.since)
        )


def _utc(_: click.Context, __: click.Parameter, time: datetime | None) -> datetime | None:
    return None if time is None else time.replace(tzinfo=UTC)


def _known_board(_: click.Context, __: click.Parameter, name: str | None) -> str | None:
    from thumbnet.targets.registry import get_board

    return None if name is None else get_board(name).name


def _known_core(_: click.Context, __: click.Parameter, name: str | None) -> str | None:
    from thumbnet.targets.registry import list_boards
    from thumbnet.targets.suggest import suggest

    known = sorted({board.core for board in list_boards()})
    if name is not None and name not in known:
        raise click.BadParameter(f"unknown core {name}{suggest(name, known)}; known: {', '.join(known)}")
    return name


def filters(command: Command) -> Command:
    """Give a command the options of a `Filter`."""
    for option in (
        click.option("--since", type=click.DateTime(), callback=_utc, help="Made then or later, UTC."),
        click.option("--kind", type=click.Choice(KINDS), help="What was measured."),
        click.option("--core", callback=_known_core, help="Measured on this core, such as cortex-m4."),
        click.option("--board", callback=_known_board, help="Measured on this type of board, see `thumbnet boards`."),
    ):
        command = option(command)
    return command


@click.group()
def records() -> None:
    """List, merge, filter and check the records of `thumbnet tune`.

    These are records of stages. How a layer on a schedule of TVM's is computed is in MetaSchedule's own files beside
    them, which are merged too.
    """


@records.command("list")
@_folder
@filters
@json_option
def list_records(
    folder: Path, board: str | None, core: str | None, kind: str | None, since: datetime | None, json_file: Path | None
) -> None:
    """List the records in FOLDER, the newest first."""
    from thumbnet.compile.tuning.stage_key import kernels_digest
    from thumbnet.compile.tuning.stage_records import read_stage_records

    found = read_stage_records(folder)
    wanted = list(filter(Filter(board, core, kind, since).takes, found))
    newest = sorted(wanted, key=lambda record: record.date)[::-1]  # of one second the later line
    rest = f", the newest {SHOWN} shown" if len(wanted) > SHOWN else ""
    print_table(
        f"{folder}: {len(wanted):,} of {len(found):,} records{rest}",
        ["stage", "key", "core", "device", "kind", "cost", "spread", "samples", "date", ""],
        [_row(record, kernels_digest()) for record in newest[:SHOWN]],
    )
    write_json(json_file, [record.model_dump() for record in newest])


def _row(record: StageRecord, kernels: str) -> tuple[object, ...]:
    first, last = record.layers[0], record.layers[-1]
    cost = None if not record.right else f"{record.cost:,.0f}" if record.cost >= 1000 else f"{record.cost:.6g}"
    notes = ("wrong bytes", not record.right), ("other kernels", record.kernels != kernels)
    return (
        first if first == last else f"{first} to {last}",
        record.key[:8],
        record.core,
        record.device,
        record.kind,
        cost,
        f"{record.spread:.1%}" if len(record.samples) > 1 else None,
        len(record.samples),
        record.date.removesuffix("+00:00"),
        ", ".join(note for note, there in notes if there),
    )


@records.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@_output
@json_option
def merge(folders: Sequence[Path], output: Path, json_file: Path | None) -> None:
    """Add the records in FOLDERS to one folder, each once, damaged lines left out."""
    _gather(folders, output, Filter(None, None, None, None), json_file)


@records.command("filter")
@_folder
@filters
@_output
@json_option
def filter_records(
    folder: Path,
    board: str | None,
    core: str | None,
    kind: str | None,
    since: datetime | None,
    output: Path,
    json_file: Path | None,
) -> None:
    """Add the records in FOLDER that all options fit to another folder."""
    if output.exists() and folder.exists() and output.samefile(folder):
        raise click.BadParameter(f"{output} is what is filtered; name another folder", param_hint="-o")
    _gather([folder], output, Filter(board, core, kind, since), json_file)


def _gather(folders: Sequence[Path], output: Path, wanted: Filter, json_file: Path | None) -> None:
    from thumbnet.compile.tuning.records import add_missing_schedules, has_schedule_records, read_records
    from thumbnet.compile.tuning.stage_records import add_missing_records, read_stage_records

    read = {folder: read_stage_records(folder) for folder in folders}  # all, before anything is written
    taken = {folder: list(filter(wanted.takes, found)) for folder, found in read.items()}
    databases = [read_records(folder) for folder in folders if has_schedule_records(folder)]
    schedules = [record for database in databases for record in database.get_all_tuning_records()]
    added = add_missing_records(output, [record for found in taken.values() for record in found])
    if schedules:
        # All, whatever is wanted of the costs: without one a schedule is in no plan.
        add_missing_schedules(output, schedules)
    rows = [(str(folder), len(read[folder]), len(taken[folder])) for folder in read]
    print_table(f"{added:,} records added to {output}", ["folder", "records", "taken"], rows)
    folders_json = [{"folder": folder, "records": records, "taken": taken} for folder, records, taken in rows]
    write_json(json_file, {"folder": str(output), "added": added, "from": folders_json})


@records.command()
@_folder
@json_option
def check(folder: Path, json_file: Path | None) -> int:
    """Check each line in FOLDER; the exit code is 1 where one is damaged."""
    from thumbnet.compile.tuning.stage_key import kernels_digest
    from thumbnet.compile.tuning.stage_records import check_stage_records

    found, faults = check_stage_records(folder)
    if faults:
        print_table("Damaged lines", ["line", "fault"], [(fault.line, fault.reason) for fault in faults])
    other = sum(record.kernels != kernels_digest() for record in found)
    wrong = sum(not record.right for record in found)
    click.echo(
        f"{folder}: {len(faults):,} of {len(found) + len(faults):,} lines are damaged. Of the {len(found):,} records"
        f" {wrong:,} are of wrong bytes, {other:,} of other kernels, which serve no more."
    )
    write_json(
        json_file,
        {
            "folder": str(folder),
            "records": len(found),
            "wrong_bytes": wrong,
            "other_kernels": other,
            "faults": [asdict(fault) for fault in faults],
        },
    )
    return DAMAGED if faults else 0
