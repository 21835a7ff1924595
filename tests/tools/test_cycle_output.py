"""Predicted cycles beside published ones, tables that can't be validated, and a model whose tool is missing."""

import json

import pytest

from thumbnet.models.weights import BUNDLED_FOLDER
from thumbnet.runtime_tests.cycles import llvm_mca
from thumbnet.targets.registry import get_board
from thumbnet.tools.network import compile_network
from thumbnet.tools.network_options import NetworkFiles


def test_bench_validates_predicted_cycles(thumbnet, shared_data, tmp_path):
    table = shared_data / "cycles" / "histograms.csv"
    code, out, _ = thumbnet("bench", "--validate", table, "--json", tmp_path / "validation.json")
    assert code == 0, out
    content = json.loads((tmp_path / "validation.json").read_text())
    assert len(content["cases"]) >= 7
    for case in content["cases"]:
        assert case["error"] == pytest.approx(case["predicted_cycles"] / case["published_cycles"] - 1, abs=1e-5)
        assert f"{case['published_cycles']:,.0f}" in out
    for core in content["cores"]:
        errors = [case["error"] for case in content["cases"] if case["core"] == core["core"]]
        assert (core["cases"], core["lowest"], core["highest"]) == (len(errors), min(errors), max(errors))
        assert core["stated_band"][0] - 0.005 <= min(errors) <= max(errors) <= core["stated_band"][1] + 0.005


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        (b"", "has no cases"),
        (b"core,published_cycles\n", "has no cases"),
        (b"core,published_cycles,alu,total_instructions\nm4,5\n", "line 2: total_instructions is ''"),
        (b"core,published_cycles\nm4," + b"9" * 200_000, "is no CSV table"),
        (bytes(range(256)) * 100, "line 2: "),
    ],
)
def test_tables_that_cant_be_validated(refused, tmp_path, content, says):
    table = tmp_path / "cases.csv"
    if content is not None:
        table.write_bytes(content)
    line = refused("bench", "--validate", table)
    assert says in line
    assert str(table) in line


@pytest.mark.emulated
@pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")
def test_without_its_tool_cycles_are_not_predicted_and_the_profile_is_there(thumbnet, monkeypatch, tmp_path):
    files = NetworkFiles("mobilenet_v1_0.25_digits", calibration=BUNDLED_FOLDER / "calibration", calibration_limit=4)
    compile_network(files, get_board("mps2_an500"), tmp_path / "m7")
    monkeypatch.setattr(llvm_mca, "LLVM_VERSION", 1)
    arguments = ("profile", tmp_path / "m7", "--device", "qemu_mps2_an500", "--json", tmp_path / "profile.json")
    code, out, _ = thumbnet(*arguments)
    assert code == 0, out
    content = json.loads((tmp_path / "profile.json").read_text())
    assert content["instructions"] > 0
    assert content["predicted_cycles"] is None
    assert "llvm-mc-1 is not installed" in content["predicted_cycles_basis"]
    assert "cycles of cortex-m7 are not predicted: llvm-mc-1 is not installed" in out
