"""Arm MPS2 with the AN385 image."""

from thumbnet.targets.board import Board, Memory

# ZBT SSRAM 1 holds code, SSRAM 2 and 3 data (Application Note AN385, memory map).
BOARD = Board(
    name="mps2_an385",
    description="Arm MPS2+ FPGA board, AN385 image: Cortex-M3, which has no DSP extension",
    family="cortex-m",
    core="cortex-m3",
    cross_compiler="arm-none-eabi-gcc",
    flash=Memory("FLASH", 0x0000_0000, 4 << 20),
    ram=Memory("RAM", 0x2000_0000, 4 << 20),
    clock_hz=25_000_000,
    firmware="mps2",
    peripherals={"UART_BASE": 0x4000_4000, "UART_RX_IRQ": 0, "FPGAIO_BASE": 0x4002_8000, "FPGAIO_HZ": 25_000_000},
    qemu="mps2-an385",
)
