"""The images of a folder: by its labels.csv, in a folder a class, or without labels."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from thumbnet.models.errors import ImageError
from thumbnet.models.image_file import check_regular, read_image

LABELS_FILE = "labels.csv"
IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_COLUMNS = ("file", "class_index", "class_name")
#: What macOS and network drives put beside files, besides names with a dot in front.
_NOT_MEANT = frozenset({"@eaDir", "__MACOSX"})


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


@dataclass(frozen=True)
class ImageSet:
    """The images of a folder, and those that had to be left out.

    Parameters
    ----------
    images : tuple of LabelledImage
        In the order of labels.csv, or by class and name.
    skipped : tuple of str
        A line for each image that is named but not there, is no file, or can't be read: which, and why.
    """

    images: tuple[LabelledImage, ...]
    skipped: tuple[str, ...] = ()


def list_images(folder: Path, classes: int | None = None) -> ImageSet:
    """Return the images of a folder, unread.

    The first that applies:

    - ``labels.csv`` with the columns ``file``, ``class_index`` and, if wanted, ``class_name``, or these in that order
      without a header. A ``file`` may be a folder: all images in it are of the class.
    - Images in the folder itself: unlabelled, by name.
    - A folder a class. Names that are all whole numbers are the class indices; else the index is the folder's place in
      their sorted order, as in torchvision's ImageFolder.

    Files whose names begin with a dot, and files of other types, are passed over.

    Parameters
    ----------
    folder : Path
        Where they are.
    classes : int or None
        How many classes the network knows: checked where the sorted order of folders has to give the index.

    Raises
    ------
    ImageError
        No such folder, no images in it, both images and folders of images, other than `classes` folders, or a
        labels.csv that can't be read.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder}: no such folder of images")
    try:
        found = _list_unchecked(folder, classes)
    except OSError as error:
        raise ImageError(f"{folder}: can't be read ({error.strerror})") from error
    if not found:
        raise ImageError(f"{folder}: no images there; jpg, png and the like are read")
    return _split(found)


def load_images(
    folder: Path,
    *,
    limit: int | None = None,
    strict: bool = False,
    classes: int | None = None,
    exclude: Path | None = None,
) -> ImageSet:
    """Return the images of a folder that can be read: each is decoded once to see that.

    Parameters
    ----------
    folder, classes
        See `list_images`.
    limit : int or None
        Take only so many, spread evenly over the folder, for neighbours are often of one class.
    strict : bool
        Let the first that can't be read be an error.
    exclude : Path or None
        A folder of images to leave out, told by their content: those a network was calibrated on.

    Raises
    ------
    ImageError
        As `list_images`; none can be read; or, where `strict`, one can't.
    """
    listed = list_images(folder, classes)
    candidates: Sequence[LabelledImage] = listed.images
    if exclude is not None:
        known = {hash_image(image) for image in list_images(exclude).images}
        candidates = [image for image in candidates if hash_image(image) not in known]
        if not candidates:
            raise ImageError(f"{folder}: no images left, all {len(listed.images)} are in {exclude} too")
    images, skipped = [], list(listed.skipped)
    for image in spread(candidates, limit):
        try:
            read_image(image.path, channels=3)
        except ImageError as error:
            skipped.append(str(error))
        else:
            images.append(image)
    if skipped and strict:
        raise ImageError(f"{skipped[0]}; {len(skipped)} can't be read in all; leave --strict out to skip them")
    if not images:
        raise ImageError(f"{folder}: none of {len(skipped)} images can be read; the first: {skipped[0]}")
    return ImageSet(tuple(images), tuple(skipped))


def hash_image(image: LabelledImage) -> str:
    """Return the SHA-256 of an image's file in hexadecimal.

    Raises
    ------
    ImageError
        It can't be read.
    """
    try:
        return hashlib.sha256(image.path.read_bytes()).hexdigest()
    except OSError as error:
        raise ImageError(f"{image.path}: can't be read ({error.strerror})") from error


