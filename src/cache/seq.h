/* Inside of a sequence, for cache.c and seq.c. */
#ifndef DMC_SEQ_H
#define DMC_SEQ_H

#include "cache/cache.h"

/* One KV head of one layer. */
typedef struct {
    dmc_page **pages;    /* those that hold the n_slots settled slots, then spare ones from reserve to advance */
    int64_t n_pages;     /* with the spare ones */
    int64_t n_slots;     /* settled */
    dmc_accumulator acc; /* of the newest slot; unused by policy 'none' */
    float *window; /* [n_window][dmc_window_row]: raw k, raw v, rotated k, logit, omega; token t in row t % n_window */
} dmc_head;

struct dmc_seq {
    dmc_seq_options o; /* policy 'none': delay and window 0 */
    dmc_pool *pool;
    int64_t n_tokens;
    int64_t n_window;  /* rows of a head's ring: min(delay, n_ctx) */
    int64_t max_pages; /* entries of a head's page table */
    int64_t n_heads;   /* n_layers * n_kv_heads */
    dmc_head *heads;
    /* the memory behind the heads' pointers */
    dmc_page **tables;
    float *accumulators, *windows;
};

static inline dmc_head *dmc_head_of(const dmc_seq *s, int il, int ih)
{
    return &s->heads[(int64_t)il * s->o.n_kv_heads + ih];
}

static inline int64_t dmc_window_row(int head_dim) { return 3 * (int64_t)head_dim + 2; }

/* Of a timeline of n tokens, those that have left the recent window. */
static inline int64_t dmc_settled(const dmc_seq *s, int64_t n)
{
    return n > s->o.policy.delay ? n - s->o.policy.delay : 0;
}

static inline int64_t dmc_pages_for(int64_t n_slots) { return (n_slots + DMC_PAGE_SLOTS - 1) / DMC_PAGE_SLOTS; }

#endif
