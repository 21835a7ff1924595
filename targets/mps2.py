"""What Arm's MPS2 FPGA boards have in common whatever Armv7-M core their image holds."""

from __future__ import annotations

from thumbnet.targets.board import Board, Memory


def mps2_board(image: str, core: str, description: str, stands_for: str | None = None) -> Board:
    """Return an MPS2 board: ZBT SSRAM 1 holds code, SSRAM 2 and 3 data.

    Parameters
    ----------
    image : str
        Number of the FPGA image and of its Application Note, whose memory map this is: ``"an386"``.
    core : str
        Its processor.
    description : str
        The processor, for people.
    stands_for : str or None
        See `Board`.
    """
    return Board(
        name=f"mps2_{image}",
        description=f"Arm MPS2+ FPGA board, {image.upper()} image: {description}",
        family="cortex-m",
        core=core,
        cross_compiler="arm-none-eabi-gcc",
        flash=Memory("FLASH", 0x0000_0000, 4 << 20),
        ram=Memory("RAM", 0x2000_0000, 4 << 20),
        clock_hz=25_000_000,
        firmware="mps2",
        peripherals={"UART_BASE": 0x4000_4000, "UART_RX_IRQ": 0, "FPGAIO_BASE": 0x4002_8000, "FPGAIO_HZ": 25_000_000},
        stands_for=stands_for,
        qemu=f"mps2-{image}",
    )
