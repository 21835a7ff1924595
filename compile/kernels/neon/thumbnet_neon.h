/* thumbnet kernels, int8 networks on Armv8-A without dot product (Cortex-A53, A72), and a portable form that gives the
 * same bytes on any processor.
 *
 * Activations are int8, rows x columns x channels. A network defines the assembly functions it needs with TN_NEON_FN,
 * and with TN_DEF_NEON_* the functions that walk over its layers with them; where the compiler makes code for something
 * else, or TN_PORTABLE is defined, the latter do all the work themselves, from the same constants.
 *
 * Requantization: out = clamp(zo + ((2 * acc * m + 2^31) >> 32)), one SQRDMULH. Real scales of 0.5 and more: the
 * accumulators are shifted left first.
 */
#ifndef TN_NEON_H
#define TN_NEON_H
#include <stdint.h>
#include <string.h>

#include "thumbnet_threads.h"

/* Whether the functions in assembly are the processor's: A64's, where no other header has said it. */
#ifndef TN_NEON
#if defined(__aarch64__) && defined(__ARM_NEON) && !defined(TN_PORTABLE)
#define TN_NEON 1
#else
#define TN_NEON 0
#endif
#endif
#define TN_INLINE static inline __attribute__((always_inline))
#define TN_LAYER static __attribute__((noinline, unused))

#if TN_NEON
#include <arm_neon.h>
/* A function in top-level assembly, local to the file: the compiler sees only a declaration, and so assumes the full
 * calling convention. */
