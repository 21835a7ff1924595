/* Raspberry Pi's RP2040 and RP2350: the PL011 UART, and the microsecond timer where no cycle counter counts, as on the
 * former. UART_BASE, UART_IRQ, TX_PIN, RX_PIN, MARKER_PIN if any, CRYSTAL_HZ and CLOCK_HZ come from the
 * Board. */
#include "cortex.h"
#include "port.h"
#include "setup.h"

#ifdef SERIES_RP2040
#define RESETS 0x4000C000u
#define NEEDED (1u << 5 | 1u << 8 | 1u << 12 | 1u << 21 | 3u << 22) /* IO, pads, PLL, timer, UARTs */
#define CLOCKS 0x40008000u
#define XOSC 0x40024000u
#define PLL 0x40028000u
#define IO 0x40014000u
#define PADS 0x4001C000u
#define WATCHDOG_TICK 0x4005802Cu
#define MICROSECONDS 0x40054028u
#define OUT_SET 0xD0000014u
#define OUT_CLEAR 0xD0000018u
#define OUT_ENABLE 0xD0000024u
#else
#define RESETS 0x40020000u
#define NEEDED (1u << 6 | 1u << 9 | 1u << 14 | 1u << 23 | 3u << 26) /* IO, pads, PLL, timer, UARTs */
#define CLOCKS 0x40010000u
#define XOSC 0x40048000u
#define PLL 0x40050000u
#define IO 0x40028000u
#define PADS 0x40038000u
#define TIMER_TICK_CONTROL 0x40108018u
#define TIMER_TICK_CYCLES 0x4010801Cu
#define MICROSECONDS 0x400B0028u
/* Of pins 0 to 31; those of the others stand behind. */
#define OUT_SET 0xD0000018u
#define OUT_CLEAR 0xD0000020u
#define OUT_ENABLE 0xD0000038u
/* What the boot ROM looks for in the first 4 KiB: a program for this chip's Arm cores in secure state. */
__attribute__((section(".image_definition"), used)) static const uint32_t image_definition[] = {
    0xFFFFDED3u, /* begin */
    0x10210142u, /* the image's kind */
    0x000001FFu, /* end of the items, of one word */
    0x00000000u, /* there is no other block */
    0xAB123579u, /* end */
};
#endif

/* Writing to a register's alias clears the bits that are set in the value. */
#define CLEAR_BITS(address) REGISTER((address) + 0x3000u)

#define XOSC_CTRL (XOSC + 0x00u)
#define XOSC_STATUS (XOSC + 0x04u)
#define XOSC_STARTUP (XOSC + 0x0Cu)
#define XOSC_ENABLE 0x00FABAA0u
#define XOSC_STABLE (1u << 31)
#define STARTUP_CYCLES (CRYSTAL_HZ / 1000u / 256u) /* a millisecond */

#define PLL_CS (PLL + 0x00u)
#define PLL_PWR (PLL + 0x04u)
#define PLL_FBDIV (PLL + 0x08u)
#define PLL_PRIM (PLL + 0x0Cu)
#define PLL_LOCKED (1u << 31)
#define POWER_DOWN (1u << 0)
#define DIVIDERS_DOWN (1u << 3)
#define VCO_DOWN (1u << 5)
#define VCO_HZ 1500000000u
#define PLL_MULTIPLIER (VCO_HZ / CRYSTAL_HZ)
#define DIVIDER (VCO_HZ / CLOCK_HZ / 2u) /* the second one halves */
_Static_assert(DIVIDER >= 1 && DIVIDER <= 7 && DIVIDER * 2u * CLOCK_HZ == VCO_HZ,
               "clock_hz is to be 750 MHz by 1 to 7");
_Static_assert(PLL_MULTIPLIER >= 16 && PLL_MULTIPLIER * CRYSTAL_HZ == VCO_HZ, "crystal_hz is to divide 1500 MHz");

#define REF_CTRL (CLOCKS + 0x30u)
#define REF_SELECTED (CLOCKS + 0x38u)
#define SYS_CTRL (CLOCKS + 0x3Cu)
#define SYS_SELECTED (CLOCKS + 0x44u)
#define PERI_CTRL (CLOCKS + 0x48u)
#define FROM_XOSC 2u
#define FROM_PLL 1u
#define PERI_ENABLE (1u << 11)
#define RING_HZ 6500000u /* what the chip starts with, give or take a half */

#define UART_DATA REGISTER(UART_BASE + 0x00u)
#define UART_FLAGS REGISTER(UART_BASE + 0x18u)
#define UART_DIVIDER REGISTER(UART_BASE + 0x24u)
#define UART_FRACTION REGISTER(UART_BASE + 0x28u)
#define UART_LINE REGISTER(UART_BASE + 0x2Cu)
#define UART_CONTROL REGISTER(UART_BASE + 0x30u)
#define UART_TRIGGER REGISTER(UART_BASE + 0x34u)
#define UART_INTERRUPTS REGISTER(UART_BASE + 0x38u)
#define UART_CLEAR REGISTER(UART_BASE + 0x44u)
#define RECEIVED_NONE (1u << 4)
#define SEND_FULL (1u << 5)
#define EIGHT_BITS_FIFO (7u << 4)
#define ON_SEND_RECEIVE (1u | 3u << 8)
#define RECEIVE_INTERRUPTS (1u << 4 | 1u << 6) /* a part of the queue is filled, or something in it is old */
#define PIN_UART 2u
#define PIN_SOFTWARE 5u
#define PAD_INPUT (1u << 6)
#define PAD_PULL_UP (1u << 3)

