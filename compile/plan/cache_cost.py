"""What a stage's bytes cost that are in no cache any more when they are needed again: an estimate that ranks plans.

A byte is still in a cache if what was read and written since fits it. Kernels go over a block of pixels once for every
tile of channels, and each time take from each pixel a line of the cache, however little of it they need.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from thumbnet.compile.kernels.pixel_stage import VECTOR_BYTES, PixelStage
from thumbnet.compile.kernels.rolling_stage import RollingStage
from thumbnet.compile.network.layers import ConvolutionLayer, DepthwiseLayer, Network
from thumbnet.compile.plan.choose_plan import fastest_plan
from thumbnet.compile.plan.stage_graph import StageGraph, StagePlan
from thumbnet.targets.board import Caches

#: In instructions a byte, of streams that the core sees coming: a line of 64 bytes takes the time of 4 instructions
#: from the second level, of 16 from memory.
FROM_SECOND_LEVEL, FROM_MEMORY = 1 / 16, 1 / 4
LINE_BYTES = 64
#: Part of the fastest plan's predicted instructions that may be spent on having bytes in the caches.
SPENT_ON_CACHES = 0.0075
#: What prices are multiplied by, the first that keeps to it.
_SHARES = tuple(tenths / 10 for tenths in range(10, -1, -1))


class CacheCost:
    """A stage's predicted instructions, and a share of what its bytes cost that come from beyond the first cache.

    Parameters
    ----------
    caches : Caches
        The board's.
    """

    def __init__(self, caches: Caches) -> None:
        self.caches, self.share = caches, 1.0
        # With the stages themselves: what is alive shares its id with no other.
        self._known: dict[int, tuple[StagePlan, float]] = {}

    def __call__(self, stage: StagePlan) -> float:
        """Return the cost of a stage."""
        if id(stage) not in self._known:
            self._known[id(stage)] = stage, self.of_bytes(stage)
        return stage.instructions + self.share * self._known[id(stage)][1]

    def of_bytes(self, stage: StagePlan) -> float:
        """Return what a stage's bytes cost, in instructions."""
        return sum(bytes_ * _price(self.caches, since) for bytes_, since in _needs(stage))


def graph_with_caches(
    network: Network, kernels: type[RollingStage], caches: Caches, ram_limit: int | None = None
) -> StageGraph:
    """Return the stages of a network with costs that leave the best plan within `SPENT_ON_CACHES` of the fastest.

    Parameters
    ----------
    network : Network
        What to compute.
    kernels : type of RollingStage
        The core's fast kernels.
    caches : Caches
        The board's.
    ram_limit : int, optional
        Bytes the arena should not pass.
    """
    cost = CacheCost(caches)
    graph = StageGraph(network, kernels, cost_of=cost, slack=SPENT_ON_CACHES)
    cost.share = 0.0
    most = fastest_plan(graph, ram_limit).predicted_instructions * (1 + SPENT_ON_CACHES)
    for cost.share in _SHARES:
        if fastest_plan(graph, ram_limit).predicted_instructions <= most:
            break
    return graph


def _price(caches: Caches, since: float) -> float:
    """Return what a byte costs that is needed again after so many others."""
    if since <= caches.first_level:
        return 0.0
    return FROM_SECOND_LEVEL if since <= caches.last_level else FROM_MEMORY


def _needs(stage: StagePlan) -> Iterator[tuple[float, float]]:
    """Give bytes that a stage needs again, and how many others it has read and written since they were there last.

    Weights on their first way are left out: they are the same in every plan.
    """
    chain = stage.chain
    for tensor in (stage.source, stage.target):
        yield tensor.size, tensor.size
    if not isinstance(chain, PixelStage):
        return
    for window in chain.windows.values():
        yield 2 * window.size * chain.steps, window.size
    passes = [
        _Passes.of(chain, chain.plan[group[-1]].height, rows, layer)
        for group in chain.groups
        for rows in [min(chain.block_rows(group), chain.plan[group[-1]].rows)]
        for layer in (chain.layers[index] for index in group)
        if isinstance(layer, ConvolutionLayer | DepthwiseLayer)
    ]
    in_step = sum(each.weight_bytes + each.block_bytes for each in passes)
    for each in passes:
        yield each.bytes * each.count * each.blocks, each.bytes + each.weight_bytes / each.count
        yield each.weight_bytes * (chain.steps - 1), in_step
        yield each.weight_bytes * (each.blocks - chain.steps), each.weight_bytes + each.block_bytes


@dataclass(frozen=True)
class _Passes:
    """How a layer goes over its pixels: in `blocks`, each `count` times, over so many bytes of the cache's lines."""

    blocks: int
    count: int
    bytes: int
    block_bytes: int
    weight_bytes: int

    @classmethod
    def of(cls, chain: PixelStage, height: int, rows: int, layer: ConvolutionLayer | DepthwiseLayer) -> _Passes:
        size, (_, width, channels) = chain.element_bytes, layer.output_shape
        blocks, written = max(-(-height // rows), chain.steps), width * rows
        line, weight_bytes = min(channels * size, LINE_BYTES), layer.weight.size * size
        if isinstance(layer, ConvolutionLayer):
            read = written * layer.weight[0].size * size
            block_bytes = read + written * channels * size
            return cls(blocks, chain.channel_tiles(layer), read + written * line, block_bytes, weight_bytes)
        pixels = written + rows * layer.stride[0] * layer.input_shape[1]
        vectors = -(-channels * size // VECTOR_BYTES)
        return cls(blocks, vectors, pixels * line, pixels * channels * size, weight_bytes)
