"""What stands at the end of the kernels for Cortex-A: every way to int8 gives the reference's bytes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thumbnet.compile.kernels.neon.assembly import Epilogue
from thumbnet.compile.network.fixed_point import Requantization, quantize_scale
from thumbnet.compile.network.reference import run_reference_layers
from thumbnet.compile.plan.lowered_network import lower_network

from ..c_harness import build, emit_lowered, run_stages
from ..networks import chain_network, layers, make_convolution, make_image
from .test_cortex_a_chains import A64, SETS, _build_emulated

#: By name: zero point, clamp, scale of the results beside the one that fills int8's range, what the epilogue is then.
ENDS = {
    "linear": (9, (-128, 127), 1, Epilogue(0, clamped=False, fits=True)),
    "ReLU": (-128, (-128, 127), 1, Epilogue(0, clamped=False, fits=True, flips=True)),
    "ReLU6": (-128, (-128, 90), 1, Epilogue(0, clamped=True, fits=True, flips=True)),
    "tight": (-3, (-50, 60), 1, Epilogue(0, clamped=True, fits=True)),
    "wide": (9, (-128, 127), 500, Epilogue(0, clamped=False)),
    "wide ReLU": (-128, (-128, 127), 500, Epilogue(0, clamped=False, flips=True)),
    "shifted": (-128, (-128, 127), 5000, Epilogue(3, clamped=False, flips=True)),
}
A64_SETS = [name for name in SETS if name != "neon32"]


def _network(end):
    """Make a network whose convolutions all end in one way: on few and on many inputs, depthwise with both strides."""
    zero_point, clamp, factor, _ = ENDS[end]
    network = chain_network((19, 22), (16, 36, 40), "same")
    made = []
    for layer in network.layers:
        scale = layer.requantization.multiplier / 2.0**31 * factor
        r = Requantization(*quantize_scale(np.minimum(scale, 3.9 if factor > 1000 else 0.49)), zero_point, *clamp)
        made.append(replace(layer, requantization=r))
    return replace(network, layers=tuple(made))


@pytest.mark.emulated
@pytest.mark.needs_tools(*A64[:2])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kernels", A64_SETS)
def test_every_end(kernels, end, tmp_path):
    stage_class, core = SETS[kernels]
    network = _network(end)
    assert Epilogue.of_layer(network.layers[-1]) == ENDS[end][-1]
    lowered = lower_network(network, 1 << 20, kernels=stage_class)
    image = make_image(network)
    expected = run_reference_layers(network, image)
    for folder, program in ((tmp_path / "twins", build), (tmp_path / "a64", lambda at: _build_emulated(at, core))):
        emit_lowered(lowered, folder)
        [found] = run_stages(program(folder), lowered, [image])
        for layer, output in found.items():
            np.testing.assert_array_equal(output, expected[layer], err_msg=f"{layer}, {folder.name}")


@given(layers(kinds=("conv", "depthwise", "pointwise")), st.integers(1, 3000))
def test_results_that_fit_do_so_for_every_input(layer, factor):
    scale = np.minimum(layer.requantization.multiplier / 2.0**31 * factor, 3.9)
    requantization = replace(
        layer.requantization, **dict(zip(("multiplier", "left_shift"), quantize_scale(scale), strict=True))
    )
    layer = replace(layer, requantization=requantization)
    axes = (0, 1) if layer.kind == "depthwise_conv2d" else (1, 2, 3)
    weight = layer.weight.astype(object)
    ends = [layer.bias + np.where(weight > 0, a * weight, b * weight).sum(axes) for a, b in ((127, -128), (-128, 127))]
    results = [
        ((2 * (end << requantization.left_shift) * requantization.multiplier + 2**31) >> 32).astype(np.int64)
        for end in ends
    ]
    if Epilogue.of_layer(layer).fits:
        assert all(np.all(np.abs(result) <= 32767) for result in results)


def test_the_largest_results_that_fit():
    layer = make_convolution(np.random.default_rng(0), (1, 1, 5), outputs=1)
    weight, bias = np.full((1, 1, 1, 5), -127, np.int8), np.zeros(1, np.int32)
    largest = 5 * 127 * 128
    multiplier = ((32768 << 32) - 2**31 - 1) // (2 * largest)

    def fits(multiplier):
        r = Requantization(np.array([multiplier], np.int32), np.zeros(1, np.int32), 0, -128, 127)
        return Epilogue.of_layer(replace(layer, weight=weight, bias=bias, requantization=r)).fits

    assert fits(multiplier) and not fits(multiplier + 1)
