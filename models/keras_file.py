"""Reads the MobileNets of Keras 2 and 3, .h5 and .keras, without Keras and without running anything in them."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from thumbnet.models.conventions import Conventions
from thumbnet.models.errors import ModelError, WeightsFileError
from thumbnet.models.keras_config import LARGEST_CONFIG, KerasLayer, OtherConfigError, read_config
from thumbnet.models.keras_names import name_keras_weights
from thumbnet.models.keras_scaling import read_scaling
from thumbnet.models.keras_weights import DatasetReader, KerasWeights, NamedKerasWeights, NumberedKerasWeights, Refuse
from thumbnet.models.layer_chain import Feature, LayerChain, Margins, spell
from thumbnet.models.layers import Activation
from thumbnet.models.preprocessing import Preprocessing, keras_preprocessing, scaled_preprocessing, unit_preprocessing
from thumbnet.models.state_dict import Checkpoint
from thumbnet.models.stored import BatchNorm, StoredLayer, StoredNetwork
from thumbnet.models.weights_file import check_size, shorten

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
#: The members of a .keras archive that describe the model and have its weights.
_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_READ = "of Keras, MobileNet V1 and V2 classifiers are read, built in or as the base of a model with one dense layer"

_ACTIVATIONS: dict[str, Activation] = {"relu": "relu", "relu6": "relu6"}
#: After the classifier, of which the answer's class doesn't depend; a single output's is read as two classes'.
_ANSWERS = ("softmax", "sigmoid")
_RELU6 = 6.0
#: Keras 2 calls the weights of a depthwise convolution otherwise.
_KERNELS, _BIAS = ("kernel", "depthwise_kernel"), ("bias",)
#: Layers that leave what they are given as it is, once a network is trained.
_IDENTITIES = frozenset({"Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "ActivityRegularization"})
#: Layers that move the pooled values, or the classes', into other axes.
_MOVES = frozenset({"Reshape", "Flatten"})
#: How keras.applications calls the first convolution of its V1 and V2: their images are scaled to -1..1.
_FIRST_CONVOLUTIONS = ("conv1", "Conv1")

# What the walk through the description and the groups raises where they are others than expected.
_OTHER_STRUCTURE = (LookupError, ValueError, TypeError, AttributeError, OverflowError, RecursionError)
_DAMAGE = (OSError, RuntimeError, MemoryError, NotImplementedError, zipfile.BadZipFile, zlib.error, EOFError)


def is_keras_archive(data: bytes) -> bool:
    """Say whether a file is a zip archive with the members of .keras."""
    if not data.startswith(b"PK"):
        return False
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {_CONFIG, _WEIGHTS} <= set(archive.namelist())
    # ValueError: a name that is no text.
    except (*_DAMAGE, ValueError):
        return False


def read_keras(file: Path, data: bytes, size: tuple[int, int]) -> StoredNetwork | Checkpoint:
    """Read a Keras MobileNet: the network as its file describes it, or the weights of one without a description.

    Parameters
    ----------
    file : Path
        For messages.
    data : bytes
        An HDF5 file, or a .keras archive.
    size : (int, int)
        Height and width of the image where the file leaves them open.

    Raises
    ------
    WeightsFileError
        The file is damaged, or of another network; the message names what of it isn't read.
    """

    def refuse(what: str) -> WeightsFileError:
        return WeightsFileError(f"{file}: a Keras file with {what}, which is not read; {_READ}")

    try:
        config, weights = _open_archive(file, data) if data.startswith(b"PK") else (None, data)
        with h5py.File(io.BytesIO(weights), "r") as archive:
            reader = DatasetReader(archive, refuse)
            if config is not None:
                return _read_model(config, NumberedKerasWeights(reader, refuse), refuse, size)
            if "model_config" not in archive.attrs:
                return name_keras_weights(file, archive, reader)
            config = archive.attrs["model_config"]
            if not isinstance(config, str | bytes) or len(config) > LARGEST_CONFIG:
                raise refuse(f"a description that is no text of at most {LARGEST_CONFIG:,} bytes")
            return _read_model(config, NamedKerasWeights(reader, refuse), refuse, size)
    except OtherConfigError as error:
        raise refuse(str(error)) from error
    except _OTHER_STRUCTURE as error:
        raise WeightsFileError(f"{file}: a Keras file that is written otherwise than known here; {_READ}") from error
    except _DAMAGE as error:
        raise WeightsFileError(f"{file}: a damaged Keras file; get it again") from error


def _open_archive(file: Path, data: bytes) -> tuple[bytes, bytes]:
    """Return the description and the weights of a .keras archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        check_size(file, sum(member.file_size for member in archive.infolist()), "expands to")
        if archive.getinfo(_CONFIG).file_size > LARGEST_CONFIG:
            raise WeightsFileError(f"{file}: a Keras file whose description has more than {LARGEST_CONFIG:,} bytes")
        return archive.read(_CONFIG), archive.read(_WEIGHTS)


