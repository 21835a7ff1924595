"""A folder of tuning records: what lies in one, and that one search at a time writes into it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from thumbnet.compile.errors import ArtifactError, TuningError, explain_os_error
from thumbnet.compile.file_access import open_to_append

#: Costs of stages, see `stage_records`.
STAGES = "stages.jsonl"
STAGES_LOCK = "stages.lock"
#: MetaSchedule's two files, what it makes beside them, and the lock of its search, see `records`.
WORKLOADS = "database_workload.json"
RECORDS = "database_tuning_record.json"
LOGS = "logs"
LOCK = "database.lock"


def make_folder(folder: Path) -> None:
    """Make a folder for records, where it is missing.

    Raises
    ------
    TuningError
        It can't be made, is a file, or holds something else.
    """
    try:
        if os.path.lexists(folder) and not folder.is_dir():
            raise TuningError(f"{folder}: is a file; records need a folder")
        names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        if not names & {STAGES, RECORDS} and names - {STAGES_LOCK, WORKLOADS, LOGS, LOCK}:
            raise TuningError(f"{folder}: has no tuning records and is not empty; name another folder")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TuningError(explain_os_error(error, folder)) from error


@contextlib.contextmanager
def locked_for_search(folder: Path, name: str) -> Iterator[None]:
    """Hold a lock file of a folder, which is empty and stays there; the system frees it however its holder ends.

    Raises
    ------
    TuningError
        Another search holds it, or it is no regular file.
    """
    try:
        lock = open_to_append(folder / name)
    except ArtifactError as error:
        raise TuningError(str(error)) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TuningError(
                f"{folder}: another `thumbnet tune` is at work in it; wait for its end, or name another folder"
            ) from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(lock)
