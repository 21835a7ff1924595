"""Layers on schedules of TVM's own: what MetaSchedule searches for, and the stages that come of what it finds."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import tvm
from tvm import s_tir
from tvm.s_tir import meta_schedule as ms
from tvm_ffi import structural_equal

from thumbnet.compile.emit.c_codegen import lower, parameter_buffers
from thumbnet.compile.kernels.kernel import Kernel, Scratch
from thumbnet.compile.kernels.portable import define_layer
from thumbnet.compile.network.integer_network import Add, AveragePool, Convolution, DepthwiseConvolution, Layer, MaxPool
from thumbnet.compile.network.layers import Network
from thumbnet.compile.plan.stage_graph import StageGraph, StagePlan
from thumbnet.compile.tuning.stage_key import SCHEDULED, describe_layer, key_of
from thumbnet.compile.tuning.stage_record import CostKind
from thumbnet.targets.board import Board

#: Iterations of inner loops, all in all, that are written out; 0 leaves it to the C compiler.
_UNROLLED = (0, 16, 64, 256)
#: How loops become tiles: two levels of the outputs', two of the sums', and those outputs whose sums are computed at
#: once. These stay in registers where they are few and written out.
_TILING = "SSRRS"
_SUM, _OUTPUT = "acc", "output"


def tunable_layers(network: Network) -> list[list[Layer]]:
    """Return the layers that have schedules, those together for which the same one is right and costs the same.

    Layers of float32 have none: another order of their sums is another result.
    """
    groups: dict[str, list[Layer]] = {}
    for layer in network.layers:
        if isinstance(layer, Convolution | DepthwiseConvolution | AveragePool | Add):
            groups.setdefault(_loops_of(layer), []).append(layer)
    return list(groups.values())


def _loops_of(layer: Layer) -> str:
    """Return a text that layers have in common which differ in numbers only, not in loops and blocks."""
    shifted = not isinstance(layer, Add | MaxPool) and bool(layer.requantization.left_shift.any())
    return json.dumps([describe_layer(layer), shifted])


def layer_module(layer: Layer) -> tvm.IRModule:
    """Return a layer as MetaSchedule takes it: ``main``, without a schedule."""
    return tvm.IRModule({"main": define_layer(layer).function.with_attr("global_symbol", "main")})


def record_target(board: Board, kind: CostKind) -> tvm.target.Target:
    """Return the target of MetaSchedule's records: it says on which core, and what costs are."""
    return tvm.target.Target({"kind": "c", "tag": f"{board.core}/{kind}"})


def records_of(database: ms.database.Database, target: tvm.target.Target) -> list[ms.database.TuningRecord]:
    """Return the records of one target; others may be in the same database."""
    return [record for record in database.get_all_tuning_records() if _same_target(record.target, target)]


def schedule_space() -> ms.space_generator.SpaceGenerator:
    """Return MetaSchedule's rules for layers that become C.

    The C generator prints loops: there is nothing to vectorize, to run in parallel or to put on intrinsics, and rules
    that do so only make candidates that are equal, or fail. What is left is how loops are tiled, where a layer's
    padding is computed and how much is written out; the compiler vectorizes.
    """
    rules = ms.schedule_rule
    return ms.space_generator.PostOrderApply(
        sch_rules=[
            # A tile's sums are kept apart until they are done: those of the whole layer would take much memory.
            rules.MultiLevelTiling(
                _TILING,
                max_innermost_factor=64,
                reuse_write=rules.ReuseType("must", [2], "global"),
                filter_fn=_is_block(_SUM),
            ),
            # The output's rounding is computed where these sums would be copied to it.
            rules.AutoInline(
                into_producer=True,
                into_consumer=False,
                inline_const_tensor=True,
                disallow_if_then_else=False,
                require_injective=False,
                require_ordered=False,
            ),
            # What is still there is all of its layer: an add.
            rules.MultiLevelTiling("SS", max_innermost_factor=64, filter_fn=_is_block(_OUTPUT)),
            rules.ParallelizeVectorizeUnroll(
                max_jobs_per_core=-1, max_vectorize_extent=-1, unroll_max_steps=list(_UNROLLED), unroll_explicit=True
            ),
            rules.RandomComputeLocation(),
        ],
        postprocs=[
            ms.postproc.DisallowDynamicLoop(),
            ms.postproc.RewriteParallelVectorizeUnroll(),
            ms.postproc.RewriteReductionBlock(),
        ],
        mutator_probs={
            ms.mutator.MutateTileSize(): 0.8,
            ms.mutator.MutateUnroll(): 0.1,
            ms.mutator.MutateComputeLocation(): 0.1,
        },
    )


