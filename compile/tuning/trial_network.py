"""Candidate stages side by side in one program, each with its input put where it reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from thumbnet.compile.kernels.kernel import Kernel
from thumbnet.compile.kernels.layouts import Layout, nhwc_layout
from thumbnet.compile.network.layers import NETWORK_INPUT, DepthwiseLayer, Network
from thumbnet.compile.plan.lowered_network import LoweredNetwork, Stage
from thumbnet.compile.plan.memory_plan import ALIGNMENT, MemoryPlan
from thumbnet.compile.plan.place_tensors import scratch_name
from thumbnet.compile.plan.stage_graph import StagePlan

#: Vectors are loaded from where a tensor begins.
_TENSOR_ALIGNMENT = 16


@dataclass(frozen=True)
class TrialStage(Stage):
    """A stage under a name of its own: several compute the same layers."""

    label: str

    @property
    def name(self) -> str:
        """The label."""
        return self.label


def trial_name(index: int) -> str:
    """Return the name of a trial's stage."""
    return f"trial_{index}"


def trial_network(network: Network, values: Mapping[str, NDArray[Any]], trials: Sequence[StagePlan]) -> LoweredNetwork:
    """Return a program that runs each trial once: not a network, but emitted, deployed and profiled like one.

    Parameters
    ----------
    network : Network
        Whose stages are tried.
    values : mapping of str to ndarray
        The input and every layer's output ``[H, W, C]`` for one image.
    trials : sequence of StagePlan
        Those that read the same tensors should follow each other: these are put there once.

    Returns
    -------
    LoweredNetwork
        Trial `i` is the stage `trial_name(i)`; what lies between puts inputs in place.
    """
    stages: list[Stage] = []
    offsets: dict[str, int] = {NETWORK_INPUT: 0}
    size = 0
    fed: list[tuple[str, Layout]] = []
    feeds: list[Stage] = []
    end = 0
    for index, trial in enumerate(trials):
        wanted = _sources_of(network, trial)
        if wanted != fed:
            end, feeds = 0, []
            for source, layout in wanted:
                feed = _feed(f"feed_{index}_{len(feeds)}", source, layout, _packed(network, source, layout, values))
                offsets[feed.name] = end
                end = _aligned(end + layout.size)
                feeds.append(feed)
            stages += feeds
            fed = wanted
        stage = _stage_of(trial_name(index), trial, feeds)
        stages.append(stage)
        offsets[stage.name] = end
        after = _aligned(end + trial.target.size)
        for parameter, scratch in stage.kernel.scratch.items():
            offsets[scratch_name(stage.name, parameter)] = after
            after = _aligned(after + scratch.bytes)
        size = max(size, after)
    beyond = max((trial.chain.bytes_read_beyond for trial in trials if trial.chain), default=0)
    least = nhwc_layout(network.input_shape, network.element_bytes).size
    headers = next((trial.chain.headers for trial in trials if trial.chain), ())
    plan = MemoryPlan(offsets, max(size, least) + beyond, size)
    return LoweredNetwork(network, tuple(stages), plan, (), headers)


def _sources_of(network: Network, trial: StagePlan) -> list[tuple[str, Layout]]:
    if trial.chain is not None:
        return [(trial.sources[0], trial.source)]
    return [(name, nhwc_layout(network.shape_of(name), network.element_bytes)) for name in trial.sources]


def _stage_of(name: str, trial: StagePlan, feeds: Sequence[Stage]) -> TrialStage:
    return TrialStage(
        trial.layers,
        trial.build(),
        tuple(feed.name for feed in feeds),
        tuple(feed.output_layout for feed in feeds),
        trial.target,
        over=None,
        predicted_instructions=trial.instructions,
        predicted_cycles=trial.cycles,
        label=name,
    )


def _packed(network: Network, source: str, layout: Layout, values: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Return a tensor as it lies in memory, flat, in elements of the layout."""
    reader = next((layer for layer in network.layers if source in layer.sources), None)
    border = reader.input_zero_point if isinstance(reader, DepthwiseLayer) and layout.planar else 0
    return np.frombuffer(layout.pack(values[source], border), np.dtype(layout.dtype))


def _feed(name: str, source: str, layout: Layout, data: NDArray[Any]) -> TrialStage:
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("stage")
        output = T.arg("output", T.Buffer((data.size,), layout.dtype))
        constant = T.arg("data", T.Buffer((data.size,), layout.dtype))
        place = [T.address_of(buffer[0]) for buffer in (output, constant)]
        T.evaluate(T.call_extern("void", "memcpy", *place, tirx.const(data.nbytes, "int32")))
    kernel = Kernel(f"{source} put in place", builder.get(), {"data": data})
    return TrialStage(
        (), kernel, (), (), layout, over=None, predicted_instructions=0.0, predicted_cycles=None, label=name
    )


def _aligned(size: int) -> int:
    alignment = max(ALIGNMENT, _TENSOR_ALIGNMENT)
    return -(-size // alignment) * alignment
