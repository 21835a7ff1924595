"""The names of weights: torchvision's, timm's and thumbnet's own, and from them to the modules of a network here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from thumbnet.models.conventions import Conventions
from thumbnet.models.errors import WrongVariantError
from thumbnet.models.variants import Version
from thumbnet.models.weight_sets import FIRST_WEIGHTS, WeightSet
from thumbnet.models.weights_file import shorten

Origin = Literal["thumbnet", "torchvision", "timm", "keras"]

#: What the programs compute whose names the weights have, and how a line for the person calls them. timm's numbers are
#: those of its `_gen_mobilenet_v1` and `_gen_mobilenet_v2`.
IMPLIED: dict[Origin, tuple[str, Conventions]] = {
    "thumbnet": ("TensorFlow's MobileNet V1", Conventions("same", 1e-3, "relu6")),
    "torchvision": ("torchvision's mobilenet_v2, whose names they have", Conventions("symmetric", 1e-5, "relu6")),
    "timm": ("timm, whose names they have", Conventions("symmetric", 1e-5, "relu6")),
    "keras": ("keras.applications, whose layers they have", Conventions("same", 1e-3, "relu6")),
}
#: What training and profilers (thop) keep beside the weights: no part of the network.
_COUNTERS = ("num_batches_tracked", "n_averaged", "total_ops", "total_params")
CLASSIFIER: dict[Version, str] = {
    "v1": "classifier",
    "v2": "classifier.1",
    "efficientnet_lite0": "classifier.1",
    "proxyless_vww": "classifier.1",
}
#: Networks of inverted residuals have the same names; their largest depthwise kernel tells them apart.
_BY_KERNEL: dict[int, Version] = {3: "v2", 5: "efficientnet_lite0", 7: "proxyless_vww"}
_CONVOLUTION_DIMS = 4
_TIMM_BACKBONE = ("conv_stem.", "bn1.", "blocks.", "conv_head.", "bn2.")
_TIMM_BLOCK = re.compile(r"blocks\.(\d{1,3})\.(\d{1,3})\.([a-z0-9_]+)\.(.+)")
#: timm's modules of a block by ours: V1's, V2's block without expansion, V2's others.
_TIMM_SEPARABLE = {"conv_dw": "depthwise.0", "bn1": "depthwise.1", "conv_pw": "pointwise.0", "bn2": "pointwise.1"}
_TIMM_PLAIN = {"conv_dw": "conv.0.0", "bn1": "conv.0.1", "conv_pw": "conv.1", "bn2": "conv.2"}
_TIMM_INVERTED = {
    **{"conv_pw": "conv.0.0", "bn1": "conv.0.1", "conv_dw": "conv.1.0", "bn2": "conv.1.1"},
    **{"conv_pwl": "conv.2", "bn3": "conv.3"},
}


@dataclass(frozen=True)
class NamedWeights:
    """A set of weights under the names of a network here.

    Parameters
    ----------
    version : Version
        As the names tell, and the largest kernel.
    origin : {"thumbnet", "torchvision", "timm", "keras"}
        Whose names they were.
    tensors : dict
        By our name, as stored.
    file_names : dict
        From our names to the file's.
    """

    version: Version
    origin: Origin
    tensors: dict[str, torch.Tensor]
    file_names: dict[str, str]


def name_weights(file: Path, weights: WeightSet) -> NamedWeights:
    """Give weights the names of a network here.

    Raises
    ------
    WrongVariantError
        They are of another network, or have no classifier of one layer.
    """
    tensors = {name: tensor for name, tensor in weights.tensors.items() if not name.endswith(_COUNTERS)}
    origin: Origin
    if FIRST_WEIGHTS[0] in tensors:
        backbone: tuple[str, ...] = ("features.",)
        names = {name: name for name in tensors}
        version = _tell_version(file, tensors, "features.1.depthwise.0.weight", "features.1.conv.0.0.weight")
        origin = "thumbnet" if version == "v1" else "torchvision"
    else:
        backbone, origin = _TIMM_BACKBONE, "timm"
        version = _tell_cousin(tensors) if "blocks.1.0.conv_pwl.weight" in tensors else "v1"
        names = dict(_rename_timm(tensors, version))
    heads = _list_heads({name: tensor for name, tensor in tensors.items() if not name.startswith(backbone)})
    if not heads:
        # A network of two parts: the MobileNet, and a classifier under a prefix of its own.
        heads = _list_heads(weights.others)
        tensors |= {name: weights.others[name] for name in _list_parameters(heads, weights.others)}
    if len(heads) != 1:
        found = ", ".join(shorten(head) for head in heads[:4]) or "none"
        raise WrongVariantError(
            f"{file}: a classifier of one linear layer belongs after the MobileNet, found {found}; give weights of one"
        )
    names |= {name: f"{CLASSIFIER[version]}.{name.rpartition('.')[2]}" for name in _list_parameters(heads, tensors)}
    ours = {names[name]: tensor for name, tensor in tensors.items()}
    classifier = f"{CLASSIFIER[version]}.weight"
    ours[classifier] = ours[classifier].flatten(1)
    return NamedWeights(version, origin, ours, {ours_: theirs for theirs, ours_ in names.items()})


def _tell_version(file: Path, tensors: Mapping[str, torch.Tensor], of_v1: str, of_v2: str) -> Version:
    if (of_v1 in tensors) == (of_v2 in tensors):
        some = ", ".join(shorten(name) for name in list(tensors)[1:3])
        raise WrongVariantError(
            f"{file}: a state dict of another network: neither {of_v1} (MobileNet V1) nor {of_v2} (V2), but {some}"
        )
    return "v1" if of_v1 in tensors else _tell_cousin(tensors)


def _tell_cousin(tensors: Mapping[str, torch.Tensor]) -> Version:
    largest = max((tensor.shape[-1] for tensor in tensors.values() if tensor.ndim == _CONVOLUTION_DIMS), default=0)
    return _BY_KERNEL.get(largest, "v2")


def _list_heads(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    return [name for name, tensor in tensors.items() if name.endswith("weight") and _is_linear(tensor)]


def _list_parameters(weights: Iterable[str], tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names of weights and of their biases, as far as they are there."""
    names = [f"{weight.removesuffix('weight')}{part}" for weight in weights for part in ("weight", "bias")]
    return [name for name in names if name in tensors]


