/* The life of a sequence: create, reserve, advance, fork, rewind, look inside, write and read. */
#include "cache/seq.h"

#include <math.h>
#include <string.h>

/* ---- create, close ---- */

static dmc_status check_options(const dmc_seq_options *o)
{
    const dmc_policy *p = &o->policy;
    if (o->n_layers < 1 || o->n_kv_heads < 1 || o->group < 1 || o->head_dim < 2 || o->n_ctx < 1 || o->pos0 < 0)
        return dmc_fail(DMC_ERR_ARG, "cache: every dimension must be positive");
    if (dmc_policy_check(p, o->head_dim, "cache") != DMC_OK) return DMC_ERR_ARG;
    if (o->evict && !dmc_policy_has_budget(p->kind))
        return dmc_fail(DMC_ERR_ARG, "cache: policy %s evicts nothing: take one that has a budget",
                        dmc_policy_name(p->kind));
    if (dmc_policy_has_budget(p->kind) && o->forced_cr)
        return dmc_fail(DMC_ERR_ARG, "cache: policy %s has a budget, a forced compression ratio goes with others",
                        dmc_policy_name(p->kind));
    if (o->forced_cr != 0 && !(o->forced_cr > 1 && o->forced_cr <= 1e6))
        return dmc_fail(DMC_ERR_ARG, "cache: a forced compression ratio of %g; choose one above 1", o->forced_cr);
    if (o->rope->n_pos - o->pos0 < o->n_ctx)
        return dmc_fail(DMC_ERR_ARG, "cache: the RoPE table has %lld positions, %lld are needed",
                        (long long)o->rope->n_pos, (long long)(o->pos0 + o->n_ctx));
    return DMC_OK;
}

static size_t accumulator_floats(const dmc_seq *s)
{
    return dmc_pools(&s->o.policy) ? dmc_accumulator_floats(&s->o.policy, s->o.head_dim) : 0;
}

static size_t window_floats(const dmc_seq *s) { return (size_t)s->n_window * (size_t)dmc_window_row(s->o.head_dim); }

/* Memory for n things in each head, not touched: what is not used costs nothing. */
static dmc_status per_head(void *out_pointer, const dmc_seq *s, size_t n, size_t size)
{
    size_t all;
    void *p = dmc_mul(&all, n, (size_t)s->n_heads) ? dmc_malloc(all, size) : NULL;
    if (!p) return dmc_fail(DMC_ERR_MEMORY, "out of memory for the cache of %lld tokens", (long long)s->o.n_ctx);
    memcpy(out_pointer, &p, sizeof p);
    return DMC_OK;
}

static size_t query_floats(const dmc_seq *s) { return (size_t)s->n_queries * dmc_query_row(s); }

static dmc_status evict_memory(dmc_seq *s)
{
    size_t slots = (size_t)s->max_slots + 1; /* one more for the newest token while the policy decides */
    DMC_TRY(per_head(&s->positions, s, slots, sizeof *s->positions));
    if (s->evict->scores) DMC_TRY(per_head(&s->scores, s, slots, sizeof *s->scores));
    return s->n_queries ? per_head(&s->queries, s, query_floats(s), sizeof(float)) : DMC_OK;
}

