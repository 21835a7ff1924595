/* Runs pointwise kernels and the widening of their weights on random values and prints their outputs: the same with and
 * without TN_PORTABLE. */
#include "thumbnet_dsp.h"

#define OUT 256
#include "random_output.h"

#define MOST_K 1028
#define PAIRS 3
#define ROWS 2
static int32_t flash[8 + MOST_K], stream[14 + 2 * MOST_K];
static int16_t act[ROWS * PAIRS * 2 * MOST_K] __attribute__((aligned(4)));

static void prepare(void) {
    for (int i = 0; i < 8 + MOST_K; ++i)
        flash[i] = (int32_t)(draw() ^ draw() >> 16);
    for (int i = 0; i < ROWS * PAIRS * 2 * MOST_K; ++i)
        act[i] = draw8();
    clear_output();
}

/* Biases and multipliers of `channels` channels whose results nearly all lie in int8, and all in int16. */
static void set_scales(int32_t *bias, int32_t *factor, int channels, int shift) {
    for (int c = 0; c < channels; ++c) {
        bias[c] = (int32_t)draw() >> 16;
        factor[c] = (int32_t)(draw() >> (9 + shift)) | 1;
    }
}

TN_DEF_WIDEN4(widen4)
TN_DEF_WIDEN32(widen32)

