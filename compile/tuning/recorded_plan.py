"""The plan of a network by what its stages were measured to cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from thumbnet.compile.errors import TuningError
from thumbnet.compile.kernels.cycle_prices import prices_of
from thumbnet.compile.kernels.instruction_sets import kernels_of
from thumbnet.compile.network.layers import Network
from thumbnet.compile.plan.choose_plan import PlacedPlan, fastest_plan
from thumbnet.compile.plan.fit import arena_limit
from thumbnet.compile.plan.stage_graph import StageGraph, StagePlan
from thumbnet.compile.request import Objective
from thumbnet.compile.tuning.cost_model import LearnedCostModel, model_of_core
from thumbnet.compile.tuning.layer_schedules import record_target, recorded_stages, records_of
from thumbnet.compile.tuning.plan_search import SLACK
from thumbnet.compile.tuning.records import has_schedule_records, read_records
from thumbnet.compile.tuning.stage_key import KeyedStages, kernels_digest
from thumbnet.compile.tuning.stage_record import EMULATED_KINDS, REAL_KINDS, CostKind, StageRecord
from thumbnet.compile.tuning.stage_records import measured_costs, newest_records, read_stage_records
from thumbnet.targets.board import Board

#: Records that come with the package: of the bundled networks, made by `python -m thumbnet.tools.shipped_records`.
SHIPPED = Path(__file__).parent / "shipped"


@dataclass(frozen=True)
class RecordedPlan:
    """A plan, and what is known of its stages.

    Parameters
    ----------
    plan : PlacedPlan
        What is taken.
    kind : str
        What costs are.
    costs : tuple of float or None
        Of each stage as measured; None where it was not.
    shipped : bool
        Whether the records are those that came with the package.
    """

    plan: PlacedPlan
    kind: CostKind
    costs: tuple[float | None, ...]
    shipped: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return what a manifest says of it: how many stages were measured, and what these cost together."""
        measured = [cost for cost in self.costs if cost is not None]
        return {
            "kind": self.kind,
            "measured_stages": len(measured),
            "measured_cost": float(sum(measured)),
            "shipped": self.shipped,
        }


def limit_of(untuned: PlacedPlan, board: Board, ram_limit: int | None) -> int:
    """Return the bytes a tuned plan's arena may take: what was asked for, or what the network takes without tuning.

    What tuning gains is time: it gets no more RAM for it where no limit is named.
    """
    limit = untuned.arena_bytes if ram_limit is None else ram_limit
    has = arena_limit(board)
    return limit if has is None else min(limit, has)


def plan_by_records(
    network: Network,
    board: Board,
    folder: Path,
    untuned: PlacedPlan,
    ram_limit: int | None,
    *,
    emulated: bool,
    objective: Objective | None = None,
    streamed: bool = False,
) -> RecordedPlan:
    """Return the plan that costs least by records, under the limit on the arena that `limit_of` has.

    Where the plan without tuning is measured whole, as after a search, only measured stages are taken: an estimate that
    proves too low would cost more than it gains. Else a stage without a record counts at the high end of what
    `cost_model` takes it to cost. Layers on schedules of TVM's are as measured.

    Parameters
    ----------
    network : Network
        What to compute.
    board : Board
        Its own records are used; of emulated boards all of its core.
    folder : Path
        Of `stage_records`.
    untuned : PlacedPlan
        Kept where no other costs less.
    ram_limit : int or None
        Bytes the arena may take.
    emulated : bool
        Whether records of emulated boards may be used, where there are none of real ones.
    objective : {"cycles", "instructions"}, optional
        Records of it only; without it the best there are: measured time, predicted cycles, instructions.
    streamed : bool
        See `StageGraph`.

    Raises
    ------
    TuningError
        There are no records of such a board, or no plan does without stages that gave wrong bytes.
    """
    kind, newest = _choose_records(read_stage_records(folder), board, folder, _kinds_of(objective, emulated=emulated))
    few: Objective = "instructions" if kind == "instructions" else "cycles"
    keyed = KeyedStages()
    limit = limit_of(untuned, board, ram_limit)
    model: LearnedCostModel | None = None

    def cost_of(stage: StagePlan) -> float:
        record = newest.get(keyed.key(stage))
        if record is not None:
            return record.cost
        if model is None:
            return math.inf
        # The plan without tuning may have been made for another objective.
        predicted = stage.instructions if few == "instructions" or stage.cycles is None else stage.cycles
        return model.estimate(replace(stage, cost=predicted)).high

    def rank(plan: PlacedPlan) -> tuple[bool, float]:
        return plan.arena_bytes > limit, sum(map(cost_of, plan.stages))

    graph = StageGraph(
        network,
        kernels_of(board),
        streamed=streamed,
        prices=prices_of(board),
        objective=few,
        slack=SLACK,
        cost_of=cost_of,
    )
    if has_schedule_records(folder):
        costs = {key: record.cost for key, record in newest.items()}
        for stage in recorded_stages(graph, records_of(read_records(folder), record_target(board, kind)), costs):
            graph.add(stage)
    searched = all(keyed.key(stage) in newest for stage in untuned.stages)
    plan = min(untuned, fastest_plan(graph, limit), key=rank) if searched else untuned
    if math.isinf(rank(plan)[1]):
        model = model_of_core(board.core, kind, newest.values())
        plan = min(untuned, fastest_plan(graph, limit), key=rank)
    if wrong := next((stage for stage in plan.stages if math.isinf(cost_of(stage))), None):
        raise TuningError(
            f"{folder}: every plan has a stage that gave wrong bytes on a {board.name}, such as"
            f" {'+'.join(layer.name for layer in wrong.layers)}; tune again into another folder"
        )
    records = [newest.get(keyed.key(stage)) for stage in plan.stages]
    return RecordedPlan(plan, kind, tuple(None if record is None else record.cost for record in records))


