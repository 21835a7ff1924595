/* thumbnet micro-kernels, int8 networks on Cortex-M with the DSP extension (M4, M7, M33), and a portable form that
 * gives the same bytes on any core.
 *
 * Layouts (all intermediate activations between a producer and a consumer layer are int16 holding int8 values):
 *   planar16  plane of one channel, rows of WP int16 (WP even): [left border][W pixels][right border]. Border = zx.
 *             Consumed by the depthwise kernel, produced by the pointwise ones.
 *   pair16(K) for two neighbouring pixels: [K4/4][2 pixels][4 slots] int16, K4 = K rounded up to 4; a single (odd last)
 *             pixel: [K4/4][4]. Consumed by the pointwise kernels: one LDM brings 4 slots of 2 pixels.
 *   wide(K)   one pixel: K int16 in a row (K = 8 only): consumed by the weight-stationary kernel.
 * Slots are input channels in any order, as long as the packed weights agree.
 *
 * Requantization: out = clamp(zo + ((acc * M + 2^31) >> 32)), M = 2 * m: one SMMLAR.
 */
#ifndef TN_KERNELS_H
#define TN_KERNELS_H
#include <stdint.h>
#include <string.h>

#if defined(__ARM_FEATURE_DSP) && defined(__thumb2__) && !defined(TN_PORTABLE)
#define TN_DSP 1
#else
#define TN_DSP 0
#endif
#define TN_INLINE static inline __attribute__((always_inline))
#define TN_STR_(x) #x
#define TN_STR(x) TN_STR_(x)
/* Kernels are whole functions in top-level assembly, each in a section of its own (the linker drops those not called):
 * the compiler sees only a declaration, so it assumes the full calling convention, at any optimization level. */
