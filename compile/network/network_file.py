"""An integer network in one file: the reference that goes with an artifact."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from thumbnet.compile.artifact import Artifact
from thumbnet.compile.errors import AGAIN, ArtifactError
from thumbnet.compile.file_access import read_arrays
from thumbnet.compile.manifest import MOST_MANIFEST_BYTES, first_fault
from thumbnet.compile.network.integer_network import IntegerNetwork
from thumbnet.compile.network.layer_fields import join_layer, split_layer
from thumbnet.compile.network.network_schema import NetworkFields, check_network
from thumbnet.compile.network.quantization import TensorQuant

#: In the artifact's folder, not for the board.
REFERENCE_FILE = "host/reference.npz"


def save_network(network: IntegerNetwork, path: Path) -> None:
    """Write a network as an .npz: arrays, and the rest as JSON."""
    layers: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    for layer in network.layers:
        scalars, own = split_layer(layer)
        layers.append(scalars)
        arrays.update({f"{layer.name}/{key}": array for key, array in own.items()})
    text = json.dumps({"input_shape": network.input_shape, "input_quant": network.input_quant, "layers": layers})
    np.savez_compressed(path, description=np.frombuffer(text.encode(), np.uint8), **arrays)


def load_network(path: Path) -> IntegerNetwork:
    """Read what `save_network` wrote.

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
        NetworkFields.model_validate_json(text)
        network = _join(json.loads(text), arrays)
        check_network(network)
    except ValidationError as error:
        raise ArtifactError(f"{path}: not a network's reference ({first_fault(error)}); {AGAIN}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: not a network's reference ({error}); {AGAIN}") from error
    return network


def load_reference(artifact: Artifact) -> IntegerNetwork:
    """Read the network of an int8 artifact, which gives the answers that its devices have to give.

    Raises
    ------
    ArtifactError
        The artifact has none, or one that takes or gives something else than its manifest says.
    """
    path = artifact.folder / REFERENCE_FILE
    if REFERENCE_FILE not in artifact.manifest["files"]:
        raise ArtifactError(f"{artifact.folder}: {REFERENCE_FILE} is missing; {AGAIN}")
    network = load_network(path)
    takes, gives = artifact.manifest["input"]["shape"], artifact.manifest["output"]["shape"]
    classes = math.prod(network.output.output_shape)
    if list(network.input_shape) != list(takes) or [classes] != list(gives):
        raise ArtifactError(
            f"{path}: takes {list(network.input_shape)} and gives {[classes]}, the manifest says {list(takes)} and"
            f" {list(gives)}; {AGAIN}"
        )
    return network


def _join(description: dict[str, Any], arrays: dict[str, Any]) -> IntegerNetwork:
    layers = []
    for scalars in description["layers"]:
        prefix = f"{scalars['name']}/"
        own = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
        layers.append(join_layer(scalars, own))
    height, width, channels = description["input_shape"]
    return IntegerNetwork((height, width, channels), TensorQuant(*description["input_quant"]), tuple(layers))
