/* Reset and faults, all in C: memories are prepared, the FPU or MVE is switched on, then the firmware serves its line
 * for good. */
#include <stdint.h>
#include <string.h>

#include "cortex.h"
#include "port.h"
#include "serve.h"

extern uint32_t __stack_top[], __stack_bottom[];
extern uint8_t __data_start[], __data_end[], __data_load[], __bss_start[], __bss_end[];
extern uint8_t __arena_start[], __arena_end[];

#define SCB_VTOR REGISTER(0xE000ED08u)
#define SCB_CFSR REGISTER(0xE000ED28u)
#define SCB_HFSR REGISTER(0xE000ED2Cu)
#define SCB_MMFAR REGISTER(0xE000ED34u)
#define SCB_BFAR REGISTER(0xE000ED38u)
#define SCB_CPACR REGISTER(0xE000ED88u)
#define CFSR_BFARVALID (1u << 15)

void reset_handler(void);
void fault_handler(void);

typedef void (*handler_t)(void);
__attribute__((section(".vectors"), used)) static const handler_t vectors[16] = {
    (handler_t)(uintptr_t)__stack_top,
    reset_handler,
    fault_handler, /* NMI */
    fault_handler, /* HardFault: the others escalate to it, since they are never enabled */
    fault_handler,
    fault_handler,
    fault_handler,
    fault_handler,
    0,
    0,
    0,
    fault_handler,
    fault_handler,
    0,
    fault_handler,
    fault_handler,
};

__attribute__((noreturn, used)) static void start(void) {
    SCB_VTOR = (uint32_t)(uintptr_t)vectors;
    SCB_CPACR |= 0xFu << 20; /* coprocessors 10 and 11: FPU and MVE */
    __asm volatile("dsb\n isb" ::: "memory");
#if __ARM_ARCH >= 8
    __asm volatile("msr msplim, %0" ::"r"(__stack_bottom)); /* a stack overflow faults */
#endif
    port_start_memories();
    memcpy(__data_start, __data_load, (size_t)(__data_end - __data_start));
    memset(__bss_start, 0, (size_t)(__bss_end - __bss_start));
    port_init();
    /* Behind the line's set-up, which can tell then if the memory isn't there. */
    memset(__arena_start, 0, (size_t)(__arena_end - __arena_start));
    serve_loop();
}

__attribute__((naked)) void reset_handler(void) {
    /* The stack pointer is set again here for loaders that jump to the entry point without a reset. */
    __asm volatile("ldr r0, =__stack_top\n"
                   "mov sp, r0\n"
                   "ldr r0, =%c0\n" /* Armv6-M has no long branch */
                   "bx r0\n" ::"i"(start));
}

__attribute__((noreturn, used)) static void report_fault(const uint32_t *frame) {
    fault_t fault = {.cfsr = SCB_CFSR, .hfsr = SCB_HFSR};
    fault.address = (fault.cfsr & CFSR_BFARVALID) ? SCB_BFAR : SCB_MMFAR;
    int inside = frame >= __stack_bottom && frame + 8 <= __stack_top;
    fault.pc = inside ? frame[6] : 0; /* after a stack overflow there is no frame to read */
    serve_fault_loop(&fault);
}

__attribute__((naked)) void fault_handler(void) {
    /* The report starts with a fresh stack: the old one may be what overflowed. The frame lies lower, and is read
     * first. */
    __asm volatile("mrs r0, msp\n"
                   "ldr r1, =__stack_top\n"
                   "cmp r0, r1\n"
                   "bls 1f\n"
                   "mov r0, r1\n"
                   "1:\n"
                   "ldr r2, =__fault_stack_top\n"
#if __ARM_ARCH >= 8
                   "movs r3, #0\n"
                   "msr msplim, r3\n"
#endif
                   "mov sp, r2\n"
                   "ldr r2, =%c0\n"
                   "bx r2\n" ::"i"(report_fault));
}
