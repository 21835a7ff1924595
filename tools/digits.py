"""Scikit-learn's handwritten digits: a fixed split, as pixels and as folders of images."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from thumbnet.compile.errors import explain_os_error
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
    """Write the first `each` digits of every class as 8x8 PNG files with labels.csv; return how many were written.

    Raises
    ------
    click.ClickException
        A file is in the way, see `check_digits`, or the folder can't be written.
    """
    files = _digit_files(digits, each)
    _refuse_others(folder, files)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(explain_os_error(error, folder)) from error
    for name, content in files.items():
        if not (folder / name).exists():
            replace_file(folder / name, content)
    return len(files) - 1


def check_digits(digits: Digits, folder: Path, each: int) -> None:
    """Check that `write_digits` will find nothing of anybody else's in its way.

    Raises
    ------
    click.ClickException
        Naming a file that would have to be replaced.
    """
    _refuse_others(folder, _digit_files(digits, each))


def _refuse_others(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        same = path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content
        if os.path.lexists(path) and not same:
            raise click.ClickException(f"{folder}: holds another {name}; move it, or name another folder")


def _digit_files(digits: Digits, each: int) -> dict[str, bytes]:
    chosen = sorted(
        int(position) for digit in range(len(WORDS)) for position in np.flatnonzero(digits.labels == digit)[:each]
    )
    files: dict[str, bytes] = {}
    table = io.StringIO(newline="")
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("file", "class_index", "class_name"))
    for position in chosen:
        label = int(digits.labels[position])
        name = f"{int(digits.indices[position]):04d}_{label}.png"
        image = io.BytesIO()
        Image.fromarray(digits.pixels[position]).save(image, "png", optimize=True)
        files[name] = image.getvalue()
        rows.writerow((name, label, WORDS[label]))
    return {**files, LABELS_FILE: table.getvalue().encode()}
