"""Cross-layer equalization: the float function stays to the bit, and rescaled channels come back."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from thumbnet.compile.frontend.float_module import FloatModule
from thumbnet.compile.frontend.read_torch_network import read_torch_network
from thumbnet.compile.network.float_network import FloatMaxPool
from thumbnet.compile.post_training.equalize import HEADROOM, equalize, scale_channels, tied_tensors
from thumbnet.compile.post_training.layer_values import observe_channels

from ..float_networks import float_network
from ..networks import networks, one_of_each_kind
from ..torch_modules import Head, Residual, calibrated, conv_unit

SHAPE = (3, 12, 12)


class Tower(nn.Module):
    """Separable blocks around a residual one whose input has two more readers, with a max pool between."""

    def __init__(self, activation):
        super().__init__()
        self.first = conv_unit(3, 8, activation=activation)
        self.pool = nn.MaxPool2d(2)
        self.block = Residual(
            nn.Sequential(
                conv_unit(8, 16, 1, activation=activation),
                conv_unit(16, 16, groups=16, activation=activation),
                conv_unit(16, 8, 1, activation=None),
            )
        )
        self.last = conv_unit(8, 12, 1, activation=activation)
        self.head = Head(12)

    def forward(self, x):
        return self.head(self.last(self.block(self.pool(self.first(x)))))


def made(activation=nn.ReLU, seed=0):
    module, images = calibrated(Tower(activation), SHAPE, seed)
    return read_torch_network(module, SHAPE)[0], images


def rescaled(network, extents, seed=0):
    """Scale channels by up to a thousand, before a clamp only down and only what doesn't reach it."""
    random, factors = np.random.default_rng(seed), {}
    for group in tied_tensors(network):
        makers = [layer for layer in network.layers if layer.name in group]
        if "input" in group or network.output.name in group:
            continue
        factor = 1000 ** random.uniform(-1, 1, makers[0].output_shape[2])
        for layer in makers:
            if np.isfinite(layer.maximum):
                factor = np.where(extents[layer.name].highest < layer.maximum, np.minimum(factor, 1 / factor), 1)
        factors.update(dict.fromkeys(group, factor))
    return replace(network, layers=tuple(scale_channels(layer, factors) for layer in network.layers))


def outputs(network, images):
    module = FloatModule(network)
    with torch.no_grad():
        return torch.cat([module(image) for image in images])


def spread(network, images):
    """Return the largest channel of each layer that a convolution reads over its smallest that shows at all."""
    extents = observe_channels(network, images)
    found = {}
    for layer in network.layers[:-1]:
        high = np.clip(extents[layer.name].highest, 0, layer.maximum)
        found[layer.name] = high.max() / high[high > 0].min()
    return found


@given(network=networks(longest=6), seed=st.integers(0, 20))
@settings(max_examples=40)
def test_random_networks_keep_every_bit(network, seed):
    assume(not any(isinstance(layer, FloatMaxPool) for layer in network.layers))
    network = float_network(network, seed)
    height, width, channels = network.input_shape
    images = list(torch.randn(4, channels, height, width, generator=torch.Generator().manual_seed(seed)).split(1))
    result = equalize(network, observe_channels(network, images))
    assert torch.equal(outputs(result.network, images), outputs(network, images))


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, None])
def test_other_images_keep_every_bit(activation):
    network, images = made(activation)
    network = rescaled(network, observe_channels(network, images))
    result = equalize(network, observe_channels(network, images))
    others = list(torch.randn(16, *SHAPE, generator=torch.Generator().manual_seed(5)).split(1))
    assert result.scaled > 20
    assert torch.equal(outputs(result.network, others), outputs(network, others))


def test_rescaled_channels_come_back():
    network, images = made()
    wild = rescaled(network, observe_channels(network, images))
    result = equalize(wild, observe_channels(wild, images)).network
    before, plain, after = (spread(each, images) for each in (network, wild, result))
    assert sum(plain[name] > 20 * before[name] for name in before) > len(before) / 2
    for name, value in after.items():
        assert value < 4 * before[name], name