def _is_block(name: str) -> Callable[[s_tir.Schedule, s_tir.StmtSRef], bool]:
    return lambda schedule, block: bool(schedule.get(block).name_hint == name)


def schedule_name(trace: s_tir.schedule.Trace) -> str:
    """Return what a kernel on a schedule is called: by 12 hexadecimal digits of its steps and decisions."""
    text = json.dumps(trace.as_json(), default=lambda number: number.value)
    return f"{SCHEDULED} {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def scheduled_kernel(layer: Layer, module: tvm.IRModule, variant: str) -> Kernel:
    """Return a layer's kernel from its scheduled module; buffers too large for the stack become scratch."""
    function = module["main"].without_attr("global_symbol")
    beyond = parameter_buffers(lower(function))[len(function.params) :]
    scratch = {buffer.name: Scratch(str(buffer.dtype), int(buffer.shape[0])) for buffer in beyond}
    return replace(define_layer(layer), variant=variant, function=function, scratch=scratch)


def replayed_stage(graph: StageGraph, layer: Layer, trace: s_tir.schedule.Trace) -> StagePlan:
    """Return the stage of a layer on the schedule of a trace, which was found for this layer or one with its loops."""
    schedule = s_tir.Schedule(layer_module(layer))
    trace.apply_to_schedule(schedule, remove_postproc=False)
    return graph.stage_of(layer.name, scheduled_kernel(layer, schedule.mod, schedule_name(trace)))


def recorded_stages(
    graph: StageGraph, records: Iterable[ms.database.TuningRecord], costs: Mapping[str, float]
) -> list[StagePlan]:
    """Return a network's layers on the schedules worth having: no other costs less and needs no more working memory.

    Parameters
    ----------
    graph : StageGraph
        Of the network.
    records : iterable of TuningRecord
        MetaSchedule's; those of other networks' layers are passed over.
    costs : mapping of str to float
        By stages' keys; schedules without one are passed over.
    """
    stages: list[StagePlan] = []
    by_workload: dict[ms.database.Workload, list[ms.database.TuningRecord]] = {}
    for record in records:
        by_workload.setdefault(record.workload, []).append(record)
    for layers in tunable_layers(graph.network):
        modules = [layer_module(layer) for layer in layers]
        # Any of the group may have been the one that was searched for.
        traces = {
            schedule_name(record.trace): record.trace
            for workload, found in by_workload.items()
            if any(structural_equal(workload.mod, module) for module in modules)
            for record in found
        }
        unscheduled = define_layer(layers[0])
        keys = {name: key_of(graph.stage_of(layers[0].name, replace(unscheduled, variant=name))) for name in traces}
        usable = sorted((costs[key], name) for name, key in keys.items() if math.isfinite(costs.get(key, math.inf)))
        for layer in layers:
            least: int | None = None
            for _, name in usable:
                stage = replayed_stage(graph, layer, traces[name])
                if least is None or stage.arena_bytes < least:
                    stages.append(stage)
                    least = stage.arena_bytes
                if not stage.scratch:
                    break
    return stages


def _same_target(target: tvm.target.Target | None, other: tvm.target.Target) -> bool:
    return target is not None and (target.kind.name, target.tag) == (other.kind.name, other.tag)
