"""Folders of records: nothing is lost but the line in flight, and nobody else's file is touched."""

import contextlib
import os
import random
import resource
import signal
import subprocess
import threading
import time

import pytest

from thumbnet.compile.errors import TuningError
from thumbnet.compile.tuning import stage_records
from thumbnet.compile.tuning.record_folder import LOCK, RECORDS, STAGES, STAGES_LOCK, WORKLOADS
from thumbnet.compile.tuning.records import opened_records
from thumbnet.compile.tuning.stage_record import encode_record
from thumbnet.compile.tuning.stage_records import (
    add_missing_records,
    check_stage_records,
    measured_costs,
    opened_stage_records,
    read_stage_records,
)

from .stage_record_files import fill, make_record


def refused(folder, says):
    """Both ways in are refused in one line, and nothing is changed."""
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    for opened in (lambda: opened_stage_records(folder).__enter__(), lambda: read_stage_records(folder)):
        with pytest.raises(TuningError, match=says) as caught:
            opened()
        assert "\n" not in str(caught.value)
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_what_was_added_is_read(tmp_path, caplog):
    folder = tmp_path / "a" / "db"
    records = fill(folder)
    assert read_stage_records(folder) == records
    more = make_record(9)
    with opened_stage_records(folder) as recorder:
        recorder.add(more)
        # Another process may read meanwhile.
        assert read_stage_records(folder)[-1] == more
    assert check_stage_records(folder)[1] == []
    assert sorted(path.name for path in folder.iterdir()) == [STAGES, STAGES_LOCK]
    assert not caplog.records


# ---- lines that are not whole ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_a_last_line_cut_anywhere_is_dropped_and_said_so(tmp_path, seed, caplog):
    records = fill(tmp_path)
    path = tmp_path / STAGES
    last = len(encode_record(records[-1]))
    cut = random.Random(seed).randrange(2, last)
    zeros = b"\0" * random.Random(seed).choice([0, 100])  # what a file system may leave where the power failed
    path.write_bytes(path.read_bytes()[:-cut] + zeros)
    damaged = path.read_bytes()
    assert read_stage_records(tmp_path) == records[:-1]
    assert path.read_bytes() == damaged  # who only reads mends nothing
    assert f"{path}: line 5 was cut off; it is left out" in caplog.text
    with opened_stage_records(tmp_path) as recorder:
        assert f"{path}: the last line, 5, was cut off and is dropped" in caplog.text
        recorder.add(make_record(77))
    assert check_stage_records(tmp_path) == ([*records[:-1], make_record(77)], [])


def test_a_last_line_that_lacks_its_end_only_is_kept(tmp_path, caplog):
    records = fill(tmp_path)
    path = tmp_path / STAGES
    path.write_bytes(path.read_bytes()[:-1])
    assert read_stage_records(tmp_path) == records
    with opened_stage_records(tmp_path) as recorder:
        recorder.add(make_record(77))
    assert check_stage_records(tmp_path) == ([*records, make_record(77)], [])
    assert not caplog.records


def test_a_first_line_that_was_cut_leaves_an_empty_file(tmp_path):
    for begun in (b"{", b'{"version":1,"key":"0', b"\0" * 50):
        (tmp_path / STAGES).write_bytes(begun)
        assert read_stage_records(tmp_path) == []
        with opened_stage_records(tmp_path):
            assert (tmp_path / STAGES).read_bytes() == b""


@pytest.mark.parametrize("seed", range(10))
def test_a_damaged_line_is_left_out_and_named_and_stays(tmp_path, seed, caplog):
    records = fill(tmp_path)
    path = tmp_path / STAGES
    lines = path.read_bytes().splitlines(keepends=True)
    at = random.Random(seed).randrange(len(lines[1]) - 1)
    lines[1] = lines[1][:at] + bytes([lines[1][at] ^ 1]) + lines[1][at + 1 :]
    path.write_bytes(b"".join(lines))
    assert read_stage_records(tmp_path) == [records[0], *records[2:]]
    assert f"{path}: line 2 is damaged (" in caplog.text
    fill(tmp_path, 1)
    assert path.read_bytes() == b"".join(lines) + encode_record(records[0])


def test_a_foreign_last_line_does_not_swallow_the_next_record(tmp_path):
    records = fill(tmp_path)
    with (tmp_path / STAGES).open("ab") as file:
        file.write(b"my notes")
    fill(tmp_path, 1)
    kept, [fault] = check_stage_records(tmp_path)
    assert kept == [*records, records[0]]
    assert str(fault) == "line 6 is damaged (it is no record of a stage)"


