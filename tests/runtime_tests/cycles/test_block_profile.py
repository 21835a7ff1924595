"""Blocks counted by the plugin, and the caches it simulates, on programs whose every step is known."""

import pytest

from thumbnet.runtime_tests.cycles.instruction_classes import count_classes
from thumbnet.targets.board import FlashTiming, Memory

pytestmark = [pytest.mark.emulated, pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm", "gcc")]

FLASH = Memory("FLASH", 0, 4 << 20)


def test_a_loop_is_counted_to_the_branch(profile_program):
    blocks = profile_program("    movs r0, #100\n1:  adds r1, r1, #1\n    subs r0, r0, #1\n    bne 1b\n")
    counts = count_classes(blocks)
    assert counts["branch_taken"] == 99
    assert counts["branch_not_taken"] == 1
    assert counts["alu"] == 2 + 200  # nop and movs
    assert sum(counts.values()) == 302


def test_what_jumps_and_what_falls_through_is_told_apart(profile_program):
    blocks = profile_program("    movs r0, #10\n    b 2f\n1:  subs r0, r0, #1\n2:  cmp r0, #0\n    bne 1b\n")
    loop = max(blocks, key=lambda block: block.executions)
    assert loop.executions == loop.entered == 10
    assert sum(block.left for block in blocks) == 11


@pytest.mark.parametrize(("offset", "expected"), [(0, 0), (1, 5), (2, 5), (3, 5)])
def test_accesses_across_their_alignment_are_counted(profile_program, offset, expected):
    loop = f"    movs r0, #5\n1:  ldr r1, [r7, #{offset}]\n    subs r0, r0, #1\n    bne 1b\n"
    assert count_classes(profile_program(loop))["unaligned_penalty"] == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (8, 128 // 8),  # all of it stays: each read of eight bytes misses once
        (2, 10 * 128 // 8),  # four lines in turn through two: all is always gone
    ],
)
def test_data_in_flash_go_through_a_cache(profile_program, lines, expected):
    body = """
    movs r0, #10
1:  movs r2, #0
    mov r3, #0x1000
2:  ldr r1, [r3, r2]
    adds r2, r2, #4
    cmp r2, #128
    bne 2b
    subs r0, r0, #1
    bne 1b
"""
    timing = FlashTiming(wait_states=5, read_bytes=8, line_bytes=32, instruction_lines=0, data_lines=lines)
    blocks = profile_program(body, flash=FLASH, timing=timing)
    assert sum(block.data_misses for block in blocks) == expected
    assert sum(block.fetch_misses for block in blocks) == 0


def test_code_longer_than_its_cache_is_fetched_again(profile_program):
    loop = "    movs r0, #10\n1:\n" + "    nop\n" * 126 + "    subs r0, r0, #1\n    bne 1b\n"
    wide = FlashTiming(wait_states=5, read_bytes=8, line_bytes=32, instruction_lines=32, data_lines=0)
    narrow = FlashTiming(wait_states=5, read_bytes=8, line_bytes=32, instruction_lines=4, data_lines=0)
    once = sum(block.fetch_misses for block in profile_program(loop, flash=FLASH, timing=wide))
    again = sum(block.fetch_misses for block in profile_program(loop, flash=FLASH, timing=narrow))
    assert once == pytest.approx(256 / 8, abs=3)
    assert again == pytest.approx(10 * 256 / 8, abs=20)


def test_an_instruction_across_a_page_is_whole(profile_program):
    """QEMU shows two bytes more of a Thumb block that ends at a page's end."""
    wide = "    add.w r1, r1, #1\n"
    body = "    nop\n" + wide * 700
    counts = count_classes(profile_program(body))
    assert counts["alu"] == 702
    assert sum(counts.values()) - counts["taken_to_unaligned_wide"] == 702
