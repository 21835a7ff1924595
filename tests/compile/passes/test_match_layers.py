"""From PyTorch's quantize / dequantize pairs to integer layers that compute the same."""

import numpy as np
import pytest
import torch
from torch import nn

from thumbnet.compile.errors import QuantizationError, UnsupportedOperatorError
from thumbnet.compile.frontend.torch_to_relax import import_quantized, quantize_module
from thumbnet.compile.network.integer_network import NETWORK_INPUT, Convolution, DepthwiseConvolution
from thumbnet.compile.network.integer_relax import read_relax
from thumbnet.compile.network.reference import run_reference
from thumbnet.compile.passes.match_layers import SMALLEST_SCALE
from thumbnet.compile.passes.pipeline import lower_to_integer
from thumbnet.compile.quantize_request import quantize_input

from ..torch_modules import Head, Residual, calibrated, conv_unit, lowered, quantized

SHAPE = (3, 8, 8)


def _each_kind():
    return {
        "conv_relu6": nn.Sequential(conv_unit(3, 6), Head(6)),
        "conv_relu": nn.Sequential(conv_unit(3, 6, activation=nn.ReLU), Head(6)),
        "conv_without_activation": nn.Sequential(conv_unit(3, 6, activation=None), Head(6)),
        "conv_clipped": nn.Sequential(conv_unit(3, 6, activation=lambda: nn.Hardtanh(-0.5, 0.75)), Head(6)),
        "conv_same_stride2": nn.Sequential(conv_unit(3, 6, stride=2, same=True), Head(6)),
        "conv_symmetric_stride2": nn.Sequential(conv_unit(3, 6, stride=2), Head(6)),
        "conv_5x5": nn.Sequential(conv_unit(3, 4, kernel=5), Head(4)),
        "depthwise": nn.Sequential(conv_unit(3, 3, groups=3), Head(3)),
        "depthwise_same_stride2": nn.Sequential(conv_unit(3, 3, stride=2, groups=3, same=True), Head(3)),
        "pointwise": nn.Sequential(conv_unit(3, 7, kernel=1), Head(7)),
        "residual": nn.Sequential(conv_unit(3, 4), Residual(conv_unit(4, 4, activation=None)), Head(4)),
        "explicit_padding": nn.Sequential(nn.ZeroPad2d((0, 1, 2, 1)), nn.Conv2d(3, 4, 3), Head(4)),
        "conv_with_bias": nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Head(4)),
        "max_pool": nn.Sequential(conv_unit(3, 4), nn.MaxPool2d(2), Head(4)),
        "max_pool_padded": nn.Sequential(conv_unit(3, 4), nn.MaxPool2d(3, 2, 1), Head(4)),
        "depthwise_multiplier": nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), Head(6)),
        "relu_after_a_sum": nn.Sequential(Residual(nn.Conv2d(3, 3, 3, padding=1)), nn.ReLU(), Head(3)),
        "linear_without_bias": nn.Sequential(
            conv_unit(3, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5, bias=False)
        ),
    }


@pytest.mark.parametrize("kind", _each_kind())
def test_a_layer_of_each_kind_equals_torch(kind):
    _compare_with_torch(_each_kind()[kind], SHAPE)


def test_a_small_mobilenet_equals_torch():
    blocks = [
        conv_unit(3, 8, stride=2, same=True),
        conv_unit(8, 8, groups=8),
        conv_unit(8, 12, kernel=1),
        Residual(
            nn.Sequential(
                conv_unit(12, 24, kernel=1), conv_unit(24, 24, groups=24), conv_unit(24, 12, kernel=1, activation=None)
            )
        ),
        conv_unit(12, 12, stride=2, groups=12, same=True),
        conv_unit(12, 16, kernel=1),
        Head(16),
    ]
    _compare_with_torch(nn.Sequential(*blocks), (3, 16, 16), exact=0.8)


