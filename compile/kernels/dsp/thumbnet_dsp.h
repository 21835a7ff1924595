/* thumbnet micro-kernels, int8 networks on Cortex-M with the DSP extension (M4, M7, M33), and a portable form that
 * gives the same bytes on any core.
 *
 * A network defines the kernels it needs with the macros TN_DEF_*, for its shapes: functions in assembly
 * (thumbnet_dsp_depthwise.h, _large_depthwise.h, _pointwise.h, _pointwise_pairs.h, _widening.h, _pixels.h) where the
 * compiler makes code for the DSP extension and TN_PORTABLE is not defined, else the same in C
 * (thumbnet_dsp_portable.h).
 *
 * Layouts (all intermediate activations between a producer and a consumer layer are int16 holding int8 values):
 *   planar16  plane of one channel, rows of WP int16 (WP even): [left border][W pixels][right border]. Border = zx.
 *             Consumed by the depthwise kernel, produced by the pointwise ones.
 *   planar8   the same of int8: half the RAM, 5 instructions more for 2 outputs of the depthwise kernel.
 *   pair16(K) for two neighbouring pixels: [K4/2][2 pixels][2 slots] int16, K4 = K rounded up to 4; an odd last pixel
 *             has a neighbour of any value. Consumed by the pointwise kernels.
 *   wide(K)   one pixel: K int16 in a row (K = 8 only): consumed by the weight-stationary kernel.
 * Slots are input channels in any order, as long as the packed weights agree.
 *
 * Requantization: out = clamp(zo + ((acc * M + 2^31) >> 32)), M = 2 * m: one SMMLAR. Real scales of 0.5 and more: the
 * accumulators are shifted left by SH first.
 */
#ifndef TN_KERNELS_H
#define TN_KERNELS_H
#include <stdint.h>
#include <string.h>

#include "thumbnet_arithmetic.h"

#if defined(__ARM_FEATURE_DSP) && defined(__thumb2__) && !defined(TN_PORTABLE)
#define TN_DSP 1
#else
#define TN_DSP 0
#endif
#define TN_INLINE static inline __attribute__((always_inline))

TN_INLINE int32_t tn_ssat8(int32_t v) { return v < -128 ? -128 : v > 127 ? 127 : v; }
TN_INLINE int32_t tn_requant(int32_t acc, int32_t M, int32_t zo) {
    return tn_ssat8(zo + (int32_t)(((int64_t)acc * M + 0x80000000ll) >> 32));
}

#if TN_DSP
#ifdef __clang__
/* A kernel's assembly is a longer string than C99 asks a compiler to take; GCC lets assembly have them. */
#pragma clang diagnostic ignored "-Woverlength-strings"
#endif
#define TN_STR_(x) #x
#define TN_STR(x) TN_STR_(x)
/* Kernels are whole functions in top-level assembly, each in a section of its own (the linker drops those not called):
 * the compiler sees only a declaration, so it assumes the full calling convention, at any optimization level. They are
 * global, for link-time optimization puts callers elsewhere, but nothing that a shared library would show. */
#define TN_FN(NAME, BODY)                                                                                              \
    __asm(".pushsection " TN_SECTION #NAME                                                                             \
          ", \"ax\", %progbits\n .syntax unified\n .thumb\n .p2align 2\n .thumb_func\n"                                \
          ".global " #NAME "\n .hidden " #NAME "\n .type " #NAME ", %function\n" #NAME ":\n" BODY ".size " #NAME       \
          ", . - " #NAME "\n .popsection\n");
/* A macro's parameter as the assembly's constant .Lk_NAME, until the next kernel sets it. */
#define TN_LET(NAME, VALUE) ".set .Lk_" NAME ", " TN_STR(VALUE) "\n"
/* Shift of an accumulator in front of requantization. */
#define TN_SHL(R) ".if .Lk_SH\n lsl " R ", " R ", #.Lk_SH\n .endif\n"
#include "thumbnet_dsp_depthwise.h"
#include "thumbnet_dsp_large_depthwise.h"
#include "thumbnet_dsp_pixels.h"
#include "thumbnet_dsp_pointwise.h"
#include "thumbnet_dsp_pointwise_pairs.h"
#include "thumbnet_dsp_widening.h"
#else
#include "thumbnet_dsp_portable.h"
#endif

/* Residual add of four int8: ssat8((a * ma + b * mb + c) >> shift), m = ma | mb << 16. In place allowed. shift
 * constant. */
TN_INLINE void tn_add4(int8_t *out, const int8_t *a, const int8_t *b, int32_t m, int32_t c, const int shift) {
#if TN_DSP
    int32_t x, y, xo, yo, p0, p1, p2, p3;
    memcpy(&x, a, 4);
    memcpy(&y, b, 4);
    __asm("sxtb16 %0, %1, ror #8" : "=r"(xo) : "r"(x));
    __asm("sxtb16 %0, %1, ror #8" : "=r"(yo) : "r"(y));
    __asm("sxtb16 %0, %1" : "=r"(x) : "r"(x));
    __asm("sxtb16 %0, %1" : "=r"(y) : "r"(y));
    __asm("pkhbt %0, %1, %2, lsl #16" : "=r"(p0) : "r"(x), "r"(y));
    __asm("pkhbt %0, %1, %2, lsl #16" : "=r"(p1) : "r"(xo), "r"(yo));
    __asm("pkhtb %0, %1, %2, asr #16" : "=r"(p2) : "r"(y), "r"(x));
    __asm("pkhtb %0, %1, %2, asr #16" : "=r"(p3) : "r"(yo), "r"(xo));
    __asm("smlad %0, %1, %2, %3" : "=r"(p0) : "r"(p0), "r"(m), "r"(c));
    __asm("smlad %0, %1, %2, %3" : "=r"(p1) : "r"(p1), "r"(m), "r"(c));
    __asm("smlad %0, %1, %2, %3" : "=r"(p2) : "r"(p2), "r"(m), "r"(c));
    __asm("smlad %0, %1, %2, %3" : "=r"(p3) : "r"(p3), "r"(m), "r"(c));
    __asm("ssat %0, #8, %1, asr %2" : "=r"(p0) : "r"(p0), "n"(shift));
    __asm("ssat %0, #8, %1, asr %2" : "=r"(p1) : "r"(p1), "n"(shift));
    __asm("ssat %0, #8, %1, asr %2" : "=r"(p2) : "r"(p2), "n"(shift));
    __asm("ssat %0, #8, %1, asr %2" : "=r"(p3) : "r"(p3), "n"(shift));
    out[0] = (int8_t)p0;
    out[1] = (int8_t)p1;
    out[2] = (int8_t)p2;
    out[3] = (int8_t)p3;
#else
    for (int i = 0; i < 4; ++i)
        out[i] = (int8_t)tn_ssat8((a[i] * (int16_t)m + b[i] * (m >> 16) + c) >> shift);
#endif
}

/* Moves `bytes` bytes of each channel of a window up by `distance` bytes; sixteen at a time, which the C library's
 * memmove does not do. */
static inline void tn_carry(void *window, int32_t distance, int32_t bytes, int32_t channels, int32_t channel_bytes) {
    int8_t *plane = (int8_t *)window;
    for (; channels > 0; --channels, plane += channel_bytes) {
        int8_t *to = plane;
        const int8_t *from = plane + distance;
        int32_t rest = bytes;
        for (; rest >= 16; rest -= 16, to += 16, from += 16) {
            uint32_t words[4];
            memcpy(words, from, 16);
            memcpy(to, words, 16);
        }
        for (; rest > 0; --rest)
            *to++ = *from++;
    }
}
#endif
