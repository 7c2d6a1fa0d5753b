/* The cache update and the attention over it, for one token, a chunk or many.
 *
 * For T new tokens of one head, n tokens before them, delay d:
 *
 *   gates of the new tokens                       they are kept with (k, v) until the tokens settle
 *   rotate the keys of the raw tokens             the window has them un-rotated where settling makes averages of them
 *   settle tokens max(0, n-d) .. n+T-1-d          pooled states y_t, continuing the open accumulator; keys rotated at their own t
 *   attend   kept slots | states y_t | raw tokens each query sees what it would have seen had the tokens come one by one:
 *                                                 states up to i-d, of a run only the newest, and the raw tokens after i-d
 *   compact                                       of every run the last state stays: overwrite the newest slot or push
 *   slide the window                              the last d raw tokens
 *
 * F32 pages: keys that a query must not see weigh exactly 0, and those it sees come in the same order however the tokens were cut into
 * chunks: hence the same bits. Pages of other types are made for speed (kv.h): a chunk attends in blocks of keys, for a single token the
 * update comes first, and then every query sees all slots, in parts that threads may share.
 */
#include "cache/seq.h"

#include <math.h>
#include <string.h>

/* One call of the door. */
typedef struct {
    dmc_seq *s;
    dmc_head *h;
    const dmc_new_tokens *x;
    int il, ih;
    int64_t n, T;         /* tokens before, new tokens */
    int64_t t0, S;        /* the tokens that settle now: t0 .. t0 + S - 1; S <= T */
    const float *k, *v;   /* new tokens, this head, as the window keeps them */
    const float *queries; /* of the new tokens, this head's group */
    int64_t ld_q, ld_k, ld_v;
    float *logit, *omega;  /* [T] gates of the new tokens */
    float *rotated;        /* [keys_rotated][head_dim] rotated keys of the raw tokens, the last ones new */
    float *alpha, *weight; /* [S] decision (0 or 1) and importance of the tokens that settle */
    float *mask;           /* [S] -INFINITY where the next state replaces this one */
    float *y;              /* [S][2*head_dim] their states, key half rotated */
    float *q;              /* [DMC_LANES, or T * group][head_dim] rotated queries */
    dmc_segment *segments; /* [max_pages + 4] */
    int32_t *from, *to;    /* [n_window + 2 T] which queries see a key */
    float *out;            /* [T * group][head_dim] */
    float *parts;          /* [parts][group][head_dim + 1] attention over parts of the slots */
    float *attend;         /* scratch of the kernel */
} chunk;

/* Keys that a chunk of T tokens rotates, at most. A slot that is one token has its token's key, rotated once, when it comes, and so has
 * the window. Averages are made of keys as they were: then the window's are rotated for each chunk, if there is one. */
static size_t keys_rotated(const dmc_seq *s, size_t T)
{
    if (!dmc_pools(&s->o.policy)) return T;
    return s->n_window ? (size_t)s->n_window + T : 0;
}

