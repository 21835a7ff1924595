"""Each instruction's class, and what it takes."""

import pytest

from thumbnet.runtime_tests.cycles.core_timing import TIMINGS
from thumbnet.runtime_tests.cycles.instruction_classes import count_classes

pytestmark = [pytest.mark.emulated, pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm", "gcc")]

#: Assembly, the class of its last instruction, and its cycles on a Cortex-M4 by Arm's tables.
INSTRUCTIONS = [
    ("ldr r1, [r7]", "ldr", 2),
    ("ldr r1, [r7]\n ldr r2, [r7, #4]", "ldr_after_ldr", 1),
    ("str r7, [r7]\n ldr r1, [r7]\n ldr r2, [r1]", "ldr", 2),
    ("movs r2, #4\n ldr r1, [r7, r2]", "ldr", 2),
    ("ldrsb r1, [r7], #4", "ldrsb", 2),
    ("ldrd r1, r2, [r7]", "ldrd", 3),
    ("str r1, [r7, #4]!", "str_imm", 1),
    ("movs r2, #4\n str r1, [r7, r2]", "str_reg", 2),
    ("strd r1, r2, [r7]", "strd", 3),
    ("ldm r7!, {r0-r3}", "ldm_4", 5),
    ("ldm r7, {r0, r1}", "ldm_2", 3),
    ("push {r0-r3, lr}", "push_5", 6),
    ("adr r0, 9f + 1\n push {r0}\n pop {pc}\n .balign 4\n9: ", "pop_1_pc", 4),
    ("vpush {s0-s3}", "vstm_4", 5),
    ("vldr s0, [r7]", "vldr", 2),
    ("vfma.f32 s0, s1, s2", "vfma", 3),
    ("vdiv.f32 s0, s1, s2", "vdiv", 14),
    ("smlad r0, r1, r2, r3", "dual_mac", 1),
    ("smlald r0, r1, r2, r3", "mla_long", 1),
    ("sxtb16 r0, r1, ror #8", "extend_pack", 1),
    ("mla r0, r1, r2, r3", "mla", 1),
    ("sdiv r0, r1, r2", "div", 7),
    ("add.w r0, r1, r2, lsl #3", "shift_alu", 1),
    ("bl 9f\n .balign 4\n9: ", "bl", 3),
    ("adr r0, 9f + 1\n bx r0\n .balign 4\n9: ", "bx_blx", 4),
    ("b 9f\n nop\n .balign 4\n9: ", "branch_taken", 3),
    ("cmp r7, #0\n beq 9f\n9: ", "branch_not_taken", 1),
    ("cmp r7, #0\n it eq\n moveq r0, #1", "it_folded", -1),
]


@pytest.mark.parametrize(("assembly", "kind", "cycles"), INSTRUCTIONS)
def test_each_class_is_known_and_priced(profile_program, assembly, kind, cycles):
    counts = count_classes(profile_program(f"    {assembly}\n"))
    assert counts[kind] >= 1
    assert TIMINGS["cortex-m4"].price(kind) == cycles


def test_longer_multiplies_take_longer_on_a_cortex_m3():
    price = TIMINGS["cortex-m3"].price
    assert price("mul") == 1
    assert price("mla") == 2
    assert price("mul_long") > price("mla")
