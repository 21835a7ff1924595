/* thumbnet micro-kernels, int8 networks on Cortex-M with MVE (Helium: M55, M85), and a portable form that gives the
 * same bytes on any core.
 *
 * Layouts (int8 everywhere):
 *   planes  a plane a channel, or rows of all channels behind each other; each row [left border][pixels][right border].
 *           Read by the depthwise kernels, a row at any address.
 *   pixels  [pixel][channel], STRIDE bytes a pixel. Read by the pointwise kernels, 16 channels at a time; what lies
 *           beyond the last channel is multiplied by weights of zero.
 *
 * Requantization: out = clamp(zp + ((2 * (acc << shift) * m + 2^31) >> 32)): one VQRDMLASH with zp as its scalar.
 *
 * Kernels are whole functions in top-level assembly, each in a section of its own (the linker drops those not called):
 * the compiler sees only a declaration, so it assumes the full calling convention, at any optimization level. They are
 * global, for link-time optimization puts callers elsewhere, but nothing that a shared library would show.
 * A kernel is one macro of the assembler; those of a family, TN_MVE_*_MACROS, are defined before its first kernel.
 */
#ifndef TN_MVE_H
#define TN_MVE_H
#include <stdint.h>
#include <string.h>

#include "thumbnet_arithmetic.h"

#if !defined(__ARM_FEATURE_MVE) || defined(TN_PORTABLE)
#include "thumbnet_mve_portable.h"
#else

#ifdef __clang__
/* The assembler's macros are longer strings than C99 asks a compiler to take; GCC lets assembly have them. */
#pragma clang diagnostic ignored "-Woverlength-strings"
#endif

/* The assembler's macros that all kernels share. */
/* clang-format off */
#define TN_MVE_COMMON_MACROS                                                                                           \
    ".ifndef tn_mve_common_macros\n"                                                                                   \
    ".set tn_mve_common_macros, 1\n"                                                                                   \
    ".macro tn_begin name\n"                                                                                           \
    ".pushsection " TN_SECTION "\\name, \"ax\", %progbits\n"                                                                   \
    ".syntax unified\n"                                                                                                \
    ".thumb\n"                                                                                                         \
    ".p2align 2\n"                                                                                                     \
    ".thumb_func\n"                                                                                                    \
    ".global \\name\n"                                                                                                  \
    ".hidden \\name\n"                                                                                                  \
    ".type \\name, %function\n"                                                                                        \
    "\\name:\n"                                                                                                        \
    "push {r4-r11, lr}\n"                                                                                              \
    "vpush {d8-d15}\n"                                                                                                 \
    ".endm\n"                                                                                                          \
    ".macro tn_end name\n"                                                                                             \
    ".size \\name, . - \\name\n"                                                                                       \
    ".popsection\n"                                                                                                    \
    ".endm\n"                                                                                                          \
    /* \reg += \by, through \tmp where it fits no immediate. */                                                        \
    ".macro tn_add reg, by, tmp\n"                                                                                     \
    ".if (\\by) > 0 && (\\by) < 4096\n"                                                                                \
    "addw \\reg, \\reg, #(\\by)\n"                                                                                     \
    ".elseif (\\by) < 0 && (\\by) > -4096\n"                                                                           \
    "subw \\reg, \\reg, #-(\\by)\n"                                                                                    \
    ".elseif (\\by) != 0\n"                                                                                            \
    "movw \\tmp, #((\\by) & 0xffff)\n"                                                                                 \
    ".if ((\\by) >> 16) != 0\n"                                                                                        \
    "movt \\tmp, #(((\\by) >> 16) & 0xffff)\n"                                                                         \
    ".endif\n"                                                                                                         \
    "add \\reg, \\reg, \\tmp\n"                                                                                        \
    ".endif\n"                                                                                                         \
    ".endm\n"                                                                                                          \
    /* int8 results in the even bytes of \q into \lo .. \hi. */                                                        \
    ".macro tn_clamp q, lo, hi, qt, rt\n"                                                                              \
    ".if (\\lo) != -128\n"                                                                                             \
    "mov \\rt, #(\\lo)\n"                                                                                              \
    "vdup.8 \\qt, \\rt\n"                                                                                              \
    "vmax.s8 \\q, \\q, \\qt\n"                                                                                         \
    ".endif\n"                                                                                                         \
    ".if (\\hi) != 127\n"                                                                                              \
    "mov \\rt, #(\\hi)\n"                                                                                              \
    "vdup.8 \\qt, \\rt\n"                                                                                              \
    "vmin.s8 \\q, \\q, \\qt\n"                                                                                         \
    ".endif\n"                                                                                                         \
    ".endm\n"                                                                                                          \
    ".endif\n"
