"""Search for the schedules that run fastest on a board, with MetaSchedule.

This is for networks that TVM lays out, of float32 and on the host; layers that are stages of a plan are tuned by
`schedule_search`. What is tuned is what is compiled: the fused TIR functions of `build_library.fuse_layers`. Who builds
and measures the candidates is an argument, so that this module knows nothing of devices.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import tvm
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule.builder import PyBuilder
from tvm.s_tir.meta_schedule.runner import PyRunner

from thumbnet.compile.emit.build_library import fuse_layers
from thumbnet.compile.emit.export_library import tvm_target
from thumbnet.compile.emit.tensor_intrinsics import load_tensor_intrinsics
from thumbnet.compile.errors import TuningError
from thumbnet.compile.tuning.record_folder import LOGS
from thumbnet.compile.tuning.records import opened_records
from thumbnet.targets.board import Board

#: Candidates of one layer measured together, before the cost model learns from them: few enough that every layer has
#: its turn, enough to fill the builders.
SMALLEST_ROUND, LARGEST_ROUND = 4, 16
#: A layer with less than this part of the largest one's operations is left as it is: candidates are better spent.
NEGLIGIBLE = 1000


@dataclass(frozen=True)
class TunedTask:
    """What the search found for one layer.

    Parameters
    ----------
    name : str
        The fused function.
    uses : int
        How many layers of the network share it.
    trials : int
        Candidates recorded, earlier runs' included.
    best : float or None
        The runner's number for the best one, None where none ran.
    """

    name: str
    uses: int
    trials: int
    best: float | None


def tune_module(
    module: tvm.IRModule,
    board: Board,
    folder: Path,
    *,
    trials: int,
    builder: PyBuilder,
    runner: PyRunner,
    seed: int = 0,
    on_round: Callable[[int], None] = lambda _: None,
) -> list[TunedTask]:
    """Tune every layer of a module and keep the records in a folder.

    The records of an earlier run in the same folder are kept and added to. They are written candidate by candidate:
    what was measured before an interruption is there.

    Parameters
    ----------
    module : tvm.IRModule
        As `build_library.build_executable` takes it.
    board : Board
        What it is tuned for.
    folder : Path
        Where the records are, or will be.
    trials : int
        Candidates to measure in all; at least one a layer is needed to be of use.
    builder, runner
        MetaSchedule's, for the device.
    seed : int
        Of the search.
    on_round : callable
        Called with the number of candidates measured since the last call.

    Raises
    ------
    TuningError
        The folder can't be used, another search is at work in it, or there is nothing to tune.
    """
    with opened_records(folder) as database:
        load_tensor_intrinsics()
        target = tvm_target(board)
        fused = fuse_layers(module, board)
        tasks = sorted(ms.relax_integration.extract_tasks(fused, target), key=_weighted_work, reverse=True)
        tasks = [task for task in tasks if _weighted_work(task) >= _weighted_work(tasks[0]) / NEGLIGIBLE]
        if not tasks:
            raise TuningError("the network has no layer that could be tuned")
        # MetaSchedule's own log goes to files in the folder; the console belongs to the caller.
        logging.getLogger("tvm.s_tir.meta_schedule").setLevel(logging.ERROR)
        # The rules of an aarch64 target bring tensor intrinsics whose candidates mostly fail to build; the generic
        # ones all build, and find better schedules in as many trials.
        space = ms.space_generator.PostOrderApply(
            sch_rules=ms.ScheduleRule.create("llvm"),
            postprocs=ms.Postproc.create("llvm"),
            mutator_probs=ms.Mutator.create("llvm"),
        )
        contexts, weights = ms.relax_integration.extracted_tasks_to_tune_contexts(
            tasks, str(folder), space=space, seed=seed
        )
        with _stderr_to(folder / LOGS / "stderr.log"):
            _record_defaults(tasks, target, database, builder, runner)
            ms.tune_tasks(
                tasks=contexts,
                task_weights=weights,
                work_dir=str(folder),
                max_trials_global=trials,
                num_trials_per_iter=min(max(trials // len(tasks), SMALLEST_ROUND), LARGEST_ROUND),
                builder=builder,
                runner=runner,
                database=database,
                measure_callbacks=[
                    ms.measure_callback.AddToDatabase(),
                    ms.measure_callback.RemoveBuildArtifact(),
                    ms.measure_callback.UpdateCostModel(),
                    _Progress(on_round),
                ],
                cost_model="xgb",
            )
        return [_summarize(task, database) for task in tasks]


def _record_defaults(
    tasks: list[ms.ExtractedTask],
    target: tvm.target.Target,
    database: ms.database.JSONDatabase,
    builder: PyBuilder,
    runner: PyRunner,
) -> None:
    """Measure every layer as it is compiled without tuning, so that a record never makes it slower.

    The record of a layer left alone is a trace that does nothing: where nothing better is found it is the one applied.
    """
    modules = [task.dispatched[0] for task in tasks]
    built = builder.build([ms.builder.BuilderInput(module, target) for module in modules])
    for module, result in zip(modules, built, strict=True):
        if result.error_msg is not None or _has_empty_record(database, module):
            continue
        arguments = ms.arg_info.ArgInfo.from_entry_func(module)
        [future] = runner.run([ms.runner.RunnerInput(result.artifact_path, "cpu", arguments)])
        seconds = future.result().run_secs
        if seconds:
            schedule = tvm.s_tir.Schedule(module)
            # MetaSchedule passes over records without any instruction; this one changes nothing.
            schedule.get_sblock("root")
            trace = schedule.trace
            workload = database.commit_workload(module)
            database.commit_tuning_record(ms.database.TuningRecord(trace, workload, seconds, target, arguments))


def _has_empty_record(database: ms.database.JSONDatabase, module: tvm.IRModule) -> bool:
    workload = database.commit_workload(module)
    return any(
        record.workload.same_as(workload) and len(record.trace.insts) == 1
        for record in database.get_all_tuning_records()
    )


@contextlib.contextmanager
def _stderr_to(file: Path) -> Iterator[None]:
    """Send what is printed to standard error to a file: TVM warns there once for every schedule that is no schedule."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with file.open("ab") as log:
            os.dup2(log.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


@tvm.ir.utils.derived_object
class _Progress(ms.measure_callback.PyMeasureCallback):  # type: ignore[misc]
    def __init__(self, on_round: Callable[[int], None]) -> None:
        super().__init__()
        self.on_round = on_round

    def apply(
        self,
        task_scheduler: ms.TaskScheduler,
        task_id: int,
        measure_candidates: list[ms.MeasureCandidate],
        builder_results: list[ms.builder.BuilderResult],
        runner_results: list[ms.runner.RunnerResult],
    ) -> None:
        self.on_round(len(measure_candidates))


def _weighted_work(task: ms.ExtractedTask) -> float:
    """Return the operations of all layers that share a task."""
    return float(tvm.s_tir.analysis.estimate_tir_flops(task.dispatched[0])) * int(task.weight)


def _summarize(task: ms.ExtractedTask, database: ms.database.JSONDatabase) -> TunedTask:
    module = task.dispatched[0]
    workload = database.commit_workload(module)
    records = [record for record in database.get_all_tuning_records() if record.workload.same_as(workload)]
    measured = [float(value) for record in records for value in record.run_secs or ()]
    ran = [value for value in measured if value < _FAILED]
    return TunedTask(str(task.task_name), int(task.weight), len(records), min(ran, default=None))


#: MetaSchedule records a candidate that failed as one that took this many seconds or more.
_FAILED = 1e9
