"""MobileNet V1 (Howard et al. 2017, "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision")."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from thumbnet.models.layers import Activation, Padding, initialise, make_unit

#: Table 1 of the paper: output channels c and stride s of the first convolution and of each separable block.
FIRST_CHANNELS = 32
BLOCKS: tuple[tuple[int, int], ...] = (
    # c, s
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
)


def scale_channels(channels: int, width_multiplier: float) -> int:
    """Return the channels of a layer at a width: cut to an integer and at least 8, as TensorFlow-slim does."""
    return max(int(channels * width_multiplier), 8)


class SeparableBlock(nn.Sequential):
    """Depthwise 3x3 and pointwise 1x1 convolution, each with batch norm and activation."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, *, padding: Padding, activation: Activation, bn_epsilon: float
    ) -> None:
        depthwise = make_unit(
            inputs, inputs, 3, stride, groups=inputs, padding=padding, activation=activation, bn_epsilon=bn_epsilon
        )
        pointwise = make_unit(inputs, outputs, 1, padding=padding, activation=activation, bn_epsilon=bn_epsilon)
        super().__init__(OrderedDict(depthwise=depthwise, pointwise=pointwise))


class MobileNetV1(nn.Module):
    """MobileNet V1: ``[N, input_channels, H, W]`` float32 to logits ``[N, classes]``.

    Parameters
    ----------
    width_multiplier : float
        Factor on the channels of every layer.
    classes, input_channels : int
        Outputs of the classifier; channels of the image.
    activation : {"relu6", "relu"}
        After every batch norm.
    padding : {"same", "symmetric"}
        TensorFlow's SAME, or PyTorch's equal padding on both sides.
    bn_epsilon : float
        Added to the variance in every batch norm.
    softmax : bool
        Return probabilities in place of logits.
    """

    def __init__(
        self,
        width_multiplier: float = 1.0,
        classes: int = 1000,
        input_channels: int = 3,
        *,
        activation: Activation = "relu6",
        padding: Padding = "same",
        bn_epsilon: float = 1e-3,
        softmax: bool = False,
    ) -> None:
        super().__init__()
        channels = scale_channels(FIRST_CHANNELS, width_multiplier)
        layers: list[nn.Module] = [
            make_unit(input_channels, channels, 3, 2, padding=padding, activation=activation, bn_epsilon=bn_epsilon)
        ]
        for c, s in BLOCKS:
            outputs = scale_channels(c, width_multiplier)
            layers.append(
                SeparableBlock(channels, outputs, s, padding=padding, activation=activation, bn_epsilon=bn_epsilon)
            )
            channels = outputs
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, classes)
        self.softmax = softmax
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits ``[N, classes]``, or probabilities if the network was made with `softmax`."""
        x = self.pool(self.features(x))
        x = self.classifier(torch.flatten(x, 1))
        return torch.softmax(x, dim=1) if self.softmax else x