def test_many_damaged_lines_are_few_warnings(tmp_path, caplog):
    fill(tmp_path, 1)
    with (tmp_path / STAGES).open("ab") as file:
        file.write(b"x\n" * 1000)
    assert len(read_stage_records(tmp_path)) == 1
    assert len(caplog.records) == 6
    assert "995 more lines are left out; `thumbnet records check` names them" in caplog.text
    assert len(check_stage_records(tmp_path)[1]) == 1000


# ---- what ends a writer ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def forked_writer(folder, start, batch=1):
    """Give a process that adds records for ever and says the number of each once it is kept, and where it says so."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        try:
            with opened_stage_records(folder) as recorder:
                os.write(writing, b"open\n")
                for number in range(start, 10**9, batch):
                    recorder.add(*map(make_record, range(number, number + batch)))
                    os.write(writing, b"%d\n" % (number + batch - 1))
        finally:
            os._exit(1)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as said:
            assert said.readline() == b"open\n"
            yield process, said
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


@pytest.mark.parametrize("batch", [1, 500])
def test_a_writer_that_is_killed_loses_at_most_what_is_in_flight(tmp_path, batch):
    chance = random.Random(batch)
    kept = 0
    for _ in range(40 if batch == 1 else 6):
        with forked_writer(tmp_path / "db", kept, batch) as (process, said):
            for _ in range(chance.randrange(1, 20 if batch == 1 else 3)):
                promised = int(said.readline()) + 1
            time.sleep(chance.random() * 0.01)
            os.kill(process, signal.SIGKILL)
            promised = max([promised, *(int(number) + 1 for number in said.read().split())])
        records, faults = check_stage_records(tmp_path / "db")
        numbers = [record.stage["rows"] for record in records]
        assert numbers == list(range(len(numbers)))
        assert promised <= len(numbers) <= promised + batch
        assert len(faults) <= 1 and all(fault.cut_off for fault in faults)
        kept = len(numbers)


@contextlib.contextmanager
def largest_file(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_limit_on_files_leaves_whole_lines(tmp_path):
    records = fill(tmp_path)
    size = (tmp_path / STAGES).stat().st_size
    with opened_stage_records(tmp_path) as recorder:
        with largest_file(size + 100), pytest.raises(TuningError, match="raise the limit on the size of files"):
            recorder.add(make_record(77))
        assert (tmp_path / STAGES).stat().st_size == size
        # Of several none is kept.
        with largest_file(size + 1000), pytest.raises(TuningError, match="raise the limit"):
            recorder.add(*(make_record(number) for number in range(10)))
        assert check_stage_records(tmp_path) == (records, [])
        recorder.add(make_record(78))
    assert check_stage_records(tmp_path) == ([*records, make_record(78)], [])


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], check=False, capture_output=True, text=True
    )
    if mount.returncode:
        pytest.skip(f"no file system can be mounted here ({mount.stderr.strip()})")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_leaves_whole_lines_and_goes_on_when_there_is_room(small_disk):
    folder, ballast = small_disk / "db", small_disk / "ballast"
    ballast.write_bytes(b"x" * 40_000)
    written = []
    with opened_stage_records(folder) as recorder:
        with pytest.raises(TuningError, match=r"stages\.jsonl: No space left on device; free some space"):
            for number in range(1000):
                recorder.add(make_record(number))
                written.append(make_record(number))
        assert check_stage_records(folder) == (written, [])
        ballast.unlink()
        recorder.add(make_record(2000))
    assert check_stage_records(folder) == ([*written, make_record(2000)], [])


def test_a_file_that_grows_too_large_to_be_read_is_not_added_to(tmp_path, monkeypatch):
    fill(tmp_path)
    size = (tmp_path / STAGES).stat().st_size
    monkeypatch.setattr(stage_records, "MOST_BYTES", size + 100)
    with opened_stage_records(tmp_path) as recorder, pytest.raises(TuningError, match="name another folder"):
        recorder.add(make_record(77))
    assert (tmp_path / STAGES).stat().st_size == size
    monkeypatch.setattr(stage_records, "MOST_BYTES", size - 1)
    refused(tmp_path, f"has {size:,} bytes, {size - 1:,} at most are read")


def test_a_file_that_was_deleted_is_not_written_to_in_vain(tmp_path):
    with opened_stage_records(tmp_path) as recorder:
        recorder.add(make_record(1))
        (tmp_path / STAGES).unlink()
        with pytest.raises(TuningError, match=r"stages\.jsonl: was deleted meanwhile"):
            recorder.add(make_record(2))


# ---- whose folder it is ------------------------------------------------------------------------------------------


def test_one_search_at_a_time(tmp_path):
    with forked_writer(tmp_path, 0) as (process, said):
        with pytest.raises(TuningError, match="another `thumbnet tune` is at work in it; wait for its end") as caught:
            fill(tmp_path)
        assert "\n" not in str(caught.value)
        promised = int(said.readline()) + 1
        assert len(read_stage_records(tmp_path)) >= promised  # who only reads need not wait
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    fill(tmp_path, 1)  # the lock of one that was killed is free


def test_threads_share_a_recorder(tmp_path):
    with opened_stage_records(tmp_path) as recorder:
        threads = [
            threading.Thread(target=lambda first=first: [recorder.add(make_record(first + n)) for n in range(25)])
            for first in range(0, 100, 25)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    records, faults = check_stage_records(tmp_path)
    assert sorted(record.stage["rows"] for record in records) == list(range(100))
    assert not faults


@pytest.mark.parametrize(
    "content", [b"my notes", b"my notes\n", b"[1, 2]\n" * 3, b'{"name": "x"}\n', b"\xff\xfe\n", b"\n"]
)
def test_a_file_of_something_else_is_left_alone(tmp_path, content):
    (tmp_path / STAGES).write_bytes(content)
    (tmp_path / STAGES_LOCK).touch()
    refused(tmp_path, r"stages\.jsonl: holds no records of stages; name another folder")


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    for name in ("letter.txt", "stages.tex", "database_of_recipes"):
        folder = tmp_path / f"of {name}"
        folder.mkdir()
        (folder / name).write_text("dear")
        with pytest.raises(TuningError, match="has no tuning records and is not empty"):
            fill(folder)
        assert [path.name for path in folder.iterdir()] == [name]
    (tmp_path / "file").write_text("")
    for place, says in (("file", "is a file; records need a folder"), ("file/x", "a file is where a folder belongs")):
        with pytest.raises(TuningError, match=says):
            fill(tmp_path / place)


def test_both_kinds_of_records_lie_in_one_folder(tmp_path):
    records = fill(tmp_path)
    with opened_records(tmp_path):
        fill(tmp_path, 1)
    assert read_stage_records(tmp_path) == [*records, records[0]]
    assert {path.name for path in tmp_path.iterdir()} == {STAGES, STAGES_LOCK, LOCK, RECORDS, WORKLOADS}
    with opened_records(tmp_path / "new"):
        pass
    fill(tmp_path / "new")


def put_fifo(path):
    os.mkfifo(path)


def put_link(path):
    path.symlink_to(path.parent.parent / "precious")


def put_folder(path):
    path.mkdir()


@pytest.mark.parametrize(
    ("put", "says"),
    [(put_fifo, "is no regular file"), (put_link, "is a link"), (put_folder, "Is a directory|is no regular file")],
)
@pytest.mark.parametrize("name", [STAGES, STAGES_LOCK, LOCK])
def test_what_is_no_file_is_neither_read_nor_waited_for(tmp_path, put, says, name):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    folder = tmp_path / "db"
    fill(folder, 1)
    (folder / name).unlink(missing_ok=True)
    put(folder / name)
    opened = opened_records if name == LOCK else opened_stage_records
    with pytest.raises(TuningError, match=says) as caught:
        opened(folder).__enter__()
    assert name in str(caught.value)
    if name == STAGES:
        with pytest.raises(TuningError, match=says):
            read_stage_records(folder)
    assert precious.read_text() == "mine"


def test_without_records_there_is_nothing_to_read(tmp_path):
    with pytest.raises(TuningError, match="no records of stages there; `thumbnet tune"):
        read_stage_records(tmp_path)


# ---- many, and from several folders ------------------------------------------------------------------------------


def test_folders_are_merged_without_doubles_in_the_order_of_dates(tmp_path):
    old, new = make_record(1, date="2026-01-01T00:00:01+00:00"), make_record(1, date="2026-01-01T00:00:02+00:00")
    with opened_stage_records(tmp_path) as recorder:
        recorder.add(make_record(0))
    assert add_missing_records(tmp_path, [new, old, make_record(0), new]) == 2
    assert read_stage_records(tmp_path) == [make_record(0), old, new]
    assert add_missing_records(tmp_path, [new, old]) == 0


def test_a_hundred_thousand_records_are_read_in_seconds_of_the_processor(tmp_path):
    lines = b"".join(encode_record(make_record(number)) for number in range(1000))
    (tmp_path / STAGES).write_bytes(lines * 100)
    before = time.process_time()
    records = read_stage_records(tmp_path)
    costs = measured_costs(records, core="cortex-m4", kind="predicted cycles", emulated=True)
    assert (len(records), len(costs)) == (100_000, 1000)
    assert time.process_time() - before < 30
