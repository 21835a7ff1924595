"""Cycles of blocks by LLVM's models of cores."""

import pytest

from thumbnet.runtime_tests.cycles.block_profile import ExecutedBlock
from thumbnet.runtime_tests.cycles.llvm_mca import block_cycles

ADD = bytes.fromhex("4018")  # adds r0, r0, r1
LOOP_START = bytes.fromhex("4ef001e0")  # dls lr, lr


@pytest.mark.needs_tools("llvm-mca-19")
def test_a_block_of_nothing_but_a_loops_start_costs_nothing():
    adds = ExecutedBlock(0x100, 4 * ADD, executions=10, call=0, entered=10, left=10)
    start = ExecutedBlock(0x200, LOOP_START, executions=10, call=0, entered=10, left=10)
    # Only what executes most is analysed, the rest taken for alike: here both are, as bytes go.
    alone = block_cycles("cortex-m55", [adds])
    assert alone > 0
    assert block_cycles("cortex-m55", [adds, start]) == pytest.approx(alone)
