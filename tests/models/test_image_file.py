import io
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageOps

from thumbnet.models import image_file
from thumbnet.models.errors import ImageError
from thumbnet.models.image_file import read_image
from thumbnet.models.preprocessing import unit_preprocessing

#: Levels that 16 bits have and 8 don't, from black to white.
RAMP = (np.arange(16 * 16) * 257 + 128 * (np.arange(256) < 255)).reshape(16, 16)


def _write_tiff(path, samples, photometric=1, sample_format=1):
    """Write samples ``[H, W]`` or ``[H, W, C]`` as an uncompressed TIFF, of kinds Pillow does not write."""
    height, width, *more = samples.shape
    count = more[0] if more else 1
    bits, data = samples.dtype.itemsize * 8, samples.astype(samples.dtype.newbyteorder("<")).tobytes()
    lists = {258: [bits] * count, 339: [sample_format] * count}
    entries = {256: width, 257: height, 259: 1, 262: photometric, 277: count, 278: height, 279: len(data)}
    begin = 8 + 2 + 12 * (len(entries) + len(lists) + 1) + 4
    tail = b""
    records = [(tag, struct.pack("<HHII", tag, 4, 1, value)) for tag, value in entries.items()]
    for tag, values in lists.items():
        packed = struct.pack(f"<{count}H", *values)
        if len(packed) > 4:
            packed, tail = struct.pack("<I", begin + len(tail)), tail + packed
        records.append((tag, struct.pack("<HHI", tag, 3, count) + packed.ljust(4, b"\0")))
    records.append((273, struct.pack("<HHII", 273, 4, 1, begin + len(tail))))
    directory = b"".join(record for _, record in sorted(records))
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(records)) + directory + b"\0\0\0\0" + tail + data)
    return path


@pytest.fixture
def photo(tmp_path):
    """Make a picture of 64x32 whose red is the column and whose green is the row."""
    rows, columns = np.mgrid[0:32, 0:64]
    pixels = np.stack([columns * 4, rows * 8, np.full_like(rows, 77)], axis=-1).astype(np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "jpg", "ppm", "tif", "webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_format_has_the_channels_asked_for(tmp_path, photo, suffix, channels):
    path = tmp_path / f"image.{suffix}"
    Image.open(photo).save(path)
    pixels = np.asarray(read_image(path, channels)).astype(int)
    expected = np.asarray(Image.open(photo).convert("RGB" if channels == 3 else "L")).astype(int)
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).mean() < (16 if suffix == "gif" else 4)


def test_sixteen_bits_keep_their_levels(tmp_path):
    gray = RAMP.astype(np.uint16)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    Image.fromarray(gray).save(tmp_path / "gray.tif")
    (tmp_path / "gray.pgm").write_bytes(b"P5 16 16 65535\n" + gray.astype(">u2").tobytes())
    _write_tiff(tmp_path / "colour.tif", np.stack([gray] * 3, axis=-1), photometric=2)
    for path in sorted(tmp_path.iterdir()):
        for channels in (1, 3):
            pixels = np.asarray(read_image(path, channels)).reshape(16, 16, channels)
            assert np.abs(pixels.astype(int) - np.arange(256).reshape(16, 16, 1)).max() <= 1, path.name
            assert (pixels.min(), pixels.max()) == (0, 255), path.name


def test_a_pgm_of_ten_bits_is_scaled_by_its_largest_value(tmp_path):
    (tmp_path / "ten.pgm").write_bytes(b"P5 2 1 1023\n" + struct.pack(">2H", 1023, 512))
    assert np.asarray(read_image(tmp_path / "ten.pgm", 1)).tolist() == [[255, 128]]


