"""Which layers are computed together and how: the least cost for which the arena keeps a limit.

A network is cut into stages: chains of layers on a core's fast kernels, computed some rows a step, or single layers on
the portable ones or on a schedule of TVM's that was tuned. Between two stages stands one tensor in one of several
layouts. All stages there could be are the edges of a graph over (layer, layout); each knows the bytes it needs and what
it will cost, so the best plan under a limit is the shortest path over the edges that keep it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

from thumbnet.compile.kernels.chains import chain_lengths
from thumbnet.compile.kernels.cycle_prices import COMPILED, CyclePrices
from thumbnet.compile.kernels.kernel import Kernel, Scratch
from thumbnet.compile.kernels.layouts import Layout, nhwc_layout
from thumbnet.compile.kernels.overlap import overlap_distance
from thumbnet.compile.kernels.portable import build_portable
from thumbnet.compile.kernels.portable_cost import portable_instructions
from thumbnet.compile.kernels.rolling_stage import RollingStage
from thumbnet.compile.network.layers import (
    NETWORK_INPUT,
    AddLayer,
    AnyLayer,
    ConvolutionLayer,
    DepthwiseLayer,
    Network,
    Shape,
)
from thumbnet.compile.request import Objective

#: Rows of the output a step and bytes between the layers of a group that are tried; None is all at once.
_ROWS = (1, 2, 4, 6, 12, 24)
_BLOCK_BYTES = (None, 4096, 1536, 1024)
#: Layers a stage: an image's convolution and two depthwise-separable ones. More would save a few calls.
_LONGEST_CHAIN = 5


@dataclass(frozen=True)
class StagePlan:
    """One stage that could be.

    Parameters
    ----------
    layers : tuple of Layer
        What it computes.
    chain : RollingStage or None
        Its code, not yet built; None for a layer alone.
    source, target : Layout
        Of the tensor it reads first, and of its output.
    over : int or None
        Bytes behind the source's start at which the output starts, where it lies over it.
    arena_bytes, bytes_apart : int
        Everything alive while it runs, and what that would be with the output beside the source.
    instructions : float
        Predicted for one inference.
    cycles : float or None
        The same, where they can be.
    cost : float
        Which of both is to be small.
    kernel : Kernel or None
        Of a layer without a chain: its code, on a schedule that was tuned; None for the portable kernel.
    """

    layers: tuple[AnyLayer, ...]
    chain: RollingStage | None
    source: Layout
    target: Layout
    over: int | None
    arena_bytes: int
    bytes_apart: int
    instructions: float
    cycles: float | None = None
    cost: float = 0.0
    kernel: Kernel | None = None

    def build(self) -> Kernel:
        """Return its code."""
        return self.chain.build() if self.chain else self.kernel or build_portable(self.layers[0])

    @property
    def scratch(self) -> Mapping[str, Scratch]:
        """Its working memory by parameter name."""
        return self.chain.scratch if self.chain else self.kernel.scratch if self.kernel else {}

    @property
    def name(self) -> str:
        """The name of its output: the last layer's."""
        return self.layers[-1].name

    @property
    def sources(self) -> tuple[str, ...]:
        """The tensors it reads: a chain the one its first layer reads, which an add at its end may read too."""
        if self.chain is None:
            return self.layers[0].sources
        return () if self.chain.streamed else (self.layers[0].sources[0],)

    @property
    def element_bytes(self) -> int:
        """Size of the largest element of its planes."""
        windows: Iterable[Layout] = self.chain.windows.values() if self.chain else ()
        return max(layout.element_bytes for layout in (self.source, self.target, *windows))


#: A stage's cost, in whatever unit.
StageCosts: TypeAlias = Callable[[StagePlan], float]


