"""Arm MPS3 with the AN547 image."""

from thumbnet.targets.board import Board, Memory

# Secure addresses: the core starts in secure state, and stays there. The instruction memory at 0, where the vector
# table is taken from, has only 512 KiB: the program lies in the QSPI flash, data in the internal SRAM (Application Note
# AN547, memory map).
# FPGAIO_HZ is what QEMU 7.2 counts by, 20 MHz beside a core of 32 MHz; a real board has the core's cycle counter.
BOARD = Board(
    name="mps3_an547",
    description="Arm MPS3 FPGA board, AN547 image (Corstone-300): Cortex-M55 with MVE",
    family="cortex-m",
    core="cortex-m55",
    cross_compiler="arm-none-eabi-gcc",
    flash=Memory("FLASH", 0x3800_0000, 8 << 20),
    ram=Memory("RAM", 0x3100_0000, 4 << 20),
    clock_hz=32_000_000,
    firmware="mps2",
    vectors=Memory("VECTORS", 0x0000_0000, 1 << 10),
    peripherals={"UART_BASE": 0x5930_3000, "UART_RX_IRQ": 33, "FPGAIO_BASE": 0x5930_2000, "FPGAIO_HZ": 20_000_000},
    qemu="mps3-an547",
)
