"""Schedules searched for on emulated boards: they execute fewer instructions than the plain one, for the same bytes."""

import math
from dataclasses import replace

import numpy as np
import pytest

from thumbnet.compile.network.layers import NETWORK_INPUT
from thumbnet.compile.network.reference import run_reference_layers
from thumbnet.compile.plan.stage_graph import StageGraph
from thumbnet.compile.tuning.layer_schedules import tuned_kernels
from thumbnet.compile.tuning.records import opened_records, read_records
from thumbnet.compile.tuning.tune_layers import tune_layer
from thumbnet.runtime_tests.stage_measurer import DeviceMeasurer
from thumbnet.targets.devices import get_device

from ..compile.networks import make_convolution, make_image, make_pool, one_layer_network

M4 = pytest.param(
    "qemu_mps2_an386", marks=pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm"), id="cortex-m4"
)
A72 = pytest.param(
    "qemu_raspberry_pi_4", marks=pytest.mark.needs_tools("aarch64-linux-gnu-gcc", "qemu-aarch64"), id="cortex-a72"
)


@pytest.mark.slow
@pytest.mark.emulated
@pytest.mark.parametrize("name", [M4, A72])
def test_a_few_trials_beat_the_plain_schedule(name, tmp_path):
    rng = np.random.default_rng(5)
    layer = make_convolution(rng, (8, 8, 32), kernel=(3, 3), padding=(1, 1, 1, 1))
    network, device = one_layer_network(layer), get_device(name, None)
    network = replace(network, layers=(layer, make_pool(rng, layer.output_shape, source=layer.name)))
    image = make_image(network)
    values = {NETWORK_INPUT: image} | run_reference_layers(network, image)
    graph, costs = StageGraph(network, None), []
    with DeviceMeasurer(device, network, values, "instructions") as measurer:
        [plain] = measurer.measure([graph.stage_of(layer.name)])
        with opened_records(tmp_path / "db") as database:
            tune_layer(
                *(network, layer, device.board, [measurer], database),
                **{"objective": "instructions", "trials": 24, "on_round": costs.extend},
            )
        assert len(costs) == 24 and all(map(math.isfinite, costs))
        [kernel] = tuned_kernels(network, read_records(tmp_path / "db"), device.board, "instructions")[layer.name]
        # Measured again, from the record.
        [tuned] = measurer.measure([graph.stage_of(layer.name, kernel)])
    assert kernel.instructions == pytest.approx(min(costs))
    # On Linux a stage's count has a few instructions of its call, which differ with its place in the program.
    assert tuned == pytest.approx(min(costs), rel=0.005)
    assert tuned < 0.8 * plain
