"""The networks by name: the published variants, the bundled ones, and any other width and resolution."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from thumbnet.models.conventions import Conventions
from thumbnet.models.efficientnet_lite import EfficientNetLite0
from thumbnet.models.errors import ModelError, UnknownModelError
from thumbnet.models.inverted_residual import OneWidthNetwork
from thumbnet.models.layers import Activation, Padding
from thumbnet.models.mobilenet_v1 import MobileNetV1
from thumbnet.models.mobilenet_v2 import MobileNetV2
from thumbnet.models.proxyless_vww import ProxylessVww

Version = Literal["v1", "v2", "efficientnet_lite0", "proxyless_vww"]

#: The batch norm epsilon of TensorFlow-slim's and Keras' MobileNet V1, of torchvision's MobileNet V2, of TensorFlow's
#: EfficientNet-Lite, and PyTorch's own.
BN_EPSILON: dict[Version, float] = {"v1": 1e-3, "v2": 1e-5, "efficientnet_lite0": 1e-3, "proxyless_vww": 1e-5}
RESOLUTIONS = range(16, 2049)
LARGEST_WIDTH = 8.0


@dataclass(frozen=True)
class ModelSpec:
    """What a network is, without its weights.

    Parameters
    ----------
    name : str
        As on the command line, for example ``"mobilenet_v1_0.25_128"``.
    version : {"v1", "v2", "efficientnet_lite0", "proxyless_vww"}
        MobileNet V1 or V2, or a cousin of V2 with larger depthwise kernels.
    width_multiplier : float
        Factor on the channels of every layer; the cousins have 1 alone.
    resolution : int
        Height and width of the input in pixels; of an image that is no square its height.
    classes, input_channels : int
        Outputs; channels of the image.
    activation : {"relu6", "relu"}
        After the batch norms.
    padding : {"same", "symmetric"}
        TensorFlow's SAME, or torchvision's.
    bn_epsilon : float
        Added to the variance in every batch norm.
    published_top1 : float or None
        Percent of ImageNet's validation images, as published for the float network.
    columns : int or None
        Width of the input in pixels, where that is no square.
    """

    name: str
    version: Version
    width_multiplier: float
    resolution: int
    classes: int = 1000
    input_channels: int = 3
    activation: Activation = "relu6"
    padding: Padding = "same"
    bn_epsilon: float = 1e-3
    published_top1: float | None = None
    columns: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the input."""
        return self.resolution, self.columns or self.resolution

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of one image."""
        return self.input_channels, *self.size

    def __post_init__(self) -> None:
        """Refuse what no network can be made of."""
        if not isinstance(self.version, str) or self.version not in BN_EPSILON:
            raise ModelError(
                f"{self.name}: MobileNet version {self.version!r:.40} is not known; known: {', '.join(BN_EPSILON)}"
            )
        if not isinstance(self.width_multiplier, float | int) or not 0 < self.width_multiplier <= LARGEST_WIDTH:
            raise ModelError(
                f"{self.name}: width multiplier {self.width_multiplier!r:.40} is not in 0 to {LARGEST_WIDTH:g};"
                " 0.25 to 1.4 are usual"
            )
        if self.version in COUSINS and self.width_multiplier != 1:
            raise ModelError(f"{self.name}: {self.version} has width multiplier 1, not {self.width_multiplier:g}")
        for extent in (self.resolution, self.resolution if self.columns is None else self.columns):
            if not isinstance(extent, int) or extent not in RESOLUTIONS:
                raise ModelError(
                    f"{self.name}: resolution {extent!r:.40} is not in {RESOLUTIONS[0]} to {RESOLUTIONS[-1]};"
                    " 96 to 224 are usual"
                )
        counts = (self.classes, self.input_channels)
        if not all(isinstance(count, int) and count >= 1 for count in counts):
            raise ModelError(
                f"{self.name}: {counts[0]!r:.40} classes of {counts[1]!r:.40}-channel images; both must be at least 1"
            )
        conventions = Conventions(self.padding, self.bn_epsilon, self.activation)
        if None in vars(conventions).values():
            raise ModelError(f"{self.name}: has no padding, batch norm epsilon or activation; all three must be given")


MOBILENETS: dict[Version, type[MobileNetV1] | type[MobileNetV2]] = {"v1": MobileNetV1, "v2": MobileNetV2}
#: Networks of MobileNet V2's blocks, in one width each.
COUSINS: dict[Version, type[OneWidthNetwork]] = {
    "efficientnet_lite0": EfficientNetLite0,
    "proxyless_vww": ProxylessVww,
}


def build_model(spec: ModelSpec, *, softmax: bool = False) -> nn.Module:
    """Return the untrained network of a spec: float32 ``[N, C, H, W]`` to logits ``[N, classes]``."""
    make: Callable[..., nn.Module]
    if spec.version in COUSINS:
        make = COUSINS[spec.version]
    else:
        make = functools.partial(MOBILENETS[spec.version], spec.width_multiplier)
    return make(
        spec.classes,
        spec.input_channels,
        activation=spec.activation,
        padding=spec.padding,
        bn_epsilon=spec.bn_epsilon,
        softmax=softmax,
    )


#: Published ImageNet top-1 in percent by width, then resolution, of the float checkpoints trained with TensorFlow-slim.
#: Sources, in the repository tensorflow/models: research/slim/nets/mobilenet_v1.md (checkpoints of 2018-02-22) and
#: research/slim/nets/mobilenet/README.md.
PUBLISHED_TOP1: dict[Version, dict[float, dict[int, float]]] = {
    "v1": {
        1.0: {224: 70.9, 192: 70.0, 160: 68.0, 128: 65.2},
        0.75: {224: 68.4, 192: 67.2, 160: 65.3, 128: 62.1},
        0.5: {224: 63.3, 192: 61.7, 160: 59.1, 128: 56.3},
        0.25: {224: 49.8, 192: 47.7, 160: 45.5, 128: 41.5},
    },
    "v2": {
        1.4: {224: 75.0},
        1.3: {224: 74.4},
        1.0: {224: 71.8, 192: 70.7, 160: 68.8, 128: 65.3, 96: 60.3},
        0.75: {224: 69.8, 192: 68.7, 160: 66.4, 128: 63.2, 96: 58.8},
        0.5: {224: 65.4, 192: 63.9, 160: 61.0, 128: 57.7, 96: 51.2},
        0.35: {224: 60.3, 192: 58.2, 160: 55.7, 128: 50.8, 96: 45.5},
    },
}


def format_name(version: Version, width_multiplier: float, size: tuple[int, int]) -> str:
    """Return the name of a variant: ``"mobilenet_v2_1.0_224"``, of 120 rows and 160 columns ``..._120x160``."""
    width = f"{width_multiplier:.1f}" if width_multiplier == int(width_multiplier) else f"{width_multiplier:g}"
    return f"mobilenet_{version}_{width}_{'x'.join(map(str, dict.fromkeys(size)))}"


def _make_spec(version: Version, width_multiplier: float, size: tuple[int, int]) -> ModelSpec:
    resolution, columns = size
    square = resolution == columns
    return ModelSpec(
        format_name(version, width_multiplier, size),
        version,
        width_multiplier,
        resolution,
        bn_epsilon=BN_EPSILON[version],
        published_top1=PUBLISHED_TOP1[version].get(width_multiplier, {}).get(resolution) if square else None,
        columns=None if square else columns,
    )


#: The 16 published variants of V1 and the 22 of V2.
PUBLISHED: tuple[ModelSpec, ...] = tuple(
    _make_spec(version, width, (resolution, resolution))
    for version, widths in PUBLISHED_TOP1.items()
    for width, resolutions in widths.items()
    for resolution in resolutions
)

#: Networks that come with weights of their own.
BUNDLED: tuple[ModelSpec, ...] = (
    ModelSpec("mobilenet_v1_0.25_digits", "v1", 0.25, 32, classes=10, input_channels=1, bn_epsilon=BN_EPSILON["v1"]),
    ModelSpec("mobilenet_v2_0.35_digits", "v2", 0.35, 32, classes=10, input_channels=1, bn_epsilon=BN_EPSILON["v2"]),
)

#: Other networks with a name: the person detectors of MLPerf Tiny and of MCUNet, and EfficientNet-Lite0, with the top-1
#: that models/official/efficientnet/lite/README.md of the repository tensorflow/tpu gives.
NAMED: tuple[ModelSpec, ...] = (
    ModelSpec("vww_96", "v1", 0.25, 96, classes=2, activation="relu"),
    ModelSpec(
        "efficientnet_lite0",
        "efficientnet_lite0",
        1.0,
        224,
        bn_epsilon=BN_EPSILON["efficientnet_lite0"],
        published_top1=75.1,
    ),
    ModelSpec(
        "proxyless_vww_80",
        "proxyless_vww",
        1.0,
        80,
        classes=2,
        padding="symmetric",
        bn_epsilon=BN_EPSILON["proxyless_vww"],
    ),
)

#: Between a person's own module and what it has, ``package.module:factory``.
SEPARATOR = ":"
_PATTERN = re.compile(r"mobilenet_(v[12])_(\d+(?:\.\d+)?)_(\d+)(?:x(\d+))?")


def list_specs() -> list[ModelSpec]:
    """Return every network that has a name: published, bundled, others."""
    return [*PUBLISHED, *BUNDLED, *NAMED]


def get_spec(name: str) -> ModelSpec:
    """Return the spec of a name: a listed one, or any ``mobilenet_v1_{width}_{resolution}`` (or v2).

    Of an image that is no square the resolution is ``{rows}x{columns}``.

    Raises
    ------
    UnknownModelError
        The name is neither; the message has the nearest names.
    ModelError
        Width or resolution are out of range.
    """
    specs = {spec.name: spec for spec in list_specs()}
    if name in specs:
        return specs[name]
    if match := _PATTERN.fullmatch(name):
        version: Version = "v1" if match[1] == "v1" else "v2"
        return _make_spec(version, float(match[2]), (int(match[3]), int(match[4] or match[3])))
    if SEPARATOR in name:
        raise UnknownModelError(f"{name}: a module of your own; `thumbnet compile` takes it, here networks have a name")
    near = difflib.get_close_matches(name, specs, n=3, cutoff=0.5)
    hint = f"near: {', '.join(near)}" if near else "names are like mobilenet_v1_0.25_128"
    raise UnknownModelError(f"no model {name!r}; {hint}; `thumbnet models` lists them")
