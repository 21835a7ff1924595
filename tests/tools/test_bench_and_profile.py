"""The benchmark of one board, the profile of artifacts, and bad input."""

import functools
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from thumbnet.compile.network.integer_network import Convolution, DepthwiseConvolution
from thumbnet.compile.network.integer_relax import read_relax
from thumbnet.compile.quantize_request import quantize_network
from thumbnet.compile.request import CompileOptions, check_options
from thumbnet.models.weights import BUNDLED_FOLDER, BUNDLED_IMAGES
from thumbnet.runtime_tests.errors import SessionError
from thumbnet.runtime_tests.mcu import microcontroller_session
from thumbnet.targets.errors import BoardError
from thumbnet.targets.registry import get_board
from thumbnet.tools import benchmark, workloads
from thumbnet.tools.commands import bench
from thumbnet.tools.network import compile_network
from thumbnet.tools.network_options import NetworkFiles
from thumbnet.tools.progress import show_steps

DIGITS = "mobilenet_v1_0.25_digits"
CALIBRATION = BUNDLED_FOLDER / "calibration"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The digits network for the emulated Cortex-M4."""
    folder = tmp_path_factory.mktemp("compiled") / "digits"
    files = NetworkFiles(DIGITS, calibration=CALIBRATION, calibration_limit=4)
    compile_network(files, get_board("mps2_an386"), folder)
    return folder


def _output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


# ---------------------------------------------------------------------- bench


@pytest.mark.emulated
@pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")
def test_bench_of_one_board_with_random_weights(thumbnet, monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "show_steps", functools.partial(show_steps, line_every_s=0.05))
    arguments = ("bench", "--board", "mps2_an386", "--network", "vww", "-o", tmp_path / "bench")
    code, out, err = thumbnet(*arguments, "--json", tmp_path / "rows.json")
    assert code == 0, out
    assert "thumbnet: benchmark: compiling vww-kept-mps2_an386: planning the layers, 0 of 2 done" in err
    assert "thumbnet: benchmark: running vww-removed-mps2_an386, 1 of 2 done" in err
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["dead_channels"] for row in rows] == ["kept", "removed"]
    for row in rows:
        assert (row["network"], row["board"], row["core"]) == ("vww", "mps2_an386", "cortex-m4")
        assert row["weights"] == "random"
        assert row["equal_to_reference"] is True
        # Two multiply-accumulates an instruction are the core's most.
        assert row["macs"] / 2 < row["instructions"] < row["macs"] * 4
        assert row["ram_bytes"] >= row["arena_bytes"] + row["stack_bytes"] > 96 * 96 * 3
        assert 0 < row["stack_measured_bytes"] <= row["stack_bytes"] < 1000
        assert row["flash_bytes"] > row["network_flash_bytes"] > 200_000
        assert sum(layer["instructions"] for layer in row["layers"]) == pytest.approx(row["instructions"], rel=0.01)
        assert sum(layer["macs"] for layer in row["layers"]) == row["macs"]
        assert all(layer["kernel"] and layer["name"] == layer["layers"][-1] for layer in row["layers"])
        assert set(row["kinds"]) <= set(row)
        assert row["predicted_cycles"] > row["instructions"]
        stages = sum(layer["predicted_cycles"] for layer in row["layers"])
        assert stages == pytest.approx(row["predicted_cycles"], rel=0.01)
        elf = Path(row["elf"])
        assert elf.is_relative_to(tmp_path / "bench")
        assert " vww_96_run\n" in _output("arm-none-eabi-nm", elf)
        text, data = _output("arm-none-eabi-size", elf).splitlines()[1].split()[:2]
        assert row["flash_bytes"] == int(text) + int(data)
    assert rows[0]["macs"] == 7_489_664
    assert "features.13.pointwise.0" in out
    assert "TinyEngine" in out
    assert "random weights" in out
    # Nothing was removed from random weights: no rival with channels removed did the same work.
    assert "12,180,000" not in out


@pytest.mark.emulated
@pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")
def test_bench_with_trained_weights_and_without_half_of_them(thumbnet, shared_data, tmp_path):
    code, out, _ = thumbnet(
        *("bench", "--board", "mps3_an547", "--network", "vww", "--weights-dir", shared_data / "models"),
        *("--no-layers", "-o", tmp_path / "bench", "--json", tmp_path / "rows.json"),
    )
    assert code == 0, out
    kept, removed = json.loads((tmp_path / "rows.json").read_text())
    assert kept["weights"] == removed["weights"] == "trained"
    assert kept["macs"] == 7_489_664
    assert removed["macs"] < 0.51 * kept["macs"]
    assert removed["instructions"] < 0.7 * kept["instructions"]
    assert removed["network_flash_bytes"] < 0.5 * kept["network_flash_bytes"]
    assert "6,430,000" in out
    assert "5,130,000" in out


@pytest.mark.emulated
@pytest.mark.needs_tools("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++", "qemu-aarch64")
def test_bench_of_a_board_with_linux(thumbnet, monkeypatch, tmp_path):
    """The worst case costs more than random weights, in the kernels that add up in int16; float32 has rivals too."""
    name, model = "mobilenet_v1_1.0_224", "mobilenet_v1_0.5_32"
    int8 = workloads.Workload(name, model, 10, family="cortex-a", made_weights=("random", "worst case"))
    float32 = workloads.Workload(name, model, 10, family="cortex-a", quantize="none")
    monkeypatch.setattr(workloads, "WORKLOADS", (*workloads.WORKLOADS[:2], int8, float32))
    code, out, _ = thumbnet(
        *("bench", "--board", "raspberry_pi_4", "-o", tmp_path / "bench", "--json", tmp_path / "rows.json"),
        *("--weights-dir", tmp_path),
    )
    assert code == 0, out
    random, worst, float32 = rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["weights"] for row in rows] == ["random", "worst case", "random"]
    assert [row["quantize"] for row in rows] == ["int8", "int8", "none"]
    assert (float32["equal_to_reference"], float32["rival"]) == (None, "ncnn")
    assert (float32["rival_version"], float32["rival_value"]) == ("20261020", 172_900_000)
    assert 0 < float32["largest_relative_error"] < 5e-5
    assert "mobilenet_v1_1.0_224, float32" in out and "ncnn (20261020)" in out
    for row in rows:
        assert (row["core"], row["kind"], row["threads"]) == ("cortex-a72", "instructions", 1)
        assert row["ram_bytes"] >= row["arena_bytes"] > 32 * 32 * 3
        assert row["flash_bytes"] > row["macs"] / 100
        assert sum(layer["instructions"] for layer in row["layers"]) == pytest.approx(row["instructions"], rel=0.1)
        assert all(layer["kernel"].startswith("neon") for layer in row["layers"] if layer["macs"])
        assert set(row["kinds"]) <= set(row)
        assert Path(row["elf"]).read_bytes()[:4] == b"\x7fELF"
    for row in (random, worst):
        assert (row["equal_to_reference"], row["largest_relative_error"]) == (True, None)
        assert (row["rival"], row["rival_version"]) == ("ONNX Runtime, QDQ uint8", None)
        assert row["rival_value"] == 170_500_000
        assert "counted exactly" in row["rival_source"]
    assert random["instructions"] * 1.05 < worst["instructions"]
    assert random["macs"] == worst["macs"]


def test_workloads_of_the_worst_case_have_the_shortest_runs():
    """Whatever the weights, two products fit int16; of weights of the largest magnitude no more do."""
    workload = next(item for item in workloads.WORKLOADS if "worst case" in item.made_weights)
    small = workloads.Workload("small", "mobilenet_v1_0.25_32", 10, family=workload.family)
    request = workloads.make_benchmark_request(small, get_board("raspberry_pi_4"), "worst case", None, keep=True)
    network = read_relax(quantize_network(request))
    layers = [layer for layer in network.layers if isinstance(layer, Convolution | DepthwiseConvolution)]
    assert len(layers) == 28  # the classifier is one too
    for layer in layers:
        assert (np.abs(layer.weight) == 127).all()


def test_runs_of_each_family(tmp_path):
    small, _, _, v1, v2, hosted, *_ = workloads.WORKLOADS
    assert small.runs(None) == [("random", "kept"), ("random", "removed")]
    assert v1.runs(tmp_path) == v2.runs(None) == [("random", "kept"), ("worst case", "kept")]
    assert hosted.runs(tmp_path) == []
    for workload in (small, hosted):
        (tmp_path / workload.weights_file).touch()
    assert small.runs(tmp_path) == [("trained", "kept"), ("trained", "removed")]
    assert hosted.runs(tmp_path) == [("trained", "kept")]
    boards = [get_board("raspberry_pi_4"), get_board("mps2_an386")]
    assert benchmark.count_results(boards, [small, hosted], tmp_path) == 3


def test_every_board_takes_the_networks_it_is_given():
    for workload in workloads.WORKLOADS:
        boards = [get_board(name) for name in benchmark.BOARDS[workload.family]]
        taken = [board for board in boards if workload.runs_on(board)]
        assert taken
        for board in taken:
            check_options(CompileOptions(quantize=workload.quantize), board)
    assert not workloads.WORKLOADS[0].runs_on(get_board("raspberry_pi_4"))


@pytest.mark.emulated
@pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")
def test_what_was_measured_before_a_failure_is_told(thumbnet, monkeypatch, tmp_path):
    run = benchmark._run

    def run_once(case, *arguments):
        if case.dead_channels == "removed":
            raise SessionError("the board is gone")
        return run(case, *arguments)

    monkeypatch.setattr(benchmark, "_run", run_once)
    arguments = ("bench", "--board", "mps2_an386", "--network", "vww", "--no-layers", "-o", tmp_path / "bench")
    code, out, err = thumbnet(*arguments, "--json", tmp_path / "rows.json")
    assert code == 2
    assert "the board is gone" in err
    assert [row["dead_channels"] for row in json.loads((tmp_path / "rows.json").read_text())] == ["kept"]
    assert "TinyEngine" in out


class _WrongSession(microcontroller_session.MicrocontrollerSession):
    """A device whose answers are off by one, in the output or in a stage."""

    in_stage = False

    def __init__(self, device, threads):
        super().__init__(device)

    def run(self, image):
        return super().run(image) + np.int8(not self.in_stage)

    def run_layers(self, image):
        outputs = super().run_layers(image)
        name = next(iter(outputs))
        return {**outputs, name: outputs[name] ^ np.int8(self.in_stage)}


@pytest.mark.emulated
@pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")
@pytest.mark.parametrize("in_stage", [False, True])
def test_wrong_bytes_fail_the_bench(thumbnet, monkeypatch, tmp_path, in_stage):
    monkeypatch.setattr(benchmark, "open_session", _WrongSession)
    monkeypatch.setattr(_WrongSession, "in_stage", in_stage)
    small = workloads.Workload("vww", "mobilenet_v1_0.25_32", 2)
    monkeypatch.setattr(workloads, "WORKLOADS", (small,))
    arguments = ("bench", "--board", "mps2_an386", "-o", tmp_path / "bench", "--json", tmp_path / "rows.json")
    code, out, _ = thumbnet(*arguments)
    assert code == 1
    for row in json.loads((tmp_path / "rows.json").read_text()):
        assert (row["equal_to_reference"], row["instructions"]) == (False, None)
    assert "instructions of one inference" not in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--board", "mps2_an38"), "mps2_an386"),
        (("--threads", "0"), "0 is not in the range"),
        (("--threads", "2"), "networks of cortex-m run in one thread; give it with --family cortex-a alone"),
        (("--family", "cortex-a", "--family", "host", "--threads", "2"), "networks of host run in one thread"),
        (("--family", "host", "--network", "vww"), "not in the benchmark of host; known: mobilenet_v1_1.0_224"),
        (("--board", "nucleo_f746zg"), "take one of mps2_an386"),
        (("--network", "vvw"), "not in the benchmark of cortex-m; known: vww, mobilenet_v2_0.35_96"),
        (("--network", "mobilenet_v1_99_224"), "width multiplier 99.0"),
        (("--board", "raspberry_pi_4", "--network", "vww"), "not in the benchmark of cortex-a; known: mobilenet_v1_1"),
        (
            ("--family", "cortex-a", "--network", "mobilenet_v2_1.0_224_quant"),
            "mobilenet_v2_1.0_224_quant.tflite in it",
        ),
        (("--family", "cortex-r"), "cortex-m"),
        (("--weights-dir", "/none/at/all"), "does not exist"),
        (("--json", "/none/at/all.json"), "the folder /none/at does not exist"),
        (("-o", "/proc/none"), "/proc/none"),
    ],
)
def test_bad_input_to_bench(refused, arguments, says):
    assert says in refused("bench", *arguments)


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_bench_replaces_no_file_of_the_persons(refused, tmp_path, kind):
    elf = tmp_path / "elf" / "vww-kept-mps2_an386.elf"
    elf.parent.mkdir()
    if kind == "folder":
        elf.mkdir()
    else:
        (tmp_path / "thesis.tex" if kind == "link" else elf).write_text("mine")
    if kind == "link":
        elf.symlink_to(tmp_path / "thesis.tex")
    line = refused("bench", "--board", "mps2_an386", "--network", "vww", "-o", tmp_path)
    assert "vww-kept-mps2_an386.elf: exists and is no ELF file" in line
    assert kind == "folder" or elf.read_text() == "mine"


@pytest.mark.parametrize(("command", "name"), [("bench", "vww-kept-mps2_an386"), ("demo", "mps2_an386")])
def test_no_file_of_the_persons_in_an_artifact_of_an_earlier_run_is_deleted(refused, tmp_path, command, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "notes.txt").write_text("mine")
    arguments = ("--board", "mps2_an386", "--network", "vww") if command == "bench" else ()
    line = refused(command, *arguments, "-o", tmp_path)
    assert f"{name}: exists and is not an artifact; name another folder" in line
    assert (tmp_path / name / "notes.txt").read_text() == "mine"


@pytest.mark.emulated
@pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")
def test_damaged_weights(refused, tmp_path):
    (tmp_path / "vww_96_int8.tflite").write_bytes(b"\0\0\0\0TFL3")
    line = refused("bench", "--board", "mps2_an386", "--weights-dir", tmp_path, "-o", tmp_path / "bench")
    assert "vww_96_int8.tflite" in line


@pytest.mark.slow
@pytest.mark.emulated
@pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")
def test_images_that_are_no_squares_in_the_bench(tmp_path):
    wide = workloads.Workload("wide", "mobilenet_v1_0.25_120x160", 5)
    kept, removed = benchmark.run_benchmark([get_board("mps3_an547")], tmp_path, workloads=(wide,))
    assert kept.right
    assert kept.cost >= removed.cost > 0


def test_random_networks_are_the_same_each_time():
    spec = workloads.WORKLOADS[1].spec
    assert spec.classes == 2
    make = workloads._made_network.__wrapped__
    (first, images), (second, again) = make(spec, "random"), make(spec, "random")
    assert (images == again).all()
    assert all((a == b).all() for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))


def test_boards_without_an_emulator_are_refused():
    assert benchmark.benchmark_device(get_board("mps3_an547")).name == "qemu_mps3_an547"
    assert benchmark.benchmark_device(get_board("host")).kind == "local"
    with pytest.raises(BoardError, match="nucleo_f746zg"):
        benchmark.benchmark_device(get_board("nucleo_f746zg"))


# ---------------------------------------------------------------------- profile


@pytest.mark.emulated
@pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")
def test_profile_of_a_microcontroller(thumbnet, compiled, tmp_path):
    arguments = ("profile", compiled, "--device", "qemu_mps2_an386")
    code, out, _ = thumbnet(*arguments, "--json", tmp_path / "profile.json")
    assert code == 0, out
    content = json.loads((tmp_path / "profile.json").read_text())
    stages = content["layers"]
    costs = [stage["instructions"] for stage in stages]
    assert (content["kind"], content["error"]) == ("instructions", 0)
    assert costs == sorted(costs, reverse=True)
    assert sum(costs) == pytest.approx(content["instructions"], rel=0.01)
    assert sum(stage["macs"] for stage in stages) == content["macs"]
    manifest = json.loads((compiled / "manifest.json").read_text())
    assert {stage["name"]: stage["kernel"] for stage in stages} == {
        entry["name"]: entry["kernel"] for entry in manifest["layers"]
    }
    members = [layer for entry in manifest["layers"] for layer in entry["layers"]]
    assert sorted(layer for stage in stages for layer in stage["layers"]) == sorted(members)
    assert f"{content['instructions']:,}" in out
    assert f"{sum(costs):,}" in out
    assert "instructions of one inference (exact)" in out
    assert sum(stage["predicted_cycles"] for stage in stages) == pytest.approx(content["predicted_cycles"], rel=0.01)
    assert content["instructions"] < content["predicted_cycles"] < 3 * content["instructions"]
    assert content["predicted_cycles_band"] == [-0.06, 0.01]
    assert content["predicted_cycles_basis"].startswith("as on nucleo_l4r5zi: Arm's table of the Cortex-M4")
    assert f"{content['predicted_cycles']:,}" in out
    assert "predicted cycles of cortex-m4, as on nucleo_l4r5zi: Arm's table" in out


@pytest.mark.emulated
@pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")
def test_profile_of_an_image(thumbnet, compiled):
    image = next(BUNDLED_IMAGES.glob("*.png"))
    code, out, _ = thumbnet("profile", compiled, "--device", "qemu_mps2_an386", "--image", image)
    assert code == 0
    assert image.name in out


@pytest.mark.emulated
@pytest.mark.slow
@pytest.mark.needs_tools("aarch64-linux-gnu-gcc", "qemu-aarch64")
def test_profile_of_a_library(thumbnet, tmp_path):
    files = NetworkFiles(DIGITS, calibration=CALIBRATION, calibration_limit=4)
    compile_network(files, get_board("raspberry_pi_4"), tmp_path / "pi")
    arguments = ("profile", tmp_path / "pi", "--device", "qemu_raspberry_pi_4", "--json", tmp_path / "profile.json")
    code, out, _ = thumbnet(*arguments)
    assert code == 0, out
    content = json.loads((tmp_path / "profile.json").read_text())
    total = sum(stage["instructions"] for stage in content["layers"])
    # The virtual machine's work between kernels is in no stage.
    assert 0.8 * content["instructions"] < total < content["instructions"]
    assert sum(stage["macs"] or 0 for stage in content["layers"]) == content["macs"]
    assert all(stage["kernel"].startswith("neon") for stage in content["layers"] if stage["macs"])
    assert "in no stage" in out


def test_bad_input_to_profile(refused, compiled, tmp_path):
    assert "no manifest.json" in refused("profile", tmp_path, "--device", "qemu_mps2_an386")
    assert "unknown device" in refused("profile", compiled, "--device", "qemu_mps2_an38")
    assert "compiled for" in refused("profile", compiled, "--device", "qemu_mps3_an547")
    arguments = ("profile", compiled, "--device", "qemu_mps2_an386")
    assert "no such image" in refused(*arguments, "--image", tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no image")
    assert "not an image" in refused(*arguments, "--image", tmp_path / "text.png")
