"""A float32 network in one file, as data: what an artifact of a person's own module keeps of it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from thumbnet.compile.errors import AGAIN, ArtifactError
from thumbnet.compile.file_access import read_arrays
from thumbnet.compile.manifest import MOST_MANIFEST_BYTES, Part, Text, first_fault
from thumbnet.compile.network.float_network import (
    FloatAdd,
    FloatAveragePool,
    FloatConvolution,
    FloatDepthwiseConvolution,
    FloatLayer,
    FloatMaxPool,
    FloatNetwork,
)
from thumbnet.compile.network.layers import NETWORK_INPUT, Shape
from thumbnet.compile.network.network_schema import MOST_ACTIVATIONS, MOST_MACS, Border, Hwc, Stride

#: In the artifact's folder, not for the board.
FLOAT_FILE = "host/float_network.npz"

_KINDS: dict[str, type[FloatLayer]] = {
    kind.__name__: kind
    for kind in (FloatConvolution, FloatDepthwiseConvolution, FloatAveragePool, FloatMaxPool, FloatAdd)
}
_ARRAYS = ("weight", "bias")
_CLAMPS = {"minimum": -math.inf, "maximum": math.inf}
_TUPLES = ("input_shape", "output_shape", "kernel", "stride", "padding")


class LayerFields(Part):
    """A layer without its arrays; a clamp of None is infinite."""

    kind: Literal["FloatConvolution", "FloatDepthwiseConvolution", "FloatAveragePool", "FloatMaxPool", "FloatAdd"]
    name: Text
    output_shape: Hwc
    minimum: float | None
    maximum: float | None
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
    layers: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    for layer in network.layers:
        fields = asdict(layer)
        arrays.update({f"{layer.name}/{key}": fields.pop(key) for key in _ARRAYS if key in fields})
        for key, unbounded in _CLAMPS.items():
            fields[key] = None if fields[key] == unbounded else float(fields[key])
        layers.append({"kind": type(layer).__name__, **fields})
    text = json.dumps({"input_shape": network.input_shape, "layers": layers})
    np.savez_compressed(path, description=np.frombuffer(text.encode(), np.uint8), **arrays)


def load_float_network(path: Path) -> FloatNetwork:
    """Read what `save_float_network` wrote.

    Raises
    ------
    ArtifactError
        The file is no such network.
    """
    arrays = read_arrays(path)
    try:
        text = arrays.pop("description").tobytes()
        if len(text) > MOST_MANIFEST_BYTES:
            raise ValueError(f"its description has {len(text):,} bytes, {MOST_MANIFEST_BYTES:,} at most are read")
        FloatNetworkFields.model_validate_json(text)
        description = json.loads(text)
        height, width, channels = description["input_shape"]
        layers = tuple(_join(fields, arrays) for fields in description["layers"])
        network = FloatNetwork((height, width, channels), layers)
        _check(network)
    except ValidationError as error:
        raise ArtifactError(f"{path}: not a float network ({first_fault(error)}); {AGAIN}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: not a float network ({error}); {AGAIN}") from error
    return network


def _join(fields: dict[str, Any], arrays: dict[str, Any]) -> FloatLayer:
    kind = _KINDS[fields.pop("kind")]
    own: dict[str, Any] = {key: tuple(value) if key in _TUPLES else value for key, value in fields.items()}
    own |= {key: unbounded if own[key] is None else own[key] for key, unbounded in _CLAMPS.items()}
    if kind in (FloatConvolution, FloatDepthwiseConvolution):
        own |= {key: arrays[f"{own['name']}/{key}"] for key in _ARRAYS}
    return kind(**own)


def _check(network: FloatNetwork) -> None:
    """Check that layers fit together, so that they can be computed in bounded time and memory."""
    shapes: dict[str, Shape] = {NETWORK_INPUT: network.input_shape}
    for layer in network.layers:
        if layer.name in shapes:
            raise ValueError(f"{layer.name} stands there twice")
        for source in layer.sources:
            if shapes.get(source) != layer.input_shape:
                raise ValueError(f"{layer.name} takes {layer.input_shape}, {source} gives {shapes.get(source)}")
        if layer.output_shape != _output_shape(layer):
            raise ValueError(f"{layer.name} gives {_output_shape(layer)}, not {layer.output_shape}")
        shapes[layer.name] = layer.output_shape
    activations = sum(math.prod(shape) for shape in shapes.values())
    if activations > MOST_ACTIVATIONS or network.macs > MOST_MACS:
        raise ValueError(
            f"{activations:,} activations and {network.macs:,} multiply-accumulates;"
            f" {MOST_ACTIVATIONS:,} and {MOST_MACS:,} at most are computed"
        )


def _output_shape(layer: FloatLayer) -> Shape:
    if isinstance(layer, FloatAdd):
        return layer.input_shape
    height, width, channels = layer.input_shape
    if isinstance(layer, FloatAveragePool):
        return 1, 1, channels
    outputs = channels
    if not isinstance(layer, FloatMaxPool):
        depthwise = isinstance(layer, FloatDepthwiseConvolution)
        outputs = layer.weight.shape[-1] if depthwise else layer.weight.shape[0]
        wanted = (*layer.kernel, outputs) if depthwise else (outputs, *layer.kernel, channels)
        arrays = ((layer.weight, wanted), (layer.bias, (outputs,)))
        if any(array.dtype != np.float32 or array.shape != shape for array, shape in arrays) or outputs % (
            channels if depthwise else 1
        ):
            raise ValueError(f"{layer.name}: weight and bias don't fit {channels} channels")
        if not all(np.isfinite(array).all() for array, _ in arrays):
            raise ValueError(f"{layer.name}: weights that are no finite numbers")
    top, left, bottom, right = layer.padding
    rows = (height + top + bottom - layer.kernel[0]) // layer.stride[0] + 1
    columns = (width + left + right - layer.kernel[1]) // layer.stride[1] + 1
    return rows, columns, outputs
