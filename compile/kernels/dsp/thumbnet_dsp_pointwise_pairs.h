/* Pointwise kernels of thumbnet_dsp.h in assembly for the channels left over by fours, 2 or 1 pixels x 2 output
 * channels, the smaller code. Included by thumbnet_dsp.h after thumbnet_dsp_pointwise.h, whose TN_PW_UNROLL bounds
 * their loops too. Kernels keep the Procedure Call Standard: arguments in r0-r3 and on the stack, r4-r11 preserved.
 */
#ifndef TN_KERNELS_POINTWISE_PAIRS_H
#define TN_KERNELS_POINTWISE_PAIRS_H

/* clang-format off */

/* Weight stream of a channel pair (int32 words): {b0, b1, b0, b1}, [K/2][2 channels][2] int16, {M0, M1, zo, CS}.
 * 16 + 10 * K/4 instructions for 4 outputs (two LDM and eight SMLAD for 16 MACs: the smallest code).
 *
 * Registers in the loop: r0-r3 accumulators (pixel 0 of channels 0, 1, then pixel 1), r4-r7 four slots of the two
 * pixels, r8-r11 four weights of the two channels, r12 act, lr stream. After it: r4, r5 = M0, M1, r6 = zo, r7 = CS,
 * r8 = out, r9 = act_end, lr = the stream's begin.
 * Stack: [sp] = out, act_end, stream, end of the weights, rows, bytes of a row of act, gap.
 */
/* Slots unrolled, .Lk_turn: the largest part of K up to TN_PW_UNROLL, more where that is a small one; 3 instructions a
 * turn. The end of the weights lies on the stack. */
#define TN_PW_TURN(MOST)                                                                                \
    ".set .Lk_at, 4\n"                                                                                  \
    ".rept 32\n"                                                                                        \
    "  .if .Lk_at <= " MOST " && (.Lk_K % .Lk_at) == 0\n"                                               \
    "    .set .Lk_turn, .Lk_at\n"                                                                       \
    "  .endif\n"                                                                                        \
    "  .set .Lk_at, .Lk_at+4\n"                                                                         \
    ".endr\n"
#define TN_PW_ENTER(K, SH)                                                                              \
    TN_LET("K", K)                                                                                      \
    TN_LET("SH", SH)                                                                                    \
    "push {r4-r11, lr}\n"                                                                               \
    "ldrd r5, r7, [sp, #36]\n"               /* rows, gap */                                            \
    "mov r12, r0\n"                                                                                     \
    "mov lr, r3\n"                                                                                      \
    ".if .Lk_K < 1020\n"                                                                                \
    "  add r4, r3, #(16+4*.Lk_K)\n"                                                                     \
    ".else\n"                                                                                           \
    "  movw r4, #(16+4*.Lk_K)\n"                                                                        \
    "  add r4, r4, r3\n"                                                                                \
    ".endif\n"                                                                                          \
    "sub r6, r2, r0\n"                                                                                  \
    "push {r1-r7}\n"                                                                                    \
    TN_PW_TURN(TN_STR(TN_PW_UNROLL))                                                                    \
    ".if .Lk_turn < 32 && .Lk_turn < .Lk_K\n"                                                           \
    TN_PW_TURN("128")                                                                                   \
    ".endif\n"
#define TN_PW_AGAIN                                                                                     \
    ".if .Lk_turn < .Lk_K\n"                                                                            \
    "  ldr r4, [sp, #12]\n"                                                                             \
    "  cmp lr, r4\n"                                                                                    \
    "  bne 3b\n"                                                                                        \
    ".endif\n"
