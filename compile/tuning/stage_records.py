"""What stages cost on devices, kept: a line of JSON a measurement, with a checksum, in one file of a folder.

Lines are appended and reach the disk one by one, so that whatever ends a search costs at most the line in flight: a
last line that was cut off is dropped. A line that is damaged is left out and named.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import threading
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from thumbnet.compile.aside import aside_folder
from thumbnet.compile.errors import ArtifactError, TuningError, explain_os_error
from thumbnet.compile.file_access import read_file
from thumbnet.compile.manifest import Part, Text, first_fault
from thumbnet.compile.tuning.stage_key import kernels_digest

STAGES = "stages.jsonl"
#: Locked by the search at work in the folder; empty.
_LOCK = "stages.lock"
_log = logging.getLogger(__name__)

Cost = Annotated[float, Field(gt=0, le=1e15)]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{16,24}$")]
CostKind = Literal["instructions", "predicted cycles", "cycles", "seconds on the board"]


class StageRecord(Part):
    """One measurement of one stage.

    Parameters
    ----------
    key, kernels : str
        `stage_key.key_of` and `stage_key.kernels_digest`: of what was measured.
    stage : dict
        `stage_key.describe_stage`, for people and models.
    layers : list of str
        PyTorch's names of its layers in the network it was measured in.
    predicted : float
        The kernels' own estimate: instructions, or cycles where these are kept low and can be predicted.
    kind : str
        What `samples` are.
    samples : list of float
        Raw, in the order taken; empty where the stage gave wrong bytes.
    board, core, device : str
        Where.
    emulated : bool
        Whether the device was no real board.
    clock_hz : int or None
        The board's, where it is fixed.
    compiler, thumbnet : str
        Versions.
    date : str
        ISO 8601, UTC.
    """

    key: Hex
    kernels: Hex
    stage: dict[str, Any]
    layers: Annotated[list[Text], Field(min_length=1, max_length=64)]
    predicted: Cost
    kind: CostKind
    samples: Annotated[list[Cost], Field(max_length=10_000)]
    board: Text
    core: Text
    device: Text
    emulated: bool
    clock_hz: Annotated[int, Field(gt=0)] | None
    compiler: Text
    thumbnet: Text
    date: Text

    @property
    def cost(self) -> float:
        """The median of the samples, infinite where there are none."""
        ordered = sorted(self.samples)
        return ordered[len(ordered) // 2] if ordered else float("inf")


class StageRecorder:
    """A folder of records opened to add to; made by `opened_stage_records`. Threads may share it."""

    def __init__(self, folder: Path, file: int) -> None:
        self._path, self._file = folder / STAGES, file
        self._lock = threading.Lock()

    def add(self, record: StageRecord) -> None:
        """Append a record; it is on the disk when this returns.

        Raises
        ------
        TuningError
            It can't be written.
        """
        line = encode_record(record)
        with self._lock:
            end = os.fstat(self._file).st_size
            try:
                written = os.write(self._file, line)
                if written != len(line):
                    raise OSError(28, "No space left on device")
                os.fsync(self._file)
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, end)
                raise TuningError(explain_os_error(error, self._path)) from error


def encode_record(record: StageRecord) -> bytes:
    """Return a record's line: its checksum, and it."""
    text = json.dumps(record.model_dump(), sort_keys=True, separators=(",", ":"))
    return f"{zlib.crc32(text.encode()):08x} {text}\n".encode()


@contextlib.contextmanager
def opened_stage_records(folder: Path) -> Iterator[StageRecorder]:
    """Open a folder of records to add to, or make it; nobody else adds to it until the block ends.

    Raises
    ------
    TuningError
        The folder can't be used: another search is at work in it, or it holds something else.
    """
    try:
        _check_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / _LOCK).open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise TuningError(
                    f"{folder}: another `thumbnet tune` is at work in it; wait for its end, or name another folder"
                ) from error
            except OSError:
                pass  # a file system without locks
            _mend(folder / STAGES)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(folder / STAGES, flags, 0o644)
            try:
                yield StageRecorder(folder, file)
            finally:
                os.close(file)
    except OSError as error:
        if error.filename is None or not str(error.filename).startswith(str(folder)):
            raise
        raise TuningError(explain_os_error(error, folder)) from error


