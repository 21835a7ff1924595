/* As much as the port of the test server takes of this header of Zephyr's, as Zephyr 3.7 declares it. */
#pragma once
#include <zephyr/device.h>
typedef void (*uart_irq_callback_user_data_t)(const struct device *, void *);
int uart_irq_callback_user_data_set(const struct device *, uart_irq_callback_user_data_t, void *);
void uart_irq_rx_enable(const struct device *);
int uart_irq_update(const struct device *);
int uart_irq_rx_ready(const struct device *);
int uart_fifo_read(const struct device *, uint8_t *, const int);
void uart_poll_out(const struct device *, unsigned char);
