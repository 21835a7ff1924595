"""The weights of keras.applications' MobileNets without a description, by their names or their order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from thumbnet.models.errors import WeightsFileError
from thumbnet.models.keras_weights import DatasetReader, Steps
from thumbnet.models.key_names import CLASSIFIER, NamedWeights
from thumbnet.models.layer_chain import SINGLE_OUTPUT, add_silent_class
from thumbnet.models.state_dict import Checkpoint
from thumbnet.models.variants import Version

#: From the names of a layer's parameters to PyTorch's.
_PARAMETERS = {
    **{"kernel": "weight", "depthwise_kernel": "weight", "bias": "bias"},
    **{"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"},
}
#: The order of a layer's parameters where they are numbered, by its class.
_NUMBERED = {
    "conv2d": ("kernel", "bias"),
    "depthwise_conv2d": ("depthwise_kernel",),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "dense": ("kernel", "bias"),
}
_SLOT = re.compile(r"(conv2d|depthwise_conv2d|batch_normalization|dense)(?:_(\d{1,3}))?")
#: Blocks behind the first convolution, and V2's that widen what they take.
_SEPARABLE_BLOCKS = range(1, 14)
_INVERTED_BLOCKS = range(1, 17)
#: V1 has 15 ordinary convolutions at most, V2 has 35.
_MOST_OF_V1 = 15
_NO_NETWORK = (
    "Keras weights without their network, and not those of keras.applications' MobileNet V1 or V2; give what model.save"
    " wrote"
)
_OTHER_HEAD = "of a MobileNet with {} dense layers after it, where one belongs; give those of a whole classifier"


def name_keras_weights(file: Path, archive: h5py.File, reader: DatasetReader) -> Checkpoint:
    """Give the weights in an HDF5 file the names of a network here.

    Raises
    ------
    WeightsFileError
        They are none of keras.applications' MobileNet V1 or V2 with one classifier.
    """
    paths = [path for step in archive for path in reader.list_datasets((step,))]
    numbered = [path for path in paths if path[-2:-1] == ("vars",)]
    if not numbered and "layer_names" not in archive.attrs:
        raise WeightsFileError(f"{file}: an HDF5 file, but no Keras MobileNet, nor the weights of one")
    version, layers = _name_by_order(numbered) if numbered else _name_by_names(paths)
    modules = {name: module for name, _, module in _list_layers(version)}
    heads = [name for name, parameters in layers.items() if name not in modules and "kernel" in parameters]
    if not modules.keys() <= layers.keys():
        raise WeightsFileError(f"{file}: {_NO_NETWORK}")
    if len(heads) != 1:
        raise WeightsFileError(f"{file}: Keras weights {_OTHER_HEAD.format(len(heads) or 'no')}")
    modules[heads[0]] = CLASSIFIER[version]
    tensors: dict[str, torch.Tensor] = {}
    names: dict[str, str] = {}
    assumptions: tuple[str, ...] = ()
    for layer, module in modules.items():
        for parameter, path in layers[layer].items():
            name = f"{module}.{_PARAMETERS[parameter]}"
            values = _turn(reader.read(path), parameter, classifier=layer == heads[0])
            if layer == heads[0] and values.shape[0] == 1:
                values, assumptions = add_silent_class(values), (SINGLE_OUTPUT,)
            tensors[name] = torch.from_numpy(values)
            names[name] = "/".join(path)
    return Checkpoint(NamedWeights(version, "keras", tensors, names), assumptions=assumptions)


def _turn(values: NDArray[np.float32], parameter: str, *, classifier: bool) -> NDArray[np.float32]:
    """Return a parameter with its axes in PyTorch's order; one of other axes is told by its shape later."""
    if values.ndim == 4:
        order = (2, 3, 0, 1) if parameter == "depthwise_kernel" else (3, 2, 0, 1)
        values = values.transpose(order)
        if classifier and values.shape[2:] == (1, 1):
            values = values[:, :, 0, 0]
    elif values.ndim == 2:
        values = values.T
    return np.ascontiguousarray(values)