#define TN_PW_MACS(K, SH)                                                                               \
    TN_PW_ENTER(K, SH)                                                                                  \
    "1:\n"                                                                                              \
    "ldm lr!, {r0-r3}\n"                                                                                \
    "3:\n"                                                                                              \
    ".rept .Lk_turn/4\n"                                                                                \
    "  ldm r12!, {r4-r7}\n"                                                                             \
    "  ldm lr!, {r8-r11}\n"                                                                             \
    "  smlad r0, r4, r8, r0\n"               /* two slots of each */                                    \
    "  smlad r1, r4, r9, r1\n"                                                                          \
    "  smlad r2, r5, r8, r2\n"                                                                          \
    "  smlad r3, r5, r9, r3\n"                                                                          \
    "  smlad r0, r6, r10, r0\n"              /* and the other two */                                    \
    "  smlad r1, r6, r11, r1\n"                                                                         \
    "  smlad r2, r7, r10, r2\n"                                                                         \
    "  smlad r3, r7, r11, r3\n"                                                                         \
    ".endr\n"                                                                                           \
    TN_PW_AGAIN                                                                                         \
    "ldm lr, {r4-r7}\n"                                                                                 \
    "ldm sp, {r8, r9, lr}\n"                                                                            \
    TN_SHL("r0") TN_SHL("r1") TN_SHL("r2") TN_SHL("r3")                                                 \
    "smmlar r0, r0, r4, r6\n"                                                                           \
    "smmlar r1, r1, r5, r6\n"                                                                           \
    "smmlar r2, r2, r4, r6\n"                                                                           \
    "smmlar r3, r3, r5, r6\n"
#define TN_PW_LEAVE                                                                                     \
    "add sp, sp, #28\n"                                                                                 \
    "pop {r4-r11, pc}\n"
#define TN_PW_TAIL                                                                                      \
    "str r8, [sp]\n"                                                                                    \
    "cmp r12, r9\n"                                                                                     \
    "bne 1b\n"                                                                                          \
    TN_PW_LEAVE
/* After a row (as long as act .. act_end): gap bytes skipped in out, then the next of `rows`. */
#define TN_PW_ROWS                                                                                      \
    "str r8, [sp]\n"                                                                                    \
    "cmp r12, r9\n"                                                                                     \
    "bne 1b\n"                                                                                          \
    "ldr r0, [sp, #16]\n"                                                                               \
    "ldrd r1, r2, [sp, #20]\n"                                                                          \
    "add r9, r9, r1\n"                                                                                  \
    "add r8, r8, r2\n"                                                                                  \
    "subs r0, r0, #1\n"                                                                                 \
    "strd r8, r9, [sp]\n"                                                                               \
    "str r0, [sp, #16]\n"                                                                               \
    "bne 1b\n"                                                                                          \
    TN_PW_LEAVE
#define TN_SAT4                                                                                         \
    "ssat r0, #8, r0\n"                                                                                 \
    "ssat r1, #8, r1\n"                                                                                 \
    "ssat r2, #8, r2\n"                                                                                 \
    "ssat r3, #8, r3\n"
/* Saturation of the pixel pair of each channel. FITS: every result is proven to lie in int16 before the clamp. */
#define TN_PACK_PIX                                                                                     \
    "pkhbt r0, r0, r2, lsl #16\n"                                                                       \
    "pkhbt r1, r1, r3, lsl #16\n"
#define TN_SAT_FITS                                                                                 \
    TN_PACK_PIX                                                                                         \
    "ssat16 r0, #8, r0\n"                                                                               \
    "ssat16 r1, #8, r1\n"
#define TN_SAT_ANY                                                                                  \
    TN_SAT4 TN_PACK_PIX

/* Output planar16: c0 at out, c1 CS bytes further; `rows` rows of an even number of pixels (act_end ends the first),
 * gap bytes of out skipped between rows. */
#define TN_DEF_PW2X2_PLANAR(NAME, K, SH, SAT)                                                           \
    TN_EXTERN void NAME(const int16_t *act, int16_t *out, const int16_t *act_end, const int32_t *stream, int32_t rows, \
              int32_t gap);                                                                             \
    TN_FN(NAME,                                                                                         \
    TN_PW_MACS(K, SH)                                                                                   \
    TN_SAT_##SAT                                                                                         \
    "str r1, [r8, r7]\n"                                                                                \
    "str r0, [r8], #4\n"                                                                                \
    TN_PW_ROWS)
