"""Chains of layers on the MVE kernels, computed some rows a step: every size of step gives the reference's bytes.

On the host under sanitizers these are the kernels' portable twins; `tests/runtime_tests/mcu/test_mcu_kernels.py` runs
the same networks on the emulated core.
"""

import numpy as np
import pytest

from thumbnet.compile.kernels.layouts import nhwc_layout, planar_layout
from thumbnet.compile.kernels.mve.packing import block_starts
from thumbnet.compile.kernels.mve.stage import MveStage
from thumbnet.compile.kernels.overlap import overlap_distance
from thumbnet.compile.network.reference import run_reference_layers
from thumbnet.compile.plan.choose_plan import PlacedPlan
from thumbnet.compile.plan.lowered_network import build_stages, lower_network
from thumbnet.compile.plan.place_tensors import place_tensors
from thumbnet.compile.plan.stage_graph import StagePlan

from ..c_harness import build, emit_lowered, run_stages
from ..networks import EDGE_NETWORKS, LARGE_KERNEL_NETWORKS, chain_network, make_image
from ..plan.test_stage_graph import small_mobilenet
from .test_dsp_chains import CHAINS


def _lower(network, target, *, rows, block_bytes=None, over=True):
    chain, source = network.layers, nhwc_layout(network.input_shape)
    stage = MveStage(chain, source, target, rows=rows, window_bytes=1, block_bytes=block_bytes)
    plan = StagePlan(chain, stage, source, target, overlap_distance(stage) if over else None, 0, 0, 0.0)
    return build_stages(network, PlacedPlan([plan], place_tensors(network, [plan])))


def _check(network, lowered, folder):
    emit_lowered(lowered, folder)
    image = make_image(network)
    [found] = run_stages(build(folder), lowered, [image])
    expected = run_reference_layers(network, image)[network.output.name]
    assert expected.std() > 1
    np.testing.assert_array_equal(found[network.output.name], expected)


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
@pytest.mark.parametrize("name", CHAINS)
def test_a_stage_from_the_image_on(name, rows, tmp_path):
    size, channels, padding = CHAINS[name]
    network = chain_network(size, channels, padding)
    shape = network.output.output_shape
    targets = [
        nhwc_layout(shape),
        planar_layout(shape, 1, (1, 1, 1, 1)),
        planar_layout(shape, 1, (0, 0, 1, 1), rows_first=True),
    ]
    # Each kind of output once over the sizes of steps, not all of them with each: building takes its time.
    _check(network, _lower(network, targets[rows % 3], rows=rows, block_bytes=(None, 200)[rows % 2]), tmp_path)


@pytest.mark.parametrize("rows", [1, 2, 100])
@pytest.mark.parametrize("name", LARGE_KERNEL_NETWORKS)
def test_larger_depthwise_kernels(name, rows, tmp_path):
    network = LARGE_KERNEL_NETWORKS[name]()
    target = nhwc_layout(network.output.output_shape)
    _check(network, _lower(network, target, rows=rows, block_bytes=(None, 200)[rows % 2]), tmp_path)


@pytest.mark.parametrize("rows", [1, 2, 100])
@pytest.mark.parametrize("size", [(12, 12), (7, 9)])
def test_an_inverted_residual(size, rows, tmp_path):
    network = chain_network(size, (8, 24, 8), "residual")
    _check(network, _lower(network, nhwc_layout(network.output.output_shape), rows=rows, over=rows != 2), tmp_path)


@pytest.mark.parametrize("name", EDGE_NETWORKS)
def test_shapes_at_the_edges(name, tmp_path):
    network = EDGE_NETWORKS[name]()
    _check(network, _lower(network, nhwc_layout(network.output.output_shape), rows=2), tmp_path)


@pytest.mark.parametrize(("channels", "starts"), [(8, [0, 4]), (7, [0, 3]), (5, [0, 1]), (4, [0]), (3, [0]), (1, [0])])
def test_blocks_of_channels_stay_inside(channels, starts):
    assert block_starts(channels) == starts


def _plans():
    """Return a small network in every plan from the fastest to the leanest, some left out."""
    network = small_mobilenet()
    choices = lower_network(network, kernels=MveStage).choices
    assert len(choices) > 5
    limits = [choice.arena_bytes for choice in choices[:: max(len(choices) // 6, 1)]] + [choices[-1].arena_bytes]
    return network, [lower_network(network, limit, kernels=MveStage) for limit in limits]


def test_every_plan_gives_the_references_bytes(tmp_path):
    network, plans = _plans()
    image = make_image(network)
    expected = run_reference_layers(network, image)
    over = 0
    for index, lowered in enumerate(plans):
        over += sum(stage.over is not None for stage in lowered.stages)
        emit_lowered(lowered, tmp_path / str(index))
        [found] = run_stages(build(tmp_path / str(index)), lowered, [image])
        for layer, output in found.items():
            np.testing.assert_array_equal(output, expected[layer], err_msg=f"{layer}, plan {index}")
    assert over
