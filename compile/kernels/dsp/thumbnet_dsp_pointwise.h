/* Pointwise kernels of thumbnet_dsp.h in assembly: 2 pixels x 4 output channels, and K = 8. Included by thumbnet_dsp.h;
 * channels left over by fours are thumbnet_dsp_pointwise_pairs.h's.
 * Kernels keep the Procedure Call Standard: arguments in r0-r3 and on the stack, r4-r11 preserved.
 */
#ifndef TN_KERNELS_POINTWISE_H
#define TN_KERNELS_POINTWISE_H

/* clang-format off */

/* ------------------------------------------------------------------------------------------------------------------
 * Pointwise, 2 pixels x 4 output channels, K a multiple of 4.
 * Weight stream of four channels (int32 words): {b0, b0, b1, b1, b2, b2, b3, b3, CS}, [K/2][4 channels][2] int16,
 * {M0, M1, M2, M3, zo}: CS = bytes from one channel's output to the next's (N of pixels), so that one function serves
 * all shapes of one K. A step of two slots, 16 MACs, is six loads in two runs and eight SMLAD: 16 cycles of Cortex-M4,
 * on which a load right behind another takes one cycle, and an LDM of four takes five.
 *
 * Registers in the loop: r6-r12, lr accumulators (pixel 0 and 1 of channel 0, of channel 1 ...), r2, r3 two slots of the
 * two pixels, r4, r5 two weights of two channels, r0 act, r1 stream, both a word behind: a turn's last loads move them
 * on.
 * Stack: [sp] = out, CS, act_end, stream, end of the weights, rows, bytes of a row of act, gap.
 */
/* Steps of slots unrolled: .Lk_turn a turn and .Lk_rest before the first, both together at most TN_PW_UNROLL slots: a
 * block's code, whose size that is, should keep to 1 KB, the cache before the flash of STM32L4. */
#ifndef TN_PW_UNROLL
#define TN_PW_UNROLL 16
#endif
#define TN_PW4_TURN                                                                                     \
    ".set .Lk_steps, .Lk_K/2\n"                                                                         \
    ".set .Lk_turn, .Lk_steps\n"                                                                        \
    ".set .Lk_rest, 0\n"                                                                                \
    ".if .Lk_steps > " TN_STR(TN_PW_UNROLL) "/2\n"                                                      \
    "  .set .Lk_turn, 1\n"                                                                              \
    "  .set .Lk_at, " TN_STR(TN_PW_UNROLL) "/2\n"                                                       \
    "  .rept " TN_STR(TN_PW_UNROLL) "/2\n"                                                              \
    "    .if .Lk_turn == 1 && .Lk_at + .Lk_steps % .Lk_at <= " TN_STR(TN_PW_UNROLL) "/2\n"              \
    "      .set .Lk_turn, .Lk_at\n"                                                                     \
    "      .set .Lk_rest, .Lk_steps % .Lk_at\n"                                                         \
    "    .endif\n"                                                                                      \
    "    .set .Lk_at, .Lk_at-1\n"                                                                       \
    "  .endr\n"                                                                                         \
    ".endif\n"
/* Offsets up to 124 bytes are short instructions. */
#define TN_PW4_STEPS(COUNT)                                                                             \
    ".set .Lk_at, 0\n"                                                                                  \
    ".set .Lk_left, " COUNT "\n"                                                                        \
    ".rept " COUNT "\n"                                                                                 \
    "  .set .Lk_left, .Lk_left-1\n"                                                                     \
    "  ldr r4, [r1, #(16*.Lk_at+4)]\n"                                                                  \
    "  ldr r5, [r1, #(16*.Lk_at+8)]\n"                                                                  \
    "  ldr r2, [r0, #(8*.Lk_at+4)]\n"                                                                   \
    "  .if .Lk_at == 7 || .Lk_left == 0\n"                                                              \
    "    ldr r3, [r0, #(8*.Lk_at+8)]!\n"                                                                \
    "  .else\n"                                                                                         \
    "    ldr r3, [r0, #(8*.Lk_at+8)]\n"                                                                 \
    "  .endif\n"                                                                                        \
    "  smlad r6, r2, r4, r6\n"                                                                          \
    "  smlad r7, r3, r4, r7\n"                                                                          \
    "  smlad r8, r2, r5, r8\n"                                                                          \
    "  smlad r9, r3, r5, r9\n"                                                                          \
    "  ldr r4, [r1, #(16*.Lk_at+12)]\n"                                                                 \
    "  .if .Lk_at == 7 || .Lk_left == 0\n"                                                              \
    "    ldr r5, [r1, #(16*.Lk_at+16)]!\n"                                                              \
    "    .set .Lk_at, -1\n"                                                                             \
    "  .else\n"                                                                                         \
    "    ldr r5, [r1, #(16*.Lk_at+16)]\n"                                                               \
    "  .endif\n"                                                                                        \
    "  smlad r10, r2, r4, r10\n"                                                                        \
    "  smlad r11, r3, r4, r11\n"                                                                        \
    "  smlad r12, r2, r5, r12\n"                                                                        \
    "  smlad lr, r3, r5, lr\n"                                                                          \
    "  .set .Lk_at, .Lk_at+1\n"                                                                         \
    ".endr\n"
