"""Raspberry Pi 2 with a 32-bit Linux."""

from thumbnet.targets.board import Board, Caches

# TVM has no runtime for 32-bit Arm: it takes C sources, as microcontrollers do, in a program of its own.
BOARD = Board(
    name="raspberry_pi_2",
    description="Raspberry Pi 2: BCM2836, 4 x Cortex-A7, 32-bit Linux",
    family="cortex-a",
    core="cortex-a7",
    cross_compiler="arm-linux-gnueabihf-gcc",
    # BCM2836's own, as the kernel's device tree has them.
    caches=Caches(first_level=32 << 10, second_level=512 << 10),
    firmware="linux",
    qemu="cortex-a7",
)
