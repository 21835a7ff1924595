"""Plans under limits on RAM: the arena keeps them, less RAM costs instructions, and every plan gives the same bytes."""

import itertools

import numpy as np
import pytest

from thumbnet.compile.network.integer_network import IntegerNetwork
from thumbnet.compile.network.reference import run_reference_layers
from thumbnet.compile.plan.choose_plan import SPENT_ON_RAM
from thumbnet.compile.plan.lowered_network import lower_network

from ..c_harness import build, emit_lowered, run_stages
from ..networks import INPUT_QUANT, chain_network, make_add, make_convolution, make_image, make_pool, same_padding


def small_mobilenet(size=(24, 20), seed=7):
    """Make an image's convolution, separable layers, two inverted residuals, a pool and a classifier."""
    rng = np.random.default_rng(seed)
    made = []

    def then(shape, name, **options):
        made.append(make_convolution(rng, shape, name=name, source=made[-1].name if made else "input", **options))
        return made[-1].output_shape

    def separable(shape, name, outputs, stride=1):
        padding = same_padding(shape, (3, 3), (stride, stride))
        shape = then(shape, f"{name}.depthwise", kernel=(3, 3), stride=(stride, stride), padding=padding)
        return then(shape, f"{name}.pointwise", outputs=outputs)

    image = (*size, 3)
    padding = same_padding(image, (3, 3), (2, 2))
    shape = then(image, "conv", outputs=8, kernel=(3, 3), stride=(2, 2), padding=padding)
    shape = separable(shape, "1", 12)
    shape = separable(shape, "2", 16, stride=2)
    for block in ("3", "4"):
        start = made[-1].name
        shape = separable(then(shape, f"{block}.expand", outputs=40), block, 16)
        made.append(make_add(rng, shape, name=block, sources=(start, made[-1].name)))
    made.append(make_pool(rng, shape, source=made[-1].name))
    then(made[-1].output_shape, "classifier", outputs=5)
    return IntegerNetwork(image, INPUT_QUANT, tuple(made))


@pytest.fixture(scope="module")
def network():
    return small_mobilenet()


@pytest.fixture(scope="module")
def choices(network):
    return lower_network(network).choices


def test_less_ram_costs_instructions(choices):
    assert len(choices) > 5
    for faster, leaner in itertools.pairwise(choices):
        assert leaner.arena_bytes < faster.arena_bytes
        assert leaner.predicted_instructions >= faster.predicted_instructions
    assert choices[-1].arena_bytes < 0.6 * choices[0].arena_bytes


def test_a_limit_is_kept_with_the_fewest_instructions(network, choices):
    for choice in choices[:: len(choices) // 4]:
        lowered = lower_network(network, choice.arena_bytes)
        assert lowered.plan.arena_bytes <= choice.arena_bytes
        found = sum(stage.predicted_instructions for stage in lowered.stages)
        assert round(found) == choice.predicted_instructions


def test_without_a_limit_some_instructions_are_spent_on_ram(network, choices):
    lowered = lower_network(network)
    fastest = choices[0]
    found = sum(stage.predicted_instructions for stage in lowered.stages)
    assert lowered.plan.arena_bytes < fastest.arena_bytes
    assert fastest.predicted_instructions < found <= (1 + SPENT_ON_RAM) * fastest.predicted_instructions


def test_what_the_board_has_is_kept_without_being_asked(network, choices):
    least = choices[-1].arena_bytes
    assert lower_network(network, ram_bytes=least).plan.arena_bytes <= least


def test_where_no_plan_keeps_the_limit_it_is_the_smallest(network, choices):
    assert lower_network(network, 1).plan.arena_bytes == choices[-1].arena_bytes


@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.8, 1.0])
def test_every_plan_gives_the_references_bytes(network, choices, part, tmp_path):
    choice = choices[round(part * (len(choices) - 1))]
    lowered = lower_network(network, choice.arena_bytes)
    emit_lowered(lowered, tmp_path)
    images = [make_image(network, seed) for seed in range(2)]
    expected = [run_reference_layers(network, image) for image in images]
    assert not np.array_equal(expected[0][network.output.name], expected[1][network.output.name])
    for found, values in zip(run_stages(build(tmp_path), lowered, images), expected, strict=True):
        for name, value in found.items():
            np.testing.assert_array_equal(value, values[name], err_msg=f"{name}, {choice.arena_bytes} bytes")


def test_a_lean_plan_lies_over_the_image(tmp_path):
    """Rows of the output go where rows of the image were that nothing reads any more."""
    network = chain_network((48, 48), (8, 16, 24), "same")
    lowered = lower_network(network, np.prod(network.input_shape) + 3000)
    stage = next(stage for stage in lowered.stages if stage.over is not None)
    assert stage.sources == ("input",)
    begin = lowered.plan.offsets[stage.name]
    image = lowered.plan.offsets["input"]
    assert image - stage.output_layout.size < begin < image + np.prod(network.input_shape)
    emit_lowered(lowered, tmp_path)
    image = make_image(network)
    [found] = run_stages(build(tmp_path), lowered, [image])
    np.testing.assert_array_equal(found[stage.name], run_reference_layers(network, image)[stage.name])


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("size", [(17, 15), (12, 30)])
def test_odd_sizes_under_the_tightest_limit(size, padding, tmp_path):
    network = chain_network(size, (5, 7, 9), padding)
    lowered = lower_network(network, 1)
    emit_lowered(lowered, tmp_path)
    image = make_image(network)
    [found] = run_stages(build(tmp_path), lowered, [image])
    expected = run_reference_layers(network, image)
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
