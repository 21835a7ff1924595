/* The kernels of thumbnet_dsp.h in plain C: same arguments, layouts and bytes. FITS and ANY variants do not differ
 * here. Included by thumbnet_dsp.h.
 */
#ifndef TN_KERNELS_PORTABLE_H
#define TN_KERNELS_PORTABLE_H
#define TN_PORT static __attribute__((noinline, unused))
#define TN_SAT_PIX_FITS
#define TN_SAT_PIX_ANY
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
#define TN_DEF_PW1X2_NHWC(NAME, K, SH, N)                                                                              \
    TN_PORT void NAME(const int16_t *act, int8_t *out, const int16_t *act_end, const int32_t *stream) {                \
        int32_t r[2][2];                                                                                               \
        (void)act_end;                                                                                                 \
        tn_pw_block(act, stream, K, 1, SH, r);                                                                         \
        out[0] = (int8_t)r[0][0];                                                                                      \
        out[1] = (int8_t)r[0][1];                                                                                      \
    }
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
#define TN_DEF_WIDEN32(NAME)                                                                                           \
    TN_PORT void NAME(int32_t *stream, const int32_t *flash, int32_t zo, int32_t cs, int32_t k) {                      \
        const int8_t *b = (const int8_t *)(flash + 4);                                                                 \
        int16_t *w = (int16_t *)(stream + 4);                                                                          \
        stream[0] = stream[2] = flash[0];                                                                              \
        stream[1] = stream[3] = flash[1];                                                                              \
        for (int i = 0; i < 2 * k; i += 4) {                                                                           \
            w[i] = b[i];                                                                                               \
            w[i + 1] = b[i + 2];                                                                                       \
            w[i + 2] = b[i + 1];                                                                                       \
            w[i + 3] = b[i + 3];                                                                                       \
        }                                                                                                              \
        stream[4 + k] = flash[2];                                                                                      \
        stream[5 + k] = flash[3];                                                                                      \
        stream[6 + k] = zo;                                                                                            \
        stream[7 + k] = cs;                                                                                            \
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
