"""A network as kernels with their places in memory: what the C emission prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from thumbnet.compile.kernels.cycle_prices import CyclePrices
from thumbnet.compile.kernels.instruction_sets import KERNELS
from thumbnet.compile.kernels.kernel import Kernel
from thumbnet.compile.kernels.layouts import Layout, nhwc_layout
from thumbnet.compile.kernels.rolling_stage import RollingStage
from thumbnet.compile.network.layers import NETWORK_INPUT, AnyLayer, Network
from thumbnet.compile.plan.cache_cost import graph_with_caches
from thumbnet.compile.plan.choose_plan import SPENT_ON_RAM, PlacedPlan, RamChoice, add_up, choose_plan
from thumbnet.compile.plan.memory_plan import MemoryPlan
from thumbnet.compile.plan.stage_graph import StageGraph, StagePlan
from thumbnet.compile.request import Objective
from thumbnet.targets.board import Caches


@dataclass(frozen=True)
class Stage:
    """Layers computed together.

    Parameters
    ----------
    layers : tuple of layers
        One, or a chain.
    kernel : Kernel
        Their code.
    sources : tuple of str
        The tensors it reads: ``"input"`` or names of layers.
    input_layouts : tuple of Layout
        Of these tensors.
    output_layout : Layout
        Of the last layer's output, which alone lies in the arena.
    over : int or None
        Where the output may lie over the first source: at most so many bytes behind its start.
    predicted_instructions : float
        Of one inference.
    predicted_cycles : float or None
        The same, where they can be.
    """

    layers: tuple[AnyLayer, ...]
    kernel: Kernel
    sources: tuple[str, ...]
    input_layouts: tuple[Layout, ...]
    output_layout: Layout
    over: int | None
    predicted_instructions: float
    predicted_cycles: float | None

    @property
    def name(self) -> str:
        """The name of its output: the last layer's."""
        return self.layers[-1].name

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all its layers."""
        return sum(layer.macs for layer in self.layers)


@dataclass(frozen=True)
class LoweredNetwork:
    """All stages in order, with the plan of the arena they share (the input lies in it too).

    Parameters
    ----------
    network : Network
        What is computed.
    stages : tuple of Stage
        How.
    plan : MemoryPlan
        Arena offsets by tensor: ``"input"``, layers' names, and `place_tensors.scratch_name` of each stage's scratch.
    choices : tuple of RamChoice
        From the fastest to the leanest: what other limits on the arena would give.
    headers : tuple of Path
        The kernels' C headers that the code needs; the first includes the others.
    """

    network: Network
    stages: tuple[Stage, ...]
    plan: MemoryPlan
    choices: tuple[RamChoice, ...]
    headers: tuple[Path, ...]

    @property
    def streamed(self) -> bool:
        """Whether the input is read row by row and has no place in the arena."""
        return NETWORK_INPUT not in self.plan.offsets

    @property
    def constant_bytes(self) -> int:
        """Bytes of weights, biases and multipliers."""
        return sum(array.nbytes for stage in self.stages for array in stage.kernel.constants.values())

    @property
    def predicted_instructions(self) -> float:
        """The estimate for one inference."""
        return sum(stage.predicted_instructions for stage in self.stages)

    @property
    def predicted_cycles(self) -> float | None:
        """The same of cycles; None where they can't be predicted."""
        return add_up(stage.predicted_cycles for stage in self.stages)


def lower_network(
    network: Network,
    ram_limit: int | None = None,
    *,
    ram_bytes: int | None = None,
    kernels: type[RollingStage] | None = KERNELS["dsp"],
    streamed: bool = False,
    spent_on_ram: float = SPENT_ON_RAM,
    caches: Caches | None = None,
    prices: CyclePrices | None = None,
    objective: Objective = "cycles",
) -> LoweredNetwork:
    """Choose stages for a network, build their kernels and find a place for every tensor.

    Parameters
    ----------
    network : Network
        What to compute.
    ram_limit, ram_bytes, spent_on_ram : int or float, optional
        See `choose_plan.choose_plan`.
    kernels : type of RollingStage or None
        The core's fast kernels; None for the portable ones only.
    streamed : bool
        The image's rows come from the program as they are needed, see `stage_graph.can_stream`.
    prices, objective
        See `stage_graph.StageGraph`.
    caches : Caches, optional
        The board's: a plan that uses them well may execute a few more instructions, see `cache_cost`.
    """
    if caches is None or kernels is None:
        graph = StageGraph(network, kernels, streamed=streamed, prices=prices, objective=objective)
    else:
        graph = graph_with_caches(network, kernels, caches, ram_limit)
    plan, choices = choose_plan(graph, ram_limit, ram_bytes, spent_on_ram)
    return build_stages(network, plan, choices)


def build_stages(network: Network, plan: PlacedPlan, choices: Sequence[RamChoice] = ()) -> LoweredNetwork:
    """Build the kernels of a plan."""
    stages = tuple(
        Stage(
            stage.layers,
            stage.build(),
            stage.sources,
            tuple(_layouts(network, stage)),
            stage.target,
            stage.over,
            stage.instructions,
            stage.cycles,
        )
        for stage in plan.stages
    )
    headers = next((stage.chain.headers for stage in plan.stages if stage.chain), ())
    return LoweredNetwork(network, stages, plan.memory, tuple(choices), headers)


def _layouts(network: Network, stage: StagePlan) -> list[Layout]:
    if stage.chain is not None:
        return [] if stage.chain.streamed else [stage.source]
    return [nhwc_layout(network.shape_of(name), network.element_bytes) for name in stage.sources]
