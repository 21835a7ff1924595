"""What MobileNets are made of after the pipeline."""

from collections import Counter

import pytest

from thumbnet.compile.network.integer_relax import read_relax
from thumbnet.models.variants import ModelSpec, build_model

from ..torch_modules import lowered

#: By the papers' tables: V1 has 1 + 13 blocks; V2 has 17 blocks, 16 of which expand and 10 of which are residual.
COUNTS = {
    "v1": {
        "conv2d": 1,
        "depthwise_conv2d": 13,
        "pointwise_conv2d": 13,
        "average_pool": 1,
        "fully_connected": 1,
    },
    "v2": {
        "conv2d": 1,
        "depthwise_conv2d": 17,
        "pointwise_conv2d": 34,
        "add": 10,
        "average_pool": 1,
        "fully_connected": 1,
    },
}


@pytest.mark.parametrize(("version", "padding"), [("v1", "same"), ("v2", "same"), ("v2", "symmetric")])
def test_op_counts(version, padding):
    # 33 pixels leave 2 x 2 before the pool: on 1 x 1 a pointwise convolution counts as fully connected.
    # Narrower than 0.35, blocks of unlike widths become alike, and residual.
    spec = ModelSpec("small", version, 0.35, 33, classes=7, padding=padding)
    network = read_relax(lowered(build_model(spec), (3, 33, 33)))
    assert Counter(layer.kind for layer in network.layers) == COUNTS[version]
    names = [layer.name for layer in network.layers]
    assert len(set(names)) == len(names)
    assert names[-1].startswith("classifier")
