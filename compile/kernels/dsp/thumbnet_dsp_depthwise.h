/* Depthwise 3x3 kernels of thumbnet_dsp.h in assembly. Included by thumbnet_dsp.h.
 *
 * planar16 or planar8 in; channels one after the other, row_bytes/WPB (stride 1) output rows of W pixels each.
 * Flash, 17 bytes a channel: 9 tap bytes (order below), bias, M. Loads of words are unaligned (CCR.UNALIGN_TRP = 0).
 * U rows are unrolled, their pixels numbered on (U = plane height for a small odd plane, so that pairs cross rows).
 * OSTEP bytes between output pixel pairs, O1 bytes from the first to the second pixel of a pair, OCH bytes between the
 * outputs of successive channels, WPB bytes a row of the plane, ICH bytes from one channel's plane to the next.
 *
 * Registers: r0, r1 accumulators of two pixels, r2, r3 data, r4-r8 (stride 1 of planar16: r4-r9) tap pairs, r10 bias,
 * r11 M, r12 in, lr out.
 * Stack: [sp] = params, in, out of the next channel, params_end, end of the row in `in`, row_bytes, end of the plane.
 */
#ifndef TN_KERNELS_DEPTHWISE_H
#define TN_KERNELS_DEPTHWISE_H

/* clang-format off */

#define TN_DW_LET(W, U, WPB, ICH, OSTEP, O1, OCH, ZO, SH)                                               \
    TN_LET("W", W) TN_LET("U", U) TN_LET("WPB", WPB) TN_LET("ICH", ICH)                                 \
    TN_LET("OSTEP", OSTEP) TN_LET("O1", O1) TN_LET("OCH", OCH) TN_LET("ZO", ZO) TN_LET("SH", SH)
/* Pixels unrolled, .Lk_turn: a row, or an equal even part of a long one (4 instructions a turn and 2 a row more), half
 * as long with stride 2, where there is a quarter of the rows. */
#ifndef TN_DW_UNROLL
#define TN_DW_UNROLL 12
#endif
#define TN_DW_TURN(UNROLL)                                                                                    \
    ".set .Lk_turn, .Lk_W\n"                                                                            \
    ".set .Lk_turns, 1\n"                                                                               \
    ".rept 15\n"                                                                                        \
    "  .if .Lk_turn > " UNROLL " && .Lk_U == 1\n"                                                       \
    "    .set .Lk_turns, .Lk_turns+1\n"                                                                 \
    "    .if .Lk_W % (2*.Lk_turns) == 0\n"                                                              \
    "      .set .Lk_turn, .Lk_W/.Lk_turns\n"                                                            \
    "    .endif\n"                                                                                      \
    "  .endif\n"                                                                                        \
    ".endr\n"
/* A channel's begin: LOAD brings its taps in. Then the next channel's addresses go to the stack. r12 will advance by
 * ADVANCE bytes for each two pixels. */
#define TN_DW_CHANNEL(LOAD, ADVANCE, UNROLL)                                                            \
    TN_LET("ADV", ADVANCE)                                                                              \
    TN_DW_TURN(UNROLL)                                                                                  \
    "push {r4-r11, lr}\n"                                                                               \
    "ldr r12, [sp, #36]\n"                   /* row_bytes */                                            \
    "push {r0-r4, r12, lr}\n"                                                                           \
    "2:\n"                                                                                              \
    "ldm sp, {r2, r12, lr}\n"                                                                           \
    LOAD                                                                                                \
    "ldr r10, [r2, #-8]\n"                   /* bias */                                                 \
    "ldr r11, [r2, #-4]\n"                   /* M */                                                    \
    "ldr r1, [sp, #20]\n"                                                                               \
    "add r0, r1, r12\n"                                                                                 \
    "str r0, [sp, #24]\n"                                                                               \
    ".if .Lk_turn < .Lk_W\n"                                                                            \
    "  add r0, r12, #.Lk_ADV*.Lk_W/2\n"                                                                 \
    "  str r0, [sp, #16]\n"                                                                             \
    ".endif\n"                                                                                          \
    ".if .Lk_ICH > 4095\n"                                                                              \
    "  movw r1, #.Lk_ICH\n"                                                                             \
    "  add r1, r1, r12\n"                                                                               \
    ".else\n"                                                                                           \
    "  add r1, r12, #.Lk_ICH\n"                                                                         \
    ".endif\n"                                                                                          \
    "mov r0, r2\n"                                                                                      \
    "add r2, lr, #.Lk_OCH\n"                                                                            \
    "stm sp, {r0-r2}\n"
