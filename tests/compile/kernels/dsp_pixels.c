/* Runs what brings pixels into pairs on random ones and prints the outputs: the same with and without TN_PORTABLE. */
#include "thumbnet_dsp.h"

#define OUT 1200
#include "random_output.h"

#define PAIRS 5
#define IN 1600
static int8_t in[IN] __attribute__((aligned(4)));

static void prepare(void) {
    for (int i = 0; i < IN; ++i)
        in[i] = draw8();
    clear_output();
}

#define IM2COL3(ROW_BYTES)                                                                                             \
    TN_DEF_IM2COL3(im2col3_##ROW_BYTES, ROW_BYTES)                                                                     \
    static void test3_##ROW_BYTES(void) {                                                                              \
        prepare();                                                                                                     \
        im2col3_##ROW_BYTES(in, out, PAIRS);                                                                           \
        /* The last slot of each pixel has any value. */                                                               \
        for (int i = 0; i < PAIRS; ++i)                                                                                \
            out[56 * i + 53] = out[56 * i + 55] = 0;                                                                   \
        print("3x3x3, " #ROW_BYTES);                                                                                   \
    }
#define TO_PAIR16(K)                                                                                                   \
    TN_DEF_TO_PAIR16(to_pair16_##K, K)                                                                                 \
    static void test_##K(void) {                                                                                       \
        prepare();                                                                                                     \
        to_pair16_##K(in, out, PAIRS);                                                                                 \
        print("pairs, " #K);                                                                                           \
    }
IM2COL3(66)
IM2COL3(288)
TO_PAIR16(8)
TO_PAIR16(16)
TO_PAIR16(32)
TO_PAIR16(40)
TO_PAIR16(96)
TN_DEF_TO_WIDE8(to_wide8)

int main(void) {
    test3_66();
    test3_288();
    test_8();
    test_16();
    test_32();
    test_40();
    test_96();
    prepare();
    to_wide8(in, out, PAIRS);
    print("eight channels");
    return 0;
}
