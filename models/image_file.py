"""From an image file to 8-bit pixels as training pipelines see them: upright, RGB or gray, alpha dropped."""

from __future__ import annotations

import logging
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from thumbnet.models.errors import ImageError

#: Pillow's names of what is read. It knows more, some of which it hands to other programs (EPS to Ghostscript).
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
#: Four bytes each in memory, twice while an image is cropped; cameras have up to 50 million.
LARGEST_IMAGE = 50_000_000
#: Modes whose conversion to 8 bits is defined; gray with 16 bits is scaled here.
_EIGHT_BIT_MODES = frozenset({"1", "CMYK", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "YCbCr"})
_SIXTEEN_BIT_MODES = frozenset({"I;16", "I;16B", "I;16L"})
_WHITE_IS_ZERO = 0

# Without a handler, Python prints what Pillow logs of damaged files beside the one line they get.
logging.getLogger("PIL").addHandler(logging.NullHandler())

# What Pillow's decoders raise where a file is damaged past its header.
_DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError, OverflowError, MemoryError),
    *(ArithmeticError, RuntimeError, AssertionError, struct.error, zlib.error),
)


def read_image(path: Path, channels: int) -> Image.Image:
    """Read an image: upright as its EXIF orientation says, the first frame where it has several.

    16 bits become 8 (the high byte), CMYK becomes RGB without a colour profile, and alpha is dropped: as torchvision's
    and TensorFlow's loaders do.

    Parameters
    ----------
    path : Path
        A file of one of `FORMATS`.
    channels : int
        3 for mode RGB, 1 for mode L.

    Raises
    ------
    ImageError
        The file is missing, no regular file, no image that can be read whole, larger than `LARGEST_IMAGE`, or of
        values of which it is not known which is white (float, 32-bit and signed TIFF, CIELAB).
    """
    check_regular(path)
    if channels not in (1, 3):
        raise ImageError(f"{path}: images give 1 or 3 channels, the network takes {channels}")
    try:
        with warnings.catch_warnings():
            # Of sizes, which are checked here, and of metadata, which is not used.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                _check_size(path, image.width * image.height)
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                return _to_eight_bits(path, image, "RGB" if channels == 3 else "L")
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: more than {_megapixels(LARGEST_IMAGE)} megapixels; make it smaller") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{path}: not an image of a format that is read ({', '.join(FORMATS)})") from error
    except _DAMAGE as error:
        raise ImageError(f"{path}: not an image that can be read ({_one_line(error)})") from error


def check_regular(path: Path) -> None:
    """Check that a path is a file with an end: not a folder, a pipe or a device.

    Raises
    ------
    ImageError
        It is not, or it is not there.
    """
    try:
        if path.is_file():
            return
        found = path.exists()
    except OSError as error:
        raise ImageError(f"{path}: can't be read ({error.strerror})") from error
    if not found:
        raise ImageError(f"{path}: no such image")
    raise ImageError(f"{path}: not an image but a {'folder' if path.is_dir() else 'pipe or device'}")


def _check_size(path: Path, pixels: int) -> None:
    if pixels > LARGEST_IMAGE:
        raise ImageError(
            f"{path}: {_megapixels(pixels)} megapixels, at most {_megapixels(LARGEST_IMAGE)} are read; make it smaller"
        )


def _to_eight_bits(path: Path, image: Image.Image, mode: str) -> Image.Image:
    if image.mode in _EIGHT_BIT_MODES:
        # convert() copies even where nothing is to be done.
        return image if image.mode == mode else image.convert(mode)
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    full_range = tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,)) == (16,)
    white_is_zero = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO
    # Pillow scales a PGM of any depth to 16 bits, in its mode for 32.
    if (image.mode in _SIXTEEN_BIT_MODES and full_range and not white_is_zero) or (image.mode, image.format) == (
        "I",
        "PPM",
    ):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert(mode)
    raise ImageError(
        f"{path}: a {image.format} of mode {image.mode}, in which black and white have no known values; convert it to 8"
        " bits"
    )


def _megapixels(pixels: int) -> str:
    return f"{pixels / 1e6:.1f}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
