"""What a generated header says of the way from a pixel to the input is what the network was made with."""

import subprocess
from dataclasses import replace

import numpy as np
import pytest

from thumbnet.compile.emit.emit_c import emit_c
from thumbnet.compile.network.quantization import TensorQuant
from thumbnet.compile.request import PixelRule

from ..c_harness import STRICT, lower_fast
from ..networks import make_convolution, one_layer_network

IMAGENET = PixelRule((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "short side to 256, centre 224 x 224")
#: The header's formula, for every pixel value of each channel.
PROGRAM = """
#include <math.h>
#include <stdio.h>
#include "net.h"
int main(void) {
    const float mean[] = {NET_MEAN_0, NET_MEAN_1, NET_MEAN_2}, std[] = {NET_STD_0, NET_STD_1, NET_STD_2};
    for (int pixel = 0; pixel < 256; ++pixel)
        for (int c = 0; c < 3; ++c) {
            int q = floorf((pixel / 255.0f - mean[c]) / std[c] / NET_INPUT_SCALE + 0.5f) + NET_INPUT_ZERO_POINT;
            putchar(q < -128 ? -128 : q > 127 ? 127 : q);
        }
    return 0;
}
"""


def _emit(folder, quant, rule):
    network = one_layer_network(make_convolution(np.random.default_rng(0), (3, 3, 3), outputs=4))
    lowered = lower_fast(replace(network, input_quant=quant))
    emit_c(lowered, "net", folder, title="a network of the tests", generator="thumbnet's tests", pixel_rule=rule)
    return (folder / "net.h").read_text()


def _quantize(quant, rule):
    pixels = np.arange(256, dtype=np.float32)[:, None]
    return quant.quantize((pixels - np.array(rule.mean, np.float32)) / np.array(rule.std, np.float32))


@pytest.mark.needs_tools("gcc")
@pytest.mark.parametrize("quant", [TensorQuant(0.018658448, -14), TensorQuant(0.0205, -8), TensorQuant(1.0, 3)])
def test_the_header_s_formula_gives_the_input_of_every_pixel(tmp_path, quant):
    header = _emit(tmp_path, quant, IMAGENET)
    assert "floorf((pixel / 255.0f - NET_MEAN_c) / NET_STD_c / NET_INPUT_SCALE + 0.5f)" in header
    assert "pixel - 128" not in header
    (tmp_path / "table.c").write_text(PROGRAM)
    subprocess.run(["gcc", *STRICT, "-Wno-conversion", "table.c", "-o", "table", "-lm"], cwd=tmp_path, check=True)
    table = subprocess.run([tmp_path / "table"], capture_output=True, check=True).stdout
    expected = _quantize(quant, IMAGENET)
    assert np.ptp(expected.astype(int)) >= 4
    np.testing.assert_array_equal(np.frombuffer(table, np.int8).reshape(256, 3), expected)


@pytest.mark.parametrize(
    ("mean", "std", "quant"),
    [
        (128.0, 128.0, TensorQuant(1 / 128, 0)),
        (0.0, 255.0, TensorQuant(float(np.float32(1 / 255)), -128)),
        (127.5, 127.5, TensorQuant(float(np.float32(1 / 127.5)), -1)),
    ],
    ids=["hosted", "unit", "keras"],
)
def test_where_it_comes_to_that_the_header_says_pixel_minus_128(tmp_path, mean, std, quant):
    rule = PixelRule((mean,) * 3, (std,) * 3, "stretched to 96 x 96")
    header = _emit(tmp_path, quant, rule)
    assert "becomes pixel - 128." in header and "floorf" not in header
    np.testing.assert_array_equal(_quantize(quant, rule), np.arange(-128, 128)[:, None].repeat(3, axis=1))
    assert "pixel - 128" not in _emit(tmp_path, TensorQuant(quant.scale, quant.zero_point + 1), rule)


@pytest.mark.needs_tools("gcc")
def test_words_of_a_file_don_t_end_the_comment(tmp_path):
    rule = PixelRule((0.0,) * 3, (255.0,) * 3, "stretched", ("weights */ int broken; /* of\nsome.pt", "word " * 60))
    header = _emit(tmp_path, TensorQuant(1.0, -128), rule)
    assert " * Assumed: weights * / int broken; / * of some.pt\n" in header
    assert "#define NET_MEAN_0 0.0f" in header and "#define NET_STD_2 1.0f" in header
    assert "#define NET_INPUT_SCALE 1.0f" in header
    (tmp_path / "main.c").write_text('#include "net.h"\nfloat x = NET_STD_0 * NET_MEAN_0;\n')
    subprocess.run(["gcc", *STRICT, "-c", "main.c"], cwd=tmp_path, check=True)


def test_without_a_rule_the_header_has_no_constants(tmp_path):
    assert "_MEAN_" not in _emit(tmp_path, TensorQuant(1.0, 0), None)


def test_ties_are_rounded_up_where_float32_has_moved_them():
    quant = TensorQuant(float(np.float32(1 / 127.5)), 0)
    ties = np.arange(-100, 100) + 0.5
    for noise in (-1e-5, 0, 1e-5):
        np.testing.assert_array_equal(quant.quantize((ties + noise) * quant.scale), ties + 0.5)
    assert quant.quantize(np.array([-9.0, 9.0])).tolist() == [-128, 127]
