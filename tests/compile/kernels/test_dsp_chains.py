"""Chains of layers on the DSP kernels, computed some rows a step: every size of step gives the reference's bytes.

On the host under sanitizers these are the kernels' portable twins; `tests/runtime_tests/mcu/test_mcu_kernels.py` runs
the same networks on the emulated cores.
"""

import numpy as np
import pytest

from thumbnet.compile.kernels.chains import chain_lengths
from thumbnet.compile.kernels.dsp.stage import DspStage
from thumbnet.compile.kernels.layouts import nhwc_layout, planar_layout
from thumbnet.compile.kernels.overlap import overlap_distance
from thumbnet.compile.kernels.rolling_rows import plan_rows
from thumbnet.compile.network.integer_network import NETWORK_INPUT, IntegerNetwork
from thumbnet.compile.network.reference import run_reference_layers
from thumbnet.compile.plan.choose_plan import PlacedPlan
from thumbnet.compile.plan.lowered_network import build_stages
from thumbnet.compile.plan.place_tensors import place_tensors
from thumbnet.compile.plan.stage_graph import StagePlan

from ..c_harness import build, emit_lowered, run_stages
from ..networks import INPUT_QUANT, LARGE_KERNEL_NETWORKS, chain_network, make_add, make_convolution, make_image

#: What borders of outputs are made of.
BORDER = 11
#: Image size, channels of the chain's tensors, padding: even and odd, one and several channel groups.
CHAINS = {
    "even": ((16, 16), (8, 16, 24), "same"),
    "odd sizes": ((13, 11), (5, 7, 3), "same"),
    "symmetric": ((14, 18), (4, 6, 10), "symmetric"),
    "one channel": ((9, 9), (1, 1, 1), "same"),
    "wide": ((8, 40), (8, 12, 16), "same"),
}


def _lower(network, target, *, rows, window_bytes=2, block_bytes=None, over=False):
    chain = network.layers
    source = nhwc_layout(network.input_shape)
    stage = DspStage(
        chain, source, target, rows=rows, window_bytes=window_bytes, border=BORDER, block_bytes=block_bytes
    )
    plan = StagePlan(chain, stage, source, target, overlap_distance(stage) if over else None, 0, 0, 0.0)
    return build_stages(network, PlacedPlan([plan], place_tensors(network, [plan])))


@pytest.mark.parametrize("window_bytes", [1, 2])
@pytest.mark.parametrize("rows", [1, 2, 3, 100])
@pytest.mark.parametrize("name", CHAINS)
def test_a_stage_from_the_image_on(name, rows, window_bytes, tmp_path):
    size, channels, padding = CHAINS[name]
    network = chain_network(size, channels, padding)
    assert chain_lengths(network, 0, frozenset())[-1] == len(network.layers)
    shape = network.output.output_shape
    targets = [
        nhwc_layout(shape),
        planar_layout(shape, 2, (1, 1, 1, 1)),
        planar_layout(shape, 1, (0, 0, 1, 1)),
        planar_layout(shape, 1, (1, 1, 1, 1), rows_first=True),
    ]
    # Each kind of output once over the sizes of steps, not all of them with each: building takes its time.
    target = targets[rows % 4]
    lowered = _lower(
        network, target, rows=rows, window_bytes=window_bytes, block_bytes=(None, 200)[rows % 2], over=True
    )
    emit_lowered(lowered, tmp_path)
    image = make_image(network)
    [found] = run_stages(build(tmp_path), lowered, [image])
    expected = run_reference_layers(network, image)[network.output.name]
    assert expected.std() > 5
    np.testing.assert_array_equal(found[network.output.name], expected)


@pytest.mark.parametrize("rows", [1, 2, 100])
@pytest.mark.parametrize("size", [(12, 12), (7, 9), (3, 3)])
def test_an_inverted_residual(size, rows, tmp_path):
    network = chain_network(size, (8, 24, 8), "residual")
    lowered = _lower(network, nhwc_layout(network.output.output_shape), rows=rows)
    emit_lowered(lowered, tmp_path)
    image = make_image(network)
    [found] = run_stages(build(tmp_path), lowered, [image])
    np.testing.assert_array_equal(found["add"], run_reference_layers(network, image)["add"])


@pytest.mark.parametrize(("rows", "window_bytes"), [(1, 2), (2, 1), (100, 2), (100, 1)])
@pytest.mark.parametrize("name", LARGE_KERNEL_NETWORKS)
def test_larger_depthwise_kernels(name, rows, window_bytes, tmp_path):
    network = LARGE_KERNEL_NETWORKS[name]()
    block_bytes = 200 if rows == 2 else None
    target = nhwc_layout(network.output.output_shape)
    lowered = _lower(network, target, rows=rows, window_bytes=window_bytes, block_bytes=block_bytes, over=True)
    emit_lowered(lowered, tmp_path)
    image = make_image(network)
    [found] = run_stages(build(tmp_path), lowered, [image])
    expected = run_reference_layers(network, image)[network.output.name]
    assert expected.std() > 1
    np.testing.assert_array_equal(found[network.output.name], expected)


@pytest.mark.parametrize("rows", [1, 2, 100])
@pytest.mark.parametrize("size", [(6, 8), (5, 3), (2, 1)])
def test_a_convolution_and_an_add(size, rows, tmp_path):
    """A convolution goes row by row, and the add reads what all rows of a step left."""
    rng = np.random.default_rng(3)
    shape = (*size, 3)
    conv = make_convolution(rng, shape, outputs=3, kernel=(3, 3), padding=(1, 1, 1, 1))
    add = make_add(rng, shape, sources=(NETWORK_INPUT, "conv"))
    network = IntegerNetwork(shape, INPUT_QUANT, (conv, add))
    lowered = _lower(network, nhwc_layout(shape), rows=rows, over=True)
    emit_lowered(lowered, tmp_path)
    image = make_image(network)
    [found] = run_stages(build(tmp_path), lowered, [image])
    np.testing.assert_array_equal(found["add"], run_reference_layers(network, image)["add"])


def test_rows_of_the_first_stage_of_visual_wake_words():
    """Windows of four and three rows where one row of the second depthwise layer is made a step."""
    network = chain_network((96, 96), (8, 16, 32), "same")
    plan, steps = plan_rows(network.layers, 1)
    assert steps == 25
    assert [rows.window_rows for rows in plan] == [0, 4, 0, 3, 0]
    assert [rows.lag for rows in plan] == [0, 1, 1, 1, 1]
