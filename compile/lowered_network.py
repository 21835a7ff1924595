"""An integer network as kernels with their places in memory: what the C emission prints."""

from __future__ import annotations

import math
from dataclasses import dataclass

from thumbnet.compile.integer_network import NETWORK_INPUT, IntegerNetwork, Layer
from thumbnet.compile.kernels.kernel import Kernel
from thumbnet.compile.kernels.portable import build_portable
from thumbnet.compile.memory_plan import MemoryPlan, PlannedTensor, plan_memory


@dataclass(frozen=True)
class LoweredLayer:
    """One layer, its kernel, and the arena offsets of what it reads and writes.

    Parameters
    ----------
    layer : Layer
        What is computed.
    kernel : Kernel
        How.
    input_offsets : tuple of int
        Arena offsets in bytes, in the order of the layer's sources.
    output_offset : int
        Arena offset in bytes.
    scratch_offset : int or None
        Arena offset in bytes of the kernel's scratch, None without any.
    """

    layer: Layer
    kernel: Kernel
    input_offsets: tuple[int, ...]
    output_offset: int
    scratch_offset: int | None


@dataclass(frozen=True)
class LoweredNetwork:
    """All layers, with the plan of the arena they share (the input lies in it too)."""

    network: IntegerNetwork
    layers: tuple[LoweredLayer, ...]
    plan: MemoryPlan

    @property
    def constant_bytes(self) -> int:
        """Bytes of weights, biases and multipliers."""
        return sum(array.nbytes for lowered in self.layers for array in lowered.kernel.constants.values())


def lower_network(network: IntegerNetwork) -> LoweredNetwork:
    """Choose a kernel for every layer and a place for every tensor."""
    kernels = [build_portable(layer) for layer in network.layers]
    plan = plan_memory(_lifetimes(network, kernels))
    offsets = plan.offsets
    layers = tuple(
        LoweredLayer(
            layer,
            kernel,
            tuple(offsets[source] for source in layer.sources),
            offsets[layer.name],
            offsets.get(_scratch_name(layer)),
        )
        for layer, kernel in zip(network.layers, kernels, strict=True)
    )
    return LoweredNetwork(network, layers, plan)


def _scratch_name(layer: Layer) -> str:
    return f"scratch of {layer.name}"


def _lifetimes(network: IntegerNetwork, kernels: list[Kernel]) -> list[PlannedTensor]:
    last_use = {network.output.name: len(network.layers) - 1}
    for step, layer in enumerate(network.layers):
        last_use.update(dict.fromkeys(layer.sources, step))
    tensors = [PlannedTensor(NETWORK_INPUT, math.prod(network.input_shape), 0, last_use[NETWORK_INPUT])]
    for step, (layer, kernel) in enumerate(zip(network.layers, kernels, strict=True)):
        size = math.prod(layer.output_shape)
        tensors.append(PlannedTensor(layer.name, size, step, last_use.get(layer.name, step)))
        if kernel.scratch_bytes:
            tensors.append(PlannedTensor(_scratch_name(layer), kernel.scratch_bytes, step, step))
    return tensors
