"""What a person says of a network's preprocessing and conventions goes all the way into the artifact."""

import json
from dataclasses import replace

import pytest
import torch

from thumbnet.compile.artifact import Artifact
from thumbnet.models.given_preprocessing import GivenPreprocessing
from thumbnet.models.variants import build_model, get_spec
from thumbnet.models.weights import BUNDLED_CALIBRATION, load_model
from thumbnet.targets.registry import get_board
from thumbnet.tools.network import load_trained, make_request
from thumbnet.tools.network_options import NetworkFiles

DIGITS = "mobilenet_v1_0.25_digits"
BOARD = ("--board", "mps2_an386")
OPTIONS = (
    *("--mean", "0.5", "--std", "0.25", "--resize-mode", "short-side", "--crop-fraction", "0.8"),
    *("--interpolation", "bicubic", "--label-offset", "1"),
    *("--padding", "symmetric", "--bn-epsilon", "1e-5", "--activation", "relu"),
)
FILE = """
mean = 0.5
std = [0.25]
resize_mode = "short-side"
crop_fraction = 0.8
interpolation = "bicubic"
label_offset = 1
padding = "symmetric"
bn_epsilon = 1e-5
activation = "relu"
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    path = tmp_path_factory.mktemp("bare") / "digits.pth"
    torch.save(load_model(DIGITS).module.state_dict(), path)
    return path


def _compile(thumbnet, folder, *arguments):
    code, out, err = thumbnet("compile", DIGITS, *BOARD, "--calibration-limit", 4, *arguments, "-o", folder)
    assert code == 0, err
    return Artifact.load(folder), out


def test_options_and_a_file_of_them_come_to_the_same(thumbnet, bare, tmp_path):
    (tmp_path / "preprocessing.toml").write_text(FILE)
    common = ("--weights", bare, "--calibration", BUNDLED_CALIBRATION)
    by_options, out = _compile(thumbnet, tmp_path / "a", *common, *OPTIONS)
    by_file, _ = _compile(thumbnet, tmp_path / "b", *common, "--preprocessing", tmp_path / "preprocessing.toml")
    assert by_options.manifest["files"] == by_file.manifest["files"]
    manifest = by_options.manifest
    told = {
        **{"resolution": 32, "channels": 1, "resize_mode": "short-side", "crop_fraction": 0.8, "short_side": 40},
        **{"interpolation": "bicubic", "mean": [0.5], "std": [0.25], "label_offset": 1},
    }
    assert told.items() <= manifest["preprocessing"].items()
    assert manifest["conventions"] == {"padding": "symmetric", "bn_epsilon": 1e-5, "activation": "relu"}
    assert manifest["assumptions"] == ["padding symmetric, batch norm epsilon 1e-05, activation relu: as told"]
    assert "short side to 40 (bicubic), centre 32 x 32, gray" in out
    header = (by_options.folder / f"{by_options.name}.h").read_text()
    assert "short side to 40 (bicubic), centre 32 x 32, gray" in header
    assert "_MEAN_0 0.5f" in header and "_STD_0 0.25f" in header
    # `thumbnet test` runs the same network on the same pixels.
    trained = load_trained(by_options)
    assert told.items() <= trained.preprocessing.as_json().items()
    assert (trained.spec.padding, trained.spec.bn_epsilon, trained.spec.activation) == ("symmetric", 1e-5, "relu")


def test_options_take_precedence_over_the_file(thumbnet, bare, tmp_path):
    (tmp_path / "preprocessing.toml").write_text(FILE)
    artifact, _ = _compile(
        *(thumbnet, tmp_path / "a", "--weights", bare, "--calibration", BUNDLED_CALIBRATION),
        *("--preprocessing", tmp_path / "preprocessing.toml", "--interpolation", "nearest", "--padding", "same"),
    )
    assert artifact.manifest["preprocessing"]["interpolation"] == "nearest"
    assert artifact.manifest["preprocessing"]["crop_fraction"] == 0.8
    assert artifact.manifest["conventions"]["padding"] == "same"


def test_what_is_assumed_is_said_with_the_options_that_would_say_it(thumbnet, bare, tmp_path):
    artifact, out = _compile(thumbnet, tmp_path / "a", "--weights", bare, "--calibration", BUNDLED_CALIBRATION)
    assumptions = artifact.manifest["assumptions"]
    header = " ".join((artifact.folder / f"{artifact.name}.h").read_text().replace("\n *", " ").split())
    for options in (
        "(--mean, --std)",
        "(--resize-mode, --crop-fraction, --interpolation)",
        "(--label-offset)",
        "--padding, --bn-epsilon, --activation",
    ):
        assert sum(options in line for line in assumptions) == 1, options
        assert options in header
    assert out.count("│ assumed ") == len(assumptions) == 4
    partly, _ = _compile(
        *(thumbnet, tmp_path / "b", "--weights", bare, "--calibration", BUNDLED_CALIBRATION),
        *("--mean", "0", "--std", "1", "--crop-fraction", "1"),
    )
    lines = "\n".join(partly.manifest["assumptions"])
    assert "(--resize-mode, --interpolation)" in lines and "--mean" not in lines


def test_of_a_bundled_network_nothing_is_assumed(thumbnet, tmp_path):
    artifact, out = _compile(thumbnet, tmp_path / "a")
    assert artifact.manifest["assumptions"] == []
    assert "│ assumed " not in out
    header = (artifact.folder / f"{artifact.name}.h").read_text()
    assert "becomes pixel - 128." in header and "Assumed" not in header


def test_networks_of_torchvision_are_cropped_as_torchvision_does(thumbnet, tmp_path):
    name = "mobilenet_v2_0.35_96"
    torch.manual_seed(0)
    torch.save(build_model(get_spec(name)).state_dict(), tmp_path / "v2.pth")
    code, out, err = thumbnet(
        *("compile", name, "--weights", tmp_path / "v2.pth", "--quantize", "none", "--board", "host"),
        *("-o", tmp_path / "a", "--json", tmp_path / "a.json"),
    )
    assert code == 0, err
    assert "short side to 109 (bilinear), centre 96 x 96, RGB" in out
    manifest = json.loads((tmp_path / "a.json").read_text())
    assert manifest["preprocessing"]["mean"] == [0.485, 0.456, 0.406]


def test_another_scaling_than_the_file_s_gets_another_range_of_the_input(refused, shared_data, tmp_path):
    name = "mobilenet_v1_0.25_128"
    files = NetworkFiles(name, shared_data / "models" / f"{name}_quant.tflite")
    given = GivenPreprocessing(mean=(0.0,), std=(1.0,))
    requests = [make_request(item, get_board("host")) for item in (files, replace(files, preprocessing=given))]
    inputs = [request.activation_quant.pop("input") for request in requests]
    assert inputs == [(1 / 128, 0), (1 / 255, -128)]
    assert requests[0].activation_quant == requests[1].activation_quant
    # Channels that differ have no range that is known without images.
    imagenet = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")
    line = refused("compile", name, "--weights", files.weights, *BOARD, *imagenet, "-o", tmp_path / "a")
    assert "--calibration DIR" in line


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--mean", "0.5"), "mean is given without std"),
        (("--mean", "a,b", "--std", "1"), "'a,b' is not one number"),
        (("--mean", "0.5,", "--std", "1"), "'0.5,' is not one number"),
        (("--mean", "0.1,0.2,0.3", "--std", "1"), "mean has 3 values, the network takes 1 channels; give 1 or 1"),
        (("--mean", "127.5", "--std", "127.5"), "127.5 / 255 is 0.5"),
        (("--mean", "nan", "--std", "1"), "mean nan: must be a number"),
        (("--std", "0", "--mean", "0"), "std 0.0: must be a number, above 0"),
        (("--crop-fraction", "0"), "crop_fraction 0.0: must be a number above 0"),
        (("--resize-mode", "crop"), "'crop' is not one of"),
        (("--interpolation", "cubic"), "'cubic' is not one of"),
        (("--label-offset", "2"), "label_offset 2: must be 0, or 1"),
        (("--bn-epsilon", "-1"), "batch norm epsilon -1.0"),
        (("--padding", "valid"), "'valid' is not one of"),
        (("--preprocessing", "none.toml"), "none.toml: no such file of preprocessing"),
    ],
)
def test_what_can_not_be_meant_has_one_line(refused, bare, tmp_path, options, says):
    line = refused("compile", DIGITS, "--weights", bare, *BOARD, *options, "-o", tmp_path / "a")
    assert says in line
    assert not (tmp_path / "a").exists()
