"""STM32 as Unicorn needs them: clocks that come only in the order of the reference manuals, GPIO, and both USARTs.

Clocks are computed from the registers; the line hears a UART only at its rate, on its pins and with its clock on.
"""

from chip import Registers

#: Where the clock of each board's UART is switched on: offset in the RCC, bit (reference manuals' RCC chapters).
UART_CLOCKS = {
    "netduinoplus2": (0x44, 4),
    "nucleo_f411re": (0x40, 17),
    "nucleo_f446re": (0x40, 17),
    "nucleo_f746zg": (0x40, 18),
    "nucleo_h743zi2": (0xE8, 18),
    "nucleo_h7a3zi_q": (0xE8, 18),
    "nucleo_l4r5zi": (0x5C, 0),
    "b_l475e_iot01a": (0x60, 14),
    "nucleo_u575zi_q": (0xA4, 14),
}
HSI = 16_000_000
PRESCALERS = {0: 1, 4: 2, 5: 4, 6: 8, 7: 16}


class Stm32(Registers):
    """What the series have in common; each knows its clocks."""

    RCC, GPIO, GPIO_CLOCKS, FLASH_ACR = 0, 0, 0, 0
    SLOWEST_FLASH, OLD_USART = 30_000_000, False
    TIMER, TIMER_CLOCKS = 0x4000_0000, 0

    def bit(self, address, bit):
        return self.get(address) >> bit & 1

    def field(self, address, low, bits):
        return self.get(address) >> low & ((1 << bits) - 1)

    @property
    def uart(self):
        return self.board.board.peripherals["UART_BASE"]

    def on_read(self, address):
        status, data = (0, 4) if self.OLD_USART else (0x1C, 0x24)
        if address == self.uart + status:
            return self.board.byte_waits() << 5 | 1 << 7
        if address == self.uart + data and self.board.inbox:
            return self.board.inbox.popleft()
        if address == self.TIMER + 0x24:
            return self.timer()
        return self.status(address)

    def timer(self):
        """Return the count of the second timer, of 32 bits; it takes a prescaler over at an event."""
        on = self.bit(self.RCC + self.TIMER_CLOCKS, 0) and self.bit(self.TIMER, 0) and self.bit(self.TIMER + 0x14, 0)
        assert not on or self.get(self.TIMER + 0x2C) == 0xFFFF_FFFF
        return self.board.ticks(self.timer_hz() / (self.get(self.TIMER + 0x28) + 1)) if on else 0

    def timer_hz(self):
        return self.clocks()[0]

    def on_write(self, address, value):
        if address == self.uart + (4 if self.OLD_USART else 0x28):
            if self.on:
                self.board.say(bytes([value & 0xFF]))
            return
        self.values[address] = value
        port, number = divmod(address - self.GPIO, 0x400)
        if number == 0x18 and 0 <= port < 11 and self.bit(self.RCC + self.GPIO_CLOCKS, port):
            for pin in range(16):
                if value >> pin & 0x1_0001 and self.field(address - 0x18, 2 * pin, 2) == 1:
                    self.board.mark(16 * port + pin, value >> pin & 1)

    @property
    def on(self):
        offset, bit = UART_CLOCKS[self.board.board.name]
        control, divider = (0x0C, 0x08) if self.OLD_USART else (0x00, 0x0C)
        enable = 13 if self.OLD_USART else 0
        core, bus = self.clocks()
        scale = 256 if self.uart == 0x4000_8000 and self.RCC == 0x4002_1000 else 1
        rate = bus * scale / (self.get(self.uart + divider) or 1)
        waits = self.field(self.FLASH_ACR, 0, 4)
        return (
            self.bit(self.RCC + offset, bit)
            and self.get(self.uart + control) & (1 << enable | 1 << 2 | 1 << 3) == 1 << enable | 1 << 2 | 1 << 3
            and abs(rate / 115200 - 1) < 0.01
            and core <= (waits + 1) * self.SLOWEST_FLASH
            and all(self.connected(self.board.board.peripherals[pin]) for pin in ("TX_PIN", "RX_PIN"))
        )

    def connected(self, pin):
        port, number = self.GPIO + 0x400 * (pin // 16), pin % 16
        function = self.field(port + 0x20 + 4 * (number // 8), 4 * (number % 8), 4)
        return (
            self.bit(self.RCC + self.GPIO_CLOCKS, pin // 16)
            and self.field(port, 2 * number, 2) == 2
            and function == self.board.board.peripherals["PIN_FUNCTION"]
        )


class Stm32F4(Stm32):
    RCC, GPIO, GPIO_CLOCKS, FLASH_ACR, OLD_USART = 0x4002_3800, 0x4002_0000, 0x30, 0x4002_3C00, True
    PWR, TIMER_CLOCKS = 0x4000_7000, 0x40
    VOLTAGE_LIMIT = 168_000_000

    def timer_hz(self):
        core, _ = self.clocks()
        divider = PRESCALERS[self.field(self.RCC + 8, 10, 3)]
        return core if divider == 1 else 2 * core // divider

    def vco(self):
        return HSI // max(1, self.field(self.RCC + 4, 0, 6)) * self.field(self.RCC + 4, 6, 9)

    def pll(self):
        good = 100_000_000 <= self.vco() <= 432_000_000 and HSI // max(1, self.field(self.RCC + 4, 0, 6)) == 2_000_000
        return good and self.bit(self.RCC, 24) and not self.bit(self.RCC + 4, 22)

    def status(self, address):
        power = self.bit(self.RCC + 0x40, 28)
        on, switched = self.bit(self.PWR, 16) and power and self.pll(), self.bit(self.PWR, 17)
        values = {
            self.RCC: self.get(self.RCC) | 1 << 1 | self.pll() << 25,
            self.RCC + 8: self.get(self.RCC + 8) & ~0xC | (self.field(self.RCC + 8, 0, 2) << 2 if self.pll() else 0),
            self.PWR + 4: bool(on) << 16 | bool(on and switched) << 17,
        }
        return values.get(address, self.get(address))

    def clocks(self):
        if self.field(self.RCC + 8, 0, 2) != 2:
            return HSI, HSI
        core = self.vco() // (2 * self.field(self.RCC + 4, 16, 2) + 2)
        assert core <= self.VOLTAGE_LIMIT or (self.bit(self.PWR, 16) and self.bit(self.PWR, 17))
        one, two = (core // PRESCALERS[self.field(self.RCC + 8, low, 3)] for low in (10, 13))
        assert one <= 54_000_000 and two <= 108_000_000
        return core, two if self.uart >= 0x4001_0000 else one


class Stm32F7(Stm32F4):
    OLD_USART = False
    VOLTAGE_LIMIT = 180_000_000


class Stm32L4(Stm32):
    RCC, GPIO, GPIO_CLOCKS, FLASH_ACR = 0x4002_1000, 0x4800_0000, 0x4C, 0x4002_2000
    PWR, TIMER_CLOCKS = 0x4000_7000, 0x58

    @property
    def SLOWEST_FLASH(self):
        return 20_000_000 if self.board.board.clock_hz > 80_000_000 else 16_000_000

    def on_write(self, address, value):
        if address == self.RCC + 8 and value & 3 == 3 and self.board.board.clock_hz > 80_000_000:
            # Half the speed first.
            assert value >> 4 & 15 == 8 or self.field(self.RCC + 8, 4, 4) == 8
        super().on_write(address, value)

    def pll(self):
        good = self.bit(self.RCC, 8) and self.field(self.RCC + 12, 0, 2) == 2 and self.field(self.RCC + 12, 4, 3) == 3
        return bool(good and self.bit(self.RCC, 24) and self.bit(self.RCC + 12, 24))

    def status(self, address):
        values = {
            self.RCC: self.get(self.RCC) | self.bit(self.RCC, 8) << 10 | self.pll() << 25,
            self.RCC + 8: self.get(self.RCC + 8) & ~0xC | (self.field(self.RCC + 8, 0, 2) << 2 if self.pll() else 0),
        }
        return values.get(address, self.get(address))

    def clocks(self):
        if self.field(self.RCC + 8, 0, 2) != 3:
            return 4_000_000, 4_000_000
        core = 4_000_000 * self.field(self.RCC + 12, 8, 7) // 2
        assert self.field(self.RCC + 8, 4, 4) == 0, "left at half its speed"
        return core, core

    def connected(self, pin):
        supplied = pin // 16 != 6 or (self.bit(self.PWR + 4, 9) and self.bit(self.RCC + 0x58, 28))
        return supplied and super().connected(pin)


class Stm32H7(Stm32):
    RCC, GPIO, GPIO_CLOCKS, FLASH_ACR = 0x5802_4400, 0x5802_0000, 0xE0, 0x5200_2000
    PWR, SYSCFG, TIMER_CLOCKS = 0x5802_4800, 0x5800_0400, 0xE8

    def timer_hz(self):
        core, _ = self.clocks()
        bus = core // {0: 1, 8: 2}[self.field(self.RCC + 0x18, 0, 4)]
        divider = PRESCALERS[self.field(self.RCC + 0x1C, 4, 3)]
        return bus if divider == 1 else 2 * bus // divider

    @property
    def fast(self):
        return self.board.board.clock_hz > 280_000_000

    @property
    def SLOWEST_FLASH(self):
        return 480_000_000 // 4 if self.fast else 42_000_000

    def voltage(self):
        smps = self.board.board.name == "nucleo_h7a3zi_q"
        return self.field(self.PWR + 0x0C, 0, 3) == (4 if smps else 2)

    def pll(self):
        high = self.field(self.PWR + 0x18, 14, 2) == 3 and (not self.fast or self.bit(self.SYSCFG + 0x2C, 0))
        good = self.field(self.RCC + 0x28, 4, 6) == 16 and self.field(self.RCC + 0x28, 0, 2) == 0
        return bool(self.voltage() and high and good and self.bit(self.RCC, 24) and self.bit(self.RCC + 0x2C, 16))

    def status(self, address):
        rcc, power = self.RCC, self.PWR
        values = {
            rcc: self.get(rcc) | 1 << 2 | self.pll() << 25,
            rcc + 0x10: self.get(rcc + 0x10) & ~0x38 | (self.field(rcc + 0x10, 0, 3) << 3 if self.pll() else 0),
            power + 0x04: self.voltage() << 13,
            power + 0x18: self.get(power + 0x18) | self.voltage() << 13,
        }
        return values.get(address, self.get(address))

    def clocks(self):
        rcc = self.RCC
        if self.field(rcc + 0x10, 0, 3) != 3:
            return 64_000_000, 64_000_000
        core = 4_000_000 * (self.field(rcc + 0x30, 0, 9) + 1) // (self.field(rcc + 0x30, 9, 7) + 1)
        bus = core // {0: 1, 8: 2}[self.field(rcc + 0x18, 0, 4)]
        assert bus <= 280_000_000
        return core, bus // PRESCALERS[self.field(rcc + 0x1C, 4, 3)]


class Stm32U5(Stm32):
    RCC, GPIO, GPIO_CLOCKS, FLASH_ACR = 0x4602_0C00, 0x4202_0000, 0x8C, 0x4002_2000
    PWR, SLOWEST_FLASH, TIMER_CLOCKS = 0x4602_0800, 32_000_000, 0x9C

    def power(self, bit):
        return bool(self.bit(self.RCC + 0x94, 2) and self.bit(self.PWR + 0x0C, bit))

    def pll(self):
        good = (
            self.bit(self.RCC, 8) and self.field(self.RCC + 0x28, 0, 2) == 2 and self.field(self.RCC + 0x28, 8, 4) == 3
        )
        boosted = self.field(self.PWR + 0x0C, 16, 2) == 3 and self.power(18)
        return bool(good and boosted and self.bit(self.RCC, 24) and self.bit(self.RCC + 0x28, 18))

    def status(self, address):
        rcc = self.RCC
        values = {
            rcc: self.get(rcc) | self.bit(rcc, 8) << 10 | self.pll() << 25,
            rcc + 0x1C: self.get(rcc + 0x1C) & ~0xC | (self.field(rcc + 0x1C, 0, 2) << 2 if self.pll() else 0),
            self.PWR + 0x0C: self.get(self.PWR + 0x0C) | self.power(16) << 15 | self.power(18) << 14,
        }
        return values.get(address, self.get(address))

    def clocks(self):
        if self.field(self.RCC + 0x1C, 0, 2) != 3:
            return 4_000_000, 4_000_000
        divider = self.field(self.RCC + 0x34, 24, 7) + 1
        core = 4_000_000 * (self.field(self.RCC + 0x34, 0, 9) + 1) // divider
        return core, core


SERIES = {"f4": Stm32F4, "f7": Stm32F7, "l4": Stm32L4, "h7": Stm32H7, "u5": Stm32U5}
#: First addresses of the megabytes in which the series have what the port touches.
MEGABYTES = {
    "f4": (0x4000_0000,),
    "f7": (0x4000_0000,),
    "l4": (0x4000_0000, 0x4800_0000),
    "h7": (0x4000_0000, 0x5200_0000, 0x5800_0000),
    "u5": (0x4000_0000, 0x4200_0000, 0x4600_0000),
}
