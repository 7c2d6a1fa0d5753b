/* Byte-pair merging, of SentencePiece and of byte-level BPE alike: start from single characters or bytes, merge the
 * pair of neighbours with the lowest rank (the leftmost of equals) until no pair has one. A heap of candidate pairs
 * over a linked list of symbols: O(n log n).
 *
 * Long words are first cut wherever no token has the two bytes at that place side by side: nothing can merge across
 * it, so the result is the same, and a megabyte without a pre-tokeniser falls into words that are found in the
 * cache. */
#include "text/vocab.h"

#include "text/grow.h"
#include "text/hash.h"
#include "text/utf8.h"

#define MAX_CACHED_WORD 64 /* bytes: longer words hardly repeat */

dmc_status dmc_encoder_push(dmc_encoder *e, int32_t id)
{
    DMC_TRY(dmc_grow(&e->ids, &e->cap_ids, e->n_ids + 1, sizeof *e->ids));
    e->ids[e->n_ids++] = id;
    e->after_unknown = false;
    return DMC_OK;
}

/* ---- the heap: lowest rank first, then leftmost ---- */

static bool precedes(const dmc_candidate *a, const dmc_candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->left < b->left;
}

static dmc_status heap_push(dmc_encoder *e, dmc_candidate c)
{
    DMC_TRY(dmc_grow(&e->heap, &e->cap_heap, e->n_heap + 1, sizeof *e->heap));
    size_t i = e->n_heap++;
    for (; i > 0 && precedes(&c, &e->heap[(i - 1) / 2]); i = (i - 1) / 2) e->heap[i] = e->heap[(i - 1) / 2];
    e->heap[i] = c;
    return DMC_OK;
}

static dmc_candidate heap_pop(dmc_encoder *e)
{
    dmc_candidate top = e->heap[0], last = e->heap[--e->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < e->n_heap; i = child) {
        if (child + 1 < e->n_heap && precedes(&e->heap[child + 1], &e->heap[child])) child++;
        if (!precedes(&e->heap[child], &last)) break;
        e->heap[i] = e->heap[child];
    }
    e->heap[i] = last;
    return top;
}

/* ---- one word ---- */

/* Offers the merge of symbols left and right, if they have one. */
static dmc_status offer(dmc_encoder *e, int32_t left, int32_t right)
{
    if (left < 0 || right < 0) return DMC_OK;
    const dmc_tokenizer *t = e->t;
    const dmc_symbol *a = &e->symbols[left], *b = &e->symbols[right];
    dmc_candidate c = {.left = left, .right = right, .n = a->n + b->n};
    if (t->rule == DMC_MERGE_PAIRS) {
        if (a->id < 0 || b->id < 0) return DMC_OK;
        c.rank = dmc_pair_get(&t->merges, (uint32_t)a->id, (uint32_t)b->id);
        if (c.rank == DMC_NO_PAIR) return DMC_OK;
        c.id = t->merged[c.rank];
    } else {
        c.id = dmc_vocab_find(t, e->text.s + a->start, c.n);
        if (c.id < 0) return DMC_OK;
        c.rank = t->tokens[c.id].rank;
    }
    return heap_push(e, c);
}

static dmc_status start_symbols(dmc_encoder *e, uint32_t start, uint32_t n, int32_t *n_symbols)
{
    const dmc_tokenizer *t = e->t;
    const char *s = e->text.s + start;
    DMC_TRY(dmc_grow(&e->symbols, &e->cap_symbols, n, sizeof *e->symbols));
    int32_t count = 0;
    for (uint32_t i = 0; i < n;) {
        uint32_t code;
        int length = t->characters ? dmc_utf8_scan(s + i, n - i, &code) : 1;
        if (length <= 0) length = 1; /* a byte that is no UTF-8 stands alone */
        int32_t id = t->characters ? dmc_vocab_find(t, s + i, (size_t)length) : t->byte_ids[(uint8_t)s[i]];
        e->symbols[count] = (dmc_symbol){start + i, (uint32_t)length, id, count - 1, count + 1};
        count++;
        i += (uint32_t)length;
    }
    e->symbols[count - 1].next = -1;
    *n_symbols = count;
    return DMC_OK;
}

/* A symbol that is no token: its bytes' tokens if the vocabulary has all of them, else the unknown token, else
 * nothing. */
static dmc_status push_unknown(dmc_encoder *e, const dmc_symbol *s)
{
    const dmc_tokenizer *t = e->t;
    const char *bytes = e->text.s + s->start;
    bool fallback = true;
    for (uint32_t i = 0; i < s->n; i++) fallback &= t->byte_ids[(uint8_t)bytes[i]] >= 0;
    if (fallback) {
        for (uint32_t i = 0; i < s->n; i++) DMC_TRY(dmc_encoder_push(e, t->byte_ids[(uint8_t)bytes[i]]));
        return DMC_OK;
    }
    if (t->unknown < 0 || (t->fuse_unknown && e->after_unknown)) return DMC_OK;
    DMC_TRY(dmc_encoder_push(e, t->unknown));
    e->after_unknown = true;
    return DMC_OK;
}

