"""Chains of float32 layers on Armv8-A's kernels, computed some rows a step, close to the reference with every step.

On the host under sanitizers these are the kernels' portable twins; the assembly runs on the emulated processor and
gives the same bits.
"""

import re
import shutil

import numpy as np
import pytest

from thumbnet.compile.kernels.layouts import nhwc_layout
from thumbnet.compile.kernels.neon_f32.clamp import Clamp
from thumbnet.compile.kernels.neon_f32.depthwise_assembly import FloatDepthwiseShape, depthwise_kernel
from thumbnet.compile.kernels.neon_f32.stage import NeonF32Stage
from thumbnet.compile.kernels.neon_f32.tile_assembly import (
    REST_PIXELS,
    STEP,
    pack_kernel,
    tile_instructions,
    tile_kernel,
)
from thumbnet.compile.kernels.overlap import overlap_distance
from thumbnet.compile.network.float_reference import run_float_layers
from thumbnet.compile.plan.choose_plan import PlacedPlan
from thumbnet.compile.plan.lowered_network import build_stages, lower_network
from thumbnet.compile.plan.place_tensors import place_tensors
from thumbnet.compile.plan.stage_graph import StagePlan

from ..c_harness import build, emit_lowered, run_stages
from ..float_networks import float_network, make_float_image
from ..networks import EDGE_NETWORKS, LARGE_KERNEL_NETWORKS, chain_network, separable_network
from ..plan.test_random_plans import random_mobilenet
from .test_dsp_chains import CHAINS

A72 = ("-std=gnu11", "-O2", "-mcpu=cortex-a72", "-static", "-Wall", "-Wextra", "-Werror")
TOLERANCE = 1e-5


def lower_whole(network, *, rows, block_bytes=None, over=True):
    chain, source = network.layers, nhwc_layout(network.input_shape, 4)
    [target] = NeonF32Stage.target_layouts(network.output.output_shape, None)
    stage = NeonF32Stage(chain, source, target, rows=rows, window_bytes=4, block_bytes=block_bytes)
    plan = StagePlan(chain, stage, source, target, overlap_distance(stage) if over else None, 0, 0, 0.0)
    return build_stages(network, PlacedPlan([plan], place_tensors(network, [plan])))


def _on_a72(folder):
    if shutil.which("qemu-aarch64") is None:
        pytest.skip("needs qemu-aarch64 (apt install qemu-user)")
    return ["qemu-aarch64", "-cpu", "cortex-a72", build(folder, flags=A72, compiler="aarch64-linux-gnu-gcc")]


def _check(network, lowered, folder, *, emulated):
    """Compare the twins with the reference, and the assembly with the twins."""
    emit_lowered(lowered, folder)
    image = make_float_image(network)
    [twin] = run_stages(build(folder), lowered, [image])
    expected = run_float_layers(network, image)
    for name, found in twin.items():
        assert expected[name].size == 1 or expected[name].std() > 1e-3, f"{name} hardly varies"
        np.testing.assert_allclose(found, expected[name], rtol=0, atol=TOLERANCE * np.abs(expected[name]).max())
    if emulated:
        [assembly] = run_stages(_on_a72(folder), lowered, [image])
        for name, found in assembly.items():
            np.testing.assert_array_equal(found.view(np.uint32), twin[name].view(np.uint32), err_msg=name)


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
@pytest.mark.parametrize("name", CHAINS)
def test_a_stage_from_the_image_on(name, rows, tmp_path):
    network = float_network(chain_network(*CHAINS[name]), seed=rows)
    _check(
        network, lower_whole(network, rows=rows, block_bytes=(None, 900)[rows % 2]), tmp_path, emulated=rows in (2, 100)
    )


@pytest.mark.parametrize("rows", [1, 2, 100])
@pytest.mark.parametrize("size", [(12, 12), (7, 9)])
def test_an_inverted_residual(size, rows, tmp_path):
    network = float_network(chain_network(size, (8, 27, 8), "residual"), seed=rows)
    _check(network, lower_whole(network, rows=rows, over=rows != 2), tmp_path, emulated=rows == 2)


@pytest.mark.parametrize("name", EDGE_NETWORKS)
def test_shapes_at_the_edges(name, tmp_path):
    network = float_network(EDGE_NETWORKS[name]())
    _check(network, lower_whole(network, rows=2), tmp_path, emulated=True)


@pytest.mark.parametrize("name", LARGE_KERNEL_NETWORKS)
def test_larger_depthwise_kernels(name, tmp_path):
    network = float_network(LARGE_KERNEL_NETWORKS[name]())
    _check(network, lower_whole(network, rows=2), tmp_path, emulated=True)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 6, 7])
