/* The portable form of thumbnet_mve.h: same functions, same bytes, on any core. */
#ifndef TN_MVE_PORTABLE_H
#define TN_MVE_PORTABLE_H
#include <stdint.h>
#include <string.h>

#define TN_PORT static TN_CODE __attribute__((noinline, unused))

static inline int8_t tn_mve_requantize(int32_t acc, int shift, int32_t multiplier, int32_t zero_point, int32_t lowest,
                                       int32_t highest) {
    int64_t shifted = (int32_t)((uint32_t)acc << shift);
    int32_t value = zero_point + (int32_t)((2 * shifted * multiplier + 0x80000000ll) >> 32);
    return (int8_t)(value < lowest ? lowest : value > highest ? highest : value);
}

#define TN_DEF_MVE_POINTWISE(NAME, K, STRIDE, OCH, OPIX, LAST, TAIL, ODD, SHIFT, ZP, LO, HI)                           \
    TN_PORT void NAME(const int8_t *act, int8_t *out, const int32_t *weights, int32_t pairs, int32_t rows,             \
                      int32_t gap, int32_t blocks) {                                                                   \
        for (int32_t block = 0; block < blocks; ++block) {                                                             \
            const int8_t *w = (const int8_t *)weights, *pixel = act;                                                   \
            const int32_t *end = weights + ((K) + 15) / 16 * 16;                                                       \
            const int32_t back = (TAIL) && block > 0 && block == blocks - 1 ? 4 - (TAIL) : 0;                          \
            int8_t *to = out + (4 * block - back) * (OCH);                                                             \
            for (int32_t row = 0; row < rows; ++row, to += gap)                                                        \
                for (int32_t x = 0; x < 2 * pairs + (ODD); ++x, pixel += (STRIDE), to += (OPIX))                       \
                    for (int c = 0; c <= (LAST); ++c) {                                                                \
                        int32_t acc = end[c];                                                                          \
                        for (int k = 0; k < (K); ++k)                                                                  \
                            acc += pixel[k] * w[(k / 16 * 4 + c) * 16 + k % 16];                                       \
                        to[c * (OCH)] = tn_mve_requantize(acc, SHIFT, end[4 + c], ZP, LO, HI);                         \
                    }                                                                                                  \
            weights = end + 8;                                                                                         \
        }                                                                                                              \
    }

#define TN_DEF_MVE_DEPTHWISE(NAME, S, WIDTH, ROWB, CHB, OSTRIDE, ROWSET, SHIFT, ZP, LO, HI)                            \
    TN_PORT void NAME(const int8_t *in, int8_t *out, const int32_t *params, int32_t channels, int32_t rows) {          \
        for (; channels > 0; --channels, params += 5, in += (CHB), ++out)                                              \
            for (int32_t p = 0; p < rows * (WIDTH); ++p) {                                                             \
                const int8_t *w = (const int8_t *)params;                                                              \
                const int8_t *corner = in + p / (WIDTH) * ((S) * (ROWB)) + p % (WIDTH) * (S);                          \
                int32_t acc = params[3];                                                                               \
                for (int t = 0; t < 9; ++t)                                                                            \
                    acc += w[t] * corner[t / 3 * (ROWB) + t % 3];                                                      \
                out[p * (OSTRIDE)] = tn_mve_requantize(acc, SHIFT, params[4], ZP, LO, HI);                             \
            }                                                                                                          \
    }

#define TN_DEF_MVE_DEPTHWISE_PATCHES(NAME, WIDTH, ROWB, CHB, OSTRIDE, SHIFT, ZP, LO, HI)                               \
    TN_PORT void NAME(const int8_t *in, int8_t *out, const int32_t *params, int32_t channels, int32_t rows) {          \
        for (; channels > 0; --channels, params += 5, in += (CHB), ++out)                                              \
            for (int32_t p = 0; p < rows * (WIDTH); ++p) {                                                             \
                const int8_t *w = (const int8_t *)params;                                                              \
                const int8_t *corner = in + p / (WIDTH) * (ROWB) + p % (WIDTH);                                        \
                int32_t acc = params[3];                                                                               \
                for (int t = 0; t < 9; ++t)                                                                            \
                    acc += w[t / 3 * 4 + t % 3] * corner[t % 3 * (ROWB) + t / 3];                                      \
                out[p * (OSTRIDE)] = tn_mve_requantize(acc, SHIFT, params[4], ZP, LO, HI);                             \
            }                                                                                                          \
    }

