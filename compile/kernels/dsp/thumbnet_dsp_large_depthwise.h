/* Depthwise 5x5 and 7x7 kernels of thumbnet_dsp.h in assembly. Included by thumbnet_dsp.h.
 *
 * planar16 or planar8 in; channels one after the other, `rows` output rows of W pixels each. Up to four neighbouring
 * pixels are made at a time, row of taps by row: LDM brings a row's data and its taps, which are widened to the stack
 * once a channel; a channel's planar8 is widened too, to `plane`. Flash, K*K+8 bytes a channel: its taps (order below),
 * bias, M. Loads of words are unaligned there. PACKED: rows of an odd width follow each other without a pixel between,
 * so that pairs cross rows. WPB, ICH, OSTEP, O1, OCH as in thumbnet_dsp_depthwise.h; PITCH the bytes of a row of one
 * plane of planar8.
 *
 * Registers: r0-r3 sums, r4-r7 data, r8-r11 taps, r12 in, lr taps on the stack.
 * Stack: params, in, out of the next channel, params_end, bytes of all rows, end of the plane, end of a row's whole
 * fours, M, out, distance to the next output of packed rows, rows to widen, bias at 44, taps.
 */
#ifndef TN_KERNELS_LARGE_DEPTHWISE_H
#define TN_KERNELS_LARGE_DEPTHWISE_H