#define TN_NEON_FN(NAME, BODY)                                                                                         \
    __asm(".pushsection .text." #NAME ",\"ax\",%progbits\n .p2align 4\n .type " #NAME ",%function\n" #NAME ":\n" BODY  \
          ".size " #NAME ", . - " #NAME "\n .popsection\n");
typedef void tn_tile_t(const int8_t *pixels, const int8_t *weights, int8_t *out, long pixel_bytes, long out_bytes,
                       const void *parameters, long tiles, const void *schedule);
typedef void tn_depthwise_t(const int8_t *const *rows, int8_t *out, long pixel_bytes, long width, long count,
                            const void *parameters, long channel, long out_bytes);
#define TN_NEON_DECLARE(NAME) tn_depthwise_t NAME;
#else
#define TN_NEON_FN(NAME, BODY)
#define TN_NEON_DECLARE(NAME)
#endif
/* A list as one argument of a macro. */
#define TN_LIST(...) {__VA_ARGS__}

/* acc as the reference requantizes it; a record's int32 may stand at any address. */
TN_INLINE int32_t tn_load32(const int8_t *at) {
    int32_t value;
    memcpy(&value, at, 4);
    return value;
}
TN_INLINE int8_t tn_requantize(int32_t acc, int shift, int32_t multiplier, int32_t zero_point, int32_t lowest,
                               int32_t highest) {
    int64_t shifted = (int32_t)((uint32_t)acc << shift);
    int32_t value = zero_point + (int32_t)((2 * shifted * multiplier + INT64_C(0x80000000)) >> 32);
    return (int8_t)(value < lowest ? lowest : value > highest ? highest : value);
}

/* Pixels by output channels, four channels a tile: see pointwise_assembly.py. K inputs a pixel, IN and OUT bytes from
 * one pixel to the next, N output channels, LENGTH entries of a tile's schedule. */
#if TN_NEON
#define TN_DEF_NEON_POINTWISE(NAME, THREE, ONE, K, IN, OUT, N, LENGTH, SHIFT, ZP, LO, HI)                              \
    tn_tile_t THREE, ONE;                                                                                              \
    TN_LAYER void NAME(const int8_t *in, int8_t *out, const int8_t *weights, const int16_t *schedule,                  \
                       int32_t pixels) {                                                                               \
        const int32_t threes = pixels / 3, ones = pixels % 3;                                                          \
        for (int32_t tile = 0; tile < ((N) + 3) / 4; ++tile) {                                                         \
            int8_t *to = out + (4 * tile + 4 <= (N) || (N) < 4 ? 4 * tile : (N) - 4);                                  \
            if (threes)                                                                                                \
                THREE(in, weights + 64, to, IN, OUT, weights, threes, schedule);                                       \
            if (ones)                                                                                                  \
                ONE(in + threes * 3 * (IN), weights + 64, to + threes * 3 * (OUT), IN, OUT, weights, ones,             \
                    schedule + (LENGTH));                                                                              \
            weights += 64 + ((K) + 15) / 16 * 64;                                                                      \
            schedule += 2 * (LENGTH);                                                                                  \
        }                                                                                                              \
    }
#else
#define TN_DEF_NEON_POINTWISE(NAME, THREE, ONE, K, IN, OUT, N, LENGTH, SHIFT, ZP, LO, HI)                              \
    TN_LAYER void NAME(const int8_t *in, int8_t *out, const int8_t *weights, const int16_t *schedule,                  \
                       int32_t pixels) {                                                                               \
        (void)schedule;                                                                                                \
        for (int32_t tile = 0; tile < ((N) + 3) / 4; ++tile, weights += 64 + ((K) + 15) / 16 * 64) {                   \
            const int32_t first = 4 * tile + 4 <= (N) || (N) < 4 ? 4 * tile : (N) - 4;                                 \
            for (int32_t pixel = 0; pixel < pixels; ++pixel)                                                           \
                for (int c = 0; c < 4 && c < (N); ++c) {                                                               \
                    int32_t acc = tn_load32(weights + 4 * c);                                                          \
                    for (int k = 0; k < (K); ++k)                                                                      \
                        acc += in[pixel * (IN) + k] * weights[64 + (k / 16 * 4 + c) * 16 + k % 16];                    \
                    out[pixel * (OUT) + first + c] =                                                                   \
                        tn_requantize(acc, SHIFT, tn_load32(weights + 16 + 4 * c), ZP, LO, HI);                        \
                }                                                                                                      \
        }                                                                                                              \
    }
#endif

/* The same for few inputs, a block of N channels: see narrow_assembly.py. */
#if TN_NEON
#define TN_DEF_NEON_NARROW(NAME, FUNCTION, K, IN, OUT, N, SHIFT, ZP, LO, HI)                                           \
    tn_tile_t FUNCTION;                                                                                                \
    TN_LAYER void NAME(const int8_t *in, int8_t *out, const int8_t *parameters, const int8_t *ends, int32_t pixels) {  \
        FUNCTION(in, parameters + 8 * (N), out, IN, OUT, parameters, pixels, ends);                                    \
    }
#else
#define TN_DEF_NEON_NARROW(NAME, FUNCTION, K, IN, OUT, N, SHIFT, ZP, LO, HI)                                           \
    TN_LAYER void NAME(const int8_t *in, int8_t *out, const int8_t *parameters, const int8_t *ends, int32_t pixels) {  \
        (void)ends;                                                                                                    \
        for (int32_t pixel = 0; pixel < pixels; ++pixel)                                                               \
            for (int c = 0; c < (N); ++c) {                                                                            \
                const int8_t *of = parameters + c / 16 * 128 + c % 16 * 4;                                             \
                int32_t acc = tn_load32(of);                                                                           \
                for (int k = 0; k < (K); ++k)                                                                          \
                    acc += in[pixel * (IN) + k] * parameters[8 * (N) + k * (N) + c];                                   \
                out[pixel * (OUT) + c] = tn_requantize(acc, SHIFT, tn_load32(of + 64), ZP, LO, HI);                    \
            }                                                                                                          \
    }
#endif

/* Depthwise 3x3, or KxK, B channels a block: see depthwise_assembly.py, large_depthwise_assembly.py. KERNELS are the
 * functions that `parts` counts; rows of the input from `first` on, of which those outside `height` are the padding's.
 */
#define TN_DEF_NEON_DEPTHWISE(NAME, KERNELS, B, ...) TN_NEON_DEPTHWISE(NAME, B, 3, __VA_ARGS__, KERNELS)
#define TN_DEF_NEON_DEPTHWISE_LARGE(NAME, KERNELS, B, K, ...) TN_NEON_DEPTHWISE(NAME, B, K, __VA_ARGS__, KERNELS)
#define TN_DEPTHWISE_BYTES(B, K) (((K) * (K) + 11) * (B) + 16)
#if TN_NEON
#define TN_NEON_DEPTHWISE(NAME, B, K, S, LEFT, W, C, WIDTH, HEIGHT, OUT, SHIFT, ZP, LO, HI, ...)                       \
    TN_LAYER void NAME(const int8_t *in, int8_t *out, const int8_t *parameters, const int8_t *parts,                   \
                       const int8_t *padding, int32_t first, int32_t height, int32_t count) {                          \
        static tn_depthwise_t *const kernels[] = __VA_ARGS__;                                                          \
        const int8_t *rows[(HEIGHT) * (S) + (K)];                                                                      \
        for (int32_t row = 0; row < count * (S) + (K) - (S); ++row)                                                    \
            rows[row] = first + row < 0 || first + row >= height ? padding : in + (first + row) * ((W) * (C));         \
        for (int32_t block = 0; block < ((C) + (B) - 1) / (B); ++block, parameters += TN_DEPTHWISE_BYTES(B, K)) {      \
            const int32_t channel = (B) * block + (B) <= (C) || (C) < (B) ? (B) * block : (C) - (B);                   \
            kernels[parts[block]](rows, out + channel, C, WIDTH, count, parameters, channel, OUT);                     \
        }                                                                                                              \
    }
#else
#define TN_NEON_DEPTHWISE(NAME, B, K, S, LEFT, W, C, WIDTH, HEIGHT, OUT, SHIFT, ZP, LO, HI, ...)                       \
    TN_LAYER void NAME(const int8_t *in, int8_t *out, const int8_t *parameters, const int8_t *parts,                   \
                       const int8_t *padding, int32_t first, int32_t height, int32_t count) {                          \
        (void)parts;                                                                                                   \
        for (int32_t block = 0; block < ((C) + (B) - 1) / (B); ++block, parameters += TN_DEPTHWISE_BYTES(B, K)) {      \
            const int32_t channel = (B) * block + (B) <= (C) || (C) < (B) ? (B) * block : (C) - (B);                   \
            for (int32_t pixel = 0; pixel < count * (WIDTH); ++pixel)                                                  \
                for (int c = 0; c < (B) && c < (C); ++c) {                                                             \
                    int32_t acc = tn_load32(parameters + ((K) * (K) + 7) * (B) + 16 + 4 * c);                          \
                    for (int tap = 0; tap < (K) * (K); ++tap) {                                                        \
                        const int32_t y = first + pixel / (WIDTH) * (S) + tap / (K);                                   \
                        const int32_t x = pixel % (WIDTH) * (S) - (LEFT) + tap % (K);                                  \
                        const int8_t *row = y < 0 || y >= height ? padding : in + y * ((W) * (C));                     \
                        acc +=                                                                                         \
                            parameters[tap * (B) + c] * (x < 0 || x >= (W) ? padding[0] : row[x * (C) + channel + c]); \
                    }                                                                                                  \
                    out[pixel * (OUT) + channel + c] =                                                                 \
                        tn_requantize(acc, SHIFT, tn_load32(parameters + (K) * (K) * (B) + 4 * c), ZP, LO, HI);        \
                }                                                                                                      \
        }                                                                                                              \
    }
#endif

/* A row of the image's patches, KH x KW x C values a pixel, STRIDE bytes from one to the next. Inside the image whole
 * vectors are copied: what they bring too much is written over by what follows, or stands behind the last. */
#define TN_DEF_NEON_IM2COL(NAME, H, W, C, KH, KW, SY, SX, TOP, LEFT, WIDTH, STRIDE, ZP)                                \
    TN_INLINE void NAME##_edge(const int8_t *in, int8_t *to, int32_t y, int32_t x) {                                   \
        for (int32_t tap = 0; tap < (KH) * (KW); ++tap) {                                                              \
            const int32_t row = y + tap / (KW), column = x + tap % (KW);                                               \
            const int inside = row >= 0 && row < (H) && column >= 0 && column < (W);                                   \
            for (int32_t c = 0; c < (C); ++c)                                                                          \
                to[tap * (C) + c] = inside ? in[(row * (W) + column) * (C) + c] : (ZP);                                \
        }                                                                                                              \
    }                                                                                                                  \
    TN_LAYER void NAME(const int8_t *in, int8_t *act, int32_t row) {                                                   \
        const int32_t y = row * (SY) - (TOP), begin = ((LEFT) + (SX) - 1) / (SX);                                      \
        const int32_t fit = (W) + (LEFT) < (KW) ? 0 : ((W) + (LEFT) - (KW)) / (SX) + 1;                                \
        const int32_t end = y < 0 || y + (KH) > (H) ? 0 : fit < (WIDTH) ? fit : (WIDTH);                               \
        int32_t pixel = 0;                                                                                             \
        for (; pixel < (WIDTH) && (pixel < begin || pixel >= end); ++pixel)                                            \
            NAME##_edge(in, act + pixel * (STRIDE), y, pixel * (SX) - (LEFT));                                         \
        const int8_t *from = in + (y * (W) + pixel * (SX) - (LEFT)) * (C);                                             \
        for (; pixel < end; ++pixel, from += (SX) * (C))                                                               \
            _Pragma("GCC unroll 8") for (int32_t tap = 0; tap < (KH); ++tap) memcpy(                                   \
                act + pixel * (STRIDE) + tap * (KW) * (C), from + tap * (W) * (C), ((KW) * (C) + 15) / 16 * 16);       \
        for (; pixel < (WIDTH); ++pixel)                                                                               \
            NAME##_edge(in, act + pixel * (STRIDE), y, pixel * (SX) - (LEFT));                                         \
    }

