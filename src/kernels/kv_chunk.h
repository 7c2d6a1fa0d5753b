/* Where the keys of attend_chunk come from: blocks of up to 256 keys, from pages or from rows, with their visibility. */
#ifndef DMC_KV_CHUNK_H
#define DMC_KV_CHUNK_H

#include "kernels/kv_vec.h"

enum { KV_CHUNK_GROUPS = KV_CHUNK_KEYS / KV_CHUNK_GROUP };

typedef struct {
    const dmc_attend_chunk_args *a;
    const dmc_kv_page *pages;   /* of this block, or NULL: rows */
    const dmc_chunk_keys *rows; /* and their first */
    int64_t first, n;           /* rows or slots of the block; n may be any number from 1 to 256 */
    int n_groups;
    int source;         /* that the next block comes from: -1 pages, else an entry of a->keys */
    int64_t at;         /* in it */
    int32_t *from, *to; /* [256] visible to tokens from .. to - 1; no key and nobody's key: none */
    struct {
        int32_t from_min, from_max, to_min, to_max;
    } group[KV_CHUNK_GROUPS];
} key_block;

/* Sets the visibility of a block whose place is known. */
static inline void set_visibility(key_block *b)
{
    b->n_groups = (int)((b->n + KV_CHUNK_GROUP - 1) / KV_CHUNK_GROUP);
    for (int g = 0; g < b->n_groups; g++) {
        int32_t lo = INT32_MAX, hi = INT32_MIN, lo_to = INT32_MAX, hi_to = INT32_MIN;
        for (int i = g * KV_CHUNK_GROUP; i < (g + 1) * KV_CHUNK_GROUP; i++) {
            int32_t from = INT32_MAX, to = INT32_MIN;
            if (i < b->n && b->pages) from = INT32_MIN, to = INT32_MAX;
            if (i < b->n && !b->pages && b->rows->from[b->first + i] < b->rows->to[b->first + i])
                from = b->rows->from[b->first + i], to = b->rows->to[b->first + i];
            b->from[i] = from, b->to[i] = to;
            lo = from < lo ? from : lo, hi = from > hi ? from : hi;
            lo_to = to < lo_to ? to : lo_to, hi_to = to > hi_to ? to : hi_to;
        }
        b->group[g].from_min = lo, b->group[g].from_max = hi, b->group[g].to_min = lo_to, b->group[g].to_max = hi_to;
    }
}

/* The next block; false behind the last one. Before the first call: source -1, at 0. */
static inline bool next_block(key_block *b)
{
    const dmc_attend_chunk_args *a = b->a;
    while (b->source < a->n_keys) {
        int64_t n = b->source < 0 ? a->n_slots : a->keys[b->source].n;
        if (b->at < n) {
            b->n = n - b->at < KV_CHUNK_KEYS ? n - b->at : KV_CHUNK_KEYS;
            b->pages = b->source < 0 ? a->pages + b->at / DMC_PAGE_SLOTS : NULL;
            b->rows = b->source < 0 ? NULL : &a->keys[b->source];
            b->first = b->at;
            b->at += b->n;
            set_visibility(b);
            return true;
        }
        b->source++;
        b->at = 0;
    }
    return false;
}

/* While rows row .. row + 31 of n_rows go over a block: fetches their share of the pages of the next one. */
INLINE void fetch_block(const key_block *b, int64_t row, int64_t n_rows)
{
    const dmc_attend_chunk_args *a = b->a;
    int64_t left = b->source < 0 ? a->n_slots - b->at : 0, n = left < KV_CHUNK_KEYS ? left : KV_CHUNK_KEYS;
    int64_t half = (int64_t)dmc_kv_half_bytes(a->type, a->head_dim), bytes = n / DMC_PAGE_SLOTS * half;
    int64_t from = bytes * row / n_rows / 64 * 64, to = bytes * (row + KV_CHUNK_ROWS) / n_rows;
    for (int64_t i = from; i < to && i < bytes; i += 64) {
        const dmc_kv_page *p = &a->pages[b->at / DMC_PAGE_SLOTS + i / half];
        fetch_far((const char *)p->k + i % half);
        fetch_far((const char *)p->v + i % half);
    }
}

/* What tokens t0 .. t1 see of a group of keys. */
typedef enum { SEEN_NOT, SEEN_IN_PART, SEEN_WHOLLY } visibility;

INLINE visibility group_seen(const key_block *b, int g, int32_t t0, int32_t t1)
{
    if (b->group[g].from_min > t1 || b->group[g].to_max <= t0) return SEEN_NOT;
    return b->group[g].from_max <= t0 && b->group[g].to_min > t1 ? SEEN_WHOLLY : SEEN_IN_PART;
}

INLINE i16 key_mask(const key_block *b, int key, int32_t token)
{
    return (load_bits(b->from + key) <= token) & (load_bits(b->to + key) > token);
}

