"""Search for a layer's best schedule with MetaSchedule: its rules, evolution and cost model, on any device we measure.

The candidates become C, many in one program, as the stages of `plan_search` do: they are measured by the same
`tune_plan.StageMeasurer`, and afterwards are stages like any other.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count

import tvm
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule.builder import BuilderInput, BuilderResult, PyBuilder
from tvm.s_tir.meta_schedule.runner import PyRunner, PyRunnerFuture, RunnerInput, RunnerResult

from thumbnet.compile.emit.tensor_intrinsics import load_tensor_intrinsics
from thumbnet.compile.errors import TuningError
from thumbnet.compile.kernels.kernel import Kernel
from thumbnet.compile.network.integer_network import Layer
from thumbnet.compile.network.layers import Network
from thumbnet.compile.plan.stage_graph import StageGraph, StagePlan
from thumbnet.compile.tuning.layer_schedules import (
    layer_module,
    record_target,
    schedule_space,
    scheduled_kernel,
    tunable_layers,
)
from thumbnet.compile.tuning.tune_plan import StageMeasurer
from thumbnet.targets.board import Board

#: Of a layer: fewer tell nothing.
FEWEST_TRIALS = 8
#: Candidates measured together, before the cost model learns from them.
LARGEST_ROUND = 16
#: Schedules alive in the evolution, and how many of them at least are new: MetaSchedule's own 512 and 50 are made for
#: thousands of trials, and where a layer has fewer schedules than that it gives none at all.
_POPULATION, _LEAST_NEW, _MOST_FAILURES, _GENERATIONS = 64, 1, 20, 3
#: Measured candidates after which the cost model is believed.
_WARM_UP = 8
#: MetaSchedule takes costs for seconds.
COUNT_S = 1e-9


def new_cost_model() -> ms.CostModel:
    """Return a model that knows nothing yet; what it learns of one layer it may use for the next."""
    return ms.cost_model.XGBModel(num_warmup_samples=_WARM_UP, config=ms.cost_model.xgb_model.XGBConfig(nthread=1))


def tune_layers(
    network: Network,
    board: Board,
    measurers: Sequence[StageMeasurer],
    database: ms.database.Database,
    *,
    objective: str,
    trials: int,
    seed: int = 0,
    on_round: Callable[[Layer, Sequence[float]], None] = lambda _layer, _costs: None,
) -> None:
    """Search for schedules of a network's layers, see `tune_layer`: most trials go where most is to be gained.

    Layers that one schedule is right for are searched once. Where trials are few, layers that cost little have none.

    Parameters
    ----------
    trials : int
        Candidates to measure at most, of all layers.
    on_round : callable
        Told a layer and the costs after each round.
    """
    graph, cost_model = StageGraph(network, None), new_cost_model()
    groups = [
        (sum(graph.stage_of(layer.name).instructions for layer in layers), layers[0])
        for layers in tunable_layers(network).values()
    ]
    groups.sort(key=lambda group: -group[0])
    rest = sum(work for work, _ in groups)
    for work, layer in groups:
        share = min(max(round(trials * work / rest), FEWEST_TRIALS), trials)
        if share == 0:
            break
        tune_layer(
            *(network, layer, board, measurers, database),
            objective=objective,
            trials=share,
            seed=seed,
            cost_model=cost_model,
            on_round=partial(on_round, layer),
        )
        trials -= share
        rest -= work


def tune_layer(
    network: Network,
    layer: Layer,
    board: Board,
    measurers: Sequence[StageMeasurer],
    database: ms.database.Database,
    *,
    objective: str,
    trials: int,
    seed: int = 0,
    cost_model: ms.CostModel | None = None,
    on_round: Callable[[Sequence[float]], None] = lambda _: None,
) -> None:
    """Search for the schedule of a layer that costs least, and add what was measured to a database.

    `layer_schedules.tuned_kernels` then finds the best there. What an earlier search added is where this one begins.
    Candidates that can't be built or give wrong bytes are not added.

    Parameters
    ----------
    network : Network
        Whose layer it is.
    layer : Layer
        One of `layer_schedules.tunable_layers`.
    board : Board
        Of the devices.
    measurers : sequence of StageMeasurer
        Devices that share the candidates of a round; one that fails is left out from then on.
    database : Database
        See `records.opened_records`.
    objective : {"cycles", "instructions", "seconds"}
        What the measurers measure.
    trials : int
        Candidates to measure at most: small layers have fewer schedules.
    seed : int
        Of the search.
    cost_model : CostModel, optional
        What was learned of other layers.
    on_round : callable
        Told the costs after each round.

    Raises
    ------
    TuningError
        All devices failed.
    """
    load_tensor_intrinsics()
    logging.getLogger("tvm.s_tir.meta_schedule").setLevel(logging.ERROR)
    graph, devices, builder = StageGraph(network, None), _Devices(measurers), _Builder(layer)

    def measure(kernels: Sequence[Kernel]) -> list[float]:
        costs = devices.measure([graph.stage_of(layer.name, kernel) for kernel in kernels])
        on_round(costs)
        return [cost if objective == "seconds" else cost * COUNT_S for cost in costs]

    runner = _Runner(builder, measure)
    module, target = layer_module(layer), record_target(board, objective)
    context = ms.TuneContext(
        module,
        target=target,
        space_generator=schedule_space(),
        search_strategy=ms.search_strategy.EvolutionarySearch(
            population_size=_POPULATION,
            init_min_unmeasured=_LEAST_NEW,
            max_fail_count=_MOST_FAILURES,
            genetic_num_iters=_GENERATIONS,
        ),
        task_name=layer.name,
        rand_state=seed + 1,
        num_threads=1,
    )
    try:
        ms.tune_tasks(
            tasks=[context],
            task_weights=[1.0],
            work_dir="",
            max_trials_global=trials,
            num_trials_per_iter=min(trials, LARGEST_ROUND),
            builder=builder,
            runner=runner,
            database=database,
            measure_callbacks=[_AddMeasured(database, target), ms.measure_callback.UpdateCostModel()],
            cost_model=cost_model or new_cost_model(),
        )
    except Exception:
        # On its way through MetaSchedule an error may have become another.
        if runner.fault is not None:
            raise runner.fault from None
        raise


@tvm.ir.utils.derived_object
class _Builder(PyBuilder):  # type: ignore[misc]
    """Makes kernels of candidates, here: the device's compiler takes them all in one program."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer
        #: By what MetaSchedule is told to be the artifact's path.
        self.kernels: dict[str, Kernel] = {}
        self.names = count()

    def build(self, build_inputs: list[BuilderInput]) -> list[BuilderResult]:
        return [self._build(item.mod) for item in build_inputs]

    def _build(self, module: tvm.IRModule) -> BuilderResult:
        name = f"candidate {next(self.names)}"
        try:
            self.kernels[name] = scheduled_kernel(self.layer, module, name)
        except Exception as error:  # TVM has no common type for a schedule that can't be lowered
            return BuilderResult(None, f"{error}")
        return BuilderResult(name, None)