/* clang-format off */
#define TN_DWL_MACROS                                                                                                  \
    ".ifndef tn_dwl_macros\n"                                                                                          \
    ".set tn_dwl_macros, 1\n"                                                                                          \
    ".macro tn_dwl_add rd, rn, value, temporary\n"                                                                     \
    ".if (\\value) >= 0 && (\\value) < 4096\n"                                                                         \
    "addw \\rd, \\rn, #(\\value)\n"                                                                                    \
    ".elseif (\\value) < 0 && (\\value) > -4096\n"                                                                     \
    "subw \\rd, \\rn, #-(\\value)\n"                                                                                   \
    ".else\n"                                                                                                          \
    "movw \\temporary, #((\\value) & 0xffff)\n"                                                                        \
    "movt \\temporary, #(((\\value) >> 16) & 0xffff)\n"                                                                \
    "add \\rd, \\rn, \\temporary\n"                                                                                    \
    ".endif\n"                                                                                                         \
    ".endm\n"                                                                                                          \
    /* A product of sum a, if there is one: a sum's first one is added to the bias, which r0 holds. */                 \
    ".macro tn_dwl_product op, a, data, taps\n"                                                                        \
    ".if \\a < tn_pixels\n"                                                                                            \
    ".if tn_first & (1 << \\a)\n"                                                                                      \
    "\\op r\\a, \\data, \\taps, r0\n"                                                                                  \
    ".set tn_first, tn_first & ~(1 << \\a)\n"                                                                          \
    ".else\n"                                                                                                          \
    "\\op r\\a, \\data, \\taps, r\\a\n"                                                                                \
    ".endif\n"                                                                                                         \
    ".endif\n"                                                                                                         \
    ".endm\n"                                                                                                          \
    /* Stride 1. Taps: pairs A = w01, B = w12, C = w23, D = w34, of 7x7 E = w45, F = w56. Even pixels take A, C, E     \
     * and a last tap alone, odd ones a first tap alone, B, D, F. */                                                   \
    ".macro tn_dwl_row1 k\n"                                                                                           \
    ".if \\k == 7 || tn_pixels > 2\n"                                                                                  \
    "ldm r12!, {r4-r7}\n"                                                                                              \
    ".else\n"                                                                                                          \
    "ldm r12!, {r4-r6}\n"                                                                                              \
    ".endif\n"                                                                                                         \
    "ldm lr!, {r8-r11}\n"                                                                                              \
    "tn_dwl_product smlatb, 3, r5, r8\n"                                                                               \
    "tn_dwl_product smlad, 2, r5, r8\n"                                                                                \
    "tn_dwl_product smlatb, 1, r4, r8\n"                                                                               \
    "tn_dwl_product smlad, 0, r4, r8\n"                                                                                \
    "tn_dwl_product smlad, 3, r6, r9\n"                                                                                \
    "tn_dwl_product smlad, 2, r6, r10\n"                                                                               \
    "tn_dwl_product smlad, 1, r5, r9\n"                                                                                \
    "tn_dwl_product smlad, 0, r5, r10\n"                                                                               \
    "tn_dwl_product smlad, 3, r7, r11\n"                                                                               \
    "tn_dwl_product smlad, 1, r6, r11\n"                                                                               \
    ".if \\k == 5\n"                                                                                                   \
    "tn_dwl_product smlabt, 2, r7, r11\n"                                                                              \
    "tn_dwl_product smlabt, 0, r6, r11\n"                                                                              \
    ".else\n"                                                                                                          \
    ".if tn_pixels > 2\n"                                                                                              \
    "ldr r4, [r12], #4\n"                                                                                              \
    ".endif\n"                                                                                                         \
    "ldm lr!, {r8, r9}\n"                                                                                              \
    "tn_dwl_product smlad, 2, r7, r8\n"                                                                                \
    "tn_dwl_product smlad, 0, r6, r8\n"                                                                                \
    "tn_dwl_product smlad, 3, r4, r9\n"                                                                                \
    "tn_dwl_product smlabt, 2, r4, r9\n"                                                                               \
    "tn_dwl_product smlad, 1, r7, r9\n"                                                                                \
    "tn_dwl_product smlabt, 0, r7, r9\n"                                                                               \
    ".endif\n"                                                                                                         \
    ".set tn_read, 4 * ((\\k + 1) / 2 + (tn_pixels - 1) / 2)\n"                                                        \
    ".endm\n"                                                                                                          \
    /* Stride 2. Taps: pairs w01, w23, of 7x7 w45, and a last one alone. */                                            \
    ".macro tn_dwl_row2 k\n"                                                                                           \
    "ldm r12!, {r4-r7}\n"                                                                                              \
    ".set tn_read, 16\n"                                                                                               \
    ".if \\k == 5\n"                                                                                                   \
    "ldm lr!, {r8-r10}\n"                                                                                              \
    ".else\n"                                                                                                          \
    "ldm lr!, {r8-r11}\n"                                                                                              \
    ".endif\n"                                                                                                         \
    "tn_dwl_product smlad, 3, r7, r8\n"                                                                                \
    "tn_dwl_product smlad, 2, r6, r8\n"                                                                                \
    "tn_dwl_product smlad, 1, r5, r8\n"                                                                                \
    "tn_dwl_product smlad, 0, r4, r8\n"                                                                                \
    "tn_dwl_product smlad, 2, r7, r9\n"                                                                                \
    "tn_dwl_product smlad, 1, r6, r9\n"                                                                                \
    "tn_dwl_product smlad, 0, r5, r9\n"                                                                                \
    ".if \\k == 5\n"                                                                                                   \
    "tn_dwl_product smlabb, 1, r7, r10\n"                                                                              \
    "tn_dwl_product smlabb, 0, r6, r10\n"                                                                              \
    ".if tn_pixels > 2\n"                                                                                              \
    "ldm r12!, {r4, r5}\n"                                                                                             \
    ".set tn_read, 24\n"                                                                                               \
    ".endif\n"                                                                                                         \
    "tn_dwl_product smlad, 3, r4, r9\n"                                                                                \
    "tn_dwl_product smlabb, 3, r5, r10\n"                                                                              \
    "tn_dwl_product smlabb, 2, r4, r10\n"                                                                              \
    ".else\n"                                                                                                          \
    "tn_dwl_product smlad, 1, r7, r10\n"                                                                               \
    "tn_dwl_product smlad, 0, r6, r10\n"                                                                               \
    "tn_dwl_product smlabb, 0, r7, r11\n"                                                                              \
    ".if tn_pixels > 1\n"                                                                                              \
    "ldm r12!, {r4-r6}\n"                                                                                              \
    ".set tn_read, 28\n"                                                                                               \
    ".endif\n"                                                                                                         \
    "tn_dwl_product smlad, 3, r4, r9\n"                                                                                \
    "tn_dwl_product smlad, 3, r5, r10\n"                                                                               \
    "tn_dwl_product smlad, 2, r4, r10\n"                                                                               \
    "tn_dwl_product smlabb, 3, r6, r11\n"                                                                              \
    "tn_dwl_product smlabb, 2, r5, r11\n"                                                                              \
    "tn_dwl_product smlabb, 1, r4, r11\n"                                                                              \
    ".endif\n"                                                                                                         \
    ".endm\n"                                                                                                          \
    ".macro tn_dwl_row k, stride\n"                                                                                    \
    ".if \\stride == 1\n"                                                                                              \
    "tn_dwl_row1 \\k\n"                                                                                                \
    ".else\n"                                                                                                          \
    "tn_dwl_row2 \\k\n"                                                                                                \
    ".endif\n"                                                                                                         \
    ".endm\n"                                                                                                          \
    /* A pixel to r10, which goes on to the next: in packed rows by the other of two distances each time. */           \
    ".macro tn_dwl_store a, packed, ostep, o1\n"                                                                       \
    ".if \\a < tn_pixels\n"                                                                                            \
    ".if \\packed\n"                                                                                                   \
    "strh r\\a, [r10]\n"                                                                                               \
    "add r10, r10, r11\n"                                                                                              \
    "sub r11, r5, r11\n"                                                                                               \
    ".else\n"                                                                                                          \
    ".if \\a == 2\n"                                                                                                   \
    "tn_dwl_add r10, r10, \\ostep, r5\n"                                                                               \
    ".endif\n"                                                                                                         \
    "strh r\\a, [r10, #(\\a % 2 * \\o1)]\n"                                                                            \
    ".endif\n"                                                                                                         \
    ".endif\n"                                                                                                         \
    ".endm\n"                                                                                                          \
    ".macro tn_dwl_pixels count, k, stride, packed, wpb, ostep, o1, zo, sh\n"                                          \
    ".set tn_pixels, \\count\n"                                                                                        \
    ".set tn_first, 14\n"                                                                                              \
    "add lr, sp, #44\n"                                                                                                \
    "ldr r0, [lr], #4\n"                                                                                               \
    ".rept \\k - 1\n"                                                                                                  \
    "tn_dwl_row \\k, \\stride\n"                                                                                       \
    ".if \\wpb - tn_read\n"                                                                                            \
    "tn_dwl_add r12, r12, (\\wpb-tn_read), r4\n"                                                                       \
    ".endif\n"                                                                                                         \
    ".endr\n"                                                                                                          \
    "tn_dwl_row \\k, \\stride\n"                                                                                       \
    "tn_dwl_add r12, r12, (2*\\stride*\\count-tn_read-(\\k-1)*\\wpb), r4\n"                                            \
    "ldrd r8, r10, [sp, #28]\n"                                                                                        \
    ".if \\packed\n"                                                                                                   \
    "ldr r11, [sp, #36]\n"                                                                                             \
    "movw r5, #\\ostep\n"                                                                                              \
    ".endif\n"                                                                                                         \
    "mov r9, #(\\zo)\n"                                                                                                \
    ".irp a, 0, 1, 2, 3\n"                                                                                             \
    ".if \\a < \\count\n"                                                                                              \
    ".if \\sh\n"                                                                                                       \
    "lsl r\\a, r\\a, #(\\sh)\n"                                                                                        \
    ".endif\n"                                                                                                         \
    "smmlar r\\a, r\\a, r8, r9\n"                                                                                      \
    "ssat r\\a, #8, r\\a\n"                                                                                            \
    ".endif\n"                                                                                                         \
    ".endr\n"                                                                                                          \
    ".irp a, 0, 1, 2, 3\n"                                                                                             \
    "tn_dwl_store \\a, \\packed, \\ostep, \\o1\n"                                                                      \
    ".endr\n"                                                                                                          \
    ".if \\packed\n"                                                                                                   \
    "str r11, [sp, #36]\n"                                                                                             \
    ".else\n"                                                                                                          \
    "tn_dwl_add r10, r10, \\ostep, r5\n"                                                                               \
    ".endif\n"                                                                                                         \
    "str r10, [sp, #32]\n"                                                                                             \
    ".endm\n"                                                                                                          \
    /* The taps of a row of the channel at r2, to the stack at lr. Bytes of a row: stride 1 w1, w0, w2, w3, then w4    \
     * or w5, w4, w6; stride 2 w0, w2, w1, w3, then w4 or w4, w6, w5. */                                               \
    ".macro tn_dwl_taps k, stride\n"                                                                                   \
    "ldr r8, [r2], #4\n"                                                                                               \
    ".if \\k == 5\n"                                                                                                   \
    "ldrsb r9, [r2], #1\n"                                                                                             \
    ".else\n"                                                                                                          \
    "ldr r9, [r2], #3\n"                                                                                               \
    ".endif\n"                                                                                                         \
    ".if \\stride == 1\n"                                                                                              \
    "sxtb16 r5, r8\n"                                                                                                  \
    "sxtb16 r10, r8, ror #8\n"                                                                                         \
    "pkhbt r4, r10, r5, lsl #16\n"                                                                                     \
    "pkhtb r6, r10, r5, asr #16\n"                                                                                     \
    "asr r10, r10, #16\n"                                                                                              \
    ".if \\k == 5\n"                                                                                                   \
    "pkhbt r7, r10, r9, lsl #16\n"                                                                                     \
    "stm lr!, {r4-r7}\n"                                                                                               \
    ".else\n"                                                                                                          \
    "sxtb16 r11, r9, ror #8\n"                                                                                         \
    "sxtb16 r9, r9\n"                                                                                                  \
    "pkhbt r7, r10, r11, lsl #16\n"                                                                                    \
    "pkhbt r8, r11, r9, lsl #16\n"                                                                                     \
    "stm lr!, {r4-r9}\n"                                                                                               \
    ".endif\n"                                                                                                         \
    ".else\n"                                                                                                          \
    "sxtb16 r4, r8\n"                                                                                                  \
    "sxtb16 r5, r8, ror #8\n"                                                                                          \
    ".if \\k == 5\n"                                                                                                   \
    "mov r6, r9\n"                                                                                                     \
    "stm lr!, {r4-r6}\n"                                                                                               \
    ".else\n"                                                                                                          \
    "sxtb16 r6, r9\n"                                                                                                  \
    "sxtb16 r7, r9, ror #8\n"                                                                                          \
    "stm lr!, {r4-r7}\n"                                                                                               \
    ".endif\n"                                                                                                         \
    ".endif\n"                                                                                                         \
    ".endm\n"                                                                                                          \
    /* pitch 0: planar16, rows \rowb apart; else planar8, widened to rows of whole words in `plane`, the sixth         \
     * argument. */                                                                                                    \
    ".macro tn_depthwise_large k, stride, w, packed, pitch, rowb, ich, ostep, o1, och, zo, sh\n"                       \
    ".set tn_words, (\\pitch + 3) / 4\n"                                                                               \
    ".set tn_wpb, 8 * tn_words\n"                                                                                      \
    ".if \\pitch == 0\n"                                                                                               \
    ".set tn_wpb, \\rowb\n"                                                                                            \
    ".endif\n"                                                                                                         \
    ".set tn_frame, 48 + 4 * \\k * ((\\k + 1) / 2)\n"                                                                  \
    ".if \\stride == 1\n"                                                                                              \
    ".set tn_frame, 48 + 4 * \\k * (\\k - 1)\n"                                                                        \
    ".endif\n"                                                                                                         \
    "push {r4-r11, lr}\n"                                                                                              \
    "ldr r12, [sp, #36]\n"                                                                                             \
    "sub sp, sp, #tn_frame\n"                                                                                          \
    "stm sp, {r0-r3}\n"                                                                                                \
    "movw r4, #(\\stride * tn_wpb)\n"                                                                                  \
    "mul r4, r4, r12\n"                                                                                                \
    "str r4, [sp, #16]\n"                                                                                              \
    ".if \\pitch\n"                                                                                                    \
    ".if \\stride == 2\n"                                                                                              \
    "lsl r12, r12, #1\n"                                                                                               \
    ".endif\n"                                                                                                         \
    "add r12, r12, #(\\k - \\stride)\n"                                                                                \
    "str r12, [sp, #40]\n"                                                                                             \
    ".endif\n"                                                                                                         \
    "2:\n"                                                                                                             \
    "ldr r2, [sp]\n"                                                                                                   \
    "add lr, sp, #48\n"                                                                                                \
    "mov r3, #\\k\n"                                                                                                   \
    "3:\n"                                                                                                             \
    "tn_dwl_taps \\k, \\stride\n"                                                                                      \
    "subs r3, r3, #1\n"                                                                                                \
    "bne 3b\n"                                                                                                         \
    "ldr r4, [r2], #4\n"                                                                                               \
    "ldr r5, [r2], #4\n"                                                                                               \
    "str r4, [sp, #44]\n"                                                                                              \
    "ldr r12, [sp, #4]\n"                                                                                              \
    "ldr r4, [sp, #8]\n"                                                                                               \
    "str r2, [sp]\n"                                                                                                   \
    "strd r5, r4, [sp, #28]\n"                                                                                         \
    "tn_dwl_add r4, r4, \\och, r5\n"                                                                                   \
    "tn_dwl_add r3, r12, \\ich, r5\n"                                                                                  \
    "strd r3, r4, [sp, #4]\n"                                                                                          \
    ".if \\pitch\n"                                                                                                    \
    "ldr r4, [sp, #(tn_frame + 40)]\n"                                                                                 \
    "ldr r5, [sp, #40]\n"                                                                                              \
    "4:\n"                                                                                                             \
    ".rept tn_words\n"                                                                                                 \
    "ldr r6, [r12], #4\n"                                                                                              \
    "sxtb16 r7, r6, ror #8\n"                                                                                          \
    "sxtb16 r6, r6\n"                                                                                                  \
    "pkhbt r8, r6, r7, lsl #16\n"                                                                                      \
    "pkhtb r9, r7, r6, asr #16\n"                                                                                      \
    "stm r4!, {r8, r9}\n"                                                                                              \
    ".endr\n"                                                                                                          \
    "tn_dwl_add r12, r12, (\\rowb-4*tn_words), r6\n"                                                                   \
    "subs r5, r5, #1\n"                                                                                                \
    "bne 4b\n"                                                                                                         \
    "ldr r12, [sp, #(tn_frame + 40)]\n"                                                                                \
    ".endif\n"                                                                                                         \
    "ldr r5, [sp, #16]\n"                                                                                              \
    "add r5, r5, r12\n"                                                                                                \
    "str r5, [sp, #20]\n"                                                                                              \
    ".if \\packed\n"                                                                                                   \
    "mov r5, #\\o1\n"                                                                                                  \
    "str r5, [sp, #36]\n"                                                                                              \
    ".endif\n"                                                                                                         \
    "1:\n"                                                                                                             \
    ".if \\w >= 8\n"                                                                                                   \
    "tn_dwl_add r4, r12, (\\w/4*8*\\stride), r5\n"                                                                     \
    "str r4, [sp, #24]\n"                                                                                              \
    "5:\n"                                                                                                             \
    ".endif\n"                                                                                                         \
    ".if \\w >= 4\n"                                                                                                   \
    "tn_dwl_pixels 4, \\k, \\stride, \\packed, tn_wpb, \\ostep, \\o1, \\zo, \\sh\n"                                    \
    ".endif\n"                                                                                                         \
    ".if \\w >= 8\n"                                                                                                   \
    "ldr r4, [sp, #24]\n"                                                                                              \
    "cmp r12, r4\n"                                                                                                    \
    "bne.w 5b\n"                                                                                                       \
    ".endif\n"                                                                                                         \
    ".if \\w % 4\n"                                                                                                    \
    "tn_dwl_pixels (\\w%4), \\k, \\stride, \\packed, tn_wpb, \\ostep, \\o1, \\zo, \\sh\n"                              \
    ".endif\n"                                                                                                         \
    "tn_dwl_add r12, r12, (\\stride*(tn_wpb-2*\\w)), r4\n"                                                             \
    "ldr r4, [sp, #20]\n"                                                                                              \
    "cmp r12, r4\n"                                                                                                    \
    "bne.w 1b\n"                                                                                                       \
    "ldr r2, [sp]\n"                                                                                                   \
    "ldr r3, [sp, #12]\n"                                                                                              \
    "cmp r2, r3\n"                                                                                                     \
    "bne.w 2b\n"                                                                                                       \
    "add sp, sp, #tn_frame\n"                                                                                          \
    "pop {r4-r11, pc}\n"                                                                                               \
    ".endm\n"                                                                                                          \
    ".endif\n"

