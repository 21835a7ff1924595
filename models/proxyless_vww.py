"""MCUNet's visual wake words network for 80x80 images (Lin et al. 2020, "MCUNet: Tiny Deep Learning on IoT Devices").

A network that a search found among those of ProxylessNAS' blocks: MobileNet V2's, with 3x3, 5x5 and 7x7 depthwise
kernels.
"""

from __future__ import annotations

from thumbnet.models.inverted_residual import OneWidthNetwork


class ProxylessVww(OneWidthNetwork):
    """MCUNet's network."""

    first_channels = 16
    #: Expansion factor, kernel, output channels, stride.
    blocks = (
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
    last_channels = None
