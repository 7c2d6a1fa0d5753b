/* What the tests of the cache share: a shape, and all that sequences of it need. */
#ifndef DMC_TESTS_CACHE_SUPPORT_H
#define DMC_TESTS_CACHE_SUPPORT_H

#include "cache/cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

typedef struct {
    int H, G, D, T;
    int64_t pos0;
    bool interleaved;
    dmc_policy policy;
    double forced_cr;
    dmc_kv_type kv;         /* AUTO: F32 */
    int L;                  /* layers; 0: one */
    const dmc_evict *evict; /* instead of the policy's own */
    int prompt;             /* tokens of one, for policies that evict behind it */
    size_t pool_bytes;
    const dmc_kernels *kernels;
    uint64_t seed;
} shape;

typedef struct {
    shape s;
    dmc_rope rope;
    dmc_pool *pool;
    float *q, *k, *v; /* [T][H*G*D], [T][H*D]: zeros */
} rig;

static inline float *floats(size_t n)
{
    float *p = dmc_calloc(n + 1, sizeof *p);
    assert_non_null(p);
    return p;
}

static inline void open_rig(rig *r, const shape *s)
{
    double inv_freq[256];
    size_t rows = (size_t)s->T * (size_t)s->H, D = (size_t)s->D;
    r->s = *s;
    dmc_rope_inv_freq(inv_freq, s->D, 10000);
    assert_int_equal(dmc_rope_create(&r->rope, s->D, s->pos0 + s->T, s->interleaved, inv_freq), DMC_OK);
    assert_int_equal(dmc_pool_create(&r->pool, s->kv == DMC_KV_AUTO ? DMC_KV_F32 : s->kv, s->D, s->pool_bytes), DMC_OK);
    r->q = floats(rows * (size_t)s->G * D), r->k = floats(rows * D), r->v = floats(rows * D);
}

static inline void teardown(rig *r)
{
    assert_int_equal(dmc_pool_bytes_used(r->pool), 0);
    dmc_pool_close(r->pool);
    dmc_rope_free(&r->rope);
    dmc_free(r->q), dmc_free(r->k), dmc_free(r->v);
}

static inline dmc_seq_options options_of(const rig *r)
{
    return (dmc_seq_options){.n_layers = r->s.L ? r->s.L : 1,
                             .n_kv_heads = r->s.H,
                             .group = r->s.G,
                             .head_dim = r->s.D,
                             .n_ctx = r->s.T,
                             .pos0 = r->s.pos0,
                             .policy = r->s.policy,
                             .evict = r->s.evict,
                             .forced_cr = r->s.forced_cr,
                             .rope = &r->rope,
                             .kernels = r->s.kernels};
}

static inline dmc_seq *new_seq(const rig *r)
{
    dmc_seq *seq;
    dmc_seq_options o = options_of(r);
    assert_int_equal(dmc_seq_create(&seq, r->pool, &o), DMC_OK);
    return seq;
}

/* A fork, after each of its allocations has failed once in its turn. */
static inline dmc_seq *fork_with_faults(const dmc_seq *s)
{
    dmc_seq *f;
    for (long k = 1;; k++) {
        dmc_fault_memory(k);
        dmc_status st = dmc_seq_fork(&f, s);
        dmc_fault_memory(0);
        if (st == DMC_OK) {
            assert_true(k > 4); /* it has that many */
            return f;
        }
        assert_int_equal(st, DMC_ERR_MEMORY);
        assert_null(f);
    }
}

#endif
