/* The kernels of thumbnet_dsp.h in plain C: same arguments, layouts and bytes. FITS and ANY variants do not differ
 * here. Included by thumbnet_dsp.h.
 */
#ifndef TN_KERNELS_PORTABLE_H
#define TN_KERNELS_PORTABLE_H
#define TN_PORT static TN_CODE __attribute__((noinline, unused))
#define TN_K8_PLANAR_FITS 2
#define TN_K8_PLANAR_ANY 2
#define TN_K8_PLANAR8 1
/* A block of pointwise outputs out[pixel][channel]: pixels of pair16, C channels of weights behind their biases, which
 * are in words as far apart as STEP says. */
TN_INLINE void tn_pw_block(const int16_t *act, const int32_t *bias, int step, const int16_t *w, const int32_t *factor,
                           int32_t zo, int K, int C, int npix, int shift, int32_t out[2][4]) {
    for (int p = 0; p < npix; ++p)
        for (int c = 0; c < C; ++c) {
            int32_t acc = bias[c * step];
            for (int k = 0; k < K; k += 2) {
                const int16_t *a = act + 2 * k + 2 * p, *b = w + C * k + 2 * c;
                acc += a[0] * b[0] + a[1] * b[1];
            }
            out[p][c] = tn_requant((int32_t)((uint32_t)acc << shift), factor[c], zo);
        }
}
/* Of a weight stream of four channels, and of a pair. */
TN_INLINE void tn_pw_block4(const int16_t *act, const int32_t *stream, int K, int shift, int32_t out[2][4]) {
    const int32_t *end = stream + 9 + 2 * K;
    tn_pw_block(act, stream, 2, (const int16_t *)(stream + 9), end, end[4], K, 4, 2, shift, out);
}
TN_INLINE void tn_pw_block2(const int16_t *act, const int32_t *stream, int K, int npix, int shift, int32_t out[2][4]) {
    const int32_t *end = stream + 4 + K;
    tn_pw_block(act, stream, 1, (const int16_t *)(stream + 4), end, end[2], K, 2, npix, shift, out);
}
#define TN_PORT_PWR(NAME, T, C, K, GAP, BLOCK, CS, PIX, CHN, ARGS, ROWS)                                               \
    TN_PORT void NAME ARGS {                                                                                           \
        const int32_t row = (int32_t)(act_end - act), cs = (CS) / (int32_t)sizeof(T);                                  \
        (void)cs;                                                                                                      \
        for (int y = 0; y < (ROWS); ++y, act_end += row, out += (GAP) / (int)sizeof(T))                                \
            for (; act != act_end; act += 2 * (K), out += 2 * (PIX)) {                                                 \
                int32_t r[2][4];                                                                                       \
                BLOCK;                                                                                                 \
                for (int p = 0; p < 2; ++p)                                                                            \
                    for (int c = 0; c < (C); ++c)                                                                      \
                        out[p * (PIX) + c * (CHN)] = (T)r[p][c];                                                       \
            }                                                                                                          \
    }
#define TN_PORT_PLANES(NAME, T, C, K, BLOCK, CS)                                                                       \
    TN_PORT_PWR(                                                                                                       \
        NAME, T, C, K, gap, BLOCK, CS, 1, cs,                                                                          \
        (const int16_t *act, T *out, const int16_t *act_end, const int32_t *stream, int32_t rows, int32_t gap), rows)
#define TN_PORT_NHWC(NAME, C, K, BLOCK, CS)                                                                            \
    TN_PORT_PWR(NAME, int8_t, C, K, 0, BLOCK, CS, cs, 1,                                                               \
                (const int16_t *act, int8_t *out, const int16_t *act_end, const int32_t *stream), 1)
#define TN_DEF_PW2X4_PLANAR(NAME, K, SH, SAT)                                                                          \
    TN_PORT_PLANES(NAME, int16_t, 4, K, tn_pw_block4(act, stream, K, SH, r), stream[8])
#define TN_DEF_PW2X4_PLANAR8(NAME, K, SH)                                                                              \
    TN_PORT_PLANES(NAME, int8_t, 4, K, tn_pw_block4(act, stream, K, SH, r), stream[8])
#define TN_DEF_PW2X4_NHWC(NAME, K, SH) TN_PORT_NHWC(NAME, 4, K, tn_pw_block4(act, stream, K, SH, r), stream[8])
#define TN_DEF_PW2X2_PLANAR(NAME, K, SH, SAT)                                                                          \
    TN_PORT_PLANES(NAME, int16_t, 2, K, tn_pw_block2(act, stream, K, 2, SH, r), stream[7 + (K)])
#define TN_DEF_PW2X2_PLANAR8(NAME, K, SH)                                                                              \
    TN_PORT_PLANES(NAME, int8_t, 2, K, tn_pw_block2(act, stream, K, 2, SH, r), stream[7 + (K)])
