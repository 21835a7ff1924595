/* What a firmware does once its board is set up: it serves whoever asks it over the line, for good. rpc.c speaks our
 * own protocol, mlperf_tiny.c the benchmark's; a firmware has one of them. */
#ifndef THUMBNET_SERVE_H
#define THUMBNET_SERVE_H

#include <stdint.h>

/* What the core or the kernel says of a fault; CFSR and HFSR in the words of Armv7-M. */
typedef struct {
    uint32_t cfsr, hfsr, address, pc;
} fault_t;

__attribute__((noreturn)) void serve_loop(void);
__attribute__((noreturn)) void serve_fault_loop(const fault_t *fault);

#endif
