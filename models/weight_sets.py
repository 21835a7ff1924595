"""Finds the sets of weights in what a training program saved, whatever it wrapped around them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from thumbnet.models.errors import WeightsFileError, WrongVariantError
from thumbnet.models.pytorch_file import Inert
from thumbnet.models.weights_file import shorten

#: The first convolution's weight, as torchvision (and thumbnet) and as timm call it.
FIRST_WEIGHTS = ("features.0.0.weight", "conv_stem.weight")
#: Parts of a name that a wrapper adds: DataParallel and AveragedModel, torch.compile, FSDP, activation checkpoints.
_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
#: How averages over the training steps are called; what is trained itself comes first.
_AVERAGES = ("ema", "swa", "average", "teacher", "shadow")
#: Mappings inside mappings that are searched: a Lightning checkpoint has its state dict at depth 1.
_DEEPEST = 4


@dataclass(frozen=True)
class WeightSet:
    """The tensors of one network.

    Parameters
    ----------
    key : str
        Where in the file: the keys of the mappings around it and the prefix of its names, joined by dots; empty in a
        plain state dict.
    tensors : dict
        By name, without wrappers and prefix, in the file's order.
    others : dict
        What stands in the same mapping outside that prefix: a classifier of its own, or a loss.
    """

    key: str
    tensors: dict[str, torch.Tensor]
    others: dict[str, torch.Tensor]


def choose_weights(
    file: Path, content: object, weights_key: str | None, first_weights: Sequence[str] = FIRST_WEIGHTS
) -> tuple[WeightSet, tuple[str, ...]]:
    """Return the set of weights to take from a file's content, and what was assumed in taking it.

    A set is told by one of `first_weights`, under whatever prefix. Of several the first is taken that is no average
    over the training steps.

    Raises
    ------
    WeightsFileError
        There is none, or none, or more than one, of `weights_key`.
    WrongVariantError
        There are tensors, but those of another network.
    """
    sets = list(_find_sets(content, first_weights))
    if not sets:
        raise _describe(file, content, first_weights)
    keys = ", ".join(shorten(found.key or "(no key)") for found in sets[:8])
    if weights_key is not None:
        matching = [found for found in sets if found.key == weights_key]
        matching = matching or [found for found in sets if f".{found.key}.".find(f".{weights_key}.") >= 0]
        if len(matching) != 1:
            how_many = "no" if not matching else f"{len(matching)}"
            raise WeightsFileError(f"{file}: has {how_many} weights under the key {weights_key!r}; it has {keys}")
        return matching[0], ()
    chosen = next((found for found in sets if not _is_average(found.key)), sets[0])
    if len(sets) == 1:
        return chosen, ()
    return chosen, (f"weights: {shorten(chosen.key or '(no key)')}, of {keys}; --weights-key takes another",)


def _is_average(key: str) -> bool:
    return any(
        average in part.split("_") or average == part for part in key.lower().split(".") for average in _AVERAGES
    )


def _find_sets(content: object, first_weights: Sequence[str]) -> Iterator[WeightSet]:
    for path, mapping in _list_mappings(content):
        tensors = _unwrap(_list_tensors(mapping))
        prefixes = [
            name.removesuffix(first)
            for name in tensors
            for first in first_weights
            if name == first or name.endswith(f".{first}")
        ]
        for prefix in dict.fromkeys(prefixes):
            yield WeightSet(
                ".".join(part for part in (*path, prefix.removesuffix(".")) if part),
                {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)},
                {name: value for name, value in tensors.items() if not name.startswith(tuple(prefixes))},
            )


def _list_mappings(content: object) -> Iterator[tuple[tuple[str, ...], Mapping[object, object]]]:
    """Yield the mappings of a file from the outermost on, each once, with the keys that lead there."""
    seen: set[int] = set()
    level: list[tuple[tuple[str, ...], object]] = [((), content)]
    for _ in range(_DEEPEST + 1):
        inner: list[tuple[tuple[str, ...], object]] = []
        for path, value in level:
            if isinstance(value, Mapping) and id(value) not in seen:
                seen.add(id(value))
                yield path, value
                inner += [((*path, key), below) for key, below in value.items() if isinstance(key, str)]
        level = inner


def _list_tensors(mapping: Mapping[object, object]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in mapping.items() if isinstance(name, str) and isinstance(value, torch.Tensor)}


def _unwrap(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors under names without wrappers, unless two would get the same one."""
    plain = {
        ".".join(part for part in name.split(".") if part not in _WRAPPERS): value for name, value in tensors.items()
    }
    return plain if len(plain) == len(tensors) else tensors


def _describe(file: Path, content: object, first_weights: Sequence[str]) -> WeightsFileError | WrongVariantError:
    """Return the error for a content without such weights."""
    if isinstance(content, Inert):
        return WeightsFileError(f"{file}: a whole model or object ({_class_of(content)}){_WHOLE}")
    for _, mapping in _list_mappings(content):
        if tensors := _list_tensors(mapping):
            some = ", ".join(shorten(name) for name in list(tensors)[:3])
            return WrongVariantError(
                f"{file}: a state dict of another network: none of {' or '.join(first_weights)}, but {some}"
            )
    for path, mapping in _list_mappings(content):
        for key, value in mapping.items():
            if isinstance(value, Inert):
                where = shorten(".".join((*path, str(key) if isinstance(key, str) else "?")))
                return WeightsFileError(f"{file}: no weights, but an object at {where} ({_class_of(value)}){_WHOLE}")
    return WeightsFileError(f"{file}: holds a {type(content).__name__} without weights, not a state dict")


_WHOLE = (
    ", which is code, of which nothing is run here; where its class is at hand, torch.save(model.state_dict(),"
    " NEW_FILE) gives its weights"
)


def _class_of(value: Inert) -> str:
    return shorten(type(value).__name__)
