"""The threaded code of the pointwise kernels on A64: every place a schedule can name gives the right bytes."""

from dataclasses import replace

import numpy as np
import pytest

from thumbnet.compile.kernels.neon.packing import plan_pointwise
from thumbnet.compile.kernels.neon.pointwise_assembly import CHANNELS, REPEATS
from thumbnet.compile.kernels.neon.stage import NeonStage
from thumbnet.compile.plan.lowered_network import lower_network

from ..networks import make_convolution, one_layer_network
from .test_cortex_a_chains import A64, _check

TILES, STEPS, LANES = 160, 48, 8


def _weights(rng):
    """Make weights ``[N, K]`` whose runs have all lengths: heavy and light inputs, some steps of a kind in a row."""
    weight = np.zeros((TILES, CHANNELS, STEPS, LANES), np.int8)
    for tile in weight:
        step = 0
        while step < STEPS:
            length, steps = rng.integers(1, 13), rng.integers(1, 24)
            largest = 32767 // (128 * max(length, 2))
            part = tile[:, step : step + steps]
            part[:] = rng.choice([-1, 1], part.shape) * largest
            step += steps
    return weight.reshape(TILES * CHANNELS, -1)


def _places(runs):
    """Yield length, number and half of all but a tile's first runs."""
    step = runs[0].length
    for row in runs[1:]:
        yield row.length, row.times, step % 2
        step += row.length * row.times


@pytest.mark.emulated
@pytest.mark.needs_tools(*A64[:2])
def test_every_place(tmp_path):
    rng = np.random.default_rng(3)
    layer = make_convolution(rng, (1, 4, STEPS * LANES), outputs=TILES * CHANNELS)
    layer = replace(layer, weight=_weights(rng).reshape(layer.weight.shape))
    runs = plan_pointwise(layer).runs
    assert {(length, times, half) for length, n in REPEATS.items() for times in range(1, n + 1) for half in (0, 1)} <= {
        place for tile in runs for place in _places(tile)
    }
    assert {row.length for tile in runs for row in tile} == set(range(1, 13))
    network = one_layer_network(layer)
    _check(network, lower_network(network, 1 << 22, kernels=NeonStage), tmp_path, core="cortex-a72")
