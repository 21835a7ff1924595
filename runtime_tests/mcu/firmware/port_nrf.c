/* Nordic's nRF52 and nRF53 (application core, secure): UARTE, which moves bytes by DMA. UART_BASE, UART_IRQ, TX_PIN,
 * RX_PIN, MARKER_PIN if any (32 pins a port), and CLOCK_HZ come from the Board. */
#include "cortex.h"
#include "port.h"
#include "setup.h"

#ifdef SERIES_NRF52
#define CLOCK 0x40000000u
#define PINS 0x50000500u              /* the registers of port 0 */
#define INSTRUCTION_CACHE 0x4001E540u /* of the flash controller */
#define TIMER 0x40008000u
#else
#define CLOCK 0x50005000u
#define PINS 0x50842500u
#define INSTRUCTION_CACHE 0x50001500u /* of the cache beside the flash */
#define TIMER 0x5000F000u
#define CORE_DIVIDER REGISTER(CLOCK + 0x558u)
#endif

#define START_CRYSTAL REGISTER(CLOCK + 0x000u)
#define CRYSTAL_STARTED (CLOCK + 0x100u)

#define TASK_RECEIVE REGISTER(UART_BASE + 0x000u)
#define TASK_SEND REGISTER(UART_BASE + 0x008u)
#define EVENT_RECEIVED REGISTER(UART_BASE + 0x110u)
#define EVENT_SENT REGISTER(UART_BASE + 0x120u)
#define INTERRUPTS REGISTER(UART_BASE + 0x300u)
#define ERRORS REGISTER(UART_BASE + 0x480u)
#define ENABLE REGISTER(UART_BASE + 0x500u)
#define PIN_TXD REGISTER(UART_BASE + 0x50Cu)
#define PIN_RXD REGISTER(UART_BASE + 0x514u)
#define BAUD_RATE REGISTER(UART_BASE + 0x524u)
#define RECEIVE_TO REGISTER(UART_BASE + 0x534u)
#define RECEIVE_BYTES REGISTER(UART_BASE + 0x538u)
#define SEND_FROM REGISTER(UART_BASE + 0x544u)
#define SEND_BYTES REGISTER(UART_BASE + 0x548u)

#define START_TIMER REGISTER(TIMER + 0x000u)
#define CAPTURE REGISTER(TIMER + 0x040u)
#define TIMER_WIDTH REGISTER(TIMER + 0x508u)
#define TIMER_PRESCALER REGISTER(TIMER + 0x510u)
#define CAPTURED REGISTER(TIMER + 0x540u)
#define WIDTH_32 3u
#define PER_MICROSECOND 4u /* 16 MHz by two to the power of it */

#define PORT_OF(pin) (PINS + 0x300u * ((pin) / 32u))
#define RECEIVED_INTERRUPT (1u << 4)
#define UARTE_ON 8u
#define BAUD_115200 0x01D60000u
_Static_assert(BAUD == 115200u, "the line's rate is a number of Nordic's own");

/* DMA reads no flash: what is sent goes through here. */
static uint8_t sending[64];
static volatile uint8_t received;

static uint8_t has_cycle_counter;

static void start_timer(void) {
    TIMER_WIDTH = WIDTH_32;
    TIMER_PRESCALER = PER_MICROSECOND;
    START_TIMER = 1;
}

static void listen(void) {
    EVENT_RECEIVED = 0;
    RECEIVE_TO = (uint32_t)(uintptr_t)&received;
    RECEIVE_BYTES = 1;
    TASK_RECEIVE = 1;
}

static void connect_pins(void) {
    REGISTER(PORT_OF(TX_PIN) + 0x08u) = 1u << (TX_PIN % 32u);           /* OUTSET: the line rests high */
    REGISTER(PORT_OF(TX_PIN) + 0x18u) = 1u << (TX_PIN % 32u);           /* DIRSET */
    REGISTER(PORT_OF(RX_PIN) + 0x200u + 4u * (RX_PIN % 32u)) = 3u << 2; /* PIN_CNF: pulled up */
    PIN_TXD = TX_PIN;
    PIN_RXD = RX_PIN;
}

#ifdef MARKER_PIN
void port_mark(int running) {
    REGISTER(PORT_OF(MARKER_PIN) + (running ? 0x08u : 0x0Cu)) = 1u << (MARKER_PIN % 32u); /* OUTSET, OUTCLR */
}

static void start_marker(void) {
    port_mark(0);
    REGISTER(PORT_OF(MARKER_PIN) + 0x18u) = 1u << (MARKER_PIN % 32u); /* DIRSET */
}
#else
void port_mark(int running) { (void)running; }

static void start_marker(void) {}
#endif

void port_start_memories(void) {}

void port_init(void) {
#ifdef CORE_DIVIDER
    CORE_DIVIDER = CLOCK_HZ > 64000000u ? 0 : 1;
#endif
    START_CRYSTAL = 1; /* the core's clock is made from it from here on */
    setup_wait(CRYSTAL_STARTED, 1, 1, "crystal");
    REGISTER(INSTRUCTION_CACHE) = 1;
    connect_pins();
    start_marker();
    BAUD_RATE = BAUD_115200;
    ENABLE = UARTE_ON;
    INTERRUPTS = RECEIVED_INTERRUPT;
    has_cycle_counter = cortex_start_cycle_counter();
    if (!has_cycle_counter) {
        start_timer();
    }
    cortex_wake_by(UART_IRQ);
    listen();
}

int port_has_byte(void) {
    ERRORS = ERRORS; /* an overrun, which is the host's to repeat */
    return EVENT_RECEIVED != 0;
}

uint8_t port_read_byte(void) {
    while (!port_has_byte()) {
        cortex_clear_pending(UART_IRQ);
        if (port_has_byte()) {
            break;
        }
        cortex_sleep();
    }
    uint8_t byte = received;
    listen();
    return byte;
}

void port_write(const uint8_t *bytes, size_t length) {
    for (size_t done = 0; done < length;) {
        size_t part = 0;
        while (part < sizeof(sending) && done < length) {
            sending[part++] = bytes[done++];
        }
        EVENT_SENT = 0;
        SEND_FROM = (uint32_t)(uintptr_t)sending;
        SEND_BYTES = (uint32_t)part;
        __asm volatile("dmb" ::: "memory");
        TASK_SEND = 1;
        while (!EVENT_SENT) {
        }
    }
}

uint32_t port_ticks(void) {
    if (has_cycle_counter) {
        return cortex_cycles();
    }
    CAPTURE = 1;
    return CAPTURED;
}

uint32_t port_tick_hz(void) { return has_cycle_counter ? CLOCK_HZ : 1000000u; }

uint8_t port_tick_kind(void) { return has_cycle_counter ? TICKS_CYCLES : TICKS_TIMER; }