/* clang-format on */
#define TN_MVE_KERNEL(MACROS, CALL) __asm(TN_MVE_COMMON_MACROS MACROS CALL "\n");

#include "thumbnet_mve_depthwise.h"
#include "thumbnet_mve_large_depthwise.h"
#include "thumbnet_mve_pointwise.h"

/* clang-format off */
#define TN_MVE_ELEMENTWISE_MACROS                                                                                      \
    ".ifndef tn_mve_elementwise_macros\n"                                                                              \
    ".set tn_mve_elementwise_macros, 1\n"                                                                              \
    /* r0 out, r1 a, r2 b, r3 values: one row of lanes a turn, the last one partly. */                                 \
    ".macro tn_sum name, ma, mb, constant, shift, lo, hi\n"                                                            \
    "tn_begin \\name\n"                                                                                                \
    "movw r4, #((\\ma) & 0xffff)\n"                                                                                    \
    "vdup.32 q7, r4\n"                                                                                                 \
    "movw r5, #((\\mb) & 0xffff)\n"                                                                                    \
    /* The narrowing adds half: GNU as (2.40) takes VQSHRNB for VQRSHRNB too. */                                       \
    ".set tn_constant, (\\constant) - (1 << ((\\shift) - 1))\n"                                                        \
    "movw r6, #(tn_constant & 0xffff)\n"                                                                               \
    "movt r6, #((tn_constant >> 16) & 0xffff)\n"                                                                       \
    "dlstp.32 lr, r3\n"                                                                                                \
    "1:\n"                                                                                                             \
    "vldrb.s32 q0, [r1], #4\n"                                                                                         \
    "vldrb.s32 q1, [r2], #4\n"                                                                                         \
    "vmlas.s32 q0, q7, r6\n"                                                                                           \
    "vmla.s32 q0, q1, r5\n"                                                                                            \
    ".if (\\shift) > 16\n"                                                                                             \
    "vshr.s32 q0, q0, #((\\shift) - 16)\n"                                                                             \
    "vqrshrnb.s32 q0, q0, #16\n"                                                                                       \
    ".else\n"                                                                                                          \
    "vqrshrnb.s32 q0, q0, #(\\shift)\n"                                                                                \
    ".endif\n"                                                                                                         \
    "vqmovnb.s16 q0, q0\n"                                                                                             \
    "tn_clamp q0, \\lo, \\hi, q1, r4\n"                                                                                \
    "vstrb.32 q0, [r0], #4\n"                                                                                          \
    "letp lr, 1b\n"                                                                                                    \
    "vpop {d8-d15}\n"                                                                                                  \
    "pop {r4-r11, pc}\n"                                                                                               \
    "tn_end \\name\n"                                                                                                  \
    ".endm\n"                                                                                                          \
    /* r0 in, r1 out, r2 channels: four lanes of sums a turn. */                                                       \
    ".macro tn_average_pixel stride\n"                                                                                 \
    "vldrb.s32 q1, [r2]\n"                                                                                             \
    "vadd.i32 q0, q0, q1\n"                                                                                            \
    "tn_add r2, (\\stride), r7\n"                                                                                      \
    ".endm\n"                                                                                                          \
    ".macro tn_average name, pixels, stride, bias, multiplier, shift, zp, lo, hi\n"                                    \
    "tn_begin \\name\n"                                                                                                \
    "movw r4, #((\\multiplier) & 0xffff)\n"                                                                            \
    "movt r4, #(((\\multiplier) >> 16) & 0xffff)\n"                                                                    \
    "vdup.32 q7, r4\n"                                                                                                 \
    "movw r5, #((\\bias) & 0xffff)\n"                                                                                  \
    "movt r5, #(((\\bias) >> 16) & 0xffff)\n"                                                                          \
    "mov r6, #(\\zp)\n"                                                                                                \
    "dlstp.32 lr, r2\n"                                                                                                \
    "1:\n"                                                                                                             \
    "mov r2, r0\n"                                                                                                     \
    "vdup.32 q0, r5\n"                                                                                                 \
    ".if (\\pixels) <= 16\n"                                                                                           \
    ".rept \\pixels\n"                                                                                                 \
    "tn_average_pixel \\stride\n"                                                                                      \
    ".endr\n"                                                                                                          \
    ".else\n"                                                                                                          \
    "movw r3, #(\\pixels)\n"                                                                                           \
    "2:\n"                                                                                                             \
    "tn_average_pixel \\stride\n"                                                                                      \
    "subs r3, r3, #1\n"                                                                                                \
    "bne.n 2b\n"                                                                                                       \
    ".endif\n"                                                                                                         \
    ".if \\shift\n"                                                                                                    \
    "vshl.i32 q0, q0, #(\\shift)\n"                                                                                    \
    ".endif\n"                                                                                                         \
    "vqrdmlash.s32 q0, q7, r6\n"                                                                                       \
    "vqmovnb.s32 q0, q0\n"                                                                                             \
    "vqmovnb.s16 q0, q0\n"                                                                                             \
    "tn_clamp q0, \\lo, \\hi, q1, r4\n"                                                                                \
    "adds r0, r0, #4\n"                                                                                                \
    "vstrb.32 q0, [r1], #4\n"                                                                                          \
    "letp lr, 1b\n"                                                                                                    \
    "vpop {d8-d15}\n"                                                                                                  \
    "pop {r4-r11, pc}\n"                                                                                               \
    "tn_end \\name\n"                                                                                                  \
    ".endm\n"                                                                                                          \
    /* r0 window, r1 distance, r2 bytes, r3 channels, channel bytes on the stack: forwards, what is read is not yet written. */ \
    ".macro tn_carry name\n"                                                                                           \
    "tn_begin \\name\n"                                                                                                \
    "ldr r6, [sp, #100]\n"                                                                                             \
    "1:\n"                                                                                                             \
    "mov r4, r0\n"                                                                                                     \
    "add r5, r0, r1\n"                                                                                                 \
    "dlstp.8 lr, r2\n"                                                                                                 \
    "2:\n"                                                                                                             \
    "vldrb.u8 q0, [r5], #16\n"                                                                                         \
    "vstrb.8 q0, [r4], #16\n"                                                                                          \
    "letp lr, 2b\n"                                                                                                    \
    "add r0, r0, r6\n"                                                                                                 \
    "subs r3, r3, #1\n"                                                                                                \
    "bne.n 1b\n"                                                                                                       \
    "vpop {d8-d15}\n"                                                                                                  \
    "pop {r4-r11, pc}\n"                                                                                               \
    "tn_end \\name\n"                                                                                                  \
    ".endm\n"                                                                                                          \
    ".endif\n"
