/* thumbnet kernels, float32 networks on Armv8-A, and a portable form that gives the same bits on any processor.
 *
 * Activations are float, rows x columns x channels. As in thumbnet_neon.h a network defines the assembly functions it
 * needs with TN_NEON_FN, and with TN_DEF_F32_* the functions that walk over its layers with them. Sums of products are
 * rounded once a product in both forms, in one order.
 */
#ifndef TN_NEON_F32_H
#define TN_NEON_F32_H
#include <math.h>

#include "thumbnet_neon.h"

/* Zeros get the sign that FMAX and FMIN give them. */
TN_INLINE float tn_f32_clamp(float value, float lowest, float highest) {
    value = value <= lowest ? lowest : value;
    return value >= highest ? highest : value;
}

/* Tiles of output channels, TILES of CHANNELS each from FIRST on: see tile_assembly.py. */
#if TN_NEON
typedef void tn_f32_tile_t(const float *pixels, const float *weights, float *out, long pixel_bytes, long out_bytes,
                           const float *parameters, long tiles, long steps);
typedef struct {
    tn_f32_tile_t *eight, *four, *two, *one;
    int32_t first, channels, tiles;
} tn_f32_group_t;
#define TN_F32_STEP 64 /* inputs of a turn of their loops */
#define TN_F32_TILE(NAME) tn_f32_tile_t NAME;
#define TN_F32_PACK                                                                                                    \
    void pack_f32(const float *pixels, float *packed, long pixel_bytes, long blocks, long eights, long four);
#define TN_F32_GROUP(EIGHT, FOUR, TWO, ONE, FIRST, CHANNELS, TILES) {EIGHT, FOUR, TWO, ONE, FIRST, CHANNELS, TILES}
#else
typedef struct {
    int32_t first, channels, tiles;
} tn_f32_group_t;
#define TN_F32_TILE(NAME)
#define TN_F32_PACK
#define TN_F32_GROUP(EIGHT, FOUR, TWO, ONE, FIRST, CHANNELS, TILES) {FIRST, CHANNELS, TILES}
#endif

/* Pixels by output channels: K inputs a pixel, IN and OUT floats from one pixel to the next. */
#if TN_NEON
#define TN_DEF_F32_POINTWISE(NAME, GROUPS, K, IN, OUT)                                                                 \
    TN_LAYER void NAME(const float *in, float *out, const float *weights, float *packed, int32_t pixels) {             \
        static const tn_f32_group_t groups[] = GROUPS;                                                                 \
        const int32_t eights = pixels / 8, rest = pixels % 8;                                                          \
        const float *record = weights;                                                                                 \
        if (eights)                                                                                                    \
            pack_f32(in, packed, 4 * (IN), eights, ((K) + 3) / 8, ((K) + 3) / 4 % 2);                                  \
        for (uint32_t group = 0; group < sizeof groups / sizeof *groups; ++group) {                                    \
            const tn_f32_group_t g = groups[group];                                                                    \
            for (int32_t tile = 0; tile < g.tiles; ++tile) {                                                           \
                const float *matrix = record + g.channels + 8, *from = in + eights * 8 * (IN);                         \
                float *to = out + g.first + tile * g.channels;                                                         \
                if (eights)                                                                                            \
                    g.eight(packed, matrix, to, 0, 4 * (OUT), record, eights, (K) / TN_F32_STEP);                      \
                to += eights * 8 * (OUT);                                                                              \
                if (rest & 4) {                                                                                        \
                    g.four(from, matrix, to, 4 * (IN), 4 * (OUT), record, 1, (K) / TN_F32_STEP);                       \
                    from += 4 * (IN), to += 4 * (OUT);                                                                 \
                }                                                                                                      \
                if (rest & 2) {                                                                                        \
                    g.two(from, matrix, to, 4 * (IN), 4 * (OUT), record, 1, (K) / TN_F32_STEP);                        \
                    from += 2 * (IN), to += 2 * (OUT);                                                                 \
                }                                                                                                      \
                if (rest & 1)                                                                                          \
                    g.one(from, matrix, to, 4 * (IN), 4 * (OUT), record, 1, (K) / TN_F32_STEP);                        \
                record = matrix + (K) * g.channels;                                                                    \
            }                                                                                                          \
        }                                                                                                              \
    }
