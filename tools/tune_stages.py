"""Tuning by measured stages: the plan of a network for the very devices that are there."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import click
from numpy.typing import NDArray

from thumbnet.compile.errors import TuningError
from thumbnet.compile.kernels.cycle_prices import prices_of
from thumbnet.compile.kernels.instruction_sets import kernels_of
from thumbnet.compile.network.golden import make_golden
from thumbnet.compile.network.integer_network import IntegerNetwork
from thumbnet.compile.network.integer_relax import read_relax
from thumbnet.compile.network.layers import NETWORK_INPUT
from thumbnet.compile.network.reference import run_reference_layers
from thumbnet.compile.plan.board_plan import plan_for_board
from thumbnet.compile.plan.choose_plan import PlacedPlan
from thumbnet.compile.plan.stage_graph import StagePlan
from thumbnet.compile.quantize_request import quantize_input, quantize_network
from thumbnet.compile.request import CompileRequest
from thumbnet.compile.request import Objective as PlanObjective
from thumbnet.compile.tuning.plan_search import PlanSearch, StageCostModel
from thumbnet.compile.tuning.recorded_plan import limit_of
from thumbnet.compile.tuning.schedule_search import ScheduleSearch
from thumbnet.compile.tuning.stage_features import named_features
from thumbnet.compile.tuning.stage_key import describe_stage, kernels_digest, key_of
from thumbnet.compile.tuning.stage_record import CostKind, StageRecord
from thumbnet.compile.tuning.tune_plan import Progress as SearchProgress
from thumbnet.compile.tuning.tune_plan import TunedPlan, tune_plan
from thumbnet.runtime_tests.cycles.predict import model_of
from thumbnet.runtime_tests.measure_stages import Objective, StageReading
from thumbnet.runtime_tests.stage_measurer import DeviceMeasurer
from thumbnet.targets.board import Board
from thumbnet.targets.device import Device
from thumbnet.tools.output import print_table
from thumbnet.tools.progress import show_steps

#: Stages in one program: a build takes seconds, whatever is in it.
BATCH = 16
#: Devices that are called by name; more are counted.
_NAMED = 4
#: How a search ended, for people.
_ENDS = {
    "proven": "no plan with a stage that is not measured is expected to cost less",
    "trials": "all trials are used; the same command with more goes on from here",
    "time": "the time is up; the same command goes on from here",
    "devices": "no device answers any more; the same command goes on from here",
}


@dataclass(frozen=True)
class StageTuning:
    """A search's setting.

    Parameters
    ----------
    objective : {"cycles", "instructions", "seconds"}
        What is kept low.
    network : IntegerNetwork
        What is tuned.
    values : dict of str to ndarray
        What it does with one image.
    untuned : PlacedPlan
        Its plan without tuning.
    ram_limit : int
        Bytes the arena may take.
    on_kernels : PlacedPlan or None
        Where our own kernels are left out of the search: the plan of them, which `untuned` is not.
    """

    objective: Objective
    network: IntegerNetwork
    values: dict[str, NDArray[Any]]
    untuned: PlacedPlan
    ram_limit: int
    on_kernels: PlacedPlan | None = None


def prepare_stages(request: CompileRequest, objective: Objective, *, own_kernels: bool = True) -> StageTuning:
    """Quantize a network and plan it without tuning, for an objective; without our own kernels on portable ones.

    Raises
    ------
    CompileError
        Of the specific type for what is wrong.
    """
    network = read_relax(quantize_network(request))
    images = [quantize_input(network, image) for image in [*request.golden_images, *request.calibration][:1]]
    image = make_golden(network, images)[0][0]
    values = {NETWORK_INPUT: image, **run_reference_layers(network, image)}
    board, limit = request.board, request.options.ram_limit
    few = predicted_objective(objective)
    on_kernels = plan_for_board(network, board, limit, objective=few)[0]
    untuned = on_kernels
    if not own_kernels:
        untuned = plan_for_board(network, board, limit, objective=few, own_kernels=False)[0]
    ram_limit = limit_of(untuned, board, limit)
    return StageTuning(objective, network, values, untuned, ram_limit, None if own_kernels else on_kernels)


def default_objective(device: Device) -> Objective:
    """Return what is kept low on a device where nobody says: time, or cycles, which in emulation stand for it."""
    if not device.emulated:
        return "cycles" if device.board.family == "cortex-m" else "seconds"
    return "cycles" if model_of(device.board) is not None else "instructions"


def check_objective(objective: Objective, device: Device) -> None:
    """Refuse what a device can't measure, before anything is built for it.

    Raises
    ------
    TuningError
        An emulated device knows no time, and the cycles only of cores that there is a model of; a real one counts no
        instructions, and one that runs Linux tells no cycles.
    """
    able: list[Objective] = ["cycles", "instructions"]
    if not device.emulated:
        able = ["cycles", "seconds"] if device.board.family == "cortex-m" else ["seconds"]
    elif model_of(device.board) is None:
        able = ["instructions"]
    if objective not in able:
        raise TuningError(
            f"{device.name}: no {objective} are measured on {'an emulated' if device.emulated else 'a'}"
            f" {device.board.name} ({device.board.core});"
            f" take --objective {' or '.join(able)}"
        )


def kind_of(objective: Objective, device: Device) -> CostKind:
    """Return what a device's costs are, where an objective is kept low."""
    if objective == "cycles":
        return "predicted cycles" if device.emulated else "cycles"
    return "instructions" if objective == "instructions" else "seconds on the board"


