"""The commands on the bundled network: compile, test on an emulated board, tune; and every kind of bad input."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from thumbnet.compile.artifact import Artifact, write_manifest
from thumbnet.models.variants import build_model, get_spec
from thumbnet.models.weights import BUNDLED_FOLDER, BUNDLED_IMAGES
from thumbnet.runtime_tests.mcu import emulator
from thumbnet.targets.board import Board
from thumbnet.targets.registry import get_board
from thumbnet.tools.network import compile_network
from thumbnet.tools.network_options import NetworkFiles

DIGITS = "mobilenet_v1_0.25_digits"
CALIBRATION = BUNDLED_FOLDER / "calibration"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The digits network for the emulated Cortex-M4."""
    folder = tmp_path_factory.mktemp("compiled") / "digits"
    files = NetworkFiles(DIGITS, calibration=CALIBRATION, calibration_limit=8)
    compile_network(files, get_board("mps2_an386"), folder)
    return folder


def test_compile_prints_a_table_and_writes_json(thumbnet, tmp_path):
    code, out, _ = thumbnet(
        *("compile", DIGITS, "--board", "nucleo_f746zg", "--calibration", CALIBRATION, "--calibration-limit", 4),
        *("-o", tmp_path / "a", "--json", tmp_path / "a.json"),
    )
    assert code == 0
    assert "calibrated on 4 bundled images" in out
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["board"] == "nucleo_f746zg"
    assert content["arena_bytes"] >= 2 * 32 * 32
    assert "stack, worst case" in out or "not known without arm-none-eabi-gcc" in out


def test_compile_says_what_dead_channels_it_removed_or_that_they_are_kept(thumbnet, tmp_path):
    arguments = ("compile", DIGITS, "--board", "mps2_an386", "--calibration", CALIBRATION, "--calibration-limit", 4)
    contents = []
    for name, options, says in (("a", (), " removed: "), ("b", ("--keep-dead-channels",), "kept")):
        file = tmp_path / f"{name}.json"
        code, out, _ = thumbnet(*arguments, *options, "-o", tmp_path / name, "--json", file)
        assert code == 0
        assert says in next(line for line in out.splitlines() if "dead channels" in line)
        contents.append(json.loads(file.read_text()))
    removed, kept = contents
    assert kept["dead_channels"] == "kept"
    counts = removed["dead_channels"]["removed"]
    assert counts["channels"] > 0 and counts["constant_bytes"] > 0
    assert kept["macs"] - removed["macs"] == counts["macs"] > 0
    assert kept["constant_bytes"] > removed["constant_bytes"]
    goldens = [Artifact.load(tmp_path / name).golden()[1] for name in "ab"]
    np.testing.assert_array_equal(*goldens)


def test_the_image_can_come_row_by_row(thumbnet, refused, tmp_path):
    arguments = ("compile", DIGITS, "--calibration", CALIBRATION, "--calibration-limit", 4, "--stream-input")
    code, out, _ = thumbnet(
        *arguments, "--pareto", "--board", "mps2_an386", "-o", tmp_path / "a", "--json", tmp_path / "a.json"
    )
    assert code == 0
    assert "arena, without the input" in out and "this one" in out
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["streamed_input"] is True
    assert content["ram_choices"][0]["arena_bytes"] > content["arena_bytes"]
    assert "_read_row(int32_t row, int8_t *pixels);" in next((tmp_path / "a").glob("*digits.h")).read_text()
    line = refused(*arguments, "--board", "raspberry_pi_4", "-o", tmp_path / "b")
    assert "--stream-input is for boards that take C sources" in line
    for option in (("--pareto",), ("--ram-limit", 9000), ("--objective", "cycles")):
        line = refused("compile", DIGITS, *option, "--board", "host", "-o", tmp_path / "b")
        assert f"host: {option[0]}" in line and "our own kernels" in line


def test_devices_and_boards_json(thumbnet, tmp_path):
    for command in ("devices", "boards"):
        assert thumbnet(command, "--json", tmp_path / f"{command}.json")[0] == 0
    devices = {item["name"]: item for item in json.loads((tmp_path / "devices.json").read_text())}
    assert devices["local"]["kind"] == "local"
    emulated = {item["board"] for item in devices.values() if item["kind"] == "emulated"}
    assert emulated >= {"mps2_an386", "mps2_an500", "mps2_an505", "mps3_an547", "raspberry_pi_4"}