static uint32_t core_hz, tick_hz;

static int start_clocks(void) {
    REGISTER(XOSC_STARTUP) = STARTUP_CYCLES;
    REGISTER(XOSC_CTRL) = XOSC_ENABLE;
    if (!setup_wait(XOSC_STATUS, XOSC_STABLE, XOSC_STABLE, "crystal")) {
        return 0;
    }
    REGISTER(REF_CTRL) = FROM_XOSC;
    if (!setup_wait(REF_SELECTED, 1u << FROM_XOSC, 1u << FROM_XOSC, "switch to the crystal")) {
        return 0;
    }
    core_hz = CRYSTAL_HZ; /* the system's clock follows the reference */
    REGISTER(PLL_CS) = 1u;
    REGISTER(PLL_FBDIV) = PLL_MULTIPLIER;
    CLEAR_BITS(PLL_PWR) = POWER_DOWN | VCO_DOWN;
    if (!setup_wait(PLL_CS, PLL_LOCKED, PLL_LOCKED, "PLL")) {
        return 0;
    }
    REGISTER(PLL_PRIM) = DIVIDER << 16 | 2u << 12;
    CLEAR_BITS(PLL_PWR) = DIVIDERS_DOWN;
    REGISTER(SYS_CTRL) = FROM_PLL;
    if (!setup_wait(SYS_SELECTED, 1u << FROM_PLL, 1u << FROM_PLL, "switch to the PLL")) {
        return 0;
    }
    core_hz = CLOCK_HZ;
    return 1;
}

static void connect_pin(uint32_t pin, uint32_t function) {
    REGISTER(PADS + 4u + 4u * pin) = PAD_INPUT | PAD_PULL_UP;
    REGISTER(IO + 4u + 8u * pin) = function;
}

#ifdef MARKER_PIN
#define MARKER(registers) REGISTER((registers) + 4u * (MARKER_PIN / 32u))

void port_mark(int running) {
    if (running) {
        MARKER(OUT_SET) = 1u << (MARKER_PIN % 32u);
    } else {
        MARKER(OUT_CLEAR) = 1u << (MARKER_PIN % 32u);
    }
}

static void start_marker(void) {
    port_mark(0);
    MARKER(OUT_ENABLE) = 1u << (MARKER_PIN % 32u);
    connect_pin(MARKER_PIN, PIN_SOFTWARE);
}
#else
void port_mark(int running) { (void)running; }

static void start_marker(void) {}
#endif

static uint8_t has_cycle_counter;

/* Microseconds, from the crystal. */
static void start_timer(void) {
    uint32_t per_microsecond = (core_hz == RING_HZ ? RING_HZ : CRYSTAL_HZ) / 1000000u;
#ifdef SERIES_RP2040
    REGISTER(WATCHDOG_TICK) = 1u << 9 | per_microsecond;
#else
    REGISTER(TIMER_TICK_CYCLES) = per_microsecond;
    REGISTER(TIMER_TICK_CONTROL) = 1u;
#endif
    tick_hz = 1000000u;
}

static void start_ticks(void) {
#ifdef SERIES_RP2350
    has_cycle_counter = cortex_start_cycle_counter();
#endif
    tick_hz = core_hz;
    if (!has_cycle_counter) {
        start_timer();
    }
}

uint32_t port_ticks(void) { return has_cycle_counter ? cortex_cycles() : REGISTER(MICROSECONDS); }

uint8_t port_tick_kind(void) { return has_cycle_counter ? TICKS_CYCLES : TICKS_TIMER; }

uint32_t port_tick_hz(void) { return tick_hz; }

void port_start_memories(void) {}

void port_init(void) {
    core_hz = RING_HZ;
    CLEAR_BITS(RESETS) = NEEDED;
    if (setup_wait(RESETS + 8u, NEEDED, NEEDED, "end of the peripherals' reset")) {
        start_clocks();
    }
    REGISTER(PERI_CTRL) = PERI_ENABLE; /* from the system's clock */
    connect_pin(TX_PIN, PIN_UART);
    connect_pin(RX_PIN, PIN_UART);
    start_marker();
    uint32_t divider = (core_hz * 4u + BAUD / 2u) / BAUD; /* of 16 times the baud, in 64ths */
    UART_DIVIDER = divider >> 6;
    UART_FRACTION = divider & 63u;
    UART_LINE = EIGHT_BITS_FIFO;
    UART_TRIGGER = 0; /* an eighth of the queue */
    UART_INTERRUPTS = RECEIVE_INTERRUPTS;
    UART_CONTROL = ON_SEND_RECEIVE;
    start_ticks();
    cortex_wake_by(UART_IRQ);
}

int port_has_byte(void) { return !(UART_FLAGS & RECEIVED_NONE); }

uint8_t port_read_byte(void) {
    while (!port_has_byte()) {
        UART_CLEAR = RECEIVE_INTERRUPTS;
        cortex_clear_pending(UART_IRQ);
        if (port_has_byte()) {
            break;
        }
        cortex_sleep();
    }
    return (uint8_t)UART_DATA;
}

void port_write(const uint8_t *bytes, size_t length) {
    for (size_t i = 0; i < length; i++) {
        while (UART_FLAGS & SEND_FULL) {
        }
        UART_DATA = bytes[i];
    }
}
