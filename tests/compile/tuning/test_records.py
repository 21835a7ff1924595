"""Records on disk: what a killed run leaves is mended, what is damaged is one line, and two searches don't mix."""

import json
import os
import random
import subprocess
import sys
import time

import pytest

from thumbnet.compile.emit.export_library import tvm_target
from thumbnet.compile.errors import TuningError
from thumbnet.compile.tuning.record_folder import LOCK, LOGS, RECORDS, WORKLOADS
from thumbnet.compile.tuning.records import add_missing_schedules, opened_records, read_records
from thumbnet.targets.registry import get_board

from .records import commit, make_module, open_database, unroll

CHANNELS = (16, 24)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two workloads, two records of each, as bytes."""
    folder = tmp_path_factory.mktemp("records")
    target, database = tvm_target(get_board("raspberry_pi_4")), open_database(folder)
    for channels in CHANNELS:
        module = make_module(channels)
        commit(database, module, target, 0.002, lambda schedule: schedule.get_sblock("root"))
        commit(database, module, target, 0.001, unroll)
    return {name: (folder / name).read_bytes() for name in (WORKLOADS, RECORDS)}


@pytest.fixture
def folder(whole, tmp_path):
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def lines(folder, name):
    return (folder / name).read_bytes().splitlines(keepends=True)


def refused(folder, says):
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != LOCK}
    for opened in (lambda: opened_records(folder).__enter__(), lambda: read_records(folder)):
        with pytest.raises(TuningError, match=says) as caught:
            opened()
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
    assert {name: (folder / name).read_bytes() for name in before} == before


def best(database, channels):
    module, target = make_module(channels), tvm_target(get_board("raspberry_pi_4"))
    record = database.query_tuning_record(module, target, "layer")
    return None if record is None else float(record.run_secs[0])


def test_whole_records_are_read_and_left_as_they_are(folder, whole, caplog):
    assert [best(read_records(folder), channels) for channels in CHANNELS] == [0.001, 0.001]
    with opened_records(folder) as database:
        assert len(database) == 4
    assert {name: (folder / name).read_bytes() for name in whole} == whole
    assert sorted(path.name for path in folder.iterdir()) == sorted([LOCK, *whole])
    assert not caplog.records


def test_records_of_two_folders_are_brought_together_each_once(folder, tmp_path):
    other = tmp_path / "other"
    with opened_records(other) as database:
        commit(database, make_module(32), tvm_target(get_board("raspberry_pi_4")), 0.003, unroll)
    records = read_records(folder).get_all_tuning_records()
    assert [add_missing_schedules(other, [*records, *records]) for _ in range(2)] == [4, 0]
    assert [best(read_records(other), channels) for channels in (*CHANNELS, 32)] == [0.001, 0.001, 0.003]


def test_a_new_folder_is_made_and_found_again(tmp_path):
    folder = tmp_path / "a" / "b"
    for count in (0, 1):
        with opened_records(folder) as database:
            assert len(database) == count
            commit(database, make_module(), tvm_target(get_board("raspberry_pi_4")), 0.001, unroll)
    assert len(lines(folder, WORKLOADS)) == 1


@pytest.mark.parametrize("seed", range(15))
def test_a_last_record_cut_anywhere_is_dropped_and_said_so(folder, seed, caplog):
    *kept, last = lines(folder, RECORDS)
    cut = random.Random(seed).randrange(1, len(last) - 1)
    (folder / RECORDS).write_bytes(b"".join(kept) + last[:cut])
    damaged = (folder / RECORDS).read_bytes()
    assert best(read_records(folder), 24) == 0.002
    assert (folder / RECORDS).read_bytes() == damaged  # who only reads mends nothing
    with opened_records(folder) as database:
        assert len(database) == 3
        commit(database, make_module(24), tvm_target(get_board("raspberry_pi_4")), 0.0015, unroll)
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder / RECORDS}: the last line, 4, was cut off and is left out"
    ] * 2
    assert len(lines(folder, RECORDS)) == 4
    assert best(read_records(folder), 24) == 0.0015
    assert len(caplog.records) == 2


@pytest.mark.parametrize("seed", range(15))
def test_a_last_workload_cut_anywhere_is_dropped_with_its_records(folder, seed, caplog):
    first, last = lines(folder, WORKLOADS)
    (folder / WORKLOADS).write_bytes(first + last[: random.Random(seed).randrange(0, len(last) - 1)])
    assert best(read_records(folder), 16) == 0.001
    with opened_records(folder) as database:
        assert len(database) == 2
        commit(database, make_module(24), tvm_target(get_board("raspberry_pi_4")), 0.0015, unroll)
    assert "2 records left out" in caplog.text
    assert [best(read_records(folder), channels) for channels in CHANNELS] == [0.001, 0.0015]


@pytest.mark.parametrize("name", [WORKLOADS, RECORDS])
def test_a_last_line_that_lacks_its_end_only_is_kept(folder, whole, name, caplog):
    (folder / name).write_bytes(whole[name][:-1])
    with opened_records(folder) as database:
        assert len(database) == 4
    assert len(lines(folder, name)) == whole[name].count(b"\n")
    assert lines(folder, name)[-1].endswith(b"\n")
    assert not caplog.records


def change(folder, name, number, entry):
    changed = lines(folder, name)
    changed[number] = entry if isinstance(entry, bytes) else json.dumps(entry).encode() + b"\n"
    (folder / name).write_bytes(b"".join(changed))


def entry(folder, name, number):
    return json.loads(lines(folder, name)[number])


def test_a_record_of_another_layer_is_refused(folder):
    """What two searches in one folder used to give."""
    record = entry(folder, RECORDS, 1)
    change(folder, RECORDS, 1, [1, record[1]])
    refused(folder, r"line 2 is a record of another layer: its arguments are .*8, 16.*, its workload's .*8, 24")


def test_so_is_one_whose_trace_does_not_fit(folder):
    record = entry(folder, RECORDS, 1)
    record[1][0][0][0][2] = ["another block", "main"]
    change(folder, RECORDS, 1, record)
    refused(folder, "line 2 does not fit its workload")


def test_a_workload_with_anothers_hash_is_refused(folder):
    workload = entry(folder, WORKLOADS, 1)
    change(folder, WORKLOADS, 1, [entry(folder, WORKLOADS, 0)[0], workload[1]])
    refused(folder, "line 2 has another workload's hash")


@pytest.mark.parametrize("name", [WORKLOADS, RECORDS])
@pytest.mark.parametrize(
    "line",
    [
        *(b"\n", b"{}\n", b"[]\n", b"[0]\n", b"null\n", b"\xff\xfe\n", b"\0\0\0\n", b"[0,[[[],[]],[0.1],{},[]]\n"),
        *(b"[" * 100_000 + b"\n", b"[" + b"9" * 10_000 + b",[]]\n", b'["1","x"]\n', b'["1",""]\n', b'["x","eA=="]\n'),
        *(b"[-1,[[[],[]],[0.1],{},[]]]\n", b"[0,[[[],[]],[NaN],{},[]]]\n", b"[0,[[[],[]],[-1],{},[]]]\n"),
        *(b"[0,[[[],[]],[],{},[]]]\n", b"[0,[[[],[]],[1e999],{},[]]]\n", b"[true,[[[],[]],[0.1],{},[]]]\n"),
        *(
            b'[0,[["x","y"],[0.1],{},[]]]\n',
            b'[0,[[[],[]],[0.1],{"kind":"llvm"},[]]]\n',
            b'[0,[[[["No"]],[]],[1],{},3]]\n',
        ),
    ],
)
def test_a_line_that_is_no_record_is_refused(folder, name, line):
    change(folder, name, 0, line)
    refused(folder, f"{name}: line 1 ")


def test_text_of_the_persons_is_not_taken_for_a_line_cut_off(folder):
    (folder / RECORDS).write_bytes(b"my notes")
    refused(folder, "line 1 is no tuning record")


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_changed_is_read_or_refused(folder, seed):
    """Bytes changed, deleted and repeated anywhere."""
    chance = random.Random(seed)
    name = chance.choice([WORKLOADS, RECORDS])
    content = bytearray((folder / name).read_bytes())
    for _ in range(chance.choice([1, 3, 10])):
        at = chance.randrange(len(content))
        match chance.randrange(3):
            case 0:
                content[at] = chance.choice(b'0123456789"[]{},.x\n\0\xff')
            case 1:
                del content[at : at + chance.randrange(1, 50)]
            case _:
                content[at:at] = content[at : at + chance.randrange(1, 50)]
    (folder / name).write_bytes(content)
    for opened in (lambda: opened_records(folder).__enter__(), lambda: read_records(folder)):
        try:
            opened()
        except TuningError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("name", [WORKLOADS, RECORDS])
def test_only_regular_files_are_read(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(TuningError, match="is no regular file"):
        read_records(folder)
    with pytest.raises(TuningError, match="is no regular file"), opened_records(folder):
        pytest.fail("the block must not run")


def test_without_records_there_is_nothing_to_apply(tmp_path):
    with pytest.raises(TuningError, match="no tuning records there; `thumbnet tune"):
        read_records(tmp_path / "none")
    with opened_records(tmp_path / "new"):
        pass
    with pytest.raises(TuningError, match="holds no record yet"):
        read_records(tmp_path / "new")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["thesis.tex"], "has no tuning records and is not empty"),
        ([WORKLOADS, "thesis.tex"], "has no tuning records and is not empty"),
        ([RECORDS], "the records are of no use without both"),
        ([WORKLOADS], "the records are of no use without both"),
    ],
)
def test_a_folder_of_something_else_is_refused(tmp_path, names, says):
    for name in names:
        (tmp_path / name).write_text("mine")
    with pytest.raises(TuningError, match=says), opened_records(tmp_path):
        pytest.fail("the block must not run")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_what_a_run_killed_at_its_beginning_leaves_can_be_used(tmp_path):
    (tmp_path / LOCK).touch()
    (tmp_path / WORKLOADS).touch()
    (tmp_path / LOGS).mkdir()
    with opened_records(tmp_path) as database:
        assert len(database) == 0


def test_a_file_or_a_read_only_place_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for place, says in (
        (tmp_path / "file", "is a file"),
        (tmp_path / "file" / "x", "a file is where"),
        ("/proc/x", "check the name"),
    ):
        with pytest.raises(TuningError, match=says), opened_records(type(tmp_path)(place)):
            pytest.fail("the block must not run")


def test_a_second_search_in_the_folder_gets_one_line_and_a_killed_ones_is_free(folder):
    code = (
        "import sys, time; from pathlib import Path; from thumbnet.compile.tuning.records import opened_records\n"
        "with opened_records(Path(sys.argv[1])):\n    Path(sys.argv[2]).touch(); time.sleep(600)"
    )
    ready = folder / LOGS
    process = subprocess.Popen([sys.executable, "-c", code, folder, ready])
    try:
        while not ready.exists():
            assert process.poll() is None
            time.sleep(0.05)
        with pytest.raises(TuningError, match="another `thumbnet tune` is at work in it"), opened_records(folder):
            pytest.fail("the block must not run")
        assert best(read_records(folder), 16) == 0.001  # who only reads need not wait
    finally:
        process.kill()
        process.wait()
    with opened_records(folder) as database:
        assert len(database) == 4