/* After it: r2 = out, r3 = CS, r4 = act_end. */
#define TN_PW4_MACS(K, SH, ROWS)                                                                        \
    TN_LET("K", K)                                                                                      \
    TN_LET("SH", SH)                                                                                    \
    TN_PW4_TURN                                                                                         \
    "push {r4-r11, lr}\n"                                                                               \
    ROWS                                                                                                \
    "sub r7, r2, r0\n"                                                                                  \
    "add r4, r3, #32\n"                                                                                 \
    "sub r3, r2, #4\n"                                                                                  \
    "ldr r2, [r4]\n"                                                                                    \
    ".if .Lk_K < 512\n"                                                                                 \
    "  add r5, r4, #(8*.Lk_K)\n"                                                                        \
    ".else\n"                                                                                           \
    "  movw r5, #(8*.Lk_K)\n"                                                                           \
    "  add r5, r5, r4\n"                                                                                \
    ".endif\n"                                                                                          \
    "subs r0, r0, #4\n"                                                                                 \
    "push {r1-r8}\n"                                                                                    \
    "1:\n"                                                                                              \
    "ldr r1, [sp, #12]\n"                                                                               \
    "ldmdb r1, {r6-r12, lr}\n"                                                                          \
    TN_PW4_STEPS(".Lk_rest")                                                                            \
    "3:\n"                                                                                              \
    TN_PW4_STEPS(".Lk_turn")                                                                            \
    ".if .Lk_turn < .Lk_steps\n"                                                                        \
    "  ldr r2, [sp, #16]\n"                                                                             \
    "  cmp r1, r2\n"                                                                                    \
    "  bne 3b\n"                                                                                        \
    ".endif\n"                                                                                          \
    "ldr r2, [r1, #4]\n"                                                                                \
    "ldr r3, [r1, #8]\n"                                                                                \
    "ldr r4, [r1, #12]\n"                                                                               \
    "ldr r5, [r1, #16]\n"                                                                               \
    "ldr r1, [r1, #20]\n"                                                                               \
    TN_SHL("r6") TN_SHL("r7") TN_SHL("r8") TN_SHL("r9")                                                 \
    TN_SHL("r10") TN_SHL("r11") TN_SHL("r12") TN_SHL("lr")                                              \
    "smmlar r6, r6, r2, r1\n"                                                                           \
    "smmlar r7, r7, r2, r1\n"                                                                           \
    "smmlar r8, r8, r3, r1\n"                                                                           \
    "smmlar r9, r9, r3, r1\n"                                                                           \
    "smmlar r10, r10, r4, r1\n"                                                                         \
    "smmlar r11, r11, r4, r1\n"                                                                         \
    "smmlar r12, r12, r5, r1\n"                                                                         \
    "smmlar lr, lr, r5, r1\n"                                                                           \
    "ldm sp, {r2-r4}\n"
#define TN_PW4_LEAVE                                                                                    \
    "add sp, sp, #32\n"                                                                                 \
    "pop {r4-r11, pc}\n"
#define TN_PW4_TAIL                                                                                     \
    "str r2, [sp]\n"                                                                                    \
    "cmp r0, r4\n"                                                                                      \
    "bne 1b\n"
