"""Files of float networks that are damaged, or that say what no network is."""

import json
import random

import numpy as np
import pytest
import torch
from torch import nn

from thumbnet.compile.errors import ArtifactError
from thumbnet.compile.frontend.float_module import FloatModule
from thumbnet.compile.frontend.read_torch_network import read_torch_network
from thumbnet.compile.network.float_network_file import load_float_network, save_float_network

from ..torch_modules import Head, Residual, conv_unit


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    torch.manual_seed(0)
    module = nn.Sequential(conv_unit(3, 4), Residual(nn.Conv2d(4, 4, 3, 1, 1, groups=4)), nn.MaxPool2d(2), Head(4))
    path = tmp_path_factory.mktemp("network") / "network.npz"
    save_float_network(read_torch_network(module, (3, 12, 9))[0], path)
    return path


def _refused(path):
    """Load a file that must be refused in one line; a network that is read must compute."""
    try:
        network = load_float_network(path)
    except ArtifactError as error:
        assert "\n" not in str(error)
        return str(error)
    height, width, channels = network.input_shape
    FloatModule(network)(torch.zeros(1, channels, height, width))
    return None


WRONG_ARRAYS = (np.zeros(0), np.zeros(1), np.zeros((4, 4), np.float32), np.array("x"), np.zeros((2, 2), np.complex64))


@pytest.mark.parametrize("array", WRONG_ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays_that_are_none_of_the_layers(written, tmp_path, array):
    arrays = dict(np.load(written))
    for key in arrays:
        np.savez(tmp_path / "x.npz", **{**arrays, key: array})
        assert "not a float network" in _refused(tmp_path / "x.npz"), key
    for key, whole in arrays.items():
        np.savez(tmp_path / "x.npz", **{name: kept for name, kept in arrays.items() if name != key})
        assert "not a float network" in _refused(tmp_path / "x.npz"), key
        if key != "description":
            np.savez(tmp_path / "x.npz", **{**arrays, key: np.full_like(whole, np.nan)})
            assert "weights that are no finite numbers" in _refused(tmp_path / "x.npz")


WRONG_VALUES = (
    *(None, True, -1, 0, 65, 2**70, 1e300, float("nan"), "", "input", "no such layer", "FloatAdd", "FloatMaxPool"),
    *([], [1], [0, 0], [9, 9, 9], [4096] * 3, [64] * 4, {}),
)


@pytest.mark.parametrize("value", WRONG_VALUES, ids=str)
def test_layers_that_say_what_none_can(written, tmp_path, value):
    arrays = dict(np.load(written))
    description = json.loads(arrays["description"].tobytes())
    for number, layer in enumerate(description["layers"]):
        for key in [*layer, "kernel", "source_b", "more"]:
            if layer.get(key) == value:
                continue
            layers = [*description["layers"]]
            layers[number] = {**layer, key: value}
            text = json.dumps({**description, "layers": layers})
            np.savez(tmp_path / "x.npz", **{**arrays, "description": np.frombuffer(text.encode(), np.uint8)})
            found = _refused(tmp_path / "x.npz")
            # Clamps may be any number that leaves something between them, and the last layer any name.
            assert found or key in ("minimum", "maximum", "name", "input_zero_point", "kernel", "source_b", "more"), key


def test_damaged_bytes(written, tmp_path):
    whole, generator = written.read_bytes(), random.Random(0)
    for _ in range(100):
        data = bytearray(whole)
        for _ in range(generator.choice([1, 8])):
            data[generator.randrange(len(data))] = generator.randrange(256)
        (tmp_path / "x.npz").write_bytes(data[: generator.choice([len(data), generator.randrange(len(data))])])
        _refused(tmp_path / "x.npz")
