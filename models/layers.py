"""The layers MobileNets are made of, with TensorFlow's or torchvision's padding."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

Activation = Literal["relu6", "relu"]
Padding = Literal["same", "symmetric"]


def compute_same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the zeros before and after one axis that TensorFlow's ``SAME`` adds.

    The output has ``ceil(size / stride)`` elements; an odd total puts the larger half after the data. Source: the
    "padding" notes of ``tf.nn``.

    Parameters
    ----------
    size, kernel, stride : int
        Input elements along the axis, kernel elements, step.
    """
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """`torch.nn.Conv2d` with TensorFlow's ``SAME`` padding, computed from the input's size.

    It has the state-dict keys of `torch.nn.Conv2d` and no more. Where the padding is the same on both sides, the
    convolution pads by itself; otherwise (stride 2 on an even size) an explicit pad goes before it.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Convolve ``[N, C, H, W]``."""
        top, bottom = compute_same_padding(int(input.shape[2]), self.kernel_size[0], self.stride[0])
        left, right = compute_same_padding(int(input.shape[3]), self.kernel_size[1], self.stride[1])
        padding = (top, left)
        if (top, left) != (bottom, right):
            input = F.pad(input, (left, right, top, bottom))
            padding = (0, 0)
        return F.conv2d(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


def make_activation(activation: Activation) -> nn.Module:
    """Return the activation after a batch norm."""
    return nn.ReLU6(inplace=False) if activation == "relu6" else nn.ReLU(inplace=False)


def make_conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, *, padding: Padding
) -> nn.Conv2d:
    """Return a convolution without bias, for a batch norm follows it."""
    if padding == "same":
        return SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, groups=groups, bias=False)


def make_unit(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    *,
    padding: Padding,
    activation: Activation,
    bn_epsilon: float,
) -> nn.Sequential:
    """Return convolution, batch norm, activation: children 0, 1, 2."""
    return nn.Sequential(
        make_conv(inputs, outputs, kernel, stride, groups, padding=padding),
        nn.BatchNorm2d(outputs, eps=bn_epsilon),
        make_activation(activation),
    )


def initialise(network: nn.Module) -> None:
    """Give a network the usual weights to start training from (Kaiming for convolutions, as torchvision does)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
            nn.init.zeros_(module.bias)
