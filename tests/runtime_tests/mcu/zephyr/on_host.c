/* What the port takes of Zephyr, as a program of this computer: standard input and output are the serial port, and a
 * thread that waits for a message lets the port's interrupts happen. As port_host.c, it tells a file how many bytes the
 * port has taken when it waits for more. */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zephyr/devicetree.h>
#include <zephyr/drivers/uart.h>
#include <zephyr/kernel.h>

const struct device chosen_zephyr_console;

static uart_irq_callback_user_data_t callback;
static void *callback_data;
static int enabled, idle_file = -1;
static uint8_t fifo[1024];
static ssize_t fifo_bytes, fifo_next;
static uint64_t taken;

static void write_all(int file, const void *bytes, size_t length) {
    if (write(file, bytes, length) != (ssize_t)length) {
        exit(1);
    }
}

bool device_is_ready(const struct device *device) { return device == &chosen_zephyr_console; }

int uart_irq_callback_user_data_set(const struct device *device, uart_irq_callback_user_data_t function, void *data) {
    (void)device;
    callback = function;
    callback_data = data;
    return 0;
}

void uart_irq_rx_enable(const struct device *device) {
    (void)device;
    enabled = 1;
}

int uart_irq_update(const struct device *device) {
    (void)device;
    return 1;
}

int uart_irq_rx_ready(const struct device *device) {
    (void)device;
    return fifo_next < fifo_bytes;
}

int uart_fifo_read(const struct device *device, uint8_t *bytes, const int size) {
    int read = 0;
    (void)device;
    while (read < size && fifo_next < fifo_bytes) {
        bytes[read++] = fifo[fifo_next++];
    }
    return read;
}

void uart_poll_out(const struct device *device, unsigned char byte) {
    (void)device;
    write_all(1, &byte, 1);
}

int k_msgq_put(struct k_msgq *queue, const void *message, k_timeout_t timeout) {
    if (queue->count == queue->capacity) {
        return timeout.ticks == 0 ? -35 : (abort(), 0);
    }
    size_t at = (queue->first + queue->count++) % queue->capacity;
    memcpy(queue->buffer + at * queue->message_bytes, message, queue->message_bytes);
    return 0;
}

static void receive_from_line(void) {
    fifo_bytes = read(0, fifo, sizeof(fifo));
    fifo_next = 0;
    if (fifo_bytes <= 0) {
        exit(0);
    }
    callback(&chosen_zephyr_console, callback_data);
}

/* Interrupts happen here too, as they do at any time. */
uint32_t k_msgq_num_used_get(struct k_msgq *queue) {
    struct pollfd line = {.fd = 0, .events = POLLIN};
    if (queue->count == 0 && poll(&line, 1, 0) == 1) {
        receive_from_line();
    }
    return (uint32_t)queue->count;
}

int k_msgq_get(struct k_msgq *queue, void *message, k_timeout_t timeout) {
    while (queue->count == 0) {
        struct pollfd line = {.fd = 0, .events = POLLIN};
        if (timeout.ticks != -1 || !enabled) {
            abort();
        }
        if (poll(&line, 1, 0) == 0) {
            write_all(idle_file, &taken, sizeof(taken));
        }
        receive_from_line();
    }
    memcpy(message, queue->buffer + queue->first * queue->message_bytes, queue->message_bytes);
    queue->first = (queue->first + 1) % queue->capacity;
    queue->count--;
    taken++;
    return 0;
}

uint32_t k_cycle_get_32(void) {
    static uint32_t cycles;
    return cycles += 10;
}

int sys_clock_hw_cycles_per_sec(void) { return 1000; }

k_tid_t k_current_get(void) { return NULL; }

int k_thread_stack_space_get(const struct k_thread *thread, size_t *unused) {
    (void)thread;
    *unused = CONFIG_MAIN_STACK_SIZE - 64;
    return 0;
}

/* The descriptor comes as an argument, which Zephyr's main() takes none of. */
__attribute__((constructor)) static void read_arguments(int count, char **arguments) {
    idle_file = count > 1 ? atoi(arguments[1]) : -1;
}
