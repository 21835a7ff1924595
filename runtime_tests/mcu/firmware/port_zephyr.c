/* Zephyr, on any board with a serial port that it drives by interrupts: the one chosen as thumbnet,uart, else the
 * console's. Memory and stacks are Zephyr's, so that it is asked for what the other ports see for themselves. */
#include <zephyr/device.h>
#include <zephyr/devicetree.h>
#include <zephyr/drivers/uart.h>
#include <zephyr/kernel.h>

#include "canary.h"
#include "measure.h"
#include "port.h"
#include "serve.h"

#if DT_HAS_CHOSEN(thumbnet_uart)
#define UART_NODE DT_CHOSEN(thumbnet_uart)
#else
#define UART_NODE DT_CHOSEN(zephyr_console)
#endif

/* Of a whole request, which the host sends without a pause. */
enum { RECEIVED_BYTES = 2048 };

static const struct device *const uart = DEVICE_DT_GET(UART_NODE);
K_MSGQ_DEFINE(received, 1, RECEIVED_BYTES, 1);

static const char *missing = "";

static void receive(const struct device *from, void *user) {
    uint8_t byte;
    (void)user;
    while (uart_irq_update(from) && uart_irq_rx_ready(from)) {
        while (uart_fifo_read(from, &byte, 1) == 1) {
            (void)k_msgq_put(&received, &byte, K_NO_WAIT); /* lost where there is no room: the host repeats it */
        }
    }
}

void port_init(void) {
    if (!device_is_ready(uart)) {
        missing = "UART";
        return;
    }
    (void)uart_irq_callback_user_data_set(uart, receive, NULL);
    uart_irq_rx_enable(uart);
}

const char *port_missing(void) { return missing; }

int port_has_byte(void) { return k_msgq_num_used_get(&received) != 0; }

uint8_t port_read_byte(void) {
    uint8_t byte = 0;
    (void)k_msgq_get(&received, &byte, K_FOREVER);
    return byte;
}

void port_write(const uint8_t *bytes, size_t length) {
    for (size_t i = 0; i < length; i++) {
        uart_poll_out(uart, bytes[i]);
    }
}

void port_mark(int running) { (void)running; }

/* Zephyr's clock, which is not every board's core clock. Its interrupts are counted with what they interrupt. */
uint32_t port_ticks(void) { return k_cycle_get_32(); }

uint32_t port_tick_hz(void) { return (uint32_t)sys_clock_hw_cycles_per_sec(); }

uint8_t port_tick_kind(void) { return TICKS_TIMER; }

void measured_call(measured_t function, uintptr_t first, uintptr_t second) {
    ((void (*)(uintptr_t, uintptr_t))function)(first, second);
}

void measured_nothing(void) {}

/* Zephyr has painted the stack before the thread began: what is told is the deepest since then, the server's with it.
 */
void stack_paint(void) {}

uint32_t stack_used(void) {
    size_t unused = 0;
    return k_thread_stack_space_get(k_current_get(), &unused) == 0 ? stack_size() - (uint32_t)unused : stack_size();
}

uint32_t stack_size(void) { return CONFIG_MAIN_STACK_SIZE; }

/* What lies around the arena is not the server's to watch. */
void canary_arm(void) {}

int canary_damaged(canary_damage_t *damage) {
    (void)damage;
    return 0;
}

int main(void) {
    port_init();
    serve_loop();
}
