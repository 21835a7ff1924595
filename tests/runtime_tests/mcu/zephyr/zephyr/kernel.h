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
    char *buffer;
    size_t message_bytes, capacity, first, count;
};
#define K_MSGQ_DEFINE(name, bytes, most, alignment)                                                                    \
    static char name##_buffer[(bytes) * (most)];                                                                       \
    struct k_msgq name = {name##_buffer, bytes, most, 0, 0}
int k_msgq_put(struct k_msgq *queue, const void *message, k_timeout_t timeout);
uint32_t k_msgq_num_used_get(struct k_msgq *queue);
int k_msgq_get(struct k_msgq *queue, void *message, k_timeout_t timeout);

uint32_t k_cycle_get_32(void);
int sys_clock_hw_cycles_per_sec(void);

typedef struct k_thread *k_tid_t;
k_tid_t k_current_get(void);
int k_thread_stack_space_get(const struct k_thread *thread, size_t *unused);
