"""An integer network in one file: the reference that goes with an artifact."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from thumbnet.compile.errors import ArtifactError
from thumbnet.compile.network.integer_network import IntegerNetwork
from thumbnet.compile.network.layer_fields import join_layer, split_layer
from thumbnet.compile.network.quantization import TensorQuant


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
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        description = json.loads(arrays.pop("description").tobytes())
        layers = []
        for scalars in description["layers"]:
            prefix = f"{scalars['name']}/"
            own = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
            layers.append(join_layer(scalars, own))
        height, width, channels = description["input_shape"]
        return IntegerNetwork((height, width, channels), TensorQuant(*description["input_quant"]), tuple(layers))
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: not a network's reference ({error}); compile the network again") from error