def _compare_with_torch(module, shape, exact=0.95):
    """Compare with the module torch converted: the same numbers, but for a rounding tie now and then."""
    converted, imported, images = quantized(module, shape)
    network = read_relax(lower_to_integer(imported))
    scale, zero_point = network.output.output_quant
    with torch.no_grad():
        torchs = np.stack([converted(image)[0].numpy() for image in images])
    expected = np.rint(torchs / scale).astype(int) + zero_point
    found = np.stack([run_reference(network, quantize_input(network, image)) for image in images]).astype(int)
    assert len(np.unique(found, axis=0)) == len(images), "a network with one answer proves nothing"
    assert np.abs(found - expected).max() <= 1
    assert (found == expected).mean() >= exact
    return network


def test_layers_know_their_pytorch_names_and_inputs():
    module = nn.Sequential(conv_unit(3, 4), Residual(conv_unit(4, 4, groups=4, activation=None)), Head(4))
    network = read_relax(lowered(module, SHAPE))
    assert [(layer.name, layer.kind, layer.sources) for layer in network.layers] == [
        ("0.0", "conv2d", (NETWORK_INPUT,)),
        ("1.body.0", "depthwise_conv2d", ("0.0",)),
        ("1", "add", ("0.0", "1.body.0")),
        ("pool", "average_pool", ("1",)),
        ("2.classifier", "fully_connected", ("pool",)),
    ]
    assert network.input_shape == (8, 8, 3)
    assert network.output.output_shape == (1, 1, 5)


@pytest.mark.parametrize("name", ["input", "main", "layers", "pool"])
def test_modules_may_be_called_anything(name):
    """A convolution of any name, between two others."""
    module = nn.Sequential()
    module.add_module("first", conv_unit(3, 4))
    module.add_module(name, nn.Conv2d(4, 4, 3, padding=1))
    module.add_module("last", Head(4))
    network = _compare_with_torch(module, SHAPE)
    assert len({layer.name for layer in network.layers}) == 4


def test_one_module_used_twice_is_two_layers():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.head = Head(3)

        def forward(self, x):
            return self.head(self.conv(self.conv(x)))

    assert len(_compare_with_torch(Twice(), SHAPE).layers) == 4


def test_relu6_is_in_the_clamp():
    network = read_relax(lowered(nn.Sequential(conv_unit(3, 4), Head(4)), SHAPE))
    requantization, quant = network.layers[0].requantization, network.layers[0].output_quant
    assert requantization.minimum == quant.zero_point == -128
    assert requantization.maximum == min(round(6 / quant.scale) - 128, 127)


class Broadcast(nn.Module):
    """Adds one value a channel to a whole image."""

    def forward(self, x):
        return x + nn.functional.adaptive_avg_pool2d(x, 1)


class PaddedPool(nn.Module):
    """Averages over zeros that stand around the image."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(4, 5)

    def forward(self, x):
        return self.classifier(nn.functional.adaptive_avg_pool2d(nn.functional.pad(x, (1, 1, 1, 1)), 1).flatten(1))


class PaddedAdd(nn.Module):
    """Adds a smaller image with zeros around it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3)

    def forward(self, x):
        return x + nn.functional.pad(self.conv(x), (1, 1, 1, 1))


class TwoOutputs(nn.Module):
    """Has an auxiliary classifier."""

    def __init__(self):
        super().__init__()
        self.first, self.second = Head(3), Head(3)

    def forward(self, x):
        return self.first(x), self.second(x)


