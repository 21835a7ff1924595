"""A float32 network in one file, as data: what an artifact of a person's own module keeps of it."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from thumbnet.compile.manifest import Part, Text
from thumbnet.compile.network.float_network import (
    FloatAdd,
    FloatAveragePool,
    FloatConvolution,
    FloatDepthwiseConvolution,
    FloatLayer,
    FloatMaxPool,
    FloatNetwork,
)
from thumbnet.compile.network.layer_checks import check_convolution, check_layers, check_max_pool, expect
from thumbnet.compile.network.network_archive import Arrays, read_archive, write_archive
from thumbnet.compile.network.network_schema import Border, Hwc, Stride

#: In the artifact's folder, not for the board.
FLOAT_FILE = "host/float_network.npz"

_KINDS: dict[str, type[FloatLayer]] = {
    kind.__name__: kind
    for kind in (FloatConvolution, FloatDepthwiseConvolution, FloatAveragePool, FloatMaxPool, FloatAdd)
}
_ARRAYS = ("weight", "bias")
_CLAMPS = {"minimum": -math.inf, "maximum": math.inf}
_TUPLES = ("input_shape", "output_shape", "kernel", "stride", "padding")
_LARGEST = float(np.finfo(np.float32).max)

Bound = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]


class LayerFields(Part):
    """A layer without its arrays; a clamp of None is infinite."""

    kind: Literal["FloatConvolution", "FloatDepthwiseConvolution", "FloatAveragePool", "FloatMaxPool", "FloatAdd"]
    name: Text
    output_shape: Hwc
    minimum: Bound | None
    maximum: Bound | None
    input_shape: Hwc | None = None
    source: Text | None = None
    source_a: Text | None = None
    source_b: Text | None = None
    kernel: tuple[Stride, Stride] | None = None
    stride: tuple[Stride, Stride] | None = None
    padding: tuple[Border, Border, Border, Border] | None = None
    input_zero_point: Literal[0] | None = None


class FloatNetworkFields(Part):
    """The JSON of the file."""

    input_shape: Hwc
    layers: Annotated[list[LayerFields], Field(min_length=1, max_length=10_000)]


def save_float_network(network: FloatNetwork, path: Path) -> None:
    """Write a network as an .npz: arrays, and the rest as JSON."""
    write_archive(path, {"input_shape": network.input_shape}, map(_split, network.layers))


def load_float_network(path: Path) -> FloatNetwork:
    """Read what `save_float_network` wrote.

    Raises
    ------
    ArtifactError
        The file is no such network.
    """
    return read_archive(path, "a float network", FloatNetworkFields, _join)


def _split(layer: FloatLayer) -> tuple[dict[str, Any], Arrays]:
    fields = {"kind": type(layer).__name__, **asdict(layer)}
    arrays = {key: fields.pop(key) for key in _ARRAYS if key in fields}
    clamps = {key: None if fields[key] == unbounded else float(fields[key]) for key, unbounded in _CLAMPS.items()}
    return {**fields, **clamps}, arrays


def _join(header: dict[str, Any], layers: list[tuple[dict[str, Any], Arrays]]) -> FloatNetwork:
    height, width, channels = header["input_shape"]
    network = FloatNetwork((height, width, channels), tuple(_join_layer(*layer) for layer in layers))
    check_layers(network, _check_layer)
    return network


def _join_layer(fields: dict[str, Any], arrays: Arrays) -> FloatLayer:
    kind = _KINDS[fields.pop("kind")]
    own: dict[str, Any] = {key: tuple(value) if key in _TUPLES else value for key, value in fields.items()}
    own |= {key: unbounded if own[key] is None else float(own[key]) for key, unbounded in _CLAMPS.items()}
    own |= arrays
    return kind(**own)


def _check_layer(layer: FloatLayer) -> None:
    if layer.minimum > layer.maximum:
        raise ValueError(f"{layer.name}: is clamped to {layer.minimum:g} and more, {layer.maximum:g} and less")
    match layer:
        case FloatAveragePool():
            expect(layer.name, "output_shape", layer.output_shape, (1, 1, layer.input_shape[2]))
        case FloatMaxPool():
            check_max_pool(layer)
        case FloatConvolution() | FloatDepthwiseConvolution():
            check_convolution(layer, np.float32, np.float32)
            if not all(np.isfinite(array).all() for array in (layer.weight, layer.bias)):
                raise ValueError(f"{layer.name}: weights that are no finite numbers")
