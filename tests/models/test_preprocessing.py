from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from thumbnet.compile.network.quantization import TensorQuant
from thumbnet.models.errors import ImageError, PreprocessingError
from thumbnet.models.given_preprocessing import GivenPreprocessing
from thumbnet.models.preprocessing import (
    Preprocessing,
    hosted_preprocessing,
    input_quant,
    timm_preprocessing,
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


def _noise(path, width, height):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("size", [(500, 333), (333, 500), (90, 301), (256, 256)])
@pytest.mark.parametrize(
    ("preprocessing", "short", "filter_"),
    [
        (torchvision_preprocessing(224), 256, Image.Resampling.BILINEAR),
        (timm_preprocessing(96), 109, Image.Resampling.BICUBIC),
        (replace(torchvision_preprocessing(224), crop_fraction=224 / 232), 232, Image.Resampling.BILINEAR),
    ],
)
def test_short_side_is_resized_and_the_central_square_kept(tmp_path, size, preprocessing, short, filter_):
    image = _noise(tmp_path / "noise.png", *size)
    # As torchvision.transforms.Resize(short) and CenterCrop(resolution) work it out.
    long = int(short * max(size) / min(size))
    size = (short, long) if size[0] <= size[1] else (long, short)
    side = preprocessing.resolution
    left, top = (round((length - side) / 2.0) for length in size)
    expected = image.resize(size, filter_).crop((left, top, left + side, top + side))
    np.testing.assert_array_equal(preprocessing.pixels(tmp_path / "noise.png"), np.asarray(expected))


def test_only_squashing_changes_the_shape_of_things(tmp_path):
    """A circle in a wide image stays one by torchvision's rule, and becomes an ellipse by TensorFlow's."""
    columns = np.arange(600)
    image = np.hypot(columns - 300, np.arange(300)[:, None] - 150) < 80
    Image.fromarray((image * 255).astype(np.uint8)).save(tmp_path / "circle.png")
    for preprocessing, ratio in ((torchvision_preprocessing(224), 1.0), (hosted_preprocessing(224, 1001), 0.5)):
        inside = preprocessing.pixels(tmp_path / "circle.png")[..., 0] > 127
        width, height = inside.any(axis=0).sum(), inside.any(axis=1).sum()
        assert width / height == pytest.approx(ratio, abs=0.03)


def test_an_image_too_narrow_to_be_enlarged_is_refused(tmp_path):
    Image.new("RGB", (1, 10_000)).save(tmp_path / "line.png")
    with pytest.raises(
        ImageError, match=r"line\.png: 1 x 10000 pixels would be 256 x 2560000 with a short side of 256"
    ):
        torchvision_preprocessing(224).pixels(tmp_path / "line.png")


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


@pytest.mark.parametrize(
    "preprocessing",
    [
        *(hosted_preprocessing(96, 1001), unit_preprocessing(96, 1)),
        *(Preprocessing(32, 1, 1.0, (mean,), (127.5,)) for mean in (127.5, 100.2, 100.8, 0.5, 255.0)),
    ],
)
def test_int8_input_is_the_pixel_minus_128(preprocessing):
    scale, zero_point = input_quant(preprocessing)
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(preprocessing.channels, axis=2)
    floats = preprocessing.to_float(pixels)[0, 0].numpy()
    quantized = TensorQuant(float(np.float32(scale)), zero_point).quantize(floats)
    np.testing.assert_array_equal(quantized, (pixels[..., 0].astype(np.int16) - 128).astype(np.int8))


def test_values_of_the_known_inputs():
    assert input_quant(hosted_preprocessing(224, 1001)) == (1 / 128, 0)
    assert input_quant(unit_preprocessing(96, 3)) == (1 / 255, -128)
    # As today's TFLite converter has it for (pixel - 127.5) / 127.5.
    assert input_quant(Preprocessing(32, 1, 1.0, (127.5,), (127.5,))) == (1 / 127.5, -1)


def test_no_int8_input_where_channels_differ():
    assert input_quant(torchvision_preprocessing(224)) is None
    assert input_quant(Preprocessing(32, 1, 1.0, (-1.0,), (127.5,))) is None


def test_background_class_shifts_labels():
    assert hosted_preprocessing(128, 1001).label_offset == 1
    assert hosted_preprocessing(128, 1000).label_offset == 0


def test_what_is_given_takes_the_place_of_what_was_assumed():
    given = GivenPreprocessing(mean=(0.5,), std=(0.25,), resize_mode="short-side", interpolation="bicubic")
    changed = hosted_preprocessing(128, 1001).changed(given)
    assert (changed.mean, changed.std) == ((127.5,) * 3, (63.75,) * 3)
    assert (changed.resize_mode, changed.interpolation) == ("short-side", "bicubic")
    assert (changed.crop_fraction, changed.label_offset) == (0.875, 1)
    assert hosted_preprocessing(128, 1001).changed(GivenPreprocessing()) == hosted_preprocessing(128, 1001)
    with pytest.raises(PreprocessingError, match="mean has 2 values, the network takes 3 channels"):
        hosted_preprocessing(128, 1001).changed(GivenPreprocessing(mean=(0.5, 0.5), std=(0.5,)))


@pytest.mark.parametrize(
    "preprocessing", [hosted_preprocessing(128, 1001), torchvision_preprocessing(128), unit_preprocessing(96, 1)]
)
def test_the_numbers_told_give_the_same_preprocessing_again(preprocessing):
    told = preprocessing.as_json()
    names = ("resize_mode", "crop_fraction", "interpolation", "label_offset")
    given = GivenPreprocessing(tuple(told["mean"]), tuple(told["std"]), **{name: told[name] for name in names})
    other = Preprocessing(told["resolution"], told["channels"], 0.5, *(((1.0,) * told["channels"],) * 2))
    assert other.changed(given) == preprocessing


def test_preprocessing_in_words():
    torchvision = torchvision_preprocessing(224)
    assert torchvision.describe_geometry() == "short side to 256 (bilinear), centre 224 x 224, RGB"
    assert torchvision.describe_scaling() == "(pixel / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]"
    hosted = hosted_preprocessing(128, 1001)
    assert hosted.describe_geometry() == "central 0.875 of height and width, stretched to 128 x 128 (bilinear), RGB"
    assert unit_preprocessing(96, 1).describe_geometry() == "stretched to 96 x 96 (bilinear), gray"
    assert unit_preprocessing(96, 1).describe_scaling() == "(pixel / 255 - 0) / 1"


@pytest.mark.parametrize(
    "change",
    [
        {"resolution": 32.0},
        {"channels": 0},
        {"mean": (1.0,)},
        {"mean": [1.0, 1.0, 1.0]},
        {"std": torch.ones(3)},
        {"std": (1.0, 0.0, 1.0)},
        {"mean": (1.0, float("nan"), 1.0)},
        {"crop_fraction": 1.5},
        {"resize_mode": "stretch"},
        {"interpolation": "cubic"},
        {"label_offset": 2},
    ],
)
def test_preprocessing_that_no_image_can_get_is_refused(change):
    with pytest.raises(PreprocessingError):
        replace(unit_preprocessing(32, 3), **change)
