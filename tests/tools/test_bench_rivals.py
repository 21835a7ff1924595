"""What the benchmark sets its rows beside: the data file of rivals, ONNX Runtime on this computer, threads."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from thumbnet.compile.errors import ToolchainError
from thumbnet.runtime_tests.linux.tvm_rpc_session import TvmRpcSession
from thumbnet.runtime_tests.session import Measurement, MemoryUse
from thumbnet.targets.registry import get_board
from thumbnet.tools import benchmark, onnx_rival, workloads
from thumbnet.tools.stage_costs import StageCost

MODEL = "mobilenet_v1_0.25_32"


def _result(**fields):
    stage = StageCost("a", ("a",), "portable", 10, "instructions", 100.0, 0.0)
    base = {
        "network": "vww", "quantize": "int8", "dead_channels": "kept", "board": get_board("mps2_an386"),
        "weights": "trained", "threads": 1, "whole": Measurement("instructions", (100.0,)), "rival": None, "macs": 10,
        "memory": MemoryUse(1, 2), "arena_bytes": 1, "flash_bytes": 2, "network_flash_bytes": 1,
        "equal_to_reference": True, "largest_relative_error": None, "elf": Path("a.elf"), "stages": (stage,),
    }  # fmt: skip
    return benchmark.Result(**{**base, **fields})


def _counts(**fields):
    found = benchmark.rivals_of(_result(**fields), benchmark.load_rivals())
    return [rival["instructions"] for rival in found]


# ---------------------------------------------------------------------- the data file


def test_rivals_have_all_fields_and_a_source():
    rivals = benchmark.load_rivals()
    networks = {workload.network for workload in workloads.WORKLOADS}
    emulated = [name for family, names in benchmark.BOARDS.items() if family != "host" for name in names]
    cores = {get_board(name).core for name in emulated}
    identity = ("network", "quantize", "dead_channels", "core", "runtime")
    keys = [tuple(rival[key] for key in identity) for rival in rivals]
    assert len(set(keys)) == len(keys)
    for rival in rivals:
        assert rival["network"] in networks
        assert rival["quantize"] in ("int8", "none")
        assert rival["dead_channels"] in ("kept", "removed")
        assert rival["core"] in cores
        assert rival["instructions"] > 1_000_000
        assert {"ram_bytes", "flash_bytes", "equal_to_tflite", "version"} <= set(rival)
        assert "measured" in rival["source"]
        assert "counted exactly" in rival["source"]
    assert {core for *_, core, _ in keys} == cores - {"cortex-a7"}  # no rival was measured there


def test_rivals_did_the_same_work_on_the_same_core():
    counts = _counts()
    assert counts == sorted(counts)
    assert counts[0] == 19_710_000
    assert _counts(dead_channels="removed", board=get_board("mps3_an547")) == [5_130_000]
    assert _counts(dead_channels="removed", weights="random") == []
    assert len(_counts(weights="random")) == len(counts)
    on_the_a72 = {"network": "mobilenet_v1_1.0_224", "board": get_board("raspberry_pi_4"), "weights": "random"}
    assert _counts(**on_the_a72)[0] == 170_500_000
    assert _counts(**on_the_a72, quantize="none")[0] == 172_900_000
    assert _counts(**on_the_a72, threads=2) == []  # the rivals ran in one


def test_a_wrong_answer_has_no_cost():
    assert _result().cost == 100.0
    for wrong in (
        {"equal_to_reference": False},
        {"equal_to_reference": None, "largest_relative_error": 1.1e-4},
        {"equal_to_reference": None, "largest_relative_error": float("inf")},
    ):
        result = _result(**wrong)
        assert not result.right
        assert (result.as_json(None)["instructions"], result.as_json(None)["instructions_per_mac"]) == (None, None)
    assert _result(equal_to_reference=None, largest_relative_error=0.9e-4).cost == 100.0


# ---------------------------------------------------------------------- threads and float32


class _OffByABit(TvmRpcSession):
    def run(self, image):
        return super().run(image) * np.float32(1.001)


@pytest.mark.emulated
@pytest.mark.needs_tools("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++", "qemu-aarch64")
def test_a_row_for_each_number_of_threads(thumbnet, monkeypatch, tmp_path):
    small = workloads.Workload("mobilenet_v1_1.0_224", "mobilenet_v1_0.5_32", 10, family="cortex-a")
    monkeypatch.setattr(workloads, "WORKLOADS", (small,))
    code, out, _ = thumbnet(
        *("bench", "--board", "raspberry_pi_4", "--threads", 1, "--threads", 2, "--no-layers"),
        *("-o", tmp_path / "bench", "--json", tmp_path / "rows.json"),
    )
    assert code == 0, out
    one, two = json.loads((tmp_path / "rows.json").read_text())
    assert (one["threads"], two["threads"]) == (1, 2)
    assert (one["error"], one["rival"] is None, two["rival"]) == (0, False, None)
    assert one["equal_to_reference"] and two["equal_to_reference"]
    assert two["instructions"] > one["instructions"]
    assert "2 threads" in out and "RAM: stack" not in out


@pytest.mark.emulated
@pytest.mark.needs_tools("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++", "qemu-aarch64")
def test_float32_that_is_off_fails_the_bench(thumbnet, monkeypatch, tmp_path):
    small = workloads.Workload("mobilenet_v1_1.0_224", MODEL, 10, family="cortex-a", quantize="none")
    monkeypatch.setattr(workloads, "WORKLOADS", (small,))
    monkeypatch.setattr(benchmark, "open_session", lambda device, threads: _OffByABit(device, threads=threads))
    arguments = ("bench", "--board", "raspberry_pi_4", "-o", tmp_path / "bench", "--json", tmp_path / "rows.json")
    assert thumbnet(*arguments)[0] == 1
    [row] = json.loads((tmp_path / "rows.json").read_text())
    assert row["largest_relative_error"] == pytest.approx(1e-3, rel=0.1)
    assert row["instructions"] is None


# ---------------------------------------------------------------------- this computer


def _small(quantize):
    return workloads.Workload("mobilenet_v1_1.0_224", MODEL, 10, family="host", quantize=quantize)


@pytest.mark.needs_tools("gcc", "g++")
def test_the_host_without_a_rival(thumbnet, monkeypatch, tmp_path):
    monkeypatch.setattr(workloads, "WORKLOADS", (_small("none"),))
    monkeypatch.setattr(onnx_rival, "_PACKAGES", ("no_onnxruntime_here",))
    arguments = ("bench", "--family", "host", "-o", tmp_path / "bench", "--json", tmp_path / "rows.json")
    code, out, _ = thumbnet(*arguments)
    assert code == 0, out
    [row] = json.loads((tmp_path / "rows.json").read_text())
    assert (row["rival"], row["rival_value"], row["rival_samples"]) == (None, None, None)
    assert row["seconds"] > 0
    [line] = [line for line in out.splitlines() if "not installed" in line]
    assert line.startswith("no_onnxruntime_here not installed")
    assert ".[bench]" in line


@pytest.mark.needs_tools("gcc", "g++")
def test_the_host_in_turns_with_onnx_runtime(thumbnet, monkeypatch, tmp_path):
    for package in onnx_rival._PACKAGES:
        pytest.importorskip(package)
    monkeypatch.setattr(workloads, "WORKLOADS", (_small("int8"), _small("none")))
    arguments = ("bench", "--family", "host", "-o", tmp_path / "bench", "--json", tmp_path / "rows.json")
    code, out, _ = thumbnet(*arguments)
    assert code == 0, out
    int8, float32 = rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["quantize"] for row in rows] == ["int8", "none"]
    assert [row["rival"] for row in rows] == ["ONNX Runtime, QDQ uint8", "ONNX Runtime"]
    for row in rows:
        assert (row["kind"], row["threads"], row["board"]) == ("seconds on the board", 1, "host")
        assert len(row["samples"]) == len(row["rival_samples"]) == onnx_rival.TURNS
        assert row["seconds"] == sorted(row["samples"])[onnx_rival.TURNS // 2]
        assert row["rival_value"] == sorted(row["rival_samples"])[onnx_rival.TURNS // 2]
        assert row["rival_version"] and "in turns" in row["rival_source"]
        assert "instructions" not in row
    assert int8["equal_to_reference"] is True
    assert float32["largest_relative_error"] < benchmark.FLOAT_TOLERANCE
    assert "milliseconds, median" in out


def test_onnx_runtime_computes_the_same_network():
    for package in onnx_rival._PACKAGES:
        pytest.importorskip(package)
    board = get_board("host")
    request = workloads.make_benchmark_request(_small("none"), board, "random", None, keep=True)
    assert onnx_rival.OnnxRival(request, 1).seconds() > 0
    quantized = workloads.make_benchmark_request(_small("int8"), board, "random", None, keep=True)
    rival = onnx_rival.OnnxRival(quantized, 1)
    with torch.no_grad():
        expected = request.module(request.calibration[0]).numpy()
    found = rival._run()
    # int8 it is, and of this network.
    assert np.abs(found - expected).max() > 1e-3 * np.abs(expected).max()
    assert np.corrcoef(found[0], expected[0])[0, 1] > 0.5
    other = workloads.make_benchmark_request(
        replace(_small("none"), classes=10, model="mobilenet_v1_0.5_32"), board, "random", None, keep=True
    )
    rival = onnx_rival.OnnxRival(request, 1)
    with pytest.raises(ToolchainError, match="not the same network"):
        rival._check(other.module)
