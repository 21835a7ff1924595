"""Removing dead channels changes no byte of the output, whatever the input; and removes what is planted, no more."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thumbnet.compile.network.reference import run_reference, run_reference_layers
from thumbnet.compile.passes import needed_channels as needed_module
from thumbnet.compile.passes import remove_dead_channels as removal_module
from thumbnet.compile.passes.remove_dead_channels import remove_dead_channels

from ..dead_networks import Builder, clamp_channels, edit_weight, fix_channels, planted_networks, telling_images
from ..network.test_integer_relax import assert_same
from ..networks import networks, one_of_each_kind


def _different(network, shrunk):
    """Count the images on which two networks' outputs differ."""
    images = telling_images(network)
    return sum(not np.array_equal(run_reference(network, image), run_reference(shrunk, image)) for image in images)


def _channels(network):
    return {layer.name: layer.output_shape[2] for layer in network.layers}


def _check(network, multiple=1):
    """Check that a network's removal is sound; return the channels left."""
    shrunk, report = remove_dead_channels(network, multiple)
    kept = {layer.name: list(layer.kept) for layer in report.layers}
    assert [layer.name for layer in shrunk.layers] == [layer.name for layer in network.layers]
    assert (shrunk.input_shape, shrunk.input_quant) == (network.input_shape, network.input_quant)
    assert shrunk.output.output_shape == network.output.output_shape
    for layer in shrunk.layers:
        assert {shrunk.shape_of(source) for source in layer.sources} == {layer.input_shape}
        assert min(layer.output_shape) > 0
    for image in telling_images(network):
        before, after = run_reference_layers(network, image), run_reference_layers(shrunk, image)
        for name, values in after.items():
            np.testing.assert_array_equal(values, before[name][..., kept[name]], name)
    assert report.before.macs == network.macs and report.after.macs == shrunk.macs
    assert report.removed.channels == sum(_channels(network).values()) - sum(_channels(shrunk).values())
    return _channels(shrunk)


@settings(max_examples=250)
@given(planted_networks())
def test_every_channel_that_stays_keeps_its_bytes(network):
    _check(network)


@settings(max_examples=100)
@given(planted_networks(), st.integers(2, 4))
def test_channels_can_be_left_in_whole_multiples(network, multiple):
    before, left = _channels(network), _check(network, multiple)
    for name, channels in left.items():
        assert channels % multiple == 0 or channels == before[name]


@pytest.mark.slow
@settings(max_examples=1500)
@given(planted_networks())
def test_every_channel_that_stays_keeps_its_bytes_in_many_networks(network):
    _check(network)


@settings(max_examples=100)
@given(networks(longest=6))
def test_networks_without_planted_channels_keep_their_bytes(network):
    _check(network)


def test_the_planted_networks_are_worth_testing():
    """Most lose channels, many have constant ones that must stay, and most outputs still vary."""
    seen = []

    @settings(max_examples=100, database=None)
    @given(planted_networks())
    def look(network):
        shrunk, report = remove_dead_channels(network)
        left = sum(layer.constant for layer in remove_dead_channels(shrunk)[1].layers)
        outputs = {run_reference(network, image).tobytes() for image in telling_images(network)}
        seen.append((report.removed.channels > 0, left > 0, len(outputs) > 1))

    look()
    lose, keep, vary = np.mean(seen, axis=0)
    assert lose > 0.5 and keep > 0.2 and vary > 0.5, (lose, keep, vary)


def test_live_channels_are_left_alone():
    for seed in range(10):
        network = one_of_each_kind(seed)
        shrunk, report = remove_dead_channels(network)
        assert_same(shrunk, network)
        assert report.removed.channels == report.removed.macs == report.removed.constant_bytes == 0
        assert report.as_json()["layers"] == []


def _separable(edit, seed=1):
    """A block in whose first pointwise layer channels may be dead, and a pointwise layer after it."""
    builder = Builder((6, 6, 3), seed)
    builder.convolve(4, size=3, stride=2)
    builder.convolve(6, edit=edit)
    builder.convolve(size=3)
    builder.convolve(5)
    return builder.finish()


