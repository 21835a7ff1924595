/* What brings pixels into pairs for the pointwise kernels of thumbnet_dsp.h, in assembly. Included by thumbnet_dsp.h
 * with thumbnet_dsp_widening.h, whose widening of bytes it uses.
 */
#ifndef TN_KERNELS_PIXELS_H
#define TN_KERNELS_PIXELS_H

/* clang-format off */

/* Eight int8 of two pixels, in r6, r10 and r7, r11, to pair16 in r4-r11. */
#define TN_WIDEN_PIXELS                                                                                 \
    "sxtb16 r4, r6\n sxtb16 r6, r6, ror #8\n"                                                           \
    "sxtb16 r5, r7\n sxtb16 r7, r7, ror #8\n"                                                           \
    "sxtb16 r8, r10\n sxtb16 r10, r10, ror #8\n"                                                        \
    "sxtb16 r9, r11\n sxtb16 r11, r11, ror #8\n"

/* ------------------------------------------------------------------------------------------------------------------
 * First convolution 3x3x3 stride 2: 27 taps of one pixel pair into pair16(28), 52 instructions for the pair. in: int8
 * NHWC at the first tap of the first pixel, ROW bytes a row. Slots: tap rows of (b0 b2 b1 b3 b4 b6 b5 b7), then b8 of
 * the three rows and a slot of any value (zero weight). Up to 1 byte beyond the last tap is read. */
#define TN_DEF_IM2COL3(NAME, ROWB)                                                                      \
    TN_EXTERN void NAME(const int8_t *in, int16_t *out, int32_t pairs);                                 \
    TN_FN(NAME,                                                                                         \
    TN_LET("ROWB", ROWB)                                                                                \
    "push {r4-r11, lr}\n"                                                                               \
    "add lr, r2, r2, lsl #1\n"                                                                          \
    "add lr, r0, lr, lsl #2\n"                                                                          \
    "push {lr}\n"                            /* in + 12 * pairs: its end */                             \
    "mov lr, r1\n"                                                                                      \
    "1:\n"                                                                                              \
    ".set .Lk_at, 0\n"                                                                                  \
    ".rept 3\n"                                                                                         \
    "  ldr r6, [r0, #.Lk_at]\n"                                                                         \
    "  ldr r7, [r0, #.Lk_at+6]\n"                                                                       \
    "  ldr r10, [r0, #.Lk_at+4]\n"                                                                      \
    "  ldr r11, [r0, #.Lk_at+10]\n"                                                                     \
       TN_WIDEN_PIXELS                                                                                  \
    "  stm lr!, {r4-r11}\n"                                                                             \
    "  .set .Lk_at, .Lk_at+.Lk_ROWB\n"                                                                  \
    ".endr\n"                                                                                           \
    "ldrsb r4, [r0, #8]\n"                   /* b8 of the rows: r4, r8, r6 of pixel 0, r5, r9, r7 of pixel 1 */ \
    "ldrsb r6, [r0, #2*.Lk_ROWB+8]\n"                                                                   \
    "ldrsb r5, [r0, #14]\n"                                                                             \
    "ldrsb r7, [r0, #2*.Lk_ROWB+14]\n"                                                                  \
    "ldrsb r8, [r0, #.Lk_ROWB+8]\n"                                                                     \
    "ldrsb r9, [r0, #.Lk_ROWB+14]\n"                                                                    \
    "pkhbt r4, r4, r8, lsl #16\n"                                                                       \
    "pkhbt r5, r5, r9, lsl #16\n"                                                                       \
    "stm lr!, {r4-r7}\n"                                                                                \
    "ldr r4, [sp]\n"                                                                                    \
    "adds r0, r0, #12\n"                                                                                \
    "cmp r0, r4\n"                                                                                      \
    "bne 1b\n"                                                                                          \
    "pop {r3, r4-r11, pc}\n")

/* int8 NHWC (K channels a pixel, K a multiple of 8, 4-byte aligned) to pair16(K): slots 0 2 1 3 of each four channels,
 * so packed weights in natural byte order agree. 11 instructions for 16 values. */
#define TN_DEF_TO_PAIR16(NAME, K)                                                                       \
    TN_EXTERN void NAME(const int8_t *in, int16_t *out, int32_t pairs);                                 \
    TN_FN(NAME,                                                                                         \
    TN_LET("K", K)                                                                                      \
    "push {r4-r11, lr}\n"                                                                               \
    "mov lr, r1\n"                                                                                      \
    "movw r1, #.Lk_K\n"                                                                                 \
    "1:\n"                                                                                              \
    "add r3, r0, r1\n"                       /* the second pixel, and the end of the first */           \
    "mov r12, r3\n"                                                                                     \
    ".set .Lk_turn, 8 + 24*!(.Lk_K%32)\n"       /* channels unrolled */                                 \
    "2:\n"                                                                                              \
    ".rept .Lk_turn/8\n"                                                                                \
    "  ldrd r6, r10, [r0], #8\n"                                                                        \
    "  ldrd r7, r11, [r3], #8\n"                                                                        \
       TN_WIDEN_PIXELS                                                                                  \
    "  stm lr!, {r4-r11}\n"                                                                             \
    ".endr\n"                                                                                           \
    ".if .Lk_K > .Lk_turn\n"                                                                            \
    "  cmp r0, r12\n"                                                                                   \
    "  bne 2b\n"                                                                                        \
    ".endif\n"                                                                                          \
    "mov r0, r3\n"                                                                                      \
    "subs r2, r2, #1\n"                                                                                 \
    "bne 1b\n"                                                                                          \
    "pop {r4-r11, pc}\n")
/* int8 NHWC with 8 channels to wide(8), two pixels a turn: 10 instructions for 16 values. */
#define TN_DEF_TO_WIDE8(NAME)                                                                           \
    TN_EXTERN void NAME(const int8_t *in, int16_t *out, int32_t pairs);                                 \
    TN_FN(NAME,                                                                                         \
    "push {r4-r11, lr}\n"                                                                               \
    "1:\n"                                                                                              \
    "ldm r0!, {r5, r7, r9, r11}\n"                                                                      \
    TN_WIDEN_4_11                                                                                       \
    "stm r1!, {r4-r11}\n"                                                                               \
    "subs r2, r2, #1\n"                                                                                 \
    "bne 1b\n"                                                                                          \
    "pop {r4-r11, pc}\n")

/* clang-format on */
#endif
