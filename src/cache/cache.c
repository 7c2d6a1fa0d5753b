/* The cache update and the attention over it, for one token, a chunk or many.
 *
 * For T new tokens of one head, n tokens before them, delay d:
 *
 *   gates of the new tokens                       they are kept with the raw (k, v) until the tokens settle
 *   settle tokens max(0, n-d) .. n+T-1-d          pooled states y_t, continuing the open accumulator; keys rotated at their own t
 *   attend   kept slots | states y_t | raw tokens each query sees what it would have seen had the tokens come one by one:
 *                                                 states up to i-d, of a run only the newest, and the raw tokens after i-d
 *   compact                                       of every run the last state stays: overwrite the newest slot or push
 *   slide the window                              the last d raw tokens
 *
 * Keys that a query must not see weigh exactly 0, and those it sees come in the same order however the tokens were cut into chunks:
 * hence the same bits.
 */
#include "cache/seq.h"

#include <math.h>
#include <string.h>

/* One call of the door. */
typedef struct {
    const dmc_seq *s;
    dmc_head *h;
    int64_t n, T;       /* tokens before, new tokens */
    int64_t t0, S;      /* the tokens that settle now: t0 .. t0 + S - 1; S <= T */
    const float *k, *v; /* new tokens, this head */
    int64_t ld_kv;
    float *logit, *omega;  /* [T] gates of the new tokens */
    float *rotated;        /* [T][head_dim] their keys, rotated, if there is a window */
    float *alpha, *weight; /* [S] decision (0 or 1) and importance of the tokens that settle */
    float *mask;           /* [S] -INFINITY where the next state replaces this one */
    float *y;              /* [S][2*head_dim] their states, key half rotated */
    float *q;              /* [DMC_LANES][head_dim] rotated queries */
    dmc_segment *segments; /* [max_pages + 4] */
    float *attend;         /* scratch of the kernel */
} chunk;

static float *carve(float *base, size_t *used, size_t n)
{
    float *p = base ? base + *used : NULL;
    *used += (n + 15) / 16 * 16; /* all parts 64-byte aligned */
    return p;
}

/* Cuts the scratch into its parts; returns its size. */
static size_t lay_out(chunk *c, const dmc_seq *s, int64_t n_tokens, float *scratch)
{
    size_t used = 0, T = (size_t)n_tokens, D = (size_t)s->o.head_dim;
    c->logit = carve(scratch, &used, T);
    c->omega = carve(scratch, &used, T);
    c->rotated = carve(scratch, &used, s->n_window ? T * D : 0);
    c->alpha = carve(scratch, &used, T);
    c->weight = carve(scratch, &used, T);
    c->mask = carve(scratch, &used, T);
    c->y = carve(scratch, &used, T * 2 * D);
    c->q = carve(scratch, &used, DMC_LANES * D);
    c->segments =
        (dmc_segment *)(void *)carve(scratch, &used, (size_t)(s->max_pages + 4) * sizeof(dmc_segment) / sizeof(float));
    c->attend = carve(scratch, &used, dmc_attend_scratch(s->o.head_dim, s->o.n_ctx + n_tokens));
    return used;
}

size_t dmc_seq_scratch(const dmc_seq *s, int64_t T)
{
    chunk c;
    return lay_out(&c, s, T, NULL);
}

/* RoPE at token t; under DMC the decision channel never reaches attention. */
static void rotate(const dmc_seq *s, int64_t t, const float *x, float *y)
{
    if (s->o.policy.kind == DMC_POLICY_NONE) dmc_rope_apply(s->o.rope, s->o.pos0 + t, x, y);
    else dmc_rotate_without(s->o.rope, s->o.policy.channel, s->o.pos0 + t, x, y);
}

/* Consecutive raw tokens that lie in one stretch of memory: in the window's ring or in the chunk. */
typedef struct {
    int64_t n;
    const float *k, *v, *rotated, *logit, *omega; /* of the first */
    int64_t ld_kv, ld_rotated, ld_gates;
} stretch;

static stretch raw_tokens(const chunk *c, int64_t t, int64_t end)
{
    int64_t D = c->s->o.head_dim, row = dmc_window_row((int)D), cap = c->s->n_window;
    if (t >= c->n) {
        int64_t r = t - c->n;
        return (stretch){.n = end - t,
                         .k = c->k + r * c->ld_kv,
                         .v = c->v + r * c->ld_kv,
                         .rotated = c->rotated + r * D,
                         .logit = c->logit + r,
                         .omega = c->omega + r,
                         .ld_kv = c->ld_kv,
                         .ld_rotated = D,
                         .ld_gates = 1};
    }
    const float *x = c->h->window + t % cap * row;
    int64_t n = (end < c->n ? end : c->n) - t, straight = cap - t % cap;
    return (stretch){.n = n < straight ? n : straight,
                     .k = x,
                     .v = x + D,
                     .rotated = x + 2 * D,
                     .logit = x + 3 * D,
                     .omega = x + 3 * D + 1,
                     .ld_kv = row,
                     .ld_rotated = row,
                     .ld_gates = row};
}