def test_a_clamped_channel_goes_with_all_that_belongs_to_it():
    network = _separable(lambda layer: clamp_channels(layer, [1, 4]))
    assert _check(network) == {"layer.0": 4, "layer.1": 4, "layer.2": 4, "layer.3": 5, "pool": 5, "layer.5": 3}
    shrunk, report = remove_dead_channels(network)
    left = [0, 2, 3, 5]
    np.testing.assert_array_equal(shrunk.layers[1].weight, network.layers[1].weight[left])
    np.testing.assert_array_equal(shrunk.layers[2].weight, network.layers[2].weight[..., left])
    np.testing.assert_array_equal(shrunk.layers[3].weight, network.layers[3].weight[..., left])
    assert not np.array_equal(shrunk.layers[3].bias, network.layers[3].bias), "the constant must go into it"
    assert report.as_json() == {
        "channels": 4,
        # On 3 x 3 pixels: 2 of the pointwise layer's 6 rows, 2 kernels, 2 of 6 columns.
        "macs": 9 * (2 * 4 + 2 * 9 + 5 * 2),
        # A bias and a multiplier with each channel.
        "constant_bytes": 2 * (4 + 8) + 2 * (9 + 8) + 5 * 2,
        "before": {"channels": 29, "macs": network.macs, "constant_bytes": report.before.constant_bytes},
        "after": {"channels": 25, "macs": shrunk.macs, "constant_bytes": report.after.constant_bytes},
        "layers": [
            {
                "name": "layer.1",
                "constant": 2,
                "before": {"channels": 6, "macs": 216, "constant_bytes": 72},
                "after": {"channels": 4, "macs": 144, "constant_bytes": 48},
            },
            {
                "name": "layer.2",
                "constant": 2,
                "before": {"channels": 6, "macs": 486, "constant_bytes": 102},
                "after": {"channels": 4, "macs": 324, "constant_bytes": 68},
            },
            {
                "name": "layer.3",
                "constant": 0,
                "before": {"channels": 5, "macs": 270, "constant_bytes": 70},
                "after": {"channels": 5, "macs": 180, "constant_bytes": 60},
            },
        ],
    }


def _full(value, *, pads=True, weights=lambda weight: weight):
    """A constant channel, read by a full 3x3 convolution whose padding is -128."""
    builder = Builder((5, 5, 3), 2)
    builder.convolve(4, edit=lambda layer: fix_channels(layer, [2], value))
    builder.convolve(4, size=3, pads=pads, edit=lambda layer: replace(layer, weight=weights(layer.weight)))
    return builder.finish()


def _middle_only(weight):
    weight = weight.copy()
    middle = weight[:, 1, 1, 2].copy()
    weight[..., 2] = 0
    weight[:, 1, 1, 2] = middle
    return weight


@pytest.mark.parametrize(
    ("network", "left"),
    [
        pytest.param(_full(-128), 3, id="the padding's value"),
        pytest.param(_full(40), 4, id="another value"),
        pytest.param(_full(40, pads=False), 3, id="another value without padding"),
        pytest.param(_full(40, weights=_middle_only), 3, id="another value, no weights for the border"),
        pytest.param(_full(0), 4, id="zero is not the padding's value"),
    ],
)
def test_a_constant_is_folded_where_the_border_agrees(network, left):
    assert _check(network)["layer.0"] == left


def _depthwise_border(*, clamps):
    """A channel of 40 under a depthwise convolution padded with -128; the border shows, unless a clamp hides it."""

    def edit(layer):
        layer = edit_weight(layer, ..., 50)
        return clamp_channels(layer, [1]) if clamps else replace(layer, bias=np.full(6, 10_000, np.int32))

    builder = Builder((6, 6, 3), 3)
    builder.convolve(6, edit=lambda layer: fix_channels(layer, [1], 40))
    builder.convolve(size=3, edit=edit)
    builder.convolve(5)
    return builder.finish()


def test_a_depthwise_convolution_of_a_constant_is_constant_only_if_the_border_agrees():
    shows, hides = _depthwise_border(clamps=False), _depthwise_border(clamps=True)
    values = run_reference_layers(shows, telling_images(shows)[0])["layer.1"][..., 1]
    assert values[0, 0] < values[0, 1] < values[1, 1] < 127, "the border must show"
    assert _check(shows)["layer.1"] == 6
    assert _check(hides)["layer.1"] == 5


def _residual(edit_start=lambda layer: layer, edit_body=lambda layer: layer):
    builder = Builder((4, 4, 3), 4)
    start = builder.convolve(4, edit=edit_start)
    builder.convolve(7)
    builder.convolve(size=3)
    builder.convolve(4, edit=edit_body)
    builder.add(start)
    builder.convolve(6)
    return builder.finish()


@pytest.mark.parametrize(
    ("start", "body", "left"), [([1, 3], [1, 3], 2), ([1, 3], [0, 3], 3), ([1, 3], [], 4), ([], [1, 3], 4)]
)
def test_channels_tied_by_a_sum_go_together_or_stay(start, body, left):
    network = _residual(lambda layer: clamp_channels(layer, start), lambda layer: clamp_channels(layer, body))
    found = _check(network)
    assert (found["layer.0"], found["layer.3"], found["layer.4"]) == (left, left, left)


def test_a_block_that_adds_a_constant_reads_nothing():
    network = _residual(edit_body=lambda layer: fix_channels(layer, slice(None), 3))
    found = _check(network)
    assert found == {**_channels(network), "layer.1": 1, "layer.2": 1}


def test_a_channel_that_only_its_own_block_reads_goes():
    """Channel 0 of the sum is read by channel 5 of its block alone, which makes channel 0 alone."""
    network = _residual()
    start, expand, depthwise, project, add, head, *rest = network.layers
    expand = edit_weight(expand, (np.arange(7) != 5, ..., 0), 0)
    project = edit_weight(project, (slice(1, None), 0, 0, 5), 0)
    head = edit_weight(head, (..., 0), 0)
    found = _check(replace(network, layers=(start, expand, depthwise, project, add, head, *rest)))
    assert list(found.values())[:6] == [3, 6, 6, 3, 3, 6]