#define TN_DEF_MVE_DEPTHWISE_PAIRS(NAME, K, S, WIDTH, ROWB, CHB, OSTRIDE, SHIFT, ZP, LO, HI)                           \
    TN_PORT void NAME(const int8_t *in, int8_t *out, const int32_t *params, int32_t channels, int32_t rows) {          \
        const int32_t words = ((K) * ((K) + 1) + 3) / 4;                                                               \
        for (; channels > 0; --channels, params += words + 2, in += (CHB), ++out)                                      \
            for (int32_t p = 0; p < rows * (WIDTH); ++p) {                                                             \
                const int8_t *w = (const int8_t *)params;                                                              \
                const int8_t *corner = in + p / (WIDTH) * ((S) * (ROWB)) + p % (WIDTH) * (S);                          \
                int32_t acc = params[words];                                                                           \
                for (int t = 0; t < (K) * (K); ++t)                                                                    \
                    acc += w[(t / (K) / 2 * (K) + t % (K)) * 2 + t / (K) % 2] * corner[t / (K) * (ROWB) + t % (K)];    \
                out[p * (OSTRIDE)] = tn_mve_requantize(acc, SHIFT, params[words + 1], ZP, LO, HI);                     \
            }                                                                                                          \
    }

#define TN_DEF_MVE_ADD(NAME, MA, MB, CONSTANT, SHIFT, LO, HI)                                                          \
    TN_PORT void NAME(int8_t *out, const int8_t *a, const int8_t *b, int32_t values) {                                 \
        for (int32_t i = 0; i < values; ++i) {                                                                         \
            int32_t sum = (a[i] * (MA) + b[i] * (MB) + (CONSTANT)) >> (SHIFT);                                         \
            out[i] = (int8_t)(sum<(LO) ? (LO) : sum>(HI) ? (HI) : sum);                                                \
        }                                                                                                              \
    }

#define TN_DEF_MVE_AVERAGE(NAME, PIXELS, STRIDE, BIAS, MULTIPLIER, SHIFT, ZP, LO, HI)                                  \
    TN_PORT void NAME(const int8_t *in, int8_t *out, int32_t channels) {                                               \
        for (int32_t c = 0; c < channels; ++c) {                                                                       \
            int32_t acc = (BIAS);                                                                                      \
            for (int32_t p = 0; p < (PIXELS); ++p)                                                                     \
                acc += in[p * (STRIDE) + c];                                                                           \
            out[c] = tn_mve_requantize(acc, SHIFT, MULTIPLIER, ZP, LO, HI);                                            \
        }                                                                                                              \
    }

#define TN_DEF_MVE_CARRY(NAME)                                                                                         \
    TN_PORT void NAME(int8_t *window, int32_t distance, int32_t bytes, int32_t channels, int32_t channel_bytes) {      \
        for (; channels > 0; --channels, window += channel_bytes)                                                      \
            memmove(window, window + distance, (size_t)bytes);                                                         \
    }

#define TN_DEF_MVE_IM2COL(NAME, TAPS, ROWB, STEP, SLOTS)                                                               \
    TN_PORT void NAME(const int8_t *in, int8_t *act, int32_t pixels) {                                                 \
        for (; pixels > 0; --pixels, in += (STEP), act += (SLOTS))                                                     \
            for (int row = 0; row < 3; ++row)                                                                          \
                memcpy(act + row * (TAPS), in + row * (ROWB), TAPS);                                                   \
    }
#endif