/* ---- the steps ---- */

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
            c->alpha[r + j] = p->kind == DMC_POLICY_DMC && !first && x.logit[j * x.ld_gates] > 0;
            c->weight[r + j] = p->kind == DMC_POLICY_DMC ? x.omega[j * x.ld_gates] : 1;
        }
        if (p->kind == DMC_POLICY_DMC) {
            dmc_settle(p, (int)D, n, c->alpha + r, c->weight + r, x.k, x.ld_kv, x.v, x.ld_kv, &c->h->acc, y, NULL);
        } else {
            for (int64_t j = 0; j < n; j++) {
                memcpy(y + j * 2 * D, x.k + j * x.ld_kv, (size_t)D * sizeof(float));
                memcpy(y + j * 2 * D + D, x.v + j * x.ld_kv, (size_t)D * sizeof(float));
            }
        }
    }
    for (int64_t r = 0; r < c->S; r++) {
        rotate(c->s, c->t0 + r, c->y + r * 2 * D, c->y + r * 2 * D);
        c->mask[r] = r + 1 < c->S && c->alpha[r + 1] > 0 ? -INFINITY : 0;
    }
}

/* All keys in time order. */
static int list_segments(const chunk *c)
{
    int64_t D = c->s->o.head_dim, d = c->s->o.policy.delay;
    /* when the first token that settles merges, no query of this chunk sees the newest slot as it was */
    int64_t kept = c->h->n_slots - (c->S && c->alpha[0] > 0);
    dmc_segment *g = c->segments;
    for (int64_t i = 0; i < kept; i += DMC_PAGE_SLOTS) {
        const dmc_page *page = c->h->pages[i / DMC_PAGE_SLOTS];
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
    if (d == 0) return (int)(g - c->segments);
    for (int64_t t = c->n > d - 1 ? c->n - d + 1 : 0, n; t < c->n + c->T; t += n) {
        stretch x = raw_tokens(c, t, c->n + c->T);
        *g++ = (dmc_segment){
            .kind = DMC_SEG_RAW, .k = x.rotated, .v = x.v, .ld_k = x.ld_rotated, .ld_v = x.ld_kv, .n = x.n, .t0 = t};
        n = x.n;
    }
    return (int)(g - c->segments);
}

/* q and out: first query head of this KV head. A lane is one query head of one token. */
static void attend(const chunk *c, const float *q, int64_t ld_q, float *out, int64_t ld_out)
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
            rotate(c->s, c->n + t, q + t * ld_q + j * D, c->q + l * D);
            a.q[l] = c->q + l * D;
            a.i[l] = c->n + t;
            a.out[l] = out + t * ld_out + j * D;
            a.lse[l] = NULL;
        }
        c->s->o.kernels->attend(&a);
    }
}

/* Copy on write: a page that somebody else holds too is replaced by one of the spare pages. */
static dmc_page *own_page(const dmc_seq *s, dmc_head *h, int64_t i)
{
    dmc_page *page = h->pages[i];
    if (!dmc_page_shared(page)) return page;
    size_t half = DMC_PAGE_SLOTS * (size_t)s->o.head_dim * sizeof(float);
    dmc_page *own = h->pages[--h->n_pages];
    memcpy(own->k, page->k, half);
    memcpy(own->v, page->v, half);
    h->pages[i] = own;
    dmc_pool_drop(s->pool, &page, 1);
    return own;
}

static void compact(const chunk *c)
{
    dmc_head *h = c->h;
    size_t D = (size_t)c->s->o.head_dim;
    bool open = c->S && c->alpha[0] > 0; /* the first run goes on from the newest slot */
    for (int64_t r = 0; r < c->S; r++) {
        if (c->mask[r] < 0) continue;
        int64_t slot = open ? h->n_slots - 1 : h->n_slots++;
        open = false;
        dmc_page *page = own_page(c->s, h, slot / DMC_PAGE_SLOTS);
        const float *y = c->y + (size_t)r * 2 * D;
        memcpy(page->k + (size_t)(slot % DMC_PAGE_SLOTS) * D, y, D * sizeof(float));
        memcpy(page->v + (size_t)(slot % DMC_PAGE_SLOTS) * D, y + D, D * sizeof(float));
    }
}

static void slide_window(const chunk *c)
{
    int64_t D = c->s->o.head_dim, cap = c->s->n_window, row = dmc_window_row((int)D);
    for (int64_t r = c->T > cap ? c->T - cap : 0; r < c->T; r++) {
        float *x = c->h->window + (c->n + r) % cap * row;
        memcpy(x, c->k + r * c->ld_kv, (size_t)D * sizeof(float));
        memcpy(x + D, c->v + r * c->ld_kv, (size_t)D * sizeof(float));
        memcpy(x + 2 * D, c->rotated + r * D, (size_t)D * sizeof(float));
        x[3 * D] = c->logit[r];
        x[3 * D + 1] = c->omega[r];
    }
}

void dmc_cache_update_attend(dmc_seq *s, int il, int ih, int64_t T, const float *q, int64_t ld_q, const float *k,
                             const float *v, int64_t ld_kv, float *out, int64_t ld_out, float *scratch)
{
    int64_t D = s->o.head_dim, G = s->o.group, n = s->n_tokens;
    chunk c = {.s = s,
               .h = dmc_head_of(s, il, ih),
               .n = n,
               .T = T,
               .k = k + ih * D,
               .v = v + ih * D,
               .ld_kv = ld_kv,
               .t0 = dmc_settled(s, n),
               .S = dmc_settled(s, n + T) - dmc_settled(s, n)};
    lay_out(&c, s, T, scratch);
    q += ih * G * D;
    out += ih * G * D;
    if (s->o.policy.kind == DMC_POLICY_DMC)
        dmc_gates(&s->o.policy, (int)D, (int)G, T, q, ld_q, c.k, ld_kv, c.logit, c.omega);
    if (s->n_window)
        for (int64_t r = 0; r < T; r++) rotate(s, n + r, c.k + r * ld_kv, c.rotated + r * D);
    settle(&c);
    attend(&c, q, ld_q, out, ld_out);
    compact(&c);
    slide_window(&c);
}