class ReturnsItsInput(nn.Module):
    """Returns its input too."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 3, 1), Head(3)

    def forward(self, x):
        return self.head(self.conv(x)), x


UNSUPPORTED = {
    "hardswish": lambda: nn.Sequential(conv_unit(3, 4, activation=nn.Hardswish), Head(4)),
    "groups of several channels": lambda: nn.Sequential(conv_unit(3, 4), nn.Conv2d(4, 4, 3, groups=2), Head(4)),
    "dilation": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, dilation=2), Head(4)),
    "max pooling beyond the image": lambda: nn.Sequential(conv_unit(3, 4), nn.MaxPool2d(3, ceil_mode=True), Head(4)),
    "local average pooling": lambda: nn.Sequential(conv_unit(3, 4), nn.AvgPool2d(2), Head(4)),
    "sigmoid": lambda: nn.Sequential(conv_unit(3, 4), nn.Sigmoid(), Head(4)),
    "linear over the image": lambda: nn.Sequential(conv_unit(3, 4), nn.Flatten(), nn.Linear(256, 5)),
    "two outputs": TwoOutputs,
    "the input as an output": ReturnsItsInput,
    "no classifier": lambda: nn.Sequential(conv_unit(3, 4)),
    "broadcast sum": lambda: nn.Sequential(conv_unit(3, 4), Broadcast(), Head(4)),
    "padding before a pool": lambda: nn.Sequential(conv_unit(3, 4), PaddedPool()),
    "padding before a sum": lambda: nn.Sequential(conv_unit(3, 4), PaddedAdd(), Head(4)),
}


@pytest.mark.parametrize("what", UNSUPPORTED)
def test_what_has_no_integer_form_is_named_in_one_line(what):
    with pytest.raises(UnsupportedOperatorError) as caught:
        lowered(UNSUPPORTED[what](), SHAPE)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 160


def test_int8_without_ranges_is_refused():
    module, images = calibrated(nn.Sequential(conv_unit(3, 4), Head(4)), SHAPE)
    with pytest.raises(QuantizationError, match="give calibration images"):
        quantize_module(module, images[0])
    with pytest.raises(QuantizationError, match=r"no range is known for 0\.0"):
        quantize_module(module, images[0], activation_quant={"input": (0.02, 0)})


def test_known_ranges_and_weight_scales_are_taken():
    module, images = calibrated(nn.Sequential(conv_unit(3, 4), Head(4)), SHAPE)
    known = {"input": (0.03125, -3), "0.0": (0.0234375, -128), "pool": (0.015625, -128), "1.classifier": (0.125, 5)}
    scales = {"0.0": np.full(4, 2.0, np.float32)}
    converted = quantize_module(module, images[0], activation_quant=known, weight_scales=scales)
    network = read_relax(lower_to_integer(import_quantized(converted, images[0])))
    assert network.input_quant == known["input"]
    assert {layer.name: tuple(layer.output_quant) for layer in network.layers} == {
        name: quant for name, quant in known.items() if name != "input"
    }
    assert np.abs(network.layers[0].weight).max() <= 1, "weights of a scale of 2 are nearly all 0"


def test_a_channel_of_tiny_weights_keeps_a_multiplier():
    """Such channels are common in quantization-aware files: their weights are stored coarser."""
    module, images = calibrated(nn.Sequential(conv_unit(3, 4, activation=None), Head(4)), SHAPE)
    with torch.no_grad():
        module[0][0].weight[1] *= 1e-7
        module[0][0].weight[2] = 0
    converted = quantize_module(module, images[0], calibration=images)
    network = read_relax(lower_to_integer(import_quantized(converted, images[0]), remove_dead_channels=False))
    layer = network.layers[0]
    assert layer.requantization.multiplier.min() >= int(SMALLEST_SCALE * 2**31)
    assert not layer.weight[2].any()
    for image in images:
        with torch.no_grad():
            expected = converted(image)[0].numpy()
        scale, zero_point = network.output.output_quant
        found = run_reference(network, quantize_input(network, image))
        assert np.abs(np.rint(expected / scale) + zero_point - found).max() <= 1


def test_weights_are_symmetric_int8():
    network = read_relax(lowered(nn.Sequential(conv_unit(3, 4), conv_unit(4, 4, groups=4), Head(4)), SHAPE))
    for layer in network.layers:
        if isinstance(layer, Convolution | DepthwiseConvolution):
            assert layer.weight.dtype == np.int8 and layer.bias.dtype == np.int32
            axes = (1, 2, 3) if isinstance(layer, Convolution) else (0, 1)
            np.testing.assert_array_equal(np.abs(layer.weight.astype(int)).max(axis=axes), 127)
