"""What stages cost on devices, kept: a line of JSON a measurement, in one file of a folder.

Lines are appended and reach the disk one by one, so that whatever ends a search costs at most the line in flight: a
last line that was cut off is dropped. A line that is damaged is left out and named.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from thumbnet.compile.errors import ArtifactError, TuningError, explain_os_error
from thumbnet.compile.file_access import open_to_append, read_file
from thumbnet.compile.tuning.record_folder import STAGES, STAGES_LOCK, locked_for_search, make_folder
from thumbnet.compile.tuning.stage_key import kernels_digest
from thumbnet.compile.tuning.stage_record import (
    CostKind,
    StageRecord,
    begins_record,
    decode_record,
    encode_record,
)

#: About 150,000 records: a hundred times what a search makes.
MOST_BYTES = 128 << 20
#: Damaged lines that are named one by one.
_NAMED = 5
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fault:
    """A line that is no whole record: its number, from 1, what is wrong with it, and whether it was cut off."""

    line: int
    reason: str
    cut_off: bool = False

    def __str__(self) -> str:
        """Return it in words."""
        return f"line {self.line} {self.reason}"


class StageRecorder:
    """A folder of records opened to add to; made by `opened_stage_records`. Threads may share it."""

    def __init__(self, path: Path, file: int) -> None:
        self._path, self._file = path, file
        self._lock = threading.Lock()

    def add(self, *records: StageRecord) -> None:
        """Append records, all or none; they are on the disk when this returns.

        Raises
        ------
        TuningError
            They can't be written: the disk is full, the file is, or it was deleted meanwhile.
        """
        lines = b"".join(map(encode_record, records))
        with self._lock:
            try:
                self._append(lines)
            except OSError as error:
                raise TuningError(explain_os_error(error, self._path)) from error

    def _append(self, lines: bytes) -> None:
        found = os.fstat(self._file)
        if not found.st_nlink:
            raise TuningError(f"{self._path}: was deleted meanwhile; tune again")
        if found.st_size + len(lines) > MOST_BYTES:
            raise TuningError(
                f"{self._path}: has {found.st_size:,} bytes, {MOST_BYTES:,} at most are read; name another folder"
            )
        try:
            rest = memoryview(lines)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, found.st_size)
            raise


@contextlib.contextmanager
def opened_stage_records(folder: Path) -> Iterator[StageRecorder]:
    """Open a folder of records to add to, or make it; nobody else adds to it until the block ends.

    A last line that was cut off, by a run that was killed or a full disk, is dropped from the file and said so.

    Raises
    ------
    TuningError
        The folder can't be used: another search is at work in it, or it holds something else.
    """
    make_folder(folder)
    path = folder / STAGES
    with locked_for_search(folder, STAGES_LOCK):
        try:
            file = open_to_append(path)
        except ArtifactError as error:
            raise TuningError(str(error)) from error
        try:
            try:
                _mend(path, file)
                _sync_folder(folder)
            except OSError as error:
                raise TuningError(explain_os_error(error, path)) from error
            yield StageRecorder(path, file)
        finally:
            os.close(file)


def has_stage_records(folder: Path) -> bool:
    """Tell whether a folder holds records of stages."""
    return os.path.lexists(folder / STAGES)


def read_stage_records(folder: Path) -> list[StageRecord]:
    """Return the records of a folder, which a search may be adding to meanwhile; damaged lines are left out and named.

    Raises
    ------
    TuningError
        There is no such file, it can't be read, or it is another's.
    """
    records, faults = check_stage_records(folder)
    for fault in faults[:_NAMED]:
        _log.warning("%s: %s; it is left out", folder / STAGES, fault)
    if len(faults) > _NAMED:
        rest = len(faults) - _NAMED
        _log.warning("%s: %d more lines are left out; `thumbnet records check` names them", folder / STAGES, rest)
    return records


def check_stage_records(folder: Path) -> tuple[list[StageRecord], list[Fault]]:
    """Return the whole records of a folder, and what is wrong with all other lines; raises as `read_stage_records`."""
    path = folder / STAGES
    if not os.path.lexists(path):
        raise TuningError(f"{folder}: no records of stages there; `thumbnet tune ... -o {folder}` makes them")
    content = _read(path)
    records, faults = [], []
    for number, line in enumerate(io.BytesIO(content), 1):
        try:
            records.append(decode_record(line))
        except ValueError as error:
            cut = not line.endswith(b"\n") and begins_record(line.rstrip(b"\0"))
            faults.append(Fault(number, "was cut off" if cut else f"is damaged ({error})", cut))
    return records, faults


def add_missing_records(folder: Path, records: Sequence[StageRecord]) -> int:
    """Add records to a folder in the order they were made, but for those that are there; return how many were added.

    Raises
    ------
    TuningError
        As `opened_stage_records`.
    """
    with opened_stage_records(folder) as recorder:
        there = set(map(encode_record, check_stage_records(folder)[0]))
        new = {encode_record(record): record for record in records}
        added = [record for line, record in new.items() if line not in there]
        recorder.add(*sorted(added, key=lambda record: record.date))
    return len(added)


def newest_records(
    records: Iterable[StageRecord], *, core: str, kind: CostKind, emulated: bool, board: str | None = None
) -> dict[str, StageRecord]:
    """Return by key the newest record of each stage that counts, of the kernels that are there now.

    Wrong bytes count whatever kind was measured then, until the stage gives the right ones again.

    Parameters
    ----------
    records : iterable of StageRecord
        In any order; of one date the later counts.
    core : str
        Of the board.
    kind : str
        What costs are to be.
    emulated : bool
        Whether those of emulated boards, or those of real ones are wanted.
    board : str, optional
        One type of board only: real ones of one core have other memories.
    """
    wanted = (core, emulated, kernels_digest())
    right: dict[str, StageRecord] = {}
    wrong: dict[str, StageRecord] = {}
    for record in sorted(records, key=lambda record: record.date):
        if (record.core, record.emulated, record.kernels) != wanted or board not in (None, record.board):
            continue
        if not record.right:
            wrong[record.key] = record
            continue
        wrong.pop(record.key, None)
        if record.kind == kind:
            right[record.key] = record
    return right | wrong


def measured_costs(
    records: Iterable[StageRecord], *, core: str, kind: CostKind, emulated: bool, board: str | None = None
) -> dict[str, float]:
    """Return costs by key, infinite where a stage gave wrong bytes; for arguments see `newest_records`."""
    newest = newest_records(records, core=core, kind=kind, emulated=emulated, board=board)
    return {key: record.cost for key, record in newest.items()}


def _read(path: Path) -> bytes:
    try:
        content = read_file(path, MOST_BYTES)
    except ArtifactError as error:
        raise TuningError(str(error)) from error
    if content and not any(begins_record(line.rstrip(b"\0")) for line in io.BytesIO(content)):
        raise TuningError(f"{path}: holds no records of stages; name another folder")
    return content


def _mend(path: Path, file: int) -> None:
    """Drop a last line that was cut off; one that only lacks its end, or is none of a record's, gets it."""
    content = _read(path)
    end = content.rfind(b"\n") + 1
    last = content[end:]
    if not last:
        return
    try:
        decode_record(last)
    except ValueError:
        if begins_record(last.rstrip(b"\0")):
            _log.warning("%s: the last line, %d, was cut off and is dropped", path, content.count(b"\n") + 1)
            os.ftruncate(file, end)
            os.fsync(file)
            return
    os.write(file, b"\n")


def _sync_folder(folder: Path) -> None:
    """Bring a new file's name to the disk, beside its content."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # not every file system can
            os.fsync(handle)
    finally:
        os.close(handle)
