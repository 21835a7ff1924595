"""Chains of layers on the kernels for Cortex-A: every size of step gives the reference's bytes.

On the host under sanitizers these are the kernels' portable twins; the assembly of the same C runs in QEMU's user mode.
"""

import itertools
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from thumbnet.compile.kernels.dotprod.stage import DotprodStage
from thumbnet.compile.kernels.layouts import nhwc_layout
from thumbnet.compile.kernels.neon.stage import NeonStage
from thumbnet.compile.kernels.neon32.stage import Neon32Stage
from thumbnet.compile.kernels.overlap import overlap_distance
from thumbnet.compile.network.integer_network import NETWORK_INPUT
from thumbnet.compile.network.reference import run_reference_layers
from thumbnet.compile.plan.choose_plan import PlacedPlan
from thumbnet.compile.plan.lowered_network import build_stages, lower_network
from thumbnet.compile.plan.place_tensors import place_tensors
from thumbnet.compile.plan.stage_graph import StagePlan

from ..c_harness import MAIN, build, emit_lowered, run_stages
from ..networks import (
    EDGE_NETWORKS,
    LARGE_KERNEL_NETWORKS,
    chain_network,
    make_convolution,
    make_image,
    one_layer_network,
    separable_network,
)
from ..plan.test_random_plans import random_mobilenet
from ..plan.test_stage_graph import small_mobilenet
from .test_dsp_chains import CHAINS

SETS = {
    "neon": (NeonStage, "cortex-a72"),
    "dotprod": (DotprodStage, "cortex-a76"),
    "neon32": (Neon32Stage, "cortex-a7"),
}
#: Of A64 and A32: compiler, emulator, and what selects the instructions beside the core.
A64 = ("aarch64-linux-gnu-gcc", "qemu-aarch64", ())
A32 = ("arm-linux-gnueabihf-gcc", "qemu-arm", ("-mfpu=neon-vfpv4", "-mfloat-abi=hard"))
TOOLS = (*A64[:2], *A32[:2])
#: One wrong instruction each, and the kernels whose bytes it must change.
PLANTED = {
    "a product": ("neon", "smlal v8.8h, v0.8b, v4.8b", "smlal v8.8h, v1.8b, v4.8b"),
    "a widened sum": ("neon", "sadalp v20.4s", "saddlp v20.4s"),
    "a column": ("neon", "ld1 {v20.16b}, [x8], x2", "ld1 {v20.16b}, [x9], x2"),
    "a dot product": ("dotprod", "v2.4b[1]", "v2.4b[2]"),
    "a column's rows": ("dotprod", "v26.16b}, v28.16b", "v26.16b}, v29.16b"),
    "a bias": ("dotprod", "v15.4s}, [x5]", "v15.4s}, [x16]"),
    "a pair of inputs": ("neon32", "vmlal.s8 q8, d8, d1", "vmlal.s8 q8, d8, d0"),
    "a run's first product": ("neon32", "vmull.s8 q8, d4, d0", "vmlal.s8 q8, d4, d0"),
    "a run widened": ("neon32", "vpadal.s16 q12, q8", "vpaddl.s16 q12, q8"),
    "a row": ("neon32", "vld1.8 {d7}, [r9], r2", "vld1.8 {d7}, [r8], r2"),
    "a zero point": ("neon32", "vqadd.s16 q14, q14, q9", "vqadd.s16 q14, q14, q10"),
}
#: The same of the kernels of 5x5 and 7x7.
PLANTED_LARGE = {
    "a product": ("neon", "smlal v26.8h, v8.8b, v3.8b", "smlal v26.8h, v9.8b, v3.8b"),
    "a sum of sixteen": ("neon", "saddw2 v21.4s, v21.4s, v27.8h", "saddw2 v21.4s, v21.4s, v26.8h"),
    "the padding": ("neon", "ldr q31, [x13, #112]", "ldr q31, [x13, #96]"),
    "the next group's column": ("dotprod", "mov w16, #2", "mov w16, #3"),
    "a row of the input": ("neon32", "ldr r8, [r9], #4", "ldr r8, [r9]"),
    "a column of eight": ("neon32", "vmlal.s8 q14, d9, d3", "vmlal.s8 q14, d8, d3"),
    "a bias of eight": ("neon32", "add lr, r6, #72", "add lr, r6, #76"),
}


