/* thumbnet kernels, int8 networks on 32-bit Arm with Advanced SIMD (Armv7-A: Cortex-A7): what multiplies pixels by
 * weights, and which functions are the processor's. All else is thumbnet_neon.h's, which says how both are built.
 */
#ifndef TN_NEON32_H
#define TN_NEON32_H

#if defined(__arm__) && defined(__ARM_NEON) && __ARM_ARCH >= 7 && !defined(TN_PORTABLE)
#define TN_NEON 1
#else
#define TN_NEON 0
#endif
#include "thumbnet_neon.h"

/* Pixels by BLOCKS blocks of W output channels, the last one LAST behind the first: see lanes_assembly.py. K inputs a
 * pixel, IN and OUT bytes from one pixel to the next, LENGTH entries of a block's schedule. */
#define TN_NEON32_BLOCK_BYTES(K, W) ((W) * (8 + ((K) + 1) / 2 * 2) + 48)
#if TN_NEON
typedef void tn_lanes_t(const int8_t *pixels, const int8_t *block, int8_t *out, long pixel_bytes, long out_bytes,
                        const int16_t *schedule, long count);
#define TN_DEF_NEON32_LANES(NAME, FUNCTION, K, IN, OUT, W, BLOCKS, LAST, LENGTH, SHIFT, ZP, LO, HI)                    \
    tn_lanes_t FUNCTION;                                                                                               \
    TN_LAYER void NAME(const int8_t *in, int8_t *out, const int8_t *weights, const int16_t *schedule,                  \
                       int32_t pixels) {                                                                               \
        for (int32_t block = 0; block < (BLOCKS); ++block) {                                                           \
            FUNCTION(in, weights, out + (block + 1 < (BLOCKS) ? block * (W) : (LAST)), IN, OUT, schedule, pixels);     \
            weights += TN_NEON32_BLOCK_BYTES(K, W);                                                                    \
            schedule += (LENGTH);                                                                                      \
        }                                                                                                              \
    }
#else
#define TN_DEF_NEON32_LANES(NAME, FUNCTION, K, IN, OUT, W, BLOCKS, LAST, LENGTH, SHIFT, ZP, LO, HI)                    \
    TN_LAYER void NAME(const int8_t *in, int8_t *out, const int8_t *weights, const int16_t *schedule,                  \
                       int32_t pixels) {                                                                               \
        (void)schedule;                                                                                                \
        for (int32_t block = 0; block < (BLOCKS); ++block, weights += TN_NEON32_BLOCK_BYTES(K, W)) {                   \
            int8_t *to = out + (block + 1 < (BLOCKS) ? block * (W) : (LAST));                                          \
            const int8_t *const multipliers = weights + (W) * (4 + ((K) + 1) / 2 * 2);                                 \
            for (int32_t pixel = 0; pixel < pixels; ++pixel)                                                           \
                for (int c = 0; c < (W) && c < (OUT); ++c) {                                                           \
                    int32_t acc = tn_load32(weights + 4 * c);                                                          \
                    for (int k = 0; k < (K); ++k)                                                                      \
                        acc += in[pixel * (IN) + k] * weights[4 * (W) + (k / 2 * (W) + c) * 2 + k % 2];                \
                    to[pixel * (OUT) + c] = tn_requantize(acc, SHIFT, tn_load32(multipliers + 4 * c), ZP, LO, HI);     \
                }                                                                                                      \
        }                                                                                                              \
    }
#endif

#endif
