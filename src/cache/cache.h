/* The cache: the heart. Per (sequence, layer, KV head):
 *
 *      token time ->
 *      [ settled slots ........................ newest ][ recent window: last d tokens, exact ]
 *        pages of 16 slots, immutable but the newest      ring of (k, v) with gates
 *        slot = (rotated key, value)                      |
 *        open accumulator of the newest slot  <-settles---+  when it leaves the window: append or merge
 *
 * Every (sequence, layer, head) has its own length and its own page list. Pages come from one pool, are reference-counted, shared by
 * forks (copy on write: only the newest slot is ever rewritten) and returned when the last user goes; empty slabs go back to the
 * operating system. d = 0 is the paper's DMC; policy 'none' always appends; under DMS the token that settles takes the place of the one
 * before, if that one is to be evicted, which is merging without the average. The cache knows nothing of models.
 *
 * Policies with a budget (evict.h) have no window and no accumulator: every token goes into a page at once, and once the budget is used
 * up a newcomer takes the place of the token that it evicts. Slots then stand in no order; each knows its token and, for some policies,
 * a score. Any page may be written to, so any page may be copied on write.
 *
 * cache.c is the update and the attention, seq.c the life of a sequence, pool.c the memory; evict.c budgets, evict_step.c the door for
 * policies that evict token by token, evict_prompt.c what happens behind a prompt, and a file for each policy.
 */
#ifndef DMC_CACHE_H
#define DMC_CACHE_H

#include "cache/dmc_update.h"
#include "cache/evict.h"
#include "cache/pool.h"
#include "kernels/kernels.h"

typedef struct dmc_seq dmc_seq;

typedef struct {
    int n_layers, n_kv_heads, group, head_dim;
    int64_t n_ctx; /* longest timeline */
    int64_t pos0;  /* position of the first token; the RoPE table covers pos0 + n_ctx */
    dmc_policy policy;
    const dmc_evict
        *evict;           /* instead of the one that belongs to policy.kind, which must have a budget; NULL: that one */
    double forced_cr;     /* > 1: merges by a fixed rule (forced.c), as policy 'dmc' whatever `policy` is; else 0 */
    const dmc_rope *rope; /* outlives the sequence */
    const dmc_kernels *kernels;
} dmc_seq_options;

dmc_status dmc_seq_create(dmc_seq **out, dmc_pool *pool, const dmc_seq_options *o);
void dmc_seq_close(dmc_seq *s); /* NULL allowed */
/* A second timeline that goes on from here. Pages are shared until one of the two writes to them. */
dmc_status dmc_seq_fork(dmc_seq **out, const dmc_seq *s);
/* s becomes what snapshot is. DMC_ERR_ARG if the two differ in geometry or policy or do not share a pool; else it cannot fail. */
dmc_status dmc_seq_rewind(dmc_seq *s, const dmc_seq *snapshot);

/* Makes sure that T more tokens fit, whatever they decide (context and worst-case pages), or fails with DMC_ERR_CONTEXT,
 * DMC_ERR_POOL or DMC_ERR_MEMORY and changes nothing. The two calls below never fail after it. */
dmc_status dmc_seq_reserve(dmc_seq *s, int64_t T);

/* The tokens that are reserved now are the last of the prompt. SnapKV evicts behind them, once; others do not care. */
void dmc_seq_end_prompt(dmc_seq *s);

/* A part of a head; 0 of 1: all of it. */
typedef struct {
    const dmc_seq *s;
    int ih;
    int64_t part, n_parts;
} dmc_cache_place;

/* T new tokens of a layer, which follow the dmc_seq_tokens(s) there are. Rows are whole: all heads. */
typedef struct {
    int64_t T;
    const float *q, *k, *v;      /* un-rotated: [T][n_kv_heads*group*head_dim], [T][n_kv_heads*head_dim] */
    int64_t ld_q, ld_kv;         /* row strides, of out that of q */
    const float *adapter;        /* [T][n_kv_heads] decisions from outside (decision 'adapter'), else NULL */
    float *out;                  /* as q: what attention gives */
    const dmc_cache_place *next; /* what this thread will do next in this layer: fetched meanwhile. NULL: not known */
} dmc_new_tokens;

/* THE door, for layer il, head ih: settle what leaves the window, write the slots, attend. In F32 pages one token, one chunk or many
 * chunks give the same bits. The heads of a layer may run in parallel, each with its own scratch of dmc_seq_scratch(s, T) floats,
 * 64-byte aligned. (Where a policy decides for all heads of a layer together, the call for head 0 does the work of all.) */
void dmc_cache_update_attend(dmc_seq *s, int il, int ih, const dmc_new_tokens *x, float *scratch);
/* The door for one token (T = 1), cut into parts that threads may share: dmc_cache_parts of them before the update (1 for F32 pages), each a
 * piece of the head's slots; their order is free, and their results are the same bits however many threads there are. A part
 * writes group * (head_dim + 1) floats; joined they are what dmc_cache_update_attend gives. */
int64_t dmc_cache_parts(const dmc_seq *s, int il, int ih, int64_t T);
size_t dmc_cache_max_parts(const dmc_seq *s); /* of a head */
void dmc_cache_update_attend_part(dmc_seq *s, int il, int ih, const dmc_new_tokens *x, int64_t n_parts, int64_t part,
                                  float *out, float *scratch);
void dmc_cache_join_parts(const dmc_seq *s, int ih, const dmc_new_tokens *x, int64_t n_parts, const float *parts);

/* Grows with T and the sequence's n_ctx, not with what it holds. */
size_t dmc_seq_scratch(const dmc_seq *s, int64_t T);
/* After all layers and heads: the timeline is T tokens longer; pages that were reserved and not used go back. T = 0: gives up
 * what was reserved. */
void dmc_seq_advance(dmc_seq *s, int64_t T);

const dmc_seq_options *dmc_seq_facts(const dmc_seq *s); /* as created; policy and window in the form that is in force */
int64_t dmc_seq_tokens(const dmc_seq *s);
int64_t dmc_seq_slots(const dmc_seq *s, int il, int ih); /* settled + recent */
/* Index of the token in a slot, for policies that evict. */
int64_t dmc_seq_position(const dmc_seq *s, int il, int ih, int64_t slot);
size_t
dmc_seq_bytes(const dmc_seq *s); /* all that it holds: pages (shared ones too), page tables, accumulators, windows */
size_t dmc_seq_bytes_uncompressed(const dmc_seq *s); /* the same tokens, one slot each */

/* One slot of a cache with F32 pages, for tests: settled slots first, then the recent window. -> k [head_dim], rotated,
 * v [head_dim]. */
void dmc_seq_slot(const dmc_seq *s, int il, int ih, int64_t slot, float *k, float *v);
const dmc_accumulator *dmc_seq_accumulator(const dmc_seq *s, int il, int ih);

/* The content of a sequence as bytes for a state file, and back into a fresh one of the same options. read trusts nothing: every
 * length is checked against the bytes and the geometry; on failure the sequence is empty. *sum: a checksum that goes on over the
 * content, piece by piece; the same after both if the bytes are. */
void dmc_seq_write(const dmc_seq *s, dmc_writer *w, uint64_t *sum);
dmc_status dmc_seq_read(dmc_seq *fresh, const uint8_t *data, size_t n, uint64_t *sum);

#endif