/* What the rows row .. row + 31 see of a block. */
typedef struct {
    int64_t row;
    int n; /* groups of keys that some of them see */
    int group[KV_CHUNK_GROUPS];
    bool in_part[KV_CHUNK_GROUPS], partly; /* some of the 32 rows do not see some of the keys; of any group */
} view;

static inline void look_at_block(const key_block *b, int64_t row, view *w)
{
    int64_t last = row + KV_CHUNK_ROWS < b->a->n_rows ? row + KV_CHUNK_ROWS - 1 : b->a->n_rows - 1;
    int32_t t0 = (int32_t)(row / b->a->group), t1 = (int32_t)(last / b->a->group);
    w->row = row;
    w->n = 0;
    w->partly = false;
    for (int g = 0; g < b->n_groups; g++) {
        visibility seen = group_seen(b, g, t0, t1);
        if (seen == SEEN_NOT) continue;
        w->group[w->n] = g;
        w->partly |= w->in_part[w->n++] = seen == SEEN_IN_PART;
    }
}

/* ---- pages, decoded ---- */

/* Channels 2i and 2i + 1 of the 16 slots of a page, as stored. */
INLINE void page_keys(const dmc_kv_type t, int D, const void *half, int i, v16 *k0, v16 *k1)
{
    if (t == DMC_KV_F16 || t == DMC_KV_BF16) {
        i16 x = load_bits((const char *)half + 64 * i);
        *k0 = t == DMC_KV_F16 ? f16_of(x, 0) : bf16_low(x);
        *k1 = t == DMC_KV_F16 ? f16_of(x, 1) : bf16_high(x);
    } else if (t == DMC_KV_Q8) {
        i16 x = load_bits((const char *)half + 64 * (i / 2)) >> 16 * (i % 2);
        v16 scale = load((const float *)((const char *)half + kv_scales(t, D)));
        *k0 = scale * floats_of((x & 0xff) - KV_KEY_BIAS);
        *k1 = scale * floats_of((x >> 8 & 0xff) - KV_KEY_BIAS);
    } else {
        i16 x = load_bits((const char *)half + 64 * (i / 4)) >> (16 * (i % 2) + 4 * (i % 4 / 2));
        i16 both = load_bits((const char *)half + kv_scales(t, D) + 64 * (size_t)(2 * i / KV_GROUP));
        *k0 = bf16_high(both) + bf16_low(both) * floats_of(x & 15);
        *k1 = bf16_high(both) + bf16_low(both) * floats_of(x >> 8 & 15);
    }
}

/* Channels 32g .. 32g + 31 of the 16 slots of a page; those beyond the last one are 0. */
INLINE void page_keys32(const dmc_kv_type t, int D, const void *half, int g, v16 *k)
{
    for (int i = 0; i < KV_GROUP; i += 2) {
        k[i] = k[i + 1] = (v16){0};
        if (t == DMC_KV_Q4 || g * KV_GROUP + i < D) page_keys(t, D, half, g * KV_GROUP / 2 + i / 2, &k[i], &k[i + 1]);
    }
    for (int h = 1; t == DMC_KV_Q4 && h < KV_GROUP; h *= 2) { /* kv_rotate */
        for (int i = 0; i < KV_GROUP; i++) {
            if (i & h) continue;
            v16 sum = k[i] + k[i + h], rest = k[i] - k[i + h];
            k[i] = h < KV_GROUP / 2 ? sum : sum * 0.17677669529663687f;
            k[i + h] = h < KV_GROUP / 2 ? rest : rest * 0.17677669529663687f;
        }
    }
}

/* Channels 16c .. 16c + 15 of slot s of a page; those beyond the last one are 0. */
INLINE v16 page_values(const dmc_kv_type t, int D, const void *half, int s, int c)
{
    int channels = kv_channels(t, D), ns = values_slots(t), ng = values_groups(t);
    size_t row = values_row(t, channels), offset = 64 * (size_t)(c / ng);
    const char *at = (const char *)half + (size_t)(s / ns) * row + offset;
    i16 x = row - offset >= 64 ? load_bits(at) : load_bits_part(at, row - offset);
    if (t == DMC_KV_F16) return c % 2 ? f16_of(x, 1) : f16_of(x, 0);
    if (t == DMC_KV_BF16) return s % 2 ? bf16_high(x) : bf16_low(x);
    if (t == DMC_KV_Q8) {
        float scale = ((const float *)((const char *)half + kv_scales(t, D)))[s];
        return floats_of((x << (24 - 8 * (s % 4))) >> 24) * scale;
    }
    uint32_t both = ((const uint32_t *)((const char *)half + kv_scales(t, D)))[c / 2 * DMC_PAGE_SLOTS + s];
    v16 n = floats_of((x >> (8 * (s % 4) + 4 * (c % 2))) & 15);
    return n * kv_bf16_to_f32(both) + kv_bf16_to_f32(both >> 16);
}

#endif
