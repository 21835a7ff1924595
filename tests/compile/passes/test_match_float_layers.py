"""From PyTorch's float32 networks to float layers that compute the same."""

import numpy as np
import pytest
import torch
from torch import nn

from thumbnet.compile.errors import UnsupportedOperatorError
from thumbnet.compile.frontend.torch_to_relax import import_float
from thumbnet.compile.network.float_network import FloatAdd, FloatConvolution, FloatDepthwiseConvolution
from thumbnet.compile.network.float_reference import run_float_layers
from thumbnet.compile.passes.match_float_layers import match_float_layers
from thumbnet.models.weights import load_model

from ..torch_modules import Head, Residual, conv_unit
from .test_match_layers import SHAPE, _each_kind


def _match(module, shape=SHAPE):
    return match_float_layers(import_float(module, torch.zeros(1, *shape)))


def _compare_with_torch(module, shape):
    module = module.eval()
    network = _match(module, shape)
    generator = torch.Generator().manual_seed(4)
    outputs = []
    for _ in range(2):
        image = torch.randn(1, *shape, generator=generator)
        found = run_float_layers(network, np.ascontiguousarray(image[0].permute(1, 2, 0).numpy()))
        with torch.no_grad():
            expected = module(image)[0].numpy()
        outputs.append(found[network.output.name].reshape(-1))
        np.testing.assert_allclose(outputs[-1], expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert not np.array_equal(*outputs)
    return network


@pytest.mark.parametrize("kind", _each_kind())
def test_a_layer_of_each_kind_equals_torch(kind):
    _compare_with_torch(_each_kind()[kind], SHAPE)


@pytest.mark.parametrize("name", ["mobilenet_v1_0.25_digits", "mobilenet_v2_0.35_digits"])
def test_bundled_networks_equal_torch(name):
    trained = load_model(name)
    network = _compare_with_torch(trained.module, (1, 32, 32))
    modules = dict(trained.module.named_modules())
    for layer in network.layers:
        assert layer.name in modules or layer.name == "pool" or isinstance(layer, FloatAdd)
        if isinstance(layer, FloatConvolution | FloatDepthwiseConvolution):
            assert isinstance(modules[layer.name], nn.Conv2d | nn.Linear)


class _Shared(nn.Module):
    """Reads a convolution's output before its activation too."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 1), Head(4)

    def forward(self, image):
        made = self.conv(image)
        return self.head(torch.relu(made) + made)


class _Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 3, 1), Head(3)

    def forward(self, image):
        return self.head(self.conv(self.conv(image)))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(conv_unit(3, 4, activation=nn.Sigmoid), Head(4)), "is no layer here"),
        (nn.Sequential(nn.Conv2d(3, 4, 3, dilation=2), Head(4)), "dilated"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 3, groups=2), Head(6)), "2 groups"),
        (nn.Sequential(nn.ConstantPad2d(1, 0.5), nn.Conv2d(3, 4, 3), Head(4)), "padded with something"),
        (nn.Sequential(conv_unit(3, 4), nn.MaxPool2d(2, ceil_mode=True), Head(4)), "beyond the image"),
        (nn.Sequential(conv_unit(3, 4)), "one row of classes"),
        (_Shared(), "read elsewhere too"),
        (_Twice(), "called twice"),
    ],
)
def test_what_is_no_layer_is_refused(module, message):
    with pytest.raises(UnsupportedOperatorError, match=message):
        _match(module.eval())


def test_a_residual_keeps_its_shortcut():
    network = _match(nn.Sequential(conv_unit(3, 4), Residual(conv_unit(4, 4, activation=None)), Head(4)).eval())
    [add] = [layer for layer in network.layers if isinstance(layer, FloatAdd)]
    assert set(add.sources) == {network.layers[0].name, network.layers[1].name}