/* Around the code of two pixels, which is repeated for a row's pairs. .Lk_p is the pixel's number, .Lk_base what lr has
 * advanced already, for offsets beyond 4095. */
#define TN_DW_PAIRS                                                                                     \
    "1:\n"                                                                                              \
    ".set .Lk_p, 0\n"                                                                                   \
    ".set .Lk_base, 0\n"                                                                                \
    ".rept .Lk_U\n"                                                                                     \
    ".rept .Lk_turn/2\n"
/* A row's last pixel, if W is odd. */
#define TN_DW_ODD                                                                                       \
    ".endr\n"                                                                                           \
    ".if .Lk_W & 1\n"
/* A row's end, or its part's. */
#define TN_DW_TO_ROW(STRIDE)                                                                            \
    "add r12, r12, #(" #STRIDE "*.Lk_WPB-.Lk_ADV*((.Lk_W+1)/2))\n"
#define TN_DW_NEXT(STRIDE)                                                                              \
    ".endif\n"                                                                                          \
    ".if .Lk_turn == .Lk_W\n"                                                                           \
       TN_DW_TO_ROW(STRIDE)                                                                             \
    ".endif\n"                                                                                          \
    ".endr\n"                                                                                           \
    "add lr, lr, #((.Lk_p+1)/2*.Lk_OSTEP-.Lk_base)\n"                                                   \
    ".if .Lk_turn < .Lk_W\n"                                                                            \
    "  ldr r2, [sp, #16]\n"                                                                             \
    "  cmp r12, r2\n"                                                                                   \
    "  bne 1b\n"                                                                                        \
    "  add r2, r2, #" #STRIDE "*.Lk_WPB\n"                                                              \
    "  str r2, [sp, #16]\n"                                                                             \
       TN_DW_TO_ROW(STRIDE)                                                                             \
    ".endif\n"                                                                                          \
    "ldr r2, [sp, #24]\n"                                                                               \
    "cmp r12, r2\n"                                                                                     \
    "bne 1b\n"                                                                                          \
    "ldr r2, [sp]\n"                                                                                    \
    "ldr r3, [sp, #12]\n"                                                                               \
    "cmp r2, r3\n"                                                                                      \
    "bne 2b\n"                                                                                          \
    "add sp, sp, #28\n"                                                                                 \
    "pop {r4-r11, pc}\n"
#define TN_DW_STORE(R)                                                                                  \
    ".if .Lk_p/2*.Lk_OSTEP+.Lk_p%2*.Lk_O1-.Lk_base > 4095\n"                                            \
    "  add lr, lr, #2*.Lk_OSTEP\n"                                                                      \
    "  .set .Lk_base, .Lk_base+2*.Lk_OSTEP\n"                                                           \
    ".endif\n"                                                                                          \
    "strh " R ", [lr, #(.Lk_p/2*.Lk_OSTEP+.Lk_p%2*.Lk_O1-.Lk_base)]\n"                                  \
    ".set .Lk_p, .Lk_p+1\n"
/* Requantization of two pixels or one; register ZO holds the zero point. */
#define TN_DW_OUT2(ZO)                                                                                  \
    TN_SHL("r0") TN_SHL("r1")                                                                           \
    "smmlar r0, r0, r11, " ZO "\n"                                                                      \
    "smmlar r1, r1, r11, " ZO "\n"                                                                      \
    "ssat r0, #8, r0\n"                                                                                 \
    "ssat r1, #8, r1\n"                                                                                 \
    TN_DW_STORE("r0")                                                                                   \
    TN_DW_STORE("r1")
#define TN_DW_OUT1(ZO)                                                                                  \
    TN_SHL("r0")                                                                                        \
    "smmlar r0, r0, r11, " ZO "\n"                                                                      \
    "ssat r0, #8, r0\n"                                                                                 \
    TN_DW_STORE("r0")