def _read_model(config: str | bytes, weights: KerasWeights, refuse: Refuse, size: tuple[int, int]) -> StoredNetwork:
    """Take the layers of a model in the order of its description."""
    layers, output = read_config(config)
    chain = LayerChain(*_read_shape(layers[0], refuse, size), refuse)
    reader, features = _LayerReader(chain, weights, refuse), {0: chain.image}
    for position, layer in enumerate(layers[1:], 1):
        features[position] = reader.read(layer, [features[source] for source in layer.sources])
    preprocessing, stated = _choose_preprocessing(chain, layers)
    return chain.finish(features[output], preprocessing, stated)


def _read_shape(layer: KerasLayer, refuse: Refuse, size: tuple[int, int]) -> tuple[tuple[int, int], int]:
    """Return size and channels of the image; `size` is the size where any may come."""
    settings = layer.settings
    shape = next((settings[key] for key in ("batch_shape", "batch_input_shape") if settings.get(key)), None)
    if not isinstance(shape, list) or len(shape) != 4:
        raise refuse(f"an input of {shorten(shape)}")
    height, width = (usual if length is None else length for length, usual in zip(shape[1:3], size, strict=True))
    if not all(type(length) is int and length > 0 for length in (height, width, shape[3])):
        raise refuse(f"an input of {shorten(shape)}")
    return (height, width), shape[3]


def _choose_preprocessing(chain: LayerChain, layers: list[KerasLayer]) -> tuple[Preprocessing, frozenset[str]]:
    """Return what an image has to become, and which of its fields the file says."""
    size, channels, classes = chain.image.size, chain.image.channels, chain.classes
    usual = keras_preprocessing(size[0], classes, channels).of_size(size)
    if chain.scaling is not None:
        return scaled_preprocessing(usual, *chain.scaling), frozenset({"mean", "std"})
    if any(layer.kind == "Conv2D" and layer.names[-1] in _FIRST_CONVOLUTIONS for layer in layers):
        return usual, frozenset()
    return unit_preprocessing(size[0], channels).of_size(size), frozenset()


