"""Raspberry Pi 3 with a 64-bit Linux."""

from thumbnet.targets.board import Board, Caches

BOARD = Board(
    name="raspberry_pi_3",
    description="Raspberry Pi 3: BCM2837, 4 x Cortex-A53, 64-bit Linux",
    family="cortex-a",
    core="cortex-a53",
    cross_compiler="aarch64-linux-gnu-gcc",
    llvm={"mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a53", "num-cores": 4},
    # Raspberry Pi documentation, "Processors", BCM2837; the second level is shared.
    caches=Caches(first_level=32 << 10, second_level=512 << 10),
    qemu="cortex-a53",
)
