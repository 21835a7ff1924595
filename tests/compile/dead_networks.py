"""Small networks with dead channels planted in them, and the inputs on which an unsound removal would show."""

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from thumbnet.compile.network.integer_network import NETWORK_INPUT, DepthwiseConvolution, IntegerNetwork

from .networks import INPUT_QUANT, make_add, make_convolution, make_image, make_pool, same_padding

CHANNELS = 5


def telling_images(network):
    """Random bytes, and the extremes: constant, checkerboards of pixels and of channels, borders unlike the inside."""
    shape = network.input_shape
    row, column, channel = np.indices(shape)
    edge = (row == 0) | (column == 0) | (row == shape[0] - 1) | (column == shape[1] - 1)
    masks = [np.zeros(shape, bool), (row + column) % 2 == 0, (row + column + channel) % 2 == 0, channel % 2 == 0, edge]
    ends = [np.where(mask, *pair).astype(np.int8) for mask in masks for pair in ((-128, 127), (127, -128))]
    noisy_edge = np.where(edge, make_image(network, 7), -128).astype(np.int8)
    return [*(make_image(network, seed) for seed in range(4)), *ends, noisy_edge]


def channel_axis(layer):
    return layer.weight.ndim - 1 if isinstance(layer, DepthwiseConvolution) else 0


def edit_weight(layer, where, value):
    weight = layer.weight.copy()
    weight[where] = value
    return replace(layer, weight=weight)


def clamp_channels(layer, channels):
    """Give output channels a bias so low that they always end at the clamp's minimum."""
    axes = tuple(axis for axis in range(layer.weight.ndim) if axis != channel_axis(layer))
    reach = np.abs(layer.weight.astype(np.int64)).sum(axis=axes) * 128
    # Down to output -256, at scales no larger than make_convolution's.
    steps = 512 * 2.0**31 / (layer.requantization.multiplier.astype(np.float64) + 1)
    bias = layer.bias.copy()
    bias[channels] = -(reach + steps)[channels].astype(np.int32)
    return replace(layer, bias=bias)


def fix_channels(layer, channels, value=None):
    """Make output channels constant by weights of 0: at a value of the bias's, or at `value`."""
    layer = edit_weight(layer, (channels,) if channel_axis(layer) == 0 else (..., channels), 0)
    if value is None:
        return layer
    r = layer.requantization
    bias, multiplier = layer.bias.copy(), r.multiplier.copy()
    # At a scale of a quarter.
    bias[channels], multiplier[channels] = 4 * (value - r.zero_point), 2**29
    return replace(layer, bias=bias, requantization=replace(r, multiplier=multiplier))


class Builder:
    """A network, layer by layer; by default every layer reads the one before."""

    def __init__(self, shape, seed=0):
        self.rng = np.random.default_rng(seed)
        self.shape, self.layers = shape, []
        self.source, self.now, self.padding_value = NETWORK_INPUT, shape, INPUT_QUANT.zero_point

    def convolve(self, outputs=None, *, size=1, stride=1, pads=True, edit=lambda layer: layer, **options):
        """Add a convolution over all channels, or a depthwise one where `outputs` is None."""
        kernel, steps = (size, size), (stride, stride)
        padding = same_padding(self.now, kernel, steps) if pads else (0, 0, 0, 0)
        layer = make_convolution(
            self.rng,
            self.now,
            outputs=outputs,
            kernel=kernel,
            stride=steps,
            padding=padding,
            name=f"layer.{len(self.layers)}",
            source=self.source,
            **options,
        )
        layer = replace(layer, input_zero_point=self.padding_value)
        return self._append(edit(layer), layer.requantization.minimum)

    def add(self, other):
        """Add the sum of the last tensor and another."""
        layer = make_add(self.rng, self.now, name=f"layer.{len(self.layers)}", sources=(other, self.source))
        return self._append(layer, -128)

    def finish(self, classes=3):
        """Pool, classify, and return the network."""
        self._append(make_pool(self.rng, self.now, name="pool", source=self.source), -128)
        self.convolve(classes)
        return IntegerNetwork(self.shape, INPUT_QUANT, tuple(self.layers))

    def _append(self, layer, padding_value):
        self.layers.append(layer)
        self.source, self.now, self.padding_value = layer.name, layer.output_shape, padding_value
        return layer.name


@st.composite
def planted_networks(draw):
    """Blocks of V1, V2 (residual or not) and of full 3x3 convolutions, in whose layers channels are dead.

    Some are clamped (to the padding's value, or not), some constant by weights of 0, some unread, some read by the
    kernel's middle only, so that a border makes no difference.
    """
    side = st.integers(1, 6)
    builder = Builder((draw(side), draw(side), draw(st.sampled_from([1, 3]))), draw(st.integers(0, 2**32 - 1)))
    rng = builder.rng

    def plant(layer):
        if not draw(st.booleans()):
            return layer
        some = rng.random(layer.bias.size) < draw(st.sampled_from([0.3, 0.7, 1.0]))
        how = draw(st.sampled_from(["clamped", "constant", "both", "unread", "middle"]))
        if how in ("clamped", "both"):
            layer = clamp_channels(layer, some)
        if how in ("constant", "both"):
            layer = fix_channels(layer, ~some if how == "both" else some)
        if how in ("unread", "middle") and not isinstance(layer, DepthwiseConvolution):
            read = rng.random(layer.input_shape[2]) < 0.5
            height, width = layer.kernel
            inside = np.zeros((height, width), bool)
            inside[height // 2, width // 2] = how == "middle"
            layer = replace(layer, weight=layer.weight * (read | inside[None, ..., None]).astype(np.int8))
        return layer

    def convolve(*arguments, **options):
        builder.padding_value = draw(st.sampled_from([builder.padding_value, builder.padding_value, 17]))
        clamp = draw(st.sampled_from([(-128, 127), (-128, 60), (-9, 90)]))
        return builder.convolve(*arguments, edit=plant, clamp=clamp, **options)

    convolve(CHANNELS, size=3, stride=draw(st.sampled_from([1, 2])))
    for _ in range(draw(st.integers(1, 3))):
        start = builder.source
        match draw(st.sampled_from(["separable", "bottleneck", "residual", "full", "full residual"])):
            case "separable":
                convolve(size=3, stride=draw(st.sampled_from([1, 2])))
                convolve(CHANNELS)
            case "full":
                pads = draw(st.booleans()) or min(builder.now[:2]) < 3
                convolve(CHANNELS, size=3, stride=draw(st.sampled_from([1, 2])), pads=pads)
            case "full residual":
                convolve(CHANNELS, size=3)
                builder.add(start)
            case "bottleneck" | "residual" as kind:
                convolve(2 * CHANNELS)
                convolve(size=3)
                convolve(CHANNELS)
                if kind == "residual":
                    builder.add(start)
    return builder.finish()