def spread(images: Sequence[LabelledImage], limit: int | None) -> Sequence[LabelledImage]:
    """Return at most `limit` of the images, evenly spread."""
    if limit is None or limit >= len(images):
        return images
    return [images[position * len(images) // limit] for position in range(limit)]


def _list_unchecked(folder: Path, classes: int | None) -> list[LabelledImage]:
    table = folder / LABELS_FILE
    if table.exists():
        check_regular(table)
        return list(_read_labels(table))
    loose = [path for path in _visible(folder) if path.suffix.lower() in IMAGE_SUFFIXES]
    folders = [path for path in _visible(folder) if path.is_dir()]
    if any(path.is_file() for path in loose):
        if mixed := next((path for path in folders if any(_walk(path))), None):
            raise ImageError(
                f"{folder}: has images itself and in {mixed.name}; name the one or the other, or give a {LABELS_FILE}"
            )
        return [LabelledImage(path, None, None) for path in loose]
    return _list_classes(folder, folders, classes) or [LabelledImage(path, None, None) for path in loose]


def _list_classes(folder: Path, folders: Sequence[Path], classes: int | None) -> list[LabelledImage]:
    numbered = all(_is_index(path.name) for path in folders)
    images = [
        LabelledImage(path, int(of_class.name) if numbered else place, of_class.name)
        for place, of_class in enumerate(folders)
        for path in _walk(of_class)
    ]
    if images and classes is not None and not numbered and len(folders) != classes:
        raise ImageError(
            f"{folder}: {len(folders)} folders of images, the network has {classes} classes; name the folders by class"
            f" index, or give a {LABELS_FILE} with a line FOLDER,INDEX for each"
        )
    return images


def _read_labels(table: Path) -> Iterator[LabelledImage]:
    try:
        # Spreadsheets write a byte order mark.
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            columns: Sequence[str] | None = None
            for row in rows:
                if not row:
                    continue
                if columns is None:
                    columns = _read_header(table, row)
                    if columns is row:
                        continue
                yield from _read_row(table, rows.line_num, dict(zip(columns, row, strict=False)))
            if columns is None:
                raise ImageError(f"{table}: needs the columns file and class_index, has none")
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise ImageError(f"{table}: can't be read ({' '.join(str(error).split())})") from error


def _read_header(table: Path, row: Sequence[str]) -> Sequence[str]:
    """Return the names of the columns: the row itself, or the usual ones where it is an image's."""
    if {"file", "class_index"} <= set(row):
        return row
    if len(row) > 1 and (
        Path(row[0]).suffix.lower() in IMAGE_SUFFIXES or (row[0] and (table.parent / row[0]).exists())
    ):
        return _COLUMNS
    raise ImageError(f"{table}: needs the columns file and class_index, has {row}")


def _read_row(table: Path, line: int, row: dict[str, str]) -> Iterator[LabelledImage]:
    name, index = row.get("file", ""), row.get("class_index", "").strip()
    if not _is_index(index):
        raise ImageError(f"{table}, line {line}: class_index {index!r} is not a whole number")
    image = LabelledImage(table.parent / name, int(index), row.get("class_name"))
    if name and image.path.is_dir():
        yield from (replace(image, path=path) for path in _walk(image.path))
    else:
        yield image


def _is_index(text: str) -> bool:
    # int() takes 1_0 and the digits of other scripts too, and no array holds numbers of any length.
    return text.isascii() and text.isdecimal() and len(text) < 10


def _split(found: Sequence[LabelledImage]) -> ImageSet:
    images, skipped = [], []
    for image in found:
        try:
            check_regular(image.path)
        except ImageError as error:
            skipped.append(str(error))
        else:
            images.append(image)
    return ImageSet(tuple(images), tuple(skipped))


def _walk(folder: Path) -> Iterator[Path]:
    """Give the images in a folder and all below, by name."""
    for path in _visible(folder):
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            yield path


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name not in _NOT_MEANT)