/* Cuts the scratch into its parts; returns its size. */
static size_t lay_out(chunk *c, const dmc_seq *s, int64_t n_tokens, float *scratch)
{
    size_t used = 0, T = (size_t)n_tokens, D = (size_t)s->o.head_dim;
    c->logit = dmc_carve(scratch, &used, T);
    c->omega = dmc_carve(scratch, &used, T);
    c->rotated = dmc_carve(scratch, &used, keys_rotated(s, T) * D);
    c->alpha = dmc_carve(scratch, &used, T);
    c->weight = dmc_carve(scratch, &used, T);
    c->mask = dmc_carve(scratch, &used, T);
    c->y = dmc_carve(scratch, &used, T * 2 * D);
    if (s->kv == DMC_KV_F32) {
        c->q = dmc_carve(scratch, &used, DMC_LANES * D);
        c->segments = (dmc_segment *)(void *)dmc_carve(
            scratch, &used, (size_t)(s->max_pages + 4) * sizeof(dmc_segment) / sizeof(float));
        c->attend = dmc_carve(scratch, &used, dmc_attend_scratch(s->o.head_dim, s->o.n_ctx + n_tokens));
        return used;
    }
    size_t rows = T * (size_t)s->o.group, n = (size_t)s->n_window + 2 * T, G = (size_t)s->o.group;
    c->q = dmc_carve(scratch, &used, rows * D);
    c->out = dmc_carve(scratch, &used, rows * D);
    c->segments = (dmc_segment *)(void *)dmc_carve(scratch, &used, 4 * sizeof(dmc_segment) / sizeof(float));
    c->from = (int32_t *)(void *)dmc_carve(scratch, &used, n);
    c->to = (int32_t *)(void *)dmc_carve(scratch, &used, n);
    c->parts = dmc_carve(scratch, &used, dmc_cache_max_parts(s) * G * (D + 1));
    size_t slots = dmc_attend_slots_scratch(s->o.head_dim),
           many = dmc_attend_chunk_scratch(s->o.head_dim, (int64_t)rows),
           window = dmc_attend_scratch(s->o.head_dim, s->n_window + 1), most = slots > many ? slots : many;
    c->attend = dmc_carve(scratch, &used, most > window ? most : window);
    return used;
}

size_t dmc_seq_scratch(const dmc_seq *s, int64_t T)
{
    chunk c;
    if (dmc_evicts_singly(s)) return dmc_evict_step_scratch(s);
    size_t all = lay_out(&c, s, T, NULL), prompt = s->evict ? dmc_evict_prompt_scratch(s) : 0;
    return all > prompt ? all : prompt;
}

static void rotate_query(const dmc_seq *s, int64_t t, int j, const float *x, float *y)
{
    dmc_rotate_without(s->o.rope, dmc_query_channel(&s->o.policy, j), s->o.pos0 + t, x, y);
}

/* Consecutive raw tokens that lie in one stretch of memory: in the window's ring or in the chunk. */
typedef struct {
    int64_t n;
    const float *k, *v, *logit, *omega; /* of the first; k as the window keeps it */
    int64_t ld_k, ld_v, ld_gates;
} stretch;

static stretch raw_tokens(const chunk *c, int64_t t, int64_t end)
{
    int64_t D = c->s->o.head_dim, row = dmc_window_row((int)D), cap = c->s->n_window;
    if (t >= c->n) {
        int64_t r = t - c->n;
        return (stretch){.n = end - t,
                         .k = c->k + r * c->ld_k,
                         .v = c->v + r * c->ld_v,
                         .logit = c->logit + r,
                         .omega = c->omega + r,
                         .ld_k = c->ld_k,
                         .ld_v = c->ld_v,
                         .ld_gates = 1};
    }
    const float *x = c->h->window + t % cap * row;
    int64_t n = (end < c->n ? end : c->n) - t, straight = cap - t % cap;
    return (stretch){.n = n < straight ? n : straight,
                     .k = x,
                     .v = x + D,
                     .logit = x + 2 * D,
                     .omega = x + 2 * D + 1,
                     .ld_k = row,
                     .ld_v = row,
                     .ld_gates = row};
}

/* The first of the raw tokens that any query of the chunk sees. */
static int64_t first_raw(const chunk *c)
{
    int64_t before = c->s->o.policy.delay - 1;
    return c->n > before ? c->n - before : 0;
}

/* ---- the steps ---- */

