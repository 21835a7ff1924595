"""Search for schedules of a network's layers with MetaSchedule: its rules, its evolution and its XGBoost model.

What it comes up with are stages, as those of our own kernels are: the same devices measure them in the same programs,
and the costs go back to MetaSchedule, which here neither builds nor runs anything.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence

import tvm
from tvm.s_tir import meta_schedule as ms

from thumbnet.compile.emit.tensor_intrinsics import load_tensor_intrinsics
from thumbnet.compile.errors import WrongScheduleError
from thumbnet.compile.network.integer_network import Layer
from thumbnet.compile.network.layers import Network
from thumbnet.compile.plan.stage_graph import StageGraph, StagePlan
from thumbnet.compile.tuning.layer_schedules import (
    layer_module,
    record_target,
    recorded_stages,
    records_of,
    replayed_stage,
    schedule_name,
    schedule_space,
    scheduled_kernel,
    tunable_layers,
)
from thumbnet.compile.tuning.stage_key import key_of
from thumbnet.compile.tuning.stage_record import CostKind
from thumbnet.targets.board import Board

#: Candidates of a layer that are measured before the cost model learns from them.
ROUND = 16
#: Rounds of a layer one after the other that find nothing better by `_LEAST_GAIN`, before it is left alone.
PATIENCE = 2
_LEAST_GAIN = 0.01
#: A layer is left alone too where its best schedule costs, after a round, so many times more than the plan pays for it;
#: after two rounds half of that, after three a third. (Rounds after the first gain a quarter at most, mostly less.)
HOPELESS = 1.0
#: And where the plan pays so small a part of its whole cost for it that nothing found could be noticed.
_LEAST_PART = 0.005
#: Schedules alive in the evolution, and how many of them at least are new: MetaSchedule's own 512 and 50 are made for
#: thousands of trials, and where a layer has fewer schedules than that it gives none at all.
_POPULATION, _LEAST_NEW, _MOST_FAILURES, _GENERATIONS = 64, 1, 20, 3
#: Measured candidates after which the cost model is believed.
_WARM_UP = 8
#: It takes costs for seconds.
_COUNT_S = 1e-9
_MOST_TRIALS = 1 << 20


class ScheduleSearch:
    """What MetaSchedule knows of a network's layers, and what it would measure next.

    Parameters
    ----------
    network : Network
        Whose layers.
    board : Board
        What they are tuned for.
    kind : str
        What costs are.
    database : Database
        See `records.opened_records`: what was measured is added to it, and what it has of this board's core and kind is
        where the search begins.
    measured : mapping of str to float
        Costs by key, from earlier searches too; those of schedules that come up again are not measured again.
    seed : int
        Of the search.
    on_wrong : callable
        Told of schedules that can't be built or gave wrong bytes, which are in no plan and not in the database.
    """

    def __init__(
        self,
        network: Network,
        board: Board,
        kind: CostKind,
        database: ms.database.Database,
        measured: Mapping[str, float],
        *,
        seed: int = 0,
        on_wrong: Callable[[WrongScheduleError], None] = lambda _: None,
    ) -> None:
        load_tensor_intrinsics()
        # It tells the console of every round.
        logging.getLogger("tvm.s_tir.meta_schedule").setLevel(logging.ERROR)
        self._graph = StageGraph(network, None)
        target = record_target(board, kind)
        known = records_of(database, target)
        self._measured, self._on_wrong = measured, on_wrong
        self._scale = 1.0 if kind == "seconds on the board" else _COUNT_S
        own, model = ms.database.MemoryDatabase(module_equality="structural"), _new_cost_model()
        for record in known:
            _add(own, record.workload.mod, record)
        self._searches = [
            _LayerSearch(layers, self._graph, target, (database, own), model=model, seed=seed)
            for layers in tunable_layers(network)
        ]
        self._proposed: dict[str, _LayerSearch] = {}
        self._waiting: list[StagePlan] = []
        #: The layers on the best schedules that earlier searches found.
        self.known_stages = recorded_stages(self._graph, known, measured)
        for search in self._searches:
            for stage in self.known_stages:
                search.remember(stage, measured[key_of(stage)])

    def propose(self, count: int, paid: Mapping[str, float]) -> list[StagePlan]:
        """Return up to so many candidates of one layer; none where all are out, or nothing better is to be expected.

        Parameters
        ----------
        count : int
            At most.
        paid : mapping of str to float
            What the best plan so far pays for each layer, by name.
        """
        while not self._waiting:
            usable = [search for search in self._searches if search.is_idle and not search.is_hopeless(paid)]
            if not usable:
                return []
            search = max(usable, key=lambda search: search.promise(paid))
            for stage in search.next_round():
                self._proposed[key_of(stage)] = search
                cost = self._measured.get(key_of(stage))
                if cost is None:
                    self._waiting.append(stage)
                else:
                    self._learn(stage, cost)
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken

    def learn(self, stages: Sequence[StagePlan], costs: Sequence[float]) -> list[StagePlan]:
        """Take the costs of candidates into account, and return the stages that plans are better for."""
        better = []
        for stage, cost in zip(stages, costs, strict=True):
            if not math.isfinite(cost):
                self._on_wrong(_wrong(stage))
            better += self._learn(stage, cost)
        return better

    def _learn(self, stage: StagePlan, cost: float) -> list[StagePlan]:
        return self._proposed.pop(key_of(stage)).learn(stage, cost, cost * self._scale)


class _LayerSearch:
    """The evolution of the schedules of one layer, and of all that have its loops."""

    def __init__(
        self,
        layers: Sequence[Layer],
        graph: StageGraph,
        target: tvm.target.Target,
        databases: Sequence[ms.database.Database],
        *,
        model: ms.CostModel,
        seed: int,
    ) -> None:
        self._layers, self._graph, self._target = layers, graph, target
        self._databases, self._model, self._seed = databases, model, seed
        self._context: ms.TuneContext | None = None
        self._candidates: list[ms.MeasureCandidate] = []
        #: By schedule, of the round that is out: the candidate's place, and what it turned out to take.
        self._out: dict[str, int] = {}
        self._results: list[ms.runner.RunnerResult | None] = []
        self._ended = False
        self._rounds = self._rounds_without_gain = 0
        self._best = self._best_before = math.inf
        #: Cost and bytes of the schedules of which no other is better in both.
        self._front: list[tuple[float, int]] = []

    @property
    def is_idle(self) -> bool:
        """Whether it may be asked for candidates: none are out, and there may be better ones."""
        return not self._out and not self._ended and self._rounds_without_gain < PATIENCE

    def is_hopeless(self, paid: Mapping[str, float]) -> bool:
        """Tell whether what it has found is far from what is paid for the layers, or that is next to nothing."""
        mine = self._paid(paid)
        if mine < _LEAST_PART * sum(paid.values()):
            return True
        limit = mine * (1 + HOPELESS / max(1, self._rounds))
        return math.isfinite(self._best) and self._best * len(self._layers) > limit

    def promise(self, paid: Mapping[str, float]) -> float:
        """Return how much there is to be gained, compared to others."""
        return self._paid(paid) / (1 + self._rounds)

    def _paid(self, paid: Mapping[str, float]) -> float:
        return sum(paid[layer.name] for layer in self._layers)

    def remember(self, stage: StagePlan, cost: float) -> None:
        """Take one of a network's stages into account, which an earlier search found."""
        if stage.layers[0] is self._layers[0]:
            self._best = min(self._best, cost)
            self._front.append((cost, stage.arena_bytes))

    def next_round(self) -> list[StagePlan]:
        """Return the candidates of a round, of which there may be none."""
        if self._context is None:
            self._context = self._begin()
        self._candidates = list(self._context.generate_measure_candidates() or ())
        self._results = [None] * len(self._candidates)
        self._ended = not self._candidates
        self._best_before = self._best
        stages = []
        for place, candidate in enumerate(self._candidates):
            name = schedule_name(candidate.sch.trace)
            try:
                kernel = scheduled_kernel(self._layers[0], candidate.sch.mod, name)
            except Exception as error:  # TVM has no common type for a schedule that can't be lowered
                self._results[place] = ms.runner.RunnerResult(None, f"{error}")
                continue
            self._out[name] = place
            stages.append(self._graph.stage_of(self._layers[0].name, kernel))
        if not stages and self._candidates:
            self._end_round()
        return stages

    def learn(self, stage: StagePlan, cost: float, seconds: float) -> list[StagePlan]:
        """Take a candidate's cost into account, and return stages on its schedule where it is better than others."""
        assert stage.kernel is not None
        place = self._out.pop(stage.kernel.variant)
        trace = self._candidates[place].sch.trace
        better: list[StagePlan] = []
        if math.isfinite(cost):
            self._results[place] = ms.runner.RunnerResult([seconds], None)
            self._record(self._candidates[place], seconds)
            self._best = min(self._best, cost)
            if not any(other <= cost and size <= stage.arena_bytes for other, size in self._front):
                self._front.append((cost, stage.arena_bytes))
                better = [stage, *(replayed_stage(self._graph, layer, trace) for layer in self._layers[1:])]
        else:
            self._results[place] = ms.runner.RunnerResult(None, f"{_wrong(stage)}")
        if not self._out:
            self._end_round()
        return better

    def _begin(self) -> ms.TuneContext:
        context = ms.TuneContext(
            layer_module(self._layers[0]),
            target=self._target,
            space_generator=schedule_space(),
            search_strategy=ms.search_strategy.EvolutionarySearch(
                population_size=_POPULATION,
                init_min_unmeasured=_LEAST_NEW,
                max_fail_count=_MOST_FAILURES,
                genetic_num_iters=_GENERATIONS,
            ),
            task_name=self._layers[0].name,
            rand_state=self._seed + 1,
            num_threads=1,
        )
        context.pre_tuning(_MOST_TRIALS, ROUND, database=self._databases[-1], cost_model=self._model)
        return context

    def _record(self, candidate: ms.MeasureCandidate, seconds: float) -> None:
        assert self._context is not None
        for database in self._databases:
            record = ms.database.TuningRecord(
                candidate.sch.trace,
                database.commit_workload(self._context.mod),
                [seconds],
                self._target,
                candidate.args_info,
            )
            database.commit_tuning_record(record)

    def _end_round(self) -> None:
        assert self._context is not None
        self._model.update(self._context, self._candidates, self._results)
        self._context.notify_runner_results(self._candidates, self._results)
        self._rounds += 1
        gained = self._best < self._best_before * (1 - _LEAST_GAIN)
        self._rounds_without_gain = 0 if gained else self._rounds_without_gain + 1


def _wrong(stage: StagePlan) -> WrongScheduleError:
    name = stage.kernel.variant if stage.kernel else ""
    return WrongScheduleError(f"{stage.name} on {name}: can't be built, or gave wrong bytes; it is left out")


def _new_cost_model() -> ms.CostModel:
    """Return a model that knows nothing yet; what it learns of one layer it uses for the next."""
    return ms.cost_model.XGBModel(num_warmup_samples=_WARM_UP, config=ms.cost_model.xgb_model.XGBConfig(nthread=1))


def _add(database: ms.database.Database, module: tvm.IRModule, record: ms.database.TuningRecord) -> None:
    workload = database.commit_workload(module)
    database.commit_tuning_record(
        ms.database.TuningRecord(record.trace, workload, record.run_secs, record.target, record.args_info)
    )