/* After a row (as long as act .. act_end): gap bytes skipped in out, then the next of `rows`. */
#define TN_PW4_ROWS                                                                                     \
    TN_PW4_TAIL                                                                                         \
    "ldr r3, [sp, #20]\n"                                                                               \
    "ldr r5, [sp, #24]\n"                                                                               \
    "ldr r6, [sp, #28]\n"                                                                               \
    "add r4, r4, r5\n"                                                                                  \
    "add r2, r2, r6\n"                                                                                  \
    "subs r3, r3, #1\n"                                                                                 \
    "str r2, [sp]\n"                                                                                    \
    "str r4, [sp, #8]\n"                                                                                \
    "str r3, [sp, #20]\n"                                                                               \
    "bne 1b\n"                                                                                          \
    TN_PW4_LEAVE
#define TN_PW4_SAT8                                                                                     \
    "ssat r6, #8, r6\n"                                                                                 \
    "ssat r7, #8, r7\n"                                                                                 \
    "ssat r8, #8, r8\n"                                                                                 \
    "ssat r9, #8, r9\n"                                                                                 \
    "ssat r10, #8, r10\n"                                                                               \
    "ssat r11, #8, r11\n"                                                                               \
    "ssat r12, #8, r12\n"                                                                               \
    "ssat lr, #8, lr\n"
/* Saturation of the pixel pair of each channel. FITS: every result is proven to lie in int16 before the clamp. */
#define TN_PW4_PACK                                                                                     \
    "pkhbt r6, r6, r7, lsl #16\n"                                                                       \
    "pkhbt r8, r8, r9, lsl #16\n"                                                                       \
    "pkhbt r10, r10, r11, lsl #16\n"                                                                    \
    "pkhbt r12, r12, lr, lsl #16\n"
#define TN_PW4_SAT_FITS                                                                                 \
    TN_PW4_PACK                                                                                         \
    "ssat16 r6, #8, r6\n"                                                                               \
    "ssat16 r8, #8, r8\n"                                                                               \
    "ssat16 r10, #8, r10\n"                                                                             \
    "ssat16 r12, #8, r12\n"
#define TN_PW4_SAT_ANY                                                                                  \
    TN_PW4_SAT8 TN_PW4_PACK

/* Output planar16: channel c at out + c * CS; `rows` rows of an even number of pixels (act_end ends the first), gap
 * bytes of out skipped between rows. */
#define TN_DEF_PW2X4_PLANAR(NAME, K, SH, SAT)                                                           \
    TN_EXTERN void NAME(const int16_t *act, int16_t *out, const int16_t *act_end, const int32_t *stream, int32_t rows, \
              int32_t gap);                                                                             \
    TN_FN(NAME,                                                                                         \
    TN_PW4_MACS(K, SH, "ldrd r6, r8, [sp, #36]\n")                                                      \
    TN_PW4_SAT_##SAT                                                                                    \
    "add r5, r2, r3, lsl #1\n"                                                                          \
    "str r8, [r2, r3]\n"                                                                                \
    "str r12, [r5, r3]\n"                                                                               \
    "str r10, [r5]\n"                                                                                   \
    "str r6, [r2], #4\n"                                                                                \
    TN_PW4_ROWS)
/* Output planar8. */
#define TN_DEF_PW2X4_PLANAR8(NAME, K, SH)                                                               \
    TN_EXTERN void NAME(const int16_t *act, int8_t *out, const int16_t *act_end, const int32_t *stream, int32_t rows, \
              int32_t gap);                                                                             \
    TN_FN(NAME,                                                                                         \
    TN_PW4_MACS(K, SH, "ldrd r6, r8, [sp, #36]\n")                                                      \
    TN_PW4_SAT8                                                                                         \
    "add r5, r2, r3\n"                                                                                  \
    "add r1, r5, r3\n"                                                                                  \
    "add r3, r3, r1\n"                                                                                  \
    "strb r8, [r5]\n"                                                                                   \
    "strb r9, [r5, #1]\n"                                                                               \
    "strb r10, [r1]\n"                                                                                  \
    "strb r11, [r1, #1]\n"                                                                              \
    "strb r12, [r3]\n"                                                                                  \
    "strb lr, [r3, #1]\n"                                                                               \
    "strb r7, [r2, #1]\n"                                                                               \
    "strb r6, [r2], #2\n"                                                                               \
    TN_PW4_ROWS)
