"""Reads the Keras .h5 of visual wake words (MLPerf Tiny), a MobileNet V1, without Keras."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from thumbnet.models.conventions import Conventions
from thumbnet.models.errors import ModelError, WeightsFileError
from thumbnet.models.layers import Activation
from thumbnet.models.preprocessing import unit_preprocessing
from thumbnet.models.stored import BatchNorm, StoredLayer, StoredNetwork
from thumbnet.models.weights_file import LARGEST_BYTES, shorten

_ACTIVATIONS: dict[str, Activation] = {"relu": "relu", "relu6": "relu6"}
#: Layers that change no weight.
_IGNORED = frozenset({"AveragePooling2D", "GlobalAveragePooling2D", "Flatten", "Dropout", "Softmax"})
_LAYERS = frozenset({"Conv2D", "DepthwiseConv2D", "Dense"})
_KNOWN = frozenset({"InputLayer", "BatchNormalization", "Activation"}) | _LAYERS | _IGNORED
#: Of the network's description: that of visual wake words is 50 kB.
_LARGEST_CONFIG = 8 * 2**20
_READ = "of Keras, the .h5 of visual wake words (MLPerf Tiny) is read"

# What the walk through the description and the groups raises where they are others than expected.
_OTHER_STRUCTURE = (LookupError, ValueError, TypeError, AttributeError, OverflowError, RecursionError)


def read_keras(file: Path, data: bytes) -> StoredNetwork:
    """Read a functional Keras MobileNet V1 saved as .h5.

    Raises
    ------
    WeightsFileError
        The file is damaged, or no MobileNet V1 as MLPerf Tiny writes it.
    """
    try:
        with h5py.File(io.BytesIO(data), "r") as archive:
            return _Reader(file, archive).read()
    except _OTHER_STRUCTURE as error:
        raise WeightsFileError(f"{file}: a Keras file that is written otherwise than known here; {_READ}") from error
    except (OSError, RuntimeError, MemoryError) as error:
        raise WeightsFileError(f"{file}: a damaged .h5 file; get it again") from error


class _Reader:
    """Walks the layers of one file in the order of its description."""

    def __init__(self, file: Path, archive: h5py.File) -> None:
        self._file = file
        self._archive = archive
        self._left = LARGEST_BYTES

    def read(self) -> StoredNetwork:
        entries = self._read_config()
        layers: list[StoredLayer] = []
        activations: set[Activation] = set()
        shape: list[int] = []
        for entry in entries:
            kind, settings = entry["class_name"], entry["config"]
            name = settings["name"]
            if kind == "InputLayer":
                shape = settings["batch_input_shape"]
            elif kind in _LAYERS:
                layers.append(self._read_layer(name, kind, settings))
            elif kind == "BatchNormalization":
                if layers[-1].kind == "linear" or layers[-1].batch_norm is not None:
                    raise self._refuse(f"a batch norm ({shorten(name)}) after {shorten(layers[-1].name)}")
                layers[-1] = self._with_batch_norm(layers[-1], name, settings["epsilon"])
            elif kind == "Activation":
                if settings["activation"] not in _ACTIVATIONS:
                    raise self._refuse(f"layer {shorten(name)} with activation {shorten(settings['activation'])}")
                activations.add(_ACTIVATIONS[settings["activation"]])
        if not layers or layers[-1].kind != "linear" or len(activations) != 1 or len(shape) != 4:
            raise WeightsFileError(f"{self._file}: not a MobileNet classifier: no input, activation or classifier")
        _, resolution, width, channels = shape
        if resolution != width or not isinstance(resolution, int) or channels != layers[0].weight.shape[1]:
            raise self._refuse(f"an input of {shorten(shape)}")
        return StoredNetwork(tuple(layers), resolution, activations.pop(), unit_preprocessing(resolution, channels))

    def _read_config(self) -> list[dict[str, Any]]:
        attributes = self._archive.attrs
        if "model_config" not in attributes:
            if "layer_names" in attributes or "keras_version" in attributes or "layers" in self._archive:
                raise WeightsFileError(f"{self._file}: Keras weights without their network; give what model.save wrote")
            raise WeightsFileError(f"{self._file}: an HDF5 file, but no Keras MobileNet V1; {_READ}")
        text = attributes["model_config"]
        if not isinstance(text, str | bytes) or len(text) > _LARGEST_CONFIG:
            raise self._refuse(f"a description that is no text of at most {_LARGEST_CONFIG:,} bytes")
        entries: list[dict[str, Any]] = json.loads(text)["config"]["layers"]
        for entry in entries:
            if entry["class_name"] not in _KNOWN:
                name = shorten(entry["config"]["name"])
                raise self._refuse(f"layer {name} of class {shorten(entry['class_name'])}")
        return entries

    def _refuse(self, what: str) -> WeightsFileError:
        return WeightsFileError(f"{self._file}: a Keras file with {what}, which is not read; {_READ}")

    def _read_layer(self, name: str, kind: str, settings: dict[str, Any]) -> StoredLayer:
        activation = settings.get("activation", "linear")
        if activation not in ("linear", "softmax") or (activation == "softmax" and kind != "Dense"):
            raise self._refuse(f"layer {shorten(name)} with activation {shorten(activation)}")
        if kind == "Dense":
            weight = self._read(name, "kernel", 2).T.copy()
            return StoredLayer(name, "linear", weight, self._read_bias(name, settings, weight.shape[0]), 1)
        usual = {"padding": "same", "data_format": "channels_last", "dilation_rate": [1, 1], "depth_multiplier": 1}
        for setting, value in usual.items():
            if settings.get(setting, value) != value:
                raise self._refuse(f"layer {shorten(name)} with {setting} {shorten(settings[setting])}")
        strides = settings["strides"]
        if strides not in ([1, 1], [2, 2]):
            raise self._refuse(f"layer {shorten(name)} with strides {shorten(strides)}")
        stride = int(strides[0])
        if kind == "DepthwiseConv2D":
            # Keras has HWC1 here and HWIO below.
            weight = self._read(name, "depthwise_kernel", 4).transpose(2, 3, 0, 1).copy()
            return StoredLayer(name, "depthwise", weight, self._read_bias(name, settings, weight.shape[0]), stride)
        weight = self._read(name, "kernel", 4).transpose(3, 2, 0, 1).copy()
        return StoredLayer(name, "conv", weight, self._read_bias(name, settings, weight.shape[0]), stride)

    def _read(self, layer: str, parameter: str, dimensions: int) -> NDArray[np.float32]:
        found: Any = self._archive
        for step in ("model_weights", layer, layer, f"{parameter}:0"):
            # Other links lead to other files.
            if not isinstance(found.get(step, getlink=True), h5py.HardLink):
                raise self._refuse(f"a link at {shorten(step)}")
            found = found[step]
        if not isinstance(found, h5py.Dataset) or found.dtype.kind != "f" or found.external or found.is_virtual:
            raise self._refuse(f"{shorten(layer)} without plain floats for its {parameter}")
        self._left -= found.size * found.dtype.itemsize
        if len(found.shape) != dimensions or found.size == 0 or self._left < 0:
            raise self._refuse(f"a {parameter} of {shorten(found.shape)} in {shorten(layer)}")
        return np.asarray(found, dtype=np.float32)

    def _read_vector(self, layer: str, parameter: str, channels: int) -> NDArray[np.float32]:
        vector = self._read(layer, parameter, 1)
        if vector.shape != (channels,):
            raise self._refuse(f"{vector.shape[0]} numbers for the {parameter} of {shorten(layer)}, not {channels}")
        return vector

    def _read_bias(self, layer: str, settings: dict[str, Any], channels: int) -> NDArray[np.float32]:
        if settings["use_bias"]:
            return self._read_vector(layer, "bias", channels)
        return np.zeros(channels, dtype=np.float32)

    def _with_batch_norm(self, layer: StoredLayer, name: str, epsilon: float) -> StoredLayer:
        try:
            Conventions(bn_epsilon=epsilon)
        except ModelError as error:
            raise self._refuse(f"{error} in {shorten(name)}") from error
        channels = layer.bias.shape[0]
        norm = BatchNorm(
            gamma=self._read_vector(name, "gamma", channels),
            beta=self._read_vector(name, "beta", channels),
            mean=self._read_vector(name, "moving_mean", channels),
            variance=self._read_vector(name, "moving_variance", channels),
            epsilon=epsilon,
        )
        return StoredLayer(layer.name, layer.kind, layer.weight, layer.bias, layer.stride, norm)
