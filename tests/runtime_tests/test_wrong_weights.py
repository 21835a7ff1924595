"""A wrong weight on the device that shows on a later image only: named are layer, element and both values."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from thumbnet.compile.artifact import Artifact, write_manifest
from thumbnet.compile.compile_model import REFERENCE_FILE
from thumbnet.compile.emit.emit_c import emit_c
from thumbnet.compile.emit.stage_library import build_stage_library
from thumbnet.compile.errors import ArtifactError
from thumbnet.compile.kernels.instruction_sets import KERNELS
from thumbnet.compile.network.integer_network import Convolution
from thumbnet.compile.network.network_file import load_network
from thumbnet.compile.network.reference import run_reference, run_reference_layers
from thumbnet.compile.plan.fit import arena_limit
from thumbnet.compile.plan.lowered_network import lower_network
from thumbnet.compile.quantize_request import quantize_input
from thumbnet.compile.request import CompileOptions
from thumbnet.models.image_folder import list_images
from thumbnet.models.weights import BUNDLED_FOLDER, BUNDLED_IMAGES
from thumbnet.runtime_tests.network_tests import run_tests
from thumbnet.runtime_tests.open_session import open_session
from thumbnet.targets.devices import get_device
from thumbnet.tools.network import compile_network, load_trained
from thumbnet.tools.network_options import NetworkFiles

IMAGES = list_images(BUNDLED_IMAGES).images[:8]
DEVICES = [
    pytest.param(
        "qemu_mps2_an386",
        marks=[pytest.mark.emulated, pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")],
    ),
    pytest.param(
        "qemu_raspberry_pi_4",
        marks=[
            pytest.mark.emulated,
            pytest.mark.slow,
            pytest.mark.needs_tools("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++", "qemu-aarch64"),
        ],
    ),
]


@pytest.fixture(scope="module", params=DEVICES)
def compiled(request, tmp_path_factory):
    """A device, and the digits network compiled for it."""
    device = get_device(request.param)
    files = NetworkFiles("mobilenet_v1_0.25_digits", calibration=BUNDLED_FOLDER / "calibration", calibration_limit=8)
    folder = tmp_path_factory.mktemp("compiled") / "digits"
    return device, compile_network(files, device.board, folder, CompileOptions(untuned=True))


def inputs_of(artifact):
    network, preprocessing = load_network(artifact.folder / REFERENCE_FILE), load_trained(artifact).preprocessing
    images = [quantize_input(network, preprocessing.to_float(preprocessing.pixels(image.path))) for image in IMAGES]
    return network, images


def change_weight(network, images, changes_only):
    """Change a weight so that only the images that a function chooses by number get another output."""
    values = [run_reference_layers(network, image) for image in images]
    outputs = [run_reference(network, image) for image in images]
    for at, layer in enumerate(network.layers):
        if not isinstance(layer, Convolution) or layer.kernel != (1, 1) or layer is network.output:
            continue
        seen = np.stack([value[layer.source] != layer.input_zero_point for value in values]).any(axis=(1, 2))
        # A channel that the first image leaves at zero, and another image doesn't.
        for channel in np.flatnonzero(~seen[0] & seen.any(axis=0)):
            for output in range(layer.weight.shape[0]):
                weight, bias = layer.weight.copy(), layer.bias.copy()
                before = int(weight[output, 0, 0, channel])
                weight[output, 0, 0, channel] = 127 if before < 0 else -127
                # What the zero point contributes is in the bias.
                bias[output] -= layer.input_zero_point * (int(weight[output, 0, 0, channel]) - before)
                layers = list(network.layers)
                layers[at] = replace(layer, weight=weight, bias=bias)
                wrong = replace(network, layers=tuple(layers))
                differs = [
                    bool((run_reference(wrong, image) != right).any())
                    for image, right in zip(images, outputs, strict=True)
                ]
                if changes_only(differs):
                    return wrong, layer.name, differs.index(True)
    raise AssertionError("no weight shows on a later image only")


def put_on_device(network, artifact, device, folder):
    """Return the artifact with another network's code, and its own reference and golden vectors."""
    shutil.copytree(artifact.folder, folder)
    kernels = KERNELS[device.board.instruction_set]
    texts = {"title": "a wrong weight", "generator": "thumbnet's tests"}
    if artifact.manifest["kind"] == "c":
        lowered = lower_network(network, ram_bytes=arena_limit(device.board), kernels=kernels)
        emit_c(lowered, artifact.name, folder, **texts)
    else:
        lowered = lower_network(network, kernels=kernels, spent_on_ram=0.0)
        build_stage_library(lowered, artifact.name, device.board, folder, **texts)
    assert [stage.name for stage in lowered.stages] == [stage["name"] for stage in artifact.manifest["layers"]]
    write_manifest(folder, {key: artifact.manifest[key] for key in artifact.manifest if key not in ("format", "files")})
    return Artifact.load(folder)