/* What the four kernels share. CHANNEL reads a channel's parameters, TAPS brings its weights into registers; ROWS2 and
 * ROWS1 are the products of the three rows for two pixels and for one; LOAD_ZO, where no register is free before them,
 * puts the zero point into register ZO. */
#define TN_DW_KERNEL(NAME, IN, LET, CHANNEL, TAPS, ROWS2, ROWS1, LOAD_ZO, ZO, STRIDE)                   \
    TN_EXTERN void NAME(const int8_t *params, const IN *in, int16_t *out, const int8_t *params_end, int32_t row_bytes); \
    TN_FN(NAME, LET CHANNEL TAPS                                                                        \
    TN_DW_PAIRS ROWS2 LOAD_ZO TN_DW_OUT2(ZO)                                                            \
    TN_DW_ODD ROWS1 LOAD_ZO TN_DW_OUT1(ZO)                                                              \
    TN_DW_NEXT(STRIDE))
#define TN_DW_ZO(R) "mov " R ", #.Lk_ZO\n"

/* ------------------------------------------------------------------------------------------------------------------
 * planar16, stride 1: 22 instructions for 2 outputs (18 MACs). Tap bytes of each row: w1, w0, w2: SXTB16 gives (w1, w2),
 * and of its rotated form w0 is packed with w1. Registers: 6 weight pairs, 2 data words, 2 accumulators, bias, M, in,
 * out: exactly 14. A row's first data is loaded as LOAD says; WA = (w0, w1), WB = (w1, w2); A0, A1 are added to.
 */
#define TN_DW_TAPS3(WA, WB)                                                                             \
    "sxtb16 " WA ", " WB ", ror #8\n"                                                                   \
    "sxtb16 " WB ", " WB "\n"                                                                           \
    "pkhbt " WA ", " WA ", " WB ", lsl #16\n"
#define TN_DW_ROW(LOAD, WA, WB, A0, A1)                                                                 \
    "ldrd r2, r3, " LOAD "\n"                                                                           \
    "smlad r0, r2, " WA ", " A0 "\n"         /* pixels 0, 1 */                                          \
    "smlad r1, r3, " WB ", " A1 "\n"         /* pixels 2, 3 */                                          \
    "smlabt r0, r3, " WB ", r0\n"            /* pixel 2 */                                              \
    "smlatb r1, r2, " WA ", r1\n"            /* pixel 1 */
#define TN_DW_ROW1(LOAD, WA, WB, A0)                                                                    \
    "ldrd r2, r3, " LOAD "\n"                                                                           \
    "smlad r0, r2, " WA ", " A0 "\n"                                                                    \
    "smlabt r0, r3, " WB ", r0\n"
#define TN_DEF_DW3X3S1(NAME, W, U, WPB, ICH, OSTEP, O1, OCH, ZO, SH)                                    \
    TN_DW_KERNEL(NAME, int16_t, TN_DW_LET(W, U, WPB, ICH, OSTEP, O1, OCH, ZO, SH),                      \
    TN_DW_CHANNEL("ldr r5, [r2], #17\n ldr r7, [r2, #-14]\n ldr r9, [r2, #-11]\n", 4, TN_STR(TN_DW_UNROLL)),\
    TN_DW_TAPS3("r4", "r5") TN_DW_TAPS3("r6", "r7") TN_DW_TAPS3("r8", "r9"),                            \
    TN_DW_ROW("[r12, #.Lk_WPB]", "r6", "r7", "r10", "r10")                                              \
    TN_DW_ROW("[r12, #2*.Lk_WPB]", "r8", "r9", "r0", "r1")                                              \
    TN_DW_ROW("[r12], #4", "r4", "r5", "r0", "r1"),                                                     \
    TN_DW_ROW1("[r12, #.Lk_WPB]", "r6", "r7", "r10")                                                    \
    TN_DW_ROW1("[r12, #2*.Lk_WPB]", "r8", "r9", "r0")                                                   \
    TN_DW_ROW1("[r12], #4", "r4", "r5", "r0"),                                                          \
    TN_DW_ZO("r2"), "r2", 1)

