/* Attention of many query rows with the matrix unit: S = Q K^T and O += P V in bf16 with float sums.
 *
 * Keys come in blocks of 256, from pages of any type or from rows, and are brought into B tiles once for all rows:
 *
 *   keys    [group of 32 keys][32 channels][2 x 16 keys]  tile: [16 channel pairs][16 keys][2]
 *   values  [group of 32 keys][16 channels]               tile: [16 key pairs][16 channels][2]
 *
 * Queries are A tiles from the start, scaled so that weights are powers of two. 32 rows at a time go over a block: scores to scratch,
 * online softmax, weights as A tiles, sums in tiles. The running maximum is an integer (of the exponent of two), so that rescaling is
 * exact and rare. Channels are padded to 32 with zeros; keys that nobody sees and those beyond the end have zero keys and values. */
#include "kernels/kv_chunk.h"
#include "kernels/kv_tiles.h"
#include "kernels/tiers.h"

typedef struct {
    const dmc_attend_chunk_args *a;
    key_block keys;
    uint16_t *q, *k, *v, *p; /* tiles */
    float *s;                /* [32][KV_SCORE_LD] */
    float *out, *sum, *top;  /* [rows][ld], [rows][16], [rows] */
    int ld;                  /* channels, padded */
} chunk;

/* ---- into tiles ---- */

/* Channels c .. c + 31 of a row of D, rounded; zeros behind the last one. */
INLINE __m512i row_of(const float *x, int c, int D, float scale)
{
    int n = D - c;
    v16 low = n >= 16 ? load(x + c) : load_part(x + c, n);
    v16 high = n >= 32 ? load(x + c + 16) : n > 16 ? load_part(x + c + 16, n - 16) : (v16){0};
    return bf16_of(low * scale, high * scale);
}

static void pack_queries(const chunk *x)
{
    const dmc_attend_chunk_args *a = x->a;
    int D = a->head_dim;
    float scale = 1.44269504f / sqrtf((float)D);
    for (int64_t r = 0; r < kv_round((int)a->n_rows, KV_CHUNK_ROWS); r++) {
        for (int c = 0; c < x->ld; c += LINE) {
            __m512i line = r < a->n_rows ? row_of(a->q + r * D, c, D, scale) : _mm512_setzero_si512();
            _mm512_store_si512(x->q + (r / 16 * x->ld / LINE + c / LINE) * TILE + r % 16 * LINE, line);
        }
    }
}

