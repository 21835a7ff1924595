"""Which channels of a network's tensors its output depends on, given what values they can take.

A convolution can do without an input channel if what the channel adds to the accumulators is known and the same at
every output pixel: it then goes into the bias. Everything else a channel may be read by (depthwise convolution,
pools, add) has the channels of its input and its output tied: they stay or go together. Around a depthwise convolution
that makes several channels of one all stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.network.integer_network import (
    NETWORK_INPUT,
    Convolution,
    DepthwiseConvolution,
    IntegerNetwork,
    Layer,
)
from thumbnet.compile.passes.channel_ranges import TensorRange, fits_int32, window_sums


@dataclass(frozen=True)
class Folding:
    """What a convolution's bias can take over from its input channels.

    Parameters
    ----------
    foldable : ndarray
        bool ``[out, in]``: the input channel adds the same known number to this output channel everywhere.
    amount : ndarray
        int64 ``[out, in]``: that number, 0 where there is none.
    """

    foldable: NDArray[np.bool_]
    amount: NDArray[np.int64]


def foldings(network: IntegerNetwork, ranges: Mapping[str, TensorRange]) -> dict[str, Folding]:
    """Return what each convolution (not the depthwise ones) can fold, by its name."""
    return {
        layer.name: fold_channels(layer, ranges[layer.source])
        for layer in network.layers
        if isinstance(layer, Convolution)
    }


def fold_channels(layer: Convolution, data: TensorRange) -> Folding:
    """Find what a convolution's input channels add to its accumulators, as far as that is one known number.

    A channel's value may differ from the padding's, so that a window at the border sees another sum than one inside:
    such a channel isn't foldable, unless the weights at the border make up for it.
    """
    outputs, _, _, inputs = layer.weight.shape
    if not fits_int32(layer):
        return Folding(np.zeros((outputs, inputs), np.bool_), np.zeros((outputs, inputs), np.int64))
    weight = layer.weight.astype(np.int64)
    # No matter what is multiplied by 0.
    foldable = (weight == 0).all(axis=(1, 2))
    amount = np.zeros((outputs, inputs), np.int64)
    values = data.low[0, 0].astype(np.int64)
    plain = data.constant & ((values == layer.input_zero_point) | (not any(layer.padding)))
    foldable |= plain
    amount[:, plain] = (weight.sum(axis=(1, 2)) * values)[:, plain]
    for channel in np.flatnonzero(data.known & ~plain):
        only = slice(channel, channel + 1)
        sums = window_sums(layer, data.low[..., only], weight[..., only], layer.input_zero_point)
        same = (sums == sums[0, 0]).all(axis=(0, 1))
        foldable[:, channel] |= same
        amount[same, channel] = sums[0, 0, same].astype(np.int64)
    return Folding(foldable, amount)


def needed_channels(
    network: IntegerNetwork, folding: Mapping[str, Folding], multiple: int = 1
) -> dict[str, NDArray[np.bool_]]:
    """Return bool ``[C]`` for the network's input and every layer's output, by name: channels that have to stay.

    Found by following needs back from the output. The network's input and output are needed whole. A tensor of which
    nothing is needed keeps its first channel that survives this way: a layer without channels is no layer. Of others,
    dead channels are kept until a multiple of `multiple` stays, for code that computes so many at a time.
    """
    leader = _tie_tensors(network)
    needed = {name: np.zeros(network.shape_of(name)[2], np.bool_) for name in set(leader.values())}
    needed[leader[NETWORK_INPUT]][:] = True
    needed[leader[network.output.name]][:] = True
    for layer in network.layers:
        if _multiplies(layer):
            for name in (layer.name, *layer.sources):
                needed[leader[name]][:] = True
    _follow_needs(network, folding, leader, needed)
    for layer in reversed(network.layers):
        own = needed[leader[layer.name]]
        if not own.any():
            own[0] = True
            _follow_needs(network, folding, leader, needed)
    # Keeping one may need another of a tensor that was whole multiples before.
    while uneven := [own for own in needed.values() if own.sum() % multiple and not own.all()]:
        own = uneven[0]
        own[np.flatnonzero(~own)[: multiple - own.sum() % multiple]] = True
        _follow_needs(network, folding, leader, needed)
    return {name: needed[first] for name, first in leader.items()}


def _multiplies(layer: Layer) -> bool:
    return isinstance(layer, DepthwiseConvolution) and layer.multiplier > 1


def _tie_tensors(network: IntegerNetwork) -> dict[str, str]:
    """Return for each tensor the first one it shares its channels with."""
    leader = {NETWORK_INPUT: NETWORK_INPUT}
    for layer in network.layers:
        leader[layer.name] = layer.name
        if isinstance(layer, Convolution) or _multiplies(layer):
            continue
        tied = {leader[source] for source in layer.sources} | {layer.name}
        first = next(name for name in leader if name in tied)
        leader.update({name: first for name, old in leader.items() if old in tied})
    return leader


def _follow_needs(
    network: IntegerNetwork,
    folding: Mapping[str, Folding],
    leader: Mapping[str, str],
    needed: dict[str, NDArray[np.bool_]],
) -> None:
    """Mark what the needed channels are made from. Ties lead forward too, so once through the layers isn't enough."""
    changed = True
    while changed:
        changed = False
        for layer in reversed(network.layers):
            if not isinstance(layer, Convolution):
                continue
            read = ~folding[layer.name].foldable[needed[leader[layer.name]]].all(axis=0)
            source = needed[leader[layer.source]]
            changed |= bool((read & ~source).any())
            source |= read