def test_a_need_found_at_the_start_of_a_block_counts_at_its_end():
    """Channel 0 of the sum is read by its block alone, for other channels of the sum; channel 6 is there to make it."""
    start, expand, depthwise, project, add, head, *rest = (network := _residual()).layers
    project = edit_weight(project, (slice(1, None), 0, 0, 6), 0)
    head = edit_weight(head, (..., 0), 0)
    network = replace(network, layers=(start, expand, depthwise, project, add, head, *rest))
    assert _check(network) == _channels(network)


def test_a_channel_nobody_reads_goes_with_what_it_was_made_of():
    network = _separable(lambda layer: layer)
    first, middle, depthwise, last, *rest = network.layers
    last = edit_weight(last, (..., 2), 0)
    middle = edit_weight(middle, (np.arange(6) != 2, 0, 0, 3), 0)
    found = _check(replace(network, layers=(first, middle, depthwise, last, *rest)))
    assert list(found.values()) == [3, 5, 5, 5, 5, 3]


def test_a_network_of_one_answer_stays_a_network():
    network = _residual()
    network = replace(network, layers=(*network.layers[:-1], fix_channels(network.output, [0, 1, 2])))
    found = _check(network)
    # The channel left reads all of the sum.
    assert found == {**_channels(network), "layer.5": 1, "pool": 1}


def test_where_all_is_constant_one_channel_a_layer_is_left():
    network = _separable(lambda layer: clamp_channels(layer, slice(None)))
    assert list(_check(network).values()) == [1, 1, 1, 1, 1, 3]


def test_input_and_output_stay_whole():
    builder = Builder((4, 4, 3), 5)
    builder.convolve(size=3, edit=lambda layer: clamp_channels(layer, [1]))
    builder.convolve(4)
    network = builder.finish()
    last = clamp_channels(network.output, [0, 2])
    network = replace(network, layers=(*network.layers[:-1], last))
    assert _check(network)["layer.0"] == 3
    assert _check(network)[last.name] == 3


def test_a_left_shift_goes_with_the_channels_that_needed_it():
    """One shift for the whole layer, as large as its largest scale asks for: here that of the dead channel."""

    def edit(layer):
        layer = clamp_channels(layer, [1, 4])
        r = layer.requantization
        multiplier = r.multiplier >> 3
        multiplier[1] = 2**29 + 5
        return replace(layer, requantization=replace(r, multiplier=multiplier, left_shift=np.full(6, 3, np.int32)))

    network = _separable(edit)
    _check(network)
    before, after = (one.layers[1].requantization for one in (network, remove_dead_channels(network)[0]))
    assert (after.left_shift == 0).all()
    np.testing.assert_array_equal(after.multiplier, before.multiplier[[0, 2, 3, 5]] << 3)


def test_nothing_is_folded_into_a_layer_that_may_overflow():
    network = _separable(lambda layer: clamp_channels(layer, [1]))
    assert _check(network)["layer.1"] == 5
    wide = replace(network.layers[3], bias=np.full(5, 2**31 - 1, np.int32))
    shrunk, _ = remove_dead_channels(replace(network, layers=(*network.layers[:3], wide, *network.layers[4:])))
    assert shrunk.layers[1].output_shape[2] == 6


def _forget_the_border(monkeypatch):
    right = needed_module.fold_channels
    monkeypatch.setattr(
        needed_module, "fold_channels", lambda layer, data: right(replace(layer, padding=(0, 0, 0, 0)), data)
    )


def _forget_the_constant(monkeypatch):
    monkeypatch.setattr(removal_module, "_folded_bias", lambda layer, *_: layer.bias)


def _mistake_known_for_constant(monkeypatch):
    right = needed_module.fold_channels

    def wrong(layer, data):
        low = np.broadcast_to(data.low[0, 0], data.low.shape)
        return right(layer, replace(data, low=low, high=np.where(data.known, low, data.high)))

    monkeypatch.setattr(needed_module, "fold_channels", wrong)


def _take_the_first_multipliers(monkeypatch):
    right = removal_module._choose
    monkeypatch.setattr(removal_module, "_choose", lambda r, channels: right(r, np.sort(channels)[::-1]))


PLANTED = {
    _forget_the_border: _full(40),
    _forget_the_constant: _full(-128),
    _mistake_known_for_constant: _depthwise_border(clamps=False),
    _take_the_first_multipliers: _separable(lambda layer: clamp_channels(layer, [1])),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_planted_bugs_are_seen(bug, monkeypatch):
    network = PLANTED[bug]
    assert _different(network, remove_dead_channels(network)[0]) == 0
    bug(monkeypatch)
    assert _different(network, remove_dead_channels(network)[0]) > 0
