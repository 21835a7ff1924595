"""An integer network as kernels with their places in memory: what the C emission prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from thumbnet.compile.integer_network import NETWORK_INPUT, Convolution, IntegerNetwork, Layer
from thumbnet.compile.kernels.dsp_stage import DspStage
from thumbnet.compile.kernels.kernel import Kernel
from thumbnet.compile.kernels.layouts import Layout, nhwc_layout
from thumbnet.compile.kernels.mve_stage import MveStage
from thumbnet.compile.kernels.portable import build_portable
from thumbnet.compile.kernels.rolling_stage import RollingStage
from thumbnet.compile.memory_plan import MemoryPlan, PlannedTensor, plan_memory
from thumbnet.compile.stage_planner import StageGraph, StagePlan

#: Part of the instructions that a smaller arena may cost where no limit is given: on a microcontroller the RAM is what
#: the rest of a program lacks first, and the last percents of speed cost several times as much of it.
SPENT_ON_RAM = 0.07
#: The same for flash: where planes of int8 and of int16 are hardly different, one kind of kernel is enough.
SPENT_ON_FLASH = 0.002

#: The fast kernels by `Board.instruction_set`.
KERNELS: dict[str, type[RollingStage]] = {"dsp": DspStage, "mve": MveStage}


@dataclass(frozen=True)
class Stage:
    """Layers computed together.

    Parameters
    ----------
    layers : tuple of Layer
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
    """

    layers: tuple[Layer, ...]
    kernel: Kernel
    sources: tuple[str, ...]
    input_layouts: tuple[Layout, ...]
    output_layout: Layout
    over: int | None
    predicted_instructions: float

    @property
    def name(self) -> str:
        """The name of its output: the last layer's."""
        return self.layers[-1].name

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all its layers."""
        return sum(layer.macs for layer in self.layers)


@dataclass(frozen=True)
class RamChoice:
    """A point of the Pareto front: with an arena of so many bytes, no fewer instructions are predicted."""

    arena_bytes: int
    predicted_instructions: int


@dataclass(frozen=True)
class LoweredNetwork:
    """All stages in order, with the plan of the arena they share (the input lies in it too).

    Parameters
    ----------
    network : IntegerNetwork
        What is computed.
    stages : tuple of Stage
        How.
    plan : MemoryPlan
        Arena offsets by tensor: ``"input"``, layers' names, and `scratch_name` of each stage's scratch.
    choices : tuple of RamChoice
        From the fastest to the leanest: what other limits on the arena would give.
    kernels : type of RollingStage
        Whose headers the code needs.
    """

    network: IntegerNetwork
    stages: tuple[Stage, ...]
    plan: MemoryPlan
    choices: tuple[RamChoice, ...] = ()
    kernels: type[RollingStage] = DspStage

    @property
    def streamed(self) -> bool:
        """Whether the input is read row by row and has no place in the arena."""
        return NETWORK_INPUT not in self.plan.offsets

    @property
    def constant_bytes(self) -> int:
        """Bytes of weights, biases and multipliers."""
        return sum(array.nbytes for stage in self.stages for array in stage.kernel.constants.values())


def lower_network(
    network: IntegerNetwork,
    ram_limit: int | None = None,
    *,
    ram_bytes: int | None = None,
    kernels: type[RollingStage] | None = DspStage,
    streamed: bool = False,
) -> LoweredNetwork:
    """Choose stages for a network, and a place for every tensor.

    Parameters
    ----------
    network : IntegerNetwork
        What to compute.
    ram_limit : int, optional
        Bytes the arena should not pass: the fewest instructions under it are taken. Without it, the smallest arena that
        costs no more than `SPENT_ON_RAM` of the instructions.
    ram_bytes : int, optional
        What there is.
    kernels : type of RollingStage or None
        The core's fast kernels; None for the portable ones only.
    streamed : bool
        The image's rows come from the program as they are needed, see `can_stream`.
    """
    graph = StageGraph(network, kernels, streamed=streamed)
    front = _pareto_front(network, graph)
    limits = [limit for limit in (ram_limit, ram_bytes) if limit is not None]
    plan = _fastest(network, graph, min(limits, default=None))
    if ram_limit is None:
        lean = [other for other, _ in front if _costs(other, plan) <= SPENT_ON_RAM]
        plan = min([plan, *lean], key=lambda plan: _arena(network, plan))
    uniform = graph.best_plan(max(stage.arena_bytes for stage in plan), element_bytes=1)
    if uniform and _costs(uniform, plan) <= SPENT_ON_FLASH and _arena(network, uniform) <= _arena(network, plan):
        plan = uniform
    choices = tuple(RamChoice(arena, round(predicted_instructions(other))) for other, arena in front)
    return replace(build_stages(network, plan), choices=choices)


def can_stream(network: IntegerNetwork) -> bool:
    """Tell whether a network's input can be read row by row: a convolution over the image, which nothing else reads."""
    first = network.layers[0]
    alone = sum(NETWORK_INPUT in layer.sources for layer in network.layers) == 1
    return isinstance(first, Convolution) and first.kernel != (1, 1) and alone