def _name_by_names(paths: list[Steps]) -> tuple[Version, dict[str, dict[str, Steps]]]:
    """Return the version and each layer's parameters by name, where the file has names."""
    layers: dict[str, dict[str, Steps]] = {}
    for path in paths:
        parameter = path[-1].partition(":")[0]
        if len(path) > 1 and parameter in _PARAMETERS:
            layers.setdefault(path[-2], {})[parameter] = path
    # Keras 3 calls all kernels the same.
    for name, parameters in layers.items():
        if "kernel" in parameters and (name.startswith("conv_dw_") or name.endswith("_depthwise")):
            parameters["depthwise_kernel"] = parameters.pop("kernel")
    return "v1" if "conv_dw_1" in layers else "v2", layers


def _name_by_order(paths: list[Steps]) -> tuple[Version, dict[str, dict[str, Steps]]]:
    """Return the same where layers are numbered by class and parameters in their order."""
    slots: dict[Steps, dict[str, Steps]] = {}
    for path in paths:
        found = _SLOT.fullmatch(path[-3]) if len(path) > 2 else None
        if found and path[-1].isdecimal() and int(path[-1]) < len(_NUMBERED[found[1]]):
            slots.setdefault(path[:-2], {})[_NUMBERED[found[1]][int(path[-1])]] = path
    base = next((slot[:-1] for slot in slots if slot[-1] == "depthwise_conv2d"), ())
    version: Version = "v2" if (*base, f"conv2d_{_MOST_OF_V1}") in slots else "v1"
    of_class: dict[str, list[str]] = {}
    for name, kind, _ in _list_layers(version):
        of_class.setdefault(kind, []).append(name)
    layers = {}
    for slot, parameters in slots.items():
        found = _SLOT.fullmatch(slot[-1])
        assert found is not None
        names, number = of_class.get(found[1], []), int(found[2] or 0)
        inside = slot[:-1] == base and number < len(names)
        layers[names[number] if inside else "/".join(slot)] = parameters
    return version, layers


def _list_layers(version: Version) -> Iterator[tuple[str, str, str]]:
    """Yield name, class and our path of the layers with weights before the classifier, in the order of execution."""
    if version == "v1":
        yield from _list_unit("conv1", "conv1_bn", "conv2d", "features.0.0", "features.0.1")
        for block in _SEPARABLE_BLOCKS:
            for part, kind, ours in (("dw", "depthwise_conv2d", "depthwise"), ("pw", "conv2d", "pointwise")):
                name, path = f"conv_{part}_{block}", f"features.{block}.{ours}"
                yield from _list_unit(name, f"{name}_bn", kind, f"{path}.0", f"{path}.1")
        return
    yield from _list_unit("Conv1", "bn_Conv1", "conv2d", "features.0.0", "features.0.1")
    yield from _list_inverted("expanded_conv", "features.1.conv", expands=False)
    for block in _INVERTED_BLOCKS:
        yield from _list_inverted(f"block_{block}", f"features.{block + 1}.conv", expands=True)
    last = f"features.{len(_INVERTED_BLOCKS) + 2}"
    yield from _list_unit("Conv_1", "Conv_1_bn", "conv2d", f"{last}.0", f"{last}.1")


def _list_inverted(name: str, path: str, *, expands: bool) -> Iterator[tuple[str, str, str]]:
    parts = [*([("expand", "conv2d")] if expands else []), ("depthwise", "depthwise_conv2d")]
    for position, (part, kind) in enumerate(parts):
        inside = f"{path}.{position}"
        yield from _list_unit(f"{name}_{part}", f"{name}_{part}_BN", kind, f"{inside}.0", f"{inside}.1")
    position = len(parts)
    projection = f"{name}_project"
    yield from _list_unit(projection, f"{projection}_BN", "conv2d", f"{path}.{position}", f"{path}.{position + 1}")


def _list_unit(name: str, norm: str, kind: str, path: str, norm_path: str) -> Iterator[tuple[str, str, str]]:
    yield name, kind, path
    yield norm, "batch_normalization", norm_path
