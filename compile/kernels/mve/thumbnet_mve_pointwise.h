/* Pointwise kernels of thumbnet_mve.h, and what brings the image's pixels into their input. Included by thumbnet_mve.h.
 */
#ifndef TN_MVE_POINTWISE_H
#define TN_MVE_POINTWISE_H

/* clang-format off */
#define TN_MVE_POINTWISE_MACROS                                                                                        \
    ".ifndef tn_mve_pointwise_macros\n"                                                                                \
    ".set tn_mve_pointwise_macros, 1\n"                                                                                \
    ".macro tn_mac first, acc, a, w\n"                                                                                 \
    ".if \\first\n"                                                                                                    \
    "vmladav.s8 \\acc, \\a, \\w\n"                                                                                     \
    ".else\n"                                                                                                          \
    "vmladava.s8 \\acc, \\a, \\w\n"                                                                                    \
    ".endif\n"                                                                                                         \
    ".endm\n"                                                                                                          \
    /* The next vector of weights, bias or multipliers. */                                                             \
    ".macro tn_weight q\n"                                                                                             \
    ".if tn_wback\n"                                                                                                   \
    "vldrw.u32 \\q, [r3], #16\n"                                                                                       \
    ".else\n"                                                                                                          \
    "vldrw.u32 \\q, [r3, #tn_w]\n"                                                                                     \
    ".set tn_w, tn_w + 16\n"                                                                                           \
    ".endif\n"                                                                                                         \
    ".endm\n"                                                                                                          \
    ".macro tn_mac_held pixels, first\n"                                                                               \
    "tn_mac \\first, r0, q0, q3\n"                                                                                     \
    "tn_mac \\first, r2, q0, q4\n"                                                                                     \
    "tn_mac \\first, r4, q0, q5\n"                                                                                     \
    "tn_mac \\first, r6, q0, q6\n"                                                                                     \
    ".if \\pixels == 2\n"                                                                                              \
    "tn_mac \\first, r8, q1, q3\n"                                                                                     \
    "tn_mac \\first, r10, q1, q4\n"                                                                                    \
    "tn_mac \\first, r12, q1, q5\n"                                                                                    \
    "tn_mac \\first, lr, q1, q6\n"                                                                                     \
    ".endif\n"                                                                                                         \
    ".endm\n"                                                                                                          \
    ".macro tn_mac_channel pixels, first, a, b\n"                                                                      \
    "tn_weight q2\n"                                                                                                   \
    "tn_mac \\first, \\a, q0, q2\n"                                                                                    \
    ".if \\pixels == 2\n"                                                                                              \
    "tn_mac \\first, \\b, q1, q2\n"                                                                                    \
    ".endif\n"                                                                                                         \
    ".endm\n"                                                                                                          \
    ".macro tn_mac_streamed pixels, first\n"                                                                           \
    "tn_mac_channel \\pixels, \\first, r0, r8\n"                                                                       \
    "tn_mac_channel \\pixels, \\first, r2, r10\n"                                                                      \
    "tn_mac_channel \\pixels, \\first, r4, r12\n"                                                                      \
    "tn_mac_channel \\pixels, \\first, r6, lr\n"                                                                       \
    ".endm\n"                                                                                                          \
    ".macro tn_load q, base, index\n"                                                                                  \
    ".if tn_words\n"                                                                                                   \
    "vldrw.u32 \\q, [\\base, #(\\index)]\n"                                                                            \
    ".else\n"                                                                                                          \
    "vldrb.u8 \\q, [\\base, #(\\index)]\n"                                                                             \
    ".endif\n"                                                                                                         \
    ".endm\n"                                                                                                          \
    ".macro tn_load_next q, base, by\n"                                                                                \
    ".if tn_words\n"                                                                                                   \
    "vldrw.u32 \\q, [\\base], #(\\by)\n"                                                                               \
    ".else\n"                                                                                                          \
    "vldrb.u8 \\q, [\\base], #(\\by)\n"                                                                                \
    ".endif\n"                                                                                                         \
    ".endm\n"                                                                                                          \
    ".macro tn_step_far pixels\n"                                                                                      \
    "tn_load_next q0, r1, 16\n"                                                                                        \
    ".if \\pixels == 2\n"                                                                                              \
    "tn_load_next q1, r7, 16\n"                                                                                        \
    ".endif\n"                                                                                                         \
    "tn_mac_streamed \\pixels, 0\n"                                                                                    \
    ".endm\n"                                                                                                          \
    /* One or two pixels times four channels: accumulators to q0 and q1, requantized and narrowed into the even bytes of q0. */ \
    ".macro tn_pixels pixels, stride, shift, zp, lo, hi\n"                                                             \
    ".set tn_w, 0\n"                                                                                                   \
    ".if tn_far\n"                                                                                                     \
    ".if \\pixels == 2\n"                                                                                              \
    "add r7, r1, #(\\stride)\n"                                                                                        \
    ".endif\n"                                                                                                         \
    "tn_load_next q0, r1, 16\n"                                                                                        \
    ".if \\pixels == 2\n"                                                                                              \
    "tn_load_next q1, r7, 16\n"                                                                                        \
    ".endif\n"                                                                                                         \
    "tn_mac_held \\pixels, 1\n"                                                                                        \
    ".set tn_loops, 0\n"                                                                                               \
    ".if tn_steps > 25\n"                                                                                              \
    ".set tn_loops, (tn_steps - 1) / 8\n"                                                                              \
    ".endif\n"                                                                                                         \
    ".rept tn_steps - 1 - 8 * tn_loops\n"                                                                              \
    "tn_step_far \\pixels\n"                                                                                           \
    ".endr\n"                                                                                                          \
    ".if tn_loops\n"                                                                                                   \
    "movw r9, #tn_loops\n"                                                                                             \
    "7:\n"                                                                                                             \
    ".rept 8\n"                                                                                                        \
    "tn_step_far \\pixels\n"                                                                                           \
    ".endr\n"                                                                                                          \
    "subs r9, r9, #1\n"                                                                                                \
    "bne 7b\n"                                                                                                         \
    ".endif\n"                                                                                                         \
    "tn_add r1, (\\pixels*(\\stride)-16*tn_steps), r7\n"                                                               \
    ".else\n"                                                                                                          \
    ".set tn_k, 1\n"                                                                                                   \
    ".rept tn_steps - 1\n"                                                                                             \
    "tn_load q0, r1, 16*tn_k\n"                                                                                        \
    ".if \\pixels == 2\n"                                                                                              \
    "tn_load q1, r1, (\\stride)+16*tn_k\n"                                                                             \
    ".endif\n"                                                                                                         \
    ".if tn_k == 1\n"                                                                                                  \
    "tn_mac_streamed \\pixels, 1\n"                                                                                    \
    ".else\n"                                                                                                          \
    "tn_mac_streamed \\pixels, 0\n"                                                                                    \
    ".endif\n"                                                                                                         \
    ".set tn_k, tn_k + 1\n"                                                                                            \
    ".endr\n"                                                                                                          \
    ".if \\pixels == 2\n"                                                                                              \
    "tn_load q1, r1, (\\stride)\n"                                                                                     \
    ".endif\n"                                                                                                         \
    "tn_load_next q0, r1, \\pixels*(\\stride)\n"                                                                       \
    ".if tn_steps == 1\n"                                                                                              \
    "tn_mac_held \\pixels, 1\n"                                                                                        \
    ".else\n"                                                                                                          \
    "tn_mac_held \\pixels, 0\n"                                                                                        \
    ".endif\n"                                                                                                         \
    ".endif\n"                                                                                                         \
    "vmov q0[2], q0[0], r0, r4\n"                                                                                      \
    "vmov q0[3], q0[1], r2, r6\n"                                                                                      \
    ".if \\pixels == 2\n"                                                                                              \
    "vmov q1[2], q1[0], r8, r12\n"                                                                                     \
    "vmov q1[3], q1[1], r10, lr\n"                                                                                     \
    ".endif\n"                                                                                                         \
    "tn_weight q2\n"                                                                                                   \
    "vadd.i32 q0, q0, q2\n"                                                                                            \
    ".if \\pixels == 2\n"                                                                                              \
    "vadd.i32 q1, q1, q2\n"                                                                                            \
    ".endif\n"                                                                                                         \
    ".if \\shift\n"                                                                                                    \
    "vshl.i32 q0, q0, #(\\shift)\n"                                                                                    \
    ".if \\pixels == 2\n"                                                                                              \
    "vshl.i32 q1, q1, #(\\shift)\n"                                                                                    \
    ".endif\n"                                                                                                         \
    ".endif\n"                                                                                                         \
    "tn_weight q2\n"                                                                                                   \
    ".if tn_wback\n"                                                                                                   \
    "tn_add r3, -(64*tn_steps-32), r7\n"                                                                               \
    ".endif\n"                                                                                                         \
    ".if tn_far && tn_steps > 25\n"                                                                                    \
    "mov r9, #(\\zp)\n"                                                                                                \
    ".endif\n"                                                                                                         \
    "vqrdmlash.s32 q0, q2, r9\n"                                                                                       \
    ".if \\pixels == 2\n"                                                                                              \
    "vqrdmlash.s32 q1, q2, r9\n"                                                                                       \
    ".endif\n"                                                                                                         \
    "vqmovnb.s32 q0, q0\n"                                                                                             \
    ".if \\pixels == 2\n"                                                                                              \
    "vqmovnt.s32 q0, q1\n"                                                                                             \
    ".endif\n"                                                                                                         \
    "vqmovnb.s16 q0, q0\n"                                                                                             \
    "tn_clamp q0, \\lo, \\hi, q1, r0\n"                                                                                \
    ".endm\n"                                                                                                          \
    /* r0 act, r1 out, r2 weights, r3 pairs in a row, then rows, gap, blocks on the stack. Inside: r1 act, r3 weights, r5 out, */ \
    /* r7 second pixel or temporary, r9 zero point, r11 pairs left; even registers and lr sum. q3-q6 weights, q7 offsets. */ \
    /* Stack: act, out, rows left, pairs; what was saved; at 116 rows, gap, blocks left. */                            \
    ".macro tn_pointwise name, k, stride, och, opix, last, tail, odd, shift, zp, lo, hi\n"                             \
    "tn_begin \\name\n"                                                                                                \
    ".set tn_steps, ((\\k) + 15) / 16\n"                                                                               \
    ".set tn_words, !((\\stride) & 3)\n"                                                                               \
    ".set tn_limit, 127 + 381 * tn_words\n"                                                                            \
    ".set tn_far, ((\\stride) + 16 * (tn_steps - 1) > tn_limit) || (2 * (\\stride) > tn_limit)\n"                      \
    ".set tn_wback, tn_steps > 8\n"                                                                                    \
    "push {r0-r3}\n"                                                                                                   \
    "mov r3, r2\n"                                                                                                     \
    "mov r9, #(\\zp)\n"                                                                                                \
    "adr.w r0, 9f\n"                                                                                                   \
    "vldrw.u32 q7, [r0]\n"                                                                                             \
    "8:\n"                                                                                                             \
    "vldrw.u32 q3, [r3], #16\n"                                                                                        \
    "vldrw.u32 q4, [r3], #16\n"                                                                                        \
    "vldrw.u32 q5, [r3], #16\n"                                                                                        \
    "vldrw.u32 q6, [r3], #16\n"                                                                                        \
    "ldrd r1, r5, [sp]\n"                                                                                              \
    "ldr r0, [sp, #116]\n"                                                                                             \
    "str r0, [sp, #8]\n"                                                                                               \
    "ldr r11, [sp, #12]\n"                                                                                             \
    "1:\n"                                                                                                             \
    ".if \\odd\n"                                                                                                      \
    "cmp r11, #0\n"                                                                                                    \
    "beq.w 3f\n"                                                                                                       \
    ".endif\n"                                                                                                         \
    "2:\n"                                                                                                             \
    "tn_pixels 2, \\stride, \\shift, \\zp, \\lo, \\hi\n"                                                               \
    "vstrb.16 q0, [r5, q7]\n"                                                                                          \
    "tn_add r5, 2*(\\opix), r7\n"                                                                                      \
    "subs r11, r11, #1\n"                                                                                              \
    "bne.w 2b\n"                                                                                                       \
    ".if \\odd\n"                                                                                                      \
    "3:\n"                                                                                                             \
    "tn_pixels 1, \\stride, \\shift, \\zp, \\lo, \\hi\n"                                                               \
    "adr.w r0, 9f\n"                                                                                                   \
    "vldrw.u32 q1, [r0, #16]\n"                                                                                        \
    "vstrb.32 q0, [r5, q1]\n"                                                                                          \
    "tn_add r5, (\\opix), r7\n"                                                                                        \
    ".endif\n"                                                                                                         \
    "ldrd r0, r11, [sp, #8]\n"                                                                                         \
    "ldr r2, [sp, #120]\n"                                                                                             \
    "subs r0, r0, #1\n"                                                                                                \
    "str r0, [sp, #8]\n"                                                                                               \
    "add r5, r5, r2\n"                                                                                                 \
    "bne.w 1b\n"                                                                                                       \
    "tn_add r3, (64*tn_steps-32), r7\n"                                                                                \
    "ldr r0, [sp, #124]\n"                                                                                             \
    "ldr r5, [sp, #4]\n"                                                                                               \
    "tn_add r5, 4*(\\och), r7\n"                                                                                       \
    "sub r0, r0, #1\n"                                                                                                 \
    "str r0, [sp, #124]\n"                                                                                             \
    ".if \\tail\n"                                                                                                     \
    "cmp r0, #1\n"                                                                                                     \
    "bne.n 4f\n"                                                                                                       \
    "tn_add r5, ((\\tail)-4)*(\\och), r7\n"                                                                            \
    "4:\n"                                                                                                             \
    ".endif\n"                                                                                                         \
    "str r5, [sp, #4]\n"                                                                                               \
    "cmp r0, #0\n"                                                                                                     \
    "bne.w 8b\n"                                                                                                       \
    "add sp, sp, #16\n"                                                                                                \
    "vpop {d8-d15}\n"                                                                                                  \
    "pop {r4-r11, pc}\n"                                                                                               \
    ".p2align 2\n"                                                                                                     \
    "9:\n"                                                                                                             \
    ".irp channel, 0, 1, 2, 3\n"                                                                                       \
    ".if \\channel < (\\last)\n"                                                                                       \
    ".short \\channel * (\\och), \\channel * (\\och) + (\\opix)\n"                                                     \
    ".else\n"                                                                                                          \
    ".short (\\last) * (\\och), (\\last) * (\\och) + (\\opix)\n"                                                       \
    ".endif\n"                                                                                                         \
    ".endr\n"                                                                                                          \
    ".irp channel, 0, 1, 2, 3\n"                                                                                       \
    ".if \\channel < (\\last)\n"                                                                                       \
    ".word \\channel * (\\och)\n"                                                                                      \
    ".else\n"                                                                                                          \
    ".word (\\last) * (\\och)\n"                                                                                       \
    ".endif\n"                                                                                                         \
    ".endr\n"                                                                                                          \
    "tn_end \\name\n"                                                                                                  \
    ".endm\n"                                                                                                          \
    ".endif\n"