#else
#define TN_DEF_F32_POINTWISE(NAME, GROUPS, K, IN, OUT)                                                                 \
    TN_LAYER void NAME(const float *in, float *out, const float *weights, float *packed, int32_t pixels) {             \
        static const tn_f32_group_t groups[] = GROUPS;                                                                 \
        const float *record = weights;                                                                                 \
        (void)packed;                                                                                                  \
        for (uint32_t group = 0; group < sizeof groups / sizeof *groups; ++group) {                                    \
            const tn_f32_group_t g = groups[group];                                                                    \
            for (int32_t tile = 0; tile < g.tiles; ++tile, record += ((K) + 1) * g.channels + 8)                       \
                for (int32_t pixel = 0; pixel < pixels; ++pixel)                                                       \
                    for (int32_t c = 0; c < g.channels && c < (OUT); ++c) {                                            \
                        float sum = record[c];                                                                         \
                        for (int32_t k = 0; k < (K); ++k)                                                              \
                            sum = fmaf(in[pixel * (IN) + k], record[(k + 1) * g.channels + 8 + c], sum);               \
                        out[pixel * (OUT) + g.first + tile * g.channels + c] =                                         \
                            tn_f32_clamp(sum, record[g.channels], record[g.channels + 4]);                             \
                    }                                                                                                  \
        }                                                                                                              \
    }
#endif

/* The same for any number of pixels, CHUNK of them packed at a time: eights of pixels are shared among threads, each of
 * which packs its own to their place, PACKED floats a pixel. */