@pytest.mark.emulated
@pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")
def test_test_reports_all_figures(thumbnet, compiled, tmp_path):
    code, out, _ = thumbnet(
        *("test", compiled, "--device", "qemu_mps2_an386", "--images", BUNDLED_IMAGES, "--limit", 5),
        *("--json", tmp_path / "report.json"),
    )
    assert code == 0, out
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["equal_to_reference"] is True
    assert report["images"] == 5
    assert report["layers_compared"] == len(Artifact.load(compiled).manifest["layers"]) > 10
    assert report["layers_different"] == []
    assert report["top1"] >= 0.8
    assert report["agreement_with_pytorch"] >= 0.8
    counted, predicted = (
        report["instructions_per_inference"],
        Artifact.load(compiled).manifest["predicted_instructions"],
    )
    assert counted > 797_824 / 2
    # What plans are chosen by.
    assert abs(predicted / counted - 1) < 0.15
    # What plans are chosen by, and what the executed blocks take.
    planned = Artifact.load(compiled).manifest["predicted_cycles"]
    assert abs(planned / report["predicted_cycles"] - 1) < 0.1
    assert report["predicted_cycles"] > counted
    assert report["predicted_cycles_band"] == [-0.06, 0.01]
    assert f"{report['predicted_cycles']:,} cycles predicted (nucleo_l4r5zi, -6% to +1%)" in " ".join(out.split())
    assert report["measurement"]["error"] == 0
    assert report["ram_bytes"] > 32 * 32
    assert report["flash_bytes"] > 200_000
    assert 0 < report["stack_measured_bytes"] <= report["stack_bytes"]
    assert "worst case" in report["stack_kind"]
    assert (report["device"], report["board"], report["model"]) == ("qemu_mps2_an386", "mps2_an386", DIGITS)