/* ------------------------------------------------------------------------------------------------------------------
 * planar16, stride 2: 25 instructions for 2 outputs. Tap bytes: w00, w02, w01, w12, w10, w20, w11, w21, w22: first
 * index the row. `in` points at the first tap. row_bytes = output rows * 2 * WPB. A row at OFFSET: WA = its
 * taps 0 and 1, tap 2 in the half H ("b" or "t") of WC.
 */
#define TN_DW2_ROW(OFFSET, LOAD, WA, WC, H, A0, A1)                                                     \
    "ldr r9, [r12, #8+" OFFSET "]\n"                                                                    \
    "ldrd r2, r3, " LOAD "\n"                                                                           \
    "smlad r0, r2, " WA ", " A0 "\n"                                                                    \
    "smlad r1, r3, " WA ", " A1 "\n"                                                                    \
    "smlab" H " r0, r3, " WC ", r0\n"                                                                   \
    "smlab" H " r1, r9, " WC ", r1\n"
#define TN_DW2_ROW1(LOAD, WA, WC, H, A0)                                                                \
    "ldrd r2, r3, " LOAD "\n"                                                                           \
    "smlad r0, r2, " WA ", " A0 "\n"                                                                    \
    "smlab" H " r0, r3, " WC ", r0\n"
/* Tap pairs: r4, r7 the even and odd bytes of the first word, r5, r6 of the second, r8 the ninth. */
#define TN_DW_LOAD9                                                                                     \
    "ldr r4, [r2], #17\n"                                                                               \
    "ldr r5, [r2, #-13]\n"                                                                              \
    "ldrsb r8, [r2, #-9]\n"
#define TN_DW_TAPS9                                                                                     \
    "sxtb16 r7, r4, ror #8\n"                                                                           \
    "sxtb16 r4, r4\n"                                                                                   \
    "sxtb16 r6, r5, ror #8\n"                                                                           \
    "sxtb16 r5, r5\n"
#define TN_DEF_DW3X3S2(NAME, W, U, WPB, ICH, OSTEP, O1, OCH, ZO, SH)                                    \
    TN_DW_KERNEL(NAME, int16_t, TN_DW_LET(W, U, WPB, ICH, OSTEP, O1, OCH, ZO, SH),                      \
    TN_DW_CHANNEL(TN_DW_LOAD9, 8, TN_STR(TN_DW_UNROLL) "/2"),                                           \
    TN_DW_TAPS9,                                                                                        \
    TN_DW2_ROW(".Lk_WPB", "[r12, #.Lk_WPB]", "r5", "r7", "t", "r10", "r10")                             \
    TN_DW2_ROW("2*.Lk_WPB", "[r12, #2*.Lk_WPB]", "r6", "r8", "b", "r0", "r1")                           \
    TN_DW2_ROW("0", "[r12], #8", "r4", "r7", "b", "r0", "r1"),                                          \
    TN_DW2_ROW1("[r12, #.Lk_WPB]", "r5", "r7", "t", "r10")                                              \
    TN_DW2_ROW1("[r12, #2*.Lk_WPB]", "r6", "r8", "b", "r0")                                             \
    TN_DW2_ROW1("[r12], #8", "r4", "r7", "b", "r0"),                                                    \
    TN_DW_ZO("r2"), "r2", 2)

/* ------------------------------------------------------------------------------------------------------------------
 * planar8 (half the RAM): rows of WPB bytes, natural order. SXTB16 of 4 bytes gives pixels (0, 2) and (1, 3): one SMLAD
 * takes taps 0 and 2, a single multiply the middle one. Stride 1: 27 instructions for 2 outputs; stride 2: 34. Tap
 * bytes: w00, w01, w02, w11, w10, w20, w12, w22, w21. WA = taps 0 and 2, tap 1 in the half H of WC.
 */
#define TN_DW8_ROW(LOAD, WA, WC, H, A0, A1)                                                             \
    "ldr r2, " LOAD "\n"                                                                                \
    "sxtb16 r3, r2, ror #8\n"                                                                           \
    "sxtb16 r2, r2\n"                                                                                   \
    "smlad r0, r2, " WA ", " A0 "\n"                                                                    \
    "smlad r1, r3, " WA ", " A1 "\n"                                                                    \
    "smlab" H " r0, r3, " WC ", r0\n"                                                                   \
    "smlat" H " r1, r2, " WC ", r1\n"
