/* Products in float32 of packed factors, compiled once per instruction set. Both factors are panels of 16 rows, [K][16] floats, the last
 * one padded with zero rows: all loads are whole vectors, and nothing that is read again lies a large power of two apart. */
#ifndef DMC_GEMM_F32_SIMD_H
#define DMC_GEMM_F32_SIMD_H

#include "kernels/panels.h"
#include "kernels/vec16.h"

/* Four columns of four rows: out[k][row] = src[row * stride + k]. */
INLINE void transpose4(const float *src, int64_t stride, float *out)
{
    v4 r[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) memcpy(&r[i], src + i * stride, sizeof r[i]);
    v4 p = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5), q = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7);
    v4 s = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5), t = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
    r[0] = __builtin_shufflevector(p, s, 0, 1, 4, 5), r[1] = __builtin_shufflevector(p, s, 2, 3, 6, 7);
    r[2] = __builtin_shufflevector(q, t, 0, 1, 4, 5), r[3] = __builtin_shufflevector(q, t, 2, 3, 6, 7);
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) memcpy(out + k * DMC_PANEL_ROWS, &r[k], sizeof r[k]);
}

INLINE void pack_f32(int64_t rows, int64_t K, const float *src, int64_t row, int64_t col, int64_t r0, int64_t r1,
                     void *panels)
{
    for (int64_t r = r0; r < r1; r += DMC_PANEL_ROWS) {
        float *out = (float *)panels + r * K;
        const float *from = src + r * row;
        int64_t n = rows - r < DMC_PANEL_ROWS ? rows - r : DMC_PANEL_ROWS, k = 0;
        if (n == DMC_PANEL_ROWS && row == 1) {
            for (; k < K; k++) store(out + k * DMC_PANEL_ROWS, load(from + k * col));
        } else if (n == DMC_PANEL_ROWS && col == 1) {
            for (; k + 4 <= K; k += 4)
#pragma GCC unroll 4
                for (int i = 0; i < 16; i += 4) transpose4(from + i * row + k, row, out + k * DMC_PANEL_ROWS + i);
        }
        for (; k < K; k++)
            for (int i = 0; i < DMC_PANEL_ROWS; i++) out[k * DMC_PANEL_ROWS + i] = i < n ? from[i * row + k * col] : 0;
    }
}

/* c[nr][16 np] (+)= nr rows of the panel at a times np panels at b, `size` floats apart. Rows beyond n_rows are not stored, the last panel
 * has `last` rows. */
INLINE void tile_f32(const int nr, const int np, int64_t K, const float *a, const float *b, int64_t size,
                     int64_t n_rows, int64_t last, float *c, int64_t ldc, bool add)
{
    v16 sum[8][3];
#pragma GCC unroll 8
    for (int i = 0; i < nr; i++)
#pragma GCC unroll 4
        for (int j = 0; j < np; j++) sum[i][j] = (v16){0};
    for (int64_t k = 0; k < K; k++, a += DMC_PANEL_ROWS, b += DMC_PANEL_ROWS) {
        v16 w[3];
#pragma GCC unroll 4
        for (int j = 0; j < np; j++) w[j] = load(b + j * size);
#pragma GCC unroll 8
        for (int i = 0; i < nr; i++)
#pragma GCC unroll 4
            for (int j = 0; j < np; j++) sum[i][j] += a[i] * w[j];
    }
#pragma GCC unroll 8
    for (int i = 0; i < nr; i++, c += ldc) {
        if (i >= n_rows) continue;
#pragma GCC unroll 4
        for (int j = 0; j < np; j++) {
            int64_t n = j == np - 1 ? last : 16;
            float *to = c + 16 * j;
            if (n == 16) store(to, add ? load(to) + sum[i][j] : sum[i][j]);
            else store_part(to, add ? load_part(to, n) + sum[i][j] : sum[i][j], n);
        }
    }
}

/* nr x np: rows and panels at a time; nr divides 16. A panel of a stays in the first-level cache. */
INLINE void linear_f32(const int nr, const int np, int64_t M, int64_t rows, int64_t K, const float *a, const float *b,
                       int64_t p0, int64_t p1, float *c, int64_t ldc, bool add)
{
    int64_t size = K * DMC_PANEL_ROWS;
    for (int64_t m = 0; m < M; m += DMC_PANEL_ROWS) {
        for (int64_t p = p0, n; p < p1; p += n) {
            n = p1 - p < np ? p1 - p : np;
            int64_t rest = rows - (p + n - 1) * DMC_PANEL_ROWS, last = rest < 16 ? rest : 16;
            const float *w = b + p * size;
            for (int64_t i = m; i < m + DMC_PANEL_ROWS && i < M; i += nr) {
                const float *x = a + m * K + (i - m);
                float *to = c + i * ldc + p * DMC_PANEL_ROWS;
                if (n == np) tile_f32(nr, np, K, x, w, size, M - i, last, to, ldc, add);
                else if (n == 2) tile_f32(nr, 2, K, x, w, size, M - i, last, to, ldc, add);
                else tile_f32(nr, 1, K, x, w, size, M - i, last, to, ldc, add);
            }
        }
    }
}

#endif