/* The keys of raw tokens as attention reads them. */
static void rotate_raw(chunk *c)
{
    enum { AHEAD = 8 /* keys that are being fetched */, LINE = 64 / sizeof(float) };
    bool pools = dmc_pools(&c->s->o.policy);
    int64_t D = c->s->o.head_dim, end = c->n + c->T, n;
    float *y = c->rotated;
    if (pools && !c->s->n_window) return;
    for (int64_t t = pools ? first_raw(c) : c->n; t < end; t += n) {
        stretch x = raw_tokens(c, t, end);
        n = x.n;
        for (int64_t r = 0; r < n; r++, y += D) {
            for (int64_t i = 0; r + AHEAD < n && i < D; i += LINE) __builtin_prefetch(x.k + (r + AHEAD) * x.ld_k + i);
            dmc_seq_rotate_key(c->s, t + r, x.k + r * x.ld_k, y);
        }
    }
    if (pools) return;
    c->k = c->rotated;
    c->ld_k = D;
}

static void settle(chunk *c)
{
    const dmc_policy *p = &c->s->o.policy;
    int64_t D = c->s->o.head_dim, n;
    for (int64_t r = 0; r < c->S; r += n) {
        stretch x = raw_tokens(c, c->t0 + r, c->t0 + c->S);
        float *y = c->y + r * 2 * D;
        n = x.n;
        for (int64_t j = 0; j < n; j++) {
            bool first = c->t0 + r + j == 0; /* of an empty cache: always appends */
            c->alpha[r + j] = dmc_decides(p) && !first && x.logit[j * x.ld_gates] > 0;
            if (c->s->append) c->alpha[r + j] = !dmc_forced_append(c->s, c->h - c->s->heads, c->t0 + r + j);
            c->weight[r + j] = dmc_decides(p) ? x.omega[j * x.ld_gates] : 1;
        }
        if (dmc_pools(p)) {
            dmc_settle(p, (int)D, n, c->alpha + r, c->weight + r, x.k, x.ld_k, x.v, x.ld_v, &c->h->acc, y, NULL);
            for (int64_t j = 0; j < n; j++) dmc_seq_rotate_key(c->s, c->t0 + r + j, y + j * 2 * D, y + j * 2 * D);
        } else {
            for (int64_t j = 0; j < n; j++) {
                memcpy(y + j * 2 * D, x.k + j * x.ld_k, (size_t)D * sizeof(float));
                memcpy(y + j * 2 * D + D, x.v + j * x.ld_v, (size_t)D * sizeof(float));
            }
        }
    }
    for (int64_t r = 0; r < c->S; r++) c->mask[r] = r + 1 < c->S && c->alpha[r + 1] > 0 ? -INFINITY : 0;
}

/* The raw tokens of the window and the chunk that any of the queries sees. */
static int list_raw(const chunk *c, dmc_segment *segments)
{
    dmc_segment *g = segments;
    bool pools = dmc_pools(&c->s->o.policy);
    int64_t D = c->s->o.head_dim, first = first_raw(c), n;
    if (!c->s->n_window) return 0;
    for (int64_t t = first; t < c->n + c->T; t += n) {
        stretch x = raw_tokens(c, t, c->n + c->T);
        *g++ = (dmc_segment){.kind = DMC_SEG_RAW,
                             .k = pools ? c->rotated + (t - first) * D : x.k,
                             .v = x.v,
                             .ld_k = pools ? D : x.ld_k,
                             .ld_v = x.ld_v,
                             .n = x.n,
                             .t0 = t};
        n = x.n;
    }
    return (int)(g - segments);
}

/* Settled slots that stay as they are: when the first token that settles merges, no query of this chunk sees the newest one as it was. */
static int64_t kept_slots(const chunk *c) { return c->h->n_slots - (c->S && c->alpha[0] > 0); }

