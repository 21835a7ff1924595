"""`thumbnet tune --space tvm`: TVM's schedules on emulated boards, in the records and the plan like all else."""

import json
from dataclasses import replace

import pytest

from thumbnet.compile.artifact import Artifact
from thumbnet.compile.tuning import layer_schedules, schedule_search
from thumbnet.compile.tuning.record_folder import RECORDS
from thumbnet.compile.tuning.stage_key import is_scheduled
from thumbnet.compile.tuning.stage_records import read_stage_records
from thumbnet.models.weights import BUNDLED_IMAGES
from thumbnet.targets.devices import get_device

pytestmark = [pytest.mark.emulated, pytest.mark.slow]

DIGITS = "mobilenet_v1_0.25_digits"
#: All of its layers as they are without tuning, and three rounds.
TRIALS = 29 + 3 * schedule_search.ROUND
M3 = pytest.param("qemu_mps2_an385", marks=pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm"))
M4 = pytest.param("qemu_mps2_an386", marks=pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm"))
A7 = pytest.param("qemu_raspberry_pi_2", marks=pytest.mark.needs_tools("arm-linux-gnueabihf-gcc", "qemu-arm"))
A72 = pytest.param("qemu_raspberry_pi_4", marks=pytest.mark.needs_tools("aarch64-linux-gnu-gcc", "qemu-aarch64"))


@pytest.fixture
def without_kernels(monkeypatch):
    """Every core is one that there are no kernels for."""
    for user in ("compile.plan.board_plan", "compile.tuning.recorded_plan"):
        monkeypatch.setattr(f"thumbnet.{user}.kernels_of", lambda _: None)


@pytest.mark.parametrize("device", [M3, A7, A72])
@pytest.mark.usefixtures("without_kernels")
def test_a_core_without_kernels_runs_on_schedules_with_the_same_bytes(device, thumbnet, tmp_path):
    tune = ("tune", DIGITS, "--device", device, "--space", "tvm", "--objective", "instructions", "--trials", TRIALS)
    code, out, err = thumbnet(*tune, "-o", tmp_path / "db", "--json", tmp_path / "tuned.json")
    assert code == 0, err
    found = json.loads((tmp_path / "tuned.json").read_text())
    assert (found["space"], found["kind"], found["trials"]) == ("tvm", "instructions", TRIALS)
    assert found["tuned"] < 0.9 * found["untuned"]
    assert "layers" in out
    records = [record for record in read_stage_records(tmp_path / "db") if is_scheduled(record.stage)]
    assert len(records) == len((tmp_path / "db" / RECORDS).read_text().splitlines()) >= TRIALS - 29

    counts = {}
    for name, tuning in (("plain", ()), ("tuned", ("--tuning", tmp_path / "db", "--emulated-records"))):
        folder = tmp_path / name
        board = get_device(device).board.name
        code, _, err = thumbnet("compile", DIGITS, "--board", board, *tuning, "-o", folder)
        assert code == 0, err
        test = ("test", folder, "--device", device, "--images", BUNDLED_IMAGES, "--limit", 2)
        assert thumbnet(*test, "--json", tmp_path / "report.json")[0] == 0
        report = json.loads((tmp_path / "report.json").read_text())
        assert report["equal_to_reference"] is True
        counts[name] = report["instructions_per_inference"]
    manifest = Artifact.load(tmp_path / "tuned").manifest
    assert {stage["kernel"] for stage in manifest["layers"]} & {record.stage["kernels"] for record in records}
    assert manifest["tuning"]["measured_cost"] == found["tuned"]
    assert counts["tuned"] < 0.9 * counts["plain"]


@pytest.mark.parametrize("device", [M4])
def test_schedules_with_wrong_bytes_are_named_and_in_no_record(device, thumbnet, tmp_path, monkeypatch):
    right = layer_schedules.scheduled_kernel

    def wrong(layer, *arguments):
        kernel = right(layer, *arguments)
        constants = {name: array + 1 if name == "bias" else array for name, array in kernel.constants.items()}
        multiplied = {"multiplier": constants["multiplier"] // 2} if "multiplier" in constants else {}
        return replace(kernel, constants=constants | multiplied)

    monkeypatch.setattr(schedule_search, "scheduled_kernel", wrong)
    tune = ("tune", DIGITS, "--device", device, "--space", "tvm", "--trials", 64)
    code, _, err = thumbnet(*tune, "-o", tmp_path / "db", "--json", tmp_path / "tuned.json")
    assert code == 0, err
    found = json.loads((tmp_path / "tuned.json").read_text())
    assert found["tuned"] == found["untuned"]
    records = read_stage_records(tmp_path / "db")
    assert not any(is_scheduled(record.stage) for record in records)
    assert len(records) < 64
    assert err.count("on TVM's schedule ") == err.count("gave wrong bytes; it is left out") == 64 - len(records)
    assert not (tmp_path / "db" / RECORDS).read_bytes()
