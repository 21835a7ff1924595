"""An image that comes row by row: the same bytes, each row asked for once and in order, no room for it in the arena."""

import numpy as np
import pytest

from thumbnet.compile.kernels.instruction_sets import KERNELS
from thumbnet.compile.network.reference import run_reference_layers
from thumbnet.compile.plan.lowered_network import lower_network
from thumbnet.compile.plan.stage_graph import can_stream

from ..c_harness import build, emit_lowered, run_stages
from ..networks import chain_network, make_image, one_layer_network, one_of_each_kind
from ..networks import make_convolution as convolution

NETWORKS = {
    "same": lambda: chain_network((24, 20), (8, 12, 16), "same"),
    "odd": lambda: chain_network((13, 11), (5, 7, 3), "same"),
    "symmetric": lambda: chain_network((14, 18), (4, 6, 10), "symmetric"),
    "one row": lambda: chain_network((1, 9), (4, 4, 4), "symmetric"),
    "one channel, stride 1": lambda: _one((6, 7, 1), kernel=(3, 3), padding=(1, 1, 1, 1)),
    "five by five": lambda: _one((9, 8, 2), kernel=(5, 5), stride=(2, 2), padding=(2, 2, 2, 2)),
    "no rows in common": lambda: _one((9, 9, 3), kernel=(2, 2), stride=(3, 3)),
    "one of each kind": one_of_each_kind,
}


def _one(shape, **options):
    return one_layer_network(convolution(np.random.default_rng(4), shape, outputs=5, **options))


@pytest.mark.parametrize("limit", [1 << 20, 1])
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("name", NETWORKS)
def test_rows_give_the_references_bytes(name, kernels, limit, tmp_path):
    network = NETWORKS[name]()
    lowered = lower_network(network, limit, kernels=KERNELS[kernels], streamed=True)
    assert lowered.streamed
    emit_lowered(lowered, tmp_path)
    images = [make_image(network, seed) for seed in range(2)]
    # The program stops where a row comes twice or too late.
    for image, found in zip(images, run_stages(build(tmp_path), lowered, images), strict=True):
        expected = run_reference_layers(network, image)
        for layer, value in found.items():
            assert expected[layer].std() > 1
            np.testing.assert_array_equal(value, expected[layer], err_msg=layer)


def test_the_arena_is_smaller_than_the_image():
    network = chain_network((96, 96), (8, 16, 24), "same")
    streamed = lower_network(network, 1, streamed=True)
    assert streamed.plan.arena_bytes < lower_network(network, 1).plan.arena_bytes - 8000
    assert streamed.plan.arena_bytes < np.prod(network.input_shape)


def test_what_cannot_be_streamed_is_known():
    rng = np.random.default_rng(1)
    assert can_stream(one_of_each_kind())
    assert not can_stream(one_layer_network(convolution(rng, (4, 4, 3), outputs=2)))
    assert not can_stream(one_layer_network(convolution(rng, (4, 4, 3), kernel=(3, 3), padding=(1, 1, 1, 1))))
