"""Remove the channels that a quantized network's output doesn't depend on, whatever the input.

Networks trained for a small task have many channels that are constant: a bias so low that the activation always clamps.
`channel_ranges` proves it, `needed_channels` finds what the output can do without, and here what constants add goes
into the biases and the channels go. The output keeps its bytes for every int8 input, borders included; so does every
channel that stays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray

from thumbnet.compile.network.fixed_point import Requantization
from thumbnet.compile.network.integer_network import (
    Add,
    AveragePool,
    Convolution,
    DepthwiseConvolution,
    IntegerNetwork,
    Layer,
    MaxPool,
    Shape,
)
from thumbnet.compile.network.integer_relax import read_relax, write_relax
from thumbnet.compile.passes.channel_ranges import TensorRange, accumulator_range, fits_int32, tensor_ranges
from thumbnet.compile.passes.dead_channel_report import DeadChannelReport, LayerReport, Size
from thumbnet.compile.passes.needed_channels import Folding, foldings, needed_channels

#: Module attribute: what was removed, as `DeadChannelReport.as_json` gives it, in JSON.
DEAD_CHANNELS = "thumbnet.dead_channels"
#: Multipliers stay below this, see `Requantization`.
MULTIPLIER_LIMIT = 2**30

#: Of each channel, whether it stays.
Mask = NDArray[np.bool_]


@tvm.transform.module_pass(opt_level=0, name="RemoveDeadChannels")
class RemoveDeadChannels:
    """Replace an integer module by the one without its dead channels; the output's bytes stay.

    Parameters
    ----------
    multiple : int
        Channels are left in whole multiples of it where there are as many.
    """

    def __init__(self, multiple: int = 1) -> None:
        self.multiple = multiple

    def transform_module(self, module: tvm.IRModule, _: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the whole module."""
        network, report = remove_dead_channels(read_relax(module), self.multiple)
        return write_relax(network).with_attr(DEAD_CHANNELS, json.dumps(report.as_json()))


def read_dead_channels(module: tvm.IRModule) -> dict[str, Any] | None:
    """Return what `RemoveDeadChannels` took from an integer module, None where it was left as it is."""
    if module.attrs is None or DEAD_CHANNELS not in module.attrs:
        return None
    removed: dict[str, Any] = json.loads(str(module.attrs[DEAD_CHANNELS]))
    return removed


def remove_dead_channels(network: IntegerNetwork, multiple: int = 1) -> tuple[IntegerNetwork, DeadChannelReport]:
    """Return the same network without the channels proven to be dead, and what that saved.

    The network's input and output keep their channels, every layer stays, and has at least one channel: also of a
    network whose output is constant. `multiple` as in `needed_channels`.
    """
    ranges = tensor_ranges(network)
    detached = replace(network, layers=tuple(_detach_constants(layer, ranges) for layer in network.layers))
    folding = foldings(detached, ranges)
    needed = needed_channels(detached, folding, multiple)
    shrunk = replace(network, layers=tuple(_shrink(layer, needed, folding) for layer in detached.layers))
    report = tuple(
        LayerReport(
            name=old.name,
            constant=int(ranges[old.name].constant.sum()),
            kept=tuple(int(channel) for channel in np.flatnonzero(needed[old.name])),
            before=Size.of(old),
            after=Size.of(new),
        )
        for old, new in zip(network.layers, shrunk.layers, strict=True)
    )
    return shrunk, DeadChannelReport(report)


def _detach_constants(layer: Layer, ranges: Mapping[str, TensorRange]) -> Layer:
    """Let a convolution's constant output channels read nothing: weights of 0, and a bias that gives the constant.

    They may have to stay, tied to others by a sum; what they were made of then doesn't.
    """
    constant = ranges[layer.name].constant
    if not isinstance(layer, Convolution) or not constant.any() or not fits_int32(layer):
        return layer
    weight, bias = layer.weight.copy(), layer.bias.copy()
    weight[constant] = 0
    # Both ends of every pixel's accumulators requantize to the constant.
    least, _ = accumulator_range(layer, ranges[layer.source])
    bias[constant] = least[0, 0, constant]
    return replace(layer, weight=weight, bias=bias)


def _shrink(layer: Layer, needed: Mapping[str, Mask], folding: Mapping[str, Folding]) -> Layer:
    output = needed[layer.name]
    output_shape = _shape(layer.output_shape, output)
    if isinstance(layer, Add):
        return replace(layer, output_shape=output_shape)
    data = needed[layer.source]
    input_shape = _shape(layer.input_shape, data)
    if isinstance(layer, MaxPool):
        return replace(layer, input_shape=input_shape, output_shape=output_shape)
    requantization = _choose(layer.requantization, output)
    match layer:
        case AveragePool():
            return replace(layer, input_shape=input_shape, output_shape=output_shape, requantization=requantization)
        case DepthwiseConvolution():
            weight, bias = layer.weight[..., output], layer.bias[output]
        case Convolution():
            weight = layer.weight[output][..., data]
            bias = _folded_bias(layer, folding[layer.name], ~data)[output]
    return replace(
        layer,
        input_shape=input_shape,
        output_shape=output_shape,
        weight=np.ascontiguousarray(weight),
        bias=bias,
        requantization=requantization,
    )


def _folded_bias(layer: Convolution, folding: Folding, dropped: Mask) -> NDArray[np.int32]:
    """Add to the bias what the dropped input channels add to every accumulator.

    It fits int32 wherever the accumulators do, being one that an input of zeros in the other channels would give; and
    `fold_channels` folds nothing where they might not.
    """
    bias: NDArray[np.int64] = layer.bias + folding.amount[:, dropped].sum(axis=1)
    return bias.astype(np.int32)


def _choose(requantization: Requantization, channels: Mask) -> Requantization:
    """Take some channels' parameters; a left shift that only the others needed goes.

    ``(acc << shift) * multiplier`` is ``acc * (multiplier << shift)``, where the multiplier has room for it.
    """
    multiplier, left_shift = requantization.multiplier[channels], requantization.left_shift[channels]
    while left_shift.min() > 0 and multiplier.max() < MULTIPLIER_LIMIT // 2:
        multiplier, left_shift = multiplier * np.int32(2), left_shift - np.int32(1)
    return replace(requantization, multiplier=multiplier, left_shift=left_shift)


def _shape(shape: Shape, channels: Mask) -> Shape:
    return shape[0], shape[1], int(channels.sum())
