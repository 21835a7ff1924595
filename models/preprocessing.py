"""From an image file to the numbers a network takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from thumbnet.models.errors import ImageError, PreprocessingError
from thumbnet.models.given_preprocessing import GivenPreprocessing, Interpolation, ResizeMode, check_value, is_number
from thumbnet.models.image_file import LARGEST_IMAGE, read_image

#: Part of the image's height and width that evaluation on ImageNet keeps, by Inception's, torchvision's and timm's
#: rules; torchvision and timm take it as the part of the resized short side.
IMAGENET_CROP = 0.875
#: ImageNet's mean and standard deviation in units of a pixel: torchvision's 0.485, ... and 0.229, ..., times 255.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
#: ImageNet's classes and TensorFlow's class 0 for the background.
BACKGROUND_CLASSES = 1001
#: Part of a range by which that of calibration images may miss it.
_RANGE_TOLERANCE = 0.1
_IMAGENET_CLASSES = (1000, BACKGROUND_CLASSES)


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a network's input.

    Parameters
    ----------
    resolution : int
        Height and width of the input in pixels; of an image that is no square its height.
    channels : int
        3 for RGB, 1 for gray.
    crop_fraction : float
        Part of height and width kept around the centre; 1.0 keeps all.
    mean, std : tuple of float
        One value a channel, in units of a pixel (0 to 255): the input is ``(pixel - mean) / std``.
    label_offset : int
        The network's class index minus the label's class index; 1 where class 0 is the background.
    resize_mode : {"squash", "short-side"}
        "squash" cuts the centre out of both axes and stretches it to a square, as TensorFlow does. "short-side" resizes
        the short side to ``resolution / crop_fraction`` and keeps the central square, as torchvision and timm do.
    interpolation : {"nearest", "bilinear", "bicubic", "lanczos"}
        Pillow's filter of that name, which averages over what becomes one pixel.
    width : int or None
        Of the input, where that is no square.

    Raises
    ------
    PreprocessingError
        No image can be brought to that.
    """

    resolution: int
    channels: int
    crop_fraction: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    label_offset: int = 0
    resize_mode: ResizeMode = "squash"
    interpolation: Interpolation = "bilinear"
    width: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no image can be brought to."""
        for name in ("resolution", "channels", "width"):
            value = getattr(self, name)
            if name == "width" and value is None:
                continue
            if type(value) is not int or value < 1:
                raise PreprocessingError(f"{name} {value!r:.60}: must be a whole number above 0")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if not isinstance(values, tuple) or len(values) != self.channels or not all(map(is_number, values)):
                raise PreprocessingError(f"{name} {values!r:.60}: must be {self.channels} numbers, one a channel")
        if min(self.std) <= 0:
            raise PreprocessingError(f"std {self.std!r:.60}: must be above 0")
        for name in ("crop_fraction", "resize_mode", "interpolation", "label_offset"):
            check_value(name, getattr(self, name))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        return self.resolution, self.resolution if self.width is None else self.width

    def of_size(self, size: tuple[int, int]) -> Preprocessing:
        """Return this for another height and width."""
        height, width = size
        return replace(self, resolution=height, width=None if height == width else width)

    @property
    def short_side(self) -> int:
        """What the short side is resized to in mode "short-side", in pixels (rounded down, as timm does)."""
        # 224 / (224 / 232) is a trifle below 232.
        return math.floor(self.resolution / self.crop_fraction + 1e-6)

    def pixels(self, path: Path) -> NDArray[np.uint8]:
        """Read, crop and resize an image: uint8 ``[height, width, channels]``.

        Raises
        ------
        ImageError
            The file is missing, no image that can be read whole, or too large, see
            `thumbnet.models.image_file.read_image`.
        """
        image = read_image(path, self.channels)
        resample = Image.Resampling[self.interpolation.upper()]
        height, width = self.size
        if self.resize_mode == "squash":
            image = _crop_part(image, self.crop_fraction).resize((width, height), resample)
        elif self.width is None:
            image = _crop_centre(_resize_short_side(path, image, self.short_side, resample), self.size)
        else:
            image = _crop_centre(_cover(path, image, self.size, self.crop_fraction, resample), self.size)
        return np.array(image, dtype=np.uint8).reshape(height, width, self.channels)

    def to_float(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """Turn pixels ``[H, W, C]`` or ``[N, H, W, C]`` into the network's float32 input ``[N, C, H, W]``."""
        batch = torch.from_numpy(np.ascontiguousarray(pixels if pixels.ndim == 4 else pixels[None]))
        scaled = (batch.to(torch.float32) - torch.tensor(self.mean)) / torch.tensor(self.std)
        return scaled.permute(0, 3, 1, 2).contiguous()

    def changed(self, given: GivenPreprocessing) -> Preprocessing:
        """Return this with what a person says in place of what it has.

        Raises
        ------
        PreprocessingError
            The network takes another number of channels.
        """
        changes: dict[str, Any] = {name: value for name, value in vars(given).items() if value is not None}
        for name in changes.keys() & {"mean", "std"}:
            values = changes[name] * (self.channels if len(changes[name]) == 1 else 1)
            if len(values) != self.channels:
                raise PreprocessingError(
                    f"{name} has {len(values)} values, the network takes {self.channels} channels; give 1 or"
                    f" {self.channels}"
                )
            # To a millionth of a pixel value: 0.501960784 is meant to be 128 / 255.
            changes[name] = tuple(round(255 * value, 6) for value in values)
        return replace(self, **changes)

    def describe_geometry(self) -> str:
        """Return how the image is cropped and resized, in words."""
        height, width = self.size
        size = f"{width} x {height}"
        colours = "RGB" if self.channels == 3 else "gray"
        if self.resize_mode == "short-side":
            if self.width is not None:
                part = "" if self.crop_fraction == 1 else f"{self.crop_fraction:.4g} of what "
                return f"{part}covers {size} ({self.interpolation}), centre cut out, {colours}"
            return f"short side to {self.short_side} ({self.interpolation}), centre {size}, {colours}"
        part = "" if self.crop_fraction == 1 else f"central {self.crop_fraction:.4g} of height and width, "
        return f"{part}stretched to {size} ({self.interpolation}), {colours}"

    def describe_scaling(self) -> str:
        """Return how a pixel becomes a number, in words."""
        return f"(pixel / 255 - {_spell(self.mean)}) / {_spell(self.std)}"

    def as_json(self) -> dict[str, Any]:
        """Return every number, and the rule in words; mean and std for pixels scaled to 0..1, as options take them."""
        return {
            "geometry": self.describe_geometry(),
            "scaling": self.describe_scaling(),
            "resolution": self.resolution,
            "width": self.width,
            "channels": self.channels,
            "resize_mode": self.resize_mode,
            "crop_fraction": self.crop_fraction,
            "short_side": self.short_side if self.resize_mode == "short-side" else None,
            "interpolation": self.interpolation,
            "mean": _scale_to_one(self.mean),
            "std": _scale_to_one(self.std),
            "label_offset": self.label_offset,
        }


