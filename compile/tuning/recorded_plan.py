"""The plan of a network by what its stages were measured to cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from thumbnet.compile.errors import TuningError
from thumbnet.compile.kernels.cycle_prices import prices_of
from thumbnet.compile.kernels.instruction_sets import kernels_of
from thumbnet.compile.network.layers import Network
from thumbnet.compile.plan.choose_plan import PlacedPlan, fastest_plan
from thumbnet.compile.plan.stage_graph import StageGraph
from thumbnet.compile.tuning.plan_search import SLACK
from thumbnet.compile.tuning.stage_key import KeyedStages
from thumbnet.compile.tuning.stage_records import CostKind, StageRecord, measured_costs, read_stage_records
from thumbnet.targets.board import Board

#: What a board's records may be, the best first: measured ones, and what stands for them in emulation.
_REAL: tuple[CostKind, ...] = ("cycles", "seconds on the board")
_EMULATED: tuple[CostKind, ...] = ("predicted cycles", "instructions")


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
    """

    plan: PlacedPlan
    kind: CostKind
    costs: tuple[float | None, ...]


def plan_by_records(
    network: Network, board: Board, folder: Path, ram_limit: int, *, emulated: bool, streamed: bool = False
) -> RecordedPlan:
    """Return the plan that costs least by records, under a limit on the arena.

    A stage without a record counts as its kernels predict it, times the ratio that nine in ten of the measured ones
    stay below.

    Parameters
    ----------
    network : Network
        What to compute.
    board : Board
        Its own records are used; of emulated boards all of its core.
    folder : Path
        Of `stage_records`.
    ram_limit : int
        Bytes the arena may take.
    emulated : bool
        Whether records of emulated boards may be used, where there are none of real ones.
    streamed : bool
        See `StageGraph`.

    Raises
    ------
    TuningError
        There are no records of such a board.
    """
    kind, costs, ratio = _choose_records(read_stage_records(folder), board, folder, emulated=emulated)
    keyed = KeyedStages()
    graph = StageGraph(
        network,
        kernels_of(board),
        streamed=streamed,
        prices=prices_of(board),
        objective="instructions" if kind == "instructions" else "cycles",
        slack=SLACK,
        cost_of=lambda stage: costs.get(keyed.key(stage), ratio * stage.cost),
    )
    plan = fastest_plan(graph, ram_limit)
    return RecordedPlan(plan, kind, tuple(costs.get(keyed.key(stage)) for stage in plan.stages))


def _choose_records(
    records: Sequence[StageRecord], board: Board, folder: Path, *, emulated: bool
) -> tuple[CostKind, dict[str, float], float]:
    """Return the best kind there is, the costs by key, and the ratio of costs to predictions."""
    for kind in (*_REAL, *(_EMULATED if emulated else ())):
        real = kind in _REAL
        costs = measured_costs(
            records, core=board.core, kind=kind, emulated=not real, board=board.name if real else None
        )
        ratios = sorted(
            record.cost / record.predicted
            for record in records
            if record.kind == kind and record.samples and record.key in costs
        )
        if ratios:
            return kind, costs, ratios[int(0.9 * (len(ratios) - 1))]
    others = sorted({f"{record.board} ({'emulated' if record.emulated else 'real'})" for record in records})
    hint = (
        ""
        if emulated or not any(r.emulated and r.core == board.core for r in records)
        else ("; --emulated-records takes those of emulated boards")
    )
    raise TuningError(
        f"{folder}: no records of a real {board.name} with today's kernels; it has {', '.join(others) or 'none'}{hint}"
    )
