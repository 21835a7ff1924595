"""EfficientNet-Lite0 (Tan and Le 2019, without squeeze and excitation): MobileNet V2's blocks, with 3x3 and 5x5."""

from __future__ import annotations

from thumbnet.models.inverted_residual import InvertedResidualNetwork
from thumbnet.models.layers import Activation, Padding

#: Of `efficientnet_lite_builder.py` in the repository tensorflow/tpu: expansion factor t, kernel k, output channels c,
#: repeats n, stride s of the first of the repeats.
FIRST_CHANNELS = 32
LAST_CHANNELS = 1280
BLOCKS: tuple[tuple[int, int, int, int, int], ...] = (
    # t, k, c, n, s
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)


class EfficientNetLite0(InvertedResidualNetwork):
    """EfficientNet-Lite0: ``[N, input_channels, H, W]`` float32 to logits ``[N, classes]``.

    Parameters
    ----------
    classes, input_channels, activation, padding, bn_epsilon, softmax
        As in `InvertedResidualNetwork`.
    """

    def __init__(
        self,
        classes: int = 1000,
        input_channels: int = 3,
        *,
        activation: Activation = "relu6",
        padding: Padding = "same",
        bn_epsilon: float = 1e-3,
        softmax: bool = False,
    ) -> None:
        super().__init__(
            FIRST_CHANNELS,
            ((t, k, c, s if repeat == 0 else 1) for t, k, c, n, s in BLOCKS for repeat in range(n)),
            LAST_CHANNELS,
            *(classes, input_channels),
            activation=activation,
            padding=padding,
            bn_epsilon=bn_epsilon,
            softmax=softmax,
        )
