"""Reads the description of a Keras model as data: its layers in the order of execution, nested models opened."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from thumbnet.models.weights_file import shorten

#: Of the text: that of a MobileNet V2 has 150 kB.
LARGEST_CONFIG = 8 * 2**20
_FUNCTIONAL = frozenset({"Functional", "Model"})
_SEQUENTIAL = "Sequential"
_INPUT = "InputLayer"
#: What makes random variants of pictures in training, and nothing of them afterwards.
_AUGMENTING = re.compile("Random[A-Z].*|AutoContrast|RandAugment|AugMix|MixUp|CutMix")
_MOST_LAYERS = 2000


class OtherConfigError(Exception):
    """A model that isn't described by layers that follow one another; the message says what it has instead."""


@dataclass(frozen=True)
class KerasLayer:
    """A layer of a model.

    Parameters
    ----------
    kind : str
        Its class.
    settings : dict
        Its configuration.
    names : tuple of str
        Its name, after those of the nested models it is in.
    slots : tuple of str
        The groups in a Keras 3 archive that have its weights: the classes' names in snake case, numbered.
    sources : tuple of int
        Positions of the layers whose output it takes.
    constants : tuple
        The numbers it is called with, and None for each tensor among them, in their order.
    """

    kind: str
    settings: dict[str, Any]
    names: tuple[str, ...]
    slots: tuple[str, ...]
    sources: tuple[int, ...]
    constants: tuple[float | None, ...] = ()

    @property
    def name(self) -> str:
        """How a line for the person calls it."""
        return shorten(self.names[-1])


def read_config(text: str | bytes) -> tuple[list[KerasLayer], int]:
    """Return the layers of a model in the order of execution, and the position of the one that is its output.

    Layers that augment pictures are left out. The first one is the input.

    Raises
    ------
    OtherConfigError
        It has several inputs or outputs, or a layer that is used more than once.
    LookupError, ValueError, TypeError, AttributeError, RecursionError
        It is written otherwise.
    """
    model = json.loads(text)
    if model["class_name"] not in {*_FUNCTIONAL, _SEQUENTIAL}:
        raise OtherConfigError(f"a model of class {shorten(model['class_name'])}")
    walk = _Walk()
    output = walk.read_model(model, (), (), None)
    return walk.layers, output


class _Walk:
    def __init__(self) -> None:
        self.layers: list[KerasLayer] = []

    def read_model(
        self, model: dict[str, Any], names: tuple[str, ...], slots: tuple[str, ...], source: int | None
    ) -> int:
        """Append a model's layers; `source` is what it takes, None for the outermost."""
        config = model["config"]
        entries = list(zip(config["layers"], _number_slots(config["layers"]), strict=True))
        if model["class_name"] == _SEQUENTIAL:
            return self._read_sequence(config, entries, names, slots, source)
        if len(inputs := _list_ends(config["input_layers"])) != 1:
            raise OtherConfigError(f"{len(inputs)} inputs")
        outputs: dict[str, int] = {}
        for entry, slot in entries:
            name = entry["config"]["name"]
            if entry["class_name"] == _INPUT:
                outputs[name] = self._read_input(entry["config"], (*names, name)) if source is None else source
                continue
            calls = entry["inbound_nodes"]
            if len(calls) != 1:
                raise OtherConfigError(f"layer {shorten(name)}, which is used {len(calls)} times,")
            arguments = list(_list_arguments(calls[0]))
            sources = tuple(outputs[argument] for argument in arguments if isinstance(argument, str))
            constants = tuple(None if isinstance(argument, str) else argument for argument in arguments)
            outputs[name] = self._read_entry(entry, (*names, name), (*slots, slot), sources, constants)
        if len(ends := _list_ends(config["output_layers"])) != 1:
            raise OtherConfigError(f"{len(ends)} outputs")
        return outputs[ends[0]]

    def _read_sequence(
        self,
        config: dict[str, Any],
        entries: list[tuple[dict[str, Any], str]],
        names: tuple[str, ...],
        slots: tuple[str, ...],
        source: int | None,
    ) -> int:
        if source is None:
            first = dict(entries[0][0]["config"])
            if entries[0][0]["class_name"] != _INPUT and "build_input_shape" in config:
                first["batch_shape"] = config["build_input_shape"]
            source = self._read_input(first, (*names, "input"))
        for entry, slot in entries:
            if entry["class_name"] != _INPUT:
                source = self._read_entry(entry, (*names, entry["config"]["name"]), (*slots, slot), (source,), (None,))
        return source

    def _read_input(self, config: dict[str, Any], names: tuple[str, ...]) -> int:
        return self._append(KerasLayer(_INPUT, config, names, (), ()))

    def _read_entry(
        self,
        entry: dict[str, Any],
        names: tuple[str, ...],
        slots: tuple[str, ...],
        sources: tuple[int, ...],
        constants: tuple[float | None, ...],
    ) -> int:
        kind = entry["class_name"]
        if _AUGMENTING.fullmatch(kind) and len(sources) == 1:
            return sources[0]
        if kind in _FUNCTIONAL or kind == _SEQUENTIAL:
            if len(sources) != 1:
                raise OtherConfigError(f"model {shorten(names[-1])} of {len(sources)} inputs")
            return self.read_model(entry, names, slots, sources[0])
        return self._append(KerasLayer(kind, entry["config"], names, slots, sources, constants))

    def _append(self, layer: KerasLayer) -> int:
        if len(self.layers) >= _MOST_LAYERS:
            raise OtherConfigError(f"more than {_MOST_LAYERS} layers")
        self.layers.append(layer)
        return len(self.layers) - 1


def _number_slots(entries: list[dict[str, Any]]) -> Iterator[str]:
    """Yield how a Keras 3 archive calls the group of each layer."""
    counts: dict[str, int] = {}
    for entry in entries:
        snake = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", entry["class_name"])
        snake = re.sub(r"([a-z])([A-Z])", r"\1_\2", snake).lower()
        count = counts[snake] = counts.get(snake, -1) + 1
        yield f"{snake}_{count}" if count else snake


def _list_ends(ends: list[Any]) -> list[str]:
    """Return the names of a model's inputs or outputs, a single one written in a list of its own or not."""
    return [ends[0]] if isinstance(ends[0], str) else [end[0] for end in ends]


def _list_arguments(call: Any) -> Iterator[str | float]:  # noqa: ANN401 - whatever the file holds
    """Yield what a layer is called with: layers' names, and numbers.

    Keras 2 writes a tensor as ``[name, node, tensor, {more arguments}]``, Keras 3 as a dictionary with its history.
    """
    if isinstance(call, dict):
        if call.get("class_name") == "__keras_tensor__":
            yield call["config"]["keras_history"][0]
            return
        for value in call.values():
            yield from _list_arguments(value)
    elif isinstance(call, list):
        if len(call) >= 3 and isinstance(call[0], str) and type(call[1]) is int and type(call[2]) is int:
            yield call[0]
            call = call[3:]
        for value in call:
            yield from _list_arguments(value)
    elif isinstance(call, int | float) and not isinstance(call, bool):
        yield float(call)
