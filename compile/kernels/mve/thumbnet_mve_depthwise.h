/* Depthwise kernels of thumbnet_mve.h: columns in lanes, and patches of 4 x 4 pixels. Included by thumbnet_mve.h. */
#ifndef TN_MVE_DEPTHWISE_H
#define TN_MVE_DEPTHWISE_H

/* clang-format off */
#define TN_MVE_LANES_MACROS                                                                                            \
    ".ifndef tn_mve_lanes_macros\n"                                                                                    \
    ".set tn_mve_lanes_macros, 1\n"                                                                                    \
    /* Column of input row \i under the taps \a, \b, \c (of kernel rows 0, 1, 2), in \q, into the output rows it touches. */ \
    ".macro tn_column i, stride, rows, q, a, b, c\n"                                                                   \
    ".irp y, 0, 1, 2, 3\n"                                                                                             \
    ".if \\y < \\rows\n"                                                                                               \
    ".if (\\i) - \\y * \\stride == 0\n"                                                                                \
    "vmla.s32 q\\y, \\q, \\a\n"                                                                                        \
    ".elseif (\\i) - \\y * \\stride == 1\n"                                                                            \
    "vmla.s32 q\\y, \\q, \\b\n"                                                                                        \
    ".elseif (\\i) - \\y * \\stride == 2\n"                                                                            \
    "vmla.s32 q\\y, \\q, \\c\n"                                                                                        \
    ".endif\n"                                                                                                         \
    ".endif\n"                                                                                                         \
    ".endr\n"                                                                                                          \
    ".endm\n"                                                                                                          \
    ".macro tn_next_row bytes\n"                                                                                       \
    ".if (\\bytes) > 4095\n"                                                                                           \
    "movw r11, #(\\bytes)\n"                                                                                           \
    "add r0, r0, r11\n"                                                                                                \
    ".else\n"                                                                                                          \
    "addw r0, r0, #(\\bytes)\n"                                                                                        \
    ".endif\n"                                                                                                         \
    ".endm\n"                                                                                                          \
    ".macro tn_input_row i, stride, rows, rowb\n"                                                                      \
    ".irp y, 0, 1, 2, 3\n"                                                                                             \
    ".if \\y < \\rows && (\\i) == \\y * \\stride\n"                                                                    \
    "vmov q\\y, q6\n"                                                                                                  \
    ".endif\n"                                                                                                         \
    ".endr\n"                                                                                                          \
    ".if \\stride == 1\n"                                                                                              \
    "vldrb.s32 q4, [r0, #1]\n"                                                                                         \
    "tn_column \\i, \\stride, \\rows, q4, r2, r5, r8\n"                                                                \
    "vldrb.s32 q4, [r0, #2]\n"                                                                                         \
    "tn_column \\i, \\stride, \\rows, q4, r3, r6, r9\n"                                                                \
    ".if (\\rowb) < 128\n"                                                                                             \
    "vldrb.s32 q4, [r0], #(\\rowb)\n"                                                                                  \
    ".else\n"                                                                                                          \
    "vldrb.s32 q4, [r0]\n"                                                                                             \
    "tn_next_row \\rowb\n"                                                                                             \
    ".endif\n"                                                                                                         \
    "tn_column \\i, \\stride, \\rows, q4, r1, r4, r7\n"                                                                \
    ".else\n"                                                                                                          \
    "vldrb.s16 q2, [r0, #2]\n"                                                                                         \
    "vmovlb.s16 q4, q2\n"                                                                                              \
    "tn_column \\i, \\stride, \\rows, q4, r3, r6, r9\n"                                                                \
    ".if (\\rowb) < 128\n"                                                                                             \
    "vldrb.s16 q2, [r0], #(\\rowb)\n"                                                                                  \
    ".else\n"                                                                                                          \
    "vldrb.s16 q2, [r0]\n"                                                                                             \
    "tn_next_row \\rowb\n"                                                                                             \
    ".endif\n"                                                                                                         \
    "vmovlb.s16 q4, q2\n"                                                                                              \
    "tn_column \\i, \\stride, \\rows, q4, r1, r4, r7\n"                                                                \
    "vmovlt.s16 q4, q2\n"                                                                                              \
    "tn_column \\i, \\stride, \\rows, q4, r2, r5, r8\n"                                                                \
    ".endif\n"                                                                                                         \
    ".endm\n"                                                                                                          \
    /* Four output columns of \rows rows; r0 and r10 move on by four columns. */                                       \
    ".macro tn_block stride, rows, width, rowb, ostride, shift, lo, hi\n"                                              \
    ".set tn_i, 0\n"                                                                                                   \
    ".rept \\stride * (\\rows - 1) + 3\n"                                                                              \
    ".irp i, 0, 1, 2, 3, 4, 5\n"                                                                                       \
    ".if tn_i == \\i\n"                                                                                                \
    "tn_input_row \\i, \\stride, \\rows, \\rowb\n"                                                                     \
    ".endif\n"                                                                                                         \
    ".endr\n"                                                                                                          \
    ".set tn_i, tn_i + 1\n"                                                                                            \
    ".endr\n"                                                                                                          \
    "tn_add r0, (4*\\stride-(\\stride*(\\rows-1)+3)*(\\rowb)), r11\n"                                                  \
    ".irp y, 0, 1, 2, 3\n"                                                                                             \
    ".if \\y < \\rows\n"                                                                                               \
    ".if \\shift\n"                                                                                                    \
    "vshl.i32 q\\y, q\\y, #(\\shift)\n"                                                                                \
    ".endif\n"                                                                                                         \
    "vqrdmlash.s32 q\\y, q7, r12\n"                                                                                    \
    ".endif\n"                                                                                                         \
    ".endr\n"                                                                                                          \
    "vqmovnb.s32 q0, q0\n"                                                                                             \
    ".if \\rows > 1\n"                                                                                                 \
    "vqmovnt.s32 q0, q1\n"                                                                                             \
    ".endif\n"                                                                                                         \
    "vqmovnb.s16 q0, q0\n"                                                                                             \
    "tn_clamp q0, \\lo, \\hi, q4, r11\n"                                                                               \
    ".if \\rows > 1\n"                                                                                                 \
    "tn_store 16, q0, r10, q5, \\width\n"                                                                              \
    ".else\n"                                                                                                          \
    "adr.w r11, 9f\n"                                                                                                  \
    "vldrw.u32 q4, [r11, #16]\n"                                                                                       \
    "tn_store 32, q0, r10, q4, \\width\n"                                                                              \
    ".endif\n"                                                                                                         \
    ".if \\rows > 2\n"                                                                                                 \
    "vqmovnb.s32 q2, q2\n"                                                                                             \
    "vqmovnt.s32 q2, q3\n"                                                                                             \
    "vqmovnb.s16 q2, q2\n"                                                                                             \
    "tn_clamp q2, \\lo, \\hi, q4, r11\n"                                                                               \
    ".if 2 * (\\width) * (\\ostride) < 4096\n"                                                                         \
    "addw r11, r10, #(2 * (\\width) * (\\ostride))\n"                                                                  \
    ".else\n"                                                                                                          \
    "movw r11, #((2 * (\\width) * (\\ostride)) & 0xffff)\n"                                                            \
    ".if (2 * (\\width) * (\\ostride)) >> 16\n"                                                                        \
    "movt r11, #((2 * (\\width) * (\\ostride)) >> 16)\n"                                                               \
    ".endif\n"                                                                                                         \
    "add r11, r11, r10\n"                                                                                              \
    ".endif\n"                                                                                                         \
    "tn_store 16, q2, r11, q5, \\width\n"                                                                              \
    ".endif\n"                                                                                                         \
    "tn_add r10, 4*(\\ostride), r11\n"                                                                                 \
    ".endm\n"                                                                                                          \
    ".macro tn_store lane, q, base, offsets, width\n"                                                                  \
    ".if (\\width) < 4\n"                                                                                              \
    "vpst\n"                                                                                                           \
    "vstrbt.\\lane \\q, [\\base, \\offsets]\n"                                                                         \
    ".else\n"                                                                                                          \
    "vstrb.\\lane \\q, [\\base, \\offsets]\n"                                                                          \
    ".endif\n"                                                                                                         \
    ".endm\n"                                                                                                          \
    /* All columns of \rows rows, and to the rows after. */                                                            \
    ".macro tn_rows stride, rows, width, rowb, ostride, shift, lo, hi\n"                                               \
    ".if (\\width) >= 8\n"                                                                                             \
    "mov lr, #((\\width) / 4)\n"                                                                                       \
    "6:\n"                                                                                                             \
    "tn_block \\stride, \\rows, \\width, \\rowb, \\ostride, \\shift, \\lo, \\hi\n"                                     \
    "le lr, 6b\n"                                                                                                      \
    ".else\n"                                                                                                          \
    "tn_block \\stride, \\rows, \\width, \\rowb, \\ostride, \\shift, \\lo, \\hi\n"                                     \
    ".endif\n"                                                                                                         \
    ".set tn_done, (\\width) / 4 * 4\n"                                                                                \
    ".if (\\width) < 4\n"                                                                                              \
    ".set tn_done, 4\n"                                                                                                \
    ".elseif (\\width) & 3\n"                                                                                          \
    "tn_add r0, (((\\width)&3)-4)*\\stride, r11\n"                                                                     \
    "tn_add r10, (((\\width)&3)-4)*(\\ostride), r11\n"                                                                 \
    "tn_block \\stride, \\rows, \\width, \\rowb, \\ostride, \\shift, \\lo, \\hi\n"                                     \
    ".set tn_done, \\width\n"                                                                                          \
    ".endif\n"                                                                                                         \
    "tn_add r0, (\\rows*\\stride*(\\rowb)-tn_done*\\stride), r11\n"                                                    \
    "tn_add r10, (\\rows*(\\width)-tn_done)*(\\ostride), r11\n"                                                        \
    ".endm\n"                                                                                                          \
    /* r0 in, r1 out, r2 params, r3 channels, then rows on the stack. r0 in, r1-r9 taps, r10 out, r11 temporary, r12 zero */ \
    /* point; q5 offsets, q6 bias, q7 multiplier. Stack: in, out, params, channels, rows left; rows at 120. */         \
    ".macro tn_depthwise name, stride, width, rowb, chb, ostride, rowset, shift, zp, lo, hi\n"                         \
    "tn_begin \\name\n"                                                                                                \
    "sub sp, sp, #20\n"                                                                                                \
    "adr.w r4, 9f\n"                                                                                                   \
    "vldrw.u32 q5, [r4]\n"                                                                                             \
    ".if (\\width) < 4\n"                                                                                              \
    "movw r4, #((1 << (4 * (\\width))) - 1)\n"                                                                         \
    "vmsr p0, r4\n"                                                                                                    \
    ".endif\n"                                                                                                         \
    "1:\n"                                                                                                             \
    "ldr r6, [sp, #120]\n"                                                                                             \
    "strd r0, r1, [sp]\n"                                                                                              \
    "add r4, r2, #20\n"                                                                                                \
    "strd r4, r3, [sp, #8]\n"                                                                                          \
    "str r6, [sp, #16]\n"                                                                                              \
    "mov r10, r1\n"                                                                                                    \
    "mov r11, r2\n"                                                                                                    \
    "ldrd r4, r5, [r11, #12]\n"                                                                                        \
    "vdup.32 q6, r4\n"                                                                                                 \
    "vdup.32 q7, r5\n"                                                                                                 \
    "mov r12, #(\\zp)\n"                                                                                               \
    "ldrsb r1, [r11]\n"                                                                                                \
    "ldrsb r2, [r11, #1]\n"                                                                                            \
    "ldrsb r3, [r11, #2]\n"                                                                                            \
    "ldrsb r4, [r11, #3]\n"                                                                                            \
    "ldrsb r5, [r11, #4]\n"                                                                                            \
    "ldrsb r6, [r11, #5]\n"                                                                                            \
    "ldrsb r7, [r11, #6]\n"                                                                                            \
    "ldrsb r8, [r11, #7]\n"                                                                                            \
    "ldrsb r9, [r11, #8]\n"                                                                                            \
    ".if (\\rowset) & 4\n"                                                                                             \
    "4:\n"                                                                                                             \
    "ldr r11, [sp, #16]\n"                                                                                             \
    "subs r11, r11, #4\n"                                                                                              \
    "blt.w 2f\n"                                                                                                       \
    "str r11, [sp, #16]\n"                                                                                             \
    "tn_rows \\stride, 4, \\width, \\rowb, \\ostride, \\shift, \\lo, \\hi\n"                                           \
    "b.w 4b\n"                                                                                                         \
    ".endif\n"                                                                                                         \
    "2:\n"                                                                                                             \
    ".if (\\rowset) & 2\n"                                                                                             \
    "ldr r11, [sp, #16]\n"                                                                                             \
    ".if \\stride == 1\n"                                                                                              \
    "tst r11, #2\n"                                                                                                    \
    "beq.w 3f\n"                                                                                                       \
    ".else\n"                                                                                                          \
    "subs r11, r11, #2\n"                                                                                              \
    "blt.w 3f\n"                                                                                                       \
    "str r11, [sp, #16]\n"                                                                                             \
    ".endif\n"                                                                                                         \
    "tn_rows \\stride, 2, \\width, \\rowb, \\ostride, \\shift, \\lo, \\hi\n"                                           \
    ".if \\stride == 2\n"                                                                                              \
    "b.w 2b\n"                                                                                                         \
    ".endif\n"                                                                                                         \
    ".endif\n"                                                                                                         \
    "3:\n"                                                                                                             \
    ".if (\\rowset) & 1\n"                                                                                             \
    "ldr r11, [sp, #16]\n"                                                                                             \
    "tst r11, #1\n"                                                                                                    \
    "beq.w 5f\n"                                                                                                       \
    "tn_rows \\stride, 1, \\width, \\rowb, \\ostride, \\shift, \\lo, \\hi\n"                                           \
    ".endif\n"                                                                                                         \
    "5:\n"                                                                                                             \
    "ldrd r0, r1, [sp]\n"                                                                                              \
    "ldrd r2, r3, [sp, #8]\n"                                                                                          \
    "tn_add r0, (\\chb), r11\n"                                                                                        \
    "add r1, r1, #1\n"                                                                                                 \
    "subs r3, r3, #1\n"                                                                                                \
    "bne.w 1b\n"                                                                                                       \
    "add sp, sp, #20\n"                                                                                                \
    "vpop {d8-d15}\n"                                                                                                  \
    "pop {r4-r11, pc}\n"                                                                                               \
    ".p2align 2\n"                                                                                                     \
    "9:\n"                                                                                                             \
    ".irp x, 0, 1, 2, 3\n"                                                                                             \
    ".short \\x * (\\ostride), ((\\width) + \\x) * (\\ostride)\n"                                                      \
    ".endr\n"                                                                                                          \
    ".irp x, 0, 1, 2, 3\n"                                                                                             \
    ".word \\x * (\\ostride)\n"                                                                                        \
    ".endr\n"                                                                                                          \
    "tn_end \\name\n"                                                                                                  \
    ".endm\n"                                                                                                          \
    ".endif\n"
