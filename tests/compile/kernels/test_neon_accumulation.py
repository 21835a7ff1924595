"""Sums of products in int16 never overflow, whatever the input: the extremes, found from the weights, are tried."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thumbnet.compile.kernels.neon.accumulation import (
    DEPTHWISE_PARTS,
    LANES,
    LONGEST_RUN,
    even_parts,
    fewest_parts,
    longest_runs,
    run_lengths,
)
from thumbnet.compile.kernels.neon.pointwise_assembly import JUMP, REPEATS
from thumbnet.compile.kernels.neon.runs import cheapest_runs

INT16 = np.iinfo(np.int16)
#: How large weights are: light, ordinary and heavy ones, so that runs of every length occur.
SPREADS = (3, 20, 60, 127)


def _weights(seed, shape, spread):
    rng = np.random.default_rng(seed)
    weight = rng.integers(-spread, spread + 1, shape)
    # Some extremes among them, both signs and zero.
    weight[rng.random(shape) < 0.1] = rng.choice([-127, 127, 0])
    return weight.astype(np.int8)


def _extremes(weight):
    """Return the largest and the smallest sum of products along the first axis that any int8 input gives."""
    wide = weight.astype(np.int64)
    highest = np.where(wide > 0, 127 * wide, -128 * wide).sum(axis=0)
    lowest = np.where(wide > 0, -128 * wide, 127 * wide).sum(axis=0)
    return highest, lowest


def _assert_fits(weight):
    highest, lowest = _extremes(weight)
    assert highest.max() <= INT16.max and lowest.min() >= INT16.min


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 6),
    st.integers(1, 60),
    st.sampled_from(SPREADS),
    st.sampled_from((LANES, 2)),
)
def test_runs_fit(seed, channels, steps, spread, count):
    weight = _weights(seed, (channels, steps * count), spread)
    runs = run_lengths(weight, count)
    assert sum(runs) == steps
    assert all(2 <= run <= LONGEST_RUN for run in runs[:-1]) and 1 <= runs[-1] <= LONGEST_RUN
    lanes = weight.reshape(channels, steps, count)
    start = 0
    for run in runs:
        _assert_fits(lanes[:, start : start + run].transpose(1, 0, 2))
        start += run


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.sampled_from(SPREADS))
def test_runs_are_as_long_as_they_can_be(seed, steps, spread):
    weight = _weights(seed, (4, steps * LANES), spread)
    lanes = weight.reshape(4, steps, LANES)
    start = 0
    for run in run_lengths(weight):
        if run < LONGEST_RUN and start + run < steps:
            highest, lowest = _extremes(lanes[:, start : start + run + 1].transpose(1, 0, 2))
            assert highest.max() > INT16.max or lowest.min() < INT16.min
        start += run


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 40), st.sampled_from(SPREADS))
def test_the_cheapest_runs_fit_and_cost_no_more_than_the_longest(seed, tiles, steps, spread):
    weight = _weights(seed, (tiles, 4, steps * LANES), spread)
    found = cheapest_runs(longest_runs(weight), REPEATS, JUMP)
    assert len(found) == tiles
    for tile, rows in zip(weight, found, strict=True):
        lanes = tile.reshape(4, steps, LANES)
        assert rows[0].times == 1
        start = 0
        for row in rows:
            assert 1 <= row.times <= REPEATS.get(row.length, 1)
            for _ in range(row.times):
                _assert_fits(lanes[:, start : start + row.length].transpose(1, 0, 2))
                start += row.length
        assert start == steps
        assert sum(row.times + JUMP for row in rows) <= len(run_lengths(tile)) * (1 + JUMP) + 1e-9


@given(st.lists(st.integers(1, 4), min_size=1, max_size=9), st.floats(0, 1))
def test_no_other_runs_are_cheaper(longest, jump):
    longest = [min(length, len(longest) - start) for start, length in enumerate(longest)]
    repeats = {1: 3, 2: 2}

    def cheapest(start):
        if start == len(longest):
            return 0
        found = []
        for length in range(1, longest[start] + 1):
            for times in range(1, repeats.get(length, 1) + 1 if start else 2):
                begins = range(start, start + times * length, length)
                if begins[-1] + length <= len(longest) and all(longest[at] >= length for at in begins):
                    found.append(times + jump + cheapest(begins[-1] + length))
        return min(found)

    [rows] = cheapest_runs(np.array([longest]), repeats, jump)
    assert sum(row.times + jump for row in rows) == pytest.approx(cheapest(0))


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.sampled_from(SPREADS))
def test_parts_fit_and_are_the_fewest(seed, channels, spread):
    weight = _weights(seed, (9, channels), spread)
    count = fewest_parts(weight, DEPTHWISE_PARTS)
    assert count is not None, "two products always fit"
    for candidate, sizes in DEPTHWISE_PARTS.items():
        parts = np.split(weight, np.cumsum(sizes)[:-1])
        fits = all(np.all((_extremes(part)[0] <= INT16.max) & (_extremes(part)[1] >= INT16.min)) for part in parts)
        if candidate == count:
            assert fits
        if candidate < count:
            assert not fits


def test_heaviest_weights_are_widened_after_two_products():
    assert run_lengths(np.full((4, 5 * LANES), -127, np.int8)) == [2, 2, 1]
    assert fewest_parts(np.full((9, 16), 127, np.int8), DEPTHWISE_PARTS) == 5


@pytest.mark.parametrize(("total", "most"), [(27, 13), (8, 8), (5, 4), (1, 1), (32, 13)])
def test_even_parts_are_whole(total, most):
    parts = even_parts(total, most)
    assert list(parts) == list(range(1, most + 1))
    for count, sizes in parts.items():
        assert len(sizes) == count and sum(sizes) == total and min(sizes) >= 1 and max(sizes) - min(sizes) <= 1
