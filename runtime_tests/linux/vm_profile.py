"""What the instrument (native/instrument.cc) saw of a Relax VM's calls, and which layers they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from thumbnet.compile.artifact import Artifact
from thumbnet.compile.symbol_prefix import identifier


@dataclass(frozen=True)
class VmCall:
    """One call of the VM.

    Parameters
    ----------
    name : str
        Of the function called.
    cost : int
        In the instrument's unit (instructions, or nanoseconds), its own overhead taken off.
    depth : int
        0 for calls of the network's main function.
    storage_bytes : int
        What the call allocates for activations.
    recorded : int
        Under which number the blocks it executed are recorded; -1 where they aren't.
    """

    name: str
    cost: int
    depth: int
    storage_bytes: int
    recorded: int = -1

    @property
    def is_kernel(self) -> bool:
        """Whether it computes something, and is not the VM's own housekeeping."""
        return self.depth == 0 and not self.name.startswith("vm.")


def parse_profile(text: str) -> list[VmCall]:
    """Read what ``thumbnet.take_profile`` returned, and take the instrument's overhead off each call."""
    rows = [line.split("\t", 4) for line in text.splitlines()]
    overhead = int(rows[0][1])
    return [
        VmCall(name, max(0, int(cost) - overhead), int(depth), int(size), int(recorded))
        for depth, cost, size, recorded, name in rows[1:]
    ]


def name_layers(artifact: Artifact, calls: Iterable[VmCall]) -> list[tuple[str, int]]:
    """Return name and cost of each layer, in order of execution.

    A layer's kernel bears its name as a C identifier (or what the manifest's layer has as ``symbol``). Where the
    compiler named kernels otherwise but called exactly one a layer, the n-th kernel is the n-th layer. Kernels that
    belong to no layer, such as the last one's reshape, stand under their own names.
    """
    kernels = [call for call in calls if call.is_kernel]
    layers = artifact.manifest["layers"]
    by_symbol = {layer.get("symbol", identifier(layer["name"])): layer["name"] for layer in layers}
    if not by_symbol.keys() & {kernel.name for kernel in kernels} and len(kernels) == len(layers):
        return [(layer["name"], kernel.cost) for layer, kernel in zip(layers, kernels, strict=True)]
    return [(by_symbol.get(kernel.name, kernel.name), kernel.cost) for kernel in kernels]


def middle_costs(profiles: Sequence[Sequence[tuple[str, int]]]) -> list[tuple[str, float, int]]:
    """Return name, median cost and spread of the costs of each layer, from what `name_layers` said of several runs."""
    runs_by_layer = zip(*profiles, strict=True)
    costs_by_layer = ((runs[0][0], [cost for _, cost in runs]) for runs in runs_by_layer)
    return [(name, float(median(costs)), max(costs) - min(costs)) for name, costs in costs_by_layer]