def test_two_scalings_of_one_network_come_to_one_form():
    network, images = made()
    forms = [
        equalize(wild, observe_channels(wild, images)).network
        for wild in (rescaled(network, observe_channels(network, images), seed) for seed in (1, 2))
    ]
    for one, other in zip(*(form.layers[:-1] for form in forms), strict=True):
        sizes = [observe_channels(form, images)[one.name].highest for form in forms]
        shown = (sizes[0] > 0) & (sizes[1] > 0)
        # Each channel to the nearest power of two, all of a tensor by one factor more.
        ratio = sizes[0][shown] / sizes[1][shown]
        assert ratio.max() / ratio.min() < 4.1, other.name


def test_a_channel_near_its_clamp_keeps_its_size():
    network, images = made(nn.ReLU6)
    extents = observe_channels(network, images)
    result = equalize(network, extents)
    changed = 0
    for layer, after in zip(network.layers, result.network.layers, strict=True):
        if layer.maximum != 6:
            continue
        near = extents[layer.name].highest * HEADROOM > 6
        assert np.array_equal(after.bias[near], layer.bias[near])
        changed += int((after.bias != layer.bias).sum())
        reached = observe_channels(result.network, images)[layer.name].highest
        assert np.all(reached[~near] * HEADROOM <= 6 + 1e-6)
    assert result.held > 0


def test_scaling_a_saturating_channel_would_be_seen():
    network, images = made(nn.ReLU6)
    extents = observe_channels(network, images)
    name = next(layer.name for layer in network.layers if layer.maximum == 6 < extents[layer.name].highest.max())
    [group] = [group for group in tied_tensors(network) if name in group]
    factors = dict.fromkeys(group, np.full(extents[name].highest.shape, 0.25))
    wrong = replace(network, layers=tuple(scale_channels(layer, factors) for layer in network.layers))
    assert not torch.allclose(outputs(wrong, images), outputs(network, images))


def test_a_sum_with_the_image_is_left_alone():
    class Summed(nn.Module):
        def __init__(self):
            super().__init__()
            self.unit, self.head = conv_unit(3, 3, activation=None), Head(3)

        def forward(self, x):
            return self.head(x + self.unit(x))

    module, images = calibrated(Summed(), SHAPE)
    network, _ = read_torch_network(module, SHAPE)
    result = equalize(network, observe_channels(network, images))
    # The pool and the classifier's input are one with the image's channels too.
    assert result.scaled == 0
    assert torch.equal(outputs(result.network, images), outputs(network, images))


def test_a_channel_that_never_shows_spoils_no_weights():
    network, images = made()
    index = next(i for i, layer in enumerate(network.layers) if layer.name.startswith("last"))
    last, classifier = network.layers[index], network.layers[-1]
    weight, bias, reader = last.weight.copy(), last.bias.copy(), classifier.weight.copy()
    weight[3], bias[3], reader[..., 3] = 0, 0, 1000
    layers = list(network.layers)
    layers[index], layers[-1] = replace(last, weight=weight, bias=bias), replace(classifier, weight=reader)
    network = replace(network, layers=tuple(layers))
    after = equalize(network, observe_channels(network, images)).network.layers[-1].weight
    before = np.abs(reader[..., 3]).max() / np.abs(np.delete(reader, 3, -1)).max()
    assert np.abs(after[..., 3]).max() / np.abs(np.delete(after, 3, -1)).max() < before / 2


def test_one_of_each_kind():
    network = float_network(one_of_each_kind())
    height, width, channels = network.input_shape
    images = list(torch.randn(4, channels, height, width, generator=torch.Generator().manual_seed(1)).split(1))
    result = equalize(network, observe_channels(network, images))
    assert torch.equal(outputs(result.network, images), outputs(network, images))