@tvm.ir.utils.derived_object
class _Runner(PyRunner):  # type: ignore[misc]
    """Has the candidates of a round measured, in what MetaSchedule takes for seconds."""

    def __init__(self, builder: _Builder, measure: Callable[[Sequence[Kernel]], list[float]]) -> None:
        super().__init__()
        self.builder, self.measure = builder, measure
        self.fault: BaseException | None = None

    def run(self, runner_inputs: list[RunnerInput]) -> list[PyRunnerFuture]:
        try:
            costs = self.measure([self.builder.kernels.pop(str(item.artifact_path)) for item in runner_inputs])
        except BaseException as error:
            self.fault = error
            raise
        return [_Measured(cost) for cost in costs]


@tvm.ir.utils.derived_object
class _Measured(PyRunnerFuture):  # type: ignore[misc]
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def done(self) -> bool:
        return True

    def result(self) -> RunnerResult:
        if math.isfinite(self.seconds):
            return RunnerResult([self.seconds], None)
        return RunnerResult(None, "it can't be built, or gives wrong bytes")


@tvm.ir.utils.derived_object
class _AddMeasured(ms.measure_callback.PyMeasureCallback):  # type: ignore[misc]
    """Adds what was measured to a database. MetaSchedule's own adds what failed too."""

    def __init__(self, database: ms.database.Database, target: tvm.target.Target) -> None:
        super().__init__()
        self.database, self.target = database, target

    def apply(
        self,
        task_scheduler: ms.TaskScheduler,
        task_id: int,
        measure_candidates: list[ms.MeasureCandidate],
        builder_results: list[BuilderResult],
        runner_results: list[RunnerResult],
    ) -> None:
        workload = self.database.commit_workload(task_scheduler.tasks_[task_id].ctx.mod)
        for candidate, result in zip(measure_candidates, runner_results, strict=True):
            if result.error_msg is None:
                record = ms.database.TuningRecord(
                    candidate.sch.trace, workload, result.run_secs, self.target, candidate.args_info
                )
                self.database.commit_tuning_record(record)


class _Devices:
    """Devices that measure the parts of a round at the same time."""

    def __init__(self, measurers: Sequence[StageMeasurer]) -> None:
        self._usable = list(measurers)

    def measure(self, stages: Sequence[StagePlan]) -> list[float]:
        costs: dict[int, float] = {}
        while left := [index for index in range(len(stages)) if index not in costs]:
            failure: Exception | None = None
            parts = [left[start :: len(self._usable)] for start in range(len(self._usable))]
            with ThreadPoolExecutor(len(self._usable)) as pool:
                running = [
                    (measurer, part, pool.submit(measurer.measure, [stages[index] for index in part]))
                    for measurer, part in zip(list(self._usable), parts, strict=True)
                    if part
                ]
                for measurer, part, future in running:
                    try:
                        costs.update(zip(part, future.result(), strict=True))
                    except Exception as error:  # whatever a device or its connection raises
                        failure = error
                        self._usable.remove(measurer)
            if not self._usable:
                raise TuningError(f"no device is left: {failure}") from failure
        return [costs[index] for index in range(len(stages))]