#define TN_DEF_PW2X2_NHWC(NAME, K, SH) TN_PORT_NHWC(NAME, 2, K, tn_pw_block2(act, stream, K, 2, SH, r), stream[7 + (K)])
#define TN_DEF_PW1X2_NHWC(NAME, K, SH)                                                                                 \
    TN_PORT void NAME(const int16_t *act, int8_t *out, const int16_t *act_end, const int32_t *stream) {                \
        int32_t r[2][4];                                                                                               \
        (void)act_end;                                                                                                 \
        tn_pw_block2(act, stream, K, 1, SH, r);                                                                        \
        out[0] = (int8_t)r[0][0];                                                                                      \
        out[1] = (int8_t)r[0][1];                                                                                      \
    }
/* Widens words of int8 for SXTB16 to neighbours. */
TN_INLINE void tn_widen(int16_t *to, const int32_t *from, int words) {
    const int8_t *b = (const int8_t *)from;
    for (int i = 0; i < 4 * words; i += 4) {
        to[i] = b[i];
        to[i + 1] = b[i + 2];
        to[i + 2] = b[i + 1];
        to[i + 3] = b[i + 3];
    }
}
#define TN_DEF_WIDEN4(NAME)                                                                                            \
    TN_PORT void NAME(int32_t *stream, const int32_t *flash, int32_t zo, int32_t cs, int32_t k) {                      \
        for (int c = 0; c < 8; ++c)                                                                                    \
            stream[c] = flash[c / 2];                                                                                  \
        stream[8] = cs;                                                                                                \
        tn_widen((int16_t *)(stream + 9), flash + 4, k);                                                               \
        for (int c = 0; c < 4; ++c)                                                                                    \
            stream[9 + 2 * k + c] = flash[4 + k + c];                                                                  \
        stream[13 + 2 * k] = zo;                                                                                       \
    }
TN_INLINE void tn_widen2(int32_t *stream, const int32_t *flash, int32_t zo, int32_t cs, int32_t k) {
    stream[0] = stream[2] = flash[0];
    stream[1] = stream[3] = flash[1];
    tn_widen((int16_t *)(stream + 4), flash + 4, k / 2);
    stream[4 + k] = flash[2];
    stream[5 + k] = flash[3];
    stream[6 + k] = zo;
    stream[7 + k] = cs;
}
#define TN_DEF_WIDEN(NAME, K)                                                                                          \
    TN_PORT const int32_t *NAME(int32_t *stream, const int32_t *flash, int32_t zo, int32_t cs) {                       \
        tn_widen2(stream, flash, zo, cs, K);                                                                           \
        return flash + 4 + (K) / 2;                                                                                    \
    }
