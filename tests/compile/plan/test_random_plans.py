"""Random networks of MobileNet's kinds of layers, on both sets of kernels, under random limits on RAM: the same bytes.

Shapes are odd and tiny, shortcuts are read late, adds stand before anything: what a plan must not assume.
"""

import numpy as np
import pytest

from thumbnet.compile.kernels.instruction_sets import KERNELS
from thumbnet.compile.network.integer_network import NETWORK_INPUT, IntegerNetwork
from thumbnet.compile.network.reference import run_reference_layers
from thumbnet.compile.plan.lowered_network import lower_network
from thumbnet.compile.plan.stage_graph import can_stream

from ..c_harness import build, emit_lowered, run_stages
from ..networks import INPUT_QUANT, make_add, make_convolution, make_image, make_pool, same_padding

CLAMPS = ((-128, 127), (-128, 127), (-100, 90))


def random_mobilenet(rng):
    """Make an image's convolution, up to four blocks with and without shortcut, a pool and a classifier, or some."""
    made = []

    def then(shape, name, **options):
        options |= {"large_scale": rng.random() < 0.15, "clamp": CLAMPS[rng.integers(3)]}
        source = made[-1].name if made else NETWORK_INPUT
        made.append(make_convolution(rng, shape, name=name, source=source, **options))
        return made[-1].output_shape

    def window(shape, size, strides):
        stride = int(rng.choice(strides))
        symmetric = (size // 2,) * 4
        padding = symmetric if rng.random() < 0.5 else same_padding(shape, (size, size), (stride, stride))
        return {"kernel": (size, size), "stride": (stride, stride), "padding": padding}

    shape = image = (int(rng.integers(1, 40)), int(rng.integers(1, 40)), int(rng.choice([1, 2, 3, 3, 3, 4])))
    if rng.random() < 0.7:
        size = int(rng.choice([3, 3, 3, 5]))
        shape = then(shape, "conv", outputs=int(rng.integers(1, 20)), **window(shape, size, (1, 2, 2)))
    for block in range(int(rng.integers(1, 5))):
        before, start = shape, made[-1].name if made else NETWORK_INPUT
        kind = rng.random()
        if kind < 0.35:
            shape = then(shape, f"{block}.expand", outputs=int(rng.integers(1, 40)))
        if kind < 0.9:
            shape = then(shape, f"{block}.depthwise", **window(shape, 3, (1, 1, 2)))
        narrow = before[2] if rng.random() < 0.5 else int(rng.integers(1, 40))
        shape = then(shape, f"{block}.project", outputs=narrow)
        if shape == before and rng.random() < 0.8:
            sources = (start, made[-1].name)
            sources = sources if rng.random() < 0.5 else sources[::-1]
            made.append(make_add(rng, shape, name=str(block), sources=sources))
    if rng.random() < 0.6:
        made.append(make_pool(rng, shape, source=made[-1].name))
        then(made[-1].output_shape, "classifier", outputs=int(rng.integers(1, 20)))
    return IntegerNetwork(image, INPUT_QUANT, tuple(made))


#: In 33 a step ends within a block, and what lies over the input depends on it.
FAST = (*range(12), 33)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(
    "seed", [seed if seed in FAST else pytest.param(seed, marks=pytest.mark.slow) for seed in range(120)]
)
def test_random_plans_give_the_references_bytes(seed, kernels, tmp_path):
    rng = np.random.default_rng(seed)
    network = random_mobilenet(rng)
    arenas = [choice.arena_bytes for choice in lower_network(network, kernels=KERNELS[kernels]).choices]
    limit = (None, 1, int(rng.choice(arenas)))[rng.integers(3)]
    streamed = can_stream(network) and rng.random() < 0.3
    lowered = lower_network(network, limit, kernels=KERNELS[kernels], streamed=streamed)
    emit_lowered(lowered, tmp_path)
    images = [make_image(network, seed) for seed in range(2)]
    for image, found in zip(images, run_stages(build(tmp_path), lowered, images), strict=True):
        expected = run_reference_layers(network, image)
        for layer, value in found.items():
            np.testing.assert_array_equal(value, expected[layer], err_msg=f"{layer}, {limit} bytes")


def test_most_outputs_vary():
    """A network of one answer would prove little."""
    varied = []
    for seed in range(12):
        network = random_mobilenet(np.random.default_rng(seed))
        outputs = [run_reference_layers(network, make_image(network, image)) for image in range(2)]
        varied.append(not np.array_equal(*(output[network.output.name] for output in outputs)))
    assert np.mean(varied) > 0.8, varied
