"""Chips that QEMU has not: Unicorn's cores, with peripherals of our own at the end of a line.

The peripherals are written from the chips' datasheets, as much of them as the firmware's ports touch. A clock, a PLL or
a crystal is ready only where all that it needs was switched on before.
"""

import random
import struct
import time
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
#: Looks for a byte, one after the other, after which the core is held to wait for one.
LOOKS = 20
CORES = {
    "cortex-m0plus": UC_CPU_ARM_CORTEX_M0,
    "cortex-m4": UC_CPU_ARM_CORTEX_M4,
    "cortex-m7": UC_CPU_ARM_CORTEX_M7,
    "cortex-m33": UC_CPU_ARM_CORTEX_M33,
}
WFI = b"\x30\xbf"


class Nrf52(Registers):
    """The crystal, a UARTE that moves bytes by itself, and a timer that is read by capturing it."""

    CLOCK, UART, TIMER, GPIO = 0x4000_0000, 0x4000_2000, 0x4000_8000, 0x5000_0500
    RECEIVED, SENT = UART + 0x110, UART + 0x120
    PINS = (6, 8)
    listening = False

    def on_read(self, address):
        if address == self.CLOCK + 0x100:
            return self.get(self.CLOCK)
        if address == self.RECEIVED and self.listening and self.board.byte_waits() and self.on:
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
            self.board.say(self.board.core.mem_read(place, self.get(self.UART + 0x548)))
            self.values[self.SENT] = 1
        elif address == self.TIMER + 0x40 and value and self.get(self.TIMER) == 1:
            bits = {0: 16, 1: 8, 2: 24, 3: 32}[self.get(self.TIMER + 0x508)]
            ticks = self.board.ticks(16_000_000 >> self.get(self.TIMER + 0x510))
            self.values[self.TIMER + 0x540] = ticks & ((1 << bits) - 1)
        elif address % 0x300 == (self.GPIO + 0x18) % 0x300 and self.GPIO < address < self.GPIO + 0x600:
            self.values[address] = self.get(address) | value  # DIRSET
        else:
            self.values[address] = value
            for port in range(2):
                outputs = self.get(self.GPIO + 0x300 * port + 0x18)
                for level, register in ((1, 0x08), (0, 0x0C)):
                    if address == self.GPIO + 0x300 * port + register:
                        self.board.mark_all(32 * port, value & outputs, level)


class Rp2(Registers):
    """Resets, crystal, PLL and clocks in the order in which they depend on each other, and a PL011."""

    RESETS, CLOCKS, XOSC, PLL, IO, PADS, UART = 0, 0, 0, 0, 0, 0, 0
    SOFTWARE = 0xD000_0000
    OUT_SET, OUT_CLEAR, OUT_ENABLE = 0, 0, 0
    RESET_BITS = 0

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
        }
        if address == self.UART + 0x18:
            return (not self.board.byte_waits()) << 4
        if address == self.UART and self.board.inbox:
            return self.board.inbox.popleft()
        return values.get(address, get(address))

    def on_write(self, address, value):
        if address >= self.SOFTWARE:
            self.on_pins(address - self.SOFTWARE, value)
            return
        alias, address = address & 0x3000, address & ~0x3000
        old = self.get(address)
        new = {0: value, 0x1000: old ^ value, 0x2000: old | value, 0x3000: old & ~value}[alias]
        if address == self.UART and alias == 0:
            if self.on:
                self.board.say(bytes([value & 0xFF]))
        else:
            self.values[address] = new

    def on_pins(self, register, value):
        """Set pins that the software drives, which their pads let out."""
        if register == self.OUT_ENABLE:
            self.values[self.SOFTWARE] = self.get(self.SOFTWARE) | value
        for level, wanted in ((1, self.OUT_SET), (0, self.OUT_CLEAR)):
            if register == wanted:
                driven = sum(1 << pin for pin in range(30) if self.get(self.IO + 4 + 8 * pin) == 5)
                self.board.mark_all(0, value & driven & self.get(self.SOFTWARE), level)

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
    OUT_SET, OUT_CLEAR, OUT_ENABLE = 0x14, 0x18, 0x24

    def on_read(self, address):
        if address == 0x4005_4028:
            return self.board.ticks(1_000_000) if self.get(0x4005_802C) == 1 << 9 | 12 else 0
        return super().on_read(address)


class Rp2350(Rp2):
    RESETS, CLOCKS, XOSC, PLL = 0x4002_0000, 0x4001_0000, 0x4004_8000, 0x4005_0000
    IO, PADS, UART = 0x4002_8000, 0x4003_8000, 0x4007_0000
    RESET_BITS = 1 << 6 | 1 << 9 | 1 << 14 | 1 << 26
    OUT_SET, OUT_CLEAR, OUT_ENABLE = 0x18, 0x20, 0x38

    def on_read(self, address):
        if address == 0x400B_0028:
            ticking = self.get(0x4010_8018) == 1 and self.get(0x4010_801C) == 12 and not self.get(self.RESETS) >> 23 & 1
            return self.board.ticks(1_000_000) if ticking else 0
        return super().on_read(address)