def input_quant(preprocessing: Preprocessing) -> tuple[float, int] | None:
    """Return the input's (scale, zero point) under which the int8 value is just ``pixel - 128``, or None.

    From ``(p - mean) / std = scale * (p - 128 - zero_point)``: ``scale = 1 / std``, ``zero_point = mean - 128``;
    where the mean is no whole pixel value it is rounded half down, which rounding the int8 value half up makes good.
    None where channels differ, for then no such per-tensor quantization exists, or the mean is no value of a pixel.
    """
    mean, std = preprocessing.mean[0], preprocessing.std[0]
    if len({*preprocessing.mean}) > 1 or len({*preprocessing.std}) > 1 or not 0 <= mean <= 255:
        return None
    return 1.0 / std, math.ceil(mean - 0.5) - 128


def has_quant(preprocessing: Preprocessing, quant: tuple[float, int]) -> bool:
    """Say whether a pixel less 128 is its int8 value under a scale and zero point."""
    expected = input_quant(preprocessing)
    return expected is not None and bool(np.isclose(expected[0], quant[0], rtol=1e-5)) and expected[1] == quant[1]


def nearest_preprocessing(known: Sequence[Preprocessing], quant: tuple[float, int]) -> Preprocessing:
    """Return the preprocessing that an input's int8 scale and zero point belong to.

    That is a known one whose pixels less 128 they give, or the first of those whose range they nearly have: ranges are
    those of the images that somebody calibrated with. Otherwise it is that under which the int8 value is the pixel less
    128, as the first of the known ones brings an image to pixels.
    """
    scale, zero_point = quant
    ends = scale * (np.array([-128, 127]) - zero_point)
    for preprocessing in [one for one in known if has_quant(one, quant)] or known:
        mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
        reached = np.array([(-mean / std).min(), ((255 - mean) / std).max()])
        if np.abs(ends - reached).max() <= _RANGE_TOLERANCE * np.ptp(reached):
            return preprocessing
    return scaled_preprocessing(known[0], np.array([scale]), np.array([-scale * (zero_point + 128)]))


