"""EfficientNet-Lite0 (Tan and Le 2019, without squeeze and excitation): MobileNet V2's blocks, with 3x3 and 5x5."""

from __future__ import annotations

from thumbnet.models.inverted_residual import OneWidthNetwork

#: Of `efficientnet_lite_builder.py` in the repository tensorflow/tpu: expansion factor t, kernel k, output channels c,
#: repeats n, stride s of the first of the repeats.
_STAGES: tuple[tuple[int, int, int, int, int], ...] = (
    # t, k, c, n, s
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)


class EfficientNetLite0(OneWidthNetwork):
    """EfficientNet-Lite0."""

    first_channels = 32
    blocks = tuple((t, k, c, s if repeat == 0 else 1) for t, k, c, n, s in _STAGES for repeat in range(n))
    last_channels = 1280