/* Output planar8. */
#define TN_DEF_PW2X2_PLANAR8(NAME, K, SH)                                                               \
    TN_EXTERN void NAME(const int16_t *act, int8_t *out, const int16_t *act_end, const int32_t *stream, int32_t rows, \
              int32_t gap);                                                                             \
    TN_FN(NAME,                                                                                         \
    TN_PW_MACS(K, SH)                                                                                   \
    TN_SAT4                                                                                             \
    "add r7, r7, r8\n"                                                                                  \
    "strb r1, [r7]\n"                                                                                   \
    "strb r3, [r7, #1]\n"                                                                               \
    "strb r2, [r8, #1]\n"                                                                               \
    "strb r0, [r8], #2\n"                                                                               \
    TN_PW_ROWS)
/* Output int8 NHWC; CS is the number of channels. */
#define TN_DEF_PW2X2_NHWC(NAME, K, SH)                                                                  \
    TN_EXTERN void NAME(const int16_t *act, int8_t *out, const int16_t *act_end, const int32_t *stream); \
    TN_FN(NAME,                                                                                         \
    TN_PW_MACS(K, SH)                                                                                   \
    TN_SAT4                                                                                             \
    "add r10, r8, r7\n"                                                                                 \
    "strb r1, [r8, #1]\n"                                                                               \
    "strb r0, [r8]\n"                                                                                   \
    "strb r2, [r10]\n"                                                                                  \
    "strb r3, [r10, #1]\n"                                                                              \
    "add r8, r10, r7\n"                                                                                 \
    TN_PW_TAIL)

/* One pixel x 2 channels (the last of an odd row): act is a pair16 block whose second pixel is ignored. */
#define TN_PW_MACS1(K, SH)                                                                              \
    TN_PW_ENTER(K, SH)                                                                                  \
    ".if .Lk_K > 32 && !(.Lk_K % 32)\n"      /* run once a weight: small before fast */                 \
    "  .set .Lk_turn, 32\n"                                                                             \
    ".endif\n"                                                                                          \
    "ldm lr!, {r0-r3}\n"                                                                                \
    "3:\n"                                                                                              \
    ".rept .Lk_turn/4\n"                                                                                \
    "  ldm r12!, {r4-r7}\n"                                                                             \
    "  ldm lr!, {r8-r11}\n"                                                                             \
    "  smlad r0, r4, r8, r0\n"                                                                          \
    "  smlad r1, r4, r9, r1\n"                                                                          \
    "  smlad r0, r6, r10, r0\n"                                                                         \
    "  smlad r1, r6, r11, r1\n"                                                                         \
    ".endr\n"                                                                                           \
    TN_PW_AGAIN                                                                                         \
    "ldm lr, {r4-r7}\n"                                                                                 \
    "ldr r8, [sp]\n"                                                                                    \
    TN_SHL("r0") TN_SHL("r1")                                                                           \
    "smmlar r0, r0, r4, r6\n"                                                                           \
    "smmlar r1, r1, r5, r6\n"                                                                           \
    "ssat r0, #8, r0\n"                                                                                 \
    "ssat r1, #8, r1\n"
#define TN_DEF_PW1X2_NHWC(NAME, K, SH)                                                                  \
    TN_EXTERN void NAME(const int16_t *act, int8_t *out, const int16_t *act_end, const int32_t *stream); \
    TN_FN(NAME,                                                                                         \
    TN_PW_MACS1(K, SH)                                                                                  \
    "strb r1, [r8, #1]\n"                                                                               \
    "strb r0, [r8]\n"                                                                                   \
    TN_PW_LEAVE)

/* clang-format on */
#endif