#define TN_FN(NAME, BODY)                                                                                              \
    __asm(".pushsection .text." #NAME ", \"ax\", %progbits\n .syntax unified\n .thumb\n .p2align 2\n .thumb_func\n"    \
          ".type " #NAME ", %function\n" #NAME ":\n" BODY ".size " #NAME ", . - " #NAME "\n .popsection\n");

TN_INLINE int32_t tn_ssat8(int32_t v) { return v < -128 ? -128 : v > 127 ? 127 : v; }
TN_INLINE int32_t tn_requant(int32_t acc, int32_t M, int32_t zo) {
    return tn_ssat8(zo + (int32_t)(((int64_t)acc * M + 0x80000000ll) >> 32));
}

/* ------------------------------------------------------------------------------------------------------------------
 * Pointwise, 2 pixels x 2 output channels, K a multiple of 4.
 * Weight stream of one channel pair (int32 words): {b0, b1, b0, b1}, [K/4][2 channels][4] int16, {M0, M1, zo, CS}:
 * CS = bytes from the first channel's output plane to the second's (planar outputs only), so that one function serves
 * all shapes of one K. 16 + 10 * K/4 instructions for 4 outputs (both operands int16 pairs: two LDM and eight SMLAD for
 * 16 MACs).
 */
#define TN_STREAM_WORDS(K) (4 + (K) + 4)

#if TN_DSP
/* Unrolled up to TN_PW_UNROLL slots, then a loop (3 instructions a turn; the end of the weights lies on the stack). */
#ifndef TN_PW_UNROLL
#define TN_PW_UNROLL 128
#endif
#define TN_PW_ENTER(K)                                                                                                 \
    "push {r4-r11, lr}\n ldrd r5, r7, [sp, #36]\n mov r12, r0\n mov lr, r3\n add r4, r3, #(16+4*" TN_STR(              \
        K) ")\n"                                                                                                       \
           "sub r6, r2, r0\n push {r1-r7}\n" /* [sp] = out, act_end, stream, end of the weights, rows, row bytes, gap  \
                                              */                                                                       \
           ".set unr, " TN_STR(K) "\n .if unr > " TN_STR(                                                              \
               TN_PW_UNROLL) "\n"                                                                                      \
                             ".if (unr % 128) == 0\n .set unr, 128\n .elseif (unr % 112) == 0\n .set unr, 112\n "      \
                             ".elseif (unr % 96) == 0\n"                                                               \
                             ".set unr, 96\n .elseif (unr % 72) == 0\n .set unr, 72\n .elseif (unr % 64) == 0\n .set " \
                             "unr, 64\n .endif\n .endif\n"
#define TN_PW_AGAIN(K) ".if unr < " TN_STR(K) "\n ldr r4, [sp, #12]\n cmp lr, r4\n bne 3b\n .endif\n"
/* Real scales of 0.5 and more: the accumulators are shifted left first. */
#define TN_SHL(SH, R) ".if " TN_STR(SH) "\n lsl " R ", " R ", #" TN_STR(SH) "\n .endif\n"
#define TN_PW_MACS(K, SH)                                                                                              \
    TN_PW_ENTER(K)                                                                                                     \
    "1: ldm lr!, {r0-r3}\n 3:\n"                                                                                       \
    ".rept unr/4\n"                                                                                                    \
    "ldm r12!, {r4-r7}\n ldm lr!, {r8-r11}\n"                                                                          \
    "smlad r0, r4, r8, r0\n smlad r1, r4, r10, r1\n smlad r2, r6, r8, r2\n smlad r3, r6, r10, r3\n"                    \
    "smlad r0, r5, r9, r0\n smlad r1, r5, r11, r1\n smlad r2, r7, r9, r2\n smlad r3, r7, r11, r3\n"                    \
    ".endr\n" TN_PW_AGAIN(K) "ldm lr, {r4-r7}\n ldm sp, {r8, r9, lr}\n" TN_SHL(SH, "r0") TN_SHL(SH, "r1") TN_SHL(SH,   \
                                                                                                                 "r2") \
        TN_SHL(SH,                                                                                                     \
               "r3") "smmlar r0, r0, r4, r6\n smmlar r1, r1, r5, r6\n smmlar r2, r2, r4, r6\n smmlar r3, r3, r5, r6\n"
#define TN_PW_TAIL "str r8, [sp]\n cmp r12, r9\n bne 1b\n add sp, sp, #28\n pop {r4-r11, pc}\n"
/* After a row (as long as act .. act_end): gap bytes skipped in out, then the next of `rows`. */
#define TN_PW_ROWS                                                                                                     \
    "str r8, [sp]\n cmp r12, r9\n bne 1b\n"                                                                            \
    "ldr r0, [sp, #16]\n ldrd r1, r2, [sp, #20]\n add r9, r9, r1\n add r8, r8, r2\n"                                   \
    "subs r0, r0, #1\n strd r8, r9, [sp]\n str r0, [sp, #16]\n bne 1b\n add sp, sp, #28\n pop {r4-r11, pc}\n"
/* Saturation of the pixel pair of each channel. FITS: every result is proven to lie in int16 before the clamp. */
#define TN_SAT_PIX_FITS                                                                                                \
    "pkhbt r0, r0, r2, lsl #16\n pkhbt r1, r1, r3, lsl #16\n ssat16 r0, #8, r0\n ssat16 r1, #8, r1\n"
#define TN_SAT_PIX_ANY                                                                                                 \
    "ssat r0, #8, r0\n ssat r1, #8, r1\n ssat r2, #8, r2\n ssat r3, #8, r3\n"                                          \
    "pkhbt r0, r0, r2, lsl #16\n pkhbt r1, r1, r3, lsl #16\n"
/* Saturation of the channel pair of each pixel. */
#define TN_SAT_CH_FITS "pkhbt r0, r0, r1, lsl #16\n pkhbt r2, r2, r3, lsl #16\n ssat16 r0, #8, r0\n ssat16 r2, #8, r2\n"
#define TN_SAT_CH_ANY                                                                                                  \
    "ssat r0, #8, r0\n ssat r1, #8, r1\n ssat r2, #8, r2\n ssat r3, #8, r3\n"                                          \
    "pkhbt r0, r0, r1, lsl #16\n pkhbt r2, r2, r3, lsl #16\n"

/* Output planar16: c0 at out, c1 CS bytes further; `rows` rows of an even number of pixels (act_end ends the first),
 * gap bytes of out skipped between rows. */
#define TN_DEF_PW2X2_PLANAR(NAME, K, SH, SAT)                                                                          \
    void NAME(const int16_t *act, int16_t *out, const int16_t *act_end, const int32_t *stream, int32_t rows,           \
              int32_t gap);                                                                                            \
    TN_FN(NAME, TN_PW_MACS(K, SH) SAT "str r1, [r8, r7]\n str r0, [r8], #4\n" TN_PW_ROWS)
/* Output planar8. */
#define TN_DEF_PW2X2_PLANAR8(NAME, K, SH)                                                                              \
    void NAME(const int16_t *act, int8_t *out, const int16_t *act_end, const int32_t *stream, int32_t rows,            \
              int32_t gap);                                                                                            \
    TN_FN(NAME, TN_PW_MACS(K, SH) "ssat r0, #8, r0\n ssat r1, #8, r1\n ssat r2, #8, r2\n ssat r3, #8, r3\n"            \
                                  "add r7, r7, r8\n strb r1, [r7]\n strb r3, [r7, #1]\n strb r2, [r8, #1]\n"           \
                                  "strb r0, [r8], #2\n" TN_PW_ROWS)
/* Output int8 NHWC with N channels; the stream's CS has to be N. */
#define TN_DEF_PW2X2_NHWC(NAME, K, SH, N)                                                                              \
    void NAME(const int16_t *act, int8_t *out, const int16_t *act_end, const int32_t *stream);                         \
    TN_FN(NAME, TN_PW_MACS(K, SH) "ssat r0, #8, r0\n ssat r1, #8, r1\n ssat r2, #8, r2\n ssat r3, #8, r3\n"            \
                                  ".if 2*" TN_STR(N) " < 256\n strb r1, [r8, #1]\n strb r2, [r8, #" TN_STR(            \
                                      N) "]\n"                                                                         \
                                         "strb r3, [r8, #(" TN_STR(N) "+1)]\n strb r0, [r8], #(2*" TN_STR(             \
                                             N) ")\n .else\n"                                                          \
                                                "strb r1, [r8, #1]\n strb r0, [r8]\n add r7, r7, r8\n strb r2, [r7]\n" \
                                                "strb r3, [r7, #1]\n rsb r8, r8, r7, lsl #1\n .endif\n" TN_PW_TAIL)
/* Output pair16(N): the next layer is pointwise too (or an average pool). */
#define TN_DEF_PW2X2_PAIR(NAME, K, SH, N, SAT)                                                                         \
    void NAME(const int16_t *act, int16_t *out, const int16_t *act_end, const int32_t *stream);                        \
    TN_FN(NAME, TN_PW_MACS(K, SH) SAT "str r2, [r8, #8]\n str r0, [r8], #(4*" TN_STR(N) ")\n" TN_PW_TAIL)

/* One pixel x 2 channels (the last of an odd row): act is a pair16 block whose second pixel is ignored. */
#define TN_PW_MACS1(K, SH)                                                                                             \
    TN_PW_ENTER(K)                                                                                                     \
    "ldm lr!, {r0-r3}\n 3:\n"                                                                                          \
    ".rept unr/4\n"                                                                                                    \
    "ldm r12!, {r4-r7}\n ldm lr!, {r8-r11}\n"                                                                          \
    "smlad r0, r4, r8, r0\n smlad r1, r4, r10, r1\n smlad r0, r5, r9, r0\n smlad r1, r5, r11, r1\n"                    \
    ".endr\n" TN_PW_AGAIN(K) "ldm lr, {r4-r7}\n ldr r8, [sp]\n" TN_SHL(SH, "r0")                                       \
        TN_SHL(SH, "r1") "smmlar r0, r0, r4, r6\n smmlar r1, r1, r5, r6\n ssat r0, #8, r0\n ssat r1, #8, r1\n"
#define TN_DEF_PW1X2_PLANAR(NAME, K, SH)                                                                               \
    void NAME(const int16_t *act, int16_t *out, const int16_t *act_end, const int32_t *stream);                        \
    TN_FN(NAME, TN_PW_MACS1(K, SH) "strh r1, [r8, r7]\n strh r0, [r8]\n add sp, sp, #28\n pop {r4-r11, pc}\n")
#define TN_DEF_PW1X2_NHWC(NAME, K, SH, N)                                                                              \
    void NAME(const int16_t *act, int8_t *out, const int16_t *act_end, const int32_t *stream);                         \
    TN_FN(NAME, TN_PW_MACS1(K, SH) "strb r1, [r8, #1]\n strb r0, [r8]\n add sp, sp, #28\n pop {r4-r11, pc}\n")

/* Widens the weights of one channel pair into a stream. Flash: {b0, b1, M0, M1}, then per 4 slots 4 bytes of c0 and 4
 * of c1, in the order slot 0, 2, 1, 3 (so that SXTB16 gives neighbours). K a multiple of 4; 0.7 instructions a weight.
 * Returns the flash pointer of the next pair. */
#define TN_DEF_WIDEN(NAME, K)                                                                                          \
    const int32_t *NAME(int32_t *stream, const int32_t *flash, int32_t zo, int32_t cs);                                \
    TN_FN(NAME, "push {r2, r3, r4-r11, lr}\n"                                                                          \
                "ldm r1!, {r4, r5, r12, lr}\n"                                                                         \
                "mov r6, r4\n mov r7, r5\n stm r0!, {r4-r7}\n"                                                         \
                ".if (" TN_STR(K) ")/8\n add r2, r0, #((" TN_STR(                                                      \
                    K) ")/8*32)\n 1:\n"                                                                                \
                       ".rept 1 + 3*!((" TN_STR(K) ")%32) + !((" TN_STR(K) ")%16)*!!((" TN_STR(                        \
                           K) ")%32)\n"                                                                                \
                              "ldm r1!, {r5, r7, r9, r11}\n"                                                           \
                              "sxtb16 r4, r5\n sxtb16 r5, r5, ror #8\n sxtb16 r6, r7\n sxtb16 r7, r7, ror #8\n"        \
                              "sxtb16 r8, r9\n sxtb16 r9, r9, ror #8\n sxtb16 r10, r11\n sxtb16 r11, r11, ror #8\n"    \
                              "stm r0!, {r4-r11}\n .endr\n cmp r0, r2\n bne 1b\n .endif\n"                             \
                              ".if ((" TN_STR(                                                                         \
                                  K) ")%8)\n ldm r1!, {r5, r7}\n"                                                      \
                                     "sxtb16 r4, r5\n sxtb16 r5, r5, ror #8\n sxtb16 r6, r7\n sxtb16 r7, r7, ror #8\n" \
                                     "stm r0!, {r4-r7}\n .endif\n"                                                     \
                                     "pop {r2, r3}\n strd r12, lr, [r0]\n strd r2, r3, [r0, #8]\n mov r0, r1\n pop "   \
                                     "{r4-r11, pc}\n")

/* ------------------------------------------------------------------------------------------------------------------
 * Pointwise with K = 8, one output channel held in registers: 15 instructions for 2 outputs, 7.9 an output in all.
 * act: wide(8), 4-byte aligned; params {4 words of int16 weight pairs, bias, M, zo}; pixels a multiple of PPL.
 */
#define TN_DEF_PW_K8(NAME, PPL, AROW, GAP, SATSTORE)                                                                   \
    void NAME(const int16_t *act, void *out, const int16_t *act_end, const int32_t *params, int32_t rows);             \
    TN_FN(NAME,                                                                                                        \
          "ldr r12, [sp]\n push {r2, r4-r12, lr}\n push {r2, r12}\n"                                                   \
          "mov r12, r0\n mov r11, r1\n ldm r3, {r4-r10}\n"                                                             \
          "1:\n .rept (" TN_STR(                                                                                       \
              PPL) ")/2\n"                                                                                             \
                   "ldm r12!, {r0-r3}\n smlad lr, r0, r4, r8\n smlad lr, r1, r5, lr\n smlad lr, r2, r6, lr\n"          \
                   "smlad lr, r3, r7, lr\n smmlar lr, lr, r9, r10\n"                                                   \
                   "ldm r12!, {r0-r3}\n smlad r0, r0, r4, r8\n smlad r0, r1, r5, r0\n smlad r0, r2, r6, r0\n"          \
                   "smlad r0, r3, r7, r0\n smmlar r0, r0, r9, r10\n" SATSTORE ".endr\n"                                \
                   "ldr r0, [sp]\n cmp r12, r0\n bne 1b\n"                                                             \
                   "ldr r1, [sp, #4]\n add r0, r0, #(" TN_STR(AROW) ")\n add r11, r11, #(" TN_STR(                     \
                       GAP) ")\n"                                                                                      \
                            "subs r1, r1, #1\n strd r0, r1, [sp]\n bne 1b\n add sp, sp, #8\n pop {r2, r4-r12, pc}\n")
#define TN_K8_PLANAR_FITS "pkhbt r0, lr, r0, lsl #16\n ssat16 r0, #8, r0\n str r0, [r11], #4\n"
#define TN_K8_PLANAR8 "ssat r0, #8, r0\n ssat lr, #8, lr\n strb r0, [r11, #1]\n strb lr, [r11], #2\n"
#define TN_K8_PLANAR_ANY "ssat r0, #8, r0\n ssat lr, #8, lr\n pkhbt r0, lr, r0, lsl #16\n str r0, [r11], #4\n"

/* ------------------------------------------------------------------------------------------------------------------
 * Depthwise 3x3, planar16 in; channels one after the other, row_bytes/WPB (stride 1) output rows of W pixels each.
 * Flash, 5 words a channel: 3 words of tap bytes (below), bias, M.
 * U rows are unrolled, their pixels numbered on (U = plane height for a small odd plane, so that pairs cross rows).
 * OSTEP bytes between output pixel pairs, O1 bytes from the first to the second pixel of a pair, OCH bytes between the
 * outputs of successive channels, WPB bytes a row of the plane, ICH bytes from one channel's plane to the next.
 */
#define TN_DW_PROLOGUE                                                                                                 \
    "push {r4-r11, lr}\n ldr r12, [sp, #36]\n push {r0-r3, r12, lr}\n"                                                 \
    "2: ldm sp, {r2, r12, lr}\n ldm r2!, "
#define TN_DW_ROWS(ICH, OCH)                                                                                           \
    "ldr r1, [sp, #16]\n add r0, r1, r12\n str r0, [sp, #20]\n"                                                        \
    ".if (" TN_STR(ICH) ") > 4095\n movw r1, #(" TN_STR(                                                               \
        ICH) ")\n add r1, r1, r12\n .else\n"                                                                           \
             "add r1, r12, #(" TN_STR(ICH) ")\n .endif\n"                                                              \
                                           "mov r0, r2\n add r2, lr, #(" TN_STR(OCH) ")\n stm sp, {r0-r2}\n"
#define TN_DW_EPILOGUE                                                                                                 \
    ".endr\n ldr r2, [sp, #20]\n add lr, lr, #((p+1)/2*step-base)\n cmp r12, r2\n bne 1b\n"                            \
    "ldr r2, [sp]\n ldr r3, [sp, #12]\n cmp r2, r3\n bne 2b\n add sp, sp, #24\n pop {r4-r11, pc}\n"
#define TN_DW_STORE(r)                                                                                                 \
    ".if p/2*step+p%2*snd-base > 4095\n add lr, lr, #2*step\n .set base, base+2*step\n .endif\n"                       \
    "strh " r ", [lr, #(p/2*step+p%2*snd-base)]\n .set p, p+1\n"
#define TN_DW_STORE1 TN_DW_STORE("r0")
#define TN_DW_STORE2 TN_DW_STORE("r0") TN_DW_STORE("r1")
#define TN_DW_LOOP(W, U, OSTEP, O1)                                                                                    \
    ".set step, " TN_STR(OSTEP) "\n .set snd, " TN_STR(O1) "\n 1:\n .set p, 0\n .set base, 0\n .rept " TN_STR(         \
        U) "\n .rept (" TN_STR(W) ")/2\n"
#define TN_DW_ROW(wa, wb, load, a0, a1)                                                                                \
    load "smlad r0, r2, " wa ", " a0 "\n smlad r1, r3, " wb ", " a1 "\n smlabt r0, r3, " wb                            \
         ", r0\n smlatb r1, r2, " wa ", r1\n"
/* Stride 1: 22 instructions for 2 outputs (18 MACs). Tap bytes of each row: w0, w1, w1, w2: SXTB16 gives (w0, w1), its
 * rotated form (w1, w2). Registers: 6 weight pairs, 2 data words, 2 accumulators, bias, M, in, out: exactly 14. */
#define TN_DEF_DW3X3S1(NAME, W, U, WPB, ICH, OSTEP, O1, OCH, ZO, SH)                                                   \
    void NAME(const int32_t *params, const int16_t *in, int16_t *out, const int32_t *params_end, int32_t row_bytes);   \
    TN_FN(NAME,                                                                                                        \
          TN_DW_PROLOGUE "{r5, r7, r9, r10, r11}\n" TN_DW_ROWS(                                                        \
              ICH,                                                                                                     \
              OCH) "sxtb16 r4, r5\n sxtb16 r5, r5, ror #8\n sxtb16 r6, r7\n sxtb16 r7, r7, ror #8\n"                   \
                   "sxtb16 r8, r9\n sxtb16 r9, r9, ror #8\n" TN_DW_LOOP(W, U, OSTEP, O1) TN_DW_ROW(                    \
                       "r6", "r7", "ldrd r2, r3, [r12, #" TN_STR(WPB) "]\n", "r10",                                    \
                       "r10") TN_DW_ROW("r8", "r9", "ldrd r2, r3, [r12, #2*" TN_STR(WPB) "]\n", "r0",                  \
                                        "r1") TN_DW_ROW("r4", "r5", "ldrd r2, r3, [r12], #4\n", "r0",                  \
                                                        "r1") "mov r2, #" TN_STR(ZO) "\n " TN_SHL(SH, "r0")            \
                       TN_SHL(SH,                                                                                      \
                              "r1") "smmlar r0, r0, r11, r2\n smmlar r1, r1, r11, r2\n"                                \
                                    "ssat r0, #8, r0\n ssat r1, #8, r1\n" TN_DW_STORE2 ".endr\n"                       \
                                    ".if ((" TN_STR(                                                                   \
                                        W) ") & 1)\n"                                                                  \
                                           "ldrd r2, r3, [r12, #" TN_STR(                                              \
                                               WPB) "]\n smlad r0, r2, r6, r10\n smlabt r0, r3, r7, r0\n"              \
                                                    "ldrd r2, r3, [r12, #2*" TN_STR(                                   \
                                                        WPB) "]\n smlad r0, r2, r8, r0\n smlabt r0, r3, r9, r0\n"      \
                                                             "ldrd r2, r3, [r12], #4\n smlad r0, r2, r4, r0\n smlabt " \
                                                             "r0, r3, r5, r0\n"                                        \
                                                             "mov r2, #" TN_STR(ZO) "\n " TN_SHL(                      \
                                                                 SH,                                                   \
                                                                 "r0") "smmlar r0, r0, r11, r2\n ssat r0, #8, "        \
                                                                       "r0\n" TN_DW_STORE1 ".endif\n"                  \
                                                                       "add r12, r12, #(" TN_STR(WPB) "-4*((" TN_STR(  \
                                                                           W) "+1)/2))\n" TN_DW_EPILOGUE)
/* Stride 2: 25 instructions for 2 outputs. Tap bytes: (w00, w02, w01, w12), (w10, w22, w11, 0), (w20, 0, w21, 0): first
 * index the row. `in` points at the first tap. row_bytes = output rows * 2 * WPB. */
#define TN_DW2_ROW(a, c, h, off, inc, a0, a1)                                                                          \
    "ldr r9, [r12, #8+" off "]\n ldrd r2, r3, [r12" inc "\n smlad r0, r2, " a ", " a0 "\n smlad r1, r3, " a ", " a1    \
    "\n smlab" h " r0, r3, " c ", r0\n smlab" h " r1, r9, " c ", r1\n"
#define TN_DEF_DW3X3S2(NAME, W, U, WPB, ICH, OSTEP, O1, OCH, ZO, SH)                                                   \
    void NAME(const int32_t *params, const int16_t *in, int16_t *out, const int32_t *params_end, int32_t row_bytes);   \
    TN_FN(                                                                                                             \
        NAME,                                                                                                          \
        TN_DW_PROLOGUE "{r4, r5, r6, r10, r11}\n" TN_DW_ROWS(                                                          \
            ICH,                                                                                                       \
            OCH) "sxtb16 r7, r4, ror #8\n sxtb16 r4, r4\n sxtb16 r8, r5, ror #8\n sxtb16 r5, r5\n sxtb16 r6, "         \
                 "r6\n" TN_DW_LOOP(W, U, OSTEP, O1) TN_DW2_ROW(                                                        \
                     "r5", "r7", "t", TN_STR(WPB), ", #" TN_STR(WPB) "]", "r10",                                       \
                     "r10") TN_DW2_ROW("r6", "r8", "b", "2*" TN_STR(WPB), ", #2*" TN_STR(WPB) "]", "r0", "r1")         \
                     TN_DW2_ROW("r4", "r7", "b", "0", "], #8", "r0", "r1") "mov r2, #" TN_STR(ZO) "\n " TN_SHL(        \
                         SH, "r0")                                                                                     \
                         TN_SHL(                                                                                       \
                             SH,                                                                                       \
                             "r1") "smmlar r0, r0, r11, r2\n smmlar r1, r1, r11, r2\n"                                 \
                                   "ssat r0, #8, r0\n ssat r1, #8, r1\n" TN_DW_STORE2 ".endr\n"                        \
                                   ".if ((" TN_STR(                                                                    \
                                       W) ") & 1)\n"                                                                   \
                                          "ldrd r2, r3, [r12, #" TN_STR(                                               \
                                              WPB) "]\n smlad r0, r2, r5, r10\n smlabt r0, r3, r7, r0\n"               \
                                                   "ldrd r2, r3, [r12, #2*" TN_STR(                                    \
                                                       WPB) "]\n smlad r0, r2, r6, r0\n smlabb r0, r3, r8, r0\n"       \
                                                            "ldrd r2, r3, [r12], #8\n smlad r0, r2, r4, r0\n smlabb "  \
                                                            "r0, r3, r7, r0\n"                                         \
                                                            "mov r2, #" TN_STR(ZO) "\n " TN_SHL(                       \
                                                                SH,                                                    \
                                                                "r0") "smmlar r0, r0, r11, r2\n ssat r0, #8, "         \
                                                                      "r0\n" TN_DW_STORE1 ".endif\n"                   \
                                                                      "add r12, r12, #(2*" TN_STR(WPB) "-8*((" TN_STR( \
                                                                          W) "+1)/2))\n" TN_DW_EPILOGUE)

/* The same from int8 planes (planar8, half the RAM): rows of WPB bytes, natural order. SXTB16 of 4 bytes gives pixels
 * (0, 2) and (1, 3): one SMLAD takes taps 0 and 2, a single multiply the middle one. Stride 1: 27 instructions for 2
 * outputs; stride 2: 34. Tap bytes: (w00, w01, w02, w11), (w10, w21, w12, 0), (w20, 0, w22, 0). */
#define TN_DW8_ROW(load, a, c, h, a0, a1)                                                                              \
    load "sxtb16 r3, r2, ror #8\n sxtb16 r2, r2\n smlad r0, r2, " a ", " a0 "\n smlad r1, r3, " a ", " a1 "\n smlab" h \
         " r0, r3, " c ", r0\n smlat" h " r1, r2, " c ", r1\n"
#define TN_DW8_ROW1(load, a, c, h, a0)                                                                                 \
    load "sxtb16 r3, r2, ror #8\n sxtb16 r2, r2\n smlad r0, r2, " a ", " a0 "\n smlab" h " r0, r3, " c ", r0\n"
#define TN_DW8_WEIGHTS "sxtb16 r7, r4, ror #8\n sxtb16 r4, r4\n sxtb16 r8, r5, ror #8\n sxtb16 r5, r5\n sxtb16 r6, r6\n"
#define TN_DEF_DW3X3S1_P8(NAME, W, U, WPB, ICH, OSTEP, O1, OCH, ZO, SH)                                                \
    void NAME(const int32_t *params, const int8_t *in, int16_t *out, const int32_t *params_end, int32_t row_bytes);    \
    TN_FN(NAME, TN_DW_PROLOGUE "{r4, r5, r6, r10, r11}\n" TN_DW_ROWS(ICH, OCH) TN_DW8_WEIGHTS                          \
          "mov r9, #" TN_STR(ZO) "\n" TN_DW_LOOP(W, U, OSTEP, O1) TN_DW8_ROW("ldr r2, [r12, #" TN_STR(WPB) "]\n",      \
                                                                             "r5", "r7", "t", "r10", "r10")            \
              TN_DW8_ROW("ldr r2, [r12, #2*" TN_STR(WPB) "]\n", "r6", "r8", "b", "r0", "r1")                           \
                  TN_DW8_ROW("ldr r2, [r12], #2\n", "r4", "r7", "b", "r0", "r1") "" TN_SHL(SH, "r0")                   \
                      TN_SHL(SH, "r1") "smmlar r0, r0, r11, r9\n smmlar r1, r1, r11, r9\n ssat r0, #8, r0\n ssat r1, " \
                                       "#8, r1\n" TN_DW_STORE2 ".endr\n .if ((" TN_STR(W) ") & 1)\n" TN_DW8_ROW1(      \
                                           "ldr r2, [r12, #" TN_STR(WPB) "]\n", "r5", "r7", "t", "r10")                \
                                           TN_DW8_ROW1("ldr r2, [r12, #2*" TN_STR(WPB) "]\n", "r6", "r8", "b", "r0")   \
                                               TN_DW8_ROW1("ldr r2, [r12], #2\n", "r4", "r7", "b", "r0") "" TN_SHL(    \
                                                   SH, "r0") "smmlar r0, r0, r11, r9\n ssat r0, #8, r0\n" TN_DW_STORE1 \
                                                             ".endif\n"                                                \
                                                             "add r12, r12, #(" TN_STR(WPB) "-2*((" TN_STR(            \
                                                                 W) "+1)/2))\n" TN_DW_EPILOGUE)
#define TN_DW82_ROW(off, inc, a, c, h, a0, a1)                                                                         \
    "ldr r3, [r12, #" off "+2]\n ldr r2, [r12" inc "\n sxtb16 r3, r3\n sxtb16 r9, r2, ror #8\n sxtb16 r2, r2\n"        \
    "smlad r0, r2, " a ", " a0 "\n smlad r1, r3, " a ", " a1 "\n smlab" h " r0, r9, " c ", r0\n smlat" h " r1, r9, " c \
    ", r1\n"
#define TN_DEF_DW3X3S2_P8(NAME, W, U, WPB, ICH, OSTEP, O1, OCH, ZO, SH)                                                \
    void NAME(const int32_t *params, const int8_t *in, int16_t *out, const int32_t *params_end, int32_t row_bytes);    \
    TN_FN(                                                                                                             \
        NAME, TN_DW_PROLOGUE                                                                                           \
        "{r4, r5, r6, r10, r11}\n" TN_DW_ROWS(ICH, OCH) TN_DW8_WEIGHTS TN_DW_LOOP(W, U, OSTEP, O1) TN_DW82_ROW(        \
            TN_STR(WPB), ", #" TN_STR(WPB) "]", "r5", "r7", "t", "r10",                                                \
            "r10") TN_DW82_ROW("2*" TN_STR(WPB), ", #2*" TN_STR(WPB) "]", "r6", "r8", "b", "r0", "r1")                 \
            TN_DW82_ROW("0", "], #4", "r4", "r7", "b", "r0", "r1") "mov r9, #" TN_STR(ZO) "\n " TN_SHL(SH, "r0")       \
                TN_SHL(                                                                                                \
                    SH,                                                                                                \
                    "r1") "smmlar r0, r0, r11, r9\n smmlar r1, r1, r11, r9\n"                                          \
                          "ssat r0, #8, r0\n ssat r1, #8, r1\n" TN_DW_STORE2 ".endr\n .if ((" TN_STR(                  \
                              W) ") & 1)\n" TN_DW8_ROW1("ldr r2, [r12, #" TN_STR(WPB) "]\n", "r5", "r7", "t", "r10")   \
                              TN_DW8_ROW1("ldr r2, [r12, #2*" TN_STR(WPB) "]\n", "r6", "r8", "b", "r0")                \
                                  TN_DW8_ROW1("ldr r2, [r12], #4\n", "r4", "r7", "b", "r0") "mov r9, #" TN_STR(        \
                                      ZO) "\n " TN_SHL(SH,                                                             \
                                                       "r0") "smmlar r0, r0, r11, r9\n ssat r0, #8, r0\n" TN_DW_STORE1 \
                                                             ".endif\n"                                                \
                                                             "add r12, r12, #(2*" TN_STR(WPB) "-4*((" TN_STR(          \
                                                                 W) "+1)/2))\n" TN_DW_EPILOGUE)

/* ------------------------------------------------------------------------------------------------------------------
 * First convolution 3x3x3 stride 2: 27 taps of one pixel pair into pair16(28), 45 instructions for the pair. in: int8
 * NHWC at the first tap of the first pixel, ROW bytes a row. Slots: tap rows of (b0 b2 b1 b3 b4 b6 b5 b7), then b8 of
 * the three rows and a slot of any value (zero weight). Up to 1 byte beyond the last tap is read. */
#define TN_DEF_IM2COL3(NAME, ROWB)                                                                                     \
    void NAME(const int8_t *in, int16_t *out, int32_t pairs);                                                          \
    TN_FN(NAME,                                                                                                        \
          "push {r4-r11, lr}\n add lr, r2, r2, lsl #1\n add lr, r0, lr, lsl #2\n push {lr}\n mov lr, r1\n"             \
          "1:\n .set j, 0\n .rept 3\n"                                                                                 \
          "ldr r5, [r0, #j]\n ldr r7, [r0, #j+6]\n ldr r9, [r0, #j+4]\n ldr r11, [r0, #j+10]\n"                        \
          "sxtb16 r4, r5\n sxtb16 r5, r5, ror #8\n sxtb16 r6, r7\n sxtb16 r7, r7, ror #8\n"                            \
          "sxtb16 r8, r9\n sxtb16 r9, r9, ror #8\n sxtb16 r10, r11\n sxtb16 r11, r11, ror #8\n"                        \
          "stm lr!, {r4-r11}\n .set j, j+" TN_STR(                                                                     \
              ROWB) "\n .endr\n"                                                                                       \
                    "ldrsb r4, [r0, #8]\n ldrsb r5, [r0, #2*" TN_STR(                                                  \
                        ROWB) "+8]\n ldrsb r6, [r0, #14]\n"                                                            \
                              "ldrsb r7, [r0, #2*" TN_STR(ROWB) "+14]\n ldrsb r8, [r0, #" TN_STR(                      \
                                  ROWB) "+8]\n"                                                                        \
                                        "ldrsb r9, [r0, #" TN_STR(ROWB) "+14]\n"                                       \
                                                                        "pkhbt r4, r4, r8, lsl #16\n pkhbt r6, r6, "   \
                                                                        "r9, lsl #16\n stm lr!, {r4-r7}\n"             \
                                                                        "ldr r4, [sp]\n adds r0, r0, #12\n cmp r0, "   \
                                                                        "r4\n bne 1b\n pop {r3, r4-r11, pc}\n")

/* int8 NHWC (K channels a pixel, K a multiple of 8, 4-byte aligned) to pair16(K): slots 0 2 1 3 of each four channels,
 * so packed weights in natural byte order agree. 11 instructions for 16 values. */
#define TN_DEF_TO_PAIR16(NAME, K)                                                                                      \
    void NAME(const int8_t *in, int16_t *out, int32_t pairs);                                                          \
    TN_FN(NAME, "push {r4-r11, lr}\n mov lr, r1\n"                                                                     \
                "1: .set k, 0\n .rept (" TN_STR(                                                                       \
                    K) ")/8\n"                                                                                         \
                       "ldrd r5, r9, [r0, #k]\n ldrd r7, r11, [r0, #k+" TN_STR(                                        \
                           K) "]\n"                                                                                    \
                              "sxtb16 r4, r5\n sxtb16 r5, r5, ror #8\n sxtb16 r6, r7\n sxtb16 r7, r7, ror #8\n"        \
                              "sxtb16 r8, r9\n sxtb16 r9, r9, ror #8\n sxtb16 r10, r11\n sxtb16 r11, r11, ror #8\n"    \
                              "stm lr!, {r4-r11}\n .set k, k+8\n .endr\n"                                              \
                              "add r0, r0, #2*" TN_STR(K) "\n subs r2, r2, #1\n bne 1b\n pop {r4-r11, pc}\n")
/* int8 NHWC with 8 channels to wide(8), two pixels a turn: 10 instructions for 16 values. */
#define TN_DEF_TO_WIDE8(NAME)                                                                                          \
    void NAME(const int8_t *in, int16_t *out, int32_t pairs);                                                          \
    TN_FN(NAME, "push {r4-r11, lr}\n 1: ldm r0!, {r5, r7, r9, r11}\n"                                                  \
                "sxtb16 r4, r5\n sxtb16 r5, r5, ror #8\n sxtb16 r6, r7\n sxtb16 r7, r7, ror #8\n"                      \
                "sxtb16 r8, r9\n sxtb16 r9, r9, ror #8\n sxtb16 r10, r11\n sxtb16 r11, r11, ror #8\n"                  \
                "stm r1!, {r4-r11}\n subs r2, r2, #1\n bne 1b\n pop {r4-r11, pc}\n")
#else /* ------------------------------------------------ portable ----------------------------------------------- */
/* The same functions in plain C: same arguments, layouts and bytes. FITS and ANY variants do not differ here. */
#define TN_PORT static __attribute__((noinline, unused))
#define TN_SAT_PIX_FITS
#define TN_SAT_PIX_ANY
#define TN_SAT_CH_FITS
#define TN_SAT_CH_ANY
#define TN_K8_PLANAR_FITS 2
#define TN_K8_PLANAR_ANY 2
#define TN_K8_PLANAR8 1
/* One block of a weight stream: out[pixel][channel]; a block of one pixel passes npix = 1. */
TN_INLINE void tn_pw_block(const int16_t *act, const int32_t *stream, int K, int npix, int shift, int32_t out[2][2]) {
    const int16_t *w = (const int16_t *)(stream + 4);
    const int32_t *q = stream + 4 + K;
    for (int p = 0; p < npix; ++p)
        for (int c = 0; c < 2; ++c) {
            int32_t acc = stream[c];
            const int16_t *a = act + 4 * p, *b = w + 4 * c;
            for (int k = 0; k < K; k += 4, a += 8, b += 8)
                acc += a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3];
            out[p][c] = tn_requant((int32_t)((uint32_t)acc << shift), q[c], q[2]);
        }
}
#define TN_PORT_PWR(NAME, T, K, SH, GAP, STORES, ADV, ARGS, ROWS)                                                      \
    TN_PORT void NAME ARGS {                                                                                           \
        const int32_t row = (int32_t)(act_end - act);                                                                  \
        for (int y = 0; y < (ROWS); ++y, act_end += row, out += (GAP) / (int)sizeof(T))                                \
            for (; act != act_end; act += 2 * (K), out += (ADV)) {                                                     \
                int32_t r[2][2];                                                                                       \
                tn_pw_block(act, stream, K, 2, SH, r);                                                                 \
                STORES                                                                                                 \
            }                                                                                                          \
    }