/* All keys in time order, in F32. */
static int list_segments(const chunk *c)
{
    int64_t D = c->s->o.head_dim, kept = kept_slots(c);
    dmc_segment *g = c->segments;
    for (int64_t i = 0; i < kept; i += DMC_PAGE_SLOTS) {
        const dmc_kv_page *page = &c->h->halves[i / DMC_PAGE_SLOTS];
        *g++ = (dmc_segment){.kind = DMC_SEG_ALWAYS,
                             .k = page->k,
                             .v = page->v,
                             .ld_k = D,
                             .ld_v = D,
                             .n = kept - i < DMC_PAGE_SLOTS ? kept - i : DMC_PAGE_SLOTS};
    }
    if (c->S)
        *g++ = (dmc_segment){.kind = DMC_SEG_SETTLED,
                             .k = c->y,
                             .v = c->y + D,
                             .ld_k = 2 * D,
                             .ld_v = 2 * D,
                             .n = c->S,
                             .t0 = c->t0,
                             .mask = c->mask};
    return (int)(g - c->segments) + list_raw(c, g);
}

/* A lane is one query head of one token. */
static void attend(const chunk *c)
{
    int64_t D = c->s->o.head_dim, G = c->s->o.group, n_lanes = c->T * G;
    dmc_attend_args a = {.head_dim = (int)D,
                         .delay = c->s->o.policy.delay,
                         .segments = c->segments,
                         .n_segments = list_segments(c),
                         .scratch = c->attend};
    for (int64_t first = 0; first < n_lanes; first += DMC_LANES) {
        a.n_lanes = (int)(n_lanes - first < DMC_LANES ? n_lanes - first : DMC_LANES);
        for (int l = 0; l < a.n_lanes; l++) {
            int64_t t = (first + l) / G, j = (first + l) % G;
            rotate_query(c->s, c->n + t, (int)j, c->queries + t * c->ld_q + j * D, c->q + l * D);
            a.q[l] = c->q + l * D;
            a.i[l] = c->n + t;
            a.out[l] = c->x->out + t * c->ld_q + (c->ih * G + j) * D;
            a.lse[l] = NULL;
        }
        c->s->o.kernels->attend(&a);
    }
}

dmc_page *dmc_head_own_page(const dmc_seq *s, dmc_head *h, int64_t i)
{
    dmc_page *page = h->pages[i];
    if (!dmc_page_shared(page)) return page;
    size_t half = dmc_kv_half_bytes(s->kv, s->o.head_dim);
    dmc_page *own = h->pages[--h->n_pages];
    memcpy(own->k, page->k, half);
    memcpy(own->v, page->v, half);
    dmc_head_set_page(h, i, own);
    dmc_pool_drop(s->pool, &page, 1);
    return own;
}

void dmc_head_put(const dmc_seq *s, dmc_head *h, int64_t slot, bool fresh, const float *k, const float *v)
{
    int at = (int)(slot % DMC_PAGE_SLOTS);
    dmc_page *page = dmc_head_own_page(s, h, slot / DMC_PAGE_SLOTS);
    if (at == 0 && fresh) { /* a page's first slot: no bytes of its last user stay */
        memset(page->k, 0, dmc_kv_half_bytes(s->kv, s->o.head_dim));
        memset(page->v, 0, dmc_kv_half_bytes(s->kv, s->o.head_dim));
    }
    dmc_kv_put(s->kv, s->o.head_dim, page->k, page->v, at, k, v);
}

static void compact(const chunk *c)
{
    dmc_head *h = c->h;
    int64_t D = c->s->o.head_dim;
    bool open = c->S && c->alpha[0] > 0; /* the first run goes on from the newest slot */
    for (int64_t r = 0; r < c->S; r++) {
        if (c->mask[r] < 0) continue;
        int64_t slot = open ? h->n_slots - 1 : h->n_slots++;
        const float *y = c->y + r * 2 * D;
        dmc_head_put(c->s, h, slot, !open, y, y + D);
        if (h->pos) h->pos[slot] = (int32_t)(c->t0 + r);
        if (h->score) h->score[slot] = 0;
        open = false;
    }
}

