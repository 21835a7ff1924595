"""Cross-layer equalization of channels before quantization.

After Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction": a channel may be
multiplied by a positive factor where a layer makes it and divided by it where layers read it, and the network computes
the same. The factors here are powers of two, so that it computes the very same float32 bits (where nothing under- or
overflows).

Nagel et al. had one scale for all weights of a layer. Here each output channel's weights have their own, so that a
channel's size is lost elsewhere: in the scale of the activations it shares with other channels, and in the weights of
the convolution that adds it to them. What calibration images show says how large each channel is and how large a share
of anything it makes; the share does not depend on how channels were scaled before, so that rescaled networks come back
to one form.

What a factor may pass, besides the convolutions it ends in:

- sums and pools, which give their inputs and their output one factor a channel;
- no clamp, ReLU, and any clamp at zero or infinity: these keep to positive factors;
- a clamp elsewhere (ReLU6), which is one number for all channels of a layer and not scaled with them: only channels
  that calibration shows far from it are made larger, and only so far that they stay below. That is the one
  assumption: no image takes such a channel to more than `HEADROOM` times what calibration showed, or beyond what it
  showed on the other side of zero. Channels nearer to the clamp keep their size.
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

#: What a channel below a clamp may reach on an image, over what it reached in calibration.
HEADROOM = 2.0
#: A channel that an activation cuts off nearly always counts as this part of what it is before: elsewhere it may show.
HIDDEN_PART = 1 / 8
#: Of the largest share in a tensor: less is beyond int8.
SMALLEST_SHARE = 2.0**-16
#: Of a channel before a clamp.
LARGEST_FACTOR = 2.0**32


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
    groups = tied_tensors(network)
    sizes: dict[str, Values] = {}
    for group in groups:
        of_group = [_sizes(layer, extents[layer.name]) for layer in network.layers if layer.name in group]
        sizes.update(dict.fromkeys(group, np.max(of_group, axis=0)) if of_group else {})
    shares = _shares(network, sizes, extents)
    factors: dict[str, Values] = {}
    scaled = held = 0
    for group in groups:
        makers = [layer for layer in network.layers if layer.name in group]
        if NETWORK_INPUT in group or network.output.name in group or not all(map(_spans_zero, makers)):
            continue
        limits = np.min([_limits(layer, extents[layer.name]) for layer in makers], axis=0)
        share = np.max([shares[layer.name] for layer in makers], axis=0)
        factor = _factors(sizes[makers[0].name], share, limits)
        factors.update(dict.fromkeys(group, factor))
        scaled += int((factor != 1).sum())
        held += int((limits < 1).sum())
    layers = tuple(scale_channels(layer, factors) for layer in network.layers)
    return EqualizedNetwork(replace(network, layers=layers), scaled, held)


def tied_tensors(network: FloatNetwork) -> list[set[str]]:
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
    """Return the largest factor ``[C]`` that surely keeps a channel from the layer's clamp; below 1 there is none."""
    limits = np.full(extent.highest.shape, np.inf)
    both_sides = np.maximum(extent.highest, -extent.lowest)
    for bound, reached in ((layer.maximum, extent.highest), (-layer.minimum, -extent.lowest)):
        if 0 < bound < np.inf:
            reach = np.maximum(HEADROOM * reached, both_sides)
            limits = np.minimum(limits, np.divide(bound, reach, out=np.ones(reach.shape), where=reach > 0))
    return limits


def _shares(
    network: FloatNetwork, sizes: Mapping[str, Values], extents: Mapping[str, ChannelExtents]
) -> dict[str, Values]:
    """Return for each layer's channels ``[C]`` the largest share they have in what any channel behind them is made of.

    Through a depthwise convolution, a sum or a pool it is the share of the channel that comes out.
    """
    shares = {network.output.name: np.ones(network.output.output_shape[2])}
    for layer in reversed(network.layers):
        for source in layer.sources:
            if source == NETWORK_INPUT:
                continue
            match layer:
                case FloatConvolution():
                    terms = np.abs(layer.weight.astype(np.float64)).sum(axis=(1, 2)) * sizes[source]
                    share = _divide(terms, terms.sum(axis=1, keepdims=True)).max(axis=0)
                case FloatDepthwiseConvolution():
                    terms = np.abs(layer.weight.astype(np.float64)).sum(axis=(0, 1))
                    terms *= np.repeat(sizes[source], layer.multiplier)
                    extent = extents[layer.name]
                    part = np.minimum(1, _divide(terms, np.maximum(extent.highest, -extent.lowest)))
                    share = (part * shares[layer.name]).reshape(-1, layer.multiplier).max(axis=1)
                case _:
                    share = shares[layer.name]
            shares[source] = np.maximum(shares.get(source, 0.0), share)
    return shares


def _divide(values: Values, by: Values) -> Values:
    """Return a quotient, zero where it is divided by zero."""
    return np.divide(values, by, out=np.zeros(values.shape), where=by > 0)


def _factors(sizes: Values, shares: Values, limits: Values) -> Values:
    """Return the powers of two ``[C]`` that lose least to int8, within their limits.

    Sizes in the proportion of shares lose as much in each channel's activations; equal sizes lose least in weights that
    have one scale with those of other channels: the geometric mean is the middle. Before a clamp channels are only
    enlarged, and no further than their share asks for: what hardly ever shows in calibration may be large elsewhere.
    """
    if not sizes.any():
        return np.ones(sizes.shape)
    clamped = bool(np.isfinite(limits).any())
    relative = np.maximum(_divide(shares, shares.max(keepdims=True)), SMALLEST_SHARE)
    wanted = sizes.max() * relative ** (1.0 if clamped else 0.5)
    # What never shows still has weights in the rows of others: they are made small.
    exact = np.full(sizes.shape, 1 / SMALLEST_SHARE)
    np.divide(wanted, sizes, out=exact, where=sizes > 0)
    factors = 2.0 ** np.rint(np.log2(exact))
    if not clamped:
        return factors
    most = 2.0 ** np.floor(np.log2(np.clip(limits, 1, LARGEST_FACTOR)))
    return np.clip(factors, 1, most)


def scale_channels(layer: FloatLayer, factors: Mapping[str, Values]) -> FloatLayer:
    """Return a layer with the factors ``[C]`` of its output multiplied into it, those of its input divided out."""
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
