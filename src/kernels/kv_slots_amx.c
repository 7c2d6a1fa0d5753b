/* Decode with the matrix unit, for query heads that share keys: halves of a BF16 page are B tiles as they lie.
 *
 * Each lane is two rows of an A tile, its queries (later its weights) rounded to bf16 and what rounding left over, so that sums
 * are as good as those of floats. Other types, few lanes and odd channels are left to the vectors. */
#include "kernels/kv_slots.h"
#include "kernels/kv_tiles.h"
#include "kernels/tiers.h"

enum { TEAM = 8, FEWEST = 5 }; /* lanes of an A tile; lanes from which on tiles are faster */

typedef struct {
    slots x;
    uint16_t *q, *p; /* [teams][D/32][16 rows][32 channels]; [pages][16 rows][16 slots] */
    float *raw;      /* what tiles give: scores [16][KV_BLOCK], sums [16][D] */
} tiled;

/* x as two rows: rounded, and the rest. */
INLINE void split(v16 low, v16 high, __m512i *first, __m512i *rest)
{
    *first = bf16_of(low, high);
    v16 l = (v16)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(*first)), 16);
    v16 h = (v16)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(*first, 1)), 16);
    *rest = bf16_of(low - l, high - h);
}

static void split_queries(const tiled *y, int n_lanes)
{
    int steps = y->x.D / LINE;
    memset(y->q, 0, (size_t)(kv_round(n_lanes, TEAM) / TEAM * steps * TILE) * sizeof *y->q);
    for (int l = 0; l < n_lanes; l++) {
        for (int c = 0; c < steps; c++) {
            const float *q = y->x.q + l * y->x.ld + c * LINE;
            __m512i first, rest;
            split(load(q), load(q + 16), &first, &rest);
            uint16_t *to = y->q + (l / TEAM * steps + c) * TILE + l % TEAM * 2 * LINE;
            _mm512_store_si512(to, first);
            _mm512_store_si512(to + LINE, rest);
        }
    }
}

/* Tiles 0 .. 3: scores of four pages; 4: queries; 5: keys. Pages beyond the last one repeat the first. */
static void score_team(const tiled *y, int l0)
{
    const slots *x = &y->x;
    int steps = x->D / LINE;
    const uint16_t *q = y->q + l0 / TEAM * steps * TILE;
    for (int p = 0; p < x->n_pages; p += 4) {
        const dmc_kv_page *page = &x->pages[p];
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int c = 0; c < steps; c++) {
            int line = (p * steps + c * 4) * 16;
            _tile_loadd(4, q + c * TILE, 64);
            _tile_loadd(5, (const uint16_t *)page[0].k + c * TILE, 64);
            _tile_dpbf16ps(0, 4, 5);
            fetch_lines(x->pages, true, line, 16);
            _tile_loadd(5, (const uint16_t *)page[1].k + c * TILE, 64);
            _tile_dpbf16ps(1, 4, 5);
            fetch_lines(x->pages, true, line + 16, 16);
            _tile_loadd(5, (const uint16_t *)page[2].k + c * TILE, 64);
            _tile_dpbf16ps(2, 4, 5);
            fetch_lines(x->pages, true, line + 32, 16);
            _tile_loadd(5, (const uint16_t *)page[3].k + c * TILE, 64);
            _tile_dpbf16ps(3, 4, 5);
            fetch_lines(x->pages, true, line + 48, 16);
        }
        float *s = y->raw + p * DMC_PAGE_SLOTS;
        _tile_stored(0, s, KV_BLOCK * 4);
        _tile_stored(1, s + DMC_PAGE_SLOTS, KV_BLOCK * 4);
        _tile_stored(2, s + 2 * DMC_PAGE_SLOTS, KV_BLOCK * 4);
        _tile_stored(3, s + 3 * DMC_PAGE_SLOTS, KV_BLOCK * 4);
    }
}

