"""`thumbnet records`: what is in folders of records, brought together, taken apart, and checked."""

import json

import pytest

from thumbnet.compile.emit.export_library import tvm_target
from thumbnet.compile.tuning.record_folder import RECORDS, STAGES, WORKLOADS
from thumbnet.compile.tuning.records import opened_records
from thumbnet.compile.tuning.stage_records import opened_stage_records, read_stage_records
from thumbnet.targets.registry import get_board

from ..compile.tuning.records import commit, make_module, unroll
from ..compile.tuning.stage_record_files import fill, make_record


def write(folder, *records):
    with opened_stage_records(folder) as recorder:
        recorder.add(*records)
    return folder


@pytest.fixture
def folder(tmp_path):
    """Four records that differ in what filters ask for."""
    return write(
        tmp_path / "db",
        make_record(1, layers=["features.0", "features.1"]),
        make_record(2, kind="instructions", date="2026-03-01T12:00:00+00:00"),
        make_record(3, core="cortex-m7", board="mps2_an500", date="2026-02-01T00:00:00+00:00", samples=[], right=False),
        make_record(4, emulated=False, kind="cycles", board="nucleo_l4r5zi", device="desk", kernels="0" * 16),
    )


def kept(records):
    return [record.stage["rows"] for record in records]


def test_schedules_are_merged_with_their_costs(thumbnet, folder, tmp_path):
    target = tvm_target(get_board("raspberry_pi_4"))
    with opened_records(folder) as database:
        commit(database, make_module(), target, 0.001, unroll)
    for _ in range(2):
        assert thumbnet("records", "merge", folder, "-o", tmp_path / "out")[0] == 0
    assert (tmp_path / "out" / RECORDS).read_bytes() == (folder / RECORDS).read_bytes()
    assert (tmp_path / "out" / WORKLOADS).read_bytes() == (folder / WORKLOADS).read_bytes()


def test_records_are_listed_the_newest_first(thumbnet, folder, tmp_path):
    code, out, _ = thumbnet("records", "list", folder, "--json", tmp_path / "all.json")
    assert code == 0
    assert "4 of 4 records" in out
    assert all(
        words in out for words in ("features.0 to features.1", "predicted cycles", "desk", "2026-03-01T12:00:00")
    )
    assert "wrong bytes" in out
    assert "other kernels" in out
    listed = json.loads((tmp_path / "all.json").read_text())
    assert [record["stage"]["rows"] for record in listed] == [2, 3, 4, 1]
    assert listed[0] == make_record(2, kind="instructions", date="2026-03-01T12:00:00+00:00").model_dump()


def test_a_long_list_is_cut_and_the_json_is_not(thumbnet, tmp_path):
    fill(tmp_path / "db", 60)
    code, out, _ = thumbnet("records", "list", tmp_path / "db", "--json", tmp_path / "all.json")
    assert code == 0
    assert "60 of 60 records, the newest 50 shown" in out
    assert out.count("features.0") == 50
    assert len(json.loads((tmp_path / "all.json").read_text())) == 60


FILTERS = [
    ((), [1, 2, 3, 4]),
    (("--board", "mps2_an386"), [1, 2]),
    (("--core", "cortex-m7"), [3]),
    (("--kind", "predicted cycles"), [1, 3]),
    (("--since", "2026-02-01"), [2, 3]),
    (("--since", "2026-03-01T12:00:00"), [2]),
    (("--since", "2026-03-01T12:00:01"), []),
    (("--core", "cortex-m4", "--kind", "cycles"), [4]),
]


@pytest.mark.parametrize(("options", "wanted"), FILTERS)
def test_filters(thumbnet, folder, tmp_path, options, wanted):
    code, out, _ = thumbnet("records", "list", folder, *options, "--json", tmp_path / "some.json")
    assert code == 0
    assert f"{len(wanted)} of 4 records" in " ".join(out.split())  # a title is wrapped
    assert sorted(record["stage"]["rows"] for record in json.loads((tmp_path / "some.json").read_text())) == wanted
    for added in (len(wanted), 0):  # a second time adds nothing
        arguments = ("records", "filter", folder, *options, "-o", tmp_path / "some", "--json", tmp_path / "some.json")
        assert thumbnet(*arguments)[0] == 0
        assert json.loads((tmp_path / "some.json").read_text()) == {
            "folder": str(tmp_path / "some"),
            "added": added,
            "from": [{"folder": str(folder), "records": 4, "taken": len(wanted)}],
        }
        assert sorted(kept(read_stage_records(tmp_path / "some"))) == wanted