#define TN_PORT_PW(NAME, T, K, SH, STORES, ADV)                                                                        \
    TN_PORT_PWR(NAME, T, K, SH, 0, STORES, ADV,                                                                        \
                (const int16_t *act, T *out, const int16_t *act_end, const int32_t *stream), 1)
#define TN_DEF_PW2X2_PLANAR(NAME, K, SH, SAT)                                                                          \
    TN_PORT_PWR(                                                                                                       \
        NAME, int16_t, K, SH, gap, out[0] = (int16_t)r[0][0]; out[1] = (int16_t)r[1][0];                               \
        out[stream[7 + (K)] / 2] = (int16_t)r[0][1]; out[stream[7 + (K)] / 2 + 1] = (int16_t)r[1][1];                  \
        , 2,                                                                                                           \
        (const int16_t *act, int16_t *out, const int16_t *act_end, const int32_t *stream, int32_t rows, int32_t gap),  \
        rows)
#define TN_DEF_PW2X2_PLANAR8(NAME, K, SH)                                                                              \
    TN_PORT_PWR(                                                                                                       \
        NAME, int8_t, K, SH, gap, out[0] = (int8_t)r[0][0]; out[1] = (int8_t)r[1][0];                                  \
        out[stream[7 + (K)]] = (int8_t)r[0][1]; out[stream[7 + (K)] + 1] = (int8_t)r[1][1];                            \
        , 2,                                                                                                           \
        (const int16_t *act, int8_t *out, const int16_t *act_end, const int32_t *stream, int32_t rows, int32_t gap),   \
        rows)
