/* Attention of many query rows in float32 on 16-lane vectors, compiled once per instruction set: kv_avx2.c, kv_avx512.c.
 *
 * A block of 256 keys is decoded once for all rows, keys as [group of 32][channel][32 keys], values as [key][channels]. 32 rows at a time
 * go over it: scores to scratch, online softmax in place, sums in scratch. Both products are tiles of some rows by 32 columns. */
#ifndef DMC_KV_ROWS_H
#define DMC_KV_ROWS_H

#include "kernels/kv_chunk.h"

typedef struct {
    const dmc_attend_chunk_args *a;
    key_block keys;
    int D, ld;        /* channels; padded to 32 */
    float *q, *out;   /* [rows][ld] scaled queries; sums */
    float *top, *sum; /* [rows] */
    float *k, *v, *s; /* [groups][D][32]; [256][ld]; [32][KV_SCORE_LD] */
} row_pass;

/* Keys 16i .. 16i + 15 of a block of pages, n of them real. */
INLINE void decode_page(const dmc_kv_type t, const row_pass *x, int i, int n)
{
    const dmc_kv_page *page = &x->keys.pages[i];
    float *k = x->k + i / 2 * x->D * 32 + i % 2 * 16, *v = x->v + i * 16 * x->ld;
    for (int g = 0; g < x->ld / KV_GROUP; g++) {
        v16 y[KV_GROUP];
        page_keys32(t, x->D, page->k, g, y);
        for (int c = 0; c < KV_GROUP && g * KV_GROUP + c < x->D; c++) store(k + (g * KV_GROUP + c) * 32, y[c]);
    }
    for (int s = 0; s < 16; s++)
        for (int c = 0; c < x->ld; c += 16)
            store(v + s * x->ld + c, s < n && c < x->D ? page_values(t, x->D, page->v, s, c / 16) : (v16){0});
}

INLINE void copy_keys(const row_pass *x, int i)
{
    const dmc_chunk_keys *from = x->keys.rows;
    for (int j = 16 * i; j < 16 * i + 16; j++) {
        bool real = x->keys.from[j] < x->keys.to[j];
        const float *k = from->k + (x->keys.first + j) * from->ld_k, *v = from->v + (x->keys.first + j) * from->ld_v;
        for (int d = 0; d < x->D; d++) x->k[(j / 32 * x->D + d) * 32 + j % 32] = real ? k[d] : 0;
        for (int d = 0; d < x->ld; d++) x->v[j * x->ld + d] = real && d < x->D ? v[d] : 0;
    }
}

static void decode_block(const row_pass *x)
{
    for (int i = 0; i < 2 * x->keys.n_groups; i++) {
        int64_t left = x->keys.n - 16 * i;
        int n = left < 16 ? (int)left : 16;
        if (!x->keys.pages) copy_keys(x, i);
        else if (n <= 0) memset(x->v + i * 16 * x->ld, 0, (size_t)(16 * x->ld) * sizeof(float));
        else if (x->a->type == DMC_KV_F16) decode_page(DMC_KV_F16, x, i, n);
        else if (x->a->type == DMC_KV_BF16) decode_page(DMC_KV_BF16, x, i, n);
        else if (x->a->type == DMC_KV_Q8) decode_page(DMC_KV_Q8, x, i, n);
        else decode_page(DMC_KV_Q4, x, i, n);
    }
}

/* c[32 rows][32] (+)= a[32 rows][n] b[n][32] */
INLINE void product32(int n, const float *a, int lda, const float *b, int ldb, float *c, int ldc, const bool add)
{
    const int nr = SUMS / 2, nc = 2;
    for (int r = 0; r < KV_CHUNK_ROWS; r += nr) {
        for (int o = 0; o < 32; o += nc * NATIVE) {
            const float *ar = a + r * lda, *bc = b + o;
            float *cr = c + r * ldc + o;
            vec low[8] = {{0}}, high[8] = {{0}};
#pragma GCC unroll 8
            for (int i = 0; add && i < nr; i++)
                low[i] = load_vec(cr + i * ldc), high[i] = load_vec(cr + i * ldc + NATIVE);
            for (int j = 0; j < n; j++, bc += ldb) {
                vec b0 = load_vec(bc), b1 = load_vec(bc + NATIVE);
#pragma GCC unroll 8
                for (int i = 0; i < nr; i++) {
                    low[i] += b0 * ar[i * lda + j];
                    high[i] += b1 * ar[i * lda + j];
                }
            }
#pragma GCC unroll 8
            for (int i = 0; i < nr; i++) {
                store_vec(cr + i * ldc, low[i]);
                store_vec(cr + i * ldc + NATIVE, high[i]);
            }
        }
    }
}

