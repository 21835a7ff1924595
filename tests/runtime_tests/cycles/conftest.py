"""Programs for an emulated Cortex-M4, whose instructions are known one by one."""

import subprocess
from pathlib import Path

import pytest

from thumbnet.runtime_tests.cycles.block_profile import BlockProfile
from thumbnet.runtime_tests.mcu.cycle_validation import run_program
from thumbnet.runtime_tests.mcu.firmware_build import read_symbols

COMPILER = "arm-none-eabi-gcc"
#: Code at 0, data in RAM; what is counted lies between the two marks.
PROGRAM = """
.syntax unified
.cpu cortex-m4
.fpu fpv4-sp-d16
.thumb
.word 0x20001000
.word _start + 1
.balign 64
.global _start, measure_begin, measure_end
.thumb_func
_start:
    ldr sp, =0x20001000
    ldr r0, =0xE000ED88 @ CPACR: the floating-point unit is off after reset
    mov r1, #0xF00000
    str r1, [r0]
    dsb
    isb
    ldr r7, =0x20000100
    b measure_begin
    .balign 32
measure_begin:
    nop
%s
measure_end:
    b measure_end
    .ltorg
"""


@pytest.fixture
def build_program(tmp_path):
    """Return a function that builds a program from the assembly between its marks, and returns its ELF file."""

    def build(body: str) -> Path:
        source, elf = tmp_path / "program.s", tmp_path / "program.elf"
        source.write_text(PROGRAM % body)
        command = [COMPILER, "-mcpu=cortex-m4", "-mthumb", "-nostdlib", "-Wl,-Ttext=0", str(source), "-o", str(elf)]
        subprocess.run(command, check=True)
        return elf

    return build


@pytest.fixture
def profile_program(build_program):
    """Return a function that runs a program on the emulated board, and returns the blocks executed."""

    def run(body, *, flash=None, timing=None):
        elf = build_program(body)
        symbols = read_symbols(elf, COMPILER)
        profile = BlockProfile([symbols["measure_begin"], symbols["measure_end"]], flash, timing)
        try:
            return run_program(elf, "mps2-an386", profile)
        finally:
            profile.close()

    return run
