"""Raspberry Pi 5 with a 64-bit Linux."""

from thumbnet.targets.board import Board, Caches

BOARD = Board(
    name="raspberry_pi_5",
    description="Raspberry Pi 5: BCM2712, 4 x Cortex-A76, 64-bit Linux",
    family="cortex-a",
    core="cortex-a76",
    cross_compiler="aarch64-linux-gnu-gcc",
    llvm={"mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a76", "num-cores": 4},
    # Raspberry Pi documentation, "Processors", BCM2712: 512 KiB a core, 2 MiB shared. The core's first level is
    # fixed by the Cortex-A76 Technical Reference Manual.
    caches=Caches(first_level=64 << 10, second_level=512 << 10, third_level=2 << 20),
    qemu="cortex-a76",
)
