"""What doesn't fit is told with both numbers."""

from dataclasses import replace

import pytest

from thumbnet.compile.emit.footprint import Footprint
from thumbnet.compile.emit.stack_usage import StackUse
from thumbnet.compile.errors import DoesNotFitError
from thumbnet.compile.plan.fit import CODE_RESERVE_BYTES, STACK_RESERVE_BYTES, MemoryNeed, check_fit
from thumbnet.compile.plan.lowered_network import lower_network
from thumbnet.targets.board import Memory
from thumbnet.targets.registry import get_board

from ..networks import one_of_each_kind


def _board(flash, ram):
    return replace(get_board("mps2_an386"), flash=Memory("FLASH", 0, flash), ram=Memory("RAM", 0x20000000, ram))


def test_a_network_that_fits_exactly_passes():
    lowered = lower_network(one_of_each_kind())
    flash = lowered.constant_bytes + CODE_RESERVE_BYTES
    ram = lowered.plan.arena_bytes + STACK_RESERVE_BYTES
    check_fit("net", MemoryNeed.estimate(lowered), _board(flash, ram))
    with pytest.raises(DoesNotFitError, match="of flash"):
        check_fit("net", MemoryNeed.estimate(lowered), _board(flash - 1, ram))
    with pytest.raises(DoesNotFitError, match="of RAM"):
        check_fit("net", MemoryNeed.estimate(lowered), _board(flash, ram - 1))


def test_what_does_not_fit_is_told_with_both_numbers():
    lowered = lower_network(one_of_each_kind())
    with pytest.raises(DoesNotFitError) as caught:
        check_fit("net", MemoryNeed.estimate(lowered), _board(8 << 10, 1 << 20))
    need = -(-(lowered.constant_bytes + CODE_RESERVE_BYTES) // 1024)
    assert str(caught.value) == f"net needs {need} KiB of flash, mps2_an386 has 8 KiB"
    assert caught.value.flash_bytes == (8 << 10) - CODE_RESERVE_BYTES
    assert caught.value.ram_bytes == (1 << 20) - STACK_RESERVE_BYTES


def test_exact_figures_take_the_place_of_the_reserves():
    lowered = lower_network(one_of_each_kind())
    built = Footprint("gcc", 1000, 500, 20, lowered.plan.arena_bytes + 4, StackUse(64))
    flash, ram = 1520, lowered.plan.arena_bytes + 68
    check_fit("net", built.need, _board(flash, ram))
    with pytest.raises(DoesNotFitError, match="of flash"):
        check_fit("net", built.need, _board(flash - 1, ram))
    with pytest.raises(DoesNotFitError, match="of RAM"):
        check_fit("net", built.need, _board(flash, ram - 1))
    unknown = replace(built, stack=StackUse(None, unknown_because="recursion"))
    check_fit("net", unknown.need, _board(flash, ram - 64 + STACK_RESERVE_BYTES))
    with pytest.raises(DoesNotFitError, match="of RAM"):
        check_fit("net", unknown.need, _board(flash, ram - 65 + STACK_RESERVE_BYTES))


def test_before_it_is_built_only_what_can_not_fit_is_refused():
    lowered = lower_network(one_of_each_kind())
    board = _board(lowered.constant_bytes, lowered.plan.arena_bytes)
    check_fit("net", MemoryNeed.least(lowered), board)
    with pytest.raises(DoesNotFitError):
        check_fit("net", MemoryNeed.estimate(lowered), board)
    with pytest.raises(DoesNotFitError):
        check_fit("net", MemoryNeed.least(lowered), _board(lowered.constant_bytes - 1, 1 << 20))