dmc_status dmc_seq_create(dmc_seq **out, dmc_pool *pool, const dmc_seq_options *o)
{
    dmc_seq *s;
    dmc_status status;
    *out = NULL;
    DMC_TRY(check_options(o));
    DMC_TRY(dmc_array(&s, 1, sizeof *s));
    s->o = *o;
    s->pool = pool;
    s->kv = dmc_pool_type(pool);
    dmc_policy *p = &s->o.policy;
    if (o->forced_cr && p->kind == DMC_POLICY_NONE) *p = dmc_policy_default(DMC_POLICY_DMC, o->head_dim);
    if (!dmc_decides(p)) p->delay = 0;
    if (p->kind != DMC_POLICY_DMC) p->window = 0;
    if (p->window > o->n_ctx) p->window = (int)o->n_ctx; /* the same average, a shorter ring */
    s->n_window = p->delay < o->n_ctx ? p->delay : o->n_ctx;
    s->max_pages = dmc_pages_for(o->n_ctx) + 1; /* one more for copy on write */
    s->n_heads = (int64_t)o->n_layers * o->n_kv_heads;
    if (dmc_policy_has_budget(p->kind)) DMC_GOTO(dmc_evict_prepare(s));
    DMC_GOTO(dmc_array(&s->heads, (size_t)s->n_heads, sizeof *s->heads));
    DMC_GOTO(per_head(&s->tables, s, (size_t)s->max_pages, sizeof *s->tables));
    DMC_GOTO(per_head(&s->halves, s, (size_t)s->max_pages, sizeof *s->halves));
    if (o->forced_cr) {
        DMC_GOTO(dmc_array(&s->append, (size_t)s->n_heads, sizeof *s->append));
        dmc_forced_shares(o->forced_cr, s->n_heads, s->append);
    }
    DMC_GOTO(per_head(&s->accumulators, s, accumulator_floats(s), sizeof(float)));
    DMC_GOTO(per_head(&s->windows, s, window_floats(s), sizeof(float)));
    if (s->evict) DMC_GOTO(evict_memory(s));
    for (int64_t i = 0; i < s->n_heads; i++) {
        dmc_head *h = &s->heads[i];
        h->pages = s->tables + i * s->max_pages;
        h->halves = s->halves + i * s->max_pages;
        h->window = s->windows + (size_t)i * window_floats(s);
        if (s->positions) h->pos = s->positions + i * (s->max_slots + 1);
        if (s->scores) h->score = s->scores + i * (s->max_slots + 1);
        if (s->queries) h->queries = s->queries + (size_t)i * query_floats(s);
        if (!dmc_pools(p)) continue;
        h->acc.sum = s->accumulators + (size_t)i * accumulator_floats(s);
        h->acc.ring = h->acc.sum + 2 * (size_t)o->head_dim;
        dmc_accumulator_reset(p, o->head_dim, &h->acc);
    }
    *out = s;
    s = NULL;
done:
    dmc_seq_close(s);
    return status;
}

void dmc_seq_close(dmc_seq *s)
{
    if (!s) return;
    for (int64_t i = 0; s->heads && i < s->n_heads; i++) dmc_pool_drop(s->pool, s->heads[i].pages, s->heads[i].n_pages);
    dmc_free(s->windows);
    dmc_free(s->accumulators);
    dmc_free(s->positions);
    dmc_free(s->scores);
    dmc_free(s->queries);
    dmc_free(s->tables);
    dmc_free(s->halves);
    dmc_free(s->append);
    dmc_free(s->heads);
    dmc_free(s);
}

/* ---- reserve, advance ---- */

/* Of a head's first n pages, those that somebody else holds too; counts to `most` at most. */
static int64_t shared_pages(const dmc_head *h, int64_t n, int64_t most)
{
    int64_t shared = 0;
    for (int64_t i = 0; i < n && shared < most; i++) shared += dmc_page_shared(h->pages[i]);
    return shared;
}

/* Whether the prompt may end with the next tokens, and anything move. */
static bool prompt_moves(const dmc_seq *s) { return s->evict && !dmc_evicts_singly(s) && s->prompt != DMC_PROMPT_OVER; }

/* Pages that a head's table must hold before T more tokens come, whatever is decided: those for all its slots, and copies of the shared
 * ones that may be written to. */
static int64_t pages_wanted(const dmc_seq *s, const dmc_head *h, int64_t T)
{
    int64_t used = dmc_pages_for(h->n_slots), settling = dmc_settled(s, s->n_tokens + T) - dmc_settled(s, s->n_tokens);
    if (settling == 0) return used;
    int64_t slots = h->n_slots + settling;
    if (dmc_evicts_singly(s)) { /* each token one slot, anywhere */
        int64_t keep = dmc_seq_keep(s, s->n_tokens + T);
        return dmc_pages_for(slots < keep ? slots : keep) + shared_pages(h, used, T);
    }
    if (prompt_moves(s)) return dmc_pages_for(slots) + shared_pages(h, used, used);
    return dmc_pages_for(slots) + (used > 0 && dmc_page_shared(h->pages[used - 1])); /* the newest slot's page */
}

