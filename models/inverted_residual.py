"""Networks of inverted residual blocks: what MobileNet V2 and its cousins have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import nn

from thumbnet.models.layers import Activation, Padding, initialise, make_conv, make_unit

#: Expansion factor, depthwise kernel's rows and columns, output channels, stride.
Block = tuple[int, int, int, int]
DROPOUT = 0.2


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise, project 1x1 without activation; plus the input where shapes allow."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int,
        expansion: int,
        *,
        padding: Padding,
        activation: Activation,
        bn_epsilon: float,
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(make_unit(inputs, hidden, 1, padding=padding, activation=activation, bn_epsilon=bn_epsilon))
        layers.append(
            make_unit(
                *(hidden, hidden, kernel, stride, hidden),
                padding=padding,
                activation=activation,
                bn_epsilon=bn_epsilon,
            )
        )
        layers += [make_conv(hidden, outputs, 1, padding=padding), nn.BatchNorm2d(outputs, eps=bn_epsilon)]
        self.conv = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``[N, outputs, H / stride, W / stride]``."""
        y: torch.Tensor = self.conv(x)
        return x + y if self.residual else y


class InvertedResidualNetwork(nn.Module):
    """A 3x3 convolution with stride 2, blocks, a 1x1 convolution or none, pool and classifier.

    Float32 ``[N, input_channels, H, W]`` to logits ``[N, classes]``.

    Parameters
    ----------
    first_channels : int
        Of the 3x3 convolution.
    blocks : iterable of Block
        In their order.
    last_channels : int or None
        Of the 1x1 convolution after the blocks; None for none.
    classes, input_channels : int
        Outputs of the classifier; channels of the image.
    activation : {"relu6", "relu"}
        After every batch norm but a block's last.
    padding : {"same", "symmetric"}
        TensorFlow's SAME, or PyTorch's (and torchvision's) equal padding on both sides.
    bn_epsilon : float
        Added to the variance in every batch norm.
    softmax : bool
        Return probabilities in place of logits.
    """

    def __init__(
        self,
        first_channels: int,
        blocks: Iterable[Block],
        last_channels: int | None,
        classes: int,
        input_channels: int,
        *,
        activation: Activation,
        padding: Padding,
        bn_epsilon: float,
        softmax: bool,
    ) -> None:
        super().__init__()
        channels = first_channels
        layers: list[nn.Module] = [
            make_unit(input_channels, channels, 3, 2, padding=padding, activation=activation, bn_epsilon=bn_epsilon)
        ]
        for expansion, kernel, outputs, stride in blocks:
            layers.append(
                InvertedResidual(
                    *(channels, outputs, kernel, stride, expansion),
                    padding=padding,
                    activation=activation,
                    bn_epsilon=bn_epsilon,
                )
            )
            channels = outputs
        if last_channels is not None:
            layers.append(
                make_unit(channels, last_channels, 1, padding=padding, activation=activation, bn_epsilon=bn_epsilon)
            )
            channels = last_channels
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(channels, classes))
        self.softmax = softmax
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits ``[N, classes]``, or probabilities if the network was made with `softmax`."""
        x = self.pool(self.features(x))
        x = self.classifier(torch.flatten(x, 1))
        return torch.softmax(x, dim=1) if self.softmax else x


class OneWidthNetwork(InvertedResidualNetwork):
    """A network that there is in one width: ``[N, input_channels, H, W]`` float32 to logits ``[N, classes]``.

    Parameters
    ----------
    classes, input_channels, activation, padding, bn_epsilon, softmax
        As in `InvertedResidualNetwork`, as are the three that each such network has of its own.
    """

    first_channels: ClassVar[int]
    blocks: ClassVar[tuple[Block, ...]]
    last_channels: ClassVar[int | None]

    def __init__(
        self,
        classes: int,
        input_channels: int,
        *,
        activation: Activation,
        padding: Padding,
        bn_epsilon: float,
        softmax: bool = False,
    ) -> None:
        super().__init__(
            *(self.first_channels, self.blocks, self.last_channels, classes, input_channels),
            activation=activation,
            padding=padding,
            bn_epsilon=bn_epsilon,
            softmax=softmax,
        )