static void slide_window(const chunk *c)
{
    int64_t D = c->s->o.head_dim, cap = c->s->n_window, row = dmc_window_row((int)D);
    for (int64_t r = c->T > cap ? c->T - cap : 0; r < c->T; r++) {
        float *x = c->h->window + (c->n + r) % cap * row;
        memcpy(x, c->k + r * c->ld_k, (size_t)D * sizeof(float));
        memcpy(x + D, c->v + r * c->ld_v, (size_t)D * sizeof(float));
        x[2 * D] = c->logit[r];
        x[2 * D + 1] = c->omega[r];
    }
}

/* ---- attention over pages of other types ---- */

enum { PART = 1024 }; /* slots of a part, but the last: small enough to balance, large enough to be worth a task */

/* Visibility of n keys whose first is token t: from t + lag on, for `life` tokens; what the next state replaces at once, for one. */
static dmc_chunk_keys visible(const chunk *c, dmc_segment g, int64_t lag, int64_t life, int32_t *from, int32_t *to)
{
    for (int64_t r = 0; r < g.n; r++) {
        int64_t first = g.t0 + r + lag - c->n, end = g.mask && g.mask[r] < 0 ? first + 1 : first + life;
        from[r] = (int32_t)first;
        to[r] = end < INT32_MAX ? (int32_t)end : INT32_MAX;
    }
    return (dmc_chunk_keys){.k = g.k, .v = g.v, .ld_k = g.ld_k, .ld_v = g.ld_v, .n = g.n, .from = from, .to = to};
}

static void attend_many(const chunk *c)
{
    int64_t D = c->s->o.head_dim, G = c->s->o.group, d = c->s->o.policy.delay;
    dmc_chunk_keys keys[4];
    int n = 0, n_raw = list_raw(c, c->segments);
    int32_t *from = c->from, *to = c->to;
    if (c->S)
        keys[n++] = visible(
            c,
            (dmc_segment){
                .k = c->y, .v = c->y + D, .ld_k = 2 * D, .ld_v = 2 * D, .n = c->S, .t0 = c->t0, .mask = c->mask},
            d, INT32_MAX, from, to);
    from += c->S, to += c->S;
    for (int i = 0; i < n_raw; i++) {
        keys[n++] = visible(c, c->segments[i], 0, d, from, to);
        from += c->segments[i].n, to += c->segments[i].n;
    }
    for (int64_t t = 0; t < c->T; t++)
        for (int j = 0; j < G; j++)
            rotate_query(c->s, c->n + t, j, c->queries + t * c->ld_q + j * D, c->q + (t * G + j) * D);
    c->s->o.kernels->attend_chunk(&(dmc_attend_chunk_args){.type = c->s->kv,
                                                           .head_dim = (int)D,
                                                           .group = (int)G,
                                                           .n_rows = c->T * G,
                                                           .q = c->q,
                                                           .pages = c->h->halves,
                                                           .n_slots = kept_slots(c),
                                                           .keys = keys,
                                                           .n_keys = n,
                                                           .out = c->out,
                                                           .scratch = c->attend});
    for (int64_t t = 0; t < c->T; t++)
        memcpy(c->x->out + t * c->ld_q + c->ih * G * D, c->out + t * G * D, (size_t)(G * D) * sizeof(float));
}

/* What the thread does next is fetched: the first pages of it by the kernel, the page that will be written to here. */
static void fetch_next(const chunk *c, dmc_attend_slots_args *a)
{
    enum { LINE = 64 };
    const dmc_cache_place *p = c->x->next;
    if (!p || dmc_evicts_singly(p->s)) return;
    const dmc_head *h = dmc_head_of(p->s, c->il, p->ih);
    int64_t lo = p->part * (PART / DMC_PAGE_SLOTS), n = PART / DMC_PAGE_SLOTS;
    if (p->part == p->n_parts - 1) { /* else another thread may be writing to the newest slots */
        n = dmc_pages_for(h->n_slots) - lo;
        size_t half = dmc_kv_half_bytes(c->s->kv, c->s->o.head_dim);
        for (size_t i = 0; n > 0 && i < half; i += LINE) {
            __builtin_prefetch((const char *)h->halves[lo + n - 1].k + i, 1);
            __builtin_prefetch((const char *)h->halves[lo + n - 1].v + i, 1);
        }
    }
    a->next = h->halves + lo;
    a->n_next = n;
}

