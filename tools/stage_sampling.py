"""Stages of many networks, chosen as a search would choose them, and what they cost on emulated boards."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thumbnet.compile.compile_model import quantize_network
from thumbnet.compile.kernels.instruction_sets import kernels_of
from thumbnet.compile.kernels.layouts import Layout
from thumbnet.compile.kernels.rolling_stage import RollingStage
from thumbnet.compile.network.integer_network import NETWORK_INPUT, IntegerNetwork
from thumbnet.compile.network.integer_relax import read_relax
from thumbnet.compile.network.reference import run_reference_layers
from thumbnet.compile.plan.stage_graph import StageGraph, StagePlan
from thumbnet.compile.tuning.plan_search import SLACK
from thumbnet.compile.tuning.stage_features import FEATURES, stage_features
from thumbnet.compile.tuning.stage_key import kernels_digest, key_of
from thumbnet.compile.tuning.stage_samples import StageSamples
from thumbnet.runtime_tests.measure_stages import Objective, measure_costs
from thumbnet.runtime_tests.open_session import open_session
from thumbnet.targets.board import Board, Family
from thumbnet.targets.device import Device
from thumbnet.tools.workloads import Workload, make_benchmark_request

#: The emulated boards whose cores have seeds.
BOARDS = ("mps2_an386", "mps2_an500", "mps3_an547", "raspberry_pi_4", "raspberry_pi_5")
#: What is measured on them.
OBJECTIVES: dict[Family, tuple[Objective, ...]] = {
    "cortex-m": ("cycles", "instructions"),
    "cortex-a": ("instructions",),
}
#: Networks that seeds are of: many widths, odd numbers of channels, sizes that the networks left out don't have.
SEED_NETWORKS: dict[Family, tuple[str, ...]] = {
    "cortex-m": (
        "mobilenet_v1_0.21_80",
        "mobilenet_v1_0.25_128",
        "mobilenet_v1_0.3_160",
        "mobilenet_v1_0.4_64",
        "mobilenet_v2_0.35_112",
        "mobilenet_v2_0.5_64",
        "mobilenet_v2_0.75_80",
    ),
    "cortex-a": (
        "mobilenet_v1_0.25_128",
        "mobilenet_v1_0.42_80",
        "mobilenet_v1_1.0_128",
        "mobilenet_v2_0.35_128",
        "mobilenet_v2_0.75_160",
        "mobilenet_v2_1.0_160",
    ),
}
#: Networks that no seed is of, to test models with.
HELD_OUT_NETWORKS: dict[Family, tuple[str, ...]] = {
    "cortex-m": ("vww_96", "mobilenet_v2_0.35_96"),
    "cortex-a": ("vww_96", "mobilenet_v2_1.0_224"),
}
_CLASSES = 10
#: By what estimates are taken to be wrong, as the standard deviation of the logarithm, and how many plans are drawn.
_SPREAD, _MOST_PLANS = 0.12, 400
#: Stages a program.
_BATCH = 30


@dataclass(frozen=True)
class MeasuredStage:
    """A stage of a network, and its cost by kind; infinite where it gave wrong bytes."""

    network: str
    stage: StagePlan
    costs: Mapping[str, float]


def random_network(model: str, board: Board) -> IntegerNetwork:
    """Return a network with random weights, as it is compiled for a board."""
    request = make_benchmark_request(Workload(model, model, _CLASSES), board, "random", None, keep=True)
    return read_relax(quantize_network(request))


def sample_stages(
    network: IntegerNetwork, kernels: type[RollingStage], count: int, *, seed: int = 7
) -> dict[str, StagePlan]:
    """Return up to so many stages by their keys: those of plans that were best if estimates were wrong at random.

    Each plan is drawn for another limit on the arena, or for none.
    """
    rng = np.random.default_rng(seed)
    errors: dict[object, float] = {}

    def cost_of(stage: StagePlan) -> float:
        identity: object = stage.chain or stage.name
        if identity not in errors:
            errors[identity] = math.exp(rng.normal(0, _SPREAD))
        return stage.instructions * errors[identity]

    graph = StageGraph(network, kernels, cost_of=cost_of, slack=SLACK)
    arenas = [max(stage.arena_bytes for stage in stages) for stages in graph.pareto_front()]
    limits = [*[None] * len(arenas), *arenas]
    found: dict[str, StagePlan] = {}
    for _ in range(_MOST_PLANS):
        errors.clear()
        for stage in graph.best_plan(limits[rng.integers(len(limits))]) or ():
            found.setdefault(key_of(stage), stage)
        if len(found) >= count:
            break
    return dict(list(found.items())[:count])


class Measurements:
    """Costs of stages on an emulated board by key and kind, kept in a file if one is named.

    Parameters
    ----------
    board : Board
        Which one.
    file : Path or None
        Lines of JSON; those of an earlier run are not measured again. A line that was cut off is left out.
    """

    def __init__(self, board: Board, file: Path | None = None) -> None:
        self.device = Device(f"qemu_{board.name}", board, "emulated")
        self._file = file
        self._known: dict[str, dict[str, float]] = {}
        for line in file.read_text().splitlines() if file is not None and file.exists() else ():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if record["board"] == board.name:
                self._known.setdefault(record["key"], {}).update(record["costs"])

    def measure(
        self,
        network: IntegerNetwork,
        stages: Mapping[str, StagePlan],
        objectives: Sequence[Objective],
        on_measured: Callable[[int], None] = lambda _: None,
    ) -> list[Mapping[str, float]]:
        """Return the costs of a network's stages by kind, in their order.

        Parameters
        ----------
        network : IntegerNetwork
            Whose stages they are.
        stages : mapping of str to StagePlan
            By key.
        objectives : sequence of Objective
            What is measured.
        on_measured : callable
            Told after each program how many stages it held.

        Raises
        ------
        SessionError, ToolchainError
            The board can't be emulated.
        """
        image = np.random.default_rng(1).integers(-128, 128, network.input_shape).astype(np.int8)
        missing = [key for key in stages if len(self._known.get(key, {})) < len(objectives)]
        on_measured(len(stages) - len(missing))
        if missing:
            values = {NETWORK_INPUT: image, **run_reference_layers(network, image)}
            with open_session(self.device) as session:
                for start in range(0, len(missing), _BATCH):
                    keys = missing[start : start + _BATCH]
                    readings = measure_costs(session, network, values, [stages[key] for key in keys], objectives)
                    for position, key in enumerate(keys):
                        self._keep(key, {reading[position].kind: reading[position].cost for reading in readings})
                    on_measured(len(keys))
        return [self._known[key] for key in stages]

    def _keep(self, key: str, costs: dict[str, float]) -> None:
        self._known.setdefault(key, {}).update(costs)
        if self._file is not None:
            with self._file.open("a") as file:
                file.write(json.dumps({"board": self.device.board.name, "key": key, "costs": costs}) + "\n")


def measure_samples(
    board: Board,
    models: Sequence[str],
    count: int,
    measurements: Measurements,
    on_measured: Callable[[int], None] = lambda _: None,
) -> dict[str, StageSamples]:
    """Return by kind what `count` stages of each of some networks cost, see `sample_stages`.

    Raises
    ------
    SessionError, ToolchainError
        The board can't be emulated.
    """
    measured: list[MeasuredStage] = []
    for model in models:
        network = random_network(model, board)
        stages = sample_stages(network, kernels_of(board), count)
        costs = measurements.measure(network, stages, OBJECTIVES[board.family], on_measured)
        measured += [MeasuredStage(model, stage, cost) for stage, cost in zip(stages.values(), costs, strict=True)]
    return {kind: _as_samples(measured, models, board.core, kind) for kind in measured[0].costs}


def _as_samples(measured: Sequence[MeasuredStage], models: Sequence[str], core: str, kind: str) -> StageSamples:
    """Return the stages that gave the right bytes as arrays."""
    right = [item for item in measured if math.isfinite(item.costs[kind])]
    pairs: dict[tuple[str, tuple[str, ...], Layout, Layout], int] = {}
    for item in right:
        pairs.setdefault(_node_pair(item), len(pairs))
    return StageSamples(
        core=core,
        kind=kind,
        features=np.array([stage_features(item.stage) for item in right], np.float32).reshape(-1, len(FEATURES)),
        estimates=np.array([item.stage.instructions for item in right]),
        costs=np.array([item.costs[kind] for item in right]),
        networks=np.array([models.index(item.network) for item in right], np.int32),
        node_pairs=np.array([pairs[_node_pair(item)] for item in right], np.int32),
        names=tuple(models),
        kernels_digest=kernels_digest(),
    )


def _node_pair(item: MeasuredStage) -> tuple[str, tuple[str, ...], Layout, Layout]:
    stage = item.stage
    return item.network, tuple(layer.name for layer in stage.layers), stage.source, stage.target
