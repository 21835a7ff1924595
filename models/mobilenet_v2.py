"""MobileNet V2 (Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks")."""

from __future__ import annotations

from thumbnet.models.inverted_residual import InvertedResidualNetwork
from thumbnet.models.layers import Activation, Padding

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


def scale_channels(channels: int, width_multiplier: float, divisor: int = 8) -> int:
    """Return the channels of a layer at a width: the nearest multiple of 8, but never less than 90 % of the product.

    The rule of TensorFlow-slim and torchvision (``_make_divisible``).
    """
    exact = channels * width_multiplier
    rounded = max(divisor, int(exact + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * exact else rounded


class MobileNetV2(InvertedResidualNetwork):
    """MobileNet V2: ``[N, input_channels, H, W]`` float32 to logits ``[N, classes]``.

    The state dict has the keys and, at 3 input channels, the shapes of torchvision's ``mobilenet_v2``. The last
    convolution keeps its 1280 channels at widths below 1.

    Parameters
    ----------
    width_multiplier : float
        Factor on the channels of every layer.
    classes, input_channels, activation, padding, bn_epsilon, softmax
        As in `InvertedResidualNetwork`.
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
        super().__init__(
            scale_channels(FIRST_CHANNELS, width_multiplier),
            (
                (t, 3, scale_channels(c, width_multiplier), s if repeat == 0 else 1)
                for t, c, n, s in BLOCKS
                for repeat in range(n)
            ),
            scale_channels(LAST_CHANNELS, max(1.0, width_multiplier)),
            *(classes, input_channels),
            activation=activation,
            padding=padding,
            bn_epsilon=bn_epsilon,
            softmax=softmax,
        )
