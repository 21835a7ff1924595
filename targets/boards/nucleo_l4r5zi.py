"""ST NUCLEO-L4R5ZI. Sources are made for it; there is no firmware yet."""

from thumbnet.targets.board import Board, FlashTiming, Memory

# SRAM1 (192 KiB), SRAM2 (64 KiB) and SRAM3 (384 KiB) follow each other (ST RM0432, memory map).
BOARD = Board(
    name="nucleo_l4r5zi",
    description="ST NUCLEO-L4R5ZI: STM32L4R5ZI, Cortex-M4 with FPU",
    family="cortex-m",
    core="cortex-m4",
    cross_compiler="arm-none-eabi-gcc",
    flash=Memory("FLASH", 0x0800_0000, 2048 << 10),
    ram=Memory("RAM", 0x2000_0000, 640 << 10),
    clock_hz=120_000_000,
    # At 120 MHz in range 1 boost, and the ART accelerator (ST RM0432, embedded flash memory); its prefetch is off.
    flash_timing=FlashTiming(wait_states=5, read_bytes=8, line_bytes=32, instruction_lines=32, data_lines=8),
)
