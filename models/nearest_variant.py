"""Which MobileNet a set of weights belongs to, told by its shapes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from thumbnet.models.errors import WrongVariantError
from thumbnet.models.key_names import CLASSIFIER, NamedWeights
from thumbnet.models.stored import USUAL_WIDTHS
from thumbnet.models.variants import COUSINS, LARGEST_WIDTH, NAMED, ModelSpec, Version, build_model, format_name
from thumbnet.models.weights_file import shorten

Shapes = Mapping[str, tuple[int, ...]]
#: Differences a message names before it counts the rest.
_SHOWN = 2


def check_shapes(weights: NamedWeights, spec: ModelSpec, file: Path) -> None:
    """Compare names and shapes with those of a spec, whose classes and input channels are the file's.

    A classifier without bias is taken as one whose bias is 0.

    Raises
    ------
    WrongVariantError
        They differ; the message has the first differences and the nearest variant.
    """
    found = {name: tuple(tensor.shape) for name, tensor in weights.tensors.items()}
    differences = _compare(found, _list_shapes(spec), weights)
    if not differences:
        return
    nearest, others = min(
        ((near, _compare(found, _list_shapes(near), weights)) for near in _list_candidates(weights, spec)),
        key=lambda candidate: len(candidate[1]),
    )
    name = nearest.name.removesuffix(f"_{'x'.join(map(str, dict.fromkeys(nearest.size)))}")
    what = f"{file}: holds {{}}, not {spec.name}: {_join(differences)}"
    if not others:
        held = f"{name} with {spec.classes} classes at any resolution"
        raise WrongVariantError(f"{what.format(held)}; try {nearest.name}")
    known = "no MobileNet known here"
    if nearest.name == spec.name or len(others) > len(found) / 2:
        raise WrongVariantError(f"{what.format(known)}; name that model or give the weights of this")
    raise WrongVariantError(f"{what.format(known)}; the nearest is {name}, but {_join(others)}")


def _list_shapes(spec: ModelSpec) -> Shapes:
    # The meta device gives shapes without memory or time.
    with torch.device("meta"):
        state = build_model(spec).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def _compare(found: Shapes, expected: Shapes, weights: NamedWeights) -> list[str]:
    differences = []
    for name, shape in expected.items():
        if name in found and found[name] != shape:
            stored = shorten(weights.file_names[name])
            differences.append(f"{stored} is {_text(found[name])} where {_text(shape)} belongs")
        elif name not in found and name != f"{CLASSIFIER[weights.version]}.bias":
            differences.append(f"{name} ({_text(shape)}) is missing")
    for name in found:
        if name not in expected:
            differences.append(f"{shorten(weights.file_names[name])} has no place in it")
    return differences


def _list_candidates(weights: NamedWeights, spec: ModelSpec) -> Iterator[ModelSpec]:
    if weights.version in COUSINS:
        named = next(named for named in NAMED if named.version == weights.version)
        yield replace(named, classes=spec.classes, input_channels=spec.input_channels)
        return
    widths = [*USUAL_WIDTHS, *_derive_width(weights)]
    for width in sorted(widths, key=lambda width: width != spec.width_multiplier):
        named = replace(
            spec,
            name=format_name(weights.version, width, spec.size),
            version=weights.version,
            width_multiplier=width,
        )
        yield named


def _derive_width(weights: NamedWeights) -> Iterator[float]:
    """Yield widths at which the last block has the channels it has, those of few decimals first."""
    lasts: dict[Version, tuple[str, int]] = {
        "v1": ("features.13.pointwise.0.weight", 1024),
        "v2": ("features.17.conv.2.weight", 320),
    }
    name, channels = lasts[weights.version]
    if (
        name in weights.tensors
        and weights.tensors[name].ndim
        and 0 < weights.tensors[name].shape[0] <= channels * LARGEST_WIDTH
    ):
        width = weights.tensors[name].shape[0] / channels
        # V1 cuts channels to whole numbers, so the width may be a little above the quotient.
        yield from (math.ceil(width * decimals) / decimals for decimals in (10, 100, 1000))


def _join(differences: list[str]) -> str:
    more = len(differences) - _SHOWN
    return "; ".join(differences[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"
