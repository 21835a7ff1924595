"""Constants and code lie in the sections that a program names, and in the compiler's where it names none."""

import subprocess

import pytest

from thumbnet.compile.kernels.dsp.stage import DspStage
from thumbnet.compile.kernels.mve.stage import MveStage
from thumbnet.compile.plan.lowered_network import lower_network
from thumbnet.targets.board import CORTEX_M_FLAGS

from ..c_harness import emit_lowered
from ..networks import one_of_each_kind

pytestmark = pytest.mark.needs_tools("arm-none-eabi-gcc")

PLACED = {
    "NET_WEIGHTS_ATTRIBUTE": '__attribute__((section(".external_flash")))',
    "TN_CODE_SECTION": '".itcm"',
}
#: With the kernels in assembly, and in C.
CORES = [("cortex-m7", DspStage), ("cortex-m3", DspStage), ("cortex-m55", MveStage), ("cortex-m7", MveStage)]


def _sizes(folder, core, definitions):
    """Return the bytes of each kind of section of the network's objects."""
    flags = [*CORTEX_M_FLAGS[core], "-O2", "-std=gnu11", "-ffunction-sections", "-fdata-sections", "-Werror"]
    flags += [f"-D{name}={value}" for name, value in definitions.items()]
    sizes = {}
    for source in ("net_layers.c", "net_weights.c"):
        subprocess.run(["arm-none-eabi-gcc", *flags, "-c", source, "-o", "x.o"], cwd=folder, check=True)
        listing = subprocess.run(
            ["arm-none-eabi-size", "-A", "x.o"], cwd=folder, capture_output=True, text=True, check=True
        )
        for name, size, *_ in (line.split() for line in listing.stdout.splitlines() if line.startswith(".")):
            kind = name.split(".")[1]
            sizes[kind] = sizes.get(kind, 0) + int(size)
    return sizes


@pytest.mark.parametrize(("core", "kernels"), CORES)
def test_a_program_places_constants_and_layers(tmp_path, core, kernels):
    emit_lowered(lower_network(one_of_each_kind(), kernels=kernels), tmp_path)
    usual, placed = _sizes(tmp_path, core, {}), _sizes(tmp_path, core, PLACED)
    assert not {"external_flash", "itcm"} & set(usual)
    assert placed["external_flash"] > 0 and placed["external_flash"] >= usual["rodata"] - placed.get("rodata", 0)
    assert placed["itcm"] >= 0.9 * usual["text"] > 900 and not placed.get("text")
