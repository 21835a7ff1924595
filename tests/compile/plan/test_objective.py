"""What a plan is to need little of: cycles by a core's prices, or instructions."""

from dataclasses import replace

import pytest

from thumbnet.compile.compile_model import compile_model
from thumbnet.compile.errors import CompileError
from thumbnet.compile.kernels.cycle_prices import PRICES, CyclePrices, Executed, prices_of
from thumbnet.compile.kernels.instruction_sets import KERNELS
from thumbnet.compile.plan.lowered_network import lower_network
from thumbnet.compile.plan_stages import objective_of
from thumbnet.compile.request import CompileOptions, CompileRequest, check_options
from thumbnet.targets.registry import get_board

from .test_stage_graph import small_mobilenet

#: A core on which only what isn't in a register costs anything: another plan than the one of fewest instructions.
ONLY_MEMORY = CyclePrices(simple=0, loads=5, multiple=1, words=3, jumps=0, unaligned=5)


def test_cycles_are_counts_by_prices():
    executed = Executed(simple=2, loads=3, multiple=1, words=4, jumps=1, unaligned=1, flash_reads=2) * 2 + Executed(1)
    assert executed.instructions == 2 * 7 + 1
    m4 = replace(PRICES["cortex-m4"], flash_reads=5)
    assert executed.cycles(m4) == 2 * (2 + 2 * 3 + 1 + 4 + 3 + 1 + 2 * 5) + 1


def test_an_emulated_board_has_the_flash_of_the_board_it_stands_for():
    assert prices_of(get_board("mps2_an386")) == prices_of(get_board("nucleo_l4r5zi"))
    assert prices_of(get_board("mps2_an386")).flash_reads == 5
    assert prices_of(get_board("mps2_an505")).flash_reads == 0


@pytest.mark.parametrize("prices", [PRICES["cortex-m4"], PRICES["cortex-m7"], ONLY_MEMORY])
def test_each_objective_has_the_least_of_its_own(prices):
    network = small_mobilenet()
    by_cycles, by_instructions = (
        lower_network(network, spent_on_ram=0.0, prices=prices, objective=objective).choices[0]
        for objective in ("cycles", "instructions")
    )
    assert by_cycles.predicted_cycles <= by_instructions.predicted_cycles
    assert by_instructions.predicted_instructions <= by_cycles.predicted_instructions
    if prices is ONLY_MEMORY:
        assert by_cycles.predicted_cycles < by_instructions.predicted_cycles


def test_without_prices_instructions_are_few():
    lowered = lower_network(small_mobilenet())
    assert lowered.predicted_cycles is None
    assert lowered.choices[0].predicted_cycles is None


def test_kernels_without_counts_of_kinds_predict_no_cycles():
    lowered = lower_network(small_mobilenet(), kernels=KERNELS["mve"], prices=PRICES["cortex-m4"])
    assert lowered.predicted_cycles is None
    assert lowered.predicted_instructions > 0


def test_cycles_that_cant_be_predicted_are_refused(tmp_path):
    board = get_board("mps3_an547")
    request = CompileRequest("net", None, (3, 8, 8), board, CompileOptions(objective="cycles"))
    with pytest.raises(
        CompileError,
        match=r"^mps3_an547: .*cortex-m55.*; .*tune --objective cycles.*, or leave --objective cycles out$",
    ):
        compile_model(request, tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_an_objective_without_a_plan_is_refused():
    with pytest.raises(CompileError, match=r"^host: --objective plans networks on our own kernels.*; leave it out$"):
        check_options(CompileOptions(objective="instructions"), get_board("host"))


def test_cycles_that_are_recorded_need_no_prediction(tmp_path):
    board = get_board("raspberry_pi_4")
    assert objective_of(CompileOptions(objective="cycles", tuning=tmp_path), board) == "instructions"
    with pytest.raises(CompileError, match=r"cortex-a72.*`thumbnet tune --objective cycles` records them"):
        objective_of(CompileOptions(objective="cycles"), board)