dmc_status dmc_seq_reserve(dmc_seq *s, int64_t T)
{
    if (T > s->o.n_ctx - s->n_tokens)
        return dmc_fail(DMC_ERR_CONTEXT, "%lld tokens and %lld more are above the context length of %lld",
                        (long long)s->n_tokens, (long long)T, (long long)s->o.n_ctx);
    int64_t missing = 0;
    for (int64_t i = 0; i < s->n_heads; i++) {
        int64_t n = pages_wanted(s, &s->heads[i], T) - s->heads[i].n_pages;
        if (n > 0) missing += n;
    }
    dmc_page *list;
    DMC_TRY(dmc_pool_take(s->pool, missing, &list));
    /* What goes back to the operating system is whole slabs. A head's pages lie together, for whoever reads them; but where those of a
     * prompt will go and the first ones stay, all heads get their first pages, then all their second ones. */
    int64_t at_once = prompt_moves(s) ? 1 : INT64_MAX;
    for (bool given = true; list && given;) {
        given = false;
        for (int64_t i = 0; i < s->n_heads && list; i++) {
            dmc_head *h = &s->heads[i];
            int64_t n = pages_wanted(s, h, T) - h->n_pages;
            for (n = n < at_once ? n : at_once; n > 0 && list; n--, list = list->next, given = true)
                dmc_head_set_page(h, h->n_pages++, list);
        }
    }
    for (dmc_page *g; (g = list);) { /* another thread stopped sharing a page meanwhile */
        list = g->next;
        dmc_pool_drop(s->pool, &g, 1);
    }
    return DMC_OK;
}

void dmc_seq_end_prompt(dmc_seq *s)
{
    if (s->prompt == DMC_PROMPT_OPEN) s->prompt = DMC_PROMPT_ENDS;
}

void dmc_seq_advance(dmc_seq *s, int64_t T)
{
    s->n_tokens += T;
    if (s->prompt == DMC_PROMPT_ENDS) s->prompt = T > 0 ? DMC_PROMPT_OVER : DMC_PROMPT_OPEN;
    for (int64_t i = 0; i < s->n_heads; i++) {
        dmc_head *h = &s->heads[i];
        int64_t used = dmc_pages_for(h->n_slots);
        if (h->n_pages > used) dmc_pool_drop(s->pool, h->pages + used, h->n_pages - used);
        h->n_pages = used;
    }
}

/* ---- fork, rewind ---- */

/* Rows of a head's window that hold a token: the first n_window tokens fill them in order. */
static int64_t rows_in_use(const dmc_seq *s) { return s->n_tokens < s->n_window ? s->n_tokens : s->n_window; }

/* Floats of a head's ring of queries that hold some; behind the prompt they are not needed any more. */
static size_t queries_in_use(const dmc_seq *s)
{
    int64_t rows = s->n_tokens < s->n_queries ? s->n_tokens : s->n_queries;
    return s->prompt == DMC_PROMPT_OVER ? 0 : (size_t)rows * dmc_query_row(s);
}

static bool same_options(const dmc_seq_options *a, const dmc_seq_options *b)
{
    if (a->n_layers != b->n_layers || a->n_kv_heads != b->n_kv_heads || a->group != b->group ||
        a->head_dim != b->head_dim)
        return false;
    return a->evict == b->evict && a->forced_cr == b->forced_cr && a->n_ctx == b->n_ctx && a->pos0 == b->pos0 &&
           a->rope == b->rope && dmc_policy_equal(&a->policy, &b->policy);
}

dmc_status dmc_seq_rewind(dmc_seq *s, const dmc_seq *from)
{
    if (s == from) return DMC_OK;
    if (s->pool != from->pool || !same_options(&s->o, &from->o))
        return dmc_fail(DMC_ERR_ARG,
                        "the two caches differ in geometry or policy; go back to a fork of the same sequence");
    size_t n_acc = accumulator_floats(s), n_window = (size_t)rows_in_use(from) * (size_t)dmc_window_row(s->o.head_dim);
    for (int64_t i = 0; i < s->n_heads; i++) {
        dmc_head *h = &s->heads[i];
        const dmc_head *f = &from->heads[i];
        int64_t n = dmc_pages_for(f->n_slots);
        dmc_pool_share(f->pages, n); /* before ours go: they may be the same */
        dmc_pool_drop(s->pool, h->pages, h->n_pages);
        memcpy(h->pages, f->pages, (size_t)n * sizeof h->pages[0]);
        memcpy(h->halves, f->halves, (size_t)n * sizeof h->halves[0]);
        h->n_pages = n;
        h->n_slots = f->n_slots;
        h->acc.z = f->acc.z;
        h->acc.n_run = f->acc.n_run;
        h->acc.count = f->acc.count;
        h->acc.omega = f->acc.omega;
        if (n_acc) memcpy(h->acc.sum, f->acc.sum, n_acc * sizeof(float));
        memcpy(h->window, f->window, n_window * sizeof(float));
        if (h->pos) memcpy(h->pos, f->pos, (size_t)f->n_slots * sizeof *h->pos);
        if (h->score) memcpy(h->score, f->score, (size_t)f->n_slots * sizeof *h->score);
        if (h->queries) memcpy(h->queries, f->queries, queries_in_use(from) * sizeof(float));
    }
    s->prompt = from->prompt;
    s->n_tokens = from->n_tokens;
    return DMC_OK;
}

