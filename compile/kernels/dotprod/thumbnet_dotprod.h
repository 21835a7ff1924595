/* thumbnet kernels, int8 networks on Armv8.2-A with dot product (Cortex-A55, A76): what multiplies pixels by weights.
 * All else is thumbnet_neon.h's, which says how both are built.
 */
#ifndef TN_DOTPROD_H
#define TN_DOTPROD_H
#include "thumbnet_neon.h"

/* Pixels by TILES tiles of N output channels: see assembly.py. K inputs a pixel, IN and OUT bytes from one pixel to the
 * next. */
#if TN_NEON && defined(__ARM_FEATURE_DOTPROD)
#define TN_DOTPROD_FN TN_NEON_FN
#define TN_DEF_DOTPROD_POINTWISE(NAME, FOUR, TWO, ONE, K, IN, OUT, N, TILES, SHIFT, ZP, LO, HI)                        \
    tn_tile_t FOUR, TWO, ONE;                                                                                          \
    TN_LAYER void NAME(const int8_t *in, int8_t *out, const int8_t *weights, const void *more, int32_t pixels) {       \
        (void)more;                                                                                                    \
        const void *const steps = (const void *)(intptr_t)(((K) + 3) / 4 / 16);                                        \
        for (int32_t tile = 0; tile < (TILES);                                                                         \
             ++tile, out += (N), weights += 8 * (N) + 48 + ((K) + 3) / 4 * 4 * (N)) {                                  \
            const int8_t *const matrix = weights + 8 * (N) + 48, *from = in;                                           \
            int8_t *to = out;                                                                                          \
            const int32_t fours = pixels / 4;                                                                          \
            if (fours) {                                                                                               \
                FOUR(from, matrix, to, IN, OUT, weights, fours, steps);                                                \
                from += fours * 4 * (IN), to += fours * 4 * (OUT);                                                     \
            }                                                                                                          \
            if (pixels & 2) {                                                                                          \
                TWO(from, matrix, to, IN, OUT, weights, 1, steps);                                                     \
                from += 2 * (IN), to += 2 * (OUT);                                                                     \
            }                                                                                                          \
            if (pixels & 1)                                                                                            \
                ONE(from, matrix, to, IN, OUT, weights, 1, steps);                                                     \
        }                                                                                                              \
    }
#else
#define TN_DOTPROD_FN(NAME, BODY)
#define TN_DEF_DOTPROD_POINTWISE(NAME, FOUR, TWO, ONE, K, IN, OUT, N, TILES, SHIFT, ZP, LO, HI)                        \
    TN_LAYER void NAME(const int8_t *in, int8_t *out, const int8_t *weights, const void *more, int32_t pixels) {       \
        (void)more;                                                                                                    \
        for (int32_t tile = 0; tile < (TILES); ++tile, out += (N), weights += 8 * (N) + 48 + ((K) + 3) / 4 * 4 * (N))  \
            for (int32_t pixel = 0; pixel < pixels; ++pixel)                                                           \
                for (int c = 0; c < (N); ++c) {                                                                        \
                    int32_t acc = tn_load32(weights + 4 * c);                                                          \
                    for (int k = 0; k < (K); ++k)                                                                      \
                        acc += in[pixel * (IN) + k] * weights[8 * (N) + 48 + (k / 4 * (N) + c) * 4 + k % 4];           \
                    out[pixel * (OUT) + c] =                                                                           \
                        tn_requantize(acc, SHIFT, tn_load32(weights + 4 * (N) + 4 * c), ZP, LO, HI);                   \
                }                                                                                                      \
    }
#endif

#endif
