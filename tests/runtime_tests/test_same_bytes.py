"""The same bytes everywhere: whole MobileNets on every built-in device, against the reference in Python.

The outputs are compared with the network of all channels, each stage with that of the artifact: what dead channels were
removed differs from backend to backend. A device of a new board joins by standing in the registry.
"""

import functools
import subprocess
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from thumbnet.compile.compile_model import compile_model
from thumbnet.compile.errors import DoesNotFitError
from thumbnet.compile.network.integer_relax import read_relax
from thumbnet.compile.network.network_file import load_reference
from thumbnet.compile.network.reference import run_reference, run_reference_layers
from thumbnet.compile.quantize_request import quantize_network
from thumbnet.compile.request import CompileOptions, CompileRequest
from thumbnet.models.image_folder import list_images
from thumbnet.models.variants import get_spec
from thumbnet.models.weights import BUNDLED_CALIBRATION, BUNDLED_IMAGES, load_model
from thumbnet.runtime_tests.open_session import open_session
from thumbnet.targets.devices import BUILT_IN, get_device
from thumbnet.targets.registry import get_board
from thumbnet.tools import workloads

BUNDLED = ("mobilenet_v1_0.25_digits", "mobilenet_v2_0.35_digits")
HOSTED = ("mobilenet_v1_0.25_128", "mobilenet_v1_0.5_160", "mobilenet_v2_1.0_224")
#: Widths that leave numbers of channels which fill no vector, and odd resolutions.
RANDOM = tuple(
    (model, seed)
    for model in ("mobilenet_v1_0.3_51", "mobilenet_v1_0.7_37", "mobilenet_v2_0.45_75", "mobilenet_v2_0.2_61")
    for seed in range(3)
)

#: Of images that are no squares: gray and colour.
WIDE = (("mobilenet_v1_0.25_120x160", 1), ("mobilenet_v2_0.35_120x160", 3))


@dataclass(frozen=True)
class _Network:
    """A float network, how it is quantized, and the images ``[1, C, H, W]`` it is compared on."""

    name: str
    module: torch.nn.Module
    images: tuple[torch.Tensor, ...]
    calibration: tuple[torch.Tensor, ...] = ()
    activation_quant: dict | None = None
    weight_scales: dict | None = None

    def request(self, board, *, keep=False):
        return CompileRequest(
            self.name,
            self.module,
            tuple(self.images[0].shape[1:]),
            board,
            CompileOptions(keep_dead_channels=keep),
            calibration=self.calibration,
            activation_quant=self.activation_quant,
            weight_scales=self.weight_scales,
            golden_images=self.images,
        )

    @functools.cached_property
    def reference(self):
        """The network with all its channels."""
        return read_relax(quantize_network(self.request(get_board("host"), keep=True)))


@functools.cache
def _bundled(name):
    trained = load_model(name)
    to_float, pixels = trained.preprocessing.to_float, trained.preprocessing.pixels
    images, calibration = (
        tuple(to_float(pixels(image.path)) for image in list_images(folder).images[:3])
        for folder in (BUNDLED_IMAGES, BUNDLED_CALIBRATION)
    )
    return _Network(name, trained.module, images, calibration)


@functools.cache
def _hosted(name, folder):
    trained = load_model(name, folder / "models" / f"{name}_quant.tflite")
    files = list_images(folder / "images").images[::150]
    images = tuple(trained.preprocessing.to_float(trained.preprocessing.pixels(image.path)) for image in files)
    return _Network(name, trained.module, images, (), trained.activation_quant, trained.weight_scales)


@functools.cache
def _random(model, seed, channels=3):
    spec = replace(get_spec(model), classes=11, input_channels=channels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workloads, "SEED", seed)
        module, images = workloads._made_network.__wrapped__(spec, "random")
    inputs = tuple(image[None] for image in images)
    return _Network(model, module, inputs[:3], inputs)


def _device(device):
    """Return a parameter with the tools that the device needs."""
    compiler = device.board.cross_compiler
    if device.kind == "local":
        tools = ("gcc", "g++")
    elif device.board.family == "cortex-m":
        tools = (compiler, "qemu-system-arm")
    elif compiler.startswith("aarch64"):
        tools = (compiler, compiler.replace("gcc", "g++"), "qemu-aarch64")
    else:
        tools = (compiler, "qemu-arm")
    marks = [pytest.mark.needs_tools(*tools), *([pytest.mark.emulated] if device.kind == "emulated" else [])]
    return pytest.param(device, id=device.name, marks=marks)


DEVICES = [_device(device) for device in BUILT_IN]


@functools.cache
def _qemu_machines():
    listed = subprocess.run(["qemu-system-arm", "-machine", "help"], capture_output=True, text=True, check=True)
    return {line.split()[0] for line in listed.stdout.splitlines() if line.strip()}


def _check(network, device, folder):
    if device.board.family == "cortex-m" and device.board.qemu not in _qemu_machines():
        pytest.skip(f"this QEMU has no {device.board.qemu}")
    try:
        artifact = compile_model(network.request(device.board), folder / "artifact")
    except DoesNotFitError as error:
        pytest.skip(str(error))
    own = load_reference(artifact)
    with open_session(device) as session:
        session.load(artifact)
        for image in artifact.golden()[0]:
            expected = run_reference_layers(own, image)
            _check_layers(device, session.run_layers(image), expected)
            np.testing.assert_array_equal(session.run(image), run_reference(network.reference, image), device.name)


def _check_layers(device, found, expected):
    """Fail with the name of the first layer that is not the reference's."""
    assert found
    for name, values in found.items():
        wrong = np.flatnonzero(values.reshape(-1) != expected[name].reshape(-1))
        assert not len(wrong), f"{name} on {device.name}: {len(wrong)} of {values.size} bytes differ, first {wrong[0]}"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_networks(name, device, tmp_path):
    _check(_bundled(name), device, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("model", "channels"), WIDE)
def test_images_that_are_no_squares(model, channels, device, tmp_path):
    _check(_random(model, 0, channels), device, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_five_by_five_and_seven_by_seven(device, tmp_path):
    _check(_random("proxyless_vww_80", 0), device, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("model", "seed"), RANDOM)
def test_random_networks(model, seed, device, tmp_path):
    _check(_random(model, seed), device, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", HOSTED)
def test_hosted_networks(name, device, shared_data, tmp_path):
    _check(_hosted(name, shared_data), device, tmp_path)


def test_the_devices_are_all_kinds_of_kernels():
    boards = {parameter.values[0].board for parameter in DEVICES}
    assert {board.instruction_set for board in boards} >= {None, "dsp", "mve", "neon", "dotprod"}
    assert {board.core for board in boards} >= {"cortex-m4", "cortex-m55", "cortex-a53", "cortex-a72", "cortex-a76"}


def test_a_difference_names_the_layer():
    right = {"features.0": np.zeros((2, 2, 3), np.int8), "features.1": np.zeros((1, 1, 4), np.int8)}
    wrong = {name: values.copy() for name, values in right.items()}
    wrong["features.1"][0, 0, 2] ^= 1
    device = get_device("qemu_raspberry_pi_4")
    _check_layers(device, right, right)
    with pytest.raises(AssertionError, match=r"features\.1 on qemu_raspberry_pi_4: 1 of 4 bytes differ, first 2"):
        _check_layers(device, wrong, right)