#define TN_DEF_WIDEN32(NAME)                                                                                           \
    TN_PORT void NAME(int32_t *stream, const int32_t *flash, int32_t zo, int32_t cs, int32_t k) {                      \
        tn_widen2(stream, flash, zo, cs, k);                                                                           \
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
static const uint8_t tn_taps[3][9]
    __attribute__((unused)) = {{1, 0, 2, 4, 3, 5, 7, 6, 8}, {0, 2, 1, 4, 6, 3, 5, 7, 8}, {0, 1, 2, 4, 3, 6, 5, 8, 7}};
/* A word that need not be aligned. */
TN_INLINE int32_t tn_word(const int8_t *bytes) {
    uint32_t word = 0;
    for (int i = 0; i < 4; ++i)
        word |= (uint32_t)(uint8_t)bytes[i] << (8 * i);
    return (int32_t)word;
}
#define TN_PORT_DW(NAME, T, FMT, S, W, U, WPB, ICH, OSTEP, O1, OCH, ZO, SH)                                            \
    TN_PORT void NAME(const int8_t *params, const T *in, int16_t *out, const int8_t *params_end, int32_t row_bytes) {  \
        const int wp = (WPB) / (int)sizeof(T);                                                                         \
        for (; params != params_end; params += 17, in += (ICH) / (int)sizeof(T), out += (OCH) / 2) {                   \
            for (int y = 0; y < row_bytes / ((S) * (WPB)); ++y)                                                        \
                for (int x = 0; x < (W); ++x) {                                                                        \
                    int p = y % (U) * (W) + x, grp = y / (U) * (((U) * (W) + 1) / 2);                                  \
                    int32_t acc = tn_word(params + 9);                                                                 \
                    for (int t = 0; t < 9; ++t)                                                                        \
                        acc += params[tn_taps[FMT][t]] * in[(y * (S) + t / 3) * wp + x * (S) + t % 3];                 \
                    out[((grp + p / 2) * (OSTEP) + p % 2 * (O1)) / 2] =                                                \
                        (int16_t)tn_requant((int32_t)((uint32_t)acc << (SH)), tn_word(params + 13), ZO);               \
                }                                                                                                      \
        }                                                                                                              \
    }
#define TN_DEF_DW3X3S1(NAME, ...) TN_PORT_DW(NAME, int16_t, 0, 1, __VA_ARGS__)
#define TN_DEF_DW3X3S2(NAME, ...) TN_PORT_DW(NAME, int16_t, 1, 2, __VA_ARGS__)
#define TN_DEF_DW3X3S1_P8(NAME, ...) TN_PORT_DW(NAME, int8_t, 2, 1, __VA_ARGS__)
#define TN_DEF_DW3X3S2_P8(NAME, ...) TN_PORT_DW(NAME, int8_t, 2, 2, __VA_ARGS__)
/* Positions of a row's tap bytes among a channel's parameters: 5x5 and 7x7, stride 1 and 2. */
static const uint8_t tn_large_taps[2][2][7]
    __attribute__((unused)) = {{{1, 0, 2, 3, 4}, {0, 2, 1, 3, 4}}, {{1, 0, 2, 3, 5, 4, 6}, {0, 2, 1, 3, 4, 6, 5}}};
#define TN_PORT_DW_LARGE(NAME, T, K, S, W, PACKED, WPB, ICH, OSTEP, O1, OCH, ZO, SH, ARGS)                             \
    TN_PORT void NAME ARGS {                                                                                           \
        const int wp = (WPB) / (int)sizeof(T);                                                                         \
        for (; params != params_end; params += (K) * (K) + 8, in += (ICH) / (int)sizeof(T), out += (OCH) / 2)          \
            for (int y = 0; y < rows; ++y)                                                                             \
                for (int x = 0; x < (W); ++x) {                                                                        \
                    const int p = (PACKED) ? y * (W) + x : y * (((W) + 1) / 2 * 2) + x;                                \
                    int32_t acc = tn_word(params + (K) * (K));                                                         \
                    for (int t = 0; t < (K) * (K); ++t)                                                                \
                        acc += params[t / (K) * (K) + tn_large_taps[(K) / 7][(S) - 1][t % (K)]] *                      \
                               in[(y * (S) + t / (K)) * wp + x * (S) + t % (K)];                                       \
                    out[(p / 2 * (OSTEP) + p % 2 * (O1)) / 2] =                                                        \
                        (int16_t)tn_requant((int32_t)((uint32_t)acc << (SH)), tn_word(params + (K) * (K) + 4), ZO);    \
                }                                                                                                      \
    }
#define TN_DEF_DW_LARGE(NAME, ...)                                                                                     \
    TN_PORT_DW_LARGE(NAME, int16_t, __VA_ARGS__,                                                                       \
                     (const int8_t *params, const int16_t *in, int16_t *out, const int8_t *params_end, int32_t rows))
#define TN_DEF_DW_LARGE_P8(NAME, K, S, W, PACKED, PITCH, ...)                                                          \
    TN_PORT_DW_LARGE(NAME, int8_t, K, S, W, PACKED, __VA_ARGS__,                                                       \
                     (const int8_t *params, const int8_t *in, int16_t *out, const int8_t *params_end, int32_t rows,    \
                      __attribute__((unused)) int16_t *plane))
#define TN_DEF_IM2COL3(NAME, ROWB)                                                                                     \
    TN_PORT void NAME(const int8_t *in, int16_t *out, int32_t pairs) {                                                 \
        static const uint8_t order[8] = {0, 2, 1, 3, 4, 6, 5, 7};                                                      \
        for (; pairs > 0; --pairs, in += 12, out += 56)                                                                \
            for (int p = 0; p < 2; ++p) {                                                                              \
                for (int r = 0; r < 3; ++r) {                                                                          \
                    for (int k = 0; k < 8; ++k)                                                                        \
                        out[(4 * r + k / 2) * 4 + p * 2 + k % 2] = in[r * (ROWB) + 6 * p + order[k]];                  \
                    out[48 + r / 2 * 4 + p * 2 + r % 2] = in[r * (ROWB) + 6 * p + 8];                                  \
                }                                                                                                      \
                out[52 + p * 2 + 1] = 0;                                                                               \
            }                                                                                                          \
    }
#define TN_DEF_TO_PAIR16(NAME, K)                                                                                      \
    TN_PORT void NAME(const int8_t *in, int16_t *out, int32_t pairs) {                                                 \
        static const uint8_t order[4] = {0, 2, 1, 3};                                                                  \
        for (; pairs > 0; --pairs, in += 2 * (K), out += 2 * (K))                                                      \
            for (int i = 0; i < 2 * (K); ++i)                                                                          \
                out[i] = in[i / 2 % 2 * (K) + i / 8 * 4 + order[i / 4 % 2 * 2 + i % 2]];                               \
    }
#define TN_DEF_TO_WIDE8(NAME)                                                                                          \
    TN_PORT void NAME(const int8_t *in, int16_t *out, int32_t pairs) {                                                 \
        static const uint8_t order[4] = {0, 2, 1, 3};                                                                  \
        for (int i = 0; i < 16 * pairs; ++i)                                                                           \
            out[i] = in[i / 4 * 4 + order[i % 4]];                                                                     \
    }
#endif
