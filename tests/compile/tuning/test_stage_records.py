"""Records of stages: nothing lost but the line in flight, and nothing taken that isn't whole."""

import fcntl
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from thumbnet.compile.errors import TuningError
from thumbnet.compile.tuning import stage_records as module
from thumbnet.compile.tuning.stage_key import kernels_digest
from thumbnet.compile.tuning.stage_records import (
    STAGES,
    StageRecord,
    check_stage_records,
    encode_record,
    measured_costs,
    opened_stage_records,
    read_stage_records,
    write_stage_records,
)


def make_record(number=0, **changes):
    fields = {
        "key": f"{number:024x}",
        "kernels": kernels_digest(),
        "stage": {"kernels": "dsp", "rows": number},
        "layers": ["features.0"],
        "predicted": 100.0,
        "kind": "predicted cycles",
        "samples": [150.0 + number],
        "board": "mps2_an386",
        "core": "cortex-m4",
        "device": "qemu_mps2_an386",
        "emulated": True,
        "clock_hz": 25_000_000,
        "compiler": "gcc 12",
        "thumbnet": "0.1.0",
        "date": "2026-01-01T00:00:00+00:00",
    }
    return StageRecord(**(fields | changes))


def fill(folder, count=5):
    records = [make_record(number) for number in range(count)]
    with opened_stage_records(folder) as recorder:
        for record in records:
            recorder.add(record)
    return records


def test_what_was_added_is_read(tmp_path):
    records = fill(tmp_path / "db")
    assert read_stage_records(tmp_path / "db") == records
    more = make_record(9)
    with opened_stage_records(tmp_path / "db") as recorder:
        recorder.add(more)
        # Another process may read meanwhile.
        assert read_stage_records(tmp_path / "db")[-1] == more
    assert check_stage_records(tmp_path / "db")[1] == []


@pytest.mark.parametrize("cut", [1, 10, 200])
def test_a_line_that_was_cut_off_is_dropped(tmp_path, cut, caplog):
    records = fill(tmp_path)
    path = tmp_path / STAGES
    path.write_bytes(path.read_bytes()[:-cut])
    kept, faults = check_stage_records(tmp_path)
    # Without its end of line alone a record is whole.
    assert kept == (records if cut == 1 else records[:-1])
    assert len(faults) == (cut > 1)
    fill(tmp_path, 1)
    kept, faults = check_stage_records(tmp_path)
    assert not faults
    assert kept == [*records[:-1], make_record(0)]
    assert "cut off" in caplog.text


def test_a_damaged_line_is_left_out_and_named(tmp_path, caplog):
    records = fill(tmp_path)
    path = tmp_path / STAGES
    data = bytearray(path.read_bytes())
    second = data.index(b"\n") + 1
    data[second + 60] ^= 1
    path.write_bytes(data)
    assert read_stage_records(tmp_path) == [records[0], *records[2:]]
    assert f"{path}: line 2 is damaged" in caplog.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("samples", [-1.0]),
        ("samples", [float("nan")]),
        ("kind", "guesses"),
        ("layers", []),
        ("key", "../x"),
        ("board", ""),
    ],
)
def test_a_record_that_says_what_none_can_is_no_record(field, value):
    with pytest.raises(ValueError, match=field):
        make_record(**{field: value})


def test_one_search_at_a_time(tmp_path):
    with opened_stage_records(tmp_path), pytest.raises(TuningError, match="another `thumbnet tune` is at work in it"):
        with opened_stage_records(tmp_path):
            pass
    fill(tmp_path)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(TuningError, match="has no tuning records and is not empty"):
        fill(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(TuningError, match="is a file; records need a folder"):
        fill(file)


def test_what_is_no_file_is_not_read(tmp_path):
    folder = tmp_path / "db"
    fill(folder, 1)
    (folder / STAGES).unlink()
    with pytest.raises(TuningError, match="no records of stages there"):
        read_stage_records(folder)
    os.mkfifo(folder / STAGES)
    with pytest.raises(TuningError, match="is no regular file"):
        read_stage_records(folder)
    (folder / STAGES).unlink()
    (folder / STAGES).symlink_to("/etc/passwd")
    for use in (read_stage_records, fill):
        with pytest.raises(TuningError, match="link"):
            use(folder)


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_stage_records import make_record
from thumbnet.compile.tuning.stage_records import opened_stage_records
with opened_stage_records(Path({folder!r})) as recorder:
    print("open", flush=True)
    for number in range(int(sys.argv[1]), 10**6):
        recorder.add(make_record(number))
        print(number, flush=True)
"""


def test_a_writer_that_is_killed_loses_at_most_the_line_in_flight(tmp_path):
    rng = random.Random(1)
    program = WRITER.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "db"))
    said = -1
    for _ in range(4):
        writer = subprocess.Popen([sys.executable, "-c", program, str(said + 1)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout.readline() == "open\n"
        for _ in range(rng.randrange(1, 60)):
            said = int(writer.stdout.readline())
        time.sleep(rng.random() * 0.01)
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
        said = int(rest[-1]) if rest else said
        writer.wait()
        numbers = [record.stage["rows"] for record in check_stage_records(tmp_path / "db")[0]]
        assert numbers[: said + 1] == list(range(said + 1))
        # What reached the disk and wasn't said any more.
        assert numbers[said + 1 :] in ([], [said + 1])
        said = numbers[-1]


def test_a_full_disk_leaves_whole_lines(tmp_path, monkeypatch):
    records = fill(tmp_path)
    real = os.write

    def write_half(file, data):
        return real(file, data[: len(data) // 2])

    with opened_stage_records(tmp_path) as recorder:
        monkeypatch.setattr(module.os, "write", write_half)
        with pytest.raises(TuningError, match="free some space"):
            recorder.add(make_record(77))
    assert check_stage_records(tmp_path) == (records, [])


def test_folders_are_merged_without_doubles(tmp_path):
    fill(tmp_path / "a", 3)
    fill(tmp_path / "b", 5)
    assert write_stage_records(tmp_path / "a", read_stage_records(tmp_path / "b")) == 2
    assert len(read_stage_records(tmp_path / "a")) == 5


def test_costs_are_of_one_kind_and_the_newest(tmp_path):
    records = [
        make_record(1, samples=[5.0, 1.0, 9.0]),
        make_record(2),
        make_record(2, samples=[7.0]),
        make_record(3, samples=[]),
        make_record(4, kind="instructions"),
        make_record(5, emulated=False),
        make_record(6, kernels="0" * 16),
        make_record(7, core="cortex-m7"),
    ]
    costs = measured_costs(records, core="cortex-m4", kind="predicted cycles", emulated=True)
    assert costs == {f"{1:024x}": 5.0, f"{2:024x}": 7.0, f"{3:024x}": float("inf")}
    real = measured_costs(records, core="cortex-m4", kind="predicted cycles", emulated=False)
    assert list(real) == [f"{5:024x}"]


def test_a_lock_file_left_behind_is_no_lock(tmp_path):
    fill(tmp_path)
    with (tmp_path / "stages.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(TuningError, match="at work"):
            fill(tmp_path)
    fill(tmp_path)
    assert encode_record(make_record(1)).endswith(b"\n")
