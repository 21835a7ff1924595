/* ST's STM32, both generations of their USART. UART_BASE, UART_IRQ, TX_PIN, RX_PIN (16 pins a port), PIN_FUNCTION,
 * MARKER_PIN if any, SUPPLY_SMPS and CLOCK_HZ come from the Board; stm32_*.c have the clocks. */
#include "cortex.h"
#include "port.h"
#include "stm32.h"

#ifdef SERIES_F4
#define UART_STATUS REGISTER(UART_BASE + 0x00u)
#define UART_RECEIVED REGISTER(UART_BASE + 0x04u)
#define UART_SEND REGISTER(UART_BASE + 0x04u)
#define UART_DIVIDER REGISTER(UART_BASE + 0x08u)
#define UART_CONTROL REGISTER(UART_BASE + 0x0Cu)
#define UART_ON (1u << 13)
/* A status that was read and then the data end an overrun. */
#define CLEAR_OVERRUN() ((void)UART_STATUS, (void)UART_RECEIVED)
#else
#define UART_CONTROL REGISTER(UART_BASE + 0x00u)
#define UART_DIVIDER REGISTER(UART_BASE + 0x0Cu)
#define UART_STATUS REGISTER(UART_BASE + 0x1Cu)
#define UART_CLEAR REGISTER(UART_BASE + 0x20u)
#define UART_RECEIVED REGISTER(UART_BASE + 0x24u)
#define UART_SEND REGISTER(UART_BASE + 0x28u)
#define UART_ON 1u
#define CLEAR_OVERRUN() (UART_CLEAR = OVERRUN)
#endif
#define OVERRUN (1u << 3)
#define RECEIVED (1u << 5)
#define SENDABLE (1u << 7)
#define RECEIVES (1u << 2)
#define SENDS (1u << 3)
#define RECEIVE_INTERRUPT (1u << 5)

/* The low-power UART divides its clock by 256ths. */
#define LPUART 0x40008000u
#define LPUART_FRACTION 256u

#define PORT_OF(pin) (GPIO + 0x400u * ((pin) / 16u))
#define PIN_BIT(pin) ((pin) % 16u)
#define PULL_UP 1u
#define OUTPUT 1u
#define ALTERNATE 2u

/* The second timer, which has 32 bits on all of them. */
#define TIMER 0x40000000u
#define TIMER_CONTROL REGISTER(TIMER + 0x00u)
#define TIMER_EVENT REGISTER(TIMER + 0x14u)
#define TIMER_COUNT REGISTER(TIMER + 0x24u)
#define TIMER_PRESCALER REGISTER(TIMER + 0x28u)
#define TIMER_LAST REGISTER(TIMER + 0x2Cu)
#define TIMER_CLOCK (1u << 0)

static uint32_t tick_hz;
static uint8_t has_cycle_counter;

static void set_field(uintptr_t address, uint32_t bits, uint32_t place, uint32_t value) {
    uint32_t mask = ((1u << bits) - 1u) << (bits * place);
    REGISTER(address) = (REGISTER(address) & ~mask) | value << (bits * place);
}

static void start_pin_clock(uint32_t pin) {
    REGISTER(GPIO_CLOCKS) |= 1u << (pin / 16u);
    (void)REGISTER(GPIO_CLOCKS); /* the clock takes two cycles to arrive */
}

#ifdef MARKER_PIN
void port_mark(int running) {
    REGISTER(PORT_OF(MARKER_PIN) + 0x18u) = 1u << (PIN_BIT(MARKER_PIN) + (running ? 0u : 16u)); /* BSRR */
}

static void start_marker(void) {
    start_pin_clock(MARKER_PIN);
    port_mark(0);
    set_field(PORT_OF(MARKER_PIN) + 0x00u, 2, PIN_BIT(MARKER_PIN), OUTPUT); /* MODER */
}
#else
void port_mark(int running) { (void)running; }

static void start_marker(void) {}
#endif

static void connect_pin(uint32_t pin) {
    start_pin_clock(pin);
    uint32_t bit = PIN_BIT(pin);
    set_field(PORT_OF(pin) + 0x20u + 4u * (bit / 8u), 4, bit % 8u, PIN_FUNCTION); /* AFRL, AFRH */
    set_field(PORT_OF(pin) + 0x0Cu, 2, bit, PULL_UP);                             /* PUPDR */
    set_field(PORT_OF(pin) + 0x00u, 2, bit, ALTERNATE);                           /* MODER */
}

/* Peripherals stand in steps of 0x400 on their bus, their clocks' bits in the same order. */
static void start_uart_clock(void) {
    uint32_t number = (UART_BASE - (UART_BASE >= APB2 ? APB2 : 0x40000000u)) / 0x400u;
    uintptr_t clocks = (UART_BASE >= APB2 ? APB2_CLOCKS : APB1_CLOCKS) + 4u * (number / 32u);
    REGISTER(clocks) |= 1u << (number % 32u);
    (void)REGISTER(clocks);
}

/* Microseconds, where the timer's clock is whole megahertz. */
static void start_timer(uint32_t timer_hz) {
    REGISTER(APB1_CLOCKS) |= TIMER_CLOCK;
    (void)REGISTER(APB1_CLOCKS);
    uint32_t divider = timer_hz / 1000000u;
    TIMER_PRESCALER = divider - 1u;
    TIMER_LAST = 0xFFFFFFFFu;
    TIMER_EVENT = 1u; /* takes over the prescaler */
    TIMER_CONTROL = 1u;
    tick_hz = timer_hz / divider;
}

void port_start_memories(void) { stm32_start_memories(); }

void port_init(void) {
    stm32_clocks_t clocks = stm32_start_clocks();
    connect_pin(TX_PIN);
    connect_pin(RX_PIN);
    start_marker();
    start_uart_clock();
    uint64_t hz = UART_BASE == LPUART ? (uint64_t)clocks.uart_hz * LPUART_FRACTION : clocks.uart_hz;
    UART_DIVIDER = (uint32_t)((hz + BAUD / 2u) / BAUD);
    UART_CONTROL = UART_ON | SENDS | RECEIVES | RECEIVE_INTERRUPT;
    has_cycle_counter = cortex_start_cycle_counter();
    tick_hz = clocks.core_hz;
    if (!has_cycle_counter) {
        start_timer(clocks.timer_hz);
    }
    cortex_wake_by(UART_IRQ);
}

int port_has_byte(void) {
    uint32_t status = UART_STATUS;
    if (!(status & RECEIVED) && status & OVERRUN) {
        CLEAR_OVERRUN();
    }
    return (status & RECEIVED) != 0;
}

uint8_t port_read_byte(void) {
    while (!port_has_byte()) {
        cortex_clear_pending(UART_IRQ);
        if (port_has_byte()) {
            break;
        }
        cortex_sleep();
    }
    return (uint8_t)UART_RECEIVED;
}

void port_write(const uint8_t *bytes, size_t length) {
    for (size_t i = 0; i < length; i++) {
        while (!(UART_STATUS & SENDABLE)) {
        }
        UART_SEND = bytes[i];
    }
}

uint32_t port_ticks(void) { return has_cycle_counter ? cortex_cycles() : TIMER_COUNT; }

uint32_t port_tick_hz(void) { return tick_hz; }

uint8_t port_tick_kind(void) { return has_cycle_counter ? TICKS_CYCLES : TICKS_TIMER; }