/* Scores of a row become weights; sums so far are rescaled where the maximum moves. */
static void soft_row(const row_pass *x, const view *w, int64_t row, float *s)
{
    int32_t token = (int32_t)(row / x->a->group);
    v16 most = splat(-INFINITY);
    for (int i = 0; i < w->n; i++) {
        for (int j = 0; j < 32; j += 16) {
            v16 y = load(s + 32 * i + j);
            if (w->in_part[i]) {
                y = select16(key_mask(&x->keys, w->group[i] * 32 + j, token), y, splat(-INFINITY));
                store(s + 32 * i + j, y);
            }
            most = max16(y, most);
        }
    }
    float top = top_of(most);
    if (top > x->top[row]) {
        v16 factor = exp16(splat(x->top[row] - top));
        float *out = x->out + row * x->ld;
        for (int c = 0; c < x->ld; c += 16) store(out + c, load(out + c) * factor);
        x->sum[row] *= factor[0];
        x->top[row] = top;
    }
    v16 sum = {0}, base = splat(x->top[row] > -INFINITY ? x->top[row] : 0);
    for (int i = 0; i < 32 * w->n; i += 16) {
        v16 e = exp16(load(s + i) - base);
        sum += e;
        store(s + i, e);
    }
    x->sum[row] += sum1(sum);
}

static void rows_over_block(const row_pass *x, int64_t row)
{
    view w;
    look_at_block(&x->keys, row, &w);
    if (!w.n) return;
    float *out = x->out + row * x->ld;
    for (int i = 0; i < w.n; i++)
        product32(x->D, x->q + row * x->ld, x->ld, x->k + w.group[i] * x->D * 32, 32, x->s + 32 * i, KV_SCORE_LD,
                  false);
    for (int r = 0; r < KV_CHUNK_ROWS; r++) soft_row(x, &w, row + r, x->s + r * KV_SCORE_LD);
    for (int i = 0; i < w.n; i++)
        for (int c = 0; c < x->ld; c += 32)
            product32(32, x->s + 32 * i, KV_SCORE_LD, x->v + w.group[i] * 32 * x->ld + c, x->ld, out + c, x->ld, true);
}

INLINE void attend_rows(const dmc_attend_chunk_args *a)
{
    size_t ld = (size_t)kv_round(a->head_dim, 32), n = (size_t)kv_round((int)a->n_rows, KV_CHUNK_ROWS);
    row_pass x = {.a = a, .D = a->head_dim, .ld = (int)ld, .keys = {.a = a, .source = -1}};
    x.q = a->scratch;
    x.out = x.q + n * ld;
    x.top = x.out + n * ld;
    x.sum = x.top + n;
    x.s = x.sum + n;
    x.k = x.s + KV_CHUNK_ROWS * KV_SCORE_LD;
    x.v = x.k + KV_CHUNK_KEYS * ld;
    x.keys.from = (int32_t *)(x.v + KV_CHUNK_KEYS * ld);
    x.keys.to = x.keys.from + KV_CHUNK_KEYS;
    float scale = 1.0f / sqrtf((float)a->head_dim);
    memset(x.q, 0, n * ld * sizeof(float));
    for (int64_t r = 0; r < a->n_rows; r++)
        for (int d = 0; d < x.D; d++) x.q[r * x.ld + d] = a->q[r * x.D + d] * scale;
    memset(x.out, 0, n * ld * sizeof(float));
    for (size_t r = 0; r < n; r++) x.top[r] = -INFINITY, x.sum[r] = 0;
    while (next_block(&x.keys)) {
        decode_block(&x);
        for (int64_t row = 0; row < a->n_rows; row += KV_CHUNK_ROWS) rows_over_block(&x, row);
    }
    for (int64_t r = 0; r < a->n_rows; r++)
        for (int d = 0; d < x.D; d++) a->out[r * x.D + d] = x.sum[r] == 0 ? 0 : x.out[r * x.ld + d] / x.sum[r];
}

#endif
