"""The emitted C and the kernels' headers have none of the warnings that careful projects ask for, and are C++ too."""

import subprocess
from pathlib import Path

import pytest

from thumbnet.compile.kernels.dsp.stage import DspStage
from thumbnet.compile.kernels.mve.stage import MveStage
from thumbnet.compile.plan.lowered_network import lower_network
from thumbnet.targets.board import CORTEX_M_FLAGS

from ..c_harness import WARNINGS, emit_lowered
from ..networks import LARGE_KERNEL_NETWORKS, one_of_each_kind
from ..plan.test_stage_graph import small_mobilenet

C, CXX = ("-x", "c", "-std=c99"), ("-x", "c++", "-std=c++14")
GCC_WARNINGS = (*WARNINGS, "-Wcast-align=strict")
CLANG = ("clang", "--target=arm-none-eabi", *WARNINGS, "-Wcast-align")
COMPILERS = {
    "gcc": ("arm-none-eabi-gcc", *GCC_WARNINGS, *C),
    "g++": ("arm-none-eabi-g++", *GCC_WARNINGS, *CXX),
    "clang": (*CLANG, *C),
    "clang++": (*CLANG, *CXX),
}
NETWORKS = {
    "mobilenet": small_mobilenet,
    "each kind": one_of_each_kind,
    **{name: LARGE_KERNEL_NETWORKS[name] for name in ("5x5 and 7x7", "7x7, shifted")},
}
needs_arm = pytest.mark.needs_tools("arm-none-eabi-gcc", "arm-none-eabi-g++")


def _check(folder, network, core, compiler, *, streamed=False):
    kernels = MveStage if core == "cortex-m55" else DspStage
    emit_lowered(lower_network(network, 1 << 20, kernels=kernels, streamed=streamed), folder)
    command = [*COMPILERS[compiler], *CORTEX_M_FLAGS[core], "-O1", "-c", "-o", "/dev/null"]
    if command[0] == "clang":
        command += ["-isystem", _headers_of_the_c_library()]
    for source in sorted(folder.glob("*.c")):
        done = subprocess.run([*command, source.name], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{compiler}, {core}: {done.stderr[:3000]}"


def _headers_of_the_c_library():
    """Return the folder of newlib's headers, for clang has none of its own."""
    command = ["arm-none-eabi-gcc", "-print-file-name=libc.a"]
    library = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    return library.parent.parent / "include"


@needs_arm
@pytest.mark.parametrize("core", CORTEX_M_FLAGS)
def test_a_network_for_each_core(core, tmp_path):
    _check(tmp_path / "c", small_mobilenet(), core, "gcc")
    _check(tmp_path / "cxx", small_mobilenet(), core, "g++")


@needs_arm
@pytest.mark.needs_tools("clang")
@pytest.mark.parametrize("core", CORTEX_M_FLAGS)
def test_a_network_for_each_core_by_clang(core, tmp_path):
    _check(tmp_path / "c", small_mobilenet(), core, "clang")
    _check(tmp_path / "cxx", small_mobilenet(), core, "clang++")


@needs_arm
@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m55"])
def test_a_streamed_image(core, tmp_path):
    _check(tmp_path / "c", small_mobilenet(), core, "gcc", streamed=True)
    _check(tmp_path / "cxx", small_mobilenet(), core, "g++", streamed=True)


@pytest.mark.slow
@needs_arm
@pytest.mark.needs_tools("clang")
@pytest.mark.parametrize("core", CORTEX_M_FLAGS)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_all_kernels(name, core, compiler, tmp_path):
    _check(tmp_path, NETWORKS[name](), core, compiler)
