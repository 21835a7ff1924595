"""Scikit-learn's handwritten digits: a fixed split, as pixels and as folders of images."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from thumbnet.models.image_folder import LABELS_FILE
from thumbnet.models.preprocessing import Preprocessing, unit_preprocessing
from thumbnet.tools.output import replace_file

#: Part of the 1797 digits that training never sees, and the seed of the split: never to change, for the bundled
#: weights are judged by it.
HELD_OUT = 0.2
SPLIT_SEED = 0
#: scikit-learn's digits have values 0 to 16.
LARGEST_VALUE = 16
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Digits:
    """A part of the data set.

    Parameters
    ----------
    pixels : ndarray
        uint8 ``[n, 8, 8]``, white on black.
    labels : ndarray
        int64 ``[n]``.
    indices : ndarray
        int64 ``[n]``: position in scikit-learn's order.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]


def split_digits() -> tuple[Digits, Digits]:
    """Return the digits to train on and the held-out ones, with all classes alike in both."""
    data = load_digits()
    pixels = np.round(data.images * (255 / LARGEST_VALUE)).astype(np.uint8)
    labels = data.target.astype(np.int64)
    parts = train_test_split(np.arange(len(labels)), test_size=HELD_OUT, stratify=labels, random_state=SPLIT_SEED)
    training, held_out = (np.sort(part) for part in parts)
    return (
        Digits(pixels[training], labels[training], training),
        Digits(pixels[held_out], labels[held_out], held_out),
    )


def enlarge(digits: Digits, resolution: int) -> NDArray[np.uint8]:
    """Return uint8 ``[n, resolution, resolution, 1]``, the bytes that the preprocessing makes of the image files."""
    size = (resolution, resolution)
    images = [Image.fromarray(image).resize(size, Image.Resampling.BILINEAR) for image in digits.pixels]
    return np.stack([np.asarray(image) for image in images])[..., None]


def make_preprocessing(resolution: int) -> Preprocessing:
    """Return what networks for the digits expect: gray, the whole image, 0 to 1."""
    return unit_preprocessing(resolution, 1)


def write_digits(digits: Digits, folder: Path, each: int) -> int:
    """Write the first `each` digits of every class as 8x8 PNG files with labels.csv; return how many were written."""
    chosen = sorted(
        int(position) for digit in range(len(WORDS)) for position in np.flatnonzero(digits.labels == digit)[:each]
    )
    folder.mkdir(parents=True, exist_ok=True)
    table = io.StringIO(newline="")
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("file", "class_index", "class_name"))
    for position in chosen:
        label = int(digits.labels[position])
        name = f"{int(digits.indices[position]):04d}_{label}.png"
        image = io.BytesIO()
        Image.fromarray(digits.pixels[position]).save(image, "png", optimize=True)
        replace_file(folder / name, image.getvalue())
        rows.writerow((name, label, WORDS[label]))
    replace_file(folder / LABELS_FILE, table.getvalue().encode())
    return len(chosen)