/* Output int8 NHWC; CS is the number of channels. */
#define TN_DEF_PW2X4_NHWC(NAME, K, SH)                                                                  \
    TN_EXTERN void NAME(const int16_t *act, int8_t *out, const int16_t *act_end, const int32_t *stream); \
    TN_FN(NAME,                                                                                         \
    TN_PW4_MACS(K, SH, "")                                                                              \
    TN_PW4_SAT8                                                                                         \
    "add r5, r2, r3\n"                                                                                  \
    "strb r8, [r2, #1]\n"                                                                               \
    "strb r10, [r2, #2]\n"                                                                              \
    "strb r12, [r2, #3]\n"                                                                              \
    "strb r6, [r2]\n"                                                                                   \
    "strb r7, [r5]\n"                                                                                   \
    "strb r9, [r5, #1]\n"                                                                               \
    "strb r11, [r5, #2]\n"                                                                              \
    "strb lr, [r5, #3]\n"                                                                               \
    "add r2, r5, r3\n"                                                                                  \
    TN_PW4_TAIL TN_PW4_LEAVE)

/* ------------------------------------------------------------------------------------------------------------------
 * Pointwise with K = 8, one output channel held in registers: 15 instructions for 2 outputs, 7.9 an output in all.
 * act: wide(8), 4-byte aligned; params {4 words of int16 weight pairs, bias, M, zo}; pixels a multiple of PPL.
 * Registers: r0-r3 a pixel, r4-r7 weights, r8 bias, r9 M, r10 zo, r11 out, r12 act, lr and r0 the accumulators.
 */
#define TN_DEF_PW_K8(NAME, PPL, AROW, GAP, SATSTORE)                                                    \
    TN_EXTERN void NAME(const int16_t *act, void *out, const int16_t *act_end, const int32_t *params, int32_t rows); \
    TN_FN(NAME,                                                                                         \
    "ldr r12, [sp]\n"                                                                                   \
    "push {r2, r4-r12, lr}\n"                                                                           \
    "push {r2, r12}\n"                       /* [sp] = end of the row in act, rows left */              \
    "mov r12, r0\n"                                                                                     \
    "mov r11, r1\n"                                                                                     \
    "ldm r3, {r4-r10}\n"                                                                                \
    "1:\n"                                                                                              \
    ".rept (" TN_STR(PPL) ")/2\n"                                                                       \
    "  ldm r12!, {r0-r3}\n"                                                                             \
    "  smlad lr, r0, r4, r8\n"                                                                          \
    "  smlad lr, r1, r5, lr\n"                                                                          \
    "  smlad lr, r2, r6, lr\n"                                                                          \
    "  smlad lr, r3, r7, lr\n"                                                                          \
    "  smmlar lr, lr, r9, r10\n"                                                                        \
    "  ldm r12!, {r0-r3}\n"                                                                             \
    "  smlad r0, r0, r4, r8\n"                                                                          \
    "  smlad r0, r1, r5, r0\n"                                                                          \
    "  smlad r0, r2, r6, r0\n"                                                                          \
    "  smlad r0, r3, r7, r0\n"                                                                          \
    "  smmlar r0, r0, r9, r10\n"                                                                        \
       SATSTORE                                                                                         \
    ".endr\n"                                                                                           \
    "ldr r0, [sp]\n"                                                                                    \
    "cmp r12, r0\n"                                                                                     \
    "bne 1b\n"                                                                                          \
    "ldr r1, [sp, #4]\n"                                                                                \
    "add r0, r0, #(" TN_STR(AROW) ")\n"                                                                 \
    "add r11, r11, #(" TN_STR(GAP) ")\n"                                                                \
    "subs r1, r1, #1\n"                                                                                 \
    "strd r0, r1, [sp]\n"                                                                               \
    "bne 1b\n"                                                                                          \
    "add sp, sp, #8\n"                                                                                  \
    "pop {r2, r4-r12, pc}\n")
#define TN_K8_PLANAR_FITS                                                                               \
    "pkhbt r0, lr, r0, lsl #16\n"                                                                       \
    "ssat16 r0, #8, r0\n"                                                                               \
    "str r0, [r11], #4\n"
#define TN_K8_PLANAR8                                                                                   \
    "ssat r0, #8, r0\n"                                                                                 \
    "ssat lr, #8, lr\n"                                                                                 \
    "strb r0, [r11, #1]\n"                                                                              \
    "strb lr, [r11], #2\n"
#define TN_K8_PLANAR_ANY                                                                                \
    "ssat r0, #8, r0\n"                                                                                 \
    "ssat lr, #8, lr\n"                                                                                 \
    "pkhbt r0, lr, r0, lsl #16\n"                                                                       \
    "str r0, [r11], #4\n"

/* clang-format on */
#endif