#define TN_DWL_KERNEL(NAME, K, S, W, PACKED, PITCH, WPB, ICH, OSTEP, O1, OCH, ZO, SH)                                  \
    TN_FN(NAME, TN_DWL_MACROS TN_LET("K", K) TN_LET("S", S) TN_LET("W", W) TN_LET("PACKED", PACKED)                    \
    TN_LET("PITCH", PITCH) TN_LET("WPB", WPB) TN_LET("ICH", ICH) TN_LET("OSTEP", OSTEP) TN_LET("O1", O1)               \
    TN_LET("OCH", OCH) TN_LET("ZO", ZO) TN_LET("SH", SH)                                                               \
    "tn_depthwise_large .Lk_K, .Lk_S, .Lk_W, .Lk_PACKED, .Lk_PITCH, .Lk_WPB, .Lk_ICH, .Lk_OSTEP, .Lk_O1, .Lk_OCH, "    \
    ".Lk_ZO, .Lk_SH\n")
#define TN_DEF_DW_LARGE(NAME, K, S, W, PACKED, ...)                                                                    \
    TN_EXTERN void NAME(const int8_t *params, const int16_t *in, int16_t *out, const int8_t *params_end, int32_t rows); \
    TN_DWL_KERNEL(NAME, K, S, W, PACKED, 0, __VA_ARGS__)
#define TN_DEF_DW_LARGE_P8(NAME, ...)                                                                                  \
    TN_EXTERN void NAME(const int8_t *params, const int8_t *in, int16_t *out, const int8_t *params_end, int32_t rows,  \
              int16_t *plane);                                                                                         \
    TN_DWL_KERNEL(NAME, __VA_ARGS__)

/* clang-format on */
#endif
