"""The kernels in assembly give what their portable twins give, for sizes and planes no network here has.

The programs of `dsp_kernels.c` (depthwise), `dsp_large_depthwise.c`, `dsp_pointwise.c` and `dsp_pixels.c` run in QEMU's
user mode, on a core with the same instructions as Cortex-M's. Nearly every instruction of the kernels' matters to them:
left out, it changes an output.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from thumbnet.compile.kernels.dsp.stage import DspStage

from ...processes import Programs

INCLUDE = DspStage.headers[0].parent
DEPTHWISE, LARGE_DEPTHWISE, POINTWISE, PIXELS = (
    Path(__file__).parent / f"dsp_{name}.c" for name in ("kernels", "large_depthwise", "pointwise", "pixels")
)
FLAGS = ("-march=armv7-a", "-mfloat-abi=soft", "-mthumb", "-O2", "-Wall", "-Wextra", "-Werror", "--specs=rdimon.specs")
PLANTED = {
    "a tap": ("ldr r9, [r2, #-11]", "ldr r9, [r2, #-12]"),
    "the ninth tap": ("ldrsb r8, [r2, #-9]", "ldrsb r8, [r2, #-10]"),
    "the next part of a row": ("add r2, r2, #", "add r2, r2, #2+"),
    "the last pixel of an odd row": ("TN_DW8_ROW1(LOAD, WA, WC, H, A0)", "TN_DW8_ROW1(LOAD, WC, WA, H, A0)"),
}
PLANTED_LARGE = {
    "the last tap of an even pixel": ("tn_dwl_product smlabt, 2, r7, r11", "tn_dwl_product smlabb, 2, r7, r11"),
    "a pair of taps of an odd pixel": ("pkhbt r7, r10, r11, lsl #16", "pkhbt r7, r10, r9, lsl #16"),
    "the sixth pair": ("tn_dwl_product smlad, 3, r4, r9\\n", "tn_dwl_product smlad, 3, r4, r8\\n"),
    "the next pixel of packed rows": ("sub r11, r5, r11", "sub r11, r11, r5"),
    "the next row of widened planes": ("(\\\\rowb-4*tn_words)", "(\\\\rowb-4*tn_words+1)"),
    "the order of widened values": ("pkhtb r9, r7, r6, asr #16", "pkhtb r9, r6, r7, asr #16"),
    "where a row's fours end": ("(\\\\w/4*8*\\\\stride)", "(\\\\w/4*8)"),
    "the next plane": ("tn_dwl_add r3, r12, \\\\ich, r5", "tn_dwl_add r3, r12, \\\\och, r5"),
}
PLANTED_POINTWISE = {
    "a weight of the last step of a turn": ("ldr r5, [r1, #(16*.Lk_at+16)]!", "ldr r5, [r1, #(16*.Lk_at+12)]!"),
    "the steps before the first turn": ('TN_PW4_STEPS(".Lk_rest")', 'TN_PW4_STEPS("0")'),
    "a channel's multiplier": ("smmlar r11, r11, r4, r1", "smmlar r11, r11, r5, r1"),
    "the fourth plane": ("add r3, r3, r1", "add r3, r3, r5"),
    "weights left over by turns": ("and r2, r2, #12", "and r2, r2, #8"),
    "turns of 32 slots": ('"add r2, r0, r2, lsl #2\\n"', '"add r2, r0, r2, lsl #1\\n"'),
    "a word of eight channels": ("smlad r0, r3, r7, r0", "smlad r0, r3, r6, r0"),
    "what eight channels give": ('"pkhbt r0, lr, r0, lsl #16\\n"', '""'),
    "a slot of a pair of channels": ("smlad r3, r7, r11, r3", "smlad r3, r6, r11, r3"),
}

pytestmark = [
    pytest.mark.emulated,
    pytest.mark.needs_tools("qemu-arm", "arm-none-eabi-gcc"),
]


def _output(folder, *flags, include=INCLUDE, source=DEPTHWISE):
    program = folder / "program"
    folders = ("-I", str(include), "-I", str(INCLUDE.parent))
    command = ["arm-none-eabi-gcc", *FLAGS, *flags, *folders, str(source), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    done = Programs().run(["qemu-arm", "-cpu", "max", program])
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    lines = _output(tmp_path_factory.mktemp("portable"), "-DTN_PORTABLE")
    assert len(lines) == 57
    # The last number is of different values: a kernel that saturates everywhere would prove nothing.
    assert all(int(line.split()[-1]) > 2 for line in lines)
    return lines


@pytest.mark.parametrize("unroll", [2, 12, 24, 1000])
def test_assembly_gives_the_bytes_of_the_portable_kernels(unroll, expected, tmp_path):
    assert _output(tmp_path, f"-DTN_DW_UNROLL={unroll}") == expected


@pytest.mark.parametrize("bug", PLANTED)
def test_planted_bugs_are_seen(bug, expected, tmp_path):
    include = Path(shutil.copytree(INCLUDE, tmp_path / "include"))
    header = include / "thumbnet_dsp_depthwise.h"
    right, wrong = PLANTED[bug]
    text = header.read_text()
    assert right in text
    header.write_text(text.replace(right, wrong))
    assert _output(tmp_path, include=include) != expected


@pytest.fixture(scope="module")
def expected_large(tmp_path_factory):
    lines = _output(tmp_path_factory.mktemp("portable"), "-DTN_PORTABLE", source=LARGE_DEPTHWISE)
    assert len(lines) == 12 * 12
    assert all(int(line.split()[-1]) > 2 for line in lines)
    return lines


def test_large_depthwise_kernels_give_the_bytes_of_the_portable_ones(expected_large, tmp_path):
    assert _output(tmp_path, source=LARGE_DEPTHWISE) == expected_large


@pytest.mark.parametrize("bug", PLANTED_LARGE)
def test_bugs_planted_in_large_depthwise_kernels_are_seen(bug, expected_large, tmp_path):
    include = Path(shutil.copytree(INCLUDE, tmp_path / "include"))
    header = include / "thumbnet_dsp_large_depthwise.h"
    right, wrong = PLANTED_LARGE[bug]
    text = header.read_text()
    assert right in text
    header.write_text(text.replace(right, wrong))
    assert _output(tmp_path, include=include, source=LARGE_DEPTHWISE) != expected_large


@pytest.fixture(scope="module")
def expected_pointwise(tmp_path_factory):
    lines = _output(tmp_path_factory.mktemp("portable"), "-DTN_PORTABLE", source=POINTWISE)
    assert len(lines) == 16 * 9 + 4 * 3
    assert all(int(line.split()[-1]) > 2 for line in lines)
    return lines


@pytest.mark.parametrize("unroll", [4, 16, 32, 64])
def test_pointwise_kernels_give_the_bytes_of_the_portable_ones(unroll, expected_pointwise, tmp_path):
    assert _output(tmp_path, f"-DTN_PW_UNROLL={unroll}", source=POINTWISE) == expected_pointwise


@pytest.mark.parametrize("bug", PLANTED_POINTWISE)
def test_bugs_planted_in_pointwise_kernels_are_seen(bug, expected_pointwise, tmp_path):
    include = Path(shutil.copytree(INCLUDE, tmp_path / "include"))
    right, wrong = PLANTED_POINTWISE[bug]
    holding = [header for header in include.glob("thumbnet_dsp_*.h") if right in header.read_text()]
    assert holding
    for header in holding:
        header.write_text(header.read_text().replace(right, wrong))
    assert _output(tmp_path, include=include, source=POINTWISE) != expected_pointwise


def test_pixels_are_paired_as_portable_kernels_do_it(tmp_path):
    lines = _output(tmp_path, "-DTN_PORTABLE", source=PIXELS)
    assert len(lines) == 8
    assert all(int(line.split()[-1]) > 2 for line in lines)
    assert _output(tmp_path, source=PIXELS) == lines
