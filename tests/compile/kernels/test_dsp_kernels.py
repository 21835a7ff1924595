"""The depthwise kernels in assembly give what their portable twins give, for sizes and planes no network here has.

The program of `dsp_kernels.c` runs in QEMU's user mode, on a core with the same instructions as Cortex-M's.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from thumbnet.compile.kernels.dsp.stage import DspStage

from ...processes import Programs

INCLUDE = DspStage.headers[0].parent
SOURCE = Path(__file__).parent / "dsp_kernels.c"
FLAGS = ("-march=armv7-a", "-mfloat-abi=soft", "-mthumb", "-O2", "-Wall", "-Wextra", "-Werror", "--specs=rdimon.specs")
PLANTED = {
    "a tap": ("ldr r9, [r2, #-11]", "ldr r9, [r2, #-12]"),
    "the ninth tap": ("ldrsb r8, [r2, #-9]", "ldrsb r8, [r2, #-10]"),
    "the next part of a row": ("add r2, r2, #", "add r2, r2, #2+"),
    "the last pixel of an odd row": ("TN_DW8_ROW1(LOAD, WA, WC, H, A0)", "TN_DW8_ROW1(LOAD, WC, WA, H, A0)"),
}

pytestmark = [
    pytest.mark.emulated,
    pytest.mark.needs_tools("qemu-arm", "arm-none-eabi-gcc"),
]


def _output(folder, *flags, include=INCLUDE):
    program = folder / "program"
    command = ["arm-none-eabi-gcc", *FLAGS, *flags, "-I", str(include), str(SOURCE), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    done = Programs().run(["qemu-arm", "-cpu", "max", program])
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    lines = _output(tmp_path_factory.mktemp("portable"), "-DTN_PORTABLE")
    assert len(lines) == 56
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