def test_folders_are_merged_and_what_is_damaged_is_named(thumbnet, folder, tmp_path):
    other = tmp_path / "other"
    fill(other, 7)
    lines = (other / STAGES).read_bytes().splitlines(keepends=True)
    (other / STAGES).write_bytes(b"".join([*lines[:2], lines[2].replace(b"152", b"153"), *lines[3:]]))
    code, out, _ = thumbnet("records", "merge", folder, other, folder, "-o", other, "--json", tmp_path / "merged.json")
    assert code == 0
    assert f"4 records added to {other}" in out
    assert json.loads((tmp_path / "merged.json").read_text())["from"] == [
        {"folder": str(folder), "records": 4, "taken": 4},
        {"folder": str(other), "records": 6, "taken": 6},
    ]
    assert sorted(kept(read_stage_records(other))) == [0, 1, 1, 2, 3, 3, 4, 4, 5, 6]
    assert kept(read_stage_records(folder)) == [1, 2, 3, 4]


def test_check_names_each_line_and_tells_by_its_exit_code(thumbnet, folder, tmp_path):
    code, out, _ = thumbnet("records", "check", folder, "--json", tmp_path / "checked.json")
    assert code == 0
    assert f"{folder}: 0 of 4 lines are damaged. Of the 4 records 1 are of wrong bytes, 1 of other kernels" in out
    checked = {"folder": str(folder), "records": 4, "wrong_bytes": 1, "other_kernels": 1, "faults": []}
    assert json.loads((tmp_path / "checked.json").read_text()) == checked
    lines = (folder / STAGES).read_bytes().splitlines(keepends=True)
    (folder / STAGES).write_bytes(b"".join([lines[0], b"x\n", *lines[2:], lines[1][:50]]))
    damaged = (folder / STAGES).read_bytes()
    code, out, _ = thumbnet("records", "check", folder, "--json", tmp_path / "checked.json")
    assert code == 1
    assert "is damaged (it is no record of a stage)" in out
    assert "2 of 5 lines are damaged" in out
    assert json.loads((tmp_path / "checked.json").read_text())["faults"] == [
        {"line": 2, "reason": "is damaged (it is no record of a stage)", "cut_off": False},
        {"line": 5, "reason": "was cut off", "cut_off": True},
    ]
    assert (folder / STAGES).read_bytes() == damaged


def test_what_is_wrong_is_one_line(refused, folder, tmp_path):
    none, letters = tmp_path / "none", tmp_path / "letters"
    letters.mkdir()
    (letters / "letter.txt").write_text("dear")
    for command in (("list",), ("check",), ("merge", "-o", tmp_path / "out"), ("filter", "-o", tmp_path / "out")):
        assert f"{none}: no records of stages there; `thumbnet tune" in refused("records", *command, none)
    assert not (tmp_path / "out").exists()
    # All is read before anything is written.
    assert "no records of stages there" in refused("records", "merge", folder, none, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "has no tuning records and is not empty" in refused("records", "merge", folder, "-o", letters)
    assert "name another folder" in refused("records", "filter", folder, "-o", folder)
    assert "did you mean mps2_an386?" in refused("records", "list", folder, "--board", "mps2_an38")
    assert "did you mean cortex-m4?" in refused("records", "list", folder, "--core", "cortexm4")
    (folder / STAGES).write_text("my notes")
    assert "holds no records of stages" in refused("records", "check", folder)


def test_a_folder_that_a_search_is_at_work_in_is_not_added_to(refused, folder, tmp_path):
    with opened_stage_records(tmp_path / "busy"):
        line = refused("records", "merge", folder, "-o", tmp_path / "busy")
    assert "another `thumbnet tune` is at work in it" in line
