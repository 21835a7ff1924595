/* Depthwise 5x5 and 7x7 kernels of thumbnet_mve.h: pairs of rows. Included by thumbnet_mve.h.
 *
 * VST2 interleaves two rows, so that 16 bytes are 8 columns of both: (K+1)/2 VMLADAV make an output. Two rows of
 * outputs share their data with STRIDE 1, the lower one under taps that lie a row further down; with STRIDE 2 the lower
 * one's data is a pair of rows further down.
 */
#ifndef TN_MVE_LARGE_DEPTHWISE_H
#define TN_MVE_LARGE_DEPTHWISE_H

/* clang-format off */
#define TN_MVE_PAIRS_MACROS                                                                                            \
    ".ifndef tn_mve_pairs_macros\n"                                                                                    \
    ".set tn_mve_pairs_macros, 1\n"                                                                                    \
    /* A column of a pair of rows, data from r1 on, in q. It goes under taps q2 to the upper row, under q3 to the      \
     * lower one. */                                                                                                   \
    ".macro tn_pair_products pair, first, groups, upper, lower, q, up, low\n"                                          \
    ".if \\pair < \\groups\n"                                                                                          \
    ".if \\pair == 0\n"                                                                                                \
    "vmladav.s8 \\upper, \\q, \\up\n"                                                                                  \
    ".else\n"                                                                                                          \
    "vmladava.s8 \\upper, \\q, \\up\n"                                                                                 \
    ".endif\n"                                                                                                         \
    ".endif\n"                                                                                                         \
    ".if \\pair == \\first\n"                                                                                          \
    "vmladav.s8 \\lower, \\q, \\low\n"                                                                                 \
    ".elseif \\pair > \\first\n"                                                                                       \
    "vmladava.s8 \\lower, \\q, \\low\n"                                                                                \
    ".endif\n"                                                                                                         \
    ".endm\n"                                                                                                          \
    /* Four columns of a pair of rows; then r1 moves on by \next bytes. */                                             \
    ".macro tn_pair_columns pair, first, groups, stride, next, up, low\n"                                              \
    "vldrh.u16 q0, [r1, #(2*\\stride)]\n"                                                                              \
    "vldrh.u16 q1, [r1, #(4*\\stride)]\n"                                                                              \
    "vldrh.u16 q4, [r1, #(6*\\stride)]\n"                                                                              \
    ".if (\\next) >= -254 && (\\next) <= 254\n"                                                                        \
    "vldrh.u16 q5, [r1], #(\\next)\n"                                                                                  \
    ".else\n"                                                                                                          \
    "vldrh.u16 q5, [r1]\n"                                                                                             \
    "tn_add r1, (\\next), r11\n"                                                                                       \
    ".endif\n"                                                                                                         \
    "tn_pair_products \\pair, \\first, \\groups, r2, r10, q0, \\up, \\low\n"                                           \
    "tn_pair_products \\pair, \\first, \\groups, r4, r12, q1, \\up, \\low\n"                                           \
    "tn_pair_products \\pair, \\first, \\groups, r6, lr, q4, \\up, \\low\n"                                            \
    "tn_pair_products \\pair, \\first, \\groups, r0, r8, q5, \\up, \\low\n"                                            \
    ".endm\n"                                                                                                          \
    /* Four columns of two rows of outputs. */                                                                         \
    ".macro tn_pairs groups, stride, ostride, shift, lo, hi\n"                                                         \
    ".irp pair, 0, 1, 2, 3, 4\n"                                                                                       \
    ".if \\pair < tn_pair_rows\n"                                                                                      \
    ".set tn_step, 32 * tn_chunks\n"                                                                                   \
    ".if \\pair == tn_pair_rows - 1\n"                                                                                 \
    ".set tn_step, 8 * \\stride - \\pair * 32 * tn_chunks\n"                                                           \
    ".endif\n"                                                                                                         \
    ".if \\stride == 1\n"                                                                                              \
    "vldrw.u32 q2, [sp, #(32*\\pair)]\n"                                                                               \
    "vldrw.u32 q3, [sp, #(32*\\pair+16)]\n"                                                                            \
    "tn_pair_columns \\pair, 0, \\groups, 1, tn_step, q2, q3\n"                                                        \
    ".elseif \\pair & 1\n"                                                                                             \
    ".if \\pair < \\groups\n"                                                                                          \
    "vldrw.u32 q3, [sp, #(16*\\pair)]\n"                                                                               \
    ".endif\n"                                                                                                         \
    "tn_pair_columns \\pair, 1, \\groups, 2, tn_step, q3, q2\n"                                                        \
    ".else\n"                                                                                                          \
    ".if \\pair < \\groups\n"                                                                                          \
    "vldrw.u32 q2, [sp, #(16*\\pair)]\n"                                                                               \
    ".endif\n"                                                                                                         \
    "tn_pair_columns \\pair, 1, \\groups, 2, tn_step, q2, q3\n"                                                        \
    ".endif\n"                                                                                                         \
    ".endif\n"                                                                                                         \
    ".endr\n"                                                                                                          \
    "tn_sums_requantized \\shift, \\lo, \\hi\n"                                                                        \
    "vpst\n"                                                                                                           \
    "vstrbt.16 q0, [r3, q7]\n"                                                                                         \
    "tn_add r3, 4*(\\ostride), r11\n"                                                                                  \
    ".endm\n"                                                                                                          \
    /* r0 in, r1 out, r2 params, r3 channels, then rows on the stack. Inside: r1 data, r3 out, r5 zero point, r7       \
     * bias, r9 blocks left, r11 temporary; even registers and lr sum. q2, q3 taps, q6 multiplier, q7 offsets. Stack:  \
     * taps of both rows, in, out, params, channels, rows left, row, pairs of rows. */                                 \
    ".macro tn_depthwise_pairs name, taps, stride, width, rowb, chb, ostride, shift, zp, lo, hi\n"                     \
    "tn_begin \\name\n"                                                                                                \
    ".set tn_groups, (\\taps + 1) / 2\n"                                                                               \
    ".set tn_pair_rows, tn_groups + \\stride - 1\n"                                                                    \
    ".set tn_columns, \\width\n"                                                                                       \
    ".if \\width < 4\n"                                                                                                \
    ".set tn_columns, 4\n"                                                                                             \
    ".endif\n"                                                                                                         \
    ".set tn_chunks, (\\stride * (tn_columns - 1) + 8 + 15) / 16\n"                                                    \
    ".set tn_saved, 16 * tn_groups * (3 - \\stride)\n"                                                                 \
    ".set tn_rows_at, tn_saved + 32\n"                                                                                 \
    ".set tn_frame, tn_rows_at + 32 * tn_chunks * tn_pair_rows\n"                                                      \
    ".set tn_params, (2 * \\taps * tn_groups + 3) / 4 * 4 + 8\n"                                                       \
    ".set tn_mask, 0xffff\n"                                                                                           \
    ".if \\width < 4\n"                                                                                                \
    ".set tn_mask, (1 << (4 * \\width)) - 1\n"                                                                         \
    ".endif\n"                                                                                                         \
    "sub sp, sp, #tn_frame\n"                                                                                          \
    "adr.w r4, 9f\n"                                                                                                   \
    "vldrw.u32 q7, [r4]\n"                                                                                             \
    "mov r5, #(\\zp)\n"                                                                                                \
    "1:\n"                                                                                                             \
    "strd r0, r1, [sp, #tn_saved]\n"                                                                                   \
    "add r4, r2, #tn_params\n"                                                                                         \
    "strd r4, r3, [sp, #(tn_saved+8)]\n"                                                                               \
    "ldr r6, [sp, #(100+tn_frame)]\n"                                                                                  \
    "strd r6, r0, [sp, #(tn_saved+16)]\n"                                                                              \
    "mov r3, r1\n"                                                                                                     \
    "ldrd r7, r10, [r2, #(tn_params-8)]\n"                                                                             \
    "vdup.32 q6, r10\n"                                                                                                \
    "movw r4, #((1<<(2*\\taps))-1)\n"                                                                                  \
    "vmsr p0, r4\n"                                                                                                    \
    ".set tn_group, 0\n"                                                                                               \
    ".rept tn_groups\n"                                                                                                \
    "vpst\n"                                                                                                           \
    "vldrbt.u8 q0, [r2], #(2*\\taps)\n"                                                                                \
    ".if \\stride == 1\n"                                                                                              \
    "vstrw.32 q0, [sp, #(32*tn_group)]\n"                                                                              \
    ".if tn_group == 0\n"                                                                                              \
    "vshl.i16 q1, q0, #8\n"                                                                                            \
    ".else\n"                                                                                                          \
    "vshr.u16 q1, q2, #8\n"                                                                                            \
    "vsli.16 q1, q0, #8\n"                                                                                             \
    ".endif\n"                                                                                                         \
    "vstrw.32 q1, [sp, #(32*tn_group+16)]\n"                                                                           \
    "vmov q2, q0\n"                                                                                                    \
    ".else\n"                                                                                                          \
    "vstrw.32 q0, [sp, #(16*tn_group)]\n"                                                                              \
    ".endif\n"                                                                                                         \
    ".set tn_group, tn_group + 1\n"                                                                                    \
    ".endr\n"                                                                                                          \
    "movw r4, #tn_mask\n"                                                                                              \
    "vmsr p0, r4\n"                                                                                                    \
    "2:\n"                                                                                                             \
    "ldrd r8, r0, [sp, #(tn_saved+16)]\n"                                                                              \
    "cmp r8, #1\n"                                                                                                     \
    "blt.w 5f\n"                                                                                                       \
    /* Rows under the two of outputs; of a single last row the lower one's results are not stored. */                  \
    "mov r4, #(\\taps+\\stride)\n"                                                                                     \
    "bne.n 3f\n"                                                                                                       \
    "mov r4, #\\taps\n"                                                                                                \
    "movw r6, #(tn_mask&0x3333)\n"                                                                                     \
    "vmsr p0, r6\n"                                                                                                    \
    "3:\n"                                                                                                             \
    "sub r8, r8, #2\n"                                                                                                 \
    "mov r6, r0\n"                                                                                                     \
    "tn_add r6, (2*\\stride*(\\rowb)), r11\n"                                                                          \
    "strd r8, r6, [sp, #(tn_saved+16)]\n"                                                                              \
    "add r1, sp, #tn_rows_at\n"                                                                                        \
    "movw r10, #(\\rowb)\n"                                                                                            \
    "4:\n"                                                                                                             \
    "cmp r4, #1\n"                                                                                                     \
    "it eq\n"                                                                                                          \
    "moveq r10, #0\n"                                                                                                  \
    "add r2, r0, r10\n"                                                                                                \
    ".rept tn_chunks\n"                                                                                                \
    "vldrb.u8 q0, [r0], #16\n"                                                                                         \
    "vldrb.u8 q1, [r2], #16\n"                                                                                         \
    "vst20.8 {q0, q1}, [r1]\n"                                                                                         \
    "vst21.8 {q0, q1}, [r1]!\n"                                                                                        \
    ".endr\n"                                                                                                          \
    "tn_add r0, (2*(\\rowb)-16*tn_chunks), r11\n"                                                                      \
    "subs r4, r4, #2\n"                                                                                                \
    "bgt.n 4b\n"                                                                                                       \
    "add r1, sp, #tn_rows_at\n"                                                                                        \
    ".if \\width >= 8\n"                                                                                               \
    "mov r9, #(\\width/4)\n"                                                                                           \
    "6:\n"                                                                                                             \
    "tn_pairs tn_groups, \\stride, \\ostride, \\shift, \\lo, \\hi\n"                                                   \
    "subs r9, r9, #1\n"                                                                                                \
    "bne.w 6b\n"                                                                                                       \
    ".else\n"                                                                                                          \
    "tn_pairs tn_groups, \\stride, \\ostride, \\shift, \\lo, \\hi\n"                                                   \
    ".endif\n"                                                                                                         \
    ".if \\width > 4 && (\\width) & 3\n"                                                                               \
    "tn_add r1, (((\\width)&3)-4)*2*\\stride, r11\n"                                                                   \
    "tn_add r3, (((\\width)&3)-4)*(\\ostride), r11\n"                                                                  \
    "tn_pairs tn_groups, \\stride, \\ostride, \\shift, \\lo, \\hi\n"                                                   \
    ".endif\n"                                                                                                         \
    ".if \\width < 4\n"                                                                                                \
    "tn_add r3, (2*(\\width)-4)*(\\ostride), r11\n"                                                                    \
    ".else\n"                                                                                                          \
    "tn_add r3, (\\width)*(\\ostride), r11\n"                                                                          \
    ".endif\n"                                                                                                         \
    "b.w 2b\n"                                                                                                         \
    "5:\n"                                                                                                             \
    "ldrd r0, r1, [sp, #tn_saved]\n"                                                                                   \
    "ldrd r2, r3, [sp, #(tn_saved+8)]\n"                                                                               \
    "tn_add r0, (\\chb), r4\n"                                                                                         \
    "add r1, r1, #1\n"                                                                                                 \
    "subs r3, r3, #1\n"                                                                                                \
    "bne.w 1b\n"                                                                                                       \
    "add sp, sp, #tn_frame\n"                                                                                          \
    "vpop {d8-d15}\n"                                                                                                  \
    "pop {r4-r11, pc}\n"                                                                                               \
    ".p2align 2\n"                                                                                                     \
    "9:\n"                                                                                                             \
    ".irp x, 0, 1, 2, 3\n"                                                                                             \
    ".short \\x * (\\ostride), ((\\width) + \\x) * (\\ostride)\n"                                                      \
    ".endr\n"                                                                                                          \
    "tn_end \\name\n"                                                                                                  \
    ".endm\n"                                                                                                          \
    ".endif\n"

/* clang-format on */

/* Depthwise KxK, K 5 or 7, on planes (rows ROWB apart, channels CHB): `rows` rows of WIDTH pixels to pixels of OSTRIDE
 * bytes. params of a channel: pairs of rows of taps interleaved, the last one with zeros, up to whole words; bias,
 * multiplier. 70 instructions for 4 x 2 outputs of 7x7, 56 of 5x5; with STRIDE 2 70 and 57. */
#define TN_DEF_MVE_DEPTHWISE_PAIRS(NAME, K, STRIDE, WIDTH, ROWB, CHB, OSTRIDE, SHIFT, ZP, LO, HI)                      \
    TN_EXTERN void NAME(const int8_t *in, int8_t *out, const int32_t *params, int32_t channels, int32_t rows);         \
    TN_MVE_KERNEL(TN_MVE_PATCHES_MACROS TN_MVE_PAIRS_MACROS,                                                           \
                  "tn_depthwise_pairs " #NAME ", " #K ", " #STRIDE ", " #WIDTH ", " #ROWB ", " #CHB ", " #OSTRIDE      \
                  ", " #SHIFT ", " #ZP ", " #LO ", " #HI)
#endif