typedef struct {
    const float *in, *weights;
    float *out, *packed;
    int32_t pixels;
} tn_f32_pixels_t;
#define TN_DEF_F32_SHARED_PIXELS(NAME, KERNEL, IN, OUT, PACKED, CHUNK, GRAIN)                                          \
    static void NAME##_part(const void *arguments, int32_t first, int32_t end) {                                       \
        const tn_f32_pixels_t *of = arguments;                                                                         \
        const int32_t from = 8 * first, to = 8 * end < of->pixels ? 8 * end : of->pixels;                              \
        KERNEL(of->in + from * (IN), of->out + from * (OUT), of->weights, of->packed + from * (PACKED), to - from);    \
    }                                                                                                                  \
    TN_LAYER void NAME(const float *in, float *out, const float *weights, float *packed, int32_t pixels) {             \
        for (; pixels > 0; pixels -= (CHUNK), in += (CHUNK) * (IN), out += (CHUNK) * (OUT)) {                          \
            const tn_f32_pixels_t arguments = {in, weights, out, packed, pixels < (CHUNK) ? pixels : (CHUNK)};         \
            tn_share(NAME##_part, &arguments, (arguments.pixels + 7) / 8, GRAIN);                                      \
        }                                                                                                              \
    }

/* Rows of a depthwise layer, 3x3 or KxK, with stride S: see depthwise_assembly.py, large_depthwise_assembly.py. W x C
 * inputs and WIDTH outputs a row, LEFT columns before the first; `first` may lie before the rows there are, and the
 * last ones behind them. */
#if TN_NEON
typedef void tn_f32_depthwise_t(const float *const *rows, float *out, long pixel_bytes, long width, long count,
                                const float *parameters, long channel, long out_bytes);
#define TN_F32_DEPTHWISE(NAME) tn_f32_depthwise_t NAME;
#define TN_DEF_F32_DEPTHWISE_LARGE(NAME, KERNEL, K, S, LEFT, W, C, WIDTH, HEIGHT, OUT)                                 \
    TN_LAYER void NAME(const float *in, float *out, const float *parameters, const float *padding, int32_t first,      \
                       int32_t height, int32_t count) {                                                                \
        const float *rows[(HEIGHT) * (S) + (K)];                                                                       \
        for (int32_t row = 0; row < count * (S) + (K) - (S); ++row)                                                    \
            rows[row] = first + row < 0 || first + row >= height ? padding : in + (first + row) * ((W) * (C));         \
        for (int32_t block = 0; block < ((C) + 3) / 4; ++block, parameters += 4 * (K) * (K) + 16) {                    \
            const int32_t channel = 4 * block + 4 <= (C) || (C) < 4 ? 4 * block : (C) - 4;                             \
            KERNEL(rows, out + channel, 4 * (C), WIDTH, count, parameters, 4 * channel, 4 * (OUT));                    \
        }                                                                                                              \
    }
#else
#define TN_F32_DEPTHWISE(NAME)
#define TN_DEF_F32_DEPTHWISE_LARGE(NAME, KERNEL, K, S, LEFT, W, C, WIDTH, HEIGHT, OUT)                                 \
    TN_LAYER void NAME(const float *in, float *out, const float *parameters, const float *padding, int32_t first,      \
                       int32_t height, int32_t count) {                                                                \
        for (int32_t block = 0; block < ((C) + 3) / 4; ++block, parameters += 4 * (K) * (K) + 16) {                    \
            const int32_t channel = 4 * block + 4 <= (C) || (C) < 4 ? 4 * block : (C) - 4;                             \
            for (int32_t pixel = 0; pixel < count * (WIDTH); ++pixel)                                                  \
                for (int32_t c = 0; c < 4 && c < (C); ++c) {                                                           \
                    float sum = parameters[4 * (K) * (K) + 8 + c];                                                     \
                    for (int32_t tap = 0; tap < (K) * (K); ++tap) {                                                    \
                        const int32_t tap_row = (K) == 3 ? tap % 3 : tap / (K),                                        \
                                      column = (K) == 3 ? tap / 3 : tap % (K);                                         \
                        const int32_t y = first + pixel / (WIDTH) * (S) + tap_row;                                     \
                        const int32_t x = pixel % (WIDTH) * (S) - (LEFT) + column;                                     \
                        const float *row = y < 0 || y >= height ? padding : in + y * ((W) * (C));                      \
                        if (x >= 0 && x < (W))                                                                         \
                            sum = fmaf(row[x * (C) + channel + c], parameters[(tap_row * (K) + column) * 4 + c], sum); \
                    }                                                                                                  \
                    out[pixel * (OUT) + channel + c] =                                                                 \
                        tn_f32_clamp(sum, parameters[4 * (K) * (K)], parameters[4 * (K) * (K) + 4]);                   \
                }                                                                                                      \
        }                                                                                                              \
    }
#endif
#define TN_DEF_F32_DEPTHWISE(NAME, KERNEL, ...) TN_DEF_F32_DEPTHWISE_LARGE(NAME, KERNEL, 3, __VA_ARGS__)

/* A depthwise function that shares its output rows, each of ROW floats. */
typedef struct {
    const float *in, *parameters, *padding;
    float *out;
    int32_t first, height;
} tn_f32_rows_t;
#define TN_DEF_F32_SHARED_ROWS(NAME, KERNEL, S, ROW, GRAIN)                                                            \
    static void NAME##_part(const void *arguments, int32_t first, int32_t end) {                                       \
        const tn_f32_rows_t *of = arguments;                                                                           \
        KERNEL(of->in, of->out + first * (ROW), of->parameters, of->padding, of->first + first * (S), of->height,      \
               end - first);                                                                                           \
    }                                                                                                                  \
    TN_LAYER void NAME(const float *in, float *out, const float *parameters, const float *padding, int32_t first,      \
                       int32_t height, int32_t count) {                                                                \
        const tn_f32_rows_t arguments = {in, parameters, padding, out, first, height};                                 \
        tn_share(NAME##_part, &arguments, count, GRAIN);                                                               \
    }

/* Copies vectors, four by one load and one store. */
TN_INLINE void tn_f32_copy(float *to, const float *from, const int vectors) {
#if TN_NEON
    int i = 0;
    for (; i + 4 <= vectors; i += 4)
        vst1q_f32_x4(to + 4 * i, vld1q_f32_x4(from + 4 * i));
    if (vectors - i == 3)
        vst1q_f32_x3(to + 4 * i, vld1q_f32_x3(from + 4 * i));
    if (vectors - i == 2)
        vst1q_f32_x2(to + 4 * i, vld1q_f32_x2(from + 4 * i));
    if (vectors - i == 1)
        vst1q_f32(to + 4 * i, vld1q_f32(from + 4 * i));
#else
    memcpy(to, from, (size_t)vectors * 16);
#endif
}

/* A row of the image's patches, KH x KW x C values a pixel, STRIDE floats from one to the next. Inside the image whole
 * vectors are copied: what they bring too much is written over by what follows, or stands behind the last. */
#define TN_DEF_F32_IM2COL(NAME, H, W, C, KH, KW, SY, SX, TOP, LEFT, WIDTH, STRIDE)                                     \
    TN_INLINE void NAME##_edge(const float *in, float *to, int32_t y, int32_t x) {                                     \
        for (int32_t tap = 0; tap < (KH) * (KW); ++tap) {                                                              \
            const int32_t row = y + tap / (KW), column = x + tap % (KW);                                               \
            const int inside = row >= 0 && row < (H) && column >= 0 && column < (W);                                   \
            for (int32_t c = 0; c < (C); ++c)                                                                          \
                to[tap * (C) + c] = inside ? in[(row * (W) + column) * (C) + c] : 0;                                   \
        }                                                                                                              \
    }                                                                                                                  \
    TN_LAYER void NAME(const float *in, float *act, int32_t row) {                                                     \
        const int32_t y = row * (SY) - (TOP), begin = ((LEFT) + (SX) - 1) / (SX);                                      \
        const int32_t fit = (W) + (LEFT) < (KW) ? 0 : ((W) + (LEFT) - (KW)) / (SX) + 1;                                \
        const int32_t end = y < 0 || y + (KH) > (H) ? 0 : fit < (WIDTH) ? fit : (WIDTH);                               \
        int32_t pixel = 0;                                                                                             \
        for (; pixel < (WIDTH) && (pixel < begin || pixel >= end); ++pixel)                                            \
            NAME##_edge(in, act + pixel * (STRIDE), y, pixel * (SX) - (LEFT));                                         \
        const float *from = in + (y * (W) + pixel * (SX) - (LEFT)) * (C);                                              \
        for (; pixel < end; ++pixel, from += (SX) * (C))                                                               \
            _Pragma("GCC unroll 8") for (int32_t tap = 0; tap < (KH); ++tap)                                           \
                tn_f32_copy(act + pixel * (STRIDE) + tap * (KW) * (C), from + tap * (W) * (C), ((KW) * (C) + 3) / 4);  \
        for (; pixel < (WIDTH); ++pixel)                                                                               \
            NAME##_edge(in, act + pixel * (STRIDE), y, pixel * (SX) - (LEFT));                                         \
    }

