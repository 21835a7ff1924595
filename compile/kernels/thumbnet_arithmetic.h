/* thumbnet: the arithmetic of quantized layers, on every core the same bytes. */
#ifndef THUMBNET_ARITHMETIC_H
#define THUMBNET_ARITHMETIC_H

#include <stdint.h>

/* What C and C++ have different words for. */
#ifdef __cplusplus
#define TN_RESTRICT __restrict
#define TN_EXTERN extern "C"
#else
#define TN_RESTRICT restrict
#define TN_EXTERN extern
#endif

/* Where code lies that takes the time: -DTN_CODE_SECTION='".itcm"' has the layers and their kernels in sections of that
 * name, for the program's linker script to place in tightly coupled memory. */
#ifdef TN_CODE_SECTION
#define TN_CODE __attribute__((section(TN_CODE_SECTION)))
#define TN_SECTION TN_CODE_SECTION "."
#else
#define TN_CODE
#define TN_SECTION ".text."
#endif

/* (2 * a * b + 2^31) >> 32, rounding half up; a * b < 2^62 in magnitude. One SMMULR where the core has it. */
static inline int32_t thumbnet_multiply_high_round_half_up(int32_t a, int32_t b) {
#if defined(__ARM_FEATURE_DSP)
    int32_t high;
    __asm__("smmulr %0, %1, %2" : "=r"(high) : "r"(a), "r"((int32_t)((uint32_t)b << 1)));
    return high;
#else
    return (int32_t)(((int64_t)a * b + (INT64_C(1) << 30)) >> 31);
#endif
}

/* The nearest value from minimum to maximum; for those of int8 one SSAT where the core has it. */
static inline int32_t thumbnet_clamp(int32_t value, int32_t minimum, int32_t maximum) {
#if defined(__ARM_FEATURE_SAT)
    if (__builtin_constant_p(minimum) && __builtin_constant_p(maximum) && minimum == -128 && maximum == 127)
        return (int32_t)__builtin_arm_ssat(value, 8);
#endif
    const int32_t low = value > minimum ? value : minimum;
    return low < maximum ? low : maximum;
}

#endif