class StageGraph:
    """All stages a network could be computed in.

    Parameters
    ----------
    network : Network
        What to compute.
    kernels : type of RollingStage, optional
        The core's fast kernels; None leaves the portable ones only.
    streamed : bool
        The image does not lie in the arena: its rows are read as the first layer, a convolution, needs them.
    cost_of : callable, optional
        What is kept low: a stage's cost; what is predicted of the objective if not given. It may change between two
        plans.
    slack : float
        Part by which predictions may be wrong: stages are left out only where another needs no more bytes and is, by
        so much, predicted to cost less.
    prices : CyclePrices, optional
        Of the core; without them no cycles are predicted.
    objective : {"cycles", "instructions"}
        What is to be few; instructions where cycles aren't predicted.
    """

    def __init__(
        self,
        network: Network,
        kernels: type[RollingStage] | None,
        *,
        streamed: bool = False,
        prices: CyclePrices | None = None,
        objective: Objective = "cycles",
        cost_of: StageCosts | None = None,
        slack: float = 0.0,
    ) -> None:
        self.network, self.kernels, self.streamed = network, kernels, streamed
        self.prices, self.objective = prices, objective
        self._cost_of: StageCosts = cost_of or _predicted
        self._slack = slack
        self._last_use: dict[str, int] = {network.output.name: len(network.layers)}
        for index, layer in enumerate(network.layers):
            self._last_use.update(dict.fromkeys(layer.sources, index))
        self._edges: dict[tuple[int, Layout], list[StagePlan]] = {}
        #: Of single layers, by their index, on code that somebody else found.
        self._further: dict[int, list[StagePlan]] = {}

    def best_plan(self, ram_limit: int | None = None, element_bytes: int | None = None) -> list[StagePlan] | None:
        """Return the stages with the least cost of which none passes a limit.

        Parameters
        ----------
        ram_limit : int, optional
            Bytes that may be alive at one time.
        element_bytes : int, optional
            Largest element of planes: with 1 all are int8, and no kernel is needed in two forms.

        Returns
        -------
        list of StagePlan or None
            In order; None where there is no such plan.
        """
        count = len(self.network.layers)
        start = (0, self._pixels(self.network.input_shape))
        best: dict[tuple[int, Layout], tuple[float, list[StagePlan]]] = {start: (0.0, [])}
        # Every edge leads to a later layer: one pass in order finds the shortest paths.
        for index in range(count):
            for node in [node for node in best if node[0] == index]:
                cost, path = best[node]
                for edge in self._edges_from(*node):
                    if ram_limit is not None and edge.arena_bytes > ram_limit:
                        continue
                    if element_bytes is not None and edge.element_bytes > element_bytes:
                        continue
                    follower = (index + len(edge.layers), edge.target)
                    total = cost + self._cost_of(edge)
                    if follower not in best or total < best[follower][0]:
                        best[follower] = total, [*path, edge]
        ends = [value for node, value in best.items() if node[0] == count]
        return _laid_apart(min(ends, key=lambda value: value[0])[1]) if ends else None

    def cost(self, stages: Iterable[StagePlan]) -> float:
        """Return what is kept low, of all these stages together."""
        return sum(self._cost_of(stage) for stage in stages)

    def pareto_front(self) -> Iterator[list[StagePlan]]:
        """Return plans from the fastest to the leanest, each the fastest that needs less than the last."""
        limit: int | None = None
        while (plan := self.best_plan(limit)) is not None:
            yield plan
            limit = max(stage.arena_bytes for stage in plan) - 1

    # ---- edges ---------------------------------------------------------------------------------------------------

    def _edges_from(self, start: int, source: Layout) -> list[StagePlan]:
        node = (start, source)
        if node not in self._edges:
            edges = [*self._chains_from(start, source)]
            if self._begins_alone(start, source):
                edges.append(self._alone(start))
            self._edges[node] = _undominated(edges, self._slack)
        further = self._further.get(start, []) if self._begins_alone(start, source) else []
        return [*self._edges[node], *further]

    def _begins_alone(self, start: int, source: Layout) -> bool:
        return not source.planar and not (self.streamed and start == 0)

    def stage_of(self, name: str, kernel: Kernel | None = None) -> StagePlan:
        """Return the stage of a layer alone, on the portable kernel or on another one."""
        return self._alone(self._made[name], kernel)

    def add(self, stage: StagePlan) -> None:
        """Let plans use a stage of `stage_of`, from now on."""
        self._further.setdefault(self._made[stage.name], []).append(stage)

    def _alone(self, start: int, kernel: Kernel | None = None) -> StagePlan:
        layer = self.network.layers[start]
        source, target = self._pixels(layer.input_shape), self._pixels(layer.output_shape)
        arena = sum(_aligned(self._size(name)) for name in layer.sources) + _aligned(target.size)
        arena += self._bystanders(start, start + 1) + (kernel.scratch_bytes if kernel else 0)
        vectors = self.kernels is not None and self.kernels.portable_vectors
        executed = COMPILED * portable_instructions(layer, vectors=vectors)
        cycles = None if self.prices is None else executed.cycles(self.prices)
        cost = self._cost(executed.instructions, cycles)
        return StagePlan(
            (layer,), None, source, target, None, arena, arena, executed.instructions, cycles, cost, kernel=kernel
        )

    def _cost(self, instructions: float, cycles: float | None) -> float:
        return instructions if cycles is None or self.objective == "instructions" else cycles

    def _chains_from(self, start: int, source: Layout) -> Iterator[StagePlan]:
        if self.kernels is None:
            return
        for length in self._chain_lengths(start):
            if length > _LONGEST_CHAIN:
                break
            layers = self.network.layers[start : start + length]
            others = self._bystanders(start, start + length)
            # What is read again later must not be written over.
            kept = self._last_use[layers[0].sources[0]] >= start + length
            for chain in self._tilings(layers, source, start + length):
                yield self._plan_of(layers, chain, others, source_kept=kept)

    def _plan_of(
        self, layers: tuple[AnyLayer, ...], chain: RollingStage, others: int, *, source_kept: bool
    ) -> StagePlan:
        scratch = sum(item.bytes for item in chain.scratch.values())
        source, target = 0 if chain.streamed else _aligned(chain.source.size), _aligned(chain.target.size)
        over = None if source_kept else overlap_distance(chain)
        apart = source + target
        together = apart if over is None else max(source, over + target) - min(over, 0)
        if together >= apart:
            over, together = None, apart
        rest = scratch + others
        instructions = chain.predicted_instructions()
        cycles = None if self.prices is None else chain.predicted_cycles(self.prices)
        cost = self._cost(instructions, cycles)
        sizes = (together + rest, apart + rest)
        return StagePlan(layers, chain, chain.source, chain.target, over, *sizes, instructions, cycles, cost)

    def _chain_lengths(self, start: int) -> list[int]:
        if self.kernels is None:
            return []
        return chain_lengths(self.network, start, self.kernels.one_pixel_kinds, self.kernels.takes)

    def _tilings(self, layers: tuple[AnyLayer, ...], source: Layout, end: int) -> Iterator[RollingStage]:
        assert self.kernels is not None
        last = layers[-1]
        height = last.output_shape[0]
        reader, border = self._depthwise_reader(end)
        windows = any(isinstance(layer, DepthwiseLayer) for layer in layers[(0 if not source.planar else 1) :])
        for target in self.kernels.target_layouts(last.output_shape, reader):
            for window_bytes in self.kernels.window_sizes if windows else self.kernels.window_sizes[:1]:
                for rows in [*(rows for rows in _ROWS if rows < height), height]:
                    known: set[tuple[int, ...]] = set()
                    for block_bytes in _BLOCK_BYTES:
                        chain = self.kernels(
                            layers,
                            source,
                            target,
                            rows=rows,
                            window_bytes=window_bytes,
                            border=border,
                            block_bytes=block_bytes,
                            streamed=self.streamed and layers[0] is self.network.layers[0],
                        )
                        sizes = tuple(scratch.bytes for scratch in chain.scratch.values())
                        if sizes not in known:
                            known.add(sizes)
                            yield chain

    def _depthwise_reader(self, index: int) -> tuple[DepthwiseLayer | None, int]:
        """Return the depthwise layer that alone reads the tensor made before layer `index`, and what it pads with."""
        if index >= len(self.network.layers) or not self._chain_lengths(index):
            return None, 0
        reader, made = self.network.layers[index], self.network.layers[index - 1]
        if isinstance(made, AddLayer):
            # It is computed value by value, where its shortcut lies as pixels.
            return None, 0
        if not isinstance(reader, DepthwiseLayer) or reader.source != made.name:
            return None, 0
        if sum(made.name in layer.sources for layer in self.network.layers) != 1:
            return None, 0
        return reader, reader.input_zero_point

    # ---- bytes -----------------------------------------------------------------------------------------------------

    @cached_property
    def _made(self) -> dict[str, int]:
        return {NETWORK_INPUT: -1} | {layer.name: index for index, layer in enumerate(self.network.layers)}

    def _pixels(self, shape: Shape) -> Layout:
        return nhwc_layout(shape, self.network.element_bytes)

    def _size(self, name: str) -> int:
        return self._pixels(self.network.shape_of(name)).size

    def _bystanders(self, start: int, end: int) -> int:
        """Return the bytes of tensors made before and read after the layers from `start` to before `end`.

        Tensors that more than one layer reads always lie as pixels, so their size does not depend on the plan.
        """
        read = {source for layer in self.network.layers[start:end] for source in layer.sources}
        return sum(
            _aligned(self._size(name))
            for name, made in self._made.items()
            if made < start and self._last_use.get(name, -1) >= end and name not in read
        )