@pytest.mark.emulated
@pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")
def test_a_wrong_weight_fails_the_test_and_names_the_layer(thumbnet, compiled, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(compiled, broken)
    source = broken / "mobilenet_v1_0_25_digits_layers.c"
    text = source.read_text()
    # The zero point of one layer's pointwise convolution.
    body = text.index("void mobilenet_v1_0_25_digits_features_3_pointwise_0(")
    assert ", -128, " in text[body:]
    source.write_text(text[:body] + text[body:].replace(", -128, ", ", -120, ", 1))
    manifest = Artifact.load(compiled).manifest
    write_manifest(broken, {key: value for key, value in manifest.items() if key not in ("format", "files")})
    code, out, _ = thumbnet("test", broken, "--device", "qemu_mps2_an386", "--images", BUNDLED_IMAGES, "--limit", 3)
    assert code == 1
    assert "the first different one is features.3.pointwise.0" in out


@pytest.mark.emulated
@pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")
def test_an_arena_that_is_too_small_is_told_with_the_stage(refused, compiled, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(compiled, broken)
    manifest = Artifact.load(compiled).manifest
    header = broken / "mobilenet_v1_0_25_digits.h"
    size = manifest["arena_bytes"]
    text = header.read_text()
    assert f"_ARENA_BYTES {size}\n" in text
    header.write_text(text.replace(f"_ARENA_BYTES {size}\n", f"_ARENA_BYTES {size - 32}\n"))
    manifest["arena_bytes"] = size - 32
    write_manifest(broken, {key: value for key, value in manifest.items() if key not in ("format", "files")})
    line = refused("test", broken, "--device", "qemu_mps2_an386", "--images", BUNDLED_IMAGES, "--limit", 1)
    found = re.search(
        r"wrote up to (\d+) bytes behind the end of its arena of (\d+) bytes, seen after stage (\S+);", line
    )
    assert found, line
    assert 0 < int(found[1]) <= 32
    assert int(found[2]) == size - 32
    assert found[3] in [stage["name"] for stage in manifest["layers"]]


@pytest.mark.emulated
@pytest.mark.slow
@pytest.mark.needs_tools("aarch64-linux-gnu-gcc", "qemu-aarch64")
def test_tuning_gives_fewer_instructions_and_the_same_bytes(thumbnet, tmp_path, monkeypatch):
    # What is tuned are TVM's schedules: the untuned ones, not our own kernels, are what there is to improve on.
    monkeypatch.setattr(Board, "instruction_set", None)
    common = (DIGITS, "--calibration", CALIBRATION)
    code, _, err = thumbnet("tune", *common, "--device", "qemu_raspberry_pi_4", "--trials", 24, "-o", tmp_path / "db")
    assert code == 0, err
    counts = {}
    for name, tuning in (("plain", ()), ("tuned", ("--tuning", tmp_path / "db"))):
        out = tmp_path / name
        assert thumbnet("compile", *common, "--board", "raspberry_pi_4", *tuning, "-o", out)[0] == 0
        test = ("test", out, "--device", "qemu_raspberry_pi_4", "--images", BUNDLED_IMAGES, "--limit", 3)
        assert thumbnet(*test, "--json", tmp_path / "report.json")[0] == 0
        report = json.loads((tmp_path / "report.json").read_text())
        assert report["equal_to_reference"] is True
        counts[name] = report["instructions_per_inference"]
    assert counts["tuned"] < counts["plain"]


def test_weights_missing(refused, tmp_path):
    line = refused("compile", "mobilenet_v1_0.25_128", "--board", "mps2_an386", "-o", tmp_path / "a")
    assert "no weights are bundled" in line
    line = refused(
        *("compile", DIGITS, "--weights", tmp_path / "none.pt", "--board", "mps2_an386", "-o", tmp_path / "a")
    )
    assert "none.pt: no such weights file" in line


def test_weights_truncated_or_of_another_network(refused, tmp_path):
    whole = (BUNDLED_FOLDER / f"{DIGITS}.pt").read_bytes()
    cut = tmp_path / "cut.pt"
    cut.write_bytes(whole[: len(whole) // 2])
    assert "cut.pt" in refused("compile", DIGITS, "--weights", cut, "--board", "mps2_an386", "-o", tmp_path / "a")
    other = BUNDLED_FOLDER / "mobilenet_v2_0.35_digits.pt"
    line = refused("compile", DIGITS, "--weights", other, "--board", "mps2_an386", "-o", tmp_path / "a")
    assert "mobilenet_v2_0.35" in line
    assert not (tmp_path / "a").exists()


def test_wrong_class_count(refused, tmp_path):
    arguments = ("compile", DIGITS, "--classes", 12, "--calibration", CALIBRATION, "--board", "mps2_an386")
    line = refused(*arguments, "-o", tmp_path / "a")
    assert "has 10 classes, 12 were asked for" in line


def test_no_ranges(refused, tmp_path):
    weights = ("--weights", BUNDLED_FOLDER / f"{DIGITS}.pt")
    line = refused("compile", DIGITS, *weights, "--board", "mps2_an386", "-o", tmp_path / "a")
    assert "--calibration DIR" in line


def test_calibration_with_a_file_that_is_no_image(refused, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "notes.png").write_text("no image")
    line = refused(*("compile", DIGITS, "--calibration", folder, "--board", "mps2_an386", "-o", tmp_path / "a"))
    assert "notes.png: not an image" in line


def test_unknown_board_and_device(refused, compiled, tmp_path):
    line = refused("compile", DIGITS, "--board", "mps2_an368", "-o", tmp_path / "a")
    assert "did you mean mps2_an386?" in line
    line = refused("test", compiled, "--device", "qemu_mps2_an387", "--images", BUNDLED_IMAGES)
    assert "did you mean qemu_mps2_an386?" in line


def test_network_too_large_says_both_numbers_and_what_fits(refused, tmp_path):
    spec = get_spec("mobilenet_v2_1.0_224")
    torch.manual_seed(0)
    torch.save(build_model(replace(spec, classes=5)).state_dict(), tmp_path / "v2.pt")
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "noise.png")
    line = refused(
        *("compile", spec.name, "--weights", tmp_path / "v2.pt", "--calibration", folder),
        *("--board", "nucleo_f746zg", "-o", tmp_path / "a"),
    )
    assert "nucleo_f746zg has 1024 KiB" in line
    assert "the largest MobileNet V2 that fits is" in line
    assert "(5 classes)" in line
    assert not (tmp_path / "a").exists()


def test_artifact_for_another_core(refused, compiled):
    line = refused("test", compiled, "--device", "qemu_mps3_an547", "--images", BUNDLED_IMAGES)
    assert "compile with --board mps3_an547" in line


def test_artifact_missing_or_changed(refused, compiled, tmp_path):
    line = refused("test", tmp_path, "--device", "qemu_mps2_an386", "--images", BUNDLED_IMAGES)
    assert "no manifest.json" in line
    changed = tmp_path / "changed"
    shutil.copytree(compiled, changed)
    with (changed / "mobilenet_v1_0_25_digits.c").open("a") as file:
        file.write("/* */\n")
    line = refused("test", changed, "--device", "qemu_mps2_an386", "--images", BUNDLED_IMAGES)
    assert "changed since it was compiled" in line


def test_output_folder_that_is_not_an_artifact(refused, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    line = refused("compile", DIGITS, "--calibration", CALIBRATION, "--board", "mps2_an386", "-o", tmp_path)
    assert "name another folder" in line
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_float_on_a_microcontroller(refused, tmp_path):
    line = refused("compile", DIGITS, "--quantize", "none", "--board", "mps2_an386", "-o", tmp_path / "a")
    assert "int8 networks only" in line


@pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")
def test_emulator_missing(refused, compiled, monkeypatch):
    which = shutil.which
    monkeypatch.setattr(
        emulator.shutil, "which", lambda name, *more: None if name == "qemu-system-arm" else which(name, *more)
    )
    line = refused("test", compiled, "--device", "qemu_mps2_an386", "--images", BUNDLED_IMAGES, "--limit", 1)
    assert "apt install qemu-system-arm" in line


def test_a_device_that_does_not_answer(refused, compiled, tmp_path):
    desk = tmp_path / "devices.toml"
    desk.write_text('[devices.board]\nboard = "mps2_an386"\nkind = "serial"\nport = "/dev/ttyNOTHERE"\n')
    line = refused("test", compiled, "--device", "board", "--devices", desk, "--images", BUNDLED_IMAGES, "--limit", 1)
    assert "/dev/ttyNOTHERE" in line


@pytest.mark.emulated
@pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")
def test_tuning_a_microcontroller(thumbnet, tmp_path):
    code, out, err = thumbnet(
        *("tune", DIGITS, "--device", "qemu_mps2_an386", "--trials", 40, "-o", tmp_path / "db"),
        *("--json", tmp_path / "tuned.json"),
    )
    assert code == 0, err
    found = json.loads((tmp_path / "tuned.json").read_text())
    assert (found["kind"], found["end"], found["trials"]) == ("predicted cycles", "trials", 40)
    assert 0 < found["tuned"] <= found["untuned"]
    for which in ("tuned", "untuned"):
        stages = found[f"{which}_stages"]
        assert found[which] == pytest.approx(sum(stage["cost"] for stage in stages))
        assert len([layer for stage in stages for layer in stage["layers"]]) == 29
    assert "40 stages measured" in out
    assert "the same command with more goes on from here" in out
    assert (tmp_path / "db" / "tuning.png").read_bytes()[:4] == b"\x89PNG"
    # Then its records choose the plan, where those of emulated boards may.
    arguments = ("compile", DIGITS, "--board", "mps2_an386", "--tuning", tmp_path / "db", "-o", tmp_path / "out")
    assert "--emulated-records takes those of emulated boards" in thumbnet(*arguments)[2]
    code, out, err = thumbnet(*arguments, "--emulated-records")
    assert code == 0, err
    manifest = Artifact.load(tmp_path / "out").manifest
    costs = [stage["measured"]["predicted cycles"] for stage in manifest["layers"] if "measured" in stage]
    assert manifest["tuned"]
    assert manifest["tuning"] == {
        "kind": "predicted cycles",
        "measured_stages": len(costs),
        "measured_cost": pytest.approx(sum(costs)),
        "shipped": False,
    }
    assert 0 < len(costs) <= len(manifest["layers"])
    assert f"{len(costs)} of {len(manifest['layers'])}, which cost {sum(costs):,.0f} predicted cycles" in out
    code, out, _ = thumbnet("records", "check", tmp_path / "db")
    assert code == 0
    assert "0 of 40 lines are damaged" in out


def test_tuning_takes_devices_of_one_board(refused, tmp_path):
    devices = ("--device", "qemu_mps2_an386", "--device", "qemu_mps2_an505")
    line = refused("tune", DIGITS, *devices, "-o", tmp_path / "db")
    assert "qemu_mps2_an386 is a mps2_an386, qemu_mps2_an505 a mps2_an505; name devices of one board" in line
    line = refused("tune", DIGITS, "--device", "local", "--space", "kernels", "-o", tmp_path / "db")
    assert "local: no kernels of our own run on a host; take --space tvm" in line
    two = ("--device", "local", "--device", "qemu_raspberry_pi_4")
    line = refused("tune", DIGITS, *two, "--space", "tvm", "-o", tmp_path / "db")
    assert "the host and float32 are tuned on one device, not on 2" in line
