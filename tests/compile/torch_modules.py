"""Small PyTorch networks whose outputs vary: Kaiming weights, and batch norms that know their inputs."""

import torch
from torch import nn

from thumbnet.compile.frontend.torch_to_relax import import_quantized, quantize_module
from thumbnet.compile.passes.pipeline import lower_to_integer
from thumbnet.models.layers import SameConv2d


def conv_unit(inputs, outputs, kernel=3, stride=1, *, groups=1, same=False, activation=nn.ReLU6):
    conv_type = SameConv2d if same else nn.Conv2d
    options = {} if same else {"padding": kernel // 2}
    conv = conv_type(inputs, outputs, kernel, stride, groups=groups, bias=False, **options)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), *([] if activation is None else [activation()]))


class Head(nn.Module):
    """Pool over the image and classify."""

    def __init__(self, channels, classes=5):
        super().__init__()
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x):
        return self.classifier(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Residual(nn.Module):
    """The sum of a unit's input and output."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return x + self.body(x)


def calibrated(module, shape, seed=0):
    """Give Kaiming weights, and batch norms the statistics of random images; return it with a few of these."""
    torch.manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            nn.init.normal_(layer.bias)
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0.3, 0.5)
            layer.momentum = None
    images = torch.randn(8, *shape)
    with torch.no_grad():
        module.train()(images)
    return module.eval(), list(images.split(1))


def quantized(module, shape, seed=0):
    """Return torch's converted module in quantize / dequantize pairs, its Relax form, and images."""
    module, images = calibrated(module, shape, seed)
    converted = quantize_module(module, images[0], calibration=images)
    return converted, import_quantized(converted, images[0]), images


def lowered(module, shape, seed=0):
    """Return the integer Relax module."""
    return lower_to_integer(quantized(module, shape, seed)[1])
