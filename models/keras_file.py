"""Reads the Keras .h5 of visual wake words (MLPerf Tiny), a MobileNet V1, without Keras."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from thumbnet.models.errors import WeightsFileError
from thumbnet.models.layers import Activation
from thumbnet.models.preprocessing import unit_preprocessing
from thumbnet.models.stored import BatchNorm, StoredLayer, StoredNetwork

_ACTIVATIONS: dict[str, Activation] = {"relu": "relu", "relu6": "relu6"}

# What h5py and the walk through its groups raise on a file that is cut short, or has another structure.
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError, AttributeError)


def read_keras(file: Path, data: bytes) -> StoredNetwork:
    """Read a functional Keras MobileNet V1 saved as .h5.

    Raises
    ------
    WeightsFileError
        The file is damaged, or no MobileNet V1 as MLPerf Tiny writes it.
    """
    try:
        with h5py.File(io.BytesIO(data), "r") as archive:
            return _read_network(file, archive)
    except _DAMAGE as error:
        raise WeightsFileError(f"{file}: a damaged .h5 file, or no Keras MobileNet V1") from error


def _read_network(file: Path, archive: h5py.File) -> StoredNetwork:
    config = json.loads(archive.attrs["model_config"])["config"]["layers"]
    layers: list[StoredLayer] = []
    activations: set[Activation] = set()
    shape: list[int] = []
    for entry in config:
        kind, settings = entry["class_name"], entry["config"]
        name = settings["name"]
        if kind == "InputLayer":
            shape = settings["batch_input_shape"]
        elif kind in ("Conv2D", "DepthwiseConv2D", "Dense"):
            layers.append(_read_layer(archive, name, kind, settings))
        elif kind == "BatchNormalization":
            layers[-1] = _with_batch_norm(layers[-1], archive, name, settings["epsilon"])
        elif kind == "Activation":
            activations.add(_ACTIVATIONS[settings["activation"]])
        elif kind not in ("AveragePooling2D", "GlobalAveragePooling2D", "Flatten", "Dropout", "Softmax"):
            raise WeightsFileError(f"{file}: layer {name} is {kind}, which no MobileNet V1 has")
    if not layers or layers[-1].kind != "linear" or len(activations) != 1 or len(shape) != 4:
        raise WeightsFileError(f"{file}: not a MobileNet classifier: no input, activation or classifier")
    resolution, channels = int(shape[1]), int(shape[3])
    return StoredNetwork(tuple(layers), resolution, activations.pop(), unit_preprocessing(resolution, channels))


def _read_layer(archive: h5py.File, name: str, kind: str, settings: dict[str, Any]) -> StoredLayer:
    if kind == "Dense":
        weight = _read(archive, name, "kernel").T.copy()
        return StoredLayer(name, "linear", weight, _read_bias(archive, name, settings, weight.shape[0]), 1)
    stride = int(settings["strides"][0])
    if kind == "DepthwiseConv2D":
        # Keras has HWC1 here and HWIO below.
        weight = _read(archive, name, "depthwise_kernel").transpose(2, 3, 0, 1).copy()
        return StoredLayer(name, "depthwise", weight, _read_bias(archive, name, settings, weight.shape[0]), stride)
    weight = _read(archive, name, "kernel").transpose(3, 2, 0, 1).copy()
    return StoredLayer(name, "conv", weight, _read_bias(archive, name, settings, weight.shape[0]), stride)


def _read(archive: h5py.File, layer: str, parameter: str) -> NDArray[np.float32]:
    return np.asarray(archive["model_weights"][layer][layer][f"{parameter}:0"], dtype=np.float32)


def _read_bias(archive: h5py.File, layer: str, settings: dict[str, Any], channels: int) -> NDArray[np.float32]:
    return _read(archive, layer, "bias") if settings["use_bias"] else np.zeros(channels, dtype=np.float32)


def _with_batch_norm(layer: StoredLayer, archive: h5py.File, name: str, epsilon: float) -> StoredLayer:
    norm = BatchNorm(
        gamma=_read(archive, name, "gamma"),
        beta=_read(archive, name, "beta"),
        mean=_read(archive, name, "moving_mean"),
        variance=_read(archive, name, "moving_variance"),
        epsilon=epsilon,
    )
    return StoredLayer(layer.name, layer.kind, layer.weight, layer.bias, layer.stride, norm)
