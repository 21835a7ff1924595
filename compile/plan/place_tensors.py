"""Where the tensors of a plan lie in the arena: how long each is needed, and what it may lie over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from thumbnet.compile.kernels.layouts import nhwc_layout
from thumbnet.compile.network.layers import NETWORK_INPUT, Network
from thumbnet.compile.plan.memory_plan import MemoryPlan, PlannedTensor, plan_memory
from thumbnet.compile.plan.stage_graph import StagePlan


def place_tensors(network: Network, plan: Sequence[StagePlan]) -> MemoryPlan:
    """Place the input, every stage's output and every stage's scratch in one arena."""
    placed = plan_memory(_lifetimes(network, plan))
    beyond = max((stage.chain.bytes_read_beyond for stage in plan if stage.chain), default=0)
    return replace(placed, arena_bytes=placed.arena_bytes + beyond)


def scratch_name(stage: str, parameter: str) -> str:
    """Return the name under which the scratch of a stage, named by its output, stands in the plan."""
    return f"{parameter} of {stage}"


def _lifetimes(network: Network, plan: Sequence[StagePlan]) -> list[PlannedTensor]:
    last_use = {network.output.name: len(plan) - 1}
    for step, stage in enumerate(plan):
        last_use.update(dict.fromkeys(stage.sources, step))
    tensors = []
    if NETWORK_INPUT in last_use:
        size = nhwc_layout(network.input_shape, network.element_bytes).size
        tensors.append(PlannedTensor(NETWORK_INPUT, size, 0, last_use[NETWORK_INPUT]))
    for step, stage in enumerate(plan):
        over = None if stage.over is None else (stage.sources[0], stage.over)
        tensors.append(PlannedTensor(stage.name, stage.target.size, step, last_use.get(stage.name, step), over))
        tensors.extend(
            PlannedTensor(scratch_name(stage.name, parameter), item.bytes, step, step)
            for parameter, item in stage.scratch.items()
        )
    return tensors
