"""What the layers of a float32 network compute, a layer at a time over a batch of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from thumbnet.compile.frontend.float_module import FloatModule, LayerModule, layer_of
from thumbnet.compile.network.float_network import FloatLayer, FloatNetwork
from thumbnet.compile.network.layers import NETWORK_INPUT


class LiveValues:
    """The values of tensors that a layer still to come reads.

    Parameters
    ----------
    network : FloatNetwork
        Whose layers they are of.
    images : torch.Tensor
        The network's input, float32 ``[N, C, H, W]``.
    """

    def __init__(self, network: FloatNetwork, images: torch.Tensor) -> None:
        self._reads = Counter(source for layer in network.layers for source in layer.sources)
        self._values = {NETWORK_INPUT: images}

    def take(self, layer: FloatLayer) -> list[torch.Tensor]:
        """Return the values of a layer's sources; what no later layer reads is let go."""
        taken = [self._values[source] for source in layer.sources]
        for source in layer.sources:
            self._reads[source] -= 1
            if not self._reads[source]:
                del self._values[source]
        return taken

    def put(self, name: str, values: torch.Tensor) -> None:
        """Keep a layer's output for those that read it."""
        if self._reads[name]:
            self._values[name] = values


def run_layers(
    network: FloatNetwork, module: FloatModule, images: torch.Tensor
) -> Iterator[tuple[FloatLayer, LayerModule, list[torch.Tensor], torch.Tensor]]:
    """Give each layer, what computes it, its sources' values and its output before the clamp, in the network's order.

    Parameters
    ----------
    network, module : FloatNetwork, FloatModule
        One and the same network.
    images : torch.Tensor
        float32 ``[N, C, H, W]``.
    """
    live = LiveValues(network, images)
    for layer in network.layers:
        computes, sources = layer_of(module, layer.name), live.take(layer)
        unclamped = computes.unclamped(*sources)
        yield layer, computes, sources, unclamped
        live.put(layer.name, computes.clamp(unclamped))


@dataclass(frozen=True)
class ChannelExtents:
    """The smallest and largest values of each channel of a layer, before its clamp.

    Parameters
    ----------
    lowest, highest : ndarray
        float64 ``[C]``.
    """

    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]


def observe_channels(network: FloatNetwork, images: Sequence[torch.Tensor]) -> dict[str, ChannelExtents]:
    """Return what the channels of each layer reach on images ``[1, C, H, W]``, by the layer's name."""
    module = FloatModule(network)
    found: dict[str, ChannelExtents] = {}
    with torch.no_grad():
        for image in images:
            for layer, _, _, values in run_layers(network, module, image):
                lowest, highest = (end(values, dim=(0, 2, 3)).double().numpy() for end in (torch.amin, torch.amax))
                before = found.get(layer.name, ChannelExtents(lowest, highest))
                found[layer.name] = ChannelExtents(
                    np.minimum(before.lowest, lowest), np.maximum(before.highest, highest)
                )
    return found


def spread(images: Sequence[torch.Tensor], most: int) -> list[torch.Tensor]:
    """Return at most so many of the images, evenly spread."""
    number = min(most, len(images))
    return [images[place * len(images) // number] for place in range(number)]
