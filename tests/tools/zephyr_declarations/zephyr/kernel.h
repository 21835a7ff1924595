/* As much as the port of the test server takes of this header of Zephyr's, as Zephyr 3.7 declares it. */
#pragma once
#include <stddef.h>
#include <stdint.h>
typedef struct {
    int64_t ticks;
} k_timeout_t;
#define K_NO_WAIT ((k_timeout_t){0})
#define K_FOREVER ((k_timeout_t){-1})
struct k_msgq {
    int unused;
};
#define K_MSGQ_DEFINE(name, size, most, align) struct k_msgq name
int k_msgq_put(struct k_msgq *, const void *, k_timeout_t);
int k_msgq_get(struct k_msgq *, void *, k_timeout_t);
uint32_t k_cycle_get_32(void);
int sys_clock_hw_cycles_per_sec(void);
typedef struct k_thread *k_tid_t;
k_tid_t k_current_get(void);
int k_thread_stack_space_get(const struct k_thread *, size_t *);
