"""Two networks in one program: nothing of one is the other's, whatever the linker is asked to do."""

import subprocess

import numpy as np
import pytest

from thumbnet.compile.kernels.dsp.stage import DspStage
from thumbnet.compile.kernels.mve.stage import MveStage
from thumbnet.compile.network.reference import run_reference
from thumbnet.compile.plan.lowered_network import lower_network
from thumbnet.targets.board import CORTEX_M_FLAGS

from ..c_harness import SANITIZERS, STRICT, emit_lowered
from ..networks import make_image
from ..plan.test_stage_graph import small_mobilenet

NAMES = ("first", "second")
#: Every function is alone, as far as the partitions go: what assembly defines is called from another file of assembly.
LTO = ("-O2", "-flto", "-flto-partition=max")
BARE = ("-ffreestanding", "-nostartfiles", "-Wl,-Tprogram.ld")
#: Code at 0, data at the start of the RAM of Arm's MPS2, where the emulator's loader puts both.
SCRIPT = """
SECTIONS {
    . = 0;
    .text : { KEEP(*(.vectors)) *(.text .text.* .rodata .rodata.*) }
    .ARM.exidx : { *(.ARM.exidx*) }
    . = 0x20000000;
    .data : { *(.data .data.*) }
    .bss : { *(.bss .bss.* COMMON) }
}
"""
#: A program's exit status by semihosting: 0x20026 is an application's own end, anything else a failure.
START = """
int main(void);
__attribute__((used)) static void start(void) {
    const int failed = main();
    register int operation __asm__("r0") = 0x18;
    register int reason __asm__("r1") = failed ? 0x20023 : 0x20026;
    __asm__ volatile("bkpt 0xab" ::"r"(operation), "r"(reason));
}
__attribute__((section(".vectors"), used)) void (*const vectors[16])(void) = {(void (*)(void))0x20010000, start};
"""
CHECK = """
    memcpy({name}_input({arena}), {name}_image, sizeof {name}_image);
    {name}_run({arena});
    if (memcmp({name}_output({arena}), {name}_expected, sizeof {name}_expected))
        return {status};
"""
#: One arena for both of them, as large as the larger one wants it.
SHARED = """
static union {{
    {members}
    uint8_t bytes[1];
}} arena __attribute__((aligned({NAME}_ARENA_ALIGNMENT)));
"""


def _networks():
    """Networks of the same layers with other weights: their kernels and stages would have the same names."""
    return {name: small_mobilenet(seed=seed) for seed, name in enumerate(NAMES)}


def _array(name, values):
    return f"static const int8_t {name}[] = {{{', '.join(map(str, values.reshape(-1).tolist()))}}};\n"


def _write(folder, kernels=DspStage, *, shared=False):
    """Write two networks, each in a folder of its own, and a main that checks both one after the other, twice."""
    main, checks = "#include <stdint.h>\n#include <string.h>\n", ""
    arena = "arena.bytes" if shared else ""
    for status, (name, network) in enumerate(_networks().items(), 1):
        lowered = lower_network(network, 1 << 20, kernels=kernels)
        emit_lowered(lowered, folder / name, name, caller_arena=shared)
        image = make_image(network, status)
        main += f'#include "{name}/{name}.h"\n{_array(f"{name}_image", image)}'
        main += _array(f"{name}_expected", run_reference(network, image).astype(np.int8))
        checks += CHECK.format(name=name, status=status, arena=arena)
    if shared:
        members = " ".join(f"uint8_t {name}[{name.upper()}_ARENA_BYTES];" for name in NAMES)
        main += SHARED.format(members=members, NAME=NAMES[0].upper())
    (folder / "main.c").write_text(f"{main}int main(void) {{{checks}{checks}    return 0;\n}}\n")
    (folder / "start.c").write_text(START)
    (folder / "program.ld").write_text(SCRIPT)
    return ["main.c", *sorted(str(path.relative_to(folder)) for path in folder.glob("*/*.c"))]


def _build(folder, *command):
    done = subprocess.run([*command, "-o", "program"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:3000]


@pytest.mark.needs_tools("gcc")
@pytest.mark.parametrize("shared", [False, True], ids=["arenas of their own", "one arena"])
@pytest.mark.parametrize("flags", [SANITIZERS, LTO], ids=["objects", "optimized at link time"])
def test_both_answer_on_the_host(flags, shared, tmp_path):
    sources = _write(tmp_path, shared=shared)
    _build(tmp_path, "gcc", *STRICT, *flags, *sources)
    assert subprocess.run([tmp_path / "program"], check=False).returncode == 0


@pytest.mark.needs_tools("gcc")
def test_one_file_of_sources_may_hold_both_kernels(tmp_path):
    """As CMake's unity builds do."""
    _write(tmp_path)
    includes = "".join(f'#include "{name}/{name}_layers.c"\n' for name in NAMES)
    (tmp_path / "all.c").write_text(includes)
    rest = [f"{name}/{name}{part}.c" for name in NAMES for part in ("", "_weights")]
    _build(tmp_path, "gcc", *STRICT, "main.c", "all.c", *rest)
    assert subprocess.run([tmp_path / "program"], check=False).returncode == 0


@pytest.mark.emulated
@pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")
@pytest.mark.parametrize("shared", [False, True], ids=["arenas of their own", "one arena"])
@pytest.mark.parametrize("flags", [("-O2",), LTO], ids=["objects", "optimized at link time"])
def test_both_answer_on_a_microcontroller(flags, shared, tmp_path):
    sources = _write(tmp_path, shared=shared)
    # Without the FPU, which nobody switches on here.
    _build(tmp_path, "arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", *flags, *BARE, *sources, "start.c")
    command = ["qemu-system-arm", "-M", "mps2-an386", "-nographic", "-monitor", "none", "-serial", "none"]
    command += ["-semihosting-config", "enable=on,target=native", "-kernel", str(tmp_path / "program")]
    assert subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode == 0


@pytest.mark.needs_tools("arm-none-eabi-gcc")
def test_vector_kernels_are_found_from_everywhere(tmp_path):
    sources = _write(tmp_path, MveStage)
    flags = (*CORTEX_M_FLAGS["cortex-m55"], *LTO, *BARE)
    _build(tmp_path, "arm-none-eabi-gcc", *flags, *sources, "start.c")
