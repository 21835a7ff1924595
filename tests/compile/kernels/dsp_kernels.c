/* Runs depthwise kernels on random planes and prints their outputs: the same with and without TN_PORTABLE. */
#include "thumbnet_dsp.h"

#define OUT 8000
#include "random_output.h"

#define CHANNELS 3
#define HEIGHT 5
#define IN 8000
static int8_t params[CHANNELS * 17 + 1];
static int16_t in16[IN] __attribute__((aligned(4)));
static int8_t in8[IN] __attribute__((aligned(4)));

static void prepare(void) {
    for (int i = 0; i < IN; ++i)
        in16[i] = in8[i] = draw8();
    clear_output();
    for (int c = 0; c < CHANNELS; ++c) {
        int32_t bias = (int32_t)draw() >> 16, factor = (int32_t)(draw() >> 8 | 1);
        for (int t = 0; t < 9; ++t)
            params[17 * c + t] = draw8();
        memcpy(params + 17 * c + 9, &bias, 4);
        memcpy(params + 17 * c + 13, &factor, 4);
    }
}

/* W pixels in planes of HEIGHT rows, for the four kernels. */
#define CASE(W, U, SH, ZO)                                                                                             \
    TN_DEF_DW3X3S1(s1_##W##_##U, W, U, 2 * (W) + 8 - 2 * (W) % 4, (2 * (W) + 8 - 2 * (W) % 4) * HEIGHT, 32, 8, 16, ZO, \
                   SH)                                                                                                 \
    TN_DEF_DW3X3S2(s2_##W##_##U, W, U, 4 * (W) + 8, (4 * (W) + 8) * HEIGHT, 32, 8, 16, ZO, SH)                         \
    TN_DEF_DW3X3S1_P8(p1_##W##_##U, W, U, (W) + 4, ((W) + 4) * HEIGHT, 32, 8, 16, ZO, SH)                              \
    TN_DEF_DW3X3S2_P8(p2_##W##_##U, W, U, 2 * (W) + 4, (2 * (W) + 4) * HEIGHT, 32, 8, 16, ZO, SH)                      \
    static void test_##W##_##U(void) {                                                                                 \
        const int8_t *end = params + 17 * CHANNELS;                                                                    \
        prepare();                                                                                                     \
        s1_##W##_##U(params, in16, out, end, 3 * (2 * (W) + 8 - 2 * (W) % 4));                                         \
        print("stride 1, planar16, " #W " x " #U);                                                                     \
        prepare();                                                                                                     \
        s2_##W##_##U(params, in16, out, end, (U) % 3 ? 4 * (4 * (W) + 8) : 6 * (4 * (W) + 8));                         \
        print("stride 2, planar16, " #W " x " #U);                                                                     \
        prepare();                                                                                                     \
        p1_##W##_##U(params, in8, out, end, 3 * ((W) + 4));                                                            \
        print("stride 1, planar8, " #W " x " #U);                                                                      \
        prepare();                                                                                                     \
        p2_##W##_##U(params, in8, out, end, (U) % 3 ? 4 * (2 * (W) + 4) : 6 * (2 * (W) + 4));                          \
        print("stride 2, planar8, " #W " x " #U);                                                                      \
    }

CASE(1, 1, 0, 3)
CASE(2, 1, 0, -128)
CASE(3, 1, 1, 5)
CASE(3, 3, 0, -7)
CASE(7, 1, 0, 127)
CASE(12, 1, 0, 0)
CASE(20, 1, 0, -1)
CASE(24, 1, 0, -128)
CASE(25, 1, 0, -128)
CASE(26, 1, 2, -128)
CASE(28, 1, 0, 9)
CASE(48, 1, 0, -128)
CASE(56, 1, 0, -128)
CASE(80, 1, 0, 20)

/* Planes and outputs so far apart that no instruction has room for the distance. */
TN_DEF_DW3X3S1(far_apart, 16, 1, 40, 5000, 768, 8, 16, 4, 0)
static void test_far_apart(void) {
    prepare();
    far_apart(params, in16, out, params + 17 * CHANNELS, 2 * 40);
    print("far apart");
}

int main(void) {
    test_1_1();
    test_2_1();
    test_3_1();
    test_3_3();
    test_7_1();
    test_12_1();
    test_20_1();
    test_24_1();
    test_25_1();
    test_26_1();
    test_28_1();
    test_48_1();
    test_56_1();
    test_80_1();
    test_far_apart();
    return 0;
}
