"""Layers on schedules of TVM's own: what MetaSchedule searches for, and the kernels that come of what it finds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import tvm
from tvm import s_tir
from tvm.s_tir import meta_schedule as ms
from tvm_ffi import structural_equal

from thumbnet.compile.emit.c_codegen import lower, parameter_buffers
from thumbnet.compile.kernels.kernel import Kernel, Scratch
from thumbnet.compile.kernels.portable import define_layer
from thumbnet.compile.network.integer_network import Add, AveragePool, Convolution, DepthwiseConvolution, Layer
from thumbnet.compile.network.layers import Network
from thumbnet.targets.board import Board

#: Iterations of inner loops, all in all, that are written out; 0 leaves it to the C compiler.
_UNROLLED = (0, 16, 64, 256)
#: How loops become tiles: two levels of the outputs', two of the sums', and those outputs whose sums are computed at
#: once. These stay in registers where they are few and written out.
_TILING = "SSRRS"
_SUM, _OUTPUT = "acc", "output"

Key: TypeAlias = tuple[Any, ...]


def tunable_layers(network: Network) -> dict[Key, list[Layer]]:
    """Return the layers that have schedules, those together for which the same one is right.

    Layers of float32 have none: another order of their sums is another result.
    """
    groups: dict[Key, list[Layer]] = {}
    for layer in network.layers:
        if isinstance(layer, Convolution | DepthwiseConvolution | AveragePool | Add):
            groups.setdefault(_shape_key(layer), []).append(layer)
    return groups


def _shape_key(layer: Layer) -> Key:
    """Return what layers have in common that differ in numbers only, not in loops and blocks."""
    key: Key = (type(layer).__name__, layer.input_shape, layer.output_shape)
    if isinstance(layer, Convolution | DepthwiseConvolution):
        key += (layer.kernel, layer.stride, layer.padding)
    if not isinstance(layer, Add):
        key += (bool(layer.requantization.left_shift.any()),)
    return key


def layer_module(layer: Layer) -> tvm.IRModule:
    """Return a layer as MetaSchedule takes it: ``main``, without a schedule."""
    return tvm.IRModule({"main": define_layer(layer).function.with_attr("global_symbol", "main")})


def record_target(board: Board, objective: str) -> tvm.target.Target:
    """Return the target of a record: it says on which board, and of what its cost is."""
    return tvm.target.Target({"kind": "c", "tag": f"{board.name}/{objective}"})


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


def scheduled_kernel(layer: Layer, module: tvm.IRModule, variant: str) -> Kernel:
    """Return a layer's kernel from its scheduled module; buffers too large for the stack become scratch."""
    function = module["main"].without_attr("global_symbol")
    beyond = parameter_buffers(lower(function))[len(function.params) :]
    scratch = {buffer.name: Scratch(str(buffer.dtype), int(buffer.shape[0])) for buffer in beyond}
    return replace(define_layer(layer), variant=variant, function=function, scratch=scratch)


def tuned_kernels(
    network: Network, database: ms.database.Database, board: Board, objective: str, most: int = 1
) -> dict[str, list[Kernel]]:
    """Return the best schedules that records have of a network's layers, as kernels.

    Parameters
    ----------
    network : Network
        Whose layers.
    database : Database
        Records of `tune_layers.tune_layer`; others are passed over.
    board : Board
        On which they were measured.
    objective : str
        What was measured.
    most : int
        Kernels a layer.

    Returns
    -------
    dict of str to list of Kernel
        By the layer's name, the cheapest first; layers without a record are missing.
    """
    target = record_target(board, objective)
    records = [record for record in database.get_all_tuning_records() if _same_target(record.target, target)]
    records.sort(key=record_cost)
    kernels: dict[str, list[Kernel]] = {}
    for layers in tunable_layers(network).values():
        modules = [layer_module(layer) for layer in layers]
        # Any of the group may have been the one that was tuned.
        found = [record for record in records if any(_same_module(record.workload.mod, module) for module in modules)]
        for layer, module in zip(layers, modules, strict=True):
            built = [_replayed(layer, module, record, objective) for record in _unique(found, most)]
            if built:
                kernels[layer.name] = built
    return kernels


def record_cost(record: ms.database.TuningRecord) -> float:
    """Return what a record says was measured, in MetaSchedule's seconds."""
    return min(float(value) for value in record.run_secs)


def _same_target(target: tvm.target.Target | None, other: tvm.target.Target) -> bool:
    return target is not None and (target.kind.name, target.tag) == (other.kind.name, other.tag)


def _same_module(module: tvm.IRModule, other: tvm.IRModule) -> bool:
    return bool(structural_equal(module, other))


def _unique(records: Sequence[ms.database.TuningRecord], most: int) -> Iterator[ms.database.TuningRecord]:
    known: set[str] = set()
    for record in records:
        digest = _digest(record)
        if digest not in known and len(known) < most:
            known.add(digest)
            yield record


def _replayed(layer: Layer, module: tvm.IRModule, record: ms.database.TuningRecord, objective: str) -> Kernel:
    schedule = s_tir.Schedule(module)
    record.trace.apply_to_schedule(schedule, remove_postproc=False)
    kernel = scheduled_kernel(layer, schedule.mod, f"TVM's schedule {_digest(record)}")
    return replace(kernel, instructions=record_cost(record) * 1e9) if objective == "instructions" else kernel


def _digest(record: ms.database.TuningRecord) -> str:
    """Return 12 hexadecimal digits of a schedule's steps and decisions."""
    trace = record.as_json()[0]
    return hashlib.sha256(json.dumps(trace).encode()).hexdigest()[:12]
