"""Chips that QEMU has not: Unicorn's cores, with peripherals of our own at the end of a line.

The peripherals are written from the chips' datasheets, as much of them as the firmware's ports touch. A clock, a PLL or
a crystal is ready only where all that it needs was switched on before.
"""

import struct
from collections import deque

from chip import Registers
from elftools.elf.elffile import ELFFile
from stm32_chips import MEGABYTES, SERIES, UART_CLOCKS
from unicorn import UC_ARCH_ARM, UC_MODE_MCLASS, UC_MODE_THUMB, Uc, UcError
from unicorn.arm_const import (
    UC_ARM_REG_PC,
    UC_ARM_REG_SP,
    UC_CPU_ARM_CORTEX_M0,
    UC_CPU_ARM_CORTEX_M4,
    UC_CPU_ARM_CORTEX_M7,
    UC_CPU_ARM_CORTEX_M33,
)

from thumbnet.runtime_tests.errors import DeviceUnreachableError
from thumbnet.runtime_tests.mcu.transport import Transport, TransportTimeoutError

#: Instructions that are executed at once, and how often while nothing is said.
SLICE, LONGEST_SILENCE = 2_000_000, 100
CORES = {
    "cortex-m0plus": UC_CPU_ARM_CORTEX_M0,
    "cortex-m4": UC_CPU_ARM_CORTEX_M4,
    "cortex-m7": UC_CPU_ARM_CORTEX_M7,
    "cortex-m33": UC_CPU_ARM_CORTEX_M33,
}
WFI = b"\x30\xbf"


class Nrf52(Registers):
    """The crystal, and a UARTE that moves bytes by itself."""

    CLOCK, UART = 0x4000_0000, 0x4000_2000
    RECEIVED, SENT = UART + 0x110, UART + 0x120
    PINS = (6, 8)
    listening = False

    def on_read(self, address):
        if address == self.CLOCK + 0x100:
            return self.get(self.CLOCK)
        if address == self.RECEIVED and self.listening and self.board.inbox and self.on:
            self.board.core.mem_write(self.get(self.UART + 0x534), bytes([self.board.inbox.popleft()]))
            self.listening, self.values[self.RECEIVED] = False, 1
        return self.get(address)

    @property
    def on(self):
        return (
            self.get(self.UART + 0x500) == 8 and (self.get(self.UART + 0x50C), self.get(self.UART + 0x514)) == self.PINS
        )

    def on_write(self, address, value):
        if address == self.UART and value:
            assert self.get(self.UART + 0x538) == 1
            self.listening = True
        elif address == self.UART + 0x8 and value and self.on:
            place = self.get(self.UART + 0x544)
            assert place >= 0x2000_0000, "DMA reads no flash"
            self.board.outbox += self.board.core.mem_read(place, self.get(self.UART + 0x548))
            self.values[self.SENT] = 1
        else:
            self.values[address] = value


class Rp2(Registers):
    """Resets, crystal, PLL and clocks in the order in which they depend on each other, and a PL011."""

    RESETS, CLOCKS, XOSC, PLL, IO, PADS, UART = 0, 0, 0, 0, 0, 0, 0
    RESET_BITS = 0
    microseconds = 0

    def __init__(self, board):
        super().__init__(board)
        self.values = {self.RESETS: 0xFFFF_FFFF, self.PLL + 4: 0x2D}

    def on_read(self, address):
        get = self.get
        crystal = get(self.XOSC) == 0xFA_BAA0
        values = {
            self.RESETS + 8: ~get(self.RESETS),
            self.XOSC + 4: crystal << 31,
            self.CLOCKS + 0x38: 1 << (get(self.CLOCKS + 0x30) & 3),
            self.CLOCKS + 0x44: 1 << (get(self.CLOCKS + 0x3C) & 1),
            self.PLL: get(self.PLL) | (crystal and get(self.PLL + 4) & 0x21 == 0 and get(self.PLL + 8) == 125) << 31,
            self.UART + 0x18: (not self.board.inbox) << 4,
        }
        if address == self.UART and self.board.inbox:
            return self.board.inbox.popleft()
        return values.get(address, get(address))

    def on_write(self, address, value):
        alias, address = address & 0x3000, address & ~0x3000
        old = self.get(address)
        new = {0: value, 0x1000: old ^ value, 0x2000: old | value, 0x3000: old & ~value}[alias]
        if address == self.UART and alias == 0:
            if self.on:
                self.board.outbox.append(value & 0xFF)
        else:
            self.values[address] = new

    @property
    def on(self):
        """Whether what is sent reaches the line: out of reset, clocked, on its pin and at its rate."""
        get = self.get
        board = self.board.board
        hz = board.clock_hz if get(self.CLOCKS + 0x3C) & 1 else board.peripherals["CRYSTAL_HZ"]
        rate = hz * 4 / (get(self.UART + 0x24) * 64 + get(self.UART + 0x28) or 1)
        return (
            get(self.RESETS) & self.RESET_BITS == 0
            and get(self.CLOCKS + 0x48) >> 11 & 1 == 1
            and get(self.UART + 0x30) & 0x301 == 0x301
            and get(self.IO + 4) == get(self.IO + 12) == 2
            and get(self.PADS + 4) >> 7 == get(self.PADS + 8) >> 7 == 0
            and get(self.PADS + 8) >> 6 & 1 == 1
            and abs(rate / 115200 - 1) < 0.01
        )