#define TN_DEF_PW2X2_NHWC(NAME, K, SH, N)                                                                              \
    TN_PORT_PW(NAME, int8_t, K, SH, out[0] = (int8_t)r[0][0]; out[1] = (int8_t)r[0][1]; out[N] = (int8_t)r[1][0];      \
               out[(N) + 1] = (int8_t)r[1][1];, 2 * (N))
#define TN_DEF_PW2X2_PAIR(NAME, K, SH, N, SAT)                                                                         \
    TN_PORT_PW(NAME, int16_t, K, SH, out[0] = (int16_t)r[0][0]; out[1] = (int16_t)r[0][1]; out[4] = (int16_t)r[1][0];  \
               out[5] = (int16_t)r[1][1];, 2 * (N))
#define TN_PORT_PW1(NAME, T, K, SH, C1)                                                                                \
    TN_PORT void NAME(const int16_t *act, T *out, const int16_t *act_end, const int32_t *stream) {                     \
        int32_t r[2][2];                                                                                               \
        (void)act_end;                                                                                                 \
        tn_pw_block(act, stream, K, 1, SH, r);                                                                         \
        out[0] = (T)r[0][0];                                                                                           \
        out[C1] = (T)r[0][1];                                                                                          \
    }
#define TN_DEF_PW1X2_PLANAR(NAME, K, SH) TN_PORT_PW1(NAME, int16_t, K, SH, stream[7 + (K)] / 2)
#define TN_DEF_PW1X2_NHWC(NAME, K, SH, N) TN_PORT_PW1(NAME, int8_t, K, SH, 1)
#define TN_DEF_WIDEN(NAME, K)                                                                                          \
    TN_PORT const int32_t *NAME(int32_t *stream, const int32_t *flash, int32_t zo, int32_t cs) {                       \
        const int8_t *b = (const int8_t *)(flash + 4);                                                                 \
        int16_t *w = (int16_t *)(stream + 4);                                                                          \
        stream[0] = stream[2] = flash[0];                                                                              \
        stream[1] = stream[3] = flash[1];                                                                              \
        for (int i = 0; i < 2 * (K); i += 4) {                                                                         \
            w[i] = b[i];                                                                                               \
            w[i + 1] = b[i + 2];                                                                                       \
            w[i + 2] = b[i + 1];                                                                                       \
            w[i + 3] = b[i + 3];                                                                                       \
        }                                                                                                              \
        stream[4 + (K)] = flash[2];                                                                                    \
        stream[5 + (K)] = flash[3];                                                                                    \
        stream[6 + (K)] = zo;                                                                                          \
        stream[7 + (K)] = cs;                                                                                          \
        return flash + 4 + (K) / 2;                                                                                    \
    }