def has_stage_records(folder: Path) -> bool:
    """Tell whether a folder holds records of stages."""
    return os.path.lexists(folder / STAGES)


def read_stage_records(folder: Path) -> list[StageRecord]:
    """Return the records of a folder, which a search may be adding to meanwhile; damaged lines are left out and named.

    Raises
    ------
    TuningError
        There is no such file, or it can't be read.
    """
    records, faults = check_stage_records(folder)
    for fault in faults:
        _log.warning("%s; it is left out", fault)
    return records


def check_stage_records(folder: Path) -> tuple[list[StageRecord], list[str]]:
    """Return the whole records of a folder, and a line for each one that isn't; raises as `read_stage_records`."""
    path = folder / STAGES
    if not os.path.lexists(path):
        raise TuningError(f"{folder}: no records of stages there; `thumbnet tune ... -o {folder}` makes them")
    try:
        lines = read_file(path).split(b"\n")
    except ArtifactError as error:
        raise TuningError(str(error)) from error
    records, faults = [], []
    for number, line in enumerate(lines, 1):
        if not line and number == len(lines):
            break
        try:
            records.append(_decode(line))
        except ValueError as error:
            reason = "was cut off" if number == len(lines) else f"is damaged ({error})"
            faults.append(f"{path}: line {number} {reason}")
    return records, faults


def write_stage_records(folder: Path, records: Iterable[StageRecord]) -> int:
    """Add records to a folder, those that are there already left out; return how many were added.

    Raises
    ------
    TuningError
        As `opened_stage_records`.
    """
    with opened_stage_records(folder) as recorder:
        there = {encode_record(record) for record in check_stage_records(folder)[0]}
        new = [record for record in records if encode_record(record) not in there]
        for record in new:
            recorder.add(record)
    return len(new)


def measured_costs(
    records: Iterable[StageRecord], *, core: str, kind: str, emulated: bool, board: str | None = None
) -> dict[str, float]:
    """Return costs by key, of the kernels that are there now; the newest counts.

    Parameters
    ----------
    records : iterable of StageRecord
        In the order they were made.
    core : str
        Of the board.
    kind : str
        What costs are to be.
    emulated : bool
        Whether those of emulated boards, or those of real ones are wanted.
    board : str, optional
        One type of board only: real ones of one core have other memories.
    """
    kernels = kernels_digest()
    return {
        record.key: record.cost
        for record in records
        if (record.core, record.kind, record.emulated, record.kernels) == (core, kind, emulated, kernels)
        and board in (None, record.board)
    }


def _decode(line: bytes) -> StageRecord:
    """Return a line's record; a ValueError says what is wrong with it."""
    checksum, _, text = line.partition(b" ")
    if checksum != f"{zlib.crc32(text):08x}".encode():
        raise ValueError("its checksum is another's")
    try:
        return StageRecord.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(first_fault(error)) from error


def _check_folder(folder: Path) -> None:
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise TuningError(f"{folder}: is a file; records need a folder")
    names = {path.name for path in folder.iterdir()}
    if names and not {name for name in names if name.startswith(("stages.", "database_"))}:
        raise TuningError(f"{folder}: has no tuning records and is not empty; name another folder")


def _mend(path: Path) -> None:
    """Drop a last line that was cut off."""
    if not os.path.lexists(path):
        return
    try:
        content = read_file(path)
    except ArtifactError as error:
        raise TuningError(str(error)) from error
    if content and not content.endswith(b"\n"):
        _log.warning("%s: the last line was cut off and is dropped", path)
        with aside_folder(path.parent) as aside:
            whole = aside / path.name
            whole.write_bytes(content[: content.rfind(b"\n") + 1])
            whole.replace(path)
