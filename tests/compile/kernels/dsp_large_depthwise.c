/* Runs 5x5 and 7x7 depthwise kernels on random planes and prints their outputs: the same with and without TN_PORTABLE.
 */
#include "thumbnet_dsp.h"

#define OUT 25000
#include "random_output.h"

#define CHANNELS 3
#define HEIGHT 13
#define IN 8000
static int8_t params[CHANNELS * 57 + 4];
static int16_t in16[IN] __attribute__((aligned(4)));
static int8_t in8[IN] __attribute__((aligned(4)));
static int16_t plane[2000] __attribute__((aligned(4)));

static void prepare(int taps) {
    for (int i = 0; i < IN; ++i)
        in16[i] = in8[i] = draw8();
    clear_output();
    for (int c = 0; c < CHANNELS; ++c) {
        int8_t *at = params + (taps + 8) * c;
        int32_t bias = (int32_t)draw() >> 16, factor = (int32_t)(draw() >> 10 | 1);
        for (int t = 0; t < taps; ++t)
            at[t] = draw8();
        memcpy(at + taps, &bias, 4);
        memcpy(at + taps + 4, &factor, 4);
    }
}

/* Elements of a row under W pixels, even. */
#define PITCH(K, S, W) (((S) * ((W) - 1) + (K) + 1) / 2 * 2)
#define KERNELS(K, S, W, PACKED, OSTEP, SH, ZO)                                                                        \
    TN_DEF_DW_LARGE(planar16_##K##_##S##_##W##_##PACKED, K, S, W, PACKED, 2 * PITCH(K, S, W),                          \
                    2 * PITCH(K, S, W) * HEIGHT, OSTEP, 4, 8, ZO, SH)                                                  \
    TN_DEF_DW_LARGE_P8(planar8_##K##_##S##_##W##_##PACKED, K, S, W, PACKED, PITCH(K, S, W), PITCH(K, S, W),            \
                       PITCH(K, S, W) * HEIGHT, OSTEP, 4, 8, ZO, SH)                                                   \
    TN_DEF_DW_LARGE_P8(by_rows_##K##_##S##_##W##_##PACKED, K, S, W, PACKED, PITCH(K, S, W), CHANNELS *PITCH(K, S, W),  \
                       PITCH(K, S, W), OSTEP, 4, 8, ZO, SH)                                                            \
    static void test_##K##_##S##_##W##_##PACKED(void) {                                                                \
        const int8_t *end = params + CHANNELS * ((K) * (K) + 8);                                                       \
        const int rows = (S) == 1 ? 5 : 3;                                                                             \
        prepare((K) * (K));                                                                                            \
        planar16_##K##_##S##_##W##_##PACKED(params, in16, out, end, rows);                                             \
        print("planar16, " #K " x " #K ", stride " #S ", " #W " x " #PACKED);                                          \
        prepare((K) * (K));                                                                                            \
        planar8_##K##_##S##_##W##_##PACKED(params, in8, out, end, rows, plane);                                        \
        print("planar8, " #K " x " #K ", stride " #S ", " #W " x " #PACKED);                                           \
        prepare((K) * (K));                                                                                            \
        by_rows_##K##_##S##_##W##_##PACKED(params, in8, out, end, rows, plane);                                        \
        print("planar8 by rows, " #K " x " #K ", stride " #S ", " #W " x " #PACKED);                                   \
    }
#define CASE(W, PACKED, OSTEP, SH, ZO)                                                                                 \
    KERNELS(5, 1, W, PACKED, OSTEP, SH, ZO)                                                                            \
    KERNELS(5, 2, W, PACKED, OSTEP, SH, ZO)                                                                            \
    KERNELS(7, 1, W, PACKED, OSTEP, SH, ZO)                                                                            \
    KERNELS(7, 2, W, PACKED, OSTEP, SH, ZO)
#define TEST(W, PACKED)                                                                                                \
    test_5_1_##W##_##PACKED();                                                                                         \
    test_5_2_##W##_##PACKED();                                                                                         \
    test_7_1_##W##_##PACKED();                                                                                         \
    test_7_2_##W##_##PACKED();

CASE(1, 0, 32, 0, 3)
CASE(1, 1, 32, 0, -128)
CASE(2, 0, 32, 1, 5)
CASE(3, 0, 32, 0, -7)
CASE(3, 1, 48, 0, 127)
CASE(4, 0, 32, 0, 0)
CASE(5, 1, 32, 0, -1)
CASE(7, 0, 4112, 0, -1)
CASE(8, 0, 32, 0, -128)
CASE(10, 0, 32, 2, -128)
CASE(21, 0, 32, 0, 9)
CASE(28, 0, 64, 0, 20)

int main(void) {
    TEST(1, 0)
    TEST(1, 1)
    TEST(2, 0)
    TEST(3, 0)
    TEST(3, 1)
    TEST(4, 0)
    TEST(5, 1)
    TEST(7, 0)
    TEST(8, 0)
    TEST(10, 0)
    TEST(21, 0)
    TEST(28, 0)
    return 0;
}