#define TN_DEF_PW_K8(NAME, PPL, AROW, GAP, KIND)                                                                       \
    TN_PORT void NAME(const int16_t *act, void *out, const int16_t *act_end, const int32_t *params, int32_t rows) {    \
        const int16_t *w = (const int16_t *)params;                                                                    \
        int8_t *o8 = (int8_t *)out;                                                                                    \
        int16_t *o16 = (int16_t *)out;                                                                                 \
        for (int y = 0; y < rows; ++y, act_end += (AROW) / 2, o8 += (GAP), o16 += (GAP) / 2)                           \
            for (; act != act_end; act += 8) {                                                                         \
                int32_t acc = params[4];                                                                               \
                for (int k = 0; k < 8; ++k)                                                                            \
                    acc += act[k] * w[k];                                                                              \
                acc = tn_requant(acc, params[5], params[6]);                                                           \
                if ((KIND) == 1)                                                                                       \
                    *o8++ = (int8_t)acc;                                                                               \
                else                                                                                                   \
                    *o16++ = (int16_t)acc;                                                                             \
            }                                                                                                          \
    }
/* Positions of the nine tap bytes in a channel's parameters: stride 1, stride 2 (planar16), planar8. */
static const uint8_t tn_taps[3][9] __attribute__((unused)) = {
    {0, 1, 3, 4, 5, 7, 8, 9, 11}, {0, 2, 1, 4, 6, 3, 8, 10, 5}, {0, 1, 2, 4, 3, 6, 8, 5, 10}};
