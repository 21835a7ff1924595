/* thumbnet kernels, int8 networks on Armv8.2-A with dot product (Cortex-A55, A76): convolutions. All else is
 * thumbnet_neon.h's, which says how both are built.
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

/* Depthwise 3x3: see depthwise_assembly.py. As TN_DEF_NEON_DEPTHWISE, of which B is 16; `parts` is not asked. */
#define TN_SDOT_DEPTHWISE_BYTES 384
#if TN_NEON && defined(__ARM_FEATURE_DOTPROD)
#define TN_DEF_DOTPROD_DEPTHWISE(NAME, KERNELS, B, S, LEFT, W, C, WIDTH, HEIGHT, OUT, SHIFT, ZP, LO, HI)               \
    TN_LAYER void NAME(const int8_t *in, int8_t *out, const int8_t *parameters, const int8_t *parts,                   \
                       const int8_t *padding, int32_t first, int32_t height, int32_t count) {                          \
        static tn_depthwise_t *const kernels[] = KERNELS;                                                              \
        const int8_t *rows[(HEIGHT) * (S) + 3];                                                                        \
        (void)parts;                                                                                                   \
        for (int32_t row = 0; row < count * (S) + 3 - (S); ++row)                                                      \
            rows[row] = first + row < 0 || first + row >= height ? padding : in + (first + row) * ((W) * (C));         \
        for (int32_t block = 0; block < ((C) + 15) / 16; ++block, parameters += TN_SDOT_DEPTHWISE_BYTES) {             \
            const int32_t channel = 16 * block + 16 <= (C) || (C) < 16 ? 16 * block : (C) - 16;                        \
            kernels[0](rows, out + channel, C, WIDTH, count, parameters, channel, OUT);                                \
        }                                                                                                              \
    }
#else
#define TN_DEF_DOTPROD_DEPTHWISE(NAME, KERNELS, B, S, LEFT, W, C, WIDTH, HEIGHT, OUT, SHIFT, ZP, LO, HI)               \
    TN_LAYER void NAME(const int8_t *in, int8_t *out, const int8_t *parameters, const int8_t *parts,                   \
                       const int8_t *padding, int32_t first, int32_t height, int32_t count) {                          \
        (void)parts;                                                                                                   \
        for (int32_t block = 0; block < ((C) + 15) / 16; ++block, parameters += TN_SDOT_DEPTHWISE_BYTES) {             \
            const int32_t channel = 16 * block + 16 <= (C) || (C) < 16 ? 16 * block : (C) - 16;                        \
            for (int32_t pixel = 0; pixel < count * (WIDTH); ++pixel)                                                  \
                for (int c = 0; c < 16 && c < (C); ++c) {                                                              \
                    int32_t acc = tn_load32(parameters + 4 * c);                                                       \
                    for (int tap = 0; tap < 9; ++tap) {                                                                \
                        const int32_t y = first + pixel / (WIDTH) * (S) + tap / 3;                                     \
                        const int32_t x = pixel % (WIDTH) * (S) - (LEFT) + tap % 3;                                    \
                        const int8_t *row = y < 0 || y >= height ? padding : in + y * ((W) * (C));                     \
                        acc += parameters[176 + tap % 3 * 64 + 4 * c + tap / 3] *                                      \
                               (x < 0 || x >= (W) ? padding[0] : row[x * (C) + channel + c]);                          \
                    }                                                                                                  \
                    out[pixel * (OUT) + channel + c] =                                                                 \
                        tn_requantize(acc, SHIFT, tn_load32(parameters + 64 + 4 * c), ZP, LO, HI);                     \
                }                                                                                                      \
        }                                                                                                              \
    }
#endif

#endif
