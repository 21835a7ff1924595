"""Takes the ranges out of a state dict in quantization-aware training with torch.ao, as torchvision's references do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from thumbnet.models.errors import WeightsFileError
from thumbnet.models.stored import Quant
from thumbnet.models.weight_sets import WeightSet
from thumbnet.models.weights_file import shorten

_ACTIVATION = ".activation_post_process"
_WEIGHT = ".weight_fake_quant"
#: Inside a module that fuses a convolution and its batch norm.
_FUSED_NORM = ".bn."
#: torchvision's names of what has no weights: the image's range, and the sum's of a block.
_INPUT, _SUM = "quant", ".skip_add"
#: The lowest integer of torch.quint8 and torch.qint8.
_LOWEST = (0, -128)


@dataclass(frozen=True)
class FakeQuants:
    """What quantization-aware training says of int8; see `thumbnet.models.weights.TrainedModel` for both."""

    activation_quant: dict[str, Quant]
    weight_scales: dict[str, NDArray[np.float32]]


def is_observer(name: str) -> bool:
    """Say whether a tensor is an observer's and no weight; its numbers may be integers."""
    return _WEIGHT in name or _ACTIVATION in name


def has_fake_quants(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Say whether there are observers among tensors."""
    return any(map(is_observer, tensors))


def take_fake_quants(file: Path, weights: WeightSet) -> tuple[WeightSet, FakeQuants]:
    """Return weights under the names they have without observers, and the ranges these hold.

    Raises
    ------
    WeightsFileError
        There is no range of the image, or a quantization of another kind than int8 here.
    """
    tensors = weights.tensors
    plain = {_separate(name): tensor for name, tensor in tensors.items() if not is_observer(name)}
    scales = {
        name: _spread_scales(file, name, tensors, plain[f"{name}.weight"].shape[0])
        for name in _list_observed(tensors, _WEIGHT)
        if f"{name}.weight" in plain
    }
    quants = {
        "input" if name == _INPUT else name.removesuffix(_SUM): _read_range(file, f"{name}{_ACTIVATION}", tensors)
        for name in _list_observed(tensors, _ACTIVATION)
    }
    known = {name: quant for name, quant in quants.items() if quant is not None}
    convolutions = [name for name in scales if name in known and plain[f"{name}.weight"].ndim > 2]
    if "input" not in known or not convolutions:
        raise WeightsFileError(
            f"{file}: weights in quantization-aware training with torch.ao whose ranges are not named as torchvision"
            " names them, and not read; save the state dict of the float model, and compile it with --calibration"
        )
    # The average of values needs no range of its own.
    known["pool"] = known[convolutions[-1]]
    return replace(weights, tensors=plain), FakeQuants(known, scales)


def _separate(name: str) -> str:
    """Return the name of a fused batch norm's parameter as it is beside its convolution, and others as they are."""
    module, found, parameter = name.rpartition(_FUSED_NORM)
    parent, _, position = module.rpartition(".")
    return f"{parent}.{int(position) + 1}.{parameter}" if found and position.isdecimal() else name


def _list_observed(tensors: Mapping[str, torch.Tensor], kind: str) -> Iterator[str]:
    """Yield the modules whose weights or outputs have a scale."""
    for name in tensors:
        if name.endswith(f"{kind}.scale") and not name.endswith(f"{_WEIGHT}{kind}.scale"):
            yield name.removesuffix(f"{kind}.scale")


def _read_range(file: Path, name: str, tensors: Mapping[str, torch.Tensor]) -> Quant | None:
    """Return scale and int8 zero point of an activation, or None where nothing was seen of it."""
    scale, zero_point = (_read_numbers(file, f"{name}.{part}", tensors) for part in ("scale", "zero_point"))
    ends = [tensors.get(f"{name}{_ACTIVATION}.{end}") for end in ("min_val", "max_val")]
    if any(end is not None and not bool(torch.isfinite(end).all()) for end in ends):
        return None
    if len(scale) != 1 or len(zero_point) != 1:
        raise WeightsFileError(f"{file}: {shorten(name)} has {len(scale)} scales; an activation has one")
    # Nothing says whether the integers are signed but the number that they start at.
    start = 0.0 if ends[0] is None or not ends[0].numel() else min(float(ends[0].min()), 0.0)
    lowest = min(_LOWEST, key=lambda lowest: abs((lowest - zero_point[0]) * scale[0] - start))
    return scale[0], round(zero_point[0]) - lowest + _LOWEST[1]


def _spread_scales(file: Path, name: str, tensors: Mapping[str, torch.Tensor], channels: int) -> NDArray[np.float32]:
    scales, zero_points = (_read_numbers(file, f"{name}{_WEIGHT}.{part}", tensors) for part in ("scale", "zero_point"))
    if any(zero_points) or len(scales) not in (1, channels):
        raise WeightsFileError(
            f"{file}: {shorten(name)} has {len(scales)} scales for {channels} channels, or weights that are not"
            " symmetric; save the state dict of the float model, and compile it with --calibration"
        )
    return np.broadcast_to(np.array(scales, np.float32), (channels,)).copy()


def _read_numbers(file: Path, name: str, tensors: Mapping[str, torch.Tensor]) -> list[float]:
    numbers = tensors[name].reshape(-1).tolist() if name in tensors else []
    scale = name.endswith("scale")
    if not numbers or not all(math.isfinite(number) and (number > 0 or not scale) for number in numbers):
        raise WeightsFileError(f"{file}: {shorten(name)} is missing, or no number above 0; get the file again")
    return [float(number) for number in numbers]
