"""Trials as an artifact: what any device session loads, runs by layers and profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.artifact import Artifact, write_manifest
from thumbnet.compile.emit.emit_c import emit_c
from thumbnet.compile.emit.stage_library import build_stage_library
from thumbnet.compile.manifest import GOLDEN_FILE
from thumbnet.compile.network.layers import NETWORK_INPUT, Network
from thumbnet.compile.plan.stage_graph import StagePlan
from thumbnet.compile.tuning.trial_network import trial_network
from thumbnet.targets.board import Board

_NAME = "trials"
_TITLE = "Stages to be measured, each behind what puts its input in place"
_GENERATOR = "Made by a search for the fastest plan."


def write_trials(
    network: Network, values: Mapping[str, NDArray[Any]], trials: Sequence[StagePlan], board: Board, folder: Path
) -> Artifact:
    """Write trials as C sources, or build a library of them, as the board takes it.

    Parameters
    ----------
    network : Network
        Whose stages are tried.
    values : mapping of str to ndarray
        Its input and every layer's output ``[H, W, C]`` for one image: what stages read, and should give.
    trials : sequence of StagePlan
        Trial `i` becomes the layer `trial_network.trial_name(i)`.
    board : Board
        Where they are to run.
    folder : Path
        Existing and empty.

    Raises
    ------
    ToolchainError
        The board's compiler is missing or fails.
    """
    lowered = trial_network(network, values, trials)
    if board.artifact == "c":
        emit_c(lowered, _NAME, folder, title=_TITLE, generator=_GENERATOR)
    else:
        build_stage_library(lowered, _NAME, board, folder, title=_TITLE, generator=_GENERATOR)
    image = values[NETWORK_INPUT]
    classes = network.output.output_shape[2]
    manifest: dict[str, Any] = {
        "name": _NAME,
        "model": _NAME,
        "board": board.name,
        "core": board.core,
        "kind": board.artifact,
        "dtype": network.dtype,
        "input": {"shape": network.input_shape, "dtype": network.dtype},
        "output": {"shape": (classes,), "dtype": network.dtype},
        "arena_bytes": lowered.plan.arena_bytes,
        "layers": [
            {
                "name": stage.name,
                "shape": stage.output_layout.shape,
                "macs": stage.macs,
                "kernel": stage.kernel.variant,
                "arena_offset": lowered.plan.offsets[stage.name],
                "layout": asdict(stage.output_layout),
            }
            for stage in lowered.stages
        ],
    }
    if network.dtype == "int8":
        # No answer of a network is expected: none is run.
        np.savez(folder / GOLDEN_FILE, inputs=image[None], outputs=np.zeros((1, classes), np.int8))
        manifest["golden"] = {"file": GOLDEN_FILE, "outputs": [[0] * classes]}
    write_manifest(folder, manifest)
    return Artifact.load(folder)