def plan_by_shipped_records(
    network: Network, board: Board, untuned: PlacedPlan, *, folder: Path = SHIPPED
) -> RecordedPlan | None:
    """Return the plan that costs least by the records of a bundled network, in no more RAM than without them.

    They are predicted cycles of emulated boards, and count for a board of the very type they are of.

    Parameters
    ----------
    network : Network
        What to compute.
    board : Board
        What it is compiled for.
    untuned : PlacedPlan
        What it is made by without them, under whatever limit.
    folder : Path
        Of the records.

    Returns
    -------
    RecordedPlan or None
        None where a stage of `untuned` is none of theirs: they are of another network, board or thumbnet.
    """
    kind: CostKind = "predicted cycles"
    measured = measured_costs(read_stage_records(folder), core=board.core, kind=kind, emulated=True, board=board.name)
    keyed = KeyedStages()
    if any(math.isinf(measured.get(keyed.key(stage), math.inf)) for stage in untuned.stages):
        return None
    graph = StageGraph(
        network,
        kernels_of(board),
        prices=prices_of(board),
        slack=SLACK,
        cost_of=lambda stage: measured.get(keyed.key(stage), math.inf),
    )
    plan = fastest_plan(graph, untuned.arena_bytes)
    return RecordedPlan(plan, kind, tuple(measured[keyed.key(stage)] for stage in plan.stages), shipped=True)


def _kinds_of(objective: Objective | None, *, emulated: bool) -> list[CostKind]:
    """Return which kinds of costs serve an objective, the best first."""
    kinds = (*REAL_KINDS, *(EMULATED_KINDS if emulated else ()))
    return [kind for kind in kinds if objective in (None, "instructions" if kind == "instructions" else "cycles")]


def _choose_records(
    records: Sequence[StageRecord], board: Board, folder: Path, kinds: Sequence[CostKind]
) -> tuple[CostKind, dict[str, StageRecord]]:
    """Return the first kind of which there are costs, and the records that count, by key; one at least is right."""
    for kind in kinds:
        real = kind in REAL_KINDS
        newest = newest_records(
            records, core=board.core, kind=kind, emulated=not real, board=board.name if real else None
        )
        if any(record.right for record in newest.values()):
            return kind, newest
    current = kernels_digest()
    usable = [record for record in records if record.core == board.core and record.kernels == current and record.right]
    if not set(kinds) & set(EMULATED_KINDS) and any(record.emulated for record in usable):
        raise TuningError(
            f"{folder}: has no records of a real {board.name}; --emulated-records takes those of emulated boards"
        )
    there = {
        f"{record.board} ({'emulated' if record.emulated else 'real'}, {record.kind}"
        f"{'' if record.kernels == current else ', other kernels'})"
        for record in records
    }
    raise TuningError(
        f"{folder}: has no {' or '.join(kinds)} of a {board.name} with the kernels of this thumbnet, but records of"
        f" {', '.join(sorted(there)) or 'nothing'}; tune again, or leave --tuning out"
    )
