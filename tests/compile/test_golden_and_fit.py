"""Golden vectors prove something, and what doesn't fit is told with both numbers."""

from dataclasses import replace

import numpy as np
import pytest

from thumbnet.compile.errors import DoesNotFitError, QuantizationError
from thumbnet.compile.fit import CODE_RESERVE_BYTES, STACK_RESERVE_BYTES, check_fit
from thumbnet.compile.footprint import Footprint
from thumbnet.compile.golden import make_golden
from thumbnet.compile.lowered_network import lower_network
from thumbnet.compile.reference import run_reference
from thumbnet.compile.stack_usage import StackUse
from thumbnet.targets.board import Memory
from thumbnet.targets.registry import get_board

from .networks import make_image, one_of_each_kind


def test_golden_vectors_are_the_references():
    network = one_of_each_kind()
    image = make_image(network)
    inputs, outputs = make_golden(network, [image])
    assert inputs.shape == (3, *network.input_shape) and outputs.shape == (3, 5)
    assert inputs.dtype == outputs.dtype == np.int8
    np.testing.assert_array_equal(inputs[0], image)
    for given, expected in zip(inputs, outputs, strict=True):
        np.testing.assert_array_equal(run_reference(network, given), expected)


def test_golden_noise_is_the_same_every_time_and_varied():
    network = one_of_each_kind()
    first, _ = make_golden(network)
    second, _ = make_golden(network)
    np.testing.assert_array_equal(first, second)
    assert len({image.tobytes() for image in first}) == 3
    assert first.min() < -100 and first.max() > 100


def test_a_network_with_one_answer_is_refused():
    network = one_of_each_kind()
    head = network.layers[-1]
    dead = replace(network, layers=(*network.layers[:-1], replace(head, weight=np.zeros_like(head.weight))))
    with pytest.raises(QuantizationError, match="same output for 3 different images: are these trained weights"):
        make_golden(dead)


def _board(flash, ram):
    return replace(get_board("mps2_an386"), flash=Memory("FLASH", 0, flash), ram=Memory("RAM", 0x20000000, ram))


def test_a_network_that_fits_exactly_passes():
    lowered = lower_network(one_of_each_kind())
    flash = lowered.constant_bytes + CODE_RESERVE_BYTES
    ram = lowered.plan.arena_bytes + STACK_RESERVE_BYTES
    check_fit("net", lowered, _board(flash, ram))
    with pytest.raises(DoesNotFitError, match="of flash"):
        check_fit("net", lowered, _board(flash - 1, ram))
    with pytest.raises(DoesNotFitError, match="of RAM"):
        check_fit("net", lowered, _board(flash, ram - 1))


def test_what_does_not_fit_is_told_with_both_numbers():
    lowered = lower_network(one_of_each_kind())
    with pytest.raises(DoesNotFitError) as caught:
        check_fit("net", lowered, _board(8 << 10, 1 << 20))
    need = -(-(lowered.constant_bytes + CODE_RESERVE_BYTES) // 1024)
    assert str(caught.value) == f"net needs {need} KiB of flash, mps2_an386 has 8 KiB"
    assert caught.value.flash_bytes == (8 << 10) - CODE_RESERVE_BYTES
    assert caught.value.ram_bytes == (1 << 20) - STACK_RESERVE_BYTES


def test_exact_figures_take_the_place_of_the_reserves():
    lowered = lower_network(one_of_each_kind())
    built = Footprint("gcc", 1000, 500, 20, lowered.plan.arena_bytes + 4, StackUse(64))
    flash, ram = 1520, lowered.plan.arena_bytes + 68
    check_fit("net", lowered, _board(flash, ram), built=built)
    with pytest.raises(DoesNotFitError, match="of flash"):
        check_fit("net", lowered, _board(flash - 1, ram), built=built)
    with pytest.raises(DoesNotFitError, match="of RAM"):
        check_fit("net", lowered, _board(flash, ram - 1), built=built)
    unknown = replace(built, stack=StackUse(None, unknown_because="recursion"))
    check_fit("net", lowered, _board(flash, ram - 64 + STACK_RESERVE_BYTES), built=unknown)
    with pytest.raises(DoesNotFitError, match="of RAM"):
        check_fit("net", lowered, _board(flash, ram - 65 + STACK_RESERVE_BYTES), built=unknown)


def test_before_it_is_built_only_what_can_not_fit_is_refused():
    lowered = lower_network(one_of_each_kind())
    board = _board(lowered.constant_bytes, lowered.plan.arena_bytes)
    check_fit("net", lowered, board, reserve=False)
    with pytest.raises(DoesNotFitError):
        check_fit("net", lowered, board)
    with pytest.raises(DoesNotFitError):
        check_fit("net", lowered, _board(lowered.constant_bytes - 1, 1 << 20), reserve=False)
