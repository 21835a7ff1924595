"""The records of a search on disk: MetaSchedule's two files, read by us first.

MetaSchedule takes what it finds: a line cut off makes it give up on all, and a record names its workload by a number,
which means another layer's where two searches wrote into one folder.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tvm
from pydantic import Field, TypeAdapter, ValidationError
from tvm.s_tir import meta_schedule as ms

from thumbnet.compile.aside import aside_folder
from thumbnet.compile.emit.tensor_intrinsics import load_tensor_intrinsics
from thumbnet.compile.errors import ArtifactError, TuningError, explain_os_error
from thumbnet.compile.file_access import read_file
from thumbnet.compile.manifest import STRICT, first_fault
from thumbnet.compile.tuning.record_folder import LOCK, RECORDS, WORKLOADS, locked_for_search, make_folder

_WAY_OUT = "name another folder, or delete this one and tune again"
_log = logging.getLogger(__name__)

#: A workload: its structural hash, and the module in base64.
_WORKLOAD = TypeAdapter(tuple[Annotated[str, Field(pattern=r"^[0-9]{1,20}$")], str], config=STRICT)
#: A record: the number of its workload's line; trace, seconds of each run, target, arguments.
_RECORD = TypeAdapter(
    tuple[
        Annotated[int, Field(ge=0)],
        tuple[
            Annotated[list[Any], Field(min_length=2, max_length=2)],
            Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] | None,
            dict[str, Any],
            list[Any],
        ],
    ],
    config=STRICT,
)


@dataclass(frozen=True)
class _Lines:
    """The whole lines of both files that can be used, and whether anything had to be left out or mended."""

    workloads: list[Any]
    records: list[Any]
    mended: bool


@contextlib.contextmanager
def opened_records(folder: Path) -> Iterator[ms.database.JSONDatabase]:
    """Open a folder of records to add to, or make it; nobody else writes into it until the block ends.

    A last line that was cut off, by a run that was killed or a full disk, is dropped from its file and said so.

    Raises
    ------
    TuningError
        The folder can't be used: another search is at work in it, it holds something else, or its records are damaged.
    """
    make_folder(folder)
    try:
        _refuse_half(folder)
        with locked_for_search(folder, LOCK):
            if (folder / RECORDS).exists():
                lines = _read_lines(folder)
                _parse(folder, lines)
                if lines.mended:
                    _write_lines(folder, lines)
            database = ms.database.JSONDatabase(
                str(folder / WORKLOADS), str(folder / RECORDS), module_equality="structural"
            )
            yield database
    except OSError as error:
        if error.filename is None or not str(error.filename).startswith(str(folder)):
            raise
        raise TuningError(explain_os_error(error, folder)) from error


def has_schedule_records(folder: Path) -> bool:
    """Tell whether a folder holds records of MetaSchedule, one at least."""
    path = folder / RECORDS
    return os.path.lexists(path) and (not path.is_file() or path.stat().st_size > 0)


def read_records(folder: Path) -> ms.database.Database:
    """Return the records of a folder, which a search may be adding to meanwhile; nothing is written there.

    Raises
    ------
    TuningError
        There are none, or they are damaged.
    """
    if not (folder / RECORDS).exists() or not (folder / WORKLOADS).exists():
        raise TuningError(f"{folder}: no tuning records there; `thumbnet tune ... -o {folder}` makes them")
    records = _parse(folder, _read_lines(folder))
    if not records:
        raise TuningError(f"{folder}: holds no record yet; tune first, or leave --tuning out")
    database = ms.database.MemoryDatabase(module_equality="structural")
    for record in records:
        database.commit_workload(record.workload.mod)
        database.commit_tuning_record(record)
    return database


def add_missing_schedules(folder: Path, records: Sequence[ms.database.TuningRecord]) -> int:
    """Add records to a folder, but for those that are there; return how many were added.

    Raises
    ------
    TuningError
        As `opened_records`.
    """
    added = 0
    with opened_records(folder) as database:
        there = {_identity(record) for record in database.get_all_tuning_records()}
        for record in records:
            if _identity(record) not in there:
                there.add(_identity(record))
                workload = database.commit_workload(record.workload.mod)
                database.commit_tuning_record(
                    ms.database.TuningRecord(record.trace, workload, record.run_secs, record.target, record.args_info)
                )
                added += 1
    return added


def _identity(record: ms.database.TuningRecord) -> str:
    return json.dumps([record.workload.as_json()[0], record.as_json()], default=str)


def _refuse_half(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    if (RECORDS in names and WORKLOADS not in names) or (
        WORKLOADS in names and RECORDS not in names and (folder / WORKLOADS).stat().st_size
    ):
        raise TuningError(f"{folder}: {WORKLOADS} or {RECORDS} is missing; the records are of no use without both")


def _read_lines(folder: Path) -> _Lines:
    # The records first: a search that adds to them meanwhile writes a workload before the records of it.
    records, records_mended = _read_file(folder / RECORDS, _RECORD)
    workloads, workloads_mended = _read_file(folder / WORKLOADS, _WORKLOAD)
    kept = [record for record in records if record[0] < len(workloads)]
    if lost := len(records) - len(kept):
        _log.warning("%s: %d records left out, their workloads are not in %s", folder / RECORDS, lost, WORKLOADS)
    return _Lines(workloads, kept, records_mended or workloads_mended or bool(lost))


def _read_file(path: Path, adapter: TypeAdapter[Any]) -> tuple[list[Any], bool]:
    """Return the entries of a file of one JSON array a line, and whether its end had to be mended."""
    try:
        *lines, rest = read_file(path).split(b"\n")
    except ArtifactError as error:
        raise TuningError(str(error)) from error
    entries = [_read_line(path, number, line, adapter) for number, line in enumerate(lines, 1)]
    if not rest:
        return entries, False
    try:
        json.loads(rest)
    except (ValueError, RecursionError) as error:
        # An array without its end is no JSON, wherever it was cut.
        if not rest.startswith(b"["):
            raise TuningError(f"{path}: line {len(lines) + 1} is no tuning record; {_WAY_OUT}") from error
        _log.warning("%s: the last line, %d, was cut off and is left out", path, len(lines) + 1)
        return entries, True
    return [*entries, _read_line(path, len(lines) + 1, rest, adapter)], True


def _read_line(path: Path, number: int, line: bytes, adapter: TypeAdapter[Any]) -> Any:  # noqa: ANN401 - JSON
    try:
        adapter.validate_json(line)
        return json.loads(line)
    except ValidationError as error:
        raise TuningError(f"{path}: line {number} is no tuning record ({first_fault(error)}); {_WAY_OUT}") from error
    except (ValueError, RecursionError) as error:
        raise TuningError(f"{path}: line {number} is no tuning record ({error}); {_WAY_OUT}") from error


def _write_lines(folder: Path, lines: _Lines) -> None:
    with aside_folder(folder) as aside:
        for name, entries in ((WORKLOADS, lines.workloads), (RECORDS, lines.records)):
            (aside / name).write_text("".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in entries))
            (aside / name).replace(folder / name)


def _parse(folder: Path, lines: _Lines) -> list[ms.database.TuningRecord]:
    """Return MetaSchedule's records, each checked to fit its workload."""
    load_tensor_intrinsics()
    workloads = []
    for number, entry in enumerate(lines.workloads, 1):
        try:
            workload = ms.database.Workload.from_json(entry)
            # MetaSchedule believes the hash.
            fits = ms.database.Workload(workload.mod).as_json()[0] == entry[0]
            arguments = [argument.as_json() for argument in ms.arg_info.ArgInfo.from_entry_func(workload.mod)]
        except Exception as error:  # TVM has no common type for what it finds wrong
            raise TuningError(
                f"{folder / WORKLOADS}: line {number} is no workload ({_last_line(error)}); {_WAY_OUT}"
            ) from error
        if not fits:
            raise TuningError(f"{folder / WORKLOADS}: line {number} has another workload's hash; {_WAY_OUT}")
        workloads.append((workload, arguments))
    records = []
    for number, (index, entry) in enumerate(lines.records, 1):
        workload, arguments = workloads[index]
        try:
            record = ms.database.TuningRecord.from_json(entry, workload)
            fits = entry[3] == arguments
            if fits:
                record.trace.apply_to_schedule(tvm.s_tir.Schedule(workload.mod), remove_postproc=False)
        except Exception as error:  # as above
            raise TuningError(
                f"{folder / RECORDS}: line {number} does not fit its workload ({_last_line(error)}); {_WAY_OUT}"
            ) from error
        if not fits:
            raise TuningError(
                f"{folder / RECORDS}: line {number} is a record of another layer: its arguments are"
                f" {_short(entry[3])}, its workload's {_short(arguments)}; {_WAY_OUT}"
            )
        records.append(record)
    return records


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