/* 16 rows of 32-bit elements become columns. */
INLINE void transpose16(__m512i *x)
{
    __m512i y[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        y[2 * i] = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
        y[2 * i + 1] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        x[4 * i] = _mm512_unpacklo_epi64(y[4 * i], y[4 * i + 2]);
        x[4 * i + 1] = _mm512_unpackhi_epi64(y[4 * i], y[4 * i + 2]);
        x[4 * i + 2] = _mm512_unpacklo_epi64(y[4 * i + 1], y[4 * i + 3]);
        x[4 * i + 3] = _mm512_unpackhi_epi64(y[4 * i + 1], y[4 * i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        y[i] = _mm512_shuffle_i32x4(x[i], x[4 + i], 0x88);
        y[4 + i] = _mm512_shuffle_i32x4(x[i], x[4 + i], 0xdd);
        y[8 + i] = _mm512_shuffle_i32x4(x[8 + i], x[12 + i], 0x88);
        y[12 + i] = _mm512_shuffle_i32x4(x[8 + i], x[12 + i], 0xdd);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        x[i] = _mm512_shuffle_i32x4(y[i], y[8 + i], 0x88);
        x[8 + i] = _mm512_shuffle_i32x4(y[i], y[8 + i], 0xdd);
    }
}

/* Page i of the block: 16 keys, n of them real. There is no such page where n is 0. */
INLINE void pack_page(const dmc_kv_type t, const chunk *x, int i, int n)
{
    int D = x->a->head_dim, steps = x->ld / LINE;
    const dmc_kv_page *page = &x->keys.pages[i];
    uint16_t *k = x->k + (i / 2 * steps * 2 + i % 2) * TILE, *v = x->v + (i / 2 * 2 * steps * 16 + i % 2 * 8) * LINE;
    __m512i zero = _mm512_setzero_si512();
    __mmask16 real = (__mmask16)((1u << n) - 1);
    for (int g = 0; g < steps; g++, k += 2 * TILE) {
        v16 y[LINE];
        if (t != DMC_KV_BF16) page_keys32(t, D, page->k, g, y);
        for (int c = 0; c < LINE / 2; c++) {
            __m512i pair = zero;
            if (t != DMC_KV_BF16) pair = bf16_pairs(y[2 * c], y[2 * c + 1]);
            else if (n && g * LINE + 2 * c < D)
                pair = (__m512i)load_bits((const char *)page->k + 64 * (g * LINE / 2 + c));
            _mm512_store_si512(k + c * LINE, _mm512_maskz_mov_epi32(real, pair));
        }
    }
    for (int c = 0; c < x->ld / 16; c++) {
        for (int s = 0; s < 16; s += 2) {
            __m512i pair = zero;
            if (t == DMC_KV_BF16 && 16 * c + 16 <= D && s + 1 < n) {
                pair = (__m512i)load_bits((const char *)page->v + (s * D + 32 * c) * 2);
            } else if (16 * c < D && s < n) {
                v16 v0 = page_values(t, D, page->v, s, c), v1 = page_values(t, D, page->v, s + 1, c);
                pair = bf16_pairs(v0, s + 1 < n ? v1 : (v16){0});
            }
            _mm512_store_si512(v + c * TILE + s / 2 * LINE, pair);
        }
    }
}

/* Keys 16i .. 16i + 15 of the block from rows. */
INLINE void pack_rows(const chunk *x, int i)
{
    const dmc_chunk_keys *rows = x->keys.rows;
    int D = x->a->head_dim, steps = x->ld / LINE;
    const float *kr[16], *vr[16];
    for (int j = 0; j < 16; j++) {
        int64_t at = x->keys.first + 16 * i + j;
        bool real = x->keys.from[16 * i + j] < x->keys.to[16 * i + j];
        kr[j] = real ? rows->k + at * rows->ld_k : NULL;
        vr[j] = real ? rows->v + at * rows->ld_v : NULL;
    }
    uint16_t *k = x->k + (i / 2 * steps * 2 + i % 2) * TILE, *v = x->v + (i / 2 * 2 * steps * 16 + i % 2 * 8) * LINE;
    for (int c = 0; c < x->ld; c += LINE, k += 2 * TILE) {
        __m512i y[16];
        for (int j = 0; j < 16; j++) y[j] = kr[j] ? row_of(kr[j], c, D, 1) : _mm512_setzero_si512();
        transpose16(y);
        for (int j = 0; j < 16; j++) _mm512_store_si512(k + j * LINE, y[j]);
    }
    for (int c = 0; c < x->ld; c += 16, v += TILE) {
        int n = D - c < 0 ? 0 : D - c < 16 ? D - c : 16;
        for (int j = 0; j < 16; j += 2) {
            v16 v0 = vr[j] ? load_part(vr[j] + c, n) : (v16){0},
                v1 = vr[j + 1] ? load_part(vr[j + 1] + c, n) : (v16){0};
            _mm512_store_si512(v + j / 2 * LINE, bf16_pairs(v0, v1));
        }
    }
}

static void pack_block(const chunk *x)
{
    for (int i = 0; i < 2 * x->keys.n_groups; i++) {
        int64_t left = x->keys.n - 16 * i;
        int n = left < 0 ? 0 : left < 16 ? (int)left : 16;
        if (!x->keys.pages) pack_rows(x, i);
        else if (n == 0) pack_page(DMC_KV_BF16, x, i, 0);
        else if (x->a->type == DMC_KV_F16) pack_page(DMC_KV_F16, x, i, n);
        else if (x->a->type == DMC_KV_BF16) pack_page(DMC_KV_BF16, x, i, n);
        else if (x->a->type == DMC_KV_Q8) pack_page(DMC_KV_Q8, x, i, n);
        else pack_page(DMC_KV_Q4, x, i, n);
    }
}

/* ---- 32 rows over a block ---- */

/* Scores of the i-th group of keys that the rows see. */
static void score_group(const chunk *x, const view *w, int i)
{
    int steps = x->ld / LINE;
    const uint16_t *q0 = x->q + w->row / 16 * steps * TILE, *q1 = q0 + steps * TILE;
    const uint16_t *k = x->k + w->group[i] * steps * 2 * TILE;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int c = 0; c < steps; c++) {
        _tile_loadd(4, q0 + c * TILE, 64);
        _tile_loadd(6, k + 2 * c * TILE, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, k + (2 * c + 1) * TILE, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, q1 + c * TILE, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    float *s = x->s + 32 * i;
    _tile_stored(0, s, KV_SCORE_LD * 4);
    _tile_stored(1, s + 16, KV_SCORE_LD * 4);
    _tile_stored(2, s + 16 * KV_SCORE_LD, KV_SCORE_LD * 4);
    _tile_stored(3, s + 16 * KV_SCORE_LD + 16, KV_SCORE_LD * 4);
}

/* 2^x for x <= 0, relative error 7.5e-5: a 50th of what rounding to bf16 costs. */
INLINE __m512 exp2_16(__m512 x)
{
    __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF), p = _mm512_set1_ps(0.0780247409f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.226067375f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.695833173f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.999925288f));
    return _mm512_scalef_ps(p, x);
}

INLINE void rescale(const chunk *x, int64_t row, float now)
{
    v16 factor = (v16)_mm512_scalef_ps(_mm512_set1_ps(1), _mm512_set1_ps(x->top[row] - now));
    float *out = x->out + row * x->ld;
    for (int c = 0; c < x->ld; c += 16) store(out + c, load(out + c) * factor);
    store(x->sum + row * 16, load(x->sum + row * 16) * factor);
    x->top[row] = now;
}

/* Scores that a row may not see become -INFINITY. */
static void hide_keys(const chunk *x, const view *w, int64_t row, float *s)
{
    int32_t token = (int32_t)(row / x->a->group);
    for (int i = 0; i < w->n; i++) {
        for (int j = 0; w->in_part[i] && j < 32; j += 16) {
            i16 seen = key_mask(&x->keys, w->group[i] * KV_CHUNK_GROUP + j, token);
            store(s + 32 * i + j, select16(seen, load(s + 32 * i + j), splat(-INFINITY)));
        }
    }
}

/* Scores s of a row become weights, a row of A tiles. */
INLINE void soft_row(const chunk *x, const view *w, int64_t row, const float *s, uint16_t *p)
{
    __m512 most = _mm512_set1_ps(-INFINITY), sum0 = _mm512_setzero_ps(), sum1 = sum0;
    for (int i = 0; i < 32 * w->n; i += 32)
        most = _mm512_max_ps(most, _mm512_max_ps(_mm512_loadu_ps(s + i), _mm512_loadu_ps(s + i + 16)));
    float top = _mm512_reduce_max_ps(most);
    if (top > x->top[row]) rescale(x, row, ceilf(top));
    __m512 base = _mm512_set1_ps(x->top[row] > -INFINITY ? x->top[row] : 0);
    for (int i = 0; i < w->n; i++) {
        __m512 e0 = exp2_16(_mm512_sub_ps(_mm512_loadu_ps(s + 32 * i), base));
        __m512 e1 = exp2_16(_mm512_sub_ps(_mm512_loadu_ps(s + 32 * i + 16), base));
        sum0 = _mm512_add_ps(sum0, e0);
        sum1 = _mm512_add_ps(sum1, e1);
        _mm512_store_si512(p + i * TILE, bf16_of((v16)e0, (v16)e1));
    }
    store(x->sum + row * 16, load(x->sum + row * 16) + (v16)sum0 + (v16)sum1);
}

/* Online softmax of 32 rows. */
static void soft_rows(const chunk *x, const view *w)
{
    for (int r = 0; r < KV_CHUNK_ROWS; r++) {
        float *s = x->s + r * KV_SCORE_LD;
        if (w->partly) hide_keys(x, w, w->row + r, s);
        soft_row(x, w, w->row + r, s, x->p + r / 16 * KV_CHUNK_GROUPS * TILE + r % 16 * LINE);
    }
}

static void weigh_tiles(const chunk *x, const view *w)
{
    const uint16_t *p0 = x->p, *p1 = x->p + KV_CHUNK_GROUPS * TILE;
    int tiles = x->ld / 16;
    size_t ld = (size_t)x->ld * 4;
    for (int c = 0; c < tiles; c += 2) {
        float *out = x->out + w->row * x->ld + c * 16;
        _tile_loadd(0, out, ld);
        _tile_loadd(1, out + 16, ld);
        _tile_loadd(2, out + 16 * x->ld, ld);
        _tile_loadd(3, out + 16 * x->ld + 16, ld);
        for (int i = 0; i < w->n; i++) {
            const uint16_t *v = x->v + (w->group[i] * tiles + c) * TILE;
            _tile_loadd(4, p0 + i * TILE, 64);
            _tile_loadd(6, v, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, v + TILE, 64);
            _tile_dpbf16ps(1, 4, 7);
            _tile_loadd(5, p1 + i * TILE, 64);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(0, out, ld);
        _tile_stored(1, out + 16, ld);
        _tile_stored(2, out + 16 * x->ld, ld);
        _tile_stored(3, out + 16 * x->ld + 16, ld);
    }
}

static void finish_rows(const chunk *x)
{
    int D = x->a->head_dim;
    for (int64_t r = 0; r < x->a->n_rows; r++) {
        float sum = sum1(load(x->sum + r * 16)), inverse = sum == 0 ? 0 : 1 / sum;
        for (int d = 0; d < D; d++) x->a->out[r * D + d] = x->out[r * x->ld + d] * inverse;
    }
}

static void rows_over_block(const chunk *x)
{
    for (int64_t row = 0; row < x->a->n_rows; row += KV_CHUNK_ROWS) {
        view w;
        look_at_block(&x->keys, row, &w);
        fetch_block(&x->keys, row, x->a->n_rows);
        if (!w.n) continue;
        for (int i = 0; i < w.n; i++) score_group(x, &w, i);
        soft_rows(x, &w);
        weigh_tiles(x, &w);
    }
}

void dmc_attend_chunk_amx(const dmc_attend_chunk_args *a)
{
    size_t ld = (size_t)kv_round(a->head_dim, LINE), rows = (size_t)kv_round((int)a->n_rows, KV_CHUNK_ROWS);
    chunk x = {.a = a, .ld = (int)ld, .keys = {.a = a, .source = -1}};
    x.out = a->scratch;
    x.sum = x.out + rows * ld;
    x.top = x.sum + rows * 16;
    x.s = x.top + rows;
    x.q = (uint16_t *)(x.s + KV_CHUNK_ROWS * KV_SCORE_LD);
    x.p = x.q + rows * ld;
    x.k = x.p + KV_CHUNK_ROWS * KV_CHUNK_KEYS;
    x.v = x.k + KV_CHUNK_KEYS * ld;
    x.keys.from = (int32_t *)(x.v + KV_CHUNK_KEYS * ld);
    x.keys.to = x.keys.from + KV_CHUNK_KEYS;
    memset(x.out, 0, rows * (ld + 16) * sizeof(float));
    for (size_t r = 0; r < rows; r++) x.top[r] = -INFINITY;
    tile_shapes shapes = {0};
    for (int t = 0; t < 8; t++) shape_tile(&shapes, t, 16, 64);
    load_tile_shapes(&shapes);
    pack_queries(&x);
    while (next_block(&x.keys)) {
        pack_block(&x);
        rows_over_block(&x);
    }
    _tile_release();
    finish_rows(&x);
}
