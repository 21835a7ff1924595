"""MobileNet V2 (Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks")."""

from __future__ import annotations

import torch
from torch import nn

from thumbnet.models.layers import Activation, Padding, initialise, make_conv, make_unit

#: Table 2 of the paper: expansion factor t, output channels c, repeats n, stride s of the first of the repeats.
FIRST_CHANNELS = 32
LAST_CHANNELS = 1280
BLOCKS: tuple[tuple[int, int, int, int], ...] = (
    # t, c, n, s
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
DROPOUT = 0.2


def scale_channels(channels: int, width_multiplier: float, divisor: int = 8) -> int:
    """Return the channels of a layer at a width: the nearest multiple of 8, but never less than 90 % of the product.

    The rule of TensorFlow-slim and torchvision (``_make_divisible``).
    """
    exact = channels * width_multiplier
    rounded = max(divisor, int(exact + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * exact else rounded


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1 without activation; plus the input where shapes allow."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
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
                hidden, hidden, 3, stride, groups=hidden, padding=padding, activation=activation, bn_epsilon=bn_epsilon
            )
        )
        layers += [make_conv(hidden, outputs, 1, padding=padding), nn.BatchNorm2d(outputs, eps=bn_epsilon)]
        self.conv = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``[N, outputs, H / stride, W / stride]``."""
        y: torch.Tensor = self.conv(x)
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """MobileNet V2: ``[N, input_channels, H, W]`` float32 to logits ``[N, classes]``.

    The state dict has the keys and, at 3 input channels, the shapes of torchvision's ``mobilenet_v2``. The last
    convolution keeps its 1280 channels at widths below 1.

    Parameters
    ----------
    width_multiplier : float
        Factor on the channels of every layer.
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
        width_multiplier: float = 1.0,
        classes: int = 1000,
        input_channels: int = 3,
        *,
        activation: Activation = "relu6",
        padding: Padding = "same",
        bn_epsilon: float = 1e-5,
        softmax: bool = False,
    ) -> None:
        super().__init__()
        channels = scale_channels(FIRST_CHANNELS, width_multiplier)
        layers: list[nn.Module] = [
            make_unit(input_channels, channels, 3, 2, padding=padding, activation=activation, bn_epsilon=bn_epsilon)
        ]
        for t, c, n, s in BLOCKS:
            outputs = scale_channels(c, width_multiplier)
            for repeat in range(n):
                layers.append(
                    InvertedResidual(
                        channels,
                        outputs,
                        s if repeat == 0 else 1,
                        t,
                        padding=padding,
                        activation=activation,
                        bn_epsilon=bn_epsilon,
                    )
                )
                channels = outputs
        last = scale_channels(LAST_CHANNELS, max(1.0, width_multiplier))
        layers.append(make_unit(channels, last, 1, padding=padding, activation=activation, bn_epsilon=bn_epsilon))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(last, classes))
        self.softmax = softmax
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits ``[N, classes]``, or probabilities if the network was made with `softmax`."""
        x = self.pool(self.features(x))
        x = self.classifier(torch.flatten(x, 1))
        return torch.softmax(x, dim=1) if self.softmax else x
