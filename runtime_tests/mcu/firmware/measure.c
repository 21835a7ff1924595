#include "measure.h"

#define STRING_(a) #a
#define STRING(a) STRING_(a)

/* The stack pointer at the last measured call. */
static uint32_t *measured_stack __attribute__((used));

/* Assembly, so that no compiler puts an instruction between the two marks. */
__attribute__((naked, noinline)) void measured_call(measured_t function, uintptr_t first, uintptr_t second) {
    (void)function, (void)first, (void)second;
    __asm volatile("push {r4, lr}\n"
                   "mov r4, r0\n"
                   "mov r0, r1\n"
                   "mov r1, r2\n"
                   "ldr r3, =measured_stack\n"
                   "mov r2, sp\n"
                   "str r2, [r3]\n"
                   ".global measure_begin\n"
                   "measure_begin:\n"
                   "blx r4\n"
                   ".global measure_end\n"
                   "measure_end:\n"
                   "pop {r4, pc}\n");
}

__attribute__((naked, noinline)) void measured_nothing(void) { __asm volatile("bx lr"); }

#define PAINT 0xC5C5C5C5

extern uint32_t __stack_bottom[], __stack_top[];

/* Assembly again, because it may have nothing on the stack that it paints. */
__attribute__((naked, noinline)) void stack_paint(void) {
    __asm volatile("ldr r0, =__stack_bottom\n"
                   "ldr r1, =" STRING(PAINT) "\n"
                                             "mov r2, sp\n"
                                             "b 2f\n"
                                             "1:\n"
                                             "stmia r0!, {r1}\n"
                                             "2:\n"
                                             "cmp r0, r2\n"
                                             "bcc 1b\n"
                                             "bx lr\n");
}

uint32_t stack_used(void) {
    const volatile uint32_t *word = __stack_bottom;
    while (word < measured_stack && *word == (uint32_t)PAINT) {
        word++;
    }
    return (uint32_t)((uintptr_t)measured_stack - (uintptr_t)word);
}

uint32_t stack_size(void) { return (uint32_t)((uintptr_t)__stack_top - (uintptr_t)__stack_bottom); }