/* clamp((a * MA + b * MB + ADDED) >> SHIFT): a residual add. In place allowed. */
#define TN_DEF_NEON_ADD(NAME, MA, MB, ADDED, SHIFT, LO, HI)                                                            \
    TN_LAYER void NAME(int8_t *out, const int8_t *a, const int8_t *b, int32_t count) {                                 \
        int32_t i = 0;                                                                                                 \
        TN_NEON_ADD16(MA, MB, ADDED, SHIFT, LO, HI)                                                                    \
        for (; i < count; ++i) {                                                                                       \
            const int32_t value = (a[i] * (MA) + b[i] * (MB) + (ADDED)) >> (SHIFT);                                    \
            out[i] = (int8_t)(value<(LO) ? (LO) : value>(HI) ? (HI) : value);                                          \
        }                                                                                                              \
    }
#if TN_NEON
/* Four sums in int32, shifted and narrowed: what saturates the clamp would change anyway. */
TN_INLINE int16x4_t tn_add4(int16x4_t a, int16x4_t b, int16_t ma, int16_t mb, int32_t added, const int shift) {
    const int32x4_t sum = vmlal_n_s16(vmlal_n_s16(vdupq_n_s32(added), a, ma), b, mb);
    return vqmovn_s32(vshlq_s32(sum, vdupq_n_s32(-shift)));
}
#define TN_NEON_ADD16(MA, MB, ADDED, SHIFT, LO, HI)                                                                    \
    for (; i + 16 <= count; i += 16) {                                                                                 \
        const int8x16_t x = vld1q_s8(a + i), y = vld1q_s8(b + i);                                                      \
        const int16x8_t x0 = vmovl_s8(vget_low_s8(x)), x1 = vmovl_s8(vget_high_s8(x));                                 \
        const int16x8_t y0 = vmovl_s8(vget_low_s8(y)), y1 = vmovl_s8(vget_high_s8(y));                                 \
        const int16x8_t low = vcombine_s16(tn_add4(vget_low_s16(x0), vget_low_s16(y0), MA, MB, ADDED, SHIFT),          \
                                           tn_add4(vget_high_s16(x0), vget_high_s16(y0), MA, MB, ADDED, SHIFT));       \
        const int16x8_t high = vcombine_s16(tn_add4(vget_low_s16(x1), vget_low_s16(y1), MA, MB, ADDED, SHIFT),         \
                                            tn_add4(vget_high_s16(x1), vget_high_s16(y1), MA, MB, ADDED, SHIFT));      \
        const int8x16_t sum = vcombine_s8(vqmovn_s16(low), vqmovn_s16(high));                                          \
        vst1q_s8(out + i, vminq_s8(vmaxq_s8(sum, vdupq_n_s8(LO)), vdupq_n_s8(HI)));                                    \
    }
#else
#define TN_NEON_ADD16(MA, MB, ADDED, SHIFT, LO, HI)
#endif

/* The mean of all PIXELS pixels of C channels. */
#define TN_DEF_NEON_AVERAGE(NAME, PIXELS, C, BIAS, MULTIPLIER, SHIFT, ZP, LO, HI)                                      \
    TN_LAYER void NAME(const int8_t *in, int8_t *out) {                                                                \
        for (int32_t first = 0; first < (C); first += 64) {                                                            \
            const int32_t channels = (C) - first < 64 ? (C) - first : 64;                                              \
            int32_t sums[64] = {0};                                                                                    \
            for (int32_t pixel = 0; pixel < (PIXELS); ++pixel)                                                         \
                for (int32_t c = 0; c < channels; ++c)                                                                 \
                    sums[c] += in[pixel * (C) + first + c];                                                            \
            for (int32_t c = 0; c < channels; ++c)                                                                     \
                out[first + c] = tn_requantize(sums[c] + (BIAS), SHIFT, MULTIPLIER, ZP, LO, HI);                       \
        }                                                                                                              \
    }

#endif