def check(device, artifact, images=IMAGES):
    with open_session(device) as session:
        report = run_tests(artifact, session, load_trained(artifact), images)
    return report, {check.name: check for check in report.checks}


def test_a_weight_that_shows_on_a_later_image_names_its_layer_element_and_values(compiled, tmp_path):
    device, artifact = compiled
    network, images = inputs_of(artifact)
    wrong, layer, number = change_weight(network, images, lambda differs: not differs[0] and any(differs))
    assert number > 0
    report, checks = check(device, put_on_device(wrong, artifact, device, tmp_path / "wrong"))
    assert not report.passed
    assert f"the first that doesn't is {IMAGES[number].path.name}" in checks["equal to the reference"].detail
    # A stage of several layers goes by the last one's name: the first stage that ends at the layer or behind it.
    names = [one.name for one in network.layers]
    stages = [stage["name"] for stage in artifact.manifest["layers"]]
    stage = next(name for name in stages if names.index(name) >= names.index(layer))
    found, expected = (run_reference_layers(one, images[number])[stage] for one in (wrong, network))
    element = tuple(int(index) for index in np.argwhere(found != expected)[0])
    assert report.values["layers_different"][0] == stage
    assert checks["every layer equal"].status.value == "failed"
    assert checks["every layer equal"].detail.endswith(
        f"equal on {IMAGES[number].path.name}; the first different one is {stage}: element {list(element)} is "
        f"{found[element]} on the device, {expected[element]} in the reference"
    )


@pytest.mark.parametrize(("left_in", "left_out"), [(0, 0), (3, 1)])
def test_an_artifact_without_golden_vectors_proves_nothing(compiled, tmp_path, left_in, left_out):
    device, artifact = compiled
    folder = tmp_path / "artifact"
    shutil.copytree(artifact.folder, folder)
    inputs, outputs = artifact.golden()
    np.savez_compressed(folder / "golden.npz", inputs=inputs[:left_in], outputs=outputs[:left_out])
    write_manifest(folder, {key: artifact.manifest[key] for key in artifact.manifest if key not in ("format", "files")})
    try:
        report, checks = check(device, Artifact.load(folder), IMAGES[:2])
        assert not report.passed
        assert checks["golden vectors"].status.value == "failed"
        said = checks["golden vectors"].detail
    except ArtifactError as error:
        said = str(error)
    assert f"{left_in} inputs and {left_out} outputs" in said


def test_a_wrong_golden_vector_is_looked_into_where_the_images_are_right(compiled, tmp_path):
    device, artifact = compiled
    folder = tmp_path / "wrong"
    shutil.copytree(artifact.folder, folder)
    inputs, outputs = artifact.golden()
    outputs = outputs.copy()
    outputs[1, 3] += 1
    np.savez_compressed(folder / "golden.npz", inputs=inputs, outputs=outputs)
    write_manifest(folder, {key: artifact.manifest[key] for key in artifact.manifest if key not in ("format", "files")})
    _, checks = check(device, Artifact.load(folder), IMAGES[:2])
    assert checks["golden vectors"].status.value == "failed"
    count = len(artifact.manifest["layers"])
    assert checks["every layer equal"].detail == (
        f"{count} of {count} equal on golden vector 1, whose output is wrong: "
        "one by one the device computes the layers right"
    )