class Nrf53(Nrf52):
    CLOCK, UART, TIMER, GPIO = 0x5000_5000, 0x5000_8000, 0x5000_F000, 0x5084_2500
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
    "rpi_pico": (Rp2040, (0x4000_0000, 0xD000_0000)),
    "rpi_pico2": (Rp2350, (0x4000_0000, 0x4010_0000, 0xD000_0000)),
    **{name: (None, ()) for name in UART_CLOCKS},
}


class CycleCounter(Registers):
    """The core's cycle counter, where it has one: it counts once it is traced, unlocked and on, but in no sleep."""

    CTRL, COUNT, LOCK, TRACE = 0xE000_1000, 0xE000_1004, 0xE000_1FB0, 0xE000_EDFC

    def __init__(self, board, there):
        super().__init__(board)
        self.there, self.locked = there, board.board.core == "cortex-m7"
        # With TrustZone it stands still in secure state until it is told otherwise (Armv8.1-M).
        self.values = {self.CTRL: 1 << 25 if not there else (board.board.core == "cortex-m33") << 23}

    def on_read(self, address):
        return self._count() if address == self.COUNT else self.get(address)

    def on_write(self, address, value):
        if address == self.LOCK:
            self.locked = value != 0xC5AC_CE55
        elif not self.locked:
            super().on_write(address, value)

    def _count(self):
        if not self.there:
            return random.getrandbits(32)  # unknown, in Arm's words
        traced = self.board.core.mem_read(self.TRACE + 3, 1)[0] & 1
        on = traced and self.get(self.CTRL) & (1 << 23 | 1) == 1
        return self.board.ticks(self.board.board.clock_hz, self.board.slept) if on else 0


class UnicornBoard(Transport):
    """A board with its firmware, which runs while somebody reads.

    Its counters follow this computer's clock at a pace of their own, and start again soon after they were started.
    """

    def __init__(self, board, elf, *, pace=1.0, cycle_counter=True):
        self.pace, self.looks, self.asleep_since = pace, 0, None
        self.let_counters_start_again_in(0.5)
        self.on_mark = lambda pin, level: None
        self.board, self.inbox, self.outbox = board, deque(), bytearray()
        self.core = Uc(UC_ARCH_ARM, UC_MODE_THUMB | UC_MODE_MCLASS)
        self.core.ctl_set_cpu_model(CORES[board.core])
        for bank in (*board.flash_banks, *board.ram_banks):
            self.core.mem_map(bank.origin, bank.size)
        self.core.mem_map(0xE000_0000, 1 << 12)
        CycleCounter(self, cycle_counter).map(self.core, 0xE000_1000, 1 << 12)
        self.core.mem_map(0xE000_2000, (1 << 20) - (2 << 12))
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

    def ticks(self, hz, stood_s=0.0):
        """Return what a counter of a rate stands at that stood still for some seconds."""
        return int((time.monotonic() - self.wraps_at - stood_s) * self.pace * hz) & 0xFFFF_FFFF

    def let_counters_start_again_in(self, seconds):
        """Set all counters to so many seconds before their wrap."""
        self.wraps_at, self.slept = time.monotonic() + seconds, 0.0

    def byte_waits(self):
        """Return whether a byte has arrived; a core that looks for one again and again is stopped."""
        self.looks = 0 if self.inbox else self.looks + 1
        if self.looks >= LOOKS:
            self.core.emu_stop()
        return bool(self.inbox)

    def mark(self, pin, level):
        """Tell whoever looks that a pin was driven to a level."""
        self.on_mark(pin, level)

    def mark_all(self, first, pins, level):
        """Do so for each of some pins, a bit each."""
        for pin in range(32):
            if pins >> pin & 1:
                self.mark(first + pin, level)

    def say(self, data):
        """Send bytes over the line."""
        self.looks = 0
        self.outbox += data

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
            if self.asleep_since is not None:
                self.slept += time.monotonic() - self.asleep_since
                self.asleep_since = None
            try:
                self.core.emu_start(self.at | 1, 0xFFFF_FFFE, count=SLICE)
            except UcError as error:
                raise DeviceUnreachableError(f"the core stopped: {error}") from error
            self.at = self.core.reg_read(UC_ARM_REG_PC)
            sleeps = self.core.mem_read(self.at - 2, 2) == WFI
            if sleeps:
                self.asleep_since = time.monotonic()
            if (sleeps or self.looks >= LOOKS) and not self.inbox and not self.outbox:
                raise TransportTimeoutError("it waits for a byte")
        else:
            raise DeviceUnreachableError(f"nothing was said in {LONGEST_SILENCE * SLICE:,} instructions")
        data, self.outbox = bytes(self.outbox[:n]), self.outbox[n:]
        return data
