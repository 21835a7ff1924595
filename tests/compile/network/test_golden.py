"""Golden vectors prove something."""

from dataclasses import replace

import numpy as np
import pytest

from thumbnet.compile.errors import QuantizationError
from thumbnet.compile.network.golden import make_golden
from thumbnet.compile.network.reference import run_reference

from ..networks import make_image, one_of_each_kind


def test_golden_vectors_are_the_references():
    network = one_of_each_kind()
    image = make_image(network)
    inputs, outputs = make_golden(network, [image])
    assert inputs.shape == (3, *network.input_shape) and outputs.shape == (3, 5)
    assert inputs.dtype == outputs.dtype == np.int8
    np.testing.assert_array_equal(inputs[0], image)
    for given, expected in zip(inputs, outputs, strict=True):
        np.testing.assert_array_equal(run_reference(network, given), expected)


def test_golden_noise_is_the_same_every_time_and_varied():
    network = one_of_each_kind()
    first, _ = make_golden(network)
    second, _ = make_golden(network)
    np.testing.assert_array_equal(first, second)
    assert len({image.tobytes() for image in first}) == 3
    assert first.min() < -100 and first.max() > 100


def test_a_network_with_one_answer_is_refused():
    network = one_of_each_kind()
    head = network.layers[-1]
    dead = replace(network, layers=(*network.layers[:-1], replace(head, weight=np.zeros_like(head.weight))))
    with pytest.raises(QuantizationError, match="same output for 3 different images: are these trained weights"):
        make_golden(dead)