/* clang-format on */

/* Pointwise: 2 pixels x 4 output channels, K input channels. A row is 2 * pairs pixels, and one more where ODD is 1;
 * gap bytes of out are skipped after each of `rows` rows; act goes on. Output channels are OCH bytes apart, pixels
 * OPIX. All blocks of 4 channels; of N channels, N > 4, the last block lies over the one before where TAIL = N % 4 is
 * not 0; LAST is 3, or N - 1 where N < 4 (the last channel is repeated). weights of a block: [K / 16 rounded up][4
 * channels][16] int8, bias[4], multiplier[4] int32. 14 * K / 16 + 13 instructions for 8 outputs; 4 vectors of weights
 * stay in registers. */
#define TN_DEF_MVE_POINTWISE(NAME, K, STRIDE, OCH, OPIX, LAST, TAIL, ODD, SHIFT, ZP, LO, HI)                           \
    TN_EXTERN void NAME(const int8_t *act, int8_t *out, const int32_t *weights, int32_t pairs, int32_t rows,           \
                        int32_t gap, int32_t blocks);                                                                  \
    TN_MVE_KERNEL(TN_MVE_POINTWISE_MACROS, "tn_pointwise " #NAME ", " #K ", " #STRIDE ", " #OCH ", " #OPIX ", " #LAST  \
                                           ", " #TAIL ", " #ODD ", " #SHIFT ", " #ZP ", " #LO ", " #HI)

/* clang-format off */
#define TN_MVE_IMAGE_MACROS                                                                                            \
    ".ifndef tn_mve_image_macros\n"                                                                                    \
    ".set tn_mve_image_macros, 1\n"                                                                                    \
    /* r0 image row, r1 act, r2 pixels. Rows of taps of at most 16 bytes; what a store writes too much the next overwrites. */ \
    ".macro tn_im2col name, taps, rowb, step, slots\n"                                                                 \
    "tn_begin \\name\n"                                                                                                \
    "mov lr, r2\n"                                                                                                     \
    "addw r2, r0, #(\\rowb)\n"                                                                                         \
    "addw r3, r2, #(\\rowb)\n"                                                                                         \
    "1:\n"                                                                                                             \
    "vldrb.u8 q0, [r0], #(\\step)\n"                                                                                   \
    "vldrb.u8 q1, [r2], #(\\step)\n"                                                                                   \
    "vldrb.u8 q2, [r3], #(\\step)\n"                                                                                   \
    "vstrb.8 q0, [r1], #(\\taps)\n"                                                                                    \
    "vstrb.8 q1, [r1], #(\\taps)\n"                                                                                    \
    "vstrb.8 q2, [r1], #((\\slots) - 2 * (\\taps))\n"                                                                  \
    "le lr, 1b\n"                                                                                                      \
    "vpop {d8-d15}\n"                                                                                                  \
    "pop {r4-r11, pc}\n"                                                                                               \
    "tn_end \\name\n"                                                                                                  \
    ".endm\n"                                                                                                          \
    ".endif\n"
/* clang-format on */

/* Taps of a 3-row kernel, TAPS bytes of each row, into SLOTS bytes a pixel; pixels STEP bytes apart in the image. */
#define TN_DEF_MVE_IM2COL(NAME, TAPS, ROWB, STEP, SLOTS)                                                               \
    TN_EXTERN void NAME(const int8_t *in, int8_t *act, int32_t pixels);                                                \
    TN_MVE_KERNEL(TN_MVE_IMAGE_MACROS, "tn_im2col " #NAME ", " #TAPS ", " #ROWB ", " #STEP ", " #SLOTS)
#endif