def _lower(network, stage_class, *, rows, block_bytes=None, over=True):
    chain, source, target = network.layers, nhwc_layout(network.input_shape), nhwc_layout(network.output.output_shape)
    stage = stage_class(chain, source, target, rows=rows, window_bytes=1, block_bytes=block_bytes)
    plan = StagePlan(chain, stage, source, target, overlap_distance(stage) if over else None, 0, 0, 0.0)
    return build_stages(network, PlacedPlan([plan], place_tensors(network, [plan])))


def _build_emulated(folder, core):
    gcc, qemu, more = A32 if core == "cortex-a7" else A64
    (folder / "main.c").write_text(MAIN.format(name="net", NAME="NET"))
    sources = ["net.c", "net_layers.c", "net_weights.c", "main.c"]
    flags = ("-std=gnu11", "-O2", f"-mcpu={core}", *more, "-Wall", "-Wextra", "-Werror", "-static")
    command = [gcc, *flags, *sources, "-o", "emulated"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    runner = folder / "run_emulated"
    runner.write_text(f'#!/bin/sh\nexec {qemu} -cpu {core} "$(dirname "$0")/emulated"\n')
    runner.chmod(0o755)
    return runner


def _check(network, lowered, folder, *, core=None):
    emit_lowered(lowered, folder)
    image = make_image(network)
    [found] = run_stages(build(folder) if core is None else _build_emulated(folder, core), lowered, [image])
    expected = run_reference_layers(network, image)[network.output.name]
    assert expected.std() > 1
    np.testing.assert_array_equal(found[network.output.name], expected)


@pytest.mark.parametrize("rows", [1, 100])
@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("kernels", SETS)
def test_twins(kernels, name, rows, tmp_path):
    network = chain_network(*CHAINS[name])
    _check(network, _lower(network, SETS[kernels][0], rows=rows, block_bytes=(None, 200)[rows % 2]), tmp_path)


@pytest.mark.emulated
@pytest.mark.needs_tools(*TOOLS)
@pytest.mark.parametrize("rows", [2, 100])
@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("kernels", SETS)
def test_assembly(kernels, name, rows, tmp_path):
    stage_class, core = SETS[kernels]
    network = chain_network(*CHAINS[name])
    _check(network, _lower(network, stage_class, rows=rows, block_bytes=(None, 200)[rows % 2]), tmp_path, core=core)


@pytest.mark.emulated
@pytest.mark.needs_tools(*TOOLS)
@pytest.mark.parametrize("size", [(12, 12), (7, 9)])
@pytest.mark.parametrize("kernels", SETS)
def test_an_inverted_residual(kernels, size, tmp_path):
    stage_class, core = SETS[kernels]
    network = chain_network(size, (8, 24, 8), "residual")
    _check(network, _lower(network, stage_class, rows=2), tmp_path, core=core)
    _check(network, _lower(network, stage_class, rows=100, over=False), tmp_path / "twins")


@pytest.mark.emulated
@pytest.mark.needs_tools(*TOOLS)
@pytest.mark.parametrize("name", LARGE_KERNEL_NETWORKS)
@pytest.mark.parametrize("kernels", SETS)
def test_larger_depthwise_kernels(kernels, name, tmp_path):
    stage_class, core = SETS[kernels]
    network = LARGE_KERNEL_NETWORKS[name]()
    _check(network, _lower(network, stage_class, rows=2, block_bytes=200), tmp_path, core=core)
    _check(network, _lower(network, stage_class, rows=100), tmp_path / "twins")


@pytest.mark.emulated
@pytest.mark.needs_tools(*TOOLS)
@pytest.mark.parametrize("kernel", [5, 7])
@pytest.mark.parametrize("kernels", SETS)
def test_larger_depthwise_kernels_of_any_weights(kernels, kernel, tmp_path):
    """Weights of which more and more products fit int16: the rows of taps have four parts, or three, to one."""
    stage_class, core = SETS[kernels]
    network = separable_network((5, 11), (64, 8), 1, kernel=kernel)
    depthwise, pointwise = network.layers
    most = np.repeat([127, 80, 60, 30], 16)
    depthwise = replace(depthwise, weight=np.clip(depthwise.weight, -most, most).astype(np.int8))
    network = replace(network, layers=(depthwise, pointwise))
    lowered = _lower(network, stage_class, rows=100)
    declared = [line for line in lowered.stages[0].kernel.definitions if "TN_NEON_DECLARE" in line]
    assert len(declared) == kernel // 2 + 1
    _check(network, lowered, tmp_path, core=core)


@pytest.mark.parametrize("name", EDGE_NETWORKS)
@pytest.mark.parametrize("kernels", SETS)
def test_shapes_at_the_edges(kernels, name, tmp_path):
    network = EDGE_NETWORKS[name]()
    _check(network, _lower(network, SETS[kernels][0], rows=2), tmp_path)


@pytest.mark.emulated
@pytest.mark.needs_tools(*TOOLS)
@pytest.mark.parametrize("kernels", SETS)
@pytest.mark.parametrize(
    ("size", "inputs", "outputs"),
    [((3, 3), 1, 1), ((2, 7), 3, 2), ((5, 5), 17, 13), ((1, 8), 40, 5), ((4, 4), 24, 100), ((1, 1), 60, 3)],
)
def test_any_number_of_channels(kernels, size, inputs, outputs, tmp_path):
    stage_class, core = SETS[kernels]
    network = one_layer_network(make_convolution(np.random.default_rng(0), (*size, inputs), outputs=outputs))
    lowered = lower_network(network, 1 << 20, kernels=stage_class)
    _check(network, lowered, tmp_path, core=core)
    _check(network, lowered, tmp_path / "twins")


#: All weights are of the largest magnitude, and all pixels the darkest or the brightest: no sum could be larger.
EXTREMES = [(weight, pixel) for weight in (-127, 127) for pixel in (-128, 127)]


@pytest.mark.emulated
@pytest.mark.needs_tools(*TOOLS)
@pytest.mark.parametrize(("weight", "pixel"), EXTREMES)
@pytest.mark.parametrize("sizes", [(3, 3), (5, 7)])
@pytest.mark.parametrize("kernels", SETS)
def test_no_sum_overflows(kernels, sizes, weight, pixel, tmp_path):
    stage_class, core = SETS[kernels]
    network = chain_network((6, 6), (30, 64, 40), "same", kernels=sizes)
    for layer, follower in itertools.pairwise((*network.layers, None)):
        depthwise = layer.kind == "depthwise_conv2d"
        products = layer.weight[..., 0].size if depthwise else layer.weight[0].size
        heaviest = replace(
            layer,
            source=NETWORK_INPUT,
            weight=np.full_like(layer.weight, weight),
            # Takes the sum back to where no clamp hides what became of it.
            bias=np.full_like(layer.bias, -products * weight * pixel),
        )
        # A depthwise layer is on these kernels with the one behind it only.
        heavy = replace(one_layer_network(heaviest), layers=(heaviest, follower) if depthwise else (heaviest,))
        image = np.full(heavy.input_shape, pixel, np.int8)
        lowered = lower_network(heavy, 1 << 20, kernels=stage_class)
        assert all(stage.kernel.variant.startswith(kernels) for stage in lowered.stages)
        emit_lowered(lowered, tmp_path / layer.name)
        [found] = run_stages(_build_emulated(tmp_path / layer.name, core), lowered, [image])
        name = heavy.output.name
        np.testing.assert_array_equal(found[name], run_reference_layers(heavy, image)[name], err_msg=name)


@pytest.mark.emulated
@pytest.mark.needs_tools(*TOOLS)
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kernels", SETS)
def test_random_networks(kernels, seed, tmp_path):
    stage_class, core = SETS[kernels]
    network = random_mobilenet(np.random.default_rng(seed))
    lowered = lower_network(network, (None, 1)[seed % 2], kernels=stage_class)
    emit_lowered(lowered, tmp_path)
    image = make_image(network)
    [found] = run_stages(_build_emulated(tmp_path, core), lowered, [image])
    expected = run_reference_layers(network, image)
    for layer, output in found.items():
        np.testing.assert_array_equal(output, expected[layer], err_msg=layer)


@pytest.mark.emulated
@pytest.mark.needs_tools(*TOOLS)
@pytest.mark.parametrize("bug", PLANTED)
def test_planted_bugs_are_seen(bug, tmp_path):
    network = chain_network((16, 16), (16, 36, 40), "same")
    _check_a_bug_is_seen(network, *PLANTED[bug], tmp_path)


@pytest.mark.emulated
@pytest.mark.needs_tools(*TOOLS)
@pytest.mark.parametrize("bug", PLANTED_LARGE)
def test_bugs_planted_in_larger_kernels_are_seen(bug, tmp_path):
    network = chain_network((26, 26), (16, 36, 40), "same", kernels=(5, 7))
    _check_a_bug_is_seen(network, *PLANTED_LARGE[bug], tmp_path)


def _check_a_bug_is_seen(network, kernels, right, wrong, tmp_path):
    stage_class, core = SETS[kernels]
    lowered = _lower(network, stage_class, rows=100)
    emit_lowered(lowered, tmp_path)
    layers = tmp_path / "net_layers.c"
    text = layers.read_text()
    assert right in text
    layers.write_text(text.replace(right, wrong))
    image = make_image(network)
    [found] = run_stages(_build_emulated(tmp_path, core), lowered, [image])
    expected = run_reference_layers(network, image)[network.output.name]
    assert not np.array_equal(found[network.output.name], expected)


@pytest.mark.emulated
@pytest.mark.needs_tools(*TOOLS)
@pytest.mark.parametrize("kernels", SETS)
def test_every_plan_gives_the_references_bytes(kernels, tmp_path):
    stage_class, core = SETS[kernels]
    network = small_mobilenet()
    choices = lower_network(network, kernels=stage_class, spent_on_ram=0.0).choices
    assert len(choices) > 3
    image = make_image(network)
    expected = run_reference_layers(network, image)
    for index, limit in enumerate(
        {choice.arena_bytes for choice in (choices[0], choices[len(choices) // 2], choices[-1])}
    ):
        lowered = lower_network(network, limit, kernels=stage_class)
        emit_lowered(lowered, tmp_path / str(index))
        [found] = run_stages(_build_emulated(tmp_path / str(index), core), lowered, [image])
        for layer, output in found.items():
            np.testing.assert_array_equal(output, expected[layer], err_msg=f"{layer}, plan {index}")


#: Runs a network with a parallel-for of real threads, and says how many pieces there were.
THREADED = """
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include "net.h"
typedef struct { net_task_t *task; void *context; int32_t piece; } job_t;
static int32_t most;
static void *do_job(void *of) { job_t *job = of; job->task(job->context, job->piece); return NULL; }
static void parallel_for(net_task_t *task, void *context, int32_t pieces, void *user) {
    pthread_t threads[16];
    job_t jobs[16];
    if (pieces > 16 || user != &most)
        abort();
    most = pieces > most ? pieces : most;
    for (int32_t i = 0; i < pieces; ++i) {
        jobs[i] = (job_t){task, context, i};
        pthread_create(&threads[i], NULL, do_job, &jobs[i]);
    }
    for (int32_t i = 0; i < pieces; ++i)
        pthread_join(threads[i], NULL);
}
int main(int count, char **arguments) {
    if (count > 1)
        net_set_threads(atoi(arguments[1]), parallel_for, &most);
    if (fread(net_input(), 1, NET_INPUT_BYTES, stdin) != NET_INPUT_BYTES)
        return 1;
    net_run();
    fwrite(net_output(), 1, NET_OUTPUT_BYTES, stdout);
    fprintf(stderr, "%d", (int)most);
    return 0;
}
"""


@pytest.mark.needs_tools("gcc")
@pytest.mark.parametrize("kernels", SETS)
def test_any_number_of_threads_gives_the_same_bytes(kernels, tmp_path):
    network = chain_network((48, 40), (16, 64, 48), "same")
    lowered = lower_network(network, 1 << 22, kernels=SETS[kernels][0])
    emit_lowered(lowered, tmp_path)
    (tmp_path / "threads.c").write_text(THREADED)
    sources = ["net.c", "net_layers.c", "net_weights.c", "threads.c"]
    flags = ("-std=gnu11", "-O1", "-fsanitize=thread", "-pthread")
    subprocess.run(["gcc", *flags, *sources, "-o", "threads"], cwd=tmp_path, check=True, capture_output=True)
    image = make_image(network)
    expected = run_reference_layers(network, image)[network.output.name]
    assert expected.std() > 1
    for threads, pieces in (((), 0), (("1",), 0), (("2",), 2), (("4",), 4)):
        done = subprocess.run(
            [tmp_path / "threads", *threads], input=image.tobytes(), capture_output=True, check=True, text=False
        )
        assert done.stdout == expected.tobytes()
        assert done.stderr == str(pieces).encode(), done.stderr.decode()