/* One token's query heads over slots [lo, hi) of its head, and in the last part over the recent window too.
 * part: [group][head_dim] outputs, then [group] log-sums. */
static void attend_part(const chunk *c, int64_t lo, int64_t hi, bool last, float *part)
{
    const dmc_kernels *kn = c->s->o.kernels;
    int64_t D = c->s->o.head_dim, G = c->s->o.group;
    int n_raw = last ? list_raw(c, c->segments) : 0;
    float lse[DMC_LANES], *recent = c->out;
    for (int64_t first = 0; first < G; first += DMC_LANES) {
        int n = (int)(G - first < DMC_LANES ? G - first : DMC_LANES);
        dmc_attend_slots_args a = {.type = c->s->kv,
                                   .head_dim = (int)D,
                                   .n_lanes = n,
                                   .pages = c->h->halves + lo / DMC_PAGE_SLOTS,
                                   .n_slots = hi - lo,
                                   .scratch = c->attend};
        dmc_attend_args w = {.head_dim = (int)D,
                             .n_lanes = n,
                             .delay = c->s->o.policy.delay,
                             .segments = c->segments,
                             .n_segments = n_raw,
                             .scratch = c->attend};
        for (int l = 0; l < n; l++) {
            a.q[l] = w.q[l] = c->q + (first + l) * D;
            a.out[l] = part + (first + l) * D;
            a.lse[l] = part + G * D + first + l;
            w.i[l] = c->n;
            w.out[l] = hi > lo ? recent + l * D : a.out[l];
            w.lse[l] = hi > lo ? &lse[l] : a.lse[l];
        }
        if (first + n == G) fetch_next(c, &a);
        if (hi > lo) kn->attend_slots(&a);
        if (n_raw) kn->attend(&w);
        for (int l = 0; l < n && n_raw && hi > lo; l++)
            dmc_attend_join((int)D, 2, (const float *[]){a.out[l], w.out[l]}, (float[]){*a.lse[l], lse[l]}, a.out[l],
                            a.lse[l]);
    }
}

static void rotate_queries(const chunk *c)
{
    int64_t D = c->s->o.head_dim;
    for (int j = 0; j < c->s->o.group; j++) rotate_query(c->s, c->n, j, c->queries + j * D, c->q + j * D);
}

/* ---- the door ---- */

static chunk open_chunk(dmc_seq *s, int il, int ih, const dmc_new_tokens *x, float *scratch)
{
    int64_t D = s->o.head_dim, n = s->n_tokens;
    chunk c = {.s = s,
               .h = dmc_head_of(s, il, ih),
               .x = x,
               .il = il,
               .ih = ih,
               .n = n,
               .T = x->T,
               .queries = x->q + ih * s->o.group * D,
               .k = x->k + ih * D,
               .v = x->v + ih * D,
               .ld_q = x->ld_q,
               .ld_k = x->ld_kv,
               .ld_v = x->ld_kv,
               .t0 = dmc_settled(s, n),
               .S = dmc_settled(s, n + x->T) - dmc_settled(s, n)};
    lay_out(&c, s, x->T, scratch);
    return c;
}

