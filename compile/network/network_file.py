"""An integer network in one file: the reference that goes with an artifact."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from thumbnet.compile.artifact import Artifact
from thumbnet.compile.errors import AGAIN, ArtifactError
from thumbnet.compile.network.integer_network import IntegerNetwork
from thumbnet.compile.network.layer_fields import join_layer, split_layer
from thumbnet.compile.network.network_archive import Arrays, read_archive, write_archive
from thumbnet.compile.network.network_schema import NetworkFields, check_network
from thumbnet.compile.network.quantization import TensorQuant

#: In the artifact's folder, not for the board.
REFERENCE_FILE = "host/reference.npz"


def save_network(network: IntegerNetwork, path: Path) -> None:
    """Write a network as an .npz: arrays, and the rest as JSON."""
    header = {"input_shape": network.input_shape, "input_quant": network.input_quant}
    write_archive(path, header, map(split_layer, network.layers))


def load_network(path: Path) -> IntegerNetwork:
    """Read what `save_network` wrote.

    Raises
    ------
    ArtifactError
        The file is no such network.
    """
    return read_archive(path, "a network's reference", NetworkFields, _join)


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


def _join(header: dict[str, Any], layers: list[tuple[dict[str, Any], Arrays]]) -> IntegerNetwork:
    height, width, channels = header["input_shape"]
    network = IntegerNetwork(
        (height, width, channels), TensorQuant(*header["input_quant"]), tuple(join_layer(*layer) for layer in layers)
    )
    check_network(network)
    return network
