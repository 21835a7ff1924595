"""Stages of many networks, chosen as a search would choose them, and what they cost on emulated boards."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from thumbnet.compile.kernels.cycle_prices import prices_of
from thumbnet.compile.kernels.instruction_sets import kernels_of
from thumbnet.compile.kernels.layouts import Layout
from thumbnet.compile.plan.stage_graph import StageGraph, StagePlan
from thumbnet.compile.request import CompileRequest
from thumbnet.compile.tuning.plan_search import SLACK
from thumbnet.compile.tuning.stage_features import FEATURES, stage_features
from thumbnet.compile.tuning.stage_key import KeyedStages, kernels_digest
from thumbnet.compile.tuning.stage_records import (
    StageRecorder,
    measured_costs,
    opened_stage_records,
    read_stage_records,
)
from thumbnet.compile.tuning.stage_samples import StageSamples
from thumbnet.runtime_tests.measure_stages import Objective, StageReading
from thumbnet.runtime_tests.stage_measurer import DeviceMeasurer
from thumbnet.targets.board import Board, Family
from thumbnet.targets.device import Device
from thumbnet.tools.tune_stages import (
    BATCH,
    StageTuning,
    kind_of,
    make_record,
    predicted_objective,
    prepare_stages,
)
from thumbnet.tools.workloads import Workload, make_benchmark_request

#: What seeds are of: cycles where people tune for them, and of Linux boards, whose time no emulation knows, both.
OBJECTIVES: dict[Family, tuple[Objective, ...]] = {"cortex-m": ("cycles",), "cortex-a": ("instructions", "cycles")}
#: The emulated boards whose cores have seeds.
BOARDS = ("mps2_an386", "mps2_an500", "mps3_an547", "raspberry_pi_4", "raspberry_pi_5")
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
#: By what estimates are taken to be wrong, as the standard deviation of the logarithm: more where less finds no more.
_SPREADS = (0.12, 0.25, 0.5, 1.0)
#: How many plans are drawn for each.
_MOST_PLANS = 400


@dataclass(frozen=True)
class _MeasuredStage:
    """A stage of a network, and its cost; infinite where it gave wrong bytes."""

    network: str
    stage: StagePlan
    cost: float


def emulated(board: Board) -> Device:
    """Return the device that emulates a board."""
    return Device(f"qemu_{board.name}", board, "emulated")


def random_network(model: str, board: Board) -> CompileRequest:
    """Return a network with random weights, as it is compiled for a board."""
    return make_benchmark_request(Workload(model, model, _CLASSES), board, "random", None, keep=True)


def sample_stages(
    tuning: StageTuning, board: Board, count: int, *, limited: bool = False, seed: int = 7
) -> dict[str, StagePlan]:
    """Return up to so many stages by their keys: those of plans that were best if estimates were wrong at random.

    There are less only where the plans drawn have no more.

    Each plan is drawn for another limit on the arena, or for none; with `limited` all for that of the tuning.
    """
    rng = np.random.default_rng(seed)
    spread = _SPREADS[0]
    errors: dict[str, float] = {}
    keyed = KeyedStages()

    def cost_of(stage: StagePlan) -> float:
        key = keyed.key(stage)
        if key not in errors:
            errors[key] = math.exp(rng.normal(0, spread))
        return stage.cost * errors[key]

    graph = StageGraph(
        tuning.network,
        kernels_of(board),
        prices=prices_of(board),
        objective=predicted_objective(tuning.objective),
        cost_of=cost_of,
        slack=SLACK,
    )
    limits: list[int | None] = [tuning.ram_limit]
    if not limited:
        arenas = [max(stage.arena_bytes for stage in stages) for stages in graph.pareto_front()]
        limits = [*[None] * len(arenas), *arenas]
    found: dict[str, StagePlan] = {}
    for drawn in range(_MOST_PLANS * len(_SPREADS)):
        spread = _SPREADS[drawn // _MOST_PLANS]
        errors.clear()
        for stage in graph.best_plan(limits[rng.integers(len(limits))]) or ():
            found.setdefault(keyed.key(stage), stage)
        if len(found) >= count:
            break
    return dict(list(found.items())[:count])


def measure_recorded(
    tuning: StageTuning,
    device: Device,
    stages: Mapping[str, StagePlan],
    folder: Path,
    on_measured: Callable[[int], None] = lambda _: None,
) -> list[float]:
    """Return what stages cost on an emulated board, in their order; those without a record are measured.

    Parameters
    ----------
    tuning : StageTuning
        Whose stages they are, and what is measured of them.
    device : Device
        Where.
    stages : mapping of str to StagePlan
        By key.
    folder : Path
        Of records: read first, and added to.
    on_measured : callable
        Told after each program how many stages it held.

    Raises
    ------
    SessionError, ToolchainError, TuningError
        The board can't be emulated; the folder can't be used.
    """
    objective = tuning.objective

    def record(recorder: StageRecorder, stage: StagePlan, reading: StageReading) -> None:
        recorder.add(make_record(stage, reading))

    with opened_stage_records(folder) as recorder:
        kind = kind_of(objective, device)
        known = measured_costs(read_stage_records(folder), core=device.board.core, kind=kind, emulated=True)
        missing = [key for key in stages if key not in known]
        on_measured(len(stages) - len(missing))
        with DeviceMeasurer(device, tuning.network, tuning.values, objective, partial(record, recorder)) as measurer:
            for start in range(0, len(missing), 2 * BATCH):
                keys = missing[start : start + 2 * BATCH]
                known.update(zip(keys, measurer.measure([stages[key] for key in keys]), strict=True))
                on_measured(len(keys))
    return [known[key] for key in stages]


def measure_samples(
    board: Board,
    objective: Objective,
    models: Sequence[str],
    *,
    count: int,
    folder: Path,
    on_measured: Callable[[int], None] = lambda _: None,
) -> StageSamples:
    """Return what `count` stages of each of some networks cost: cycles or instructions.

    For arguments and errors see `sample_stages` and `measure_recorded`.
    """
    device = emulated(board)
    measured: list[_MeasuredStage] = []
    for model in models:
        tuning = prepare_stages(random_network(model, board), objective)
        stages = sample_stages(tuning, board, count)
        costs = measure_recorded(tuning, device, stages, folder, on_measured)
        measured += [_MeasuredStage(model, stage, cost) for stage, cost in zip(stages.values(), costs, strict=True)]
    return _as_samples(measured, models, board.core, kind_of(objective, device))


def _as_samples(measured: Sequence[_MeasuredStage], models: Sequence[str], core: str, kind: str) -> StageSamples:
    """Return the stages that gave the right bytes as arrays."""
    right = [item for item in measured if math.isfinite(item.cost)]
    pairs: dict[tuple[str, tuple[str, ...], Layout, Layout], int] = {}
    for item in right:
        pairs.setdefault(_node_pair(item), len(pairs))
    return StageSamples(
        core=core,
        kind=kind,
        features=np.array([stage_features(item.stage) for item in right], np.float32).reshape(-1, len(FEATURES)),
        estimates=np.array([item.stage.cost for item in right]),
        costs=np.array([item.cost for item in right]),
        networks=np.array([models.index(item.network) for item in right], np.int32),
        node_pairs=np.array([pairs[_node_pair(item)] for item in right], np.int32),
        names=tuple(models),
        kernels_digest=kernels_digest(),
    )


def _node_pair(item: _MeasuredStage) -> tuple[str, tuple[str, ...], Layout, Layout]:
    stage = item.stage
    return item.network, tuple(layer.name for layer in stage.layers), stage.source, stage.target