def predicted_objective(objective: Objective) -> PlanObjective:
    """Return what kernels predict of an objective: of seconds, cycles."""
    return "instructions" if objective == "instructions" else "cycles"


def make_record(stage: StagePlan, reading: StageReading) -> StageRecord:
    """Return a reading with all that has to be known of it later."""
    device = reading.source.device
    board = device.board
    return StageRecord(
        key=key_of(stage),
        kernels=kernels_digest(),
        stage=describe_stage(stage),
        # Those of a layer on a schedule of TVM's say nothing of what it costs.
        features=None if stage.kernel is not None else named_features(stage),
        layers=[layer.name for layer in stage.layers],
        predicted=stage.cost,
        kind=reading.kind,
        right=bool(reading.samples),
        samples=list(reading.samples),
        board=board.name,
        core=board.core,
        device=device.name,
        emulated=device.emulated,
        identity=reading.source.place,
        clock_hz=board.clock_hz,
        compiler=reading.source.compiler,
        thumbnet=version("thumbnet"),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def open_search(
    tuning: StageTuning,
    board: Board,
    *,
    model: StageCostModel,
    measured: dict[str, float],
    schedules: ScheduleSearch | None = None,
) -> PlanSearch:
    """Return the search for the best plan on a board, where nothing but `measured` is known."""
    return PlanSearch(
        tuning.network,
        kernels_of(board) if tuning.on_kernels is None else None,
        prices=prices_of(board),
        objective=predicted_objective(tuning.objective),
        ram_limit=tuning.ram_limit,
        model=model,
        measured=measured,
        schedules=schedules,
    )


def tune_stages(
    tuning: StageTuning,
    devices: Sequence[Device],
    *,
    model: StageCostModel,
    measured: dict[str, float],
    schedules: ScheduleSearch | None = None,
    on_reading: Callable[[StagePlan, StageReading], None],
    trials: int,
    time_limit_s: float,
) -> TunedPlan:
    """Search on devices, with a line of progress, until the best plan is proven or a limit is reached.

    Parameters
    ----------
    tuning : StageTuning
        What is tuned.
    devices : sequence of Device
        Of boards of one core. One emulated device alone is started as often as this computer has processors.
    model, measured, schedules
        As for `PlanSearch`.
    on_reading : callable
        Told each stage and its reading, from several threads.
    trials, time_limit_s
        As for `tune_plan`.
    """
    search = open_search(tuning, devices[0].board, model=model, measured=measured, schedules=schedules)
    copies = os.cpu_count() or 1 if len(devices) == 1 and devices[0].kind == "emulated" else 1
    with contextlib.ExitStack() as opened, show_steps(f"tuning on {describe_devices(devices)}") as shown:
        shown.step("measuring the plan without tuning")
        measurers = [
            opened.enter_context(
                DeviceMeasurer(device, tuning.network, tuning.values, tuning.objective, on_reading=on_reading)
            )
            for device in devices
            for _ in range(copies)
        ]
        return tune_plan(
            search,
            tuning.untuned,
            measurers,
            trials=trials,
            batch=BATCH,
            time_limit_s=time_limit_s,
            rivals=tuning.on_kernels.stages if tuning.on_kernels else (),
            on_progress=lambda now: shown.step(_describe(now)),
            on_failure=lambda name, error: click.echo(f"{name}: {error}; the search goes on", err=True),
        )


def _describe(now: SearchProgress) -> str:
    rate = now.trials / max(now.seconds, 1e-9) * 60
    text = f"{now.trials} stages measured, {rate:.0f} a minute"
    if math.isfinite(now.best):
        text += f", best {_number(now.best)}, {_gain(now.untuned, now.best)} gained"
        if now.bound < now.best:
            text += f", no plan expected below {_number(now.bound)}"
    return text


def print_tuned(title: str, kind: str, tuned: TunedPlan) -> None:
    """Print each stage before and after, and the whole, with what was gained."""
    rows = [*_stage_rows(tuned)]
    before, after = sum(tuned.untuned_costs), sum(tuned.best_costs)
    print_table(
        title,
        ["layers", f"untuned: stages, {kind}", "", f"tuned: stages, {kind}", "", "gain"],
        rows,
        footer=(
            "whole",
            len(tuned.untuned.stages),
            _number(before),
            len(tuned.best.stages),
            _number(after),
            _gain(before, after),
        ),
    )
    last = tuned.history[-1]
    click.echo(f"{last.trials} stages measured in {last.seconds / 60:.1f} minutes. {_ENDS[tuned.end].capitalize()}.")


def compare_with_kernels(tuning: StageTuning, tuned: TunedPlan, measured: Mapping[str, float]) -> float | None:
    """Print what the plan of our own kernels costs, where the search left these out, and return it."""
    if tuning.on_kernels is None:
        return None
    costs = [measured.get(key_of(stage)) for stage in tuning.on_kernels.stages]
    if None in costs:
        click.echo("The plan of our own kernels is not measured; the same command with more trials does so.")
        return None
    cost = sum(cost for cost in costs if cost is not None)
    click.echo(
        f"The plan of our own kernels costs {_number(cost)} with an arena of {tuning.on_kernels.arena_bytes:,} bytes,"
        f" this one {_number(sum(tuned.best_costs))} with {tuned.best.arena_bytes:,}; `thumbnet compile --tuning` takes"
        " the best of both that --ram-limit allows."
    )
    return cost


def as_json(tuned: TunedPlan) -> dict[str, Any]:
    """Return a search's result for a JSON file: costs in order of execution, and how it went."""

    def stages(plan: PlacedPlan, costs: Sequence[float]) -> list[dict[str, Any]]:
        return [
            {"layers": [layer.name for layer in stage.layers], "cost": cost}
            for stage, cost in zip(plan.stages, costs, strict=True)
        ]

    return {
        "untuned": sum(tuned.untuned_costs),
        "tuned": sum(tuned.best_costs),
        "end": tuned.end,
        "trials": tuned.history[-1].trials,
        "seconds": tuned.history[-1].seconds,
        "untuned_stages": stages(tuned.untuned, tuned.untuned_costs),
        "tuned_stages": stages(tuned.best, tuned.best_costs),
        "history": [asdict(entry) for entry in tuned.history],
    }


def _stage_rows(tuned: TunedPlan) -> Iterator[tuple[object, ...]]:
    """Yield a row for each run of layers that both plans cut at the same places."""
    before = list(zip(tuned.untuned.stages, tuned.untuned_costs, strict=True))
    after = list(zip(tuned.best.stages, tuned.best_costs, strict=True))
    while before or after:
        taken: tuple[list[tuple[StagePlan, float]], list[tuple[StagePlan, float]]] = ([], [])
        while not taken[0] or _layers(taken[0]) != _layers(taken[1]):
            side, rest = (0, before) if len(_layers(taken[0])) <= len(_layers(taken[1])) else (1, after)
            taken[side].append(rest.pop(0))
        costs = [sum(cost for _, cost in part) for part in taken]
        names = _layers(taken[0])
        yield (
            names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}",
            len(taken[0]),
            _number(costs[0]),
            len(taken[1]),
            _number(costs[1]),
            _gain(*costs),
        )


def _layers(part: Sequence[tuple[StagePlan, float]]) -> list[str]:
    return [layer.name for stage, _ in part for layer in stage.layers]


def _number(cost: float) -> str:
    return f"{cost:.6f}" if cost < 1 else f"{cost:,.0f}"


def _gain(before: float, after: float) -> str:
    return f"{1 - after / before:.1%}" if before else "-"


def describe_devices(devices: Sequence[Device]) -> str:
    """Return the names of a search's devices, or how many there are where they are many."""
    if len(devices) <= _NAMED:
        return ", ".join(device.name for device in devices)
    return f"{len(devices)} boards {devices[0].board.name}"


def check_devices(devices: Sequence[Device]) -> None:
    """Check that devices can share a search.

    Raises
    ------
    TuningError
        They are of different types, or of one that no kernel is chosen for.
    """
    boards = {device.board.name: device for device in devices}
    if len(boards) > 1:
        first, second = list(boards.values())[:2]
        raise TuningError(
            f"{first.name} is a {first.board.name}, {second.name} a {second.board.name}; name devices of one board"
        )
    board = devices[0].board
    if board.instruction_set is None:
        raise TuningError(f"{devices[0].name}: no kernels of our own run on a {board.name}; take --space tvm")
