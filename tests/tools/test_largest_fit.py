"""The advice where a network does not fit: of the person's own classes and images."""

from dataclasses import replace

import pytest

from thumbnet.compile.errors import DoesNotFitError
from thumbnet.models.cost import compute_cost
from thumbnet.models.variants import get_spec
from thumbnet.tools.largest_fit import PACKING, suggest_variant


def _error(flash, ram):
    return DoesNotFitError("too large", flash_bytes=flash, ram_bytes=ram)


def _spec(name, classes, channels=3):
    return replace(get_spec(name), classes=classes, input_channels=channels)


@pytest.mark.parametrize(
    ("classes", "expected"),
    # 1000 classes of 1280 channels are 1.3 MB of flash by themselves.
    [(5, "the largest MobileNet V2 that fits is 0.35 at 128 (5 classes)"), (1000, "no MobileNet V2 of a usual width")],
)
def test_classes_are_the_persons(classes, expected):
    assert expected in suggest_variant(_spec("mobilenet_v2_1.0_224", classes), _error(700_000, 300_000))


def test_input_channels_are_the_persons():
    # What the 0.5 of gray images takes to the byte: the colour one has more weights in its first layer.
    cost = compute_cost(_spec("mobilenet_v1_0.5_128", 2, 1))
    flash = int(PACKING * (cost.parameters + sum(8 * layer.output_shape[-1] for layer in cost.layers))) + 1
    widths = [suggest_variant(_spec("mobilenet_v1_1.0_224", 2, channels), _error(flash, 10**9)) for channels in (1, 3)]
    assert "0.5 at 224 (2 classes)" in widths[0]
    assert "0.25 at 224 (2 classes)" in widths[1]


def test_what_is_advised_is_smaller_than_what_does_not_fit():
    line = suggest_variant(_spec("mobilenet_v1_0.25_128", 2), _error(10**9, 10**9))
    assert "0.25 at 128" not in line
    assert "0.25 at 96" in line or "0.5 at 64" in line


def test_nothing_fits_and_nothing_is_known():
    assert "no MobileNet V1" in suggest_variant(_spec("mobilenet_v1_0.25_128", 2), _error(100, 100))
    assert "smaller width" in suggest_variant(_spec("mobilenet_v1_0.25_128", 2), DoesNotFitError("too large"))
    assert "a smaller network" in suggest_variant(_spec("efficientnet_lite0", 2), _error(10**6, 10**6))