static dmc_status merge_word(dmc_encoder *e, uint32_t start, uint32_t n, bool *has_unknown)
{
    int32_t n_symbols;
    DMC_TRY(start_symbols(e, start, n, &n_symbols));
    e->n_heap = 0;
    for (int32_t i = 0; i + 1 < n_symbols; i++) DMC_TRY(offer(e, i, i + 1));
    while (e->n_heap > 0) {
        dmc_candidate c = heap_pop(e);
        dmc_symbol *a = &e->symbols[c.left], *b = &e->symbols[c.right];
        if (a->n == 0 || b->n == 0 || a->next != c.right || a->n + b->n != c.n)
            continue; /* one of them has merged since */
        a->n = c.n;
        a->id = c.id;
        a->next = b->next;
        if (b->next >= 0) e->symbols[b->next].prev = c.left;
        b->n = 0;
        DMC_TRY(offer(e, a->prev, c.left));
        DMC_TRY(offer(e, c.left, a->next));
    }
    *has_unknown = false;
    for (int32_t i = 0; i >= 0; i = e->symbols[i].next) {
        const dmc_symbol *s = &e->symbols[i];
        *has_unknown |= s->id < 0;
        DMC_TRY(s->id >= 0 ? dmc_encoder_push(e, s->id) : push_unknown(e, s));
    }
    return DMC_OK;
}

/* ---- the cache: words that this call has merged before ---- */

static dmc_cached_word *cache_slot(const dmc_encoder *e, uint32_t hash, uint32_t start, uint32_t n)
{
    for (size_t i = hash;; i++) {
        dmc_cached_word *w = &e->cache[i & (e->n_cache_slots - 1)];
        if (w->n_ids == UINT32_MAX) return w;
        if (w->hash == hash && w->n == n && memcmp(e->text.s + w->start, e->text.s + start, n) == 0) return w;
    }
}

static dmc_status cache_reserve(dmc_encoder *e)
{
    if (e->n_cached < e->n_cache_slots / 2) return DMC_OK;
    size_t n_old = e->n_cache_slots, n_new = n_old ? n_old * 4 : 64;
    dmc_cached_word *old = e->cache, *slots = dmc_malloc(n_new, sizeof *slots);
    if (!slots) return dmc_fail(DMC_ERR_MEMORY, "out of memory: cache of %zu words", n_new);
    for (size_t i = 0; i < n_new; i++) slots[i].n_ids = UINT32_MAX;
    e->cache = slots;
    e->n_cache_slots = n_new;
    for (size_t i = 0; i < n_old; i++)
        if (old[i].n_ids != UINT32_MAX) *cache_slot(e, old[i].hash, old[i].start, old[i].n) = old[i];
    dmc_free(old);
    return DMC_OK;
}

static dmc_status encode_part(dmc_encoder *e, uint32_t start, uint32_t n)
{
    bool has_unknown;
    if (n > MAX_CACHED_WORD) return merge_word(e, start, n, &has_unknown);
    DMC_TRY(cache_reserve(e));
    uint32_t hash = dmc_hash_bytes(e->text.s + start, n);
    dmc_cached_word *w = cache_slot(e, hash, start, n);
    if (w->n_ids != UINT32_MAX) {
        DMC_TRY(dmc_grow(&e->ids, &e->cap_ids, e->n_ids + w->n_ids, sizeof *e->ids));
        memcpy(e->ids + e->n_ids, e->ids + w->ids, w->n_ids * sizeof *e->ids);
        e->n_ids += w->n_ids;
        e->after_unknown = false;
        return DMC_OK;
    }
    size_t first = e->n_ids;
    DMC_TRY(merge_word(e, start, n, &has_unknown));
    if (has_unknown || e->n_ids >= UINT32_MAX) return DMC_OK; /* its ids may depend on what came before it */
    *w = (dmc_cached_word){hash, start, n, (uint32_t)first, (uint32_t)(e->n_ids - first)};
    e->n_cached++;
    return DMC_OK;
}

dmc_status dmc_encode_word(dmc_encoder *e, uint32_t start, uint32_t n)
{
    const dmc_tokenizer *t = e->t;
    const char *s = e->text.s;
    if (t->whole_words) {
        int32_t id = dmc_vocab_find(t, s + start, n);
        if (id >= 0) return dmc_encoder_push(e, id);
    }
    uint32_t from = start, end = start + n;
    for (uint32_t i = start + 1; i < end; i++) {
        if (dmc_vocab_joins(t, s[i - 1], s[i])) continue;
        if (t->characters && ((uint8_t)s[i] & 0xC0) == 0x80) continue; /* inside a character */
        DMC_TRY(encode_part(e, from, i - from));
        from = i;
    }
    return encode_part(e, from, end - from);
}