#define TN_DW8_ROW1(LOAD, WA, WC, H, A0)                                                                \
    "ldr r2, " LOAD "\n"                                                                                \
    "sxtb16 r3, r2, ror #8\n"                                                                           \
    "sxtb16 r2, r2\n"                                                                                   \
    "smlad r0, r2, " WA ", " A0 "\n"                                                                    \
    "smlab" H " r0, r3, " WC ", r0\n"
#define TN_DEF_DW3X3S1_P8(NAME, W, U, WPB, ICH, OSTEP, O1, OCH, ZO, SH)                                 \
    TN_DW_KERNEL(NAME, int8_t, TN_DW_LET(W, U, WPB, ICH, OSTEP, O1, OCH, ZO, SH),                       \
    TN_DW_CHANNEL(TN_DW_LOAD9, 2, TN_STR(TN_DW_UNROLL)),                                                \
    TN_DW_TAPS9 TN_DW_ZO("r9"),                                                                         \
    TN_DW8_ROW("[r12, #.Lk_WPB]", "r5", "r7", "t", "r10", "r10")                                        \
    TN_DW8_ROW("[r12, #2*.Lk_WPB]", "r6", "r8", "b", "r0", "r1")                                        \
    TN_DW8_ROW("[r12], #2", "r4", "r7", "b", "r0", "r1"),                                               \
    TN_DW8_ROW1("[r12, #.Lk_WPB]", "r5", "r7", "t", "r10")                                              \
    TN_DW8_ROW1("[r12, #2*.Lk_WPB]", "r6", "r8", "b", "r0")                                             \
    TN_DW8_ROW1("[r12], #2", "r4", "r7", "b", "r0"),                                                    \
    , "r9", 1)
/* Stride 2: the second pixel's last value comes from a load of its own, at OFFSET + 4: of a byte, which is never
 * unaligned. */
#define TN_DW82_ROW(OFFSET, LOAD, WA, WC, H, A0, A1)                                                    \
    "ldrsb r3, [r12, #" OFFSET "+4]\n"                                                                  \
    "ldr r2, " LOAD "\n"                                                                                \
    "sxtb16 r9, r2, ror #8\n"                                                                           \
    "sxtb16 r2, r2\n"                                                                                   \
    "smlad r0, r2, " WA ", " A0 "\n"                                                                    \
    "smlatb r1, r2, " WA ", " A1 "\n"                                                                   \
    "smlabt r1, r3, " WA ", r1\n"                                                                       \
    "smlab" H " r0, r9, " WC ", r0\n"                                                                   \
    "smlat" H " r1, r9, " WC ", r1\n"
#define TN_DEF_DW3X3S2_P8(NAME, W, U, WPB, ICH, OSTEP, O1, OCH, ZO, SH)                                 \
    TN_DW_KERNEL(NAME, int8_t, TN_DW_LET(W, U, WPB, ICH, OSTEP, O1, OCH, ZO, SH),                       \
    TN_DW_CHANNEL(TN_DW_LOAD9, 4, TN_STR(TN_DW_UNROLL) "/2"),                                           \
    TN_DW_TAPS9,                                                                                        \
    TN_DW82_ROW(".Lk_WPB", "[r12, #.Lk_WPB]", "r5", "r7", "t", "r10", "r10")                            \
    TN_DW82_ROW("2*.Lk_WPB", "[r12, #2*.Lk_WPB]", "r6", "r8", "b", "r0", "r1")                          \
    TN_DW82_ROW("0", "[r12], #4", "r4", "r7", "b", "r0", "r1"),                                         \
    TN_DW8_ROW1("[r12, #.Lk_WPB]", "r5", "r7", "t", "r10")                                              \
    TN_DW8_ROW1("[r12, #2*.Lk_WPB]", "r6", "r8", "b", "r0")                                             \
    TN_DW8_ROW1("[r12], #4", "r4", "r7", "b", "r0"),                                                    \
    TN_DW_ZO("r9"), "r9", 2)

/* clang-format on */
#endif
