"""The reference against plain loops over Python's integers."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from thumbnet.compile.network.integer_network import Add, AveragePool, DepthwiseConvolution, MaxPool, accumulator_bound
from thumbnet.compile.network.reference import run_layer, run_reference, run_reference_layers

from ..networks import layers, make_convolution, make_image, one_layer_network, one_of_each_kind


def _clamped(value, minimum, maximum):
    return min(max(value, minimum), maximum)


def _requantized(acc, requantization, channel):
    product = (acc << int(requantization.left_shift[channel])) * int(requantization.multiplier[channel])
    high = (2 * product + 2**31) >> 32
    return _clamped(high + requantization.zero_point, requantization.minimum, requantization.maximum)


def _accumulate(layer, image, y, x, n):
    """Sum over a window, one multiplication at a time."""
    height, width, channels = layer.input_shape
    acc = int(layer.bias[n])
    depthwise = isinstance(layer, DepthwiseConvolution)
    for row in range(layer.kernel[0]):
        for column in range(layer.kernel[1]):
            at = y * layer.stride[0] + row - layer.padding[0], x * layer.stride[1] + column - layer.padding[1]
            inside = 0 <= at[0] < height and 0 <= at[1] < width
            for c in [n // layer.multiplier] if depthwise else range(channels):
                value = int(image[at[0], at[1], c]) if inside else layer.input_zero_point
                weight = layer.weight[row, column, n] if depthwise else layer.weight[n, row, column, c]
                acc += value * int(weight)
    return acc


def _seen(layer, image, y, x):
    height, width = image.shape
    first = y * layer.stride[0] - layer.padding[0], x * layer.stride[1] - layer.padding[1]
    for row in range(max(first[0], 0), min(first[0] + layer.kernel[0], height)):
        for column in range(max(first[1], 0), min(first[1] + layer.kernel[1], width)):
            yield int(image[row, column])


def _run_plainly(layer, image):
    outputs = np.zeros(layer.output_shape, np.int64)
    for y, x, n in np.ndindex(layer.output_shape):
        if isinstance(layer, Add):
            p = layer.parameters
            total = int(image[y, x, n]) * p.multiplier_a + int(image[y, x, n]) * p.multiplier_b + p.constant
            outputs[y, x, n] = _clamped(total >> p.shift, p.minimum, p.maximum)
            continue
        if isinstance(layer, MaxPool):
            outputs[y, x, n] = max(_seen(layer, image[..., n], y, x))
            continue
        if isinstance(layer, AveragePool):
            acc = layer.bias + sum(int(value) for value in image[..., n].ravel())
        else:
            acc = _accumulate(layer, image, y, x, n)
            assert abs(acc) <= accumulator_bound(layer)[n]
        outputs[y, x, n] = _requantized(acc, layer.requantization, n)
    return outputs


@settings(max_examples=150)
@given(layers())
def test_layers_equal_plain_loops(layer):
    image = make_image(one_layer_network(layer))
    inputs = (image, image) if isinstance(layer, Add) else (image,)
    found = run_layer(layer, *inputs)
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, _run_plainly(layer, image))


def test_an_add_takes_its_inputs_in_order():
    network = one_of_each_kind()
    add = next(layer for layer in network.layers if isinstance(layer, Add))
    outputs = run_reference_layers(network, make_image(network))
    a, b = (outputs[source].astype(int) for source in add.sources)
    p = add.parameters
    expected = np.clip((a * p.multiplier_a + b * p.multiplier_b + p.constant) >> p.shift, p.minimum, p.maximum)
    np.testing.assert_array_equal(outputs[add.name], expected)


def test_a_network_is_its_layers_one_after_another():
    network = one_of_each_kind()
    image = make_image(network)
    outputs = run_reference_layers(network, image)
    assert list(outputs) == [layer.name for layer in network.layers]
    np.testing.assert_array_equal(run_reference(network, image), outputs["classifier"].reshape(-1))
    assert len({run_reference(network, make_image(network, seed)).tobytes() for seed in range(4)}) == 4


def test_the_largest_sums_are_exact():
    """A long row of equal signs: where a float32 sum, or one in int16, would be off."""
    layer = make_convolution(np.random.default_rng(0), (1, 1, 1280), outputs=2)
    weight = np.full_like(layer.weight, 127)
    weight[1] = -127
    requantization = replace(layer.requantization, multiplier=np.array([2**10, 2**10], np.int32))
    layer = replace(layer, weight=weight, bias=np.array([3, -3], np.int32), requantization=requantization)
    image = np.full((1, 1, 1280), -128, np.int8)
    np.testing.assert_array_equal(run_layer(layer, image), _run_plainly(layer, image))


@pytest.mark.parametrize(
    "image", [np.zeros((12, 12, 3), np.uint8), np.zeros((3, 12, 12), np.int8), np.zeros((1, 12, 12, 3), np.int8)]
)
def test_an_image_of_another_shape_or_dtype_is_refused(image):
    with pytest.raises(ValueError, match="the network takes int8"):
        run_reference(one_of_each_kind(), image)
