/* Inside of a sequence, for cache.c, seq.c and the doors of policies that evict. */
#ifndef DMC_SEQ_H
#define DMC_SEQ_H

#include "cache/cache.h"

/* One KV head of one layer. */
typedef struct {
    dmc_page **pages;    /* those that hold the n_slots settled slots, then spare ones from reserve to advance */
    dmc_kv_page *halves; /* where their slots lie, entry by entry */
    int64_t n_pages;     /* with the spare ones */
    int64_t n_slots;     /* settled */
    dmc_accumulator
        acc; /* of the newest slot, where slots are averages; dms without shift: z is the newest token's decision logit */
    float *window; /* [n_window][dmc_window_row]: k as it settles, v, logit, omega; token t in row t % n_window */
    /* policies that evict */
    int32_t *pos; /* [max_slots + 1] index of the token in each slot */
    float *score; /* [max_slots + 1], if the policy has scores */
    float *
        queries; /* [n_queries][group * head_dim] rotated queries of the prompt's last tokens; token t in row t % n_queries */
} dmc_head;

typedef enum { DMC_PROMPT_OPEN, DMC_PROMPT_ENDS /* with the tokens that come next */, DMC_PROMPT_OVER } dmc_prompt;

struct dmc_seq {
    dmc_seq_options o; /* policy 'none': delay 0; window 0 but for 'dmc' */
    dmc_pool *pool;
    dmc_kv_type kv;
    float *append; /* [n_heads] share of the tokens that append where that is forced, else NULL */
    int64_t n_tokens;
    int64_t n_window;  /* rows of a head's ring: min(delay, n_ctx) */
    int64_t max_pages; /* entries of a head's page table */
    int64_t n_heads;   /* n_layers * n_kv_heads */
    dmc_head *heads;
    /* policies that evict */
    const dmc_evict *evict; /* NULL: the others */
    int64_t max_slots;      /* of a head, ever */
    int64_t byte_slots;     /* of a head under a budget in bytes */
    int64_t n_queries;      /* rows of a head's ring of queries */
    dmc_prompt prompt;
    /* the memory behind the heads' pointers */
    dmc_page **tables;
    dmc_kv_page *halves;
    float *accumulators, *windows, *scores, *queries;
    int32_t *positions;
};

static inline dmc_head *dmc_head_of(const dmc_seq *s, int il, int ih)
{
    return &s->heads[(int64_t)il * s->o.n_kv_heads + ih];
}

/* The next n floats of a scratch of which *used are taken, 64-byte aligned; NULL, where the scratch's size alone is asked for. */
static inline float *dmc_carve(float *base, size_t *used, size_t n)
{
    float *p = base ? base + *used : NULL;
    *used += (n + 15) / 16 * 16;
    return p;
}

/* Entry i of a head's page table. */
static inline void dmc_head_set_page(dmc_head *h, int64_t i, dmc_page *page)
{
    h->pages[i] = page;
    h->halves[i] = (dmc_kv_page){page->k, page->v};
}

/* Shares of n heads at that ratio (forced.c). */
void dmc_forced_shares(double cr, int64_t n, float *shares);

/* Whether token t of head i appends when that is forced: a share of all tokens, spread evenly. */
static inline bool dmc_forced_append(const dmc_seq *s, int64_t i, int64_t t)
{
    double f = (double)s->append[i];
    return t == 0 || (int64_t)(f * (double)(t + 1)) > (int64_t)(f * (double)t);
}

static inline int64_t dmc_window_row(int head_dim) { return 2 * (int64_t)head_dim + 2; }

/* RoPE at token t. A decision channel never reaches attention. */
static inline void dmc_seq_rotate_key(const dmc_seq *s, int64_t t, const float *x, float *y)
{
    dmc_rotate_without(s->o.rope, dmc_key_channel(&s->o.policy), s->o.pos0 + t, x, y);
}

/* Of a timeline of n tokens, those that have left the recent window. */
static inline int64_t dmc_settled(const dmc_seq *s, int64_t n)
{
    return n > s->o.policy.delay ? n - s->o.policy.delay : 0;
}

/* Whether heads evict one token after the other; else a chunk is settled at once. */
static inline bool dmc_evicts_singly(const dmc_seq *s) { return s->evict && s->evict->when != DMC_EVICT_PROMPT; }

/* Floats of a row of a head's ring of queries. */
static inline size_t dmc_query_row(const dmc_seq *s) { return (size_t)s->o.group * (size_t)s->o.head_dim; }

/* Writes a slot; where the page is shared, to a copy that takes one of the spare pages. fresh: nothing was in the slot. */
void dmc_head_put(const dmc_seq *s, dmc_head *h, int64_t slot, bool fresh, const float *k, const float *v);
/* A page that nobody else holds: the one that is there, or a copy in its place. */
dmc_page *dmc_head_own_page(const dmc_seq *s, dmc_head *h, int64_t i);

/* ---- policies that evict: evict.c, evict_step.c, evict_prompt.c ---- */

/* Slots that a head may keep once the timeline has n_tokens. Never falls. */
int64_t dmc_seq_keep(const dmc_seq *s, int64_t n_tokens);
/* Fills in what belongs to eviction in a sequence that is being created; DMC_ERR_ARG where the budget cannot be kept. */
dmc_status dmc_evict_prepare(dmc_seq *s);
/* What the budget in bytes counts, without and per page. */
size_t dmc_seq_fixed_bytes(const dmc_seq *s);
size_t dmc_seq_page_bytes(const dmc_seq *s);

size_t dmc_evict_step_scratch(const dmc_seq *s);
void dmc_evict_step(dmc_seq *s, int il, int ih, const dmc_new_tokens *x, float *scratch);
size_t dmc_evict_prompt_scratch(const dmc_seq *s);
/* Behind the update of the same tokens: keeps queries of the prompt and, where it ends, evicts. */
void dmc_evict_prompt(dmc_seq *s, int il, int ih, const dmc_new_tokens *x, float *scratch);

static inline int64_t dmc_pages_for(int64_t n_slots) { return (n_slots + DMC_PAGE_SLOTS - 1) / DMC_PAGE_SLOTS; }

#endif
