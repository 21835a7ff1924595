"""`run_tests` on float32 libraries: every stage is compared, and a wrong weight is found in its own."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from thumbnet.compile.artifact import Artifact, write_manifest
from thumbnet.compile.emit.stage_library import build_stage_library
from thumbnet.compile.kernels.instruction_sets import float_kernels_of
from thumbnet.compile.network.float_network import FloatConvolution
from thumbnet.compile.passes.match_float_layers import match_float_layers
from thumbnet.compile.plan.lowered_network import lower_network
from thumbnet.compile.quantize_request import import_network
from thumbnet.compile.request import CompileOptions
from thumbnet.models.image_folder import list_images
from thumbnet.models.weights import BUNDLED_IMAGES
from thumbnet.runtime_tests.network_tests import _relative_error, run_tests
from thumbnet.runtime_tests.open_session import open_session
from thumbnet.targets.devices import get_device
from thumbnet.tools.network import compile_network, load_trained, make_request
from thumbnet.tools.network_options import NetworkFiles

IMAGES = list_images(BUNDLED_IMAGES).images[:3]
DEVICE = get_device("qemu_raspberry_pi_4")
FILES, FLOAT = NetworkFiles("mobilenet_v2_0.35_digits"), CompileOptions(quantize="none")
pytestmark = [
    pytest.mark.emulated,
    pytest.mark.needs_tools("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++", "qemu-aarch64"),
]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    return compile_network(FILES, DEVICE.board, tmp_path_factory.mktemp("compiled") / "digits", FLOAT)


def _check(artifact):
    with open_session(DEVICE) as session:
        report = run_tests(artifact, session, load_trained(artifact), IMAGES)
    return report, {check.name: check for check in report.checks}


def _with_weight(artifact, folder, change):
    """Return the artifact with the library of a network with one weight changed, and the stage that has it."""
    network = match_float_layers(import_network(make_request(FILES, DEVICE.board, FLOAT)))
    at = next(at for at, layer in enumerate(network.layers) if isinstance(layer, FloatConvolution) and at > 8)
    layer = network.layers[at]
    weight = layer.weight.copy()
    largest = np.unravel_index(np.argmax(np.abs(weight)), weight.shape)
    weight[largest] = change(weight[largest])
    layers = (*network.layers[:at], replace(layer, weight=weight), *network.layers[at + 1 :])
    board = DEVICE.board
    lowered = lower_network(
        replace(network, layers=layers), kernels=float_kernels_of(board), spent_on_ram=0.0, caches=board.caches
    )
    shutil.copytree(artifact.folder, folder)
    build_stage_library(lowered, artifact.name, DEVICE.board, folder, title="wrong", generator="thumbnet's tests")
    write_manifest(folder, {key: artifact.manifest[key] for key in artifact.manifest if key not in ("format", "files")})
    return Artifact.load(folder), next(
        stage.name for stage in lowered.stages if layer.name in [o.name for o in stage.layers]
    )


def test_every_stage_is_close_and_the_worst_is_named(compiled):
    report, checks = _check(compiled)
    assert report.passed
    count = len(compiled.manifest["layers"])
    worst, error = report.values["worst_layer"], report.values["worst_layer_error"]
    assert (report.values["layers_compared"], report.values["layers_different"]) == (count, [])
    assert worst in {layer["name"] for layer in compiled.manifest["layers"]}
    assert 0 < error < 1e-5
    assert 0 < report.values["largest_relative_error"] < 1e-5
    assert checks["every layer close"].detail == (
        f"{count} of {count} within 1e-04 of their largest value on {IMAGES[0].path.name}; the worst is {worst}: "
        f"{error:.2e}"
    )
    assert "1e-04 is allowed" in checks["close to PyTorch float"].detail


def test_what_is_no_number_is_infinitely_far_off():
    expected = np.array([[[1.0, -4.0]]], np.float32)
    assert _relative_error(np.array([1.0, -3.0], np.float32), expected) == 0.25
    for wrong in (np.nan, np.inf):
        assert _relative_error(np.array([wrong, -4.0], np.float32), expected) == np.inf


@pytest.mark.parametrize(
    "change", [lambda weight: weight * np.float32(1.05), lambda weight: -weight], ids=["5 % more", "other sign"]
)
def test_a_wrong_weight_is_found_in_its_stage(compiled, tmp_path, change):
    artifact, stage = _with_weight(compiled, tmp_path / "wrong", change)
    report, checks = _check(artifact)
    assert not report.passed
    assert report.values["layers_different"][0] == stage
    assert checks["every layer close"].status.value == "failed"
    assert f"the first too far off is {stage}: element [" in checks["every layer close"].detail
    assert checks["close to PyTorch float"].status.value == "failed"
    assert report.values["worst_layer_error"] > 1e-4