/* clamp(a + b): a residual add. In place allowed. */
#define TN_DEF_F32_ADD(NAME, LO, HI)                                                                                   \
    TN_LAYER void NAME(float *out, const float *a, const float *b, int32_t count) {                                    \
        int32_t i = 0;                                                                                                 \
        TN_F32_ADD16(LO, HI)                                                                                           \
        for (; i < count; ++i)                                                                                         \
            out[i] = tn_f32_clamp(a[i] + b[i], LO, HI);                                                                \
    }
#if TN_NEON
#define TN_F32_ADD16(LO, HI)                                                                                           \
    for (; i + 16 <= count; i += 16) {                                                                                 \
        const float32x4x4_t x = vld1q_f32_x4(a + i), y = vld1q_f32_x4(b + i);                                          \
        float32x4x4_t sum;                                                                                             \
        for (int part = 0; part < 4; ++part) {                                                                         \
            sum.val[part] = vaddq_f32(x.val[part], y.val[part]);                                                       \
            if ((LO) != -INFINITY)                                                                                     \
                sum.val[part] = vmaxq_f32(sum.val[part], vdupq_n_f32(LO));                                             \
            if ((HI) != INFINITY)                                                                                      \
                sum.val[part] = vminq_f32(sum.val[part], vdupq_n_f32(HI));                                             \
        }                                                                                                              \
        vst1q_f32_x4(out + i, sum);                                                                                    \
    }
#else
#define TN_F32_ADD16(LO, HI)
#endif

/* The mean of all PIXELS pixels of C channels. */
#define TN_DEF_F32_AVERAGE(NAME, PIXELS, C, LO, HI)                                                                    \
    TN_LAYER void NAME(const float *in, float *out) {                                                                  \
        for (int32_t first = 0; first < (C); first += 16) {                                                            \
            const int32_t channels = (C) - first < 16 ? (C) - first : 16;                                              \
            float sums[16] = {0};                                                                                      \
            for (int32_t pixel = 0; pixel < (PIXELS); ++pixel)                                                         \
                for (int32_t c = 0; c < channels; ++c)                                                                 \
                    sums[c] += in[pixel * (C) + first + c];                                                            \
            for (int32_t c = 0; c < channels; ++c)                                                                     \
                out[first + c] = tn_f32_clamp(sums[c] / (PIXELS), LO, HI);                                             \
        }                                                                                                              \
    }

#endif
