"""Arm MPS2 with the AN505 image."""

from thumbnet.targets.board import Board, Memory

# Secure addresses: the core starts in secure state, and stays there. SSRAM 1 holds code, SSRAM 2 and 3 data
# (Application Note AN505, memory map).
BOARD = Board(
    name="mps2_an505",
    description="Arm MPS2+ FPGA board, AN505 image: Cortex-M33 with FPU and DSP extension",
    family="cortex-m",
    core="cortex-m33",
    cross_compiler="arm-none-eabi-gcc",
    flash=Memory("FLASH", 0x1000_0000, 4 << 20),
    ram=Memory("RAM", 0x3800_0000, 4 << 20),
    clock_hz=20_000_000,
    firmware="mps2",
    peripherals={"UART_BASE": 0x5020_0000, "UART_RX_IRQ": 32, "FPGAIO_BASE": 0x5030_2000, "FPGAIO_HZ": 20_000_000},
    qemu="mps2-an505",
)
