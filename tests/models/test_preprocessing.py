import numpy as np
import pytest
import torch
from PIL import Image

from thumbnet.models.errors import ImageError
from thumbnet.models.preprocessing import (
    Preprocessing,
    hosted_preprocessing,
    input_quant,
    load_labels,
    torchvision_preprocessing,
    unit_preprocessing,
)


@pytest.fixture
def gradient(tmp_path):
    """Make a picture of 64x32 whose red is the column and whose green is the row."""
    rows, columns = np.mgrid[0:32, 0:64]
    pixels = np.stack([columns * 4, rows * 8, np.full_like(rows, 77)], axis=-1).astype(np.uint8)
    path = tmp_path / "gradient.png"
    Image.fromarray(pixels).save(path)
    return path


def test_crop_keeps_the_centre_of_both_axes(gradient):
    # 64x32 loses 4 columns and 2 rows on each side; 56x28 of it is kept as it is at that size.
    whole = np.asarray(Image.open(gradient))
    preprocessing = hosted_preprocessing(28, 1001)
    pixels = preprocessing.pixels(gradient)
    expected = Image.fromarray(whole[2:30, 4:60]).resize((28, 28), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(pixels, np.asarray(expected))
    assert pixels.dtype == np.uint8


def test_without_crop_everything_is_kept(gradient):
    pixels = unit_preprocessing(32, 3).pixels(gradient)
    expected = Image.open(gradient).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(pixels, np.asarray(expected))


def test_gray_has_one_channel_and_other_modes_become_rgb(tmp_path):
    path = tmp_path / "palette.gif"
    Image.new("P", (20, 10), 3).save(path)
    assert unit_preprocessing(16, 1).pixels(path).shape == (16, 16, 1)
    assert unit_preprocessing(16, 3).pixels(path).shape == (16, 16, 3)
    transparent = tmp_path / "transparent.png"
    Image.new("RGBA", (20, 10), (255, 0, 0, 128)).save(transparent)
    assert unit_preprocessing(16, 3).pixels(transparent)[0, 0].tolist() == [255, 0, 0]


def test_images_of_one_pixel_work(tmp_path):
    path = tmp_path / "dot.png"
    Image.new("RGB", (1, 1), (9, 8, 7)).save(path)
    assert hosted_preprocessing(32, 1001).pixels(path)[5, 5].tolist() == [9, 8, 7]


def test_floats_are_nchw_and_scaled_by_channel(gradient):
    preprocessing = torchvision_preprocessing(32)
    pixels = preprocessing.pixels(gradient)
    tensor = preprocessing.to_float(pixels)
    assert (tuple(tensor.shape), tensor.dtype) == ((1, 3, 32, 32), torch.float32)
    # torchvision's mean 0.456 and deviation 0.224 of green.
    assert float(tensor[0, 1, 3, 4]) == pytest.approx((pixels[3, 4, 1] / 255 - 0.456) / 0.224, abs=1e-5)
    assert tuple(preprocessing.to_float(np.stack([pixels, pixels])).shape) == (2, 3, 32, 32)


@pytest.mark.parametrize("preprocessing", [hosted_preprocessing(96, 1001), unit_preprocessing(96, 1)])
def test_int8_input_is_the_pixel_minus_128(preprocessing):
    scale, zero_point = input_quant(preprocessing)
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(preprocessing.channels, axis=2)
    floats = preprocessing.to_float(pixels)[0, 0].numpy()
    quantized = np.clip(np.round(floats / np.float32(scale)) + zero_point, -128, 127).astype(np.int8)
    np.testing.assert_array_equal(quantized, (pixels[..., 0].astype(np.int16) - 128).astype(np.int8))


def test_values_of_the_known_inputs():
    assert input_quant(hosted_preprocessing(224, 1001)) == (1 / 128, 0)
    assert input_quant(unit_preprocessing(96, 3)) == (1 / 255, -128)


def test_no_int8_input_where_channels_differ():
    assert input_quant(torchvision_preprocessing(224)) is None
    assert input_quant(Preprocessing(32, 1, 1.0, (127.5,), (127.5,))) is None


def test_background_class_shifts_labels():
    assert hosted_preprocessing(128, 1001).label_offset == 1
    assert hosted_preprocessing(128, 1000).label_offset == 0


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_image_has_one_line(tmp_path, content):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"broken\.png: not an image") as caught:
        unit_preprocessing(32, 3).pixels(path)
    assert "\n" not in str(caught.value)


def test_truncated_image_is_refused_or_was_whole(gradient):
    content = gradient.read_bytes()
    whole = unit_preprocessing(32, 3).pixels(gradient)
    refused = 0
    for length in range(0, len(content), 9):
        gradient.write_bytes(content[:length])
        try:
            pixels = unit_preprocessing(32, 3).pixels(gradient)
        except ImageError:
            refused += 1
        else:
            # Only a checksum or the end mark was missing.
            np.testing.assert_array_equal(pixels, whole)
    assert refused > 0.8 * len(content) / 9


def test_missing_image_and_folder_in_its_place(tmp_path):
    with pytest.raises(ImageError, match="no such image"):
        unit_preprocessing(32, 3).pixels(tmp_path / "none.png")
    with pytest.raises(ImageError, match="not an image"):
        unit_preprocessing(32, 3).pixels(tmp_path)


def test_labels_are_read_in_the_order_of_the_table(gradient):
    folder = gradient.parent
    (folder / "b.png").write_bytes(gradient.read_bytes())
    (folder / "labels.csv").write_text('file,class_index,class_name\ngradient.png,5,"ray, electric"\nb.png,0,tench\n')
    images = load_labels(folder)
    assert [(image.path.name, image.class_index, image.class_name) for image in images] == [
        ("gradient.png", 5, "ray, electric"),
        ("b.png", 0, "tench"),
    ]


def test_folder_without_labels(gradient):
    (gradient.parent / "notes.txt").write_text("no image")
    images = load_labels(gradient.parent)
    assert [(image.path, image.class_index) for image in images] == [(gradient, None)]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("file,class_index\nnone.png,1\n", "line 2: 'none.png' is not in the folder"),
        ("file,class_index\ngradient.png,cat\n", "line 2: class_index 'cat'"),
        ("file,class_index\ngradient.png,-1\n", "line 2: class_index '-1'"),
        ("file,class_index\ngradient.png\n", "line 2: class_index ''"),
        ("name,label\ngradient.png,1\n", "needs the columns"),
        ("", "needs the columns"),
        ("file,class_index\n", "no images there"),
    ],
)
def test_bad_labels_have_one_line(gradient, table, says):
    (gradient.parent / "labels.csv").write_text(table)
    with pytest.raises(ImageError) as caught:
        load_labels(gradient.parent)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_that_are_no_text(gradient):
    (gradient.parent / "labels.csv").write_bytes(b"file,class_index\n\xff\xfe,1\n")
    with pytest.raises(ImageError, match="can't be read"):
        load_labels(gradient.parent)


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(ImageError, match="no such folder"):
        load_labels(tmp_path / "none")
    with pytest.raises(ImageError, match="no images there"):
        load_labels(tmp_path)
