"""What the board files say, beside what others say of the same chips.

Memories and interrupts: modm-devices, made from the vendors' files. Addresses of the UARTs, which it hasn't: the
vendors' CMSIS headers (names in the table), as in STMicroelectronics' cmsis_device_* and Nordic's and Raspberry Pi's.
"""

from functools import cache
from pathlib import Path

import pytest

from thumbnet.targets.registry import get_board, list_boards

modm_devices = pytest.importorskip("modm_devices", reason="needs modm-devices (pip install -e '.[dev]')")
from modm_devices.parser import DeviceParser  # noqa: E402

#: By board: file and name of its chip in modm-devices, the interrupt's name there, the header's macro and value.
CHIPS = {
    "netduinoplus2": ("stm32f4-05_07_15_17", "stm32f405rg", "USART1", "USART1_BASE", 0x4001_1000),
    "b_l475e_iot01a": ("stm32l4-75", "stm32l475vg", "USART1", "USART1_BASE", 0x4001_3800),
    "nucleo_f411re": ("stm32f4-01_11", "stm32f411re", "USART2", "USART2_BASE", 0x4000_4400),
    "nucleo_f446re": ("stm32f4-46", "stm32f446re", "USART2", "USART2_BASE", 0x4000_4400),
    "nucleo_f746zg": ("stm32f7-45_46_50_56", "stm32f746zg", "USART3", "USART3_BASE", 0x4000_4800),
    "nucleo_h743zi2": ("stm32h7-42_43_50_53", "stm32h743zi", "USART3", "USART3_BASE", 0x4000_4800),
    "nucleo_h7a3zi_q": ("stm32h7-a3_b0_b3-", "stm32h7a3zi", "USART3", "USART3_BASE", 0x4000_4800),
    "nucleo_l4r5zi": ("stm32l4-r5_r7_r9", "stm32l4r5zi", "LPUART1", "LPUART1_BASE", 0x4000_8000),
    "nucleo_u575zi_q": ("stm32u5-75_85", "stm32u575zi", "USART1", "USART1_BASE_NS", 0x4001_3800),
    "nrf52840dk": ("nrf52820_840", "nrf52840-qiaa", "UART0_UARTE0", "NRF_UARTE0_BASE", 0x4000_2000),
    "nrf5340dk": ("nrf5340", "nrf5340-qkaa@app", "SERIAL0", "NRF_UARTE0_S_BASE", 0x5000_8000),
    "rpi_pico": ("rp2040", "rp2040", "UART0_IRQ", "UART0_BASE", 0x4003_4000),
    "rpi_pico2": ("rp2350", "rp2350", "UART0_IRQ", "UART0_BASE", 0x4007_0000),
}
#: Boards of which modm-devices knows nothing: FPGAs of Arm's.
UNKNOWN = {"mps2_an385", "mps2_an386", "mps2_an500", "mps2_an505", "mps3_an547"}
#: What modm-devices hasn't, or has wrong, and where else it stands.
OTHER_MEMORIES = {
    # ST RM0432, 2.2: SRAM2 at 0x10000000 is also seen behind SRAM1.
    "nucleo_l4r5zi": [(0x2003_0000, 64 << 10)],
    # The flash beside the chip: Raspberry Pi Pico datasheet, 2 MB; Pico 2 datasheet, 4 MB. RP2350 datasheet, 2.2:
    # 520 KiB of SRAM, of which modm-devices 0.13 has the RP2040's 264.
    "rpi_pico": [(0x1000_0000, 2 << 20)],
    "rpi_pico2": [(0x1000_0000, 4 << 20), (0x2000_0000, 512 << 10), (0x2008_0000, 4 << 10), (0x2008_1000, 4 << 10)],
}


@cache
def _core_of(name):
    file, chip, *_ = CHIPS[name]
    folder = Path(modm_devices.__file__).parent / "resources" / "devices"
    (path,) = folder.rglob(f"{file}.xml")
    found = [device for device in DeviceParser().parse(str(path)).get_devices() if device.partname.startswith(chip)]
    return next(driver for driver in found[0].properties["driver"] if driver["name"] == "core")


def _memories(name):
    known = [(int(memory["start"], 16), int(memory["size"])) for memory in _core_of(name)["memory"]]
    return {*known, *OTHER_MEMORIES.get(name, [])}


def test_every_microcontroller_is_compared_or_named():
    assert {board.name for board in list_boards() if board.family == "cortex-m"} == {*CHIPS, *UNKNOWN}


@pytest.mark.parametrize("name", CHIPS)
def test_memories_begin_and_end_where_the_chips_do(name):
    board = get_board(name)
    memories = _memories(name)
    for bank in (*board.flash_banks, *board.ram_banks):
        at = bank.origin
        while at < bank.end:
            # A bank of the file may be several of the chip's that follow each other.
            sizes = [size for start, size in memories if start == at and at + size <= bank.end]
            assert sizes, f"{bank.name}: the chip has nothing at {at:#x} up to {bank.end:#x}"
            at += max(sizes)


@pytest.mark.parametrize("name", CHIPS)
def test_cores_and_interrupts_are_the_chips(name):
    board, core = get_board(name), _core_of(name)
    _, _, interrupt, _, _ = CHIPS[name]
    numbers = {vector["name"]: int(vector["position"]) for vector in core["vector"]}
    assert board.peripherals["UART_IRQ"] == numbers[interrupt]
    assert core["type"].startswith(board.core)


@pytest.mark.parametrize("name", CHIPS)
def test_uarts_are_where_the_vendors_headers_have_them(name):
    *_, base = CHIPS[name]
    assert get_board(name).peripherals["UART_BASE"] == base
