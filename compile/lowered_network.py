"""An integer network as kernels with their places in memory: what the C emission prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from thumbnet.compile.integer_network import NETWORK_INPUT, DepthwiseConvolution, IntegerNetwork, Layer
from thumbnet.compile.kernels.chains import chain_lengths
from thumbnet.compile.kernels.dsp_stage import DspStage
from thumbnet.compile.kernels.kernel import Kernel
from thumbnet.compile.kernels.layouts import Layout, nhwc_layout, planar_layout
from thumbnet.compile.kernels.portable import build_portable
from thumbnet.compile.memory_plan import MemoryPlan, PlannedTensor, plan_memory


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
    output_layout : Layout
        Of the last layer's output, which alone lies in the arena.
    """

    layers: tuple[Layer, ...]
    kernel: Kernel
    sources: tuple[str, ...]
    output_layout: Layout

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
    network : IntegerNetwork
        What is computed.
    stages : tuple of Stage
        How.
    plan : MemoryPlan
        Arena offsets by tensor: ``"input"``, layers' names, and `scratch_name` of each stage's scratch.
    """

    network: IntegerNetwork
    stages: tuple[Stage, ...]
    plan: MemoryPlan

    @property
    def constant_bytes(self) -> int:
        """Bytes of weights, biases and multipliers."""
        return sum(array.nbytes for stage in self.stages for array in stage.kernel.constants.values())


def lower_network(network: IntegerNetwork, ram_limit: int | None = None) -> LoweredNetwork:
    """Choose a kernel for every layer or chain of layers, and a place for every tensor.

    Parameters
    ----------
    network : IntegerNetwork
        What to compute.
    ram_limit : int, optional
        Bytes the arena should not pass. The fastest of `CHOICES` that keeps it is taken; where none does, the one with
        the smallest arena.
    """
    smallest: LoweredNetwork | None = None
    for choice in CHOICES:
        stages = _build_stages(network, choice)
        lowered = LoweredNetwork(network, tuple(stages), plan_stages(network, stages))
        if ram_limit is None or lowered.plan.arena_bytes <= ram_limit:
            return lowered
        if smallest is None or lowered.plan.arena_bytes < smallest.plan.arena_bytes:
            smallest = lowered
    assert smallest is not None
    return smallest


def plan_stages(network: IntegerNetwork, stages: Sequence[Stage]) -> MemoryPlan:
    """Place the input, every stage's output and every stage's scratch in one arena."""
    return plan_memory(_lifetimes(network, stages))


def scratch_name(stage: Stage, parameter: str) -> str:
    """Return the name under which a stage's scratch stands in the plan."""
    return f"{parameter} of {stage.name}"


@dataclass(frozen=True)
class Choice:
    """How chains are computed on the DSP kernels.

    Parameters
    ----------
    plane_bytes : int
        2: planes of int16, fewest instructions; 1: of int8, half the RAM.
    pixels : int
        Rows a step are chosen so that at least so many pixels share the widening of a weight.
    """

    plane_bytes: int
    pixels: int


#: From the fastest to the leanest; None is one layer after the other on the portable kernels, which need no planes.
CHOICES: tuple[Choice | None, ...] = (Choice(2, 144), Choice(2, 48), Choice(1, 144), Choice(1, 24), None)


def _build_stages(network: IntegerNetwork, choice: Choice | None) -> list[Stage]:
    stages: list[Stage] = []
    layouts = {NETWORK_INPUT: nhwc_layout(network.input_shape)}
    start = 0
    while start < len(network.layers):
        lengths = chain_lengths(network, start) if choice else []
        first = network.layers[start]
        if choice and lengths and (layouts[first.sources[0]].planar or not isinstance(first, DepthwiseConvolution)):
            # With an add at the end if there is one, and without windows otherwise.
            length = lengths[-1] if network.layers[start + lengths[-1] - 1].kind == "add" else lengths[0]
            chain = network.layers[start : start + length]
            last = chain[-1]
            target = _layout_for(network, start + length - 1, choice)
            height, width, _ = last.output_shape
            rows = max(2, -(-choice.pixels // width))
            source = layouts[chain[0].sources[0]]
            border = _border_for(network, last)
            stage = DspStage(
                chain, source, target, rows=min(rows, height), window_bytes=choice.plane_bytes, border=border
            )
            stages.append(Stage(chain, stage.build(), (chain[0].sources[0],), target))
        else:
            length, last = 1, network.layers[start]
            target = nhwc_layout(last.output_shape)
            stages.append(Stage((last,), build_portable(last), last.sources, target))
        layouts[last.name] = target
        start += length
    return stages


def _layout_for(network: IntegerNetwork, index: int, choice: Choice) -> Layout:
    """Return the layout in which a layer's output is read: planes where a depthwise layer on the kernels reads it."""
    layer = network.layers[index]
    readers = [other for other in network.layers if layer.name in other.sources]
    follower = index + 1
    if len(readers) == 1 and isinstance(readers[0], DepthwiseConvolution) and chain_lengths(network, follower):
        return planar_layout(layer.output_shape, choice.plane_bytes, readers[0].padding)
    return nhwc_layout(layer.output_shape)


def _border_for(network: IntegerNetwork, layer: Layer) -> int | None:
    """Return what the depthwise layer that reads a layer's output pads with, None where none does."""
    readers = (other for other in network.layers if layer.name in other.sources)
    return next((reader.input_zero_point for reader in readers if isinstance(reader, DepthwiseConvolution)), None)


def _lifetimes(network: IntegerNetwork, stages: Sequence[Stage]) -> list[PlannedTensor]:
    last_use = {network.output.name: len(stages) - 1}
    for step, stage in enumerate(stages):
        last_use.update(dict.fromkeys(stage.sources, step))
    size = nhwc_layout(network.input_shape).size
    tensors = [PlannedTensor(NETWORK_INPUT, size, 0, last_use[NETWORK_INPUT])]
    for step, stage in enumerate(stages):
        tensors.append(PlannedTensor(stage.name, stage.output_layout.size, step, last_use.get(stage.name, step)))
        tensors.extend(
            PlannedTensor(scratch_name(stage, parameter), scratch.bytes, step, step)
            for parameter, scratch in stage.kernel.scratch.items()
        )
    return tensors