def _pareto_front(network: IntegerNetwork, graph: StageGraph) -> list[tuple[list[StagePlan], int]]:
    """Return plans and the bytes of their arenas, each the fastest that needs less than the one before."""
    front: list[tuple[list[StagePlan], int]] = []
    for plan in graph.pareto_front():
        arena = _arena(network, plan)
        if not front or arena < front[-1][1]:
            front.append((plan, arena))
    return front


def predicted_instructions(plan: Sequence[StagePlan]) -> float:
    """Return the estimate for one inference."""
    return sum(stage.instructions for stage in plan)


def _costs(plan: Sequence[StagePlan], other: Sequence[StagePlan]) -> float:
    """Return by what part of another plan's instructions a plan takes more."""
    return predicted_instructions(plan) / predicted_instructions(other) - 1


def _arena(network: IntegerNetwork, plan: Sequence[StagePlan]) -> int:
    return place_stages(network, plan).arena_bytes


def _fastest(network: IntegerNetwork, graph: StageGraph, limit: int | None) -> list[StagePlan]:
    """Return the fewest instructions under a limit, or the smallest arena where none keeps it."""
    smallest: tuple[int, list[StagePlan]] | None = None
    bound = limit
    while (plan := graph.best_plan(bound)) is not None:
        arena = _arena(network, plan)
        if limit is None or arena <= limit:
            return plan
        if smallest is None or arena < smallest[0]:
            smallest = arena, plan
        # What is alive at one time fits, but not without gaps.
        bound = max(stage.arena_bytes for stage in plan) - 1
    for plan in graph.pareto_front() if smallest is None else ():
        arena = _arena(network, plan)
        if smallest is None or arena < smallest[0]:
            smallest = arena, plan
    assert smallest is not None
    return smallest[1]


def place_stages(network: IntegerNetwork, plan: Sequence[StagePlan]) -> MemoryPlan:
    """Place the input, every stage's output and every stage's scratch in one arena."""
    placed = plan_memory(_lifetimes(network, plan))
    beyond = max((stage.chain.bytes_read_beyond for stage in plan if stage.chain), default=0)
    return replace(placed, arena_bytes=placed.arena_bytes + beyond)


def build_stages(network: IntegerNetwork, plan: Sequence[StagePlan]) -> LoweredNetwork:
    """Build the kernels of a plan and place its tensors."""
    stages = tuple(
        Stage(
            stage.layers,
            build_portable(stage.layers[0]) if stage.chain is None else stage.chain.build(),
            _sources(stage),
            tuple(_layouts(network, stage)),
            stage.target,
            stage.over,
            stage.instructions,
        )
        for stage in plan
    )
    kernels = next((type(stage.chain) for stage in plan if stage.chain), DspStage)
    return LoweredNetwork(network, stages, place_stages(network, plan), kernels=kernels)


def _layouts(network: IntegerNetwork, stage: StagePlan) -> list[Layout]:
    if stage.chain is not None:
        return [] if stage.chain.streamed else [stage.source]
    return [nhwc_layout(network.shape_of(name)) for name in _sources(stage)]


def scratch_name(stage: str, parameter: str) -> str:
    """Return the name under which the scratch of a stage, named by its output, stands in the plan."""
    return f"{parameter} of {stage}"


def _lifetimes(network: IntegerNetwork, plan: Sequence[StagePlan]) -> list[PlannedTensor]:
    sources = [_sources(stage) for stage in plan]
    last_use = {network.output.name: len(plan) - 1}
    for step, names in enumerate(sources):
        last_use.update(dict.fromkeys(names, step))
    tensors = []
    if NETWORK_INPUT in last_use:
        size = nhwc_layout(network.input_shape).size
        tensors.append(PlannedTensor(NETWORK_INPUT, size, 0, last_use[NETWORK_INPUT]))
    for step, stage in enumerate(plan):
        name = stage.layers[-1].name
        over = None if stage.over is None else (sources[step][0], stage.over)
        tensors.append(PlannedTensor(name, stage.target.size, step, last_use.get(name, step), over))
        scratch = stage.chain.scratch if stage.chain else {}
        tensors.extend(
            PlannedTensor(scratch_name(name, parameter), item.bytes, step, step) for parameter, item in scratch.items()
        )
    return tensors


def _sources(stage: StagePlan) -> tuple[str, ...]:
    """Return the tensors a stage reads: a chain the one its first layer reads, which an add at its end may read too."""
    if stage.chain is None:
        return stage.layers[0].sources
    return () if stage.chain.streamed else (stage.layers[0].sources[0],)