#define TN_PORT_DW(NAME, T, FMT, S, W, U, WPB, ICH, OSTEP, O1, OCH, ZO, SH)                                            \
    TN_PORT void NAME(const int32_t *params, const T *in, int16_t *out, const int32_t *params_end,                     \
                      int32_t row_bytes) {                                                                             \
        const int wp = (WPB) / (int)sizeof(T);                                                                         \
        for (; params != params_end; params += 5, in += (ICH) / (int)sizeof(T), out += (OCH) / 2) {                    \
            const int8_t *b = (const int8_t *)params;                                                                  \
            for (int y = 0; y < row_bytes / ((S) * (WPB)); ++y)                                                        \
                for (int x = 0; x < (W); ++x) {                                                                        \
                    int p = y % (U) * (W) + x, grp = y / (U) * (((U) * (W) + 1) / 2);                                  \
                    int32_t acc = params[3];                                                                           \
                    for (int t = 0; t < 9; ++t)                                                                        \
                        acc += b[tn_taps[FMT][t]] * in[(y * (S) + t / 3) * wp + x * (S) + t % 3];                      \
                    out[((grp + p / 2) * (OSTEP) + p % 2 * (O1)) / 2] =                                                \
                        (int16_t)tn_requant((int32_t)((uint32_t)acc << (SH)), params[4], ZO);                          \
                }                                                                                                      \
        }                                                                                                              \
    }