def can_stream(network: Network) -> bool:
    """Tell whether a network's input can be read row by row: a convolution over the image, which nothing else reads."""
    first = network.layers[0]
    alone = sum(NETWORK_INPUT in layer.sources for layer in network.layers) == 1
    return isinstance(first, ConvolutionLayer) and first.kernel != (1, 1) and alone


def _laid_apart(plan: list[StagePlan]) -> list[StagePlan]:
    """Leave outputs over their sources only where the plan's peak asks for it: those apart are easier to place."""
    peak = max(stage.arena_bytes for stage in plan)
    return [
        replace(stage, over=None, arena_bytes=stage.bytes_apart) if stage.bytes_apart <= peak else stage
        for stage in plan
    ]


def _undominated(edges: Sequence[StagePlan], slack: float) -> list[StagePlan]:
    """Return the edges than which no other to the same node needs both fewer bytes and surely less cost."""
    kept: dict[tuple[int, Layout], list[StagePlan]] = {}
    fewest: dict[tuple[int, Layout], float] = {}
    for edge in sorted(edges, key=lambda edge: (edge.arena_bytes, edge.cost)):
        node = (len(edge.layers), edge.target)
        if edge.cost * (1 - slack) < fewest.get(node, math.inf):
            kept.setdefault(node, []).append(edge)
            fewest[node] = min(edge.cost, fewest.get(node, math.inf))
    return [edge for edges in kept.values() for edge in edges]


def _predicted(stage: StagePlan) -> float:
    return stage.cost


def _aligned(size: int) -> int:
    return -(-size // 4) * 4
