"""Raspberry Pi 4 with a 64-bit Linux."""

from thumbnet.targets.board import Board, Caches

BOARD = Board(
    name="raspberry_pi_4",
    description="Raspberry Pi 4: BCM2711, 4 x Cortex-A72, 64-bit Linux",
    family="cortex-a",
    core="cortex-a72",
    cross_compiler="aarch64-linux-gnu-gcc",
    llvm={"mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72", "num-cores": 4},
    # Raspberry Pi documentation, "Processors", BCM2711; the second level is shared. The core's first level is fixed by
    # the Cortex-A72 Technical Reference Manual.
    caches=Caches(first_level=32 << 10, second_level=1 << 20),
    qemu="cortex-a72",
)