class _LayerReader:
    """Puts the layers of one model into a chain."""

    def __init__(self, chain: LayerChain, weights: KerasWeights, refuse: Refuse) -> None:
        self._chain = chain
        self._weights = weights
        self._refuse = refuse
        self._readers: dict[str, Callable[[KerasLayer, Feature], Feature]] = {
            "Conv2D": self._convolve,
            "DepthwiseConv2D": self._convolve,
            "BatchNormalization": self._normalise,
            "ReLU": self._clip,
            "Activation": self._activate,
            "ZeroPadding2D": self._pad,
            "GlobalAveragePooling2D": self._pool,
            "AveragePooling2D": self._pool,
            "Dense": self._classify,
        }

    def read(self, layer: KerasLayer, sources: list[Feature]) -> Feature:
        """Return what a layer gives."""
        name, kind = f"layer {layer.name}", layer.kind
        if kind == "Add" and len(sources) == 2:
            return self._chain.add(name, (sources[0], sources[1]))
        if len(sources) != 1:
            raise self._refuse(f"{name} of class {shorten(kind)} with {len(sources)} inputs")
        if kind in self._readers:
            return self._readers[kind](layer, sources[0])
        if (scaling := read_scaling(layer)) is not None:
            return self._chain.rescale(name, sources[0], *scaling)
        moves = kind in _MOVES and self._chain.pooled
        if kind in _IDENTITIES or moves or (kind == "Softmax" and self._chain.classified):
            return sources[0]
        raise self._refuse(f"{name} of class {shorten(kind)}")

    def _activate(self, layer: KerasLayer, feature: Feature) -> Feature:
        activation = layer.settings.get("activation")
        answers = self._chain.classified and activation in _ANSWERS
        if activation in ("linear", None) or (answers and (activation != "sigmoid" or feature.channels == 1)):
            return feature
        if not isinstance(activation, str) or activation not in _ACTIVATIONS:
            raise self._refuse(f"layer {layer.name} with activation {shorten(activation)}")
        return self._chain.activate(f"layer {layer.name}", feature, _ACTIVATIONS[activation])

    def _clip(self, layer: KerasLayer, feature: Feature) -> Feature:
        return self._chain.activate(f"layer {layer.name}", feature, self._read_relu(layer))

    def _pad(self, layer: KerasLayer, feature: Feature) -> Feature:
        return self._chain.pad(f"layer {layer.name}", feature, self._read_margins(layer))

    def _pool(self, layer: KerasLayer, feature: Feature) -> Feature:
        window = layer.settings.get("pool_size", [*feature.size])
        if ([window] * 2 if isinstance(window, int) else window) != [*feature.size]:
            raise self._refuse(f"layer {layer.name}, a pooling of {shorten(window)} of {spell(feature.size)} pixels")
        return self._chain.pool(f"layer {layer.name}", feature)

    def _classify(self, layer: KerasLayer, feature: Feature) -> Feature:
        weight, bias = self._read_weights(layer, 2)
        feature = self._chain.classify(feature, StoredLayer(layer.name, "linear", weight.T.copy(), bias, 1))
        return self._activate(layer, feature)

    def _convolve(self, layer: KerasLayer, feature: Feature) -> Feature:
        stored = self._read_convolution(layer)
        feature = self._chain.convolve(feature, stored, same=layer.settings["padding"] == "same")
        return self._activate(layer, feature)

    def _read_relu(self, layer: KerasLayer) -> Activation:
        settings = layer.settings
        for setting in ("negative_slope", "threshold"):
            if settings.get(setting):
                raise self._refuse(f"layer {layer.name} with {setting} {shorten(settings[setting])}")
        if settings.get("max_value") not in (None, _RELU6):
            raise self._refuse(f"layer {layer.name} with max_value {shorten(settings['max_value'])}")
        return "relu" if settings.get("max_value") is None else "relu6"

    def _read_margins(self, layer: KerasLayer) -> Margins:
        padding = layer.settings["padding"]
        rows, columns = [padding] * 2 if isinstance(padding, int) else padding
        (top, bottom), (left, right) = ([axis] * 2 if isinstance(axis, int) else axis for axis in (rows, columns))
        return (int(top), int(bottom)), (int(left), int(right))

    def _read_convolution(self, layer: KerasLayer) -> StoredLayer:
        settings = layer.settings
        usual: dict[str, Sequence[Any]] = {
            "padding": ("same", "valid"),
            "data_format": ("channels_last",),
            "dilation_rate": ([1, 1],),
            "groups": (1,),
            "strides": ([1, 1], [2, 2]),
        }
        for setting, values in usual.items():
            if settings.get(setting, values[0]) not in values:
                raise self._refuse(f"layer {layer.name} with {setting} {shorten(settings[setting])}")
        stride = int(settings.get("strides", [1])[0])
        weight, bias = self._read_weights(layer, 4)
        # Keras has HWIO, and HWC and the multiplier for depthwise; one of a single channel is an ordinary convolution.
        if layer.kind == "DepthwiseConv2D" and weight.shape[2] > 1:
            height, width, channels, multiplier = weight.shape
            weight = weight.reshape(height, width, channels * multiplier, 1).transpose(2, 3, 0, 1)
            return StoredLayer(layer.name, "depthwise", weight.copy(), bias, stride)
        return StoredLayer(layer.name, "conv", weight.transpose(3, 2, 0, 1).copy(), bias, stride)

    def _read_weights(self, layer: KerasLayer, axes: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the weight of a layer, of so many axes, and its bias, zeros where it has none."""
        depthwise, has_bias = layer.kind == "DepthwiseConv2D", layer.settings.get("use_bias", True)
        parameters = [_KERNELS, _BIAS] if has_bias else [_KERNELS]
        weight, *biases = self._weights.read(layer.names, layer.slots, parameters)
        if weight.ndim != axes:
            raise self._refuse(f"a kernel of {shorten(weight.shape)} in layer {layer.name}")
        outputs = weight.shape[2] * weight.shape[3] if depthwise else weight.shape[-1]
        bias = biases[0] if has_bias else np.zeros(outputs, np.float32)
        if bias.shape != (outputs,):
            raise self._refuse(f"{bias.size} numbers for the bias of {layer.name}, not {outputs}")
        return weight, bias

    def _normalise(self, layer: KerasLayer, feature: Feature) -> Feature:
        settings, channels = layer.settings, feature.channels
        try:
            Conventions(bn_epsilon=settings["epsilon"])
        except ModelError as error:
            raise self._refuse(f"{error} in layer {layer.name}") from error
        if settings.get("axis", -1) not in (-1, 3, [3], [-1]) or settings.get("renorm"):
            raise self._refuse(f"layer {layer.name}, a batch norm of other axes or renormalised")
        names = ["gamma"] * bool(settings.get("scale", True)) + ["beta"] * bool(settings.get("center", True))
        names += ["moving_mean", "moving_variance"]
        read = self._weights.read(layer.names, layer.slots, [(name,) for name in names])
        for name, values in zip(names, read, strict=True):
            if values.shape != (channels,):
                raise self._refuse(f"{values.size} numbers for the {name} of {layer.name}, not {channels}")
        found = dict(zip(names, read, strict=True))
        norm = BatchNorm(
            gamma=found.get("gamma", np.ones(channels, np.float32)),
            beta=found.get("beta", np.zeros(channels, np.float32)),
            mean=found["moving_mean"],
            variance=found["moving_variance"],
            epsilon=settings["epsilon"],
        )
        return self._chain.normalise(f"layer {layer.name}", feature, norm)
