/* ST's STM32: where each series has what the port needs, and its clocks; see the reference manuals' RCC chapters. */
#ifndef THUMBNET_STM32_H
#define THUMBNET_STM32_H

#include <stdint.h>

#if defined(SERIES_F4) || defined(SERIES_F7)
#define RCC 0x40023800u
#define GPIO 0x40020000u
#define GPIO_CLOCKS (RCC + 0x30u)
#define APB1_CLOCKS (RCC + 0x40u)
#define APB2_CLOCKS (RCC + 0x44u)
#define APB2 0x40010000u
#elif defined(SERIES_L4)
#define RCC 0x40021000u
#define GPIO 0x48000000u
#define GPIO_CLOCKS (RCC + 0x4Cu)
#define APB1_CLOCKS (RCC + 0x58u)
#define APB2_CLOCKS (RCC + 0x60u)
#define APB2 0x40010000u
#elif defined(SERIES_H7)
#define RCC 0x58024400u
#define GPIO 0x58020000u
#define GPIO_CLOCKS (RCC + 0xE0u)
#define APB1_CLOCKS (RCC + 0xE8u)
#define APB2_CLOCKS (RCC + 0xF0u)
#define APB2 0x40010000u
#elif defined(SERIES_U5)
#define RCC 0x46020C00u
#define GPIO 0x42020000u
#define GPIO_CLOCKS (RCC + 0x8Cu)
#define APB1_CLOCKS (RCC + 0x9Cu)
#define APB2_CLOCKS (RCC + 0xA4u)
#define APB2 0x40010000u
#endif

typedef struct {
    uint32_t core_hz, uart_hz, timer_hz; /* timer_hz: of the timers on the first peripheral bus */
} stm32_clocks_t;

/* Bring the core to CLOCK_HZ, with the flash's wait states and the accelerators and caches on; the clocks it runs at,
 * which are those after a reset where something did not come. */
stm32_clocks_t stm32_start_clocks(void);

/* See port_start_memories(). */
void stm32_start_memories(void);

#endif