@pytest.mark.parametrize(
    ("samples", "options"),
    [
        (RAMP.astype(np.float32) / 65535, {"sample_format": 3}),
        (RAMP.astype(np.float64), {"sample_format": 3}),
        (np.stack([RAMP.astype(np.float32)] * 3, axis=-1), {"sample_format": 3, "photometric": 2}),
        (RAMP.astype(np.uint32), {}),
        (RAMP.astype(np.int32), {"sample_format": 2}),
        ((RAMP - 30_000).astype(np.int16), {"sample_format": 2}),
        (RAMP.astype(np.uint16), {"photometric": 0}),
        (np.stack([RAMP.astype(np.uint8)] * 3, axis=-1), {"photometric": 8}),
    ],
    ids=["float", "double", "float colour", "32 bits", "signed 32", "signed 16", "white is zero", "CIELAB"],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_values_of_unknown_meaning_are_refused(tmp_path, samples, options, channels):
    path = _write_tiff(tmp_path / "strange.tif", samples, **options)
    with pytest.raises(ImageError, match=r"strange\.tif: ") as caught:
        read_image(path, channels)
    assert "\n" not in str(caught.value)


def test_twelve_bits_are_not_taken_for_sixteen(tmp_path):
    path = _write_tiff(tmp_path / "twelve.tif", np.full((16, 16), 0xFFFF, np.uint16))
    header = struct.pack("<HHIH", 258, 3, 1, 16)
    assert path.read_bytes().count(header) == 1
    path.write_bytes(path.read_bytes().replace(header, struct.pack("<HHIH", 258, 3, 1, 12)))
    with Image.open(path) as image:
        assert np.asarray(image).max() == 4095
    with pytest.raises(ImageError, match="no known values"):
        read_image(path, 1)


def test_a_float_pfm_is_refused(tmp_path):
    (tmp_path / "float.ppm").write_bytes(b"Pf\n2 1\n-1.0\n" + struct.pack("<2f", 0, 1))
    with pytest.raises(ImageError, match="mode F"):
        read_image(tmp_path / "float.ppm", 3)


def test_alpha_is_dropped_and_palettes_are_looked_up(tmp_path):
    red = Image.new("RGBA", (20, 10), (255, 0, 0, 128))
    palette = Image.new("P", (20, 10), 3)
    palette.putpalette([0] * 9 + [255, 0, 0])
    images = {
        "rgba.png": red,
        "rgba.webp": red,
        "palette.png": palette,
        "palette.gif": palette,
        "gray_alpha.png": Image.new("LA", (20, 10), (76, 0)),
    }
    for name, image in images.items():
        image.save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    palette.save(tmp_path / "transparent.png", transparency=bytes([0, 1, 2, 3]))
    for path in sorted(tmp_path.iterdir()):
        expected = [76, 76, 76] if path.stem == "gray_alpha" else [255, 0, 0]
        assert np.asarray(read_image(path, 3))[0, 0].tolist() == expected, path.name
        # Luma of pure red.
        assert int(np.asarray(read_image(path, 1))[0, 0]) == 76, path.name


def test_ink_becomes_light(tmp_path):
    Image.new("CMYK", (20, 10), (0, 255, 255, 0)).save(tmp_path / "cmyk.tif")
    Image.new("CMYK", (20, 10), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=100)
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_allclose(np.asarray(read_image(path, 3))[0, 0], [255, 0, 0], atol=3)
        assert abs(int(np.asarray(read_image(path, 1))[0, 0]) - 76) <= 3


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_its_exif_says(tmp_path, photo, suffix, orientation):
    path = tmp_path / f"turned.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(suffix, {})
    Image.open(photo).save(path, exif=exif, **options)
    pixels = np.asarray(read_image(path, 3)).astype(int)
    # Where the picture's first row and first column end up, by the EXIF standard.
    whole = np.asarray(Image.open(photo)).astype(int)
    expected = {
        1: whole,
        2: whole[:, ::-1],
        3: whole[::-1, ::-1],
        4: whole[::-1],
        5: whole.transpose(1, 0, 2),
        6: whole[::-1].transpose(1, 0, 2),
        7: whole[::-1, ::-1].transpose(1, 0, 2),
        8: whole[:, ::-1].transpose(1, 0, 2),
    }[orientation]
    assert pixels.shape == expected.shape
    np.testing.assert_allclose(pixels, expected, atol=6)


def test_the_first_frame_of_an_animation_is_taken(tmp_path):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    for suffix in ("gif", "png", "tif", "webp"):
        path = tmp_path / f"frames.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        np.testing.assert_allclose(np.asarray(read_image(path, 3))[0, 0], [255, 0, 0], atol=3)


def test_a_size_beyond_the_limit_is_told_before_it_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "huge.png"
    Image.new("1", (10_000, 5_001)).save(path)
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ImageError, match=r"huge\.png: 50\.0 megapixels, at most 50\.0 are read; make it smaller"):
        read_image(path, 3)


