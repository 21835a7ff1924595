/* What all Cortex-M cores have: registers, the interrupt controller, sleep, and, but for Armv6-M, a cycle counter. */
#ifndef THUMBNET_CORTEX_H
#define THUMBNET_CORTEX_H

#include <stdint.h>

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

/* Interrupts stay masked for good: a pending one only wakes the core from WFI. */
static inline void cortex_wake_by(uint32_t irq) {
    __asm volatile("cpsid i");
    REGISTER(0xE000E100u + 4u * (irq / 32u)) = 1u << (irq % 32u); /* NVIC_ISER */
}

static inline void cortex_clear_pending(uint32_t irq) {
    REGISTER(0xE000E280u + 4u * (irq / 32u)) = 1u << (irq % 32u); /* NVIC_ICPR */
}

/* Until an interrupt is pending; not in a fault handler, where none can wake the core. */
static inline void cortex_sleep(void) {
    uint32_t exception;
    __asm volatile("mrs %0, ipsr" : "=r"(exception));
    if (exception == 0) {
        __asm volatile("dsb\n wfi" ::: "memory");
    }
}

static inline uint32_t cortex_cycles(void) { return REGISTER(0xE0001004u); /* DWT_CYCCNT */ }

#define DWT_CTRL REGISTER(0xE0001000u)
#define CYCLES_ON (1u << 0)
#define CYCLES_NOT_SECURE (1u << 23) /* Armv8.1-M: it stands still in secure state */
#define HAS_NO_CYCLES (1u << 25)

/* Whether there is a cycle counter that counts. Emulators model none, it reads as zero; and on a core with TrustZone it
 * stands still where secure code may not be traced. */
static inline uint8_t cortex_start_cycle_counter(void) {
    REGISTER(0xE000EDFCu) |= 1u << 24;  /* DEMCR: trace on */
    REGISTER(0xE0001FB0u) = 0xC5ACCE55; /* DWT_LAR: unlocks it, which a Cortex-M7 needs */
    if (DWT_CTRL & HAS_NO_CYCLES) {
        return 0;
    }
    DWT_CTRL = (DWT_CTRL & ~CYCLES_NOT_SECURE) | CYCLES_ON;
    uint32_t before = cortex_cycles();
    for (volatile int i = 0; i < 4; i++) {
    }
    return cortex_cycles() != before;
}

/* The caches of a Cortex-M7, empty and on. */
static inline void cortex_enable_caches(void) {
    REGISTER(0xE000EF50u) = 0; /* ICIALLU */
    __asm volatile("dsb\n isb" ::: "memory");
    REGISTER(0xE000ED84u) = 0; /* CSSELR: the data cache's size is asked for */
    __asm volatile("dsb" ::: "memory");
    uint32_t size = REGISTER(0xE000ED80u); /* CCSIDR */
    uint32_t sets = size >> 13 & 0x7FFFu;
    for (uint32_t set = 0; set <= sets; set++) {
        for (uint32_t way = 0; way < 4; way++) {
            REGISTER(0xE000EF60u) = way << 30 | set << 5; /* DCISW: lines of 32 bytes in four ways */
        }
    }
    __asm volatile("dsb" ::: "memory");
    REGISTER(0xE000ED14u) |= 3u << 16; /* CCR: both on */
    __asm volatile("dsb\n isb" ::: "memory");
}

#endif