/* clang-format on */

/* Residual add: out = clamp((a * MA + b * MB + CONSTANT) >> SHIFT), SHIFT 1 or more. In place allowed. */
#define TN_DEF_MVE_ADD(NAME, MA, MB, CONSTANT, SHIFT, LO, HI)                                                          \
    TN_EXTERN void NAME(int8_t *out, const int8_t *a, const int8_t *b, int32_t values);                                \
    TN_MVE_KERNEL(TN_MVE_ELEMENTWISE_MACROS,                                                                           \
                  "tn_sum " #NAME ", " #MA ", " #MB ", " #CONSTANT ", " #SHIFT ", " #LO ", " #HI)

/* Average pool over PIXELS pixels STRIDE bytes apart, with one multiplier. */
#define TN_DEF_MVE_AVERAGE(NAME, PIXELS, STRIDE, BIAS, MULTIPLIER, SHIFT, ZP, LO, HI)                                  \
    TN_EXTERN void NAME(const int8_t *in, int8_t *out, int32_t channels);                                              \
    TN_MVE_KERNEL(TN_MVE_ELEMENTWISE_MACROS, "tn_average " #NAME ", " #PIXELS ", " #STRIDE ", " #BIAS ", " #MULTIPLIER \
                                             ", " #SHIFT ", " #ZP ", " #LO ", " #HI)

/* Moves `bytes` bytes of each channel of a window up by `distance` bytes. */
#define TN_DEF_MVE_CARRY(NAME)                                                                                         \
    TN_EXTERN void NAME(int8_t *window, int32_t distance, int32_t bytes, int32_t channels, int32_t channel_bytes);     \
    TN_MVE_KERNEL(TN_MVE_ELEMENTWISE_MACROS, "tn_carry " #NAME)
#endif
#endif