/* Tiles 0 .. 3: sums of 64 channels; 6: weights of a page; 7: its values. D is a multiple of 32: tiles beyond the last repeat it. */
static void weigh_team(const tiled *y)
{
    const slots *x = &y->x;
    for (int d = 0; d < x->D; d += 64) {
        int e = d + 64 <= x->D ? d + 32 : d;
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int p = 0; p < x->n_pages; p++) {
            const uint16_t *v = x->pages[p].v;
            int line = (d / 64 * KV_BLOCK_PAGES + p) * 16 + x->lines * KV_BLOCK_PAGES / 2; /* the second half */
            _tile_loadd(6, y->p + p * TILE / 2, 32);
            _tile_loadd(7, v + 2 * d, (size_t)x->D * 4);
            _tile_dpbf16ps(0, 6, 7);
            _tile_loadd(7, v + 2 * d + 32, (size_t)x->D * 4);
            _tile_dpbf16ps(1, 6, 7);
            if (line < x->lines * KV_BLOCK_PAGES) fetch_lines(x->next, false, line, 16);
            _tile_loadd(7, v + 2 * e, (size_t)x->D * 4);
            _tile_dpbf16ps(2, 6, 7);
            _tile_loadd(7, v + 2 * e + 32, (size_t)x->D * 4);
            _tile_dpbf16ps(3, 6, 7);
        }
        size_t ld = (size_t)x->ld * 4;
        _tile_stored(0, y->raw + d, ld);
        _tile_stored(1, y->raw + d + 16, ld);
        _tile_stored(2, y->raw + e, ld);
        _tile_stored(3, y->raw + e + 16, ld);
    }
}

static void split_weights(const tiled *y, int l0, int n)
{
    for (int l = 0; l < n; l++) {
        for (int p = 0; p < y->x.n_pages; p += 2) {
            const float *w = y->x.p + (l0 + l) * KV_BLOCK + p * DMC_PAGE_SLOTS;
            __m512i first, rest;
            split(load(w), load(w + 16), &first, &rest);
            uint16_t *to = y->p + p * TILE / 2 + l * LINE;
            _mm256_store_si256((__m256i *)to, _mm512_castsi512_si256(first));
            _mm256_store_si256((__m256i *)(to + 16), _mm512_castsi512_si256(rest));
            _mm256_store_si256((__m256i *)(to + TILE / 2), _mm512_extracti64x4_epi64(first, 1));
            _mm256_store_si256((__m256i *)(to + TILE / 2 + 16), _mm512_extracti64x4_epi64(rest, 1));
        }
    }
}

static void tiled_block(const tiled *y, int n_lanes, v16 *top, v16 *sum)
{
    const slots *x = &y->x;
    float old[DMC_LANES];
    for (int l0 = 0; l0 < n_lanes; l0 += TEAM) {
        score_team(y, l0);
        for (int l = l0; l < n_lanes && l < l0 + TEAM; l++) {
            const float *rows = y->raw + (l - l0) * 2 * KV_BLOCK;
            for (int i = 0; i < KV_BLOCK; i += 16)
                store(x->p + l * KV_BLOCK + i, load(rows + i) + load(rows + KV_BLOCK + i));
        }
    }
    weights_of(x, n_lanes, top, sum, old, x->lines * KV_BLOCK_PAGES / 2 / n_lanes);
    for (int l0 = 0; l0 < n_lanes; l0 += TEAM) {
        int n = n_lanes - l0 < TEAM ? n_lanes - l0 : TEAM;
        split_weights(y, l0, n);
        weigh_team(y);
        for (int l = 0; l < n; l++) {
            float *out = x->out + (l0 + l) * x->ld;
            const float *rows = y->raw + l * 2 * x->ld;
            for (int d = 0; d < x->ld; d += 16)
                store(out + d, load(out + d) * old[l0 + l] + (load(rows + d) + load(rows + x->ld + d)));
        }
    }
}

static void shape_tiles(int rows)
{
    tile_shapes shapes = {0};
    for (int t = 0; t < 5; t++) shape_tile(&shapes, t, rows, 64);
    shape_tile(&shapes, 5, 16, 64);
    shape_tile(&shapes, 6, rows, 32);
    shape_tile(&shapes, 7, 8, 64);
    load_tile_shapes(&shapes);
}

void dmc_attend_slots_amx(const dmc_attend_slots_args *a)
{
    if (a->type != DMC_KV_BF16 || a->n_lanes < FEWEST || a->head_dim % LINE) {
        dmc_attend_slots_avx512(a);
        return;
    }
    tiled y;
    float *rest = begin_slots(a, &y.x);
    y.raw = rest;
    y.q = (uint16_t *)(y.raw + 2 * TEAM * (y.x.ld > KV_BLOCK ? y.x.ld : KV_BLOCK));
    y.p = y.q + DMC_LANES / TEAM * y.x.D / LINE * TILE;
    memset(y.p, 0, KV_BLOCK_PAGES * TILE);
    split_queries(&y, a->n_lanes);
    shape_tiles(2 * (a->n_lanes < TEAM ? a->n_lanes : TEAM));
    v16 top = splat(-INFINITY), sum = {0};
    for (int64_t at = 0; at < a->n_slots; at += KV_BLOCK) {
        take_block(DMC_KV_BF16, a, at, &y.x);
        tiled_block(&y, a->n_lanes, &top, &sum);
    }
    _tile_release();
    end_slots(a, &y.x, top, sum);
}
