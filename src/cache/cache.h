/* The cache: the heart. Per (sequence, layer, KV head):
 *
 *      token time ->
 *      [ settled slots ........................ newest ][ recent window: last d tokens, exact ]
 *        pages of 16 slots, immutable but the newest      ring of raw (k, v) with gates
 *        slot = (rotated key, value)                      |
 *        open accumulator of the newest slot  <-settles---+  when it leaves the window: append or merge
 *
 * Every (sequence, layer, head) has its own length and its own page list. Pages come from one pool, are reference-counted, shared by
 * forks (copy on write: only the newest slot is ever rewritten) and returned when the last user goes; empty slabs go back to the
 * operating system. d = 0 is the paper's DMC; policy 'none' always appends. The cache knows nothing of models.
 */
#ifndef DMC_CACHE_H
#define DMC_CACHE_H

#include "cache/dmc_update.h"
#include "kernels/kernels.h"

#define DMC_PAGE_SLOTS 16

/* ---- pool ---- */
typedef struct dmc_pool dmc_pool;
dmc_status dmc_pool_create(dmc_pool **out, int head_dim, size_t limit_bytes); /* 0: no limit. Thread-safe. */
void dmc_pool_close(dmc_pool *p);
size_t dmc_pool_bytes_held(const dmc_pool *p);  /* from the operating system */
size_t dmc_pool_bytes_used(const dmc_pool *p);  /* in pages that somebody refers to */

/* ---- sequence ---- */
typedef struct dmc_seq dmc_seq;
typedef struct {
    int n_layers, n_kv_heads, group, head_dim;
    int64_t n_ctx;       /* longest timeline */
    dmc_policy policy;
    const dmc_rope *rope;         /* outlives the sequence */
    const dmc_kernels *kernels;
} dmc_seq_options;
dmc_status dmc_seq_create(dmc_seq **out, dmc_pool *pool, const dmc_seq_options *o);
void dmc_seq_close(dmc_seq *s);
dmc_status dmc_seq_fork(dmc_seq **out, const dmc_seq *s);
dmc_status dmc_seq_rewind(dmc_seq *s, const dmc_seq *snapshot);

/* Makes sure that T more tokens fit, whatever they decide (context and worst-case pages), or fails with DMC_ERR_CONTEXT /
 * DMC_ERR_POOL and changes nothing. The three calls below never fail after it. */
dmc_status dmc_seq_reserve(dmc_seq *s, int64_t T);

/* THE door. Layer il, head ih of T new tokens at positions n_tokens(s) .. +T-1: settle what leaves the window, write the slots, attend.
 * q [T][n_heads*head_dim], k, v [T][n_kv_heads*head_dim] un-rotated (row strides ld_q, ld_kv); out as q with ld_out. One token, one chunk
 * or many chunks give the same bits. Heads of a layer may run in parallel, each with its own scratch of dmc_seq_scratch(s, T) floats. */
void dmc_cache_update_attend(dmc_seq *s, int il, int ih, int64_t T, const float *q, int64_t ld_q, const float *k, const float *v,
                             int64_t ld_kv, float *out, int64_t ld_out, float *scratch);
size_t dmc_seq_scratch(const dmc_seq *s, int64_t T);
/* After all layers and heads: the timeline is T tokens longer; what was reserved and not used goes back. */
void dmc_seq_advance(dmc_seq *s, int64_t T);

int64_t dmc_seq_tokens(const dmc_seq *s);
int64_t dmc_seq_slots(const dmc_seq *s, int il, int ih); /* settled + recent */
size_t dmc_seq_bytes(const dmc_seq *s);                  /* pages + accumulators + windows (page tables too) */
size_t dmc_seq_bytes_uncompressed(const dmc_seq *s);     /* the same tokens, one slot each */

/* One slot, for inspection and tests: settled slots first, then the recent window. k rotated. Pointers into the cache. pos: newest token. */
void dmc_seq_slot(const dmc_seq *s, int il, int ih, int64_t slot, const float **k, const float **v);
const dmc_accumulator *dmc_seq_accumulator(const dmc_seq *s, int il, int ih);

/* Bytes of a sequence for a state file, and back. load trusts nothing: lengths are checked against the bytes and the geometry. */
dmc_status dmc_seq_write(const dmc_seq *s, dmc_writer *w);
dmc_status dmc_seq_read(dmc_seq *fresh, const uint8_t *data, size_t n);

#endif
