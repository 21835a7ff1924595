import os
from typing import get_args

import pytest

from thumbnet.models import given_preprocessing, layers
from thumbnet.models.errors import PreprocessingError
from thumbnet.models.given_preprocessing import GivenPreprocessing, read_preprocessing_file

ALL = """
mean = [0.485, 0.456, 0.406]
std = 0.5
resize_mode = "short-side"
crop_fraction = 0.95
interpolation = "bicubic"
label_offset = 1
padding = "symmetric"
bn_epsilon = 1e-5
activation = "relu"
"""


def test_a_file_says_all(tmp_path):
    path = tmp_path / "preprocessing.toml"
    path.write_text(ALL)
    assert read_preprocessing_file(path) == {
        "mean": (0.485, 0.456, 0.406),
        "std": (0.5,),
        "resize_mode": "short-side",
        "crop_fraction": 0.95,
        "interpolation": "bicubic",
        "label_offset": 1,
        "padding": "symmetric",
        "bn_epsilon": 1e-5,
        "activation": "relu",
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("means = 0.5", "'means' is not known; did you mean mean?"),
        ("colour = 'RGB'", "'colour' is not known; known are mean, std,"),
        ("[preprocessing]\nmean = 0.5", "'preprocessing' is not known"),
        ("mean = 'half'\nstd = 1.0", "mean 'half': must be a number"),
        ("mean = []\nstd = 1.0", "mean (): must be one number, or one a channel"),
        ("mean = [0.5, true]\nstd = 1.0", "mean True: must be a number"),
        ("mean = [[0.5]]\nstd = 1.0", "mean [0.5]: must be a number"),
        ("mean = 123.675\nstd = 1.0", "for pixels scaled to 0..1: 123.675 / 255 is 0.485"),
        ("mean = -0.1\nstd = 1.0", "mean -0.1: must be a number, at least 0 and at most 1"),
        ("mean = nan\nstd = 1.0", "mean nan: must be a number"),
        ("std = 0.0", "std 0.0: must be a number, above 0"),
        ("std = inf", "std inf: must be a number"),
        ("resize_mode = 'crop'", "resize_mode 'crop': must be one of squash, short-side"),
        ("resize_mode = 1", "resize_mode 1: must be one of"),
        ("resize_mode = ['squash']", "must be one of"),
        ("crop_fraction = 0", "crop_fraction 0: must be a number above 0"),
        ("crop_fraction = 87.5", "crop_fraction 87.5: must be a number above 0 and at most 1"),
        ("crop_fraction = '0.5'", "crop_fraction '0.5': must be a number"),
        ("interpolation = 'cubic'", "interpolation 'cubic': must be one of nearest, bilinear, bicubic, lanczos"),
        ("label_offset = true", "label_offset True: must be 0, or 1"),
        ("label_offset = 1.0", "label_offset 1.0: must be 0, or 1"),
        ("label_offset = -1", "label_offset -1: must be 0, or 1"),
        ("padding = 'valid'", "padding 'valid': must be one of same, symmetric"),
        ("bn_epsilon = 0", "bn_epsilon 0: must be a number above 0"),
        ("activation = 'swish'", "activation 'swish': must be one of relu6, relu"),
        ("mean = ", "not TOML"),
        ("mean = 0.5\nmean = 0.5", "not TOML"),
    ],
)
def test_what_is_wrong_in_a_file_has_one_line(tmp_path, text, says):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(PreprocessingError, match=r"wrong\.toml: ") as caught:
        read_preprocessing_file(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_can_not_be_read(tmp_path):
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    os.mkfifo(tmp_path / "pipe.toml")
    for name, says in (("binary.toml", "not text"), ("pipe.toml", "no such file"), ("none.toml", "no such file")):
        with pytest.raises(PreprocessingError, match=says):
            read_preprocessing_file(tmp_path / name)


def test_mean_and_std_belong_together():
    with pytest.raises(PreprocessingError, match="mean is given without std"):
        GivenPreprocessing(mean=(0.5,))
    with pytest.raises(PreprocessingError, match="std is given without mean"):
        GivenPreprocessing(std=(0.5,))


def test_choices_are_those_of_the_networks():
    """They are written down twice, so that the command line's help needs no torch."""
    assert given_preprocessing.PADDINGS == get_args(layers.Padding)
    assert set(given_preprocessing.ACTIVATIONS) == set(get_args(layers.Activation))
