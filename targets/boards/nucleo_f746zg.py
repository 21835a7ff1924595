"""ST NUCLEO-F746ZG. Sources are made for it; there is no firmware yet."""

from thumbnet.targets.board import Board, Memory

# DTCM (64 KiB), SRAM1 (240 KiB) and SRAM2 (16 KiB) follow each other (ST RM0385, memory map).
BOARD = Board(
    name="nucleo_f746zg",
    description="ST NUCLEO-F746ZG: STM32F746ZG, Cortex-M7 with FPU",
    family="cortex-m",
    core="cortex-m7",
    cross_compiler="arm-none-eabi-gcc",
    flash=Memory("FLASH", 0x0800_0000, 1024 << 10),
    ram=Memory("RAM", 0x2000_0000, 320 << 10),
    clock_hz=216_000_000,
)
