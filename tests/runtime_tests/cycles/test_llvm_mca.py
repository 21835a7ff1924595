"""Cycles of blocks by LLVM's models of cores."""

import pytest

from thumbnet.runtime_tests.cycles.block_profile import ExecutedBlock
from thumbnet.runtime_tests.cycles.llvm_mca import block_cycles

ADD = bytes.fromhex("4018")  # adds r0, r0, r1
CONDITIONS = {
    "it eq": "08bf",
    "itt eq": "04bf",
    "vpst": "71fe4d0f",
    "vpstt": "71fe4d8f",
    "vpt.i8 eq, q0, q1": "41fe020f",
}
LOOP_START = bytes.fromhex("4ef001e0")  # dls lr, lr


@pytest.mark.needs_tools("llvm-mca-19")
def test_a_block_of_nothing_but_a_loops_start_costs_nothing():
    adds = ExecutedBlock(0x100, 4 * ADD, executions=10, call=0, entered=10, left=10)
    start = ExecutedBlock(0x200, LOOP_START, executions=10, call=0, entered=10, left=10)
    # Only what executes most is analysed, the rest taken for alike: here both are, as bytes go.
    alone = block_cycles("cortex-m55", [adds])
    assert alone > 0
    # The first block's price is known by now, so that the other is analysed alone.
    assert block_cycles("cortex-m55", [adds, start]) == pytest.approx(alone)


@pytest.mark.needs_tools("llvm-mca-19")
@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("behind", [0, 1])
def test_a_block_may_end_where_conditional_instructions_begin(condition, behind):
    """The emulator cuts blocks at the end of a page, whatever stands there."""
    vector = bytes.fromhex("02ef4408")  # vadd.i8 q0, q1, q2
    inside = (vector if condition.startswith("v") else ADD) * behind
    cut = ExecutedBlock(0x100, 4 * ADD + bytes.fromhex(CONDITIONS[condition]) + inside, 10, 0, 10, 10)
    following = ExecutedBlock(0x200, 4 * ADD, executions=10, call=0, entered=10, left=10)
    assert block_cycles("cortex-m55", [cut, following]) >= 10 * 4