def _is_linear(tensor: torch.Tensor) -> bool:
    """Say whether a weight is that of a linear layer, written as a 1x1 convolution or not."""
    return tensor.ndim == 2 or (tensor.ndim == 4 and tuple(tensor.shape[2:]) == (1, 1))


def _rename_timm(names: Iterable[str], version: Version) -> Iterable[tuple[str, str]]:
    """Yield pairs of timm's name and ours; what timm's MobileNets don't have keeps its name."""
    blocks = sorted({(int(found[1]), int(found[2])) for name in names if (found := _TIMM_BLOCK.fullmatch(name))})
    last = len(blocks) + 1
    outside = {"conv_stem": "features.0.0", "bn1": "features.0.1"}
    if version != "v1":
        outside |= {"conv_head": f"features.{last}.0", "bn2": f"features.{last}.1"}
    for name in names:
        module, _, parameter = name.rpartition(".")
        if module in outside:
            yield name, f"{outside[module]}.{parameter}"
        elif found := _TIMM_BLOCK.fullmatch(name):
            block = (int(found[1]), int(found[2]))
            inside = _TIMM_SEPARABLE if version == "v1" else _TIMM_PLAIN if block == (0, 0) else _TIMM_INVERTED
            place = f"features.{blocks.index(block) + 1}"
            yield name, f"{place}.{inside.get(found[3], found[3])}.{found[4]}"
        else:
            yield name, name