/* clang-format on */

/* Depthwise 3x3 on planes (rows ROWB apart, channels CHB): `rows` rows of WIDTH pixels to pixels of OSTRIDE bytes.
 * params of a channel: 9 taps and 3 bytes unused, bias, multiplier. ROWSET: which heights of blocks are there, 4, 2 and
 * 1, as a sum: what `rows` can need (STRIDE 2: 2 and 1).
 * 73 instructions for 4 x 4 outputs with STRIDE 1 (rows less than 128 bytes apart), 53 for 4 x 2 with STRIDE 2. */
#define TN_DEF_MVE_DEPTHWISE(NAME, STRIDE, WIDTH, ROWB, CHB, OSTRIDE, ROWSET, SHIFT, ZP, LO, HI)                       \
    TN_EXTERN void NAME(const int8_t *in, int8_t *out, const int32_t *params, int32_t channels, int32_t rows);         \
    TN_MVE_KERNEL(TN_MVE_LANES_MACROS, "tn_depthwise " #NAME ", " #STRIDE ", " #WIDTH ", " #ROWB ", " #CHB             \
                                       ", " #OSTRIDE ", " #ROWSET ", " #SHIFT ", " #ZP ", " #LO ", " #HI)

/* clang-format off */
#define TN_MVE_PATCHES_MACROS                                                                                          \
    ".ifndef tn_mve_patches_macros\n"                                                                                  \
    ".set tn_mve_patches_macros, 1\n"                                                                                  \
    /* Sums of four columns of two rows to int8 in the even bytes of q0. */                                            \
    ".macro tn_sums_requantized shift, lo, hi\n"                                                                       \
    "vmov q0[2], q0[0], r0, r4\n"                                                                                      \
    "vmov q0[3], q0[1], r2, r6\n"                                                                                      \
    "vmov q1[2], q1[0], r8, r12\n"                                                                                     \
    "vmov q1[3], q1[1], r10, lr\n"                                                                                     \
    "vadd.i32 q0, q0, r7\n"                                                                                            \
    "vadd.i32 q1, q1, r7\n"                                                                                            \
    ".if \\shift\n"                                                                                                    \
    "vshl.i32 q0, q0, #(\\shift)\n"                                                                                    \
    "vshl.i32 q1, q1, #(\\shift)\n"                                                                                    \
    ".endif\n"                                                                                                         \
    "vqrdmlash.s32 q0, q6, r5\n"                                                                                       \
    "vqrdmlash.s32 q1, q6, r5\n"                                                                                       \
    "vqmovnb.s32 q0, q0\n"                                                                                             \
    "vqmovnt.s32 q0, q1\n"                                                                                             \
    "vqmovnb.s16 q0, q0\n"                                                                                             \
    "tn_clamp q0, \\lo, \\hi, q1, r0\n"                                                                                \
    ".endm\n"                                                                                                          \
    /* Four columns of two rows: two patches of four by four pixels, each under the four shifted kernels. */           \
    ".macro tn_patches ostride, shift, lo, hi\n"                                                                       \
    "vldrw.u32 q1, [r1, #8]\n"                                                                                         \
    "vldrw.u32 q0, [r1], #16\n"                                                                                        \
    "vmladav.s8 r0, q0, q2\n"                                                                                          \
    "vmladav.s8 r2, q0, q3\n"                                                                                          \
    "vmladav.s8 r8, q0, q4\n"                                                                                          \
    "vmladav.s8 r10, q0, q5\n"                                                                                         \
    "vmladav.s8 r4, q1, q2\n"                                                                                          \
    "vmladav.s8 r6, q1, q3\n"                                                                                          \
    "vmladav.s8 r12, q1, q4\n"                                                                                         \
    "vmladav.s8 lr, q1, q5\n"                                                                                          \
    "tn_sums_requantized \\shift, \\lo, \\hi\n"                                                                        \
    "vstrb.16 q0, [r3, q7]\n"                                                                                          \
    "tn_add r3, 4*(\\ostride), r11\n"                                                                                  \
    ".endm\n"                                                                                                          \
    ".macro tn_row_below rd, rn, rowb\n"                                                                               \
    ".if (\\rowb) < 4096\n"                                                                                            \
    "addw \\rd, \\rn, #(\\rowb)\n"                                                                                     \
    ".else\n"                                                                                                          \
    "movw r11, #(\\rowb)\n"                                                                                            \
    "add \\rd, \\rn, r11\n"                                                                                            \
    ".endif\n"                                                                                                         \
    ".endm\n"                                                                                                          \
    /* r0 in, r1 out, r2 params, r3 channels, then rows on the stack. Inside: r1 patches, r3 out, r5 zero point, r7 bias, r9 */ \
    /* blocks left, r11 temporary; even registers and lr sum. q2-q5 kernels, q6 multiplier, q7 offsets. */             \
    /* Stack: taps among zeros (24), in and out at 32, params, channels, rows left, row at 52, patches at 64. */       \
    ".macro tn_depthwise_patches name, width, rowb, chb, ostride, shift, zp, lo, hi\n"                                 \
    "tn_begin \\name\n"                                                                                                \
    ".set tn_chunks, ((\\width) + 17) / 16\n"                                                                          \
    ".set tn_frame, 64 + 64 * tn_chunks\n"                                                                             \
    "sub sp, sp, #tn_frame\n"                                                                                          \
    "mov r5, #(\\zp)\n"                                                                                                \
    "mov r4, #0\n"                                                                                                     \
    "strd r4, r4, [sp]\n"                                                                                              \
    "str r4, [sp, #20]\n"                                                                                              \
    "1:\n"                                                                                                             \
    "strd r0, r1, [sp, #32]\n"                                                                                         \
    "add r4, r2, #20\n"                                                                                                \
    "strd r4, r3, [sp, #40]\n"                                                                                         \
    "ldr r6, [sp, #(100 + tn_frame)]\n"                                                                                \
    "strd r6, r0, [sp, #48]\n"                                                                                         \
    "mov r3, r1\n"                                                                                                     \
    "ldm r2, {r4, r6, r7, r8, r10}\n"                                                                                  \
    "strd r4, r6, [sp, #8]\n"                                                                                          \
    "str r7, [sp, #16]\n"                                                                                              \
    "mov r7, r8\n"                                                                                                     \
    "vdup.32 q6, r10\n"                                                                                                \
    "add r4, sp, #3\n"                                                                                                 \
    "vldrb.u8 q5, [r4]\n"                                                                                              \
    "vldrb.u8 q4, [r4, #4]\n"                                                                                          \
    "adr.w r4, 9f\n"                                                                                                   \
    "vldrw.u32 q7, [r4]\n"                                                                                             \
    "2:\n"                                                                                                             \
    "ldrd r8, r0, [sp, #48]\n"                                                                                         \
    "cmp r8, #1\n"                                                                                                     \
    "blt.w 5f\n"                                                                                                       \
    "tn_row_below r2, r0, \\rowb\n"                                                                                    \
    "tn_row_below r4, r2, \\rowb\n"                                                                                    \
    "tn_row_below r6, r4, \\rowb\n"                                                                                    \
    "bne.n 3f\n"                                                                                                       \
    /* A single last row: both rows of the block are that one, written twice. */                                       \
    "mov r6, r4\n"                                                                                                     \
    "adr.w r1, 9f\n"                                                                                                   \
    "vldrw.u32 q7, [r1, #16]\n"                                                                                        \
    "add r1, sp, #4\n"                                                                                                 \
    "vldrb.u8 q5, [r1]\n"                                                                                              \
    "vldrb.u8 q4, [r1, #4]\n"                                                                                          \
    "3:\n"                                                                                                             \
    "subs r8, r8, #2\n"                                                                                                \
    "strd r8, r4, [sp, #48]\n"                                                                                         \
    "add r1, sp, #64\n"                                                                                                \
    ".rept tn_chunks\n"                                                                                                \
    "vldrb.u8 q0, [r0], #16\n"                                                                                         \
    "vldrb.u8 q1, [r2], #16\n"                                                                                         \
    "vldrb.u8 q2, [r4], #16\n"                                                                                         \
    "vldrb.u8 q3, [r6], #16\n"                                                                                         \
    "vst40.8 {q0, q1, q2, q3}, [r1]\n"                                                                                 \
    "vst41.8 {q0, q1, q2, q3}, [r1]\n"                                                                                 \
    "vst42.8 {q0, q1, q2, q3}, [r1]\n"                                                                                 \
    "vst43.8 {q0, q1, q2, q3}, [r1]!\n"                                                                                \
    ".endr\n"                                                                                                          \
    "add r1, sp, #4\n"                                                                                                 \
    "vldrb.u8 q3, [r1]\n"                                                                                              \
    "vldrb.u8 q2, [r1, #4]\n"                                                                                          \
    "add r1, sp, #64\n"                                                                                                \
    ".if (\\width) >= 8\n"                                                                                             \
    "mov r9, #((\\width) / 4)\n"                                                                                       \
    "6:\n"                                                                                                             \
    "tn_patches \\ostride, \\shift, \\lo, \\hi\n"                                                                      \
    "subs r9, r9, #1\n"                                                                                                \
    "bne.n 6b\n"                                                                                                       \
    ".else\n"                                                                                                          \
    "tn_patches \\ostride, \\shift, \\lo, \\hi\n"                                                                      \
    ".endif\n"                                                                                                         \
    ".if (\\width) & 3\n"                                                                                              \
    "tn_add r1, (((\\width)&3)-4)*4, r11\n"                                                                            \
    "tn_add r3, (((\\width)&3)-4)*(\\ostride), r11\n"                                                                  \
    "tn_patches \\ostride, \\shift, \\lo, \\hi\n"                                                                      \
    ".endif\n"                                                                                                         \
    "tn_add r3, (\\width)*(\\ostride), r11\n"                                                                          \
    "b.w 2b\n"                                                                                                         \
    "5:\n"                                                                                                             \
    "ldrd r0, r1, [sp, #32]\n"                                                                                         \
    "ldrd r2, r3, [sp, #40]\n"                                                                                         \
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
    ".irp x, 0, 1, 2, 3\n"                                                                                             \
    ".short \\x * (\\ostride), \\x * (\\ostride)\n"                                                                    \
    ".endr\n"                                                                                                          \
    "tn_end \\name\n"                                                                                                  \
    ".endm\n"                                                                                                          \
    ".endif\n"
/* clang-format on */

/* The same with STRIDE 1, WIDTH 4 or more: rows are interleaved by four, so that 16 bytes are a patch of 4 x 4 pixels,
 * in which the kernel has four places: a VMLADAV for each output. Taps in the order [3 columns][4 rows], the fourth 0.
 * 25 instructions for 4 x 2 outputs, and 8 for 16 columns of 4 rows interleaved. */
#define TN_DEF_MVE_DEPTHWISE_PATCHES(NAME, WIDTH, ROWB, CHB, OSTRIDE, SHIFT, ZP, LO, HI)                               \
    TN_EXTERN void NAME(const int8_t *in, int8_t *out, const int32_t *params, int32_t channels, int32_t rows);         \
    TN_MVE_KERNEL(TN_MVE_PATCHES_MACROS, "tn_depthwise_patches " #NAME ", " #WIDTH ", " #ROWB ", " #CHB ", " #OSTRIDE  \
                                         ", " #SHIFT ", " #ZP ", " #LO ", " #HI)
#endif
