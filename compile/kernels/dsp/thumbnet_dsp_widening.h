/* Pointwise weights from int8 in flash to int16 streams in RAM, in assembly, for thumbnet_dsp.h, which includes this.
 * The functions keep the Procedure Call Standard: arguments in r0-r3 and on the stack, r4-r11 preserved.
 */
#ifndef TN_KERNELS_WIDENING_H
#define TN_KERNELS_WIDENING_H

/* clang-format off */

/* Four words of int8 to int16: bytes 0 and 2 of a word, then bytes 1 and 3. */
#define TN_WIDEN_4_5                                                                                    \
    "sxtb16 r4, r5\n sxtb16 r5, r5, ror #8\n"
#define TN_WIDEN_6_7                                                                                    \
    "sxtb16 r6, r7\n sxtb16 r7, r7, ror #8\n"
#define TN_WIDEN_8_11                                                                                   \
    "sxtb16 r8, r9\n sxtb16 r9, r9, ror #8\n"                                                           \
    "sxtb16 r10, r11\n sxtb16 r11, r11, ror #8\n"
#define TN_WIDEN_4_11                                                                                   \
    TN_WIDEN_4_5 TN_WIDEN_6_7 TN_WIDEN_8_11
/* Sixteen words a turn, from r1 to r0, until that is at r2. */
#define TN_WIDEN_TURNS                                                                                  \
    "1:\n"                                                                                              \
    ".rept 4\n"                                                                                         \
    "  ldm r1!, {r5, r7, r9, r11}\n"                                                                    \
       TN_WIDEN_4_11                                                                                    \
    "  stm r0!, {r4-r11}\n"                                                                             \
    ".endr\n"                                                                                           \
    "cmp r0, r2\n"                                                                                      \
    "bne 1b\n"

/* Widens the weights of four channels into a stream. Flash: {b0, b1, b2, b3}, then for each two slots a word of channels
 * 0 and 1, {0, 1} of slot 0 and {0, 1} of slot 1 (so that SXTB16 gives neighbours), and one of channels 2 and 3, then
 * {M0, M1, M2, M3}. K a multiple of 4, 16 weights a word of four: some 1.4 cycles a weight. */
#define TN_DEF_WIDEN4(NAME)                                                                             \
    TN_EXTERN void NAME(int32_t *stream, const int32_t *flash, int32_t zo, int32_t cs, int32_t k);      \
    TN_FN(NAME,                                                                                         \
    "push {r2, r4-r11, lr}\n"                                                                           \
    "ldm r1!, {r4, r6, r8, r10}\n"                                                                      \
    "mov r5, r4\n"                                                                                      \
    "mov r7, r6\n"                                                                                      \
    "mov r9, r8\n"                                                                                      \
    "mov r11, r10\n"                                                                                    \
    "stm r0!, {r4-r11}\n"                                                                               \
    "ldr r2, [sp, #40]\n"                                                                               \
    "str r3, [r0], #4\n"                                                                                \
    "add r3, r0, r2, lsl #3\n"               /* end of the weights, and of those in turns */            \
    "and r2, r2, #12\n"                                                                                 \
    "sub r2, r3, r2, lsl #3\n"                                                                          \
    "cmp r0, r2\n"                                                                                      \
    "beq 2f\n"                                                                                          \
    TN_WIDEN_TURNS                                                                                      \
    "2:\n"                                                                                              \
    "cmp r0, r3\n"                                                                                      \
    "beq 4f\n"                                                                                          \
    "3:\n"                                                                                              \
    "ldm r1!, {r5, r7, r9, r11}\n"                                                                      \
    TN_WIDEN_4_11                                                                                       \
    "stm r0!, {r4-r11}\n"                                                                               \
    "cmp r0, r3\n"                                                                                      \
    "bne 3b\n"                                                                                          \
    "4:\n"                                                                                              \
    "ldm r1, {r4-r7}\n"                                                                                 \
    "pop {r8}\n"                                                                                        \
    "stm r0, {r4-r8}\n"                                                                                 \
    "pop {r4-r11, pc}\n")

/* Widens the weights of one channel pair into a stream. Flash: {b0, b1, M0, M1}, then a word for each two slots as above.
 * K a multiple of 4; 0.7 instructions a weight. Returns the flash pointer of the next pair. A turn of the loop takes 8
 * slots, or 16 or 32 where they divide K. */
#define TN_DEF_WIDEN(NAME, K)                                                                           \
    const int32_t *NAME(int32_t *stream, const int32_t *flash, int32_t zo, int32_t cs);                 \
    TN_FN(NAME,                                                                                         \
    TN_LET("K", K)                                                                                      \
    "push {r2, r3, r4-r11, lr}\n"                                                                       \
    "ldm r1!, {r4, r5, r12, lr}\n"           /* b0, b1, M0, M1 */                                       \
    "mov r6, r4\n"                                                                                      \
    "mov r7, r5\n"                                                                                      \
    "stm r0!, {r4-r7}\n"                                                                                \
    ".if .Lk_K/8\n"                                                                                     \
    "  .if .Lk_K < 1024\n"                                                                              \
    "    add r2, r0, #(.Lk_K/8*32)\n"                                                                   \
    "  .else\n"                                                                                         \
    "    movw r2, #(.Lk_K/8*32)\n"                                                                      \
    "    add r2, r2, r0\n"                                                                              \
    "  .endif\n"                                                                                        \
    "  1:\n"                                                                                            \
    "  .rept 1 + 3*!(.Lk_K%32) + !(.Lk_K%16)*!!(.Lk_K%32)\n"                                            \
    "    ldm r1!, {r5, r7, r9, r11}\n"                                                                  \
         TN_WIDEN_4_11                                                                                  \
    "    stm r0!, {r4-r11}\n"                                                                           \
    "  .endr\n"                                                                                         \
    "  cmp r0, r2\n"                                                                                    \
    "  bne 1b\n"                                                                                        \
    ".endif\n"                                                                                          \
    ".if .Lk_K%8\n"                                                                                     \
    "  ldm r1!, {r5, r7}\n"                                                                             \
       TN_WIDEN_4_5 TN_WIDEN_6_7                                                                        \
    "  stm r0!, {r4-r7}\n"                                                                              \
    ".endif\n"                                                                                          \
    "pop {r2, r3}\n"                                                                                    \
    "strd r12, lr, [r0]\n"                                                                              \
    "strd r2, r3, [r0, #8]\n"                                                                           \
    "mov r0, r1\n"                                                                                      \
    "pop {r4-r11, pc}\n")

/* The same for any K that 32 divides, given as the last argument: one body for all. */
#define TN_DEF_WIDEN32(NAME)                                                                            \
    TN_EXTERN void NAME(int32_t *stream, const int32_t *flash, int32_t zo, int32_t cs, int32_t k);      \
    TN_FN(NAME,                                                                                         \
    "push {r2, r3, r4-r11, lr}\n"                                                                       \
    "ldm r1!, {r4, r5, r12, lr}\n"           /* b0, b1, M0, M1 */                                       \
    "mov r6, r4\n"                                                                                      \
    "mov r7, r5\n"                                                                                      \
    "stm r0!, {r4-r7}\n"                                                                                \
    "ldr r2, [sp, #44]\n"                                                                               \
    "add r2, r0, r2, lsl #2\n"                                                                          \
    TN_WIDEN_TURNS                                                                                      \
    "pop {r2, r3}\n"                                                                                    \
    "strd r12, lr, [r0]\n"                                                                              \
    "strd r2, r3, [r0, #8]\n"                                                                           \
    "pop {r4-r11, pc}\n")

/* clang-format on */
#endif
