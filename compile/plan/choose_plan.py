"""Which of a network's plans is taken: the least cost under a limit on RAM, or a good bargain without one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from thumbnet.compile.plan.memory_plan import MemoryPlan
from thumbnet.compile.plan.place_tensors import place_tensors
from thumbnet.compile.plan.stage_graph import StageGraph, StagePlan

#: Part of the cycles or instructions that a smaller arena may cost where no limit is given: on a microcontroller the
#: RAM is what the rest of a program lacks first, and the last percents of speed cost several times as much of it.
SPENT_ON_RAM = 0.07
#: The same on boards that run Linux: what no prediction tells apart, where it leaves more of the caches to others.
SPENT_ON_RAM_OF_LINUX = 0.0005
#: The same for flash: where planes of int8 and of int16 are hardly different, one kind of kernel is enough.
SPENT_ON_FLASH = 0.002


@dataclass(frozen=True)
class RamChoice:
    """A point of the Pareto front: with an arena of so many bytes, no lower cost is predicted."""

    arena_bytes: int
    predicted_instructions: int
    predicted_cycles: int | None


@dataclass(frozen=True)
class PlacedPlan:
    """Stages that compute a network, in order, with the places of their tensors."""

    stages: Sequence[StagePlan]
    memory: MemoryPlan

    @property
    def arena_bytes(self) -> int:
        """Bytes of the arena."""
        return self.memory.arena_bytes

    @property
    def predicted_instructions(self) -> float:
        """The estimate for one inference."""
        return sum(stage.instructions for stage in self.stages)

    @property
    def predicted_cycles(self) -> float | None:
        """The same of cycles; None where they can't be predicted."""
        return add_up(stage.cycles for stage in self.stages)

    @property
    def cost(self) -> float:
        """Which of both the plan was to need little of."""
        return sum(stage.cost for stage in self.stages)


def add_up(parts: Iterable[float | None]) -> float | None:
    """Return the sum, or None where a part isn't known."""
    known: list[float] = []
    for part in parts:
        if part is None:
            return None
        known.append(part)
    return sum(known)


def choose_plan(
    graph: StageGraph,
    ram_limit: int | None = None,
    ram_bytes: int | None = None,
    spent_on_ram: float = SPENT_ON_RAM,
) -> tuple[PlacedPlan, list[RamChoice]]:
    """Choose the stages for a network.

    Parameters
    ----------
    graph : StageGraph
        The stages there could be.
    ram_limit : int, optional
        Bytes the arena should not pass: the least cost under it is taken. Without it, the smallest arena that costs no
        more than `spent_on_ram`.
    ram_bytes : int, optional
        What there is.
    spent_on_ram : float
        Part of the fastest plan's cost.

    Returns
    -------
    PlacedPlan, list of RamChoice
        What is taken, the leanest there is where none keeps the limits; and what other limits would give, from the
        fastest to the leanest.
    """
    front = _pareto_front(graph)
    limits = [limit for limit in (ram_limit, ram_bytes) if limit is not None]
    chosen = fastest_plan(graph, min(limits, default=None))
    if ram_limit is None:
        lean = [other for other in front if _costs(graph, other, chosen) <= spent_on_ram]
        chosen = min([chosen, *lean], key=lambda plan: plan.arena_bytes)
    uniform = graph.best_plan(max(stage.arena_bytes for stage in chosen.stages), element_bytes=1)
    if uniform:
        other = _place(graph, uniform)
        if _costs(graph, other, chosen) <= SPENT_ON_FLASH and other.arena_bytes <= chosen.arena_bytes:
            chosen = other
    return chosen, [_choice(plan) for plan in front]


def _choice(plan: PlacedPlan) -> RamChoice:
    cycles = plan.predicted_cycles
    return RamChoice(plan.arena_bytes, round(plan.predicted_instructions), None if cycles is None else round(cycles))


def _place(graph: StageGraph, stages: Sequence[StagePlan]) -> PlacedPlan:
    return PlacedPlan(stages, place_tensors(graph.network, stages))


def _pareto_front(graph: StageGraph) -> list[PlacedPlan]:
    """Return plans, each the fastest whose arena is smaller than the one before's."""
    front: list[PlacedPlan] = []
    for stages in graph.pareto_front():
        plan = _place(graph, stages)
        if not front or plan.arena_bytes < front[-1].arena_bytes:
            front.append(plan)
    return front


def _costs(graph: StageGraph, plan: PlacedPlan, other: PlacedPlan) -> float:
    """Return by what part of another plan's cost a plan's is higher."""
    return graph.cost(plan.stages) / graph.cost(other.stages) - 1


def fastest_plan(graph: StageGraph, limit: int | None) -> PlacedPlan:
    """Return the plan of the lowest cost under a limit on the arena, or the smallest arena where none keeps it."""
    smallest: PlacedPlan | None = None
    bound = limit
    while (stages := graph.best_plan(bound)) is not None:
        plan = _place(graph, stages)
        if limit is None or plan.arena_bytes <= limit:
            return plan
        if smallest is None or plan.arena_bytes < smallest.arena_bytes:
            smallest = plan
        # What is alive at one time fits, but not without gaps.
        bound = max(stage.arena_bytes for stage in stages) - 1
    if smallest is not None:
        return smallest
    return min((_place(graph, stages) for stages in graph.pareto_front()), key=lambda plan: plan.arena_bytes)
