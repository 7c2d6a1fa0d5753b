/* Packing of bf16 factors of any orientation, compiled once for AVX-512 and once for AVX-512 with bf16 conversions (the matrix unit's
 * tier). Both factors are made of blocks of 16 rows x 32 columns = 16 vectors: of the operand a vector is a row, of the panels a pair
 * of columns, and one is the other's transpose in elements of 32 bits. */
#ifndef DMC_GEMM_BF16_SIMD_H
#define DMC_GEMM_BF16_SIMD_H

#include "kernels/panels_bf16.h"
#include "kernels/vec16.h"

#include <immintrin.h>

/* Floats rounded to bf16, in the upper halves of the lanes. */
INLINE __m512i rounded(__m512 x)
{
    __m512i u = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return _mm512_mask_or_epi32(r, nan, u, _mm512_set1_epi32(0x400000));
}

/* 32 consecutive values. */
INLINE __m512i in_row(__m512 lo, __m512 hi)
{
#if defined(__AVX512BF16__)
    return (__m512i)_mm512_cvtne2ps_pbh(hi, lo);
#else
    __m256i l = _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded(lo), 16));
    __m256i h = _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded(hi), 16));
    return _mm512_inserti64x4(_mm512_castsi256_si512(l), h, 1);
#endif
}

/* Lane by lane a pair of values. */
INLINE __m512i in_pairs(__m512 even, __m512 odd)
{
#if defined(__AVX512BF16__)
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(odd, even));
#else
    return _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(rounded(even), 16), rounded(odd));
#endif
}

INLINE void transpose(__m512i z[16])
{
    __m512i t[16];
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        __m512i a = _mm512_unpacklo_epi32(z[i], z[i + 1]), b = _mm512_unpackhi_epi32(z[i], z[i + 1]);
        __m512i c = _mm512_unpacklo_epi32(z[i + 2], z[i + 3]), d = _mm512_unpackhi_epi32(z[i + 2], z[i + 3]);
        t[i] = _mm512_unpacklo_epi64(a, c), t[i + 1] = _mm512_unpackhi_epi64(a, c);
        t[i + 2] = _mm512_unpacklo_epi64(b, d), t[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m512i a = _mm512_shuffle_i32x4(t[i], t[i + 4], 0x88), b = _mm512_shuffle_i32x4(t[i], t[i + 4], 0xdd);
        __m512i c = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0x88),
                d = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0xdd);
        z[i] = _mm512_shuffle_i32x4(a, c, 0x88), z[i + 8] = _mm512_shuffle_i32x4(a, c, 0xdd);
        z[i + 4] = _mm512_shuffle_i32x4(b, d, 0x88), z[i + 12] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
}

/* The first n <= 16 floats, zeros behind them; n <= 0: nothing is read. */
INLINE __m512 load_n(const float *p, int64_t n)
{
    return n >= 16  ? _mm512_loadu_ps(p)
           : n <= 0 ? _mm512_setzero_ps()
                    : _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}

/* A block: n_rows rows, columns [k, K). by_row: the columns of a row are neighbours, otherwise the rows of a column. whole: all of the
 * block exists. */
INLINE void block_of(const bool operand, const bool by_row, const bool whole, int64_t n_rows, int64_t K,
                     const float *src, int64_t stride, int64_t k, __m512i *out)
{
    __m512i z[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
        if (by_row) {
            const float *p = src + i * stride + k;
            if (whole) z[i] = in_row(_mm512_loadu_ps(p), _mm512_loadu_ps(p + 16));
            else z[i] = i < n_rows ? in_row(load_n(p, K - k), load_n(p + 16, K - k - 16)) : _mm512_setzero_si512();
        } else {
            const float *p = src + (k + 2 * i) * stride;
            if (whole) z[i] = in_pairs(_mm512_loadu_ps(p), _mm512_loadu_ps(p + stride));
            else
                z[i] =
                    in_pairs(load_n(p, k + 2 * i < K ? n_rows : 0), load_n(p + stride, k + 2 * i + 1 < K ? n_rows : 0));
        }
    }
    if (operand != by_row) transpose(z);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        if (whole || !operand || i < n_rows) _mm512_storeu_si512(out + i, z[i]);
}

INLINE void block_at(const bool operand, const bool by_row, int64_t rows, int64_t K, const float *src, int64_t stride,
                     int64_t r, int64_t k, void *out)
{
    int64_t n_rows = dmc_bf16_tile_rows(rows, r);
    const uint8_t *at = operand ? dmc_bf16_tile(out, K, r) : dmc_bf16_panel(out, K, r / DMC_PANEL_ROWS);
    __m512i *to = (__m512i *)(uintptr_t)(at + k * (operand ? n_rows * 2 : DMC_PANEL_ROWS * 2));
    src += by_row ? r * stride : r;
    if (n_rows == 16 && K - k >= 32) block_of(operand, by_row, true, 16, K, src, stride, k, to);
    else block_of(operand, by_row, false, n_rows, K, src, stride, k, to);
}

/* Blocks in the order in which the source lies in memory. */
INLINE void pack_any(const bool operand, int64_t rows, int64_t K, const float *src, int64_t row, int64_t col,
                     int64_t r0, int64_t r1, void *out)
{
    if (col == 1) {
        for (int64_t r = r0; r < r1; r += DMC_PANEL_ROWS)
            for (int64_t k = 0; k < K; k += DMC_PANEL_COLS) block_at(operand, true, rows, K, src, row, r, k, out);
    } else {
        for (int64_t k = 0; k < K; k += DMC_PANEL_COLS)
            for (int64_t r = r0; r < r1; r += DMC_PANEL_ROWS) block_at(operand, false, rows, K, src, col, r, k, out);
    }
}

#endif
