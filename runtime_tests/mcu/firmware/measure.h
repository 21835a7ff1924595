/* Calls whose executed instructions can be counted from outside. */
#ifndef THUMBNET_MEASURE_H
#define THUMBNET_MEASURE_H

#include <stdint.h>

/* A function that takes up to two words: arguments are in registers that it needn't read. */
typedef void (*measured_t)(void);

/* Call function(first, second) from a fixed place: the instruction at the symbol measure_begin is the call itself, the
 * one at measure_end follows it. So the instructions executed from measure_begin up to measure_end are the call's own
 * one plus the function's. */
void measured_call(measured_t function, uintptr_t first, uintptr_t second);

/* Executes exactly one instruction: measuring it gives the overhead of a measurement. */
void measured_nothing(void);

/* Fill the unused stack with a pattern; the bytes that the measured call since then had on the stack. */
void stack_paint(void);
uint32_t stack_used(void);
uint32_t stack_size(void);

#endif
