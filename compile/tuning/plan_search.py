"""Search for the plan of a network that costs least on a device, measuring only stages that a good plan could use.

A plan is a shortest path over stages (`stage_graph`). Costs that aren't measured yet are estimated, at the low end of
what is likely: the shortest path then either holds a stage that is not measured, which is worth measuring, or is
measured whole, and no other plan can be expected to beat it. What is expected may be wrong: some stages are measured
beyond that, those of the plans that would be best if costs were lower than is likely.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from thumbnet.compile.kernels.cycle_prices import CyclePrices
from thumbnet.compile.kernels.rolling_stage import RollingStage
from thumbnet.compile.network.layers import Network
from thumbnet.compile.plan.choose_plan import PlacedPlan, fastest_plan
from thumbnet.compile.plan.stage_graph import StageGraph, StagePlan
from thumbnet.compile.request import Objective
from thumbnet.compile.tuning.stage_key import KeyedStages

#: Part by which the kernels' own estimates may be wrong: what is further behind is never tried.
SLACK = 0.15
#: How much further from the typical cost than the low end a stage is hoped to lie where no plan is expected to be
#: better, more where that proposes nothing; and how many stages are measured in this hope, without finding a better
#: plan, before the search ends.
HOPES, SECOND_LOOKS = (2.0, 4.0, 8.0), 32


@dataclass(frozen=True)
class Estimate:
    """What a stage is likely to cost: one in fifty costs less than `low`, one in ten more than `high`."""

    low: float
    typical: float
    high: float


class StageCostModel(Protocol):
    """Estimates costs, and learns from those that were measured."""

    def estimate(self, stage: StagePlan) -> Estimate:
        """Return what a stage is likely to cost."""

    def learn(self, stages: Sequence[StagePlan], costs: Sequence[float]) -> None:
        """Take further measured stages into account."""


class ScheduleSource(Protocol):
    """Comes up with layers on schedules, see `schedule_search.ScheduleSearch`."""

    @property
    def known_stages(self) -> Sequence[StagePlan]:
        """Return layers on schedules that earlier searches found and measured."""

    def propose(self, count: int, paid: Mapping[str, float]) -> Sequence[StagePlan]:
        """Return up to so many stages worth measuring, given what the best plan pays for each layer."""

    def learn(self, stages: Sequence[StagePlan], costs: Sequence[float]) -> Sequence[StagePlan]:
        """Take what they cost into account, and return the stages that plans are better for."""


class PlanSearch:
    """What is known of a network's stages, and what to measure next.

    Parameters
    ----------
    network : Network
        What to compute.
    kernels : type of RollingStage or None
        The core's fast kernels.
    prices, objective
        What the kernels predict of stages, see `StageGraph`.
    ram_limit : int or None
        Bytes the arena may take.
    model : StageCostModel
        For stages that aren't measured.
    measured : mapping of str to float
        Costs by key, from earlier searches too.
    schedules : ScheduleSource, optional
        Layers on TVM's schedules, tried where nothing of the kernels is left to measure.
    """

    def __init__(
        self,
        network: Network,
        kernels: type[RollingStage] | None,
        *,
        prices: CyclePrices | None = None,
        objective: Objective = "cycles",
        ram_limit: int | None,
        model: StageCostModel,
        measured: dict[str, float],
        schedules: ScheduleSource | None = None,
    ) -> None:
        self._graph = StageGraph(network, kernels, prices=prices, objective=objective, cost_of=self._cost, slack=SLACK)
        self._ram_limit, self._model, self._measured = ram_limit, model, measured
        self._keyed = KeyedStages()
        self._estimates: dict[str, Estimate] = {}
        #: Stages being measured or proposed: taken for dear meanwhile, so that others come to be proposed.
        self._awaited: set[str] = set()
        self._measured_only = False
        #: How far from the typical cost to the low end one that isn't measured is taken to lie.
        self._hope = 1.0
        self._looks_left, self._looked_at = SECOND_LOOKS, math.inf
        self._schedules = schedules
        for stage in schedules.known_stages if schedules else ():
            self._graph.add(stage)

    def propose(self, count: int) -> list[StagePlan]:
        """Return up to so many stages worth measuring, the most promising first; they are awaited until `learn`.

        There are none where nothing is left to measure, or all that is left is awaited.
        """
        proposed = self._propose(count) or self._look_again(count)
        if not proposed and self._schedules is not None:
            proposed = self.await_unknown(self._schedules.propose(count, self._paid()))
        return proposed

    def _propose(self, count: int) -> list[StagePlan]:
        proposed: list[StagePlan] = []
        while len(proposed) < count:
            unknown = [stage for stage in self.best_plan().stages if not self._is_known(stage)]
            if not unknown:
                break
            proposed += self.await_unknown(unknown[: count - len(proposed)])
        return proposed

    def _look_again(self, count: int) -> list[StagePlan]:
        """Return stages of plans that would be best if costs were lower than is likely, while that finds better."""
        best = self.best_known_plan()
        cost = math.inf if best is None else sum(self.costs_of(best))
        if cost < self._looked_at:
            self._looks_left, self._looked_at = SECOND_LOOKS, cost
        proposed: list[StagePlan] = []
        for hope in HOPES:
            self._hope = hope
            try:
                proposed += self._propose(min(count, self._looks_left) - len(proposed))
            finally:
                self._hope = 1.0
        self._looks_left -= len(proposed)
        return proposed

    def learn(self, stages: Sequence[StagePlan], costs: Sequence[float]) -> None:
        """Take measured costs into account; an infinite one is of a stage that can't be used."""
        for stage, cost in zip(stages, costs, strict=True):
            self._measured[self.key(stage)] = cost
            self._awaited.discard(self.key(stage))
        known = [*zip(stages, costs, strict=True)]
        usable = [(stage, cost) for stage, cost in known if math.isfinite(cost) and stage.kernel is None]
        self._model.learn([stage for stage, _ in usable], [cost for _, cost in usable])
        self._estimates.clear()
        if self._schedules is not None:
            scheduled = [(stage, cost) for stage, cost in known if stage.kernel is not None]
            for stage in self._schedules.learn([stage for stage, _ in scheduled], [cost for _, cost in scheduled]):
                self._graph.add(stage)

    def await_unknown(self, stages: Iterable[StagePlan]) -> list[StagePlan]:
        """Return those that are neither measured nor awaited, and await them from now on."""
        unknown = []
        for stage in stages:
            if not self._is_known(stage):
                self._awaited.add(self.key(stage))
                unknown.append(stage)
        return unknown

    def best_plan(self) -> PlacedPlan:
        """Return the plan that costs least by what is known and hoped for."""
        return fastest_plan(self._graph, self._ram_limit)

    def best_known_plan(self) -> PlacedPlan | None:
        """Return the best plan of stages that are all measured; None where there is none yet."""
        self._measured_only = True
        try:
            plan = self.best_plan()
        finally:
            self._measured_only = False
        return plan if all(map(math.isfinite, self.costs_of(plan))) else None

    def costs_of(self, plan: PlacedPlan) -> tuple[float, ...]:
        """Return the measured costs of a plan's stages, infinite where one isn't measured."""
        return tuple(self._measured.get(self.key(stage), math.inf) for stage in plan.stages)

    def bound(self) -> float:
        """Return the cost that no plan is expected to beat: of the best one, unmeasured stages at their low end."""
        return sum(self._measured.get(self.key(stage), self.estimate(stage).low) for stage in self.best_plan().stages)

    def key(self, stage: StagePlan) -> str:
        """Return the key of one of the search's stages, see `key_of`."""
        return self._keyed.key(stage)

    def estimate(self, stage: StagePlan) -> Estimate:
        """Return what the model takes a stage to cost."""
        key = self.key(stage)
        if key not in self._estimates:
            self._estimates[key] = self._model.estimate(stage)
        return self._estimates[key]

    def _paid(self) -> dict[str, float]:
        """Return what the best plan pays for each layer: of what a stage costs, a part by its work."""
        paid: dict[str, float] = {}
        for stage in (self.best_known_plan() or self.best_plan()).stages:
            cost = self._measured.get(self.key(stage), self.estimate(stage).typical)
            work = {layer.name: self._graph.stage_of(layer.name).cost for layer in stage.layers}
            paid |= {name: cost * part / sum(work.values()) for name, part in work.items()}
        return paid

    def _is_known(self, stage: StagePlan) -> bool:
        key = self.key(stage)
        return key in self._measured or key in self._awaited

    def _cost(self, stage: StagePlan) -> float:
        key = self.key(stage)
        if key in self._measured:
            return self._measured[key]
        if self._measured_only:
            return math.inf
        estimate = self.estimate(stage)
        if key in self._awaited:
            return estimate.high
        hoped_for: float = estimate.typical * (estimate.low / estimate.typical) ** self._hope
        return hoped_for
