#include "measure.h"

/* Assembly, so that no compiler puts an instruction between the two marks. */
__attribute__((naked, noinline)) void measured_call(measured_t function, uint32_t argument) {
    (void)function, (void)argument;
    __asm volatile("push {r4, lr}\n"
                   "mov r4, r0\n"
                   "mov r0, r1\n"
                   ".global measure_begin\n"
                   "measure_begin:\n"
                   "blx r4\n"
                   ".global measure_end\n"
                   "measure_end:\n"
                   "pop {r4, pc}\n");
}

__attribute__((naked, noinline)) void measured_nothing(void) { __asm volatile("bx lr"); }

#define PAINT 0xC5C5C5C5u
#define MARGIN_WORDS 8 /* what these functions may themselves have on the stack */

extern uint32_t __stack_bottom[], __stack_top[];
static uint32_t *painted_from;

static inline uint32_t *stack_pointer(void) {
    uint32_t *sp;
    __asm volatile("mov %0, sp" : "=r"(sp));
    return sp;
}

__attribute__((noinline)) void stack_paint(void) {
    uint32_t *from = stack_pointer() - MARGIN_WORDS;
    painted_from = from;
    for (volatile uint32_t *word = __stack_bottom; word < from; word++) {
        *word = PAINT;
    }
}

__attribute__((noinline)) uint32_t stack_used(void) {
    const volatile uint32_t *word = __stack_bottom;
    while (word < painted_from && *word == PAINT) {
        word++;
    }
    return (uint32_t)((uintptr_t)(painted_from + MARGIN_WORDS) - (uintptr_t)word);
}

uint32_t stack_size(void) { return (uint32_t)((uintptr_t)__stack_top - (uintptr_t)__stack_bottom); }