dmc_status dmc_seq_fork(dmc_seq **out, const dmc_seq *s)
{
    DMC_TRY(dmc_seq_create(out, s->pool, &s->o));
    return dmc_seq_rewind(*out, s); /* cannot fail: the options are the same */
}

/* ---- look inside ---- */

const dmc_seq_options *dmc_seq_facts(const dmc_seq *s) { return &s->o; }
int64_t dmc_seq_tokens(const dmc_seq *s) { return s->n_tokens; }

int64_t dmc_seq_slots(const dmc_seq *s, int il, int ih)
{
    return dmc_head_of(s, il, ih)->n_slots + s->n_tokens - dmc_settled(s, s->n_tokens);
}

int64_t dmc_seq_position(const dmc_seq *s, int il, int ih, int64_t slot) { return dmc_head_of(s, il, ih)->pos[slot]; }

size_t dmc_seq_bytes(const dmc_seq *s)
{
    size_t pages = 0;
    for (int64_t i = 0; i < s->n_heads; i++) pages += (size_t)s->heads[i].n_pages;
    return dmc_seq_fixed_bytes(s) + pages * dmc_seq_page_bytes(s);
}

size_t dmc_seq_bytes_uncompressed(const dmc_seq *s)
{
    return (size_t)s->n_tokens * (size_t)s->n_heads * 2 * dmc_kv_half_bytes(s->kv, s->o.head_dim) / DMC_PAGE_SLOTS;
}

void dmc_seq_slot(const dmc_seq *s, int il, int ih, int64_t slot, float *k, float *v)
{
    const dmc_head *h = dmc_head_of(s, il, ih);
    int64_t D = s->o.head_dim;
    if (slot < h->n_slots) {
        const dmc_kv_page *page = &h->halves[slot / DMC_PAGE_SLOTS];
        memcpy(k, (const float *)page->k + slot % DMC_PAGE_SLOTS * D, (size_t)D * sizeof(float));
        memcpy(v, (const float *)page->v + slot % DMC_PAGE_SLOTS * D, (size_t)D * sizeof(float));
    } else {
        int64_t t = dmc_settled(s, s->n_tokens) + slot - h->n_slots;
        const float *row = h->window + t % s->n_window * dmc_window_row((int)D);
        if (dmc_pools(&s->o.policy)) dmc_seq_rotate_key(s, t, row, k);
        else memcpy(k, row, (size_t)D * sizeof(float));
        memcpy(v, row + D, (size_t)D * sizeof(float));
    }
}

const dmc_accumulator *dmc_seq_accumulator(const dmc_seq *s, int il, int ih) { return &dmc_head_of(s, il, ih)->acc; }

/* ---- write, read: n_tokens, and for policies that evict how far the prompt is; per head its counts, accumulator, pages whole (key
 * half, value half), window rows in use, positions, scores and queries. Native byte order: a state file is for the machine that
 * wrote it. ---- */

static void put(dmc_writer *w, uint64_t *sum, const void *data, size_t n)
{
    dmc_write(w, data, n);
    *sum = dmc_checksum(data, n, *sum);
}

