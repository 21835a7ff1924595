"""The ranges of tensors hold whatever comes in, and are no wider than they need be."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thumbnet.compile.network.integer_network import NETWORK_INPUT, Convolution, IntegerNetwork
from thumbnet.compile.network.reference import run_layer, run_reference_layers
from thumbnet.compile.passes import channel_ranges
from thumbnet.compile.passes.channel_ranges import fits_int32, tensor_ranges

from ..dead_networks import planted_networks, telling_images
from ..networks import INPUT_QUANT, layers, make_add, make_convolution, make_pool, networks, one_layer_network


def _outside(network):
    """Return the names of layers that leave their range on some image."""
    ranges = tensor_ranges(network)
    assert set(ranges) == {NETWORK_INPUT, *(layer.name for layer in network.layers)}
    outside = set()
    for image in telling_images(network):
        for name, values in run_reference_layers(network, image).items():
            found = ranges[name]
            assert found.low.shape == found.high.shape == values.shape
            if not ((found.low <= values) & (values <= found.high)).all():
                outside.add(name)
    return outside


@settings(max_examples=60)
@given(networks())
def test_nothing_leaves_its_range(network):
    assert _outside(network) == set()


@settings(max_examples=60)
@given(planted_networks())
def test_nothing_leaves_its_range_where_channels_are_dead(network):
    assert _outside(network) == set()


@settings(max_examples=60)
@given(layers(("conv", "depthwise", "pointwise")), st.data())
def test_both_ends_of_a_convolution_are_reached(layer, data):
    """At a random output pixel, by the image that has at each tap the end of int8 its weight's sign asks for."""
    found = tensor_ranges(one_layer_network(layer))[layer.name]
    at = tuple(data.draw(st.integers(0, extent - 1)) for extent in layer.output_shape)
    top, left, bottom, right = layer.padding
    height, width, channels = layer.input_shape
    seen = np.zeros((height + top + bottom, width + left + right, channels), int)
    weight = layer.weight[at[2]] if isinstance(layer, Convolution) else layer.weight * (np.arange(channels) == at[2])
    starts = (at[0] * layer.stride[0], at[1] * layer.stride[1])
    seen[starts[0] : starts[0] + layer.kernel[0], starts[1] : starts[1] + layer.kernel[1]] = weight
    inside = seen[top : top + height, left : left + width]
    for image, end in ((np.where(inside > 0, -128, 127), found.low), (np.where(inside > 0, 127, -128), found.high)):
        assert run_layer(layer, image.astype(np.int8))[at] == end[at]


@pytest.mark.parametrize("make", [make_add, make_pool])
def test_both_ends_of_sums_and_pools_are_reached(make):
    for seed in range(20):
        layer = make(np.random.default_rng(seed), (2, 3, 4))
        found = tensor_ranges(one_layer_network(layer))[layer.name]
        for end, expected in ((-128, found.low), (127, found.high)):
            image = np.full(layer.input_shape, end, np.int8)
            np.testing.assert_array_equal(run_layer(layer, *[image] * len(layer.sources)), expected)


def test_all_inputs_of_a_tiny_network():
    """One pixel of one channel: the ranges are the hull of the outputs of all 256 inputs."""
    layer = make_convolution(np.random.default_rng(1), (1, 1, 1), kernel=(3, 3), padding=(1, 1, 1, 1))
    network = one_layer_network(layer)
    values = [run_layer(layer, np.array([[[value]]], np.int8)).item() for value in range(-128, 128)]
    found = tensor_ranges(network)[layer.name]
    assert (found.low.item(), found.high.item()) == (min(values), max(values))
    assert min(values) < max(values)


def test_nothing_is_concluded_where_int32_may_overflow():
    layer = make_convolution(np.random.default_rng(2), (2, 2, 3), outputs=2, clamp=(-100, 90))
    assert fits_int32(layer)
    full = replace(layer, bias=np.array([2**31 - 1, 0], np.int32))
    shifted = replace(layer, requantization=replace(layer.requantization, left_shift=np.array([24, 24], np.int32)))
    for wide in (full, shifted):
        assert not fits_int32(wide)
        found = tensor_ranges(one_layer_network(wide))[layer.name]
        assert (found.low == -100).all() and (found.high == 90).all()


def test_sums_and_pools_may_overflow_too():
    add, pool = make_add(np.random.default_rng(0), (1, 1, 1)), make_pool(np.random.default_rng(0), (1, 1, 1))
    assert fits_int32(add) and fits_int32(pool)
    assert not fits_int32(replace(add, parameters=replace(add.parameters, constant=2**31 - 1)))
    assert not fits_int32(replace(pool, bias=2**31 - 1))


def test_a_range_that_forgets_the_padding_is_seen(monkeypatch):
    """Padding taken for the pixel beside it: what a range by channel, without its border, would be."""
    narrow = make_convolution(np.random.default_rng(4), (4, 4, 3), outputs=2, name="first", clamp=(100, 120))
    options = {"kernel": (3, 3), "padding": (1, 1, 1, 1), "source": "first"}
    wide = make_convolution(np.random.default_rng(3), (4, 4, 2), outputs=3, **options)
    wide = replace(wide, input_zero_point=-128, weight=-np.abs(wide.weight))
    network = IntegerNetwork((4, 4, 3), INPUT_QUANT, (narrow, wide))
    assert _outside(network) == set()
    right = channel_ranges.window_sums
    monkeypatch.setattr(
        channel_ranges, "window_sums", lambda layer, image, weight, _: right(layer, image, weight, image[0, 0, 0])
    )
    assert _outside(network) == {"conv"}