#define CASE(K, SH)                                                                                                    \
    TN_DEF_PW2X4_PLANAR(fits4_##K##_##SH, K, SH, FITS)                                                                 \
    TN_DEF_PW2X4_PLANAR(any4_##K##_##SH, K, SH, ANY)                                                                   \
    TN_DEF_PW2X4_PLANAR8(bytes4_##K##_##SH, K, SH)                                                                     \
    TN_DEF_PW2X4_NHWC(pixels4_##K##_##SH, K, SH)                                                                       \
    TN_DEF_WIDEN(widen2_##K##_##SH, K)                                                                                 \
    TN_DEF_PW2X2_PLANAR(fits2_##K##_##SH, K, SH, FITS)                                                                 \
    TN_DEF_PW2X2_PLANAR(any2_##K##_##SH, K, SH, ANY)                                                                   \
    TN_DEF_PW2X2_PLANAR8(bytes2_##K##_##SH, K, SH)                                                                     \
    TN_DEF_PW2X2_NHWC(pixels2_##K##_##SH, K, SH)                                                                       \
    TN_DEF_PW1X2_NHWC(pixel2_##K##_##SH, K, SH)                                                                        \
    static void test_##K##_##SH(void) {                                                                                \
        const int16_t *row_end = act + PAIRS * 2 * (K), *end = act + ROWS * PAIRS * 2 * (K);                           \
        int8_t *bytes = (int8_t *)out;                                                                                 \
        prepare();                                                                                                     \
        set_scales(flash, flash + 4 + (K), 4, SH);                                                                     \
        widen4(stream, flash, 5, 40, K);                                                                               \
        fits4_##K##_##SH(act, out, row_end, stream, ROWS, 4);                                                          \
        print("four, planar16, in range, " #K ", " #SH);                                                               \
        any4_##K##_##SH(act, out + 1, row_end, stream, ROWS, 4);                                                       \
        print("four, planar16, " #K ", " #SH);                                                                         \
        widen4(stream, flash, -128, 19, K);                                                                            \
        bytes4_##K##_##SH(act, bytes + 3, row_end, stream, ROWS, 1);                                                   \
        print("four, planar8, " #K ", " #SH);                                                                          \
        widen4(stream, flash, 100, 7, K);                                                                              \
        pixels4_##K##_##SH(act, bytes + 1, end, stream);                                                               \
        print("four, pixels, " #K ", " #SH);                                                                           \
        prepare();                                                                                                     \
        set_scales(flash, flash + 2, 2, SH);                                                                           \
        (void)widen2_##K##_##SH(stream, flash, 5, 40);                                                                 \
        fits2_##K##_##SH(act, out, row_end, stream, ROWS, 4);                                                          \
        print("pair, planar16, in range, " #K ", " #SH);                                                               \
        if ((K) % 32 == 0)                                                                                             \
            widen32(stream, flash, 5, 40, K);                                                                          \
        any2_##K##_##SH(act, out + 1, row_end, stream, ROWS, 4);                                                       \
        print("pair, planar16, " #K ", " #SH);                                                                         \
        (void)widen2_##K##_##SH(stream, flash, -128, 19);                                                              \
        bytes2_##K##_##SH(act, bytes + 3, row_end, stream, ROWS, 1);                                                   \
        print("pair, planar8, " #K ", " #SH);                                                                          \
        (void)widen2_##K##_##SH(stream, flash, 9, 7);                                                                  \
        pixels2_##K##_##SH(act, bytes + 1, end, stream);                                                               \
        print("pair, pixels, " #K ", " #SH);                                                                           \
        pixel2_##K##_##SH(act, bytes + 200, act + 4 * (K), stream);                                                    \
        print("pair, one pixel, " #K ", " #SH);                                                                        \
    }
/* Whole turns, and what is left over by them: none, before and after a turn's half. */
#define CASES(DO)                                                                                                      \
    DO(4, 0)                                                                                                           \
    DO(8, 1)                                                                                                           \
    DO(16, 0)                                                                                                          \
    DO(20, 0)                                                                                                          \
    DO(28, 2)                                                                                                          \
    DO(32, 0)                                                                                                          \
    DO(44, 0)                                                                                                          \
    DO(60, 0)                                                                                                          \
    DO(64, 1)                                                                                                          \
    DO(76, 0)                                                                                                          \
    DO(92, 0)                                                                                                          \
    DO(108, 0)                                                                                                         \
    DO(124, 0)                                                                                                         \
    DO(128, 0)                                                                                                         \
    DO(332, 0)                                                                                                         \
    DO(1028, 0)
CASES(CASE)
#define RUN(K, SH) test_##K##_##SH();

/* One channel of eight inputs, `ROWS` rows of PIXELS pixels; `PPL` of them a turn. */
#define CASE8(PPL, PIXELS)                                                                                             \
    TN_DEF_PW_K8(fits8_##PIXELS, PPL, 16 * (PIXELS), 4, TN_K8_PLANAR_FITS)                                             \
    TN_DEF_PW_K8(any8_##PIXELS, PPL, 16 * (PIXELS), 4, TN_K8_PLANAR_ANY)                                               \
    TN_DEF_PW_K8(bytes8_##PIXELS, PPL, 16 * (PIXELS), 3, TN_K8_PLANAR8)                                                \
    static void test8_##PIXELS(void) {                                                                                 \
        const int16_t *row_end = act + 8 * (PIXELS);                                                                   \
        int32_t params[7];                                                                                             \
        prepare();                                                                                                     \
        for (int i = 0; i < 4; ++i)                                                                                    \
            params[i] = (int32_t)((uint32_t)(uint16_t)draw8() << 16 | (uint16_t)draw8());                              \
        set_scales(params + 4, params + 5, 1, -2);                                                                     \
        params[6] = 5;                                                                                                 \
        fits8_##PIXELS(act, out, row_end, params, ROWS);                                                               \
        print("eight, planar16, in range, " #PIXELS);                                                                  \
        params[6] = 40000;                                                                                             \
        any8_##PIXELS(act, out + 2, row_end, params, 1);                                                               \
        params[6] = -100;                                                                                              \
        any8_##PIXELS(act, out + 60, row_end, params, ROWS);                                                           \
        print("eight, planar16, " #PIXELS);                                                                            \
        bytes8_##PIXELS(act, (int8_t *)out + 1, row_end, params, ROWS);                                                \
        print("eight, planar8, " #PIXELS);                                                                             \
    }
#define CASES8(DO)                                                                                                     \
    DO(2, 2)                                                                                                           \
    DO(4, 4)                                                                                                           \
    DO(6, 18)                                                                                                          \
    DO(16, 32)
CASES8(CASE8)
#define RUN8(PPL, PIXELS) test8_##PIXELS();

int main(void) {
    CASES(RUN)
    CASES8(RUN8)
    return 0;
}
