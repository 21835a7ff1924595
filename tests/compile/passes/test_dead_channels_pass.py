"""Dead channels from PyTorch to the artifact: the pass, the published networks' figures, the manifest."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import tvm
from torch import nn
from tvm import relax

from thumbnet.compile.compile_model import compile_model
from thumbnet.compile.emit.build_library import build_executable
from thumbnet.compile.frontend.torch_to_relax import import_quantized, quantize_module
from thumbnet.compile.network.integer_relax import read_relax
from thumbnet.compile.network.network_file import load_reference
from thumbnet.compile.network.reference import run_reference, run_reference_layers
from thumbnet.compile.passes.pipeline import lower_to_integer
from thumbnet.compile.passes.remove_dead_channels import read_dead_channels
from thumbnet.compile.quantize_request import quantize_network
from thumbnet.compile.request import CompileOptions, CompileRequest
from thumbnet.models.weights import load_model
from thumbnet.targets.registry import get_board

from ..dead_networks import telling_images
from ..torch_modules import Head, Residual, calibrated, conv_unit

SHAPE = (3, 8, 8)


@pytest.fixture(scope="module")
def trained():
    """A network whose first unit has two channels that its ReLU6 always clamps, and images to calibrate it."""
    body = nn.Sequential(conv_unit(4, 4, groups=4, same=True), conv_unit(4, 4, 1, activation=None))
    module = nn.Sequential(conv_unit(3, 6), conv_unit(6, 6, groups=6), conv_unit(6, 4, 1), Residual(body), Head(4))
    module, images = calibrated(module, SHAPE)
    with torch.no_grad():
        module[0][1].bias[[1, 4]] = -100.0
    return module, images


@pytest.fixture(scope="module")
def both(trained):
    """The integer module with its dead channels, and without."""
    module, images = trained
    imported = import_quantized(quantize_module(module, images[0], calibration=images), images[0])
    return lower_to_integer(imported, remove_dead_channels=False), lower_to_integer(imported)


def test_clamped_channels_of_a_torch_network_go(both):
    kept, removed = (read_relax(module) for module in both)
    assert [layer.output_shape[2] for layer in kept.layers][:3] == [6, 6, 4]
    assert [layer.output_shape[2] for layer in removed.layers][:3] == [4, 4, 4]
    assert removed.input_shape == kept.input_shape
    assert removed.output.name == kept.output.name
    outputs = set()
    for image in telling_images(kept):
        outputs.add(run_reference(kept, image).tobytes())
        np.testing.assert_array_equal(run_reference(removed, image), run_reference(kept, image))
    assert len(outputs) > 3


def test_the_module_says_what_was_removed(both):
    kept, removed = both
    assert read_dead_channels(kept) is None
    found = read_dead_channels(removed)
    assert found["channels"] == 4
    assert found["before"]["macs"] == read_relax(kept).macs
    assert found["before"]["macs"] - found["macs"] == found["after"]["macs"] == read_relax(removed).macs
    assert [layer["name"] for layer in found["layers"]] == [layer.name for layer in read_relax(kept).layers[:3]]


def test_the_shrunk_module_runs(both):
    network = read_relax(both[0])
    machine = relax.VirtualMachine(build_executable(both[1], get_board("host")), tvm.cpu())
    for image in telling_images(network)[:6]:
        found = machine["main"](tvm.runtime.tensor(image[None])).numpy()[0]
        np.testing.assert_array_equal(found, run_reference(network, image))


@pytest.mark.parametrize("keep", [False, True])
def test_an_artifact_says_whether_they_are_in_it(trained, both, keep, tmp_path):
    module, images = trained
    board = get_board("mps2_an386")
    request = CompileRequest("net", module, SHAPE, board, CompileOptions(keep_dead_channels=keep), images)
    artifact = compile_model(request, tmp_path / "artifact")
    network = read_relax(both[0] if keep else both[1])
    assert artifact.manifest["macs"] == network.macs
    reference = load_reference(artifact)
    for name, values in run_reference_layers(reference, np.zeros(network.input_shape, np.int8)).items():
        assert values.shape == network.shape_of(name)
    expected = "kept" if keep else {"removed": json.loads(json.dumps(read_dead_channels(both[1])))}
    assert artifact.manifest["dead_channels"] == expected


def _quantized(shared_data, name, file):
    loaded = load_model(name, shared_data / "models" / file)
    request = CompileRequest(
        name,
        loaded.module,
        (3, loaded.spec.resolution, loaded.spec.resolution),
        get_board("mps2_an500"),
        activation_quant=loaded.activation_quant,
        weight_scales=loaded.weight_scales,
    )
    kept = read_relax(quantize_network(replace(request, options=CompileOptions(keep_dead_channels=True))))
    module = quantize_network(request)
    images = telling_images(kept)
    for image in images:
        np.testing.assert_array_equal(run_reference(read_relax(module), image), run_reference(kept, image))
    assert len({run_reference(kept, image).tobytes() for image in images}) > 2
    return kept, read_relax(module), read_dead_channels(module)


def _parameter_bytes(network):
    return sum(layer.weight.nbytes + layer.bias.nbytes for layer in network.layers if layer.macs)


def test_half_of_visual_wake_words_is_dead(shared_data):
    kept, removed, found = _quantized(shared_data, "vww_96", "vww_96_int8.tflite")
    assert (kept.macs, removed.macs) == (7_489_664, 3_727_313)
    assert (_parameter_bytes(kept), _parameter_bytes(removed)) == (219_064, 33_122)
    assert found["channels"] == 1958
    assert not any(layer.requantization.left_shift.any() for layer in removed.layers if layer.macs)


def test_hardly_any_of_an_imagenet_network_is(shared_data):
    kept, removed, found = _quantized(shared_data, "mobilenet_v1_0.25_128", "mobilenet_v1_0.25_128_quant.tflite")
    assert found["channels"] == 8
    # They are few, but where the pixels are many.
    assert (kept.macs, removed.macs) == (13_570_304, 12_868_864)