#define TN_DEF_DW3X3S1(NAME, ...) TN_PORT_DW(NAME, int16_t, 0, 1, __VA_ARGS__)
#define TN_DEF_DW3X3S2(NAME, ...) TN_PORT_DW(NAME, int16_t, 1, 2, __VA_ARGS__)
#define TN_DEF_DW3X3S1_P8(NAME, ...) TN_PORT_DW(NAME, int8_t, 2, 1, __VA_ARGS__)
#define TN_DEF_DW3X3S2_P8(NAME, ...) TN_PORT_DW(NAME, int8_t, 2, 2, __VA_ARGS__)
#define TN_DEF_IM2COL3(NAME, ROWB)                                                                                     \
    TN_PORT void NAME(const int8_t *in, int16_t *out, int32_t pairs) {                                                 \
        static const uint8_t order[8] = {0, 2, 1, 3, 4, 6, 5, 7};                                                      \
        for (; pairs > 0; --pairs, in += 12, out += 56)                                                                \
            for (int p = 0; p < 2; ++p) {                                                                              \
                for (int r = 0; r < 3; ++r) {                                                                          \
                    for (int k = 0; k < 8; ++k)                                                                        \
                        out[(2 * r + k / 4) * 8 + p * 4 + k % 4] = in[r * (ROWB) + 6 * p + order[k]];                  \
                    out[48 + p * 4 + r] = in[r * (ROWB) + 6 * p + 8];                                                  \
                }                                                                                                      \
                out[48 + p * 4 + 3] = 0;                                                                               \
            }                                                                                                          \
    }
