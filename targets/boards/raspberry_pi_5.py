"""Raspberry Pi 5 with a 64-bit Linux."""

from thumbnet.targets.board import Board

BOARD = Board(
    name="raspberry_pi_5",
    description="Raspberry Pi 5: BCM2712, 4 x Cortex-A76, 64-bit Linux",
    family="cortex-a",
    core="cortex-a76",
    cross_compiler="aarch64-linux-gnu-gcc",
    llvm={"mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a76", "num-cores": 4},
    qemu="cortex-a76",
)