void dmc_seq_write(const dmc_seq *s, dmc_writer *w, uint64_t *sum)
{
    size_t half = dmc_kv_half_bytes(s->kv, s->o.head_dim);
    put(w, sum, &s->n_tokens, sizeof s->n_tokens);
    const int64_t prompt = s->prompt;
    if (s->evict) put(w, sum, &prompt, sizeof prompt);
    for (int64_t i = 0; i < s->n_heads; i++) {
        const dmc_head *h = &s->heads[i];
        const int64_t counts[3] = {h->n_slots, h->acc.n_run, h->acc.count};
        put(w, sum, counts, sizeof counts);
        put(w, sum, &h->acc.z, sizeof h->acc.z);
        put(w, sum, h->acc.sum, accumulator_floats(s) * sizeof(float));
        for (int64_t i_page = 0; i_page < dmc_pages_for(h->n_slots); i_page++) {
            put(w, sum, h->pages[i_page]->k, half);
            put(w, sum, h->pages[i_page]->v, half);
        }
        put(w, sum, h->window, (size_t)rows_in_use(s) * (size_t)dmc_window_row(s->o.head_dim) * sizeof(float));
        if (h->pos) put(w, sum, h->pos, (size_t)h->n_slots * sizeof *h->pos);
        if (h->score) put(w, sum, h->score, (size_t)h->n_slots * sizeof *h->score);
        if (h->queries) put(w, sum, h->queries, queries_in_use(s) * sizeof(float));
    }
}

typedef struct {
    const uint8_t *data;
    size_t left;
    uint64_t sum;
} cursor;

static dmc_status get(cursor *c, void *out, size_t n)
{
    if (n > c->left)
        return dmc_fail(DMC_ERR_FORMAT, "the saved cache ends early: %zu bytes are wanted where %zu are left", n,
                        c->left);
    if (n) memcpy(out, c->data, n);
    c->sum = dmc_checksum(c->data, n, c->sum);
    c->data += n;
    c->left -= n;
    return DMC_OK;
}

/* counts: slots, open run, settled tokens. */
static bool plausible(const dmc_seq *s, const int64_t *counts, float z)
{
    int64_t settled = dmc_settled(s, s->n_tokens), slots = counts[0], run = counts[1];
    if (s->evict) {
        int64_t keep = dmc_evicts_singly(s) ? dmc_seq_keep(s, s->n_tokens) : settled;
        bool all = !dmc_evicts_singly(s) && s->prompt == DMC_PROMPT_OPEN;
        return run == 0 && counts[2] == 0 && slots <= keep && slots <= settled &&
               slots >= (all ? settled : settled > 0);
    }
    if (s->o.policy.kind == DMC_POLICY_NONE) return slots == settled && run == 0 && counts[2] == 0;
    if (settled == 0) return slots == 0 && run == 0 && counts[2] == 0;
    if (!dmc_pools(&s->o.policy)) return slots >= 1 && slots <= settled && run == 0 && counts[2] == 0 && isfinite(z);
    return counts[2] == settled && slots >= 1 && slots <= settled && run >= 1 && run <= settled - slots + 1 &&
           isfinite(z) && z > 0;
}

/* Each slot a token of its own that has come; slots with a place of their own hold what belongs there. */
static bool plausible_positions(const dmc_seq *s, const dmc_head *h, uint8_t *seen)
{
    int64_t in_place = s->evict->leading ? s->evict->leading(&s->o.policy) : 0;
    if (!dmc_evicts_singly(s) && s->prompt == DMC_PROMPT_OPEN) in_place = h->n_slots;
    memset(seen, 0, (size_t)s->n_tokens);
    for (int64_t i = 0; i < h->n_slots; i++) {
        int64_t t = h->pos[i];
        if (t < 0 || t >= s->n_tokens || seen[t]++ || (i < in_place && t != i)) return false;
        if (h->score && !isfinite(h->score[i])) return false;
    }
    if (s->evict->weights != DMC_WEIGHTS_LAYER) return true; /* else the heads of a layer are alike */
    const dmc_head *first = h - (h - s->heads) % s->o.n_kv_heads;
    return h->n_slots == first->n_slots && memcmp(h->pos, first->pos, (size_t)h->n_slots * sizeof *h->pos) == 0;
}

