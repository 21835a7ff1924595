"""Networks whose channels are of very different sizes and which compute the same: what plain quantization fails on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from thumbnet.compile.frontend.read_torch_network import read_torch_network
from thumbnet.compile.network.layers import NETWORK_INPUT
from thumbnet.compile.post_training.equalize import tied_tensors
from thumbnet.compile.post_training.layer_values import observe_channels
from thumbnet.models.stored import list_units

#: A channel that comes so near to a clamp on the given images, as part of it, is left alone.
NEAR = 0.99


def rescale_channels(module: nn.Module, images: Sequence[torch.Tensor], largest: float, seed: int = 0) -> int:
    """Scale a MobileNet's channels at random, in its batch norms, and take that back where they are read.

    A channel before ReLU or no activation is multiplied by up to `largest` or divided by as much. One before ReLU6 is
    only divided, and only where none of the images takes it to the 6: on these the network computes what it did.

    Parameters
    ----------
    module : nn.Module
        A MobileNet of ours, changed in place.
    images : sequence of torch.Tensor
        ``[1, C, H, W]``.
    largest : float
        Factors are spread evenly over their logarithms.
    seed : int
        Of the factors.

    Returns
    -------
    int
        Channels that were scaled.
    """
    random = np.random.default_rng(seed)
    channels, height, width = images[0].shape[1:]
    network, _ = read_torch_network(module, (channels, height, width))
    extents = observe_channels(network, images)
    units = {unit.path: unit for unit in list_units(module)}
    scaled = 0
    for group in tied_tensors(network):
        if NETWORK_INPUT in group or network.output.name in group:
            continue
        makers = [layer for layer in network.layers if layer.name in group]
        factors = largest ** random.uniform(-1, 1, makers[0].output_shape[2])
        for layer in makers:
            if np.isfinite(layer.maximum):
                free = extents[layer.name].highest < NEAR * layer.maximum
                factors = np.where(free, np.minimum(factors, 1 / factors), 1)
        scaled += int((factors != 1).sum())
        for layer in network.layers:
            if layer.name in group and layer.name in units:
                batch_norm = units[layer.name].batch_norm
                assert batch_norm is not None
                _multiply(batch_norm.weight, factors)
                _multiply(batch_norm.bias, factors)
            elif layer.name in units and group & {*layer.sources}:
                # A depthwise convolution has its channels first, any other second.
                weight = units[layer.name].module.weight
                depthwise = units[layer.name].kind == "depthwise"
                _multiply(weight if depthwise else weight.transpose(0, 1), 1 / factors)
    return scaled


def _multiply(values: torch.Tensor, factors: NDArray[np.float64]) -> None:
    """Multiply along the first axis, in place."""
    with torch.no_grad():
        values *= torch.from_numpy(factors).float().reshape(-1, *(1 for _ in values.shape[1:]))
