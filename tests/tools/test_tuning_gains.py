"""The commands that show what the cost model and tuning are worth, on a small network."""

import json

import pytest
from click.testing import CliRunner

from thumbnet.compile.tuning.stage_records import read_stage_records
from thumbnet.tools.evaluate_cost_model import evaluate
from thumbnet.tools.tuning_gains import tuning_gains

NETWORK = "mobilenet_v1_0.25_32"
DEVICE = ("--device", "qemu_mps2_an386")


def run(command, *arguments):
    return CliRunner().invoke(command, list(map(str, arguments)))


@pytest.mark.slow
@pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")
def test_gains_are_measured_and_random_trials_beside_them(tmp_path):
    said = tmp_path / "gains.json"
    result = run(tuning_gains, tmp_path, *DEVICE, "--network", NETWORK, "--times", 2, "--json", said)
    assert result.exit_code == 0, result.output
    (gain,) = json.loads(said.read_text())["gains"]
    assert (gain["device"], gain["network"], gain["kind"]) == (DEVICE[1], NETWORK, "predicted cycles")
    assert 0 < gain["tuned"] <= gain["untuned"] and gain["end"] == "proven"
    assert gain["tuned"] <= 1.005 * gain["random"]
    assert gain["trials"] < gain["random_trials"] <= 2 * gain["trials"]
    records = read_stage_records(tmp_path / f"mps2_an386-{NETWORK}")
    assert len(records) == len({record.key for record in records}) >= gain["random_trials"]


@pytest.mark.slow
@pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")
def test_searches_with_the_model_are_told_from_those_without(tmp_path):
    result = run(evaluate, "search", tmp_path / "db", *DEVICE, "--network", NETWORK, "--trials", 100)
    assert result.exit_code == 0, result.output
    for name in ("estimate alone", "learned, no seeds", "learned, seeds"):
        assert name in result.output
    records = read_stage_records(tmp_path / "db")
    assert len(records) == len({record.key for record in records})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--device", "local", "--network", NETWORK), "local has no seeds"),
        ((*DEVICE, "--network", "mobilenet_v1_0.25_128"), "mobilenet_v1_0.25_128 is among the seeds"),
    ],
)
def test_nothing_is_judged_by_what_it_was_trained_on(tmp_path, arguments, says):
    result = run(evaluate, "search", tmp_path, *arguments)
    assert result.exit_code == 2
    assert says in " ".join(result.output.split())


def test_gains_are_of_emulated_boards(tmp_path):
    result = run(tuning_gains, tmp_path, "--device", "local")
    assert result.exit_code == 2
    assert "local: there are seeds for" in " ".join(result.output.split())
