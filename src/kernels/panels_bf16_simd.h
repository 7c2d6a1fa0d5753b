/* Products with BF16 panels in plain vectors, compiled once per instruction set: the two chains of fused multiply-adds per block that
 * the matrix unit computes, lane by lane. */
#ifndef DMC_PANELS_BF16_SIMD_H
#define DMC_PANELS_BF16_SIMD_H

#include "kernels/panels_bf16.h"
#include "kernels/vec16.h"

#include <immintrin.h>

/* Denormal numbers count as 0 while the matrix unit's results are computed; returns what restores the mode. */
INLINE unsigned flush_denormals(void)
{
    unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040);
    return mode;
}

INLINE v16 evens(const uint8_t *p) /* the lower one of two bf16 in each lane */
{
    i16 v;
    memcpy(&v, p, sizeof v);
    return (v16)(v << 16);
}

INLINE v16 odds(const uint8_t *p)
{
    i16 v;
    memcpy(&v, p, sizeof v);
    return (v16)(v & (int32_t)0xffff0000);
}

/* y[nr][16 np] (+)= nr rows of x (all of one tile, `step` bytes from block to block) times np panels, `size` bytes apart. The last
 * panel has `last` rows. */
INLINE void rows_by_panels(const int nr, const int np, int64_t n_blocks, const uint8_t *x, int64_t step,
                           const uint8_t *w, int64_t size, float *y, int64_t ldy, int64_t last, bool add)
{
    v16 sum[4][4];
#pragma GCC unroll 8
    for (int i = 0; i < nr; i++)
#pragma GCC unroll 4
        for (int j = 0; j < np; j++) sum[i][j] = (v16){0};
    for (int64_t b = 0; b < n_blocks; b++, x += step, w += DMC_BF16_BLOCK) {
        float xe[4][16], xo[4][16];
        v16 even[4][4], odd[4][4];
#pragma GCC unroll 8
        for (int i = 0; i < nr; i++) {
            store(xe[i], evens(x + i * DMC_BF16_ROW));
            store(xo[i], odds(x + i * DMC_BF16_ROW));
#pragma GCC unroll 4
            for (int j = 0; j < np; j++) even[i][j] = odd[i][j] = (v16){0};
        }
        for (int k = 0; k < 16; k++) {
#pragma GCC unroll 4
            for (int j = 0; j < np; j++) {
                const uint8_t *at = w + j * size + k * 64;
                v16 we = evens(at), wo = odds(at);
#pragma GCC unroll 8
                for (int i = 0; i < nr; i++) {
                    even[i][j] += xe[i][k] * we;
                    odd[i][j] += xo[i][k] * wo;
                }
            }
        }
#pragma GCC unroll 8
        for (int i = 0; i < nr; i++)
#pragma GCC unroll 4
            for (int j = 0; j < np; j++) sum[i][j] += even[i][j] + odd[i][j];
    }
#pragma GCC unroll 8
    for (int i = 0; i < nr; i++, y += ldy) {
#pragma GCC unroll 4
        for (int j = 0; j < np; j++) {
            int64_t n = j == np - 1 ? last : 16;
            float *to = y + 16 * j;
            if (n == 16) store(to, add ? load(to) + sum[i][j] : sum[i][j]);
            else store_part(to, add ? load_part(to, n) + sum[i][j] : sum[i][j], n);
        }
    }
}

/* Rows [m0, m1) of one tile, nr at a time, times np panels. */
INLINE void tile_by_panels(const int nr, const int np, int64_t n_rows, int64_t n_blocks, const uint8_t *x,
                           const uint8_t *w, float *y, int64_t ldy, int64_t last, bool add)
{
    int64_t step = n_rows * DMC_BF16_ROW, size = n_blocks * DMC_BF16_BLOCK, m = 0;
    for (; m + nr <= n_rows; m += nr)
        rows_by_panels(nr, np, n_blocks, x + m * DMC_BF16_ROW, step, w, size, y + m * ldy, ldy, last, add);
    for (; m < n_rows; m++)
        rows_by_panels(1, np, n_blocks, x + m * DMC_BF16_ROW, step, w, size, y + m * ldy, ldy, last, add);
}

/* one: panels at a time for a single row; nr x np: rows and panels at a time for several. */
INLINE void linear_bf16(const int one, const int nr, const int np, int64_t M, int64_t rows, int64_t K,
                        const void *operand, const void *panels, int64_t p0, int64_t p1, float *y, int64_t ldy,
                        bool add)
{
    unsigned mode = flush_denormals();
    int64_t n_blocks = dmc_bf16_blocks(K), n;
    for (int64_t p = p0; p < p1; p += n) {
        int64_t want = M == 1 ? one : np;
        n = p1 - p >= want ? want : 1;
        int64_t rest = rows - (p + n - 1) * DMC_PANEL_ROWS, last = rest < 16 ? rest : 16;
        const uint8_t *w = dmc_bf16_panel(panels, K, p);
        for (int64_t m = 0; m < M; m += DMC_PANEL_ROWS) {
            int64_t n_rows = dmc_bf16_tile_rows(M, m);
            const uint8_t *x = dmc_bf16_tile(operand, K, m);
            float *out = y + m * ldy + p * DMC_PANEL_ROWS;
            if (n == 1) tile_by_panels(nr, 1, n_rows, n_blocks, x, w, out, ldy, last, add);
            else if (M == 1) tile_by_panels(1, one, 1, n_blocks, x, w, out, ldy, last, add);
            else tile_by_panels(nr, np, n_rows, n_blocks, x, w, out, ldy, last, add);
        }
    }
    _mm_setcsr(mode);
}

#endif
