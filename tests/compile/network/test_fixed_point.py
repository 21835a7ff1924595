"""The integer arithmetic against exact rational numbers."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from thumbnet.compile.errors import QuantizationError
from thumbnet.compile.network.fixed_point import (
    Requantization,
    add_parameters,
    add_round_half_up,
    quantize_scale,
    requantize_round_half_up,
)

INT8 = st.integers(-128, 127)
SCALES = st.floats(2.0**-30, 2.0**8, exclude_max=True)


def _round_half_up(value):
    return math.floor(value + Fraction(1, 2))


def _requantize(acc, multiplier, *, left_shift=0, zero_point=0, minimum=-128, maximum=127):
    """Requantize one value with the code under test."""
    requantization = Requantization(
        np.array([multiplier], np.int32), np.array([left_shift], np.int32), zero_point, minimum, maximum
    )
    return int(requantize_round_half_up(np.array([acc], np.int32), requantization)[0])


@st.composite
def _shifted(draw):
    """Draw an accumulator and a left shift, such that int32 holds the shifted one."""
    left_shift = draw(st.integers(0, 9))
    return draw(st.integers(-(2**31 >> left_shift), (2**31 - 1) >> left_shift)), left_shift


@given(
    shifted=_shifted(),
    multiplier=st.integers(0, 2**30 - 1),
    zero_point=INT8,
    clamp=st.tuples(INT8, INT8).map(sorted),
)
@example(shifted=(-(2**22), 9), multiplier=2**30 - 1, zero_point=-128, clamp=[-128, 127])
@example(shifted=(2**31 - 1, 0), multiplier=2**30 - 1, zero_point=127, clamp=[-128, 127])
def test_requantize_is_the_rational_number_rounded_half_up(shifted, multiplier, zero_point, clamp):
    acc, left_shift = shifted
    exact = Fraction(acc * 2**left_shift * multiplier, 2**31)
    expected = min(max(_round_half_up(exact) + zero_point, clamp[0]), clamp[1])
    found = _requantize(
        acc, multiplier, left_shift=left_shift, zero_point=zero_point, minimum=clamp[0], maximum=clamp[1]
    )
    assert found == expected


@given(st.integers(-200, 200))
def test_ties_go_up(odd_half):
    """A quarter of 4n + 2 lies halfway between n and n + 1."""
    assert _requantize(4 * odd_half + 2, 2**29) == min(max(odd_half + 1, -128), 127)


def test_each_channel_has_its_own_multiplier_and_shift():
    requantization = Requantization(
        np.array([2**29, 2**29, 2**28], np.int32), np.array([0, 2, 1], np.int32), 1, -128, 127
    )
    acc = np.array([[[10, 10, 10], [-10, -10, -10]]], np.int32)
    found = requantize_round_half_up(acc, requantization)
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, [[[4, 11, 4], [-1, -9, -1]]])


@given(SCALES)
@example(0.5)
@example(math.nextafter(0.5, 0))  # rounds to 2**30, which is no multiplier any more
@example(math.nextafter(256, 0))
def test_multiplier_is_the_scale(scale):
    multiplier, left_shift = quantize_scale(scale)
    assert multiplier.dtype == left_shift.dtype == np.int32
    assert 0 <= multiplier[0] < 2**30
    assert left_shift[0] >= 0
    step = Fraction(2) ** (int(left_shift[0]) - 31)
    error = abs(Fraction(int(multiplier[0])) * step - Fraction(scale))
    assert error <= step / 2
    # No left shift that isn't needed: with one less the multiplier would not fit.
    if left_shift[0]:
        assert round(Fraction(scale) / (step / 2)) >= 2**30
        assert error / Fraction(scale) <= Fraction(1, 2**29)
    assert error / Fraction(scale) <= max(Fraction(1, 2**29), Fraction(2) ** -32 / Fraction(scale))


@pytest.mark.parametrize("scale", [0.0, -0.1, 256.0, float("inf"), float("nan")])
def test_a_scale_out_of_range_is_named(scale):
    with pytest.raises(QuantizationError, match=rf"{scale:g} is outside \(0, 256\)"):
        quantize_scale([0.01, scale, 0.02])


RATIO_SCALES = st.floats(1e-4, 10.0)


@given(
    scales=st.tuples(RATIO_SCALES, RATIO_SCALES, RATIO_SCALES),
    zero_points=st.tuples(INT8, INT8, INT8),
    values=st.lists(st.tuples(INT8, INT8), min_size=1, max_size=20),
)
@example(scales=(1.0, 1.0, 1.0), zero_points=(0, 0, 0), values=[(-128, -128), (127, 127), (1, 2)])
@example(scales=(1e-4, 1e-4, 1.0), zero_points=(-128, -128, 127), values=[(127, 127)])
def test_add_is_real_addition_within_a_step(scales, zero_points, values):
    if max(scales[0], scales[1]) / scales[2] >= 2**14:
        return
    parameters = add_parameters(scales, zero_points, -128, 127)
    a, b = np.array(values, np.int8).T
    found = add_round_half_up(a, b, parameters)
    assert found.dtype == np.int8
    real = [
        Fraction(scales[0]) * (int(x) - zero_points[0]) + Fraction(scales[1]) * (int(y) - zero_points[1])
        for x, y in zip(a, b, strict=True)
    ]
    for output, value in zip(found.tolist(), real, strict=True):
        exact = min(max(value / Fraction(scales[2]) + zero_points[2], -128), 127)
        # Half a step of rounding, and two multipliers that are each half a unit of 2**-shift off.
        assert abs(output - exact) <= Fraction(1, 2) + Fraction(255, 2**parameters.shift)


@given(scales=st.tuples(RATIO_SCALES, RATIO_SCALES, RATIO_SCALES), zero_points=st.tuples(INT8, INT8, INT8))
@example(scales=(10.0, 10.0, 1e-3), zero_points=(-128, -128, 127))
@example(scales=(1e-4, 1e-4, 10.0), zero_points=(127, 127, -128))
def test_add_never_leaves_int32(scales, zero_points):
    if max(scales[0], scales[1]) / scales[2] >= 2**14:
        return
    p = add_parameters(scales, zero_points, -128, 127)
    assert 0 <= p.multiplier_a < 2**15 and 0 <= p.multiplier_b < 2**15
    assert max(p.multiplier_a, p.multiplier_b) >= 2**14 or p.shift == 22
    for a in (-128, 127):
        for b in (-128, 127):
            partial = (a * p.multiplier_a, a * p.multiplier_a + b * p.multiplier_b, p.constant)
            for total in (*partial, partial[1] + p.constant):
                assert -(2**31) <= total < 2**31


def test_add_of_equal_scales_is_integer_addition():
    parameters = add_parameters((0.5, 0.5, 0.5), (3, -4, 7), -100, 90)
    a, b = (grid.astype(np.int8).ravel() for grid in np.meshgrid(np.arange(-128, 128), np.arange(-128, 128)))
    expected = np.clip(a.astype(int) - 3 + b.astype(int) + 4 + 7, -100, 90)
    np.testing.assert_array_equal(add_round_half_up(a, b, parameters), expected)


def test_add_of_scales_too_far_apart_is_refused():
    with pytest.raises(QuantizationError, match="40000 times its output's; at most 16384 works"):
        add_parameters((40000.0, 1.0, 1.0), (0, 0, 0), -128, 127)
