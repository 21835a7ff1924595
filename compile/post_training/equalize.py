"""Cross-layer equalization (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction").

A channel may be multiplied by a positive factor where a layer makes it and divided by it where layers read it: the
network computes the same. The factors here are powers of two, so that it computes the very same float32 bits (where
nothing under- or overflows).

Nagel et al. had one scale for all weights of a layer. Here each output channel's weights have their own, so that a
channel's size is lost elsewhere: in the scale of the activation tensor it shares with other channels, and in the weights
of the convolution that adds it to them. Both follow from what calibration images show, and neither depends on how the
channels were scaled before: rescaled networks all come back to one form.

What a factor may pass, besides the convolutions it ends in:

- sums and pools, which give their inputs and their output one factor a channel;
- no clamp, ReLU, and any clamp at zero or infinity: these keep to positive factors;
- a clamp elsewhere (ReLU6), which is one number for all channels of a layer and not scaled with them: only in channels
  that stayed below 1 / `HEADROOM` of it in calibration, and only so far that they still do. That is the one assumption:
  no image takes a channel to more than `HEADROOM` times of what calibration showed. Channels that came nearer to the
  clamp keep their size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.network.float_network import (
    FloatConvolution,
    FloatDepthwiseConvolution,
    FloatLayer,
    FloatNetwork,
)
from thumbnet.compile.network.layers import NETWORK_INPUT
from thumbnet.compile.post_training.layer_values import ChannelExtents

Values = NDArray[np.float64]

#: What a channel may reach on an image, over what it reached in calibration.
HEADROOM = 2.0
#: A channel that an activation cuts off nearly always counts as this part of what it is before: on other images it shows.
HIDDEN_PART = 1 / 8


@dataclass(frozen=True)
class EqualizedNetwork:
    """A network with its channels' sizes brought together.

    Parameters
    ----------
    network : FloatNetwork
        It computes what it did before.
    scaled, held : int
        Channels of layers that were scaled, and those left alone because they come too near to a clamp.
    """

    network: FloatNetwork
    scaled: int
    held: int


def equalize(network: FloatNetwork, extents: Mapping[str, ChannelExtents]) -> EqualizedNetwork:
    """Scale the channels between layers to like sizes.

    Parameters
    ----------
    network : FloatNetwork
        What to equalize.
    extents : mapping
        What each layer's channels reach in calibration, see `observe_channels`.
    """
    factors: dict[str, Values] = {}
    scaled = held = 0
    for group in _tied_tensors(network):
        makers = [layer for layer in network.layers if layer.name in group]
        if NETWORK_INPUT in group or network.output.name in group or not all(map(_spans_zero, makers)):
            continue
        readers = [layer for layer in network.layers if layer.name not in group and group & {*layer.sources}]
        sizes = np.max([_sizes(layer, extents[layer.name]) for layer in makers], axis=0)
        limits = np.min([_limits(layer, extents[layer.name]) for layer in makers], axis=0)
        factor = _powers_of_two(_wanted_sizes(sizes, readers), sizes, limits)
        factors.update(dict.fromkeys(group, factor))
        scaled += int((factor != 1).sum())
        held += int((limits == 0).sum())
    layers = tuple(_scaled(layer, factors) for layer in network.layers)
    return EqualizedNetwork(replace(network, layers=layers), scaled, held)


def _tied_tensors(network: FloatNetwork) -> list[set[str]]:
    """Return the tensors that sums and pools give one factor a channel, together."""
    groups = {name: {name} for name in (NETWORK_INPUT, *(layer.name for layer in network.layers))}
    for layer in network.layers:
        if isinstance(layer, FloatConvolution | FloatDepthwiseConvolution):
            continue
        for source in layer.sources:
            together = groups[layer.name] | groups[source]
            groups.update(dict.fromkeys(together, together))
    return list({id(group): group for group in groups.values()}.values())


def _spans_zero(layer: FloatLayer) -> bool:
    return layer.minimum <= 0 <= layer.maximum


def _sizes(layer: FloatLayer, extent: ChannelExtents) -> Values:
    """Return the largest magnitude of each channel ``[C]``: of its output, or a part of it before the activation."""
    before = np.maximum(-extent.lowest, extent.highest)
    after = np.maximum(-np.clip(extent.lowest, layer.minimum, 0), np.clip(extent.highest, 0, layer.maximum))
    largest = max(-layer.minimum, layer.maximum)
    return np.maximum(after, np.minimum(before * HIDDEN_PART, largest))


def _limits(layer: FloatLayer, extent: ChannelExtents) -> Values:
    """Return the factor ``[C]`` each channel may get at most before a clamp cuts it off: 0 if one does already."""
    sizes = _sizes(layer, extent)
    limits = np.full(sizes.shape, np.inf)
    for bound, reached in ((layer.maximum, extent.highest), (-layer.minimum, -extent.lowest)):
        if 0 < bound < np.inf:
            room = np.full(sizes.shape, np.inf)
            np.divide(bound, HEADROOM * np.maximum(reached, sizes), out=room, where=sizes > 0)
            limits = np.minimum(limits, np.where(room < 1, 0, room))
    return limits


def _wanted_sizes(sizes: Values, readers: list[FloatLayer]) -> Values:
    """Return the sizes ``[C]`` that lose least in the activations and, where those share a scale, in the weights.

    A depthwise convolution has a scale for each channel's weights: all channels may have the same size. In a row of a
    convolution's weights what one gains the other loses: the geometric mean of both is the middle.
    """
    shares = np.zeros(sizes.shape)
    for layer in readers:
        if isinstance(layer, FloatConvolution):
            terms = np.abs(layer.weight.astype(np.float64)).sum(axis=(1, 2)) * sizes
            rows = terms.sum(axis=1, keepdims=True)
            part = np.divide(terms, rows, out=np.zeros(terms.shape), where=rows > 0)
            shares = np.maximum(shares, part.max(axis=0))
    if not shares.any():
        shares[:] = 1
    return sizes.max() * np.sqrt(shares / shares.max())


def _powers_of_two(wanted: Values, sizes: Values, limits: Values) -> Values:
    """Return the factors ``[C]`` that bring sizes nearest to the wanted ones within their limits."""
    exact = np.ones(sizes.shape)
    np.divide(wanted, sizes, out=exact, where=(sizes > 0) & (wanted > 0))
    exact = 2.0 ** np.rint(np.log2(exact))
    free = limits > 0
    most = 2.0 ** np.floor(np.log2(np.where(free, limits, 1)))
    return np.where(free, np.minimum(exact, most), 1)


def _scaled(layer: FloatLayer, factors: Mapping[str, Values]) -> FloatLayer:
    """Return a layer with the factors of its output multiplied into it, those of its input divided out."""
    if not isinstance(layer, FloatConvolution | FloatDepthwiseConvolution):
        return layer
    own = factors.get(layer.name, np.ones(layer.output_shape[2]))
    read = factors.get(layer.source, np.ones(layer.input_shape[2]))
    if isinstance(layer, FloatConvolution):
        change = own[:, None, None, None] / read
    else:
        change = own / np.repeat(read, layer.multiplier)
    return replace(
        layer,
        weight=(layer.weight * change).astype(np.float32),
        bias=(layer.bias * own).astype(np.float32),
    )
