"""A float32 network as a PyTorch module again: what is quantized, and what device answers are compared with."""

from __future__ import annotations

import math

import torch
from torch import nn

from thumbnet.compile.network.float_network import (
    FloatAdd,
    FloatAveragePool,
    FloatConvolution,
    FloatDepthwiseConvolution,
    FloatLayer,
    FloatMaxPool,
    FloatNetwork,
)
from thumbnet.compile.network.layers import NETWORK_INPUT


class FloatModule(nn.Module):
    """Computes a network: float32 ``[N, C, H, W]`` to logits ``[N, classes]``.

    Its layers are submodules under their names, whose dots are modules in modules as in the network they came from.

    Parameters
    ----------
    network : FloatNetwork
        What to compute.
    """

    def __init__(self, network: FloatNetwork) -> None:
        super().__init__()
        self.network = network
        self._order = [(layer.name, layer.sources) for layer in network.layers]
        # From the inside out: a block's sum may bear the name its convolutions' names begin with.
        for layer in sorted(network.layers, key=lambda layer: -layer.name.count(".")):
            _place(self, layer.name.split("."), _LAYERS[type(layer)](layer))
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        values = {NETWORK_INPUT: images}
        for name, sources in self._order:
            values[name] = layer_of(self, name)(*(values[source] for source in sources))
        return values[self._order[-1][0]].flatten(1)


def layer_of(module: FloatModule, name: str) -> LayerModule:
    """Return what computes a layer: no method, as submodules may have any name."""
    layer = module.get_submodule(name)
    assert isinstance(layer, LayerModule)
    return layer


def _place(module: nn.Module, path: list[str], layer: nn.Module) -> None:
    for part in path[:-1]:
        if part not in module._modules:
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    inner = module._modules.get(path[-1])
    for name, child in inner.named_children() if inner is not None else ():
        layer.add_module(name, child)
    module.add_module(path[-1], layer)


class LayerModule(nn.Module):
    """Computes a layer: its sources' values float32 ``[N, C, H, W]`` to its own."""

    def __init__(self, layer: FloatLayer) -> None:
        super().__init__()
        self.minimum, self.maximum = layer.minimum, layer.maximum

    def forward(self, *sources: torch.Tensor) -> torch.Tensor:
        """Return the layer's values."""
        return self.clamp(self.unclamped(*sources))

    def unclamped(self, *sources: torch.Tensor) -> torch.Tensor:
        """Return the values before the layer's clamp."""
        raise NotImplementedError

    def clamp(self, values: torch.Tensor) -> torch.Tensor:
        """Return values in the layer's clamp."""
        if (self.minimum, self.maximum) == (-math.inf, math.inf):
            return values
        if (self.minimum, self.maximum) == (0.0, math.inf):
            return nn.functional.relu(values)
        # TVM's importer wants two numbers.
        largest = torch.finfo(torch.float32).max
        return nn.functional.hardtanh(values, max(self.minimum, -largest), min(self.maximum, largest))


class ConvolutionModule(LayerModule):
    """Computes a convolution, full or depthwise."""

    def __init__(self, layer: FloatConvolution | FloatDepthwiseConvolution) -> None:
        super().__init__(layer)
        weight = torch.from_numpy(layer.weight)
        depthwise = isinstance(layer, FloatDepthwiseConvolution)
        self.register_buffer("weight", weight.permute(2, 0, 1)[:, None] if depthwise else weight.permute(0, 3, 1, 2))
        self.register_buffer("bias", torch.from_numpy(layer.bias))
        self.weight: torch.Tensor
        self.bias: torch.Tensor
        self.stride, self.groups = layer.stride, layer.input_shape[2] if depthwise else 1
        top, left, bottom, right = layer.padding
        self.padding = (left, right, top, bottom)

    def unclamped(self, *sources: torch.Tensor) -> torch.Tensor:
        """Return the convolution."""
        return self.convolve(sources[0], self.weight)

    def convolve(self, values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Return the convolution with weights in place of its own, ``[out, in / groups, kernel_h, kernel_w]``."""
        left, right, top, bottom = self.padding
        around = (0, 0)
        if (top, left) == (bottom, right):
            around = (top, left)
        else:
            values = nn.functional.pad(values, self.padding)
        return nn.functional.conv2d(values, weight, self.bias, self.stride, around, 1, self.groups)


class _AveragePool2d(LayerModule):
    def unclamped(self, *sources: torch.Tensor) -> torch.Tensor:
        """Return the mean over all pixels."""
        return nn.functional.adaptive_avg_pool2d(sources[0], 1)


class _MaxPool2d(LayerModule):
    def __init__(self, layer: FloatMaxPool) -> None:
        super().__init__(layer)
        self.kernel, self.stride, self.padding = layer.kernel, layer.stride, layer.padding[:2]

    def unclamped(self, *sources: torch.Tensor) -> torch.Tensor:
        """Return the largest under each window."""
        return nn.functional.max_pool2d(sources[0], self.kernel, self.stride, self.padding)


class _Add(LayerModule):
    def unclamped(self, *sources: torch.Tensor) -> torch.Tensor:
        """Return the sum."""
        return sources[0] + sources[1]


_LAYERS: dict[type[FloatLayer], type[LayerModule]] = {
    FloatConvolution: ConvolutionModule,
    FloatDepthwiseConvolution: ConvolutionModule,
    FloatAveragePool: _AveragePool2d,
    FloatMaxPool: _MaxPool2d,
    FloatAdd: _Add,
}