static dmc_status read_eviction(dmc_seq *s, dmc_head *h, cursor *c)
{
    uint8_t *seen = NULL;
    dmc_status status;
    DMC_GOTO(get(c, h->pos, (size_t)h->n_slots * sizeof *h->pos));
    if (h->score) DMC_GOTO(get(c, h->score, (size_t)h->n_slots * sizeof *h->score));
    if (h->queries) DMC_GOTO(get(c, h->queries, queries_in_use(s) * sizeof(float)));
    DMC_GOTO(dmc_array(&seen, (size_t)s->n_tokens + 1, 1));
    if (!plausible_positions(s, h, seen))
        status = dmc_fail(DMC_ERR_FORMAT, "the saved cache is corrupt: slots that hold no token, or one twice");
done:
    dmc_free(seen);
    return status;
}

static dmc_status read_head(dmc_seq *s, dmc_head *h, cursor *c)
{
    int64_t counts[3];
    size_t half = dmc_kv_half_bytes(s->kv, s->o.head_dim), bytes;
    DMC_TRY(get(c, counts, sizeof counts));
    DMC_TRY(get(c, &h->acc.z, sizeof h->acc.z));
    if (!plausible(s, counts, h->acc.z))
        return dmc_fail(DMC_ERR_FORMAT, "the saved cache is corrupt: a head with %lld slots for %lld tokens",
                        (long long)counts[0], (long long)s->n_tokens);
    h->acc.n_run = counts[1];
    h->acc.count = counts[2];
    DMC_TRY(get(c, h->acc.sum, accumulator_floats(s) * sizeof(float)));
    if (!dmc_mul(&bytes, (size_t)dmc_pages_for(counts[0]), 2 * half) || bytes > c->left)
        return dmc_fail(DMC_ERR_FORMAT, "the saved cache ends early: %lld slots are announced", (long long)counts[0]);
    dmc_page *list;
    DMC_TRY(dmc_pool_take(s->pool, dmc_pages_for(counts[0]), &list));
    for (; list; list = list->next) dmc_head_set_page(h, h->n_pages++, list);
    h->n_slots = counts[0];
    for (int64_t i = 0; i < h->n_pages; i++) {
        DMC_TRY(get(c, h->pages[i]->k, half));
        DMC_TRY(get(c, h->pages[i]->v, half));
    }
    DMC_TRY(get(c, h->window, (size_t)rows_in_use(s) * (size_t)dmc_window_row(s->o.head_dim) * sizeof(float)));
    return s->evict ? read_eviction(s, h, c) : DMC_OK;
}

static dmc_status read_prompt(dmc_seq *s, cursor *c)
{
    int64_t prompt = -1;
    DMC_TRY(get(c, &prompt, sizeof prompt));
    if (prompt != DMC_PROMPT_OPEN && !(prompt == DMC_PROMPT_OVER && s->n_tokens > 0))
        return dmc_fail(DMC_ERR_FORMAT, "the saved cache is corrupt: its prompt is neither open nor over");
    s->prompt = (dmc_prompt)prompt;
    return DMC_OK;
}

static void clear(dmc_seq *s)
{
    for (int64_t i = 0; i < s->n_heads; i++) {
        dmc_head *h = &s->heads[i];
        dmc_pool_drop(s->pool, h->pages, h->n_pages);
        h->n_pages = h->n_slots = 0;
        if (dmc_pools(&s->o.policy)) dmc_accumulator_reset(&s->o.policy, s->o.head_dim, &h->acc);
        else h->acc.z = 0;
    }
    s->n_tokens = 0;
    s->prompt = DMC_PROMPT_OPEN;
}

dmc_status dmc_seq_read(dmc_seq *s, const uint8_t *data, size_t n, uint64_t *sum)
{
    cursor c = {data, n, *sum};
    dmc_status status;
    DMC_GOTO(get(&c, &s->n_tokens, sizeof s->n_tokens));
    if (s->n_tokens < 0 || s->n_tokens > s->o.n_ctx) {
        status = dmc_fail(DMC_ERR_FORMAT, "the saved cache is corrupt: %lld tokens in a context of %lld",
                          (long long)s->n_tokens, (long long)s->o.n_ctx);
        goto done;
    }
    if (s->evict) DMC_GOTO(read_prompt(s, &c));
    for (int64_t i = 0; i < s->n_heads; i++) DMC_GOTO(read_head(s, &s->heads[i], &c));
    if (c.left) status = dmc_fail(DMC_ERR_FORMAT, "the saved cache is corrupt: %zu bytes too many", c.left);
    *sum = c.sum;
done:
    if (status != DMC_OK) clear(s);
    return status;
}
