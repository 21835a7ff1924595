"""From an image file to the numbers a network takes, and the labels of a folder of images."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from thumbnet.models.errors import ImageError

#: Fraction of the height and of the width that evaluation on ImageNet keeps (Inception preprocessing).
IMAGENET_CROP = 0.875
LABELS_FILE = "labels.csv"
IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a network's input.

    Parameters
    ----------
    resolution : int
        Height and width of the input in pixels.
    channels : int
        3 for RGB, 1 for gray.
    crop_fraction : float
        Part of height and width kept around the centre before resizing; 1.0 keeps all.
    mean, std : tuple of float
        One value a channel, in units of a pixel (0 to 255): the input is ``(pixel - mean) / std``.
    label_offset : int
        The network's class index minus the label's class index; 1 where class 0 is the background.
    """

    resolution: int
    channels: int
    crop_fraction: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    label_offset: int = 0

    def pixels(self, path: Path) -> NDArray[np.uint8]:
        """Read, crop and resize (bilinear) an image: uint8 ``[resolution, resolution, channels]``.

        Raises
        ------
        ImageError
            The file is missing or no image that can be read whole.
        """
        try:
            with Image.open(path) as file:
                image = file.convert("RGB" if self.channels == 3 else "L")
        except FileNotFoundError as error:
            raise ImageError(f"{path}: no such image") from error
        # Pillow's decoders raise SyntaxError and ValueError too where a file is damaged past its header.
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ImageError(f"{path}: not an image that can be read ({_one_line(error)})") from error
        if self.crop_fraction != 1.0:
            image = _crop_centre(image, self.crop_fraction)
        image = image.resize((self.resolution, self.resolution), Image.Resampling.BILINEAR)
        return np.array(image, dtype=np.uint8).reshape(self.resolution, self.resolution, self.channels)

    def to_float(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """Turn pixels ``[H, W, C]`` or ``[N, H, W, C]`` into the network's float32 input ``[N, C, H, W]``."""
        batch = torch.from_numpy(np.ascontiguousarray(pixels if pixels.ndim == 4 else pixels[None]))
        scaled = (batch.to(torch.float32) - torch.tensor(self.mean)) / torch.tensor(self.std)
        return scaled.permute(0, 3, 1, 2).contiguous()


def input_quant(preprocessing: Preprocessing) -> tuple[float, int] | None:
    """Return the input's (scale, zero point) under which the int8 value is just ``pixel - 128``, or None.

    From ``(p - mean) / std = scale * (p - 128 - zero_point)``: ``scale = 1 / std``, ``zero_point = mean - 128``. None
    where channels differ or the mean is no whole pixel value, for then no such per-tensor quantization exists.
    """
    mean, std = preprocessing.mean[0], preprocessing.std[0]
    if any(m != mean for m in preprocessing.mean) or any(s != std for s in preprocessing.std):
        return None
    if mean != int(mean) or not 0 <= mean <= 255:
        return None
    return 1.0 / std, int(mean) - 128


def hosted_preprocessing(resolution: int, classes: int, channels: int = 3) -> Preprocessing:
    """Return the preprocessing of TensorFlow's ImageNet networks: ``(p - 128) / 128``, class 0 is the background."""
    return Preprocessing(
        resolution, channels, IMAGENET_CROP, (128.0,) * channels, (128.0,) * channels, 1 if classes == 1001 else 0
    )


def torchvision_preprocessing(resolution: int, channels: int = 3) -> Preprocessing:
    """Return the preprocessing of torchvision's ImageNet networks (its mean and deviation, times 255)."""
    if channels != 3:
        return unit_preprocessing(resolution, channels)
    return Preprocessing(resolution, 3, IMAGENET_CROP, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


def unit_preprocessing(resolution: int, channels: int) -> Preprocessing:
    """Return the preprocessing of networks that take the whole image scaled to 0..1 (visual wake words, digits)."""
    return Preprocessing(resolution, channels, 1.0, (0.0,) * channels, (255.0,) * channels)


@dataclass(frozen=True)
class LabelledImage:
    """An image file, and what it shows where that is known.

    Parameters
    ----------
    path : Path
        The file.
    class_index : int or None
        Index of its class, without a background class; None in a folder without labels.
    class_name : str or None
        The class in words.
    """

    path: Path
    class_index: int | None
    class_name: str | None


def load_labels(folder: Path) -> list[LabelledImage]:
    """Return the images of a folder in the order of its labels.csv, or by name and unlabelled where it has none.

    labels.csv has the columns ``file``, ``class_index`` and, if wanted, ``class_name``.

    Raises
    ------
    ImageError
        No such folder, no images in it, or a labels.csv that can't be read or names a file that isn't there.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder}: no such folder of images")
    table = folder / LABELS_FILE
    if table.is_file():
        images = _read_labels(table)
    else:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        images = [LabelledImage(path, None, None) for path in paths]
    if not images:
        raise ImageError(f"{folder}: no images there; jpg, png and the like are read")
    return images


def _read_labels(table: Path) -> list[LabelledImage]:
    images = []
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            if not {"file", "class_index"} <= set(rows.fieldnames or ()):
                raise ImageError(f"{table}: needs the columns file and class_index, has {rows.fieldnames or 'none'}")
            for row in rows:
                path = table.parent / (row["file"] or "")
                index = row["class_index"] or ""
                if not index.isdecimal():
                    raise ImageError(f"{table}, line {rows.line_num}: class_index {index!r} is not a whole number")
                if not path.is_file():
                    raise ImageError(f"{table}, line {rows.line_num}: {row['file']!r} is not in the folder")
                images.append(LabelledImage(path, int(index), row.get("class_name")))
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise ImageError(f"{table}: can't be read ({_one_line(error)})") from error
    return images


def _crop_centre(image: Image.Image, fraction: float) -> Image.Image:
    # The margins are cut to whole pixels, not the kept part: as tf.image.central_crop does.
    width, height = image.size
    left, top = int((width - width * fraction) / 2), int((height - height * fraction) / 2)
    return image.crop((left, top, width - left, height - top))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
