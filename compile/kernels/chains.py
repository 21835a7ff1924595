"""Which layers can be computed together, row by row, on the fast kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from thumbnet.compile.network.layers import (
    AddLayer,
    AnyLayer,
    AveragePoolLayer,
    ConvolutionLayer,
    DepthwiseLayer,
    Network,
    Shape,
)


@dataclass(frozen=True)
class Gather:
    """Not a layer of the network: brings rows of pixels into the window of the depthwise layer a chain starts with."""

    output_shape: Shape
    kind = "gather"

    @property
    def input_shape(self) -> Shape:
        """The same as the output's."""
        return self.output_shape


#: What stands in a chain when its code is made.
Link = AnyLayer | Gather


def chain_lengths(
    network: Network,
    start: int,
    one_pixel_kinds: frozenset[str],
    takes: Callable[[AnyLayer], bool] = lambda layer: True,
) -> list[int]:
    """Return how many layers from one on can be one chain, every possible number of them, ascending.

    A chain is a convolution or pointwise convolution, or starts with a depthwise one; every depthwise convolution in it
    is followed by a pointwise one; a residual add may end it whose shortcut is the chain's input. Nothing but the next
    layer reads what a layer inside makes. Of layers whose output is one pixel those of the given kinds can be in a
    chain, an average pool on its own. `takes` tells for which layers there are kernels.
    """
    readers = Counter(source for layer in network.layers for source in layer.sources)
    layers = network.layers
    shortcut = layers[start].sources[0]
    lengths: list[int] = []
    for end in range(start, len(layers)):
        layer = layers[end]
        previous = layers[end - 1] if end > start else None
        if isinstance(layer, AddLayer):
            if previous is None or isinstance(previous, DepthwiseLayer):
                break
            if set(layer.sources) != {shortcut, previous.name} or end == start:
                break
            if network.shape_of(shortcut) != layer.output_shape:
                break
            lengths.append(end - start + 1)
            break
        if isinstance(layer, AveragePoolLayer):
            if layer.kind in one_pixel_kinds and previous is None:
                lengths.append(1)
            break
        if not (_on_kernels(layer, one_pixel_kinds) and takes(layer)) or (
            previous is not None and layer.sources != (previous.name,)
        ):
            break
        if isinstance(layer, ConvolutionLayer):
            if previous is not None and (layer.kernel != (1, 1) or not isinstance(previous, DepthwiseLayer)):
                break
            lengths.append(end - start + 1)
        elif previous is not None and isinstance(previous, DepthwiseLayer):
            break
        # The shortcut of an add is read twice, by the chain's first layer and by the add: both inside.
        if readers[layer.name] != 1:
            break
    return lengths


def _on_kernels(layer: AnyLayer, one_pixel_kinds: frozenset[str]) -> bool:
    match layer:
        case ConvolutionLayer():
            pointwise = layer.kernel == (1, 1)
            plain = layer.stride == (1, 1) and not any(layer.padding)
            pixels = layer.output_shape[:2] != (1, 1) or layer.kind in one_pixel_kinds
            return (plain and pixels) if pointwise else True
        case DepthwiseLayer():
            return layer.stride in ((1, 1), (2, 2)) and layer.multiplier == 1
        case _:
            return False