static void gates(chunk *c)
{
    const dmc_seq_options *o = &c->s->o;
    dmc_gates(&o->policy,
              &(dmc_gate_rows){.head_dim = o->head_dim,
                               .group = o->group,
                               .n_kv_heads = o->n_kv_heads,
                               .il = c->il,
                               .ih = c->ih,
                               .T = c->T,
                               .t0 = c->n,
                               .q = c->x->q,
                               .k = c->x->k,
                               .ld_q = c->ld_q,
                               .ld_k = c->x->ld_kv,
                               .adapter = c->x->adapter},
              c->logit, c->omega);
    if (!o->policy.no_shift) return;
    float next = c->logit[c->T - 1]; /* the decision at a token is on that token, and takes effect with the next one */
    memmove(c->logit + 1, c->logit, (size_t)(c->T - 1) * sizeof(float));
    c->logit[0] = c->h->acc.z;
    c->h->acc.z = next;
}

/* Gates of the new tokens, rotated keys of the raw ones, and the states of those that settle. */
static void decide(chunk *c)
{
    if (dmc_decides(&c->s->o.policy)) gates(c);
    rotate_raw(c);
    settle(c);
}

static int64_t parts_of(int64_t slots) { return slots <= PART ? 1 : (slots + PART - 1) / PART; }

int64_t dmc_cache_parts(const dmc_seq *s, int il, int ih, int64_t T)
{
    int64_t slots = dmc_head_of(s, il, ih)->n_slots;
    bool whole = s->kv == DMC_KV_F32 || T > 1 || dmc_evicts_singly(s) || (s->evict && s->prompt != DMC_PROMPT_OVER);
    return whole ? 1 : parts_of(slots);
}

size_t dmc_cache_max_parts(const dmc_seq *s) { return (size_t)(s->o.n_ctx + PART - 1) / PART; }

void dmc_cache_update_attend_part(dmc_seq *s, int il, int ih, const dmc_new_tokens *x, int64_t n_parts, int64_t part,
                                  float *out, float *scratch)
{
    bool last = part == n_parts - 1; /* nobody else looks at the newest slots */
    chunk c = open_chunk(s, il, ih, x, scratch);
    if (last) {
        decide(&c);
        compact(&c);
    }
    rotate_queries(&c);
    attend_part(&c, part * PART, last ? c.h->n_slots : (part + 1) * PART, last, out);
    if (last) slide_window(&c);
}

void dmc_cache_join_parts(const dmc_seq *s, int ih, const dmc_new_tokens *x, int64_t n_parts, const float *parts)
{
    int64_t D = s->o.head_dim, G = s->o.group, size = G * (D + 1);
    float *out = x->out + ih * G * D;
    for (int64_t j = 0; j < G; j++) {
        const float *rows[n_parts];
        float lses[n_parts], lse;
        for (int64_t p = 0; p < n_parts; p++) {
            rows[p] = parts + p * size + j * D;
            lses[p] = parts[p * size + G * D + j];
        }
        dmc_attend_join((int)D, (int)n_parts, rows, lses, out + j * D, &lse);
    }
}

/* A token and pages of other types: the parts one after the other. */
static void update_attend_parts(const chunk *c, float *scratch)
{
    dmc_seq *s = c->s;
    int64_t n = parts_of(c->h->n_slots), part_floats = (int64_t)s->o.group * (s->o.head_dim + 1);
    for (int64_t p = 0; p < n; p++)
        dmc_cache_update_attend_part(s, c->il, c->ih, c->x, n, p, c->parts + p * part_floats, scratch);
    dmc_cache_join_parts(s, c->ih, c->x, n, c->parts);
}

void dmc_cache_update_attend(dmc_seq *s, int il, int ih, const dmc_new_tokens *x, float *scratch)
{
    if (dmc_evicts_singly(s)) {
        dmc_evict_step(s, il, ih, x, scratch);
        return;
    }
    chunk c = open_chunk(s, il, ih, x, scratch);
    if (s->kv != DMC_KV_F32 && x->T == 1) {
        update_attend_parts(&c, scratch);
    } else {
        decide(&c);
        if (s->kv == DMC_KV_F32) attend(&c);
        else attend_many(&c);
        compact(&c);
        slide_window(&c);
    }
    if (s->evict) dmc_evict_prompt(s, il, ih, x, scratch);
}