#define TN_DEF_TO_PAIR16(NAME, K)                                                                                      \
    TN_PORT void NAME(const int8_t *in, int16_t *out, int32_t pairs) {                                                 \
        static const uint8_t order[4] = {0, 2, 1, 3};                                                                  \
        for (; pairs > 0; --pairs, in += 2 * (K), out += 2 * (K))                                                      \
            for (int i = 0; i < 2 * (K); ++i)                                                                          \
                out[i] = in[i / 4 % 2 * (K) + i / 8 * 4 + order[i % 4]];                                               \
    }
#define TN_DEF_TO_WIDE8(NAME)                                                                                          \
    TN_PORT void NAME(const int8_t *in, int16_t *out, int32_t pairs) {                                                 \
        static const uint8_t order[4] = {0, 2, 1, 3};                                                                  \
        for (int i = 0; i < 16 * pairs; ++i)                                                                           \
            out[i] = in[i / 4 * 4 + order[i % 4]];                                                                     \
    }
#endif

/* Residual add of four int8: ssat8((a * ma + b * mb + c) >> shift), m = ma | mb << 16. In place allowed. shift
 * constant. */
TN_INLINE void tn_add4(int8_t *out, const int8_t *a, const int8_t *b, int32_t m, int32_t c, const int shift) {
#if TN_DSP
    int32_t x, y, xo, yo, p0, p1, p2, p3;
    memcpy(&x, a, 4);
    memcpy(&y, b, 4);
    __asm("sxtb16 %0, %1, ror #8" : "=r"(xo) : "r"(x));
    __asm("sxtb16 %0, %1, ror #8" : "=r"(yo) : "r"(y));
    __asm("sxtb16 %0, %1" : "=r"(x) : "r"(x));
    __asm("sxtb16 %0, %1" : "=r"(y) : "r"(y));
    __asm("pkhbt %0, %1, %2, lsl #16" : "=r"(p0) : "r"(x), "r"(y));
    __asm("pkhbt %0, %1, %2, lsl #16" : "=r"(p1) : "r"(xo), "r"(yo));
    __asm("pkhtb %0, %1, %2, asr #16" : "=r"(p2) : "r"(y), "r"(x));
    __asm("pkhtb %0, %1, %2, asr #16" : "=r"(p3) : "r"(yo), "r"(xo));
    __asm("smlad %0, %1, %2, %3" : "=r"(p0) : "r"(p0), "r"(m), "r"(c));
    __asm("smlad %0, %1, %2, %3" : "=r"(p1) : "r"(p1), "r"(m), "r"(c));
    __asm("smlad %0, %1, %2, %3" : "=r"(p2) : "r"(p2), "r"(m), "r"(c));
    __asm("smlad %0, %1, %2, %3" : "=r"(p3) : "r"(p3), "r"(m), "r"(c));
    __asm("ssat %0, #8, %1, asr %2" : "=r"(p0) : "r"(p0), "n"(shift));
    __asm("ssat %0, #8, %1, asr %2" : "=r"(p1) : "r"(p1), "n"(shift));
    __asm("ssat %0, #8, %1, asr %2" : "=r"(p2) : "r"(p2), "n"(shift));
    __asm("ssat %0, #8, %1, asr %2" : "=r"(p3) : "r"(p3), "n"(shift));
    out[0] = (int8_t)p0;
    out[1] = (int8_t)p1;
    out[2] = (int8_t)p2;
    out[3] = (int8_t)p3;
#else
    for (int i = 0; i < 4; ++i)
        out[i] = (int8_t)tn_ssat8((a[i] * (int16_t)m + b[i] * (m >> 16) + c) >> shift);
#endif
}
#endif
