"""Networks by name for images that are no squares, from every kind of file."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from thumbnet.models.cost import compute_cost
from thumbnet.models.errors import ModelError
from thumbnet.models.preprocessing import keras_preprocessing, torchvision_preprocessing
from thumbnet.models.state_dict import write_checkpoint
from thumbnet.models.variants import get_spec
from thumbnet.models.weights import load_model

from . import keras_files as keras
from .state_dicts import assert_refused, make_network, save
from .tflite_files import NetworkFile

NAMES = ("mobilenet_v1_0.25_120x160", "mobilenet_v2_0.35_120x160", "mobilenet_v2_0.35_97x62")


def _make(name, channels):
    return make_network(replace(get_spec(name), classes=4, input_channels=channels, bn_epsilon=1e-3))


def _write_keras(tmp_path, network, shape, *, pads):
    layers = [*keras.list_layers(network, pads, shape[:2]), *keras.list_head(network)]
    return keras.write_archive(tmp_path / "x.keras", keras.functional(layers, shape), layers)


def _write_tflite(tmp_path, network, shape, *, pads):
    file = NetworkFile(network, pads=pads)
    image = file.graph.tensor((1, *shape), file.dtype, None)
    return file.write(tmp_path / "x.tflite", image, shape[:2], shape[2])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("pads", [False, True])
@pytest.mark.parametrize("write", [_write_keras, _write_tflite])
def test_keras_and_tflite(tmp_path, name, channels, pads, write):
    network, (_, rows, columns) = _make(name, channels), get_spec(name).input_shape
    file = write(tmp_path, network, (rows, columns, channels), pads=pads)
    model = load_model(name, file)
    assert model.spec.input_shape == (channels, rows, columns)
    assert model.preprocessing.size == (rows, columns)
    image = torch.randn(1, channels, rows, columns)
    torch.testing.assert_close(model.module(image), network(image), rtol=1e-4, atol=1e-4)
    other = name.replace(f"{rows}x{columns}", f"{columns}x{rows}")
    assert f"holds {name}, not {other}" in assert_refused(file, other)


def test_keras_leaves_the_size_open(tmp_path):
    network = _make(NAMES[0], 3)
    layers = [*keras.list_layers(network, pads=False), *keras.list_head(network)]
    file = keras.write_h5(tmp_path / "x.h5", keras.functional(layers, (None, None, 3)), layers)
    assert load_model(NAMES[0], file).preprocessing == keras_preprocessing(120, 4).of_size((120, 160))


def test_state_dicts_and_checkpoints(tmp_path):
    spec = replace(get_spec(NAMES[1]), classes=4, padding="symmetric", bn_epsilon=1e-5)
    network = make_network(spec)
    model = load_model(NAMES[1], save(tmp_path, network.state_dict()))
    assert model.preprocessing == torchvision_preprocessing(120).of_size((120, 160))
    image = np.zeros((120, 160, 3), np.uint8)
    assert model.module(model.preprocessing.to_float(image)).shape == (1, 4)
    path = tmp_path / "own.pt"
    write_checkpoint(path, network, spec, model.preprocessing, {})
    assert load_model(NAMES[1], path).preprocessing == model.preprocessing
    assert "holds mobilenet_v2_0.35_120x160, not" in assert_refused(path, "mobilenet_v2_0.35_120")
    small = save(tmp_path, make_network(replace(spec, width_multiplier=0.5)).state_dict(), "small.pth")
    assert "try mobilenet_v2_0.5_120x160" in assert_refused(small, NAMES[1])


def test_names_and_cost():
    assert get_spec("mobilenet_v1_0.25_128x128") == get_spec("mobilenet_v1_0.25_128")
    assert compute_cost(get_spec("mobilenet_v1_0.25_64x128")).layers[0].input_shape == (64, 128, 3)
    with pytest.raises(ModelError, match="resolution 4096 is not in 16 to 2048"):
        get_spec("mobilenet_v1_0.25_128x4096")