def test_depthwise_rows_of_every_length(width, stride, tmp_path):
    """Heights that leave one, two and three rows behind fours."""
    for padding in ("same", "symmetric"):
        network = float_network(separable_network((width + 4, width), (5, 13), stride, padding=padding), seed=width)
        _check(network, lower_whole(network, rows=100), tmp_path / padding, emulated=True)


@pytest.mark.parametrize("seed", range(8))
def test_random_plans_come_close_to_the_reference(seed, tmp_path):
    rng = np.random.default_rng(seed)
    network = float_network(random_mobilenet(rng), seed=seed)
    choices = lower_network(network, kernels=NeonF32Stage).choices
    limit = int(rng.integers(choices[-1].arena_bytes, choices[0].arena_bytes + 1))
    lowered = lower_network(network, limit, kernels=NeonF32Stage)
    assert lowered.plan.arena_bytes <= limit
    _check(network, lowered, tmp_path, emulated=True)


def test_layers_without_kernels_are_computed_by_portable_ones(tmp_path):
    network = float_network(EDGE_NETWORKS["five by five"]())
    lowered = lower_network(network, kernels=None)
    assert {stage.kernel.variant for stage in lowered.stages} == {"portable"}
    _check(network, lowered, tmp_path, emulated=False)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("fmla v8.4s, v4.4s, v0.s[0]", "fmla v8.4s, v5.4s, v0.s[0]"),  # a tile's weights
        ("ld4 {v0.d, v1.d, v2.d, v3.d}[1], [x9]", "ld4 {v0.d, v1.d, v2.d, v3.d}[0], [x9]"),  # packing
        ("fmla v30.4s, v12.4s, v3.4s", "fmla v30.4s, v12.4s, v4.4s"),  # a depthwise tap
    ],
)
def test_a_planted_bug_is_seen(right, wrong, tmp_path):
    _check_a_bug_is_seen(separable_network((9, 8), (24, 12), 1), right, wrong, tmp_path)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("fmla v10.4s, v6.4s, v1.4s", "fmla v10.4s, v6.4s, v2.4s"),  # a tap
        ("ld1 {v8.4s}, [x8], x2", "ld1 {v8.4s}, [x8]"),  # a column
    ],
)
def test_a_bug_planted_in_a_larger_kernel_is_seen(right, wrong, tmp_path):
    _check_a_bug_is_seen(separable_network((9, 18), (24, 12), 1, kernel=5), right, wrong, tmp_path)


def _check_a_bug_is_seen(integer_network, right, wrong, tmp_path):
    network = float_network(integer_network)
    lowered = lower_whole(network, rows=100)
    emit_lowered(lowered, tmp_path)
    layers = tmp_path / "net_layers.c"
    text = layers.read_text()
    assert right in text
    layers.write_text(text.replace(right, wrong))
    with pytest.raises(AssertionError):
        image = make_float_image(network)
        [twin] = run_stages(build(tmp_path), lowered, [image])
        [assembly] = run_stages(_on_a72(tmp_path), lowered, [image])
        np.testing.assert_array_equal(assembly["pointwise"], twin["pointwise"])


def _functions():
    clamp = Clamp(low=True, high=True)
    yield pack_kernel()
    for pixels in (8, *REST_PIXELS):
        for channels in (4, 8, 12):
            yield tile_kernel(pixels, channels, 27, clamp)
    for stride in (1, 2):
        for lone in (False, True):
            yield depthwise_kernel(FloatDepthwiseShape(stride, left=True, right=True, lone=lone, clamp=clamp))


@pytest.mark.parametrize("function", list(_functions()), ids=lambda function: function.name)
def test_what_a_caller_relies_on_is_kept(function):
    """The Procedure Call Standard: x18 to x29 and the low halves of v8 to v15, which a caller's floats may lie in."""
    text = "\n".join(function.lines)
    assert not set(map(int, re.findall(r"\b[xw](\d+)\b", text))) & set(range(18, 30))
    if set(map(int, re.findall(r"\b[vq](\d+)\b", text))) & set(range(8, 16)):
        saved, restored = (re.findall(rf"{name} d(\d+), d(\d+)", text) for name in ("stp", "ldp"))
        assert sorted(saved) == sorted(restored) == [("10", "11"), ("12", "13"), ("14", "15"), ("8", "9")]


def test_a_wide_tile_is_hardly_more_than_its_multiplications():
    inputs = 8 * STEP
    assert tile_instructions(8, 12, inputs, Clamp(low=True, high=True)) / (8 * 12 * inputs) < 0.265