class Rp2040(Rp2):
    RESETS, CLOCKS, XOSC, PLL = 0x4000_C000, 0x4000_8000, 0x4002_4000, 0x4002_8000
    IO, PADS, UART = 0x4001_4000, 0x4001_C000, 0x4003_4000
    RESET_BITS = 1 << 5 | 1 << 8 | 1 << 12 | 1 << 21 | 1 << 22

    def on_read(self, address):
        if address == 0x4005_4028:
            self.microseconds += 100
            return self.microseconds if self.get(0x4005_802C) == 1 << 9 | 12 else 0
        return super().on_read(address)


class Rp2350(Rp2):
    RESETS, CLOCKS, XOSC, PLL = 0x4002_0000, 0x4001_0000, 0x4004_8000, 0x4005_0000
    IO, PADS, UART = 0x4002_8000, 0x4003_8000, 0x4007_0000
    RESET_BITS = 1 << 6 | 1 << 9 | 1 << 14 | 1 << 26


class Nrf53(Nrf52):
    CLOCK, UART = 0x5000_5000, 0x5000_8000
    RECEIVED, SENT = UART + 0x110, UART + 0x120
    PINS = (20, 22)

    @property
    def on(self):
        fast = self.get(self.CLOCK + 0x558) == 0 and self.CLOCK + 0x558 in self.values
        return super().on and fast and self.get(0x5000_1500) == 1


#: By board: the peripherals that answer, and the first addresses of the megabytes that are theirs.
CHIPS = {
    "nrf52840dk": (Nrf52, (0x4000_0000, 0x5000_0000)),
    "nrf5340dk": (Nrf53, (0x5000_0000, 0x5080_0000)),
    "rpi_pico": (Rp2040, (0x4000_0000,)),
    "rpi_pico2": (Rp2350, (0x4000_0000,)),
    **{name: (None, ()) for name in UART_CLOCKS},
}


class UnicornBoard(Transport):
    """A board with its firmware, which runs while somebody reads."""

    def __init__(self, board, elf):
        self.board, self.inbox, self.outbox = board, deque(), bytearray()
        self.core = Uc(UC_ARCH_ARM, UC_MODE_THUMB | UC_MODE_MCLASS)
        self.core.ctl_set_cpu_model(CORES[board.core])
        for bank in (*board.flash_banks, *board.ram_banks):
            self.core.mem_map(bank.origin, bank.size)
        self.core.mem_map(0xE000_0000, 1 << 20)
        kind, megabytes = CHIPS[board.name]
        if board.firmware == "stm32":
            kind, megabytes = SERIES[board.series], MEGABYTES[board.series]
        self.chip = kind(self)
        for base in megabytes:
            self.chip.map(self.core, base)
        with elf.open("rb") as file:
            for segment in ELFFile(file).iter_segments("PT_LOAD"):
                if segment["p_filesz"]:
                    self.core.mem_write(segment["p_paddr"], segment.data())
        vectors = board.flash.origin + (0x100 if board.series == "rp2040" else 0)
        stack, self.at = struct.unpack("<II", self.core.mem_read(vectors, 8))
        self.core.reg_write(UC_ARM_REG_SP, stack)

    def open(self):
        """Nothing is to be opened."""

    def close(self):
        """Nothing is to be closed."""

    def write(self, data, timeout_s):
        self.inbox.extend(data)

    def read(self, n, timeout_s):
        for _ in range(LONGEST_SILENCE):
            if self.outbox:
                break
            try:
                self.core.emu_start(self.at | 1, 0xFFFF_FFFE, count=SLICE)
            except UcError as error:
                raise DeviceUnreachableError(f"the core stopped: {error}") from error
            self.at = self.core.reg_read(UC_ARM_REG_PC)
            if self.core.mem_read(self.at - 2, 2) == WFI and not self.inbox and not self.outbox:
                raise TransportTimeoutError("it waits for a byte")
        else:
            raise DeviceUnreachableError(f"nothing was said in {LONGEST_SILENCE * SLICE:,} instructions")
        data, self.outbox = bytes(self.outbox[:n]), self.outbox[n:]
        return data