@pytest.mark.parametrize("side", [10_000, 14_000])
def test_pillows_own_limits_become_one_line_of_ours(tmp_path, recwarn, side):
    """It warns from 89 megapixels on, and refuses from 179 on."""
    path = tmp_path / "bomb.png"
    Image.new("1", (side, side)).save(path)
    with pytest.raises(ImageError, match="megapixels"):
        read_image(path, 3)
    assert not recwarn


def test_an_image_at_the_limit_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(image_file, "LARGEST_IMAGE", 200)
    Image.new("L", (20, 10)).save(tmp_path / "a.png")
    Image.new("L", (20, 11)).save(tmp_path / "b.png")
    assert read_image(tmp_path / "a.png", 1).size == (20, 10)
    with pytest.raises(ImageError, match="megapixels"):
        read_image(tmp_path / "b.png", 1)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_image_has_one_line(tmp_path, content):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"broken\.png: not an image") as caught:
        read_image(path, 3)
    assert "\n" not in str(caught.value)


def test_formats_that_start_other_programs_are_not_read(tmp_path):
    """Pillow hands EPS to Ghostscript, whatever the file is called."""
    path = tmp_path / "photo.png"
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "eps")
    path.write_bytes(file.getvalue())
    with pytest.raises(ImageError, match="not an image of a format that is read"):
        read_image(path, 3)


def test_truncated_image_is_refused_or_was_whole(photo):
    content = photo.read_bytes()
    whole = np.asarray(read_image(photo, 3))
    refused = 0
    for length in range(0, len(content), 9):
        photo.write_bytes(content[:length])
        try:
            pixels = read_image(photo, 3)
        except ImageError:
            refused += 1
        else:
            # Only a checksum or the end mark was missing.
            np.testing.assert_array_equal(np.asarray(pixels), whole)
    assert refused > 0.8 * len(content) / 9


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "jpg", "ppm", "tif", "webp"])
def test_changed_bytes_give_an_image_or_one_line(tmp_path, photo, suffix):
    path = tmp_path / f"image.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(photo).save(path, **({} if suffix in ("bmp", "gif", "ppm") else {"exif": exif}))
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
        changed = bytearray(content)
        for position in rng.integers(0, min(len(content), 400), 3):
            changed[position] = int(rng.integers(256))
        path.write_bytes(changed)
        try:
            assert read_image(path, 3).mode == "RGB"
        except ImageError as error:
            assert "\n" not in str(error)


def test_missing_images_folders_pipes_and_devices(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    for name, says in (
        ("none.png", "no such image"),
        ("dangling.png", "no such image"),
        ("circle.png", "no such image"),
        ("folder.png", "not an image but a folder"),
        ("pipe.png", "not an image but a pipe or device"),
        ("device.png", "not an image but a pipe or device"),
        ("x" * 300, "can't be read"),
    ):
        with pytest.raises(ImageError, match=says):
            read_image(tmp_path / name, 3)


def test_networks_of_other_channels_take_no_image_files(photo):
    with pytest.raises(ImageError, match="1 or 3 channels, the network takes 4"):
        unit_preprocessing(32, 4).pixels(photo)


def test_photographs_without_orientation_stay_as_pillow_reads_them(shared_data):
    for path in sorted((shared_data / "images").glob("*.jpg"))[:5]:
        with Image.open(path) as image:
            assert ImageOps.exif_transpose(image).size == image.size
            np.testing.assert_array_equal(np.asarray(read_image(path, 3)), np.asarray(image.convert("RGB")))


def test_a_damaged_file_is_told_by_us_alone(tmp_path):
    """Pillow logs of it too, which Python prints where nobody listens."""
    path = _write_tiff(tmp_path / "samples.tif", np.zeros((2, 2, 9), np.uint8), photometric=2)
    code = (
        "import sys, pathlib\nfrom thumbnet.models.image_file import ImageError, read_image\n"
        "try: read_image(pathlib.Path(sys.argv[1]), 3)\nexcept ImageError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert "samples.tif: not an image" in done.stdout
    assert done.stderr == ""