def hosted_preprocessing(resolution: int, classes: int, channels: int = 3) -> Preprocessing:
    """Return the preprocessing of TensorFlow's ImageNet networks: ``(p - 128) / 128``, class 0 is the background."""
    offset = 1 if classes == BACKGROUND_CLASSES else 0
    return Preprocessing(resolution, channels, IMAGENET_CROP, (128.0,) * channels, (128.0,) * channels, offset)


def keras_preprocessing(resolution: int, classes: int, channels: int = 3) -> Preprocessing:
    """Return the preprocessing of Keras' MobileNets: ``p / 127.5 - 1``; ImageNet's crop for its classes, else none."""
    crop = IMAGENET_CROP if classes in _IMAGENET_CLASSES else 1.0
    offset = 1 if classes == BACKGROUND_CLASSES else 0
    return Preprocessing(resolution, channels, crop, (127.5,) * channels, (127.5,) * channels, offset)


def scaled_preprocessing(
    usual: Preprocessing, scale: NDArray[np.float64], offset: NDArray[np.float64], decimals: int = 6
) -> Preprocessing:
    """Return a preprocessing whose input is ``p * scale + offset``, with one number or one a channel each.

    Mean and std are rounded to `decimals` of a pixel value: ``1 / (1 / 127.5)`` is meant to be 127.5.
    """

    def spread(values: NDArray[np.float64]) -> tuple[float, ...]:
        # Plus 0 makes -0 a 0.
        return tuple(map(float, np.broadcast_to(np.round(values, decimals) + 0.0, usual.channels)))

    return replace(usual, mean=spread(-offset / scale), std=spread(1 / scale))


def torchvision_preprocessing(resolution: int, channels: int = 3) -> Preprocessing:
    """Return the preprocessing of torchvision's ImageNet networks; gray images, which it has none for, are 0..1."""
    if channels != 3:
        return unit_preprocessing(resolution, channels)
    return Preprocessing(resolution, 3, IMAGENET_CROP, IMAGENET_MEAN, IMAGENET_STD, resize_mode="short-side")


def timm_preprocessing(resolution: int, channels: int = 3) -> Preprocessing:
    """Return the preprocessing of timm's MobileNets: torchvision's, but bicubic."""
    return replace(torchvision_preprocessing(resolution, channels), interpolation="bicubic")


def unit_preprocessing(resolution: int, channels: int) -> Preprocessing:
    """Return the preprocessing of networks that take the whole image scaled to 0..1 (visual wake words, digits)."""
    return Preprocessing(resolution, channels, 1.0, (0.0,) * channels, (255.0,) * channels)


def raw_preprocessing(resolution: int, channels: int) -> Preprocessing:
    """Return the preprocessing of networks that take the whole image's pixel values, 0..255, as they are."""
    return Preprocessing(resolution, channels, 1.0, (0.0,) * channels, (1.0,) * channels)


def _crop_part(image: Image.Image, fraction: float) -> Image.Image:
    if fraction == 1:
        return image
    # The margins are cut to whole pixels, not the kept part: as tf.image.central_crop does.
    width, height = image.size
    left, top = int((width - width * fraction) / 2), int((height - height * fraction) / 2)
    return image.crop((left, top, width - left, height - top))


def _resize_short_side(path: Path, image: Image.Image, side: int, resample: Image.Resampling) -> Image.Image:
    # Rounded down, as torchvision.transforms.Resize does.
    width, height = (int(side * length / min(image.size)) for length in image.size)
    if width * height > LARGEST_IMAGE:
        raise ImageError(
            f"{path}: {image.width} x {image.height} pixels would be {width} x {height} with a short side of {side};"
            " cut it to a part that is less narrow"
        )
    return image.resize((width, height), resample)


def _cover(
    path: Path, image: Image.Image, size: tuple[int, int], fraction: float, resample: Image.Resampling
) -> Image.Image:
    """Resize an image until it covers so many rows and columns, of which the crop keeps a part."""
    factor = max(size[1] / image.width, size[0] / image.height) / fraction
    width, height = (max(round(length * factor), least) for length, least in zip(image.size, size[::-1], strict=True))
    if width * height > LARGEST_IMAGE:
        raise ImageError(
            f"{path}: {image.width} x {image.height} pixels would be {width} x {height}; cut it to a part that is less"
            " narrow"
        )
    return image.resize((width, height), resample)


def _crop_centre(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    # Rounded half to even, as torchvision.transforms.CenterCrop does.
    height, width = size
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _scale_to_one(pixels: Sequence[float]) -> list[float]:
    return [float(f"{value / 255:.9g}") for value in pixels]


def _spell(pixels: Sequence[float]) -> str:
    words = [f"{value / 255:.4g}" for value in pixels]
    return words[0] if len(set(words)) == 1 else f"[{', '.join(words)}]"
