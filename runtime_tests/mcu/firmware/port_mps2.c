/* Arm MPS2 and MPS3 FPGA boards: CMSDK UART, FPGA system counter. UART_BASE, UART_IRQ, FPGAIO_BASE, FPGAIO_HZ and
 * CLOCK_HZ come from the Board. */
#include "cortex.h"
#include "port.h"

#define UART_DATA REGISTER(UART_BASE + 0x00u)
#define UART_STATE REGISTER(UART_BASE + 0x04u)
#define UART_CTRL REGISTER(UART_BASE + 0x08u)
#define UART_INTCLEAR REGISTER(UART_BASE + 0x0Cu)
#define UART_BAUDDIV REGISTER(UART_BASE + 0x10u)
#define STATE_TX_FULL 1u
#define STATE_RX_FULL 2u
#define CTRL_TX_ENABLE 1u
#define CTRL_RX_ENABLE 2u
#define CTRL_RX_INTERRUPT 8u
#define INT_RX 2u

/* Counts up once a clock when the prescaler is 0. */
#define FPGA_COUNTER REGISTER(FPGAIO_BASE + 0x18u)
#define FPGA_PRESCALE REGISTER(FPGAIO_BASE + 0x1Cu)

static uint8_t has_cycle_counter;

void port_init(void) {
    UART_BAUDDIV = CLOCK_HZ / BAUD;
    UART_CTRL = CTRL_TX_ENABLE | CTRL_RX_ENABLE | CTRL_RX_INTERRUPT;
    (void)UART_DATA; /* drop a stale byte; QEMU also looks for waiting bytes again only after a read */
    FPGA_PRESCALE = 0;
    has_cycle_counter = cortex_start_cycle_counter();
    cortex_wake_by(UART_IRQ);
}

void port_start_memories(void) {}

const char *port_missing(void) { return ""; }

int port_has_byte(void) { return (UART_STATE & STATE_RX_FULL) != 0; }

uint8_t port_read_byte(void) {
    while (!port_has_byte()) {
        UART_INTCLEAR = INT_RX;
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
        while (UART_STATE & STATE_TX_FULL) {
        }
        UART_DATA = bytes[i];
    }
}

void port_mark(int running) { (void)running; }

uint32_t port_ticks(void) { return has_cycle_counter ? cortex_cycles() : FPGA_COUNTER; }

uint32_t port_tick_hz(void) { return has_cycle_counter ? CLOCK_HZ : FPGAIO_HZ; }

uint8_t port_tick_kind(void) { return has_cycle_counter ? TICKS_CYCLES : TICKS_TIMER; }
