"""MCUNet's visual wake words network for 80x80 images (Lin et al. 2020, "MCUNet: Tiny Deep Learning on IoT Devices").

A network that a search found among those of ProxylessNAS' blocks: MobileNet V2's, with 3x3, 5x5 and 7x7 depthwise
kernels.
"""

from __future__ import annotations

from thumbnet.models.inverted_residual import Block, InvertedResidualNetwork
from thumbnet.models.layers import Activation, Padding

FIRST_CHANNELS = 16
#: Expansion factor t, kernel k, output channels c, stride s.
BLOCKS: tuple[Block, ...] = (
    # t, k, c, s
    (1, 3, 8, 1),
    (6, 3, 16, 2),
    (3, 3, 16, 1),
    (3, 3, 16, 1),
    (3, 7, 24, 2),
    (6, 3, 24, 1),
    (5, 5, 24, 1),
    (6, 7, 40, 2),
    (6, 7, 40, 1),
    (6, 3, 48, 1),
    (4, 3, 48, 1),
    (5, 5, 96, 2),
    (5, 3, 96, 1),
    (4, 3, 96, 1),
    (3, 7, 160, 1),
)


class ProxylessVww(InvertedResidualNetwork):
    """MCUNet's network: ``[N, input_channels, H, W]`` float32 to logits ``[N, classes]``.

    Parameters
    ----------
    classes, input_channels, activation, padding, bn_epsilon, softmax
        As in `InvertedResidualNetwork`.
    """

    def __init__(
        self,
        classes: int = 2,
        input_channels: int = 3,
        *,
        activation: Activation = "relu6",
        padding: Padding = "symmetric",
        bn_epsilon: float = 1e-5,
        softmax: bool = False,
    ) -> None:
        super().__init__(
            *(FIRST_CHANNELS, BLOCKS, None, classes, input_channels),
            activation=activation,
            padding=padding,
            bn_epsilon=bn_epsilon,
            softmax=softmax,
        )
