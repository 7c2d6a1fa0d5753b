/* The cache: the same bits however the tokens are cut into chunks, equality with plain attention and with the training form, a
 * reference in double precision, fork and rewind, the pool, saved bytes. */
#include "cache_support.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- random cases ---- */

/* Gates that append and merge in about equal parts, in runs of every length. */
static void fill(const shape *s, uint64_t stream, int T, float *q, float *k, float *v)
{
    int ch = s->policy.channel;
    for (int t = 0; t < T; t++) {
        for (int i = 0; i < s->H * s->G * s->D; i++)
            q[t * s->H * s->G * s->D + i] = (float)dmc_normal(s->seed, stream, (uint64_t)(t * 4096 + i));
        for (int h = 0; h < s->H; h++) {
            float *kh = k + (t * s->H + h) * s->D, *vh = v + (t * s->H + h) * s->D;
            for (int i = 0; i < s->D; i++) {
                uint64_t c = (uint64_t)((t * s->H + h) * 4096 + i);
                kh[i] = (float)dmc_normal(s->seed, stream + 1, c);
                vh[i] = (float)dmc_normal(s->seed, stream + 2, c);
            }
            bool runs =
                dmc_uniform(s->seed, stream + 3, (uint64_t)(t / 37 * s->H + h)) < 0.5; /* stretches of long runs */
            bool merge = dmc_uniform(s->seed, stream + 4, (uint64_t)(t * s->H + h)) < (runs ? 0.95 : 0.5);
            kh[ch] = s->policy.offset + (merge ? 1.0f : -1.0f);
            for (int j = 0; j < s->G; j++)
                q[((t * s->H + h) * s->G + j) * s->D + ch] =
                    -s->policy.offset + (float)dmc_normal(s->seed, stream + 5, (uint64_t)(t * 64 + h * 8 + j));
        }
    }
}

static void setup(rig *r, const shape *s)
{
    open_rig(r, s);
    fill(s, 100, s->T, r->q, r->k, r->v);
}

/* Feeds rows [t, t + n) of q, k, v; the results go to the same rows of out. */
static void feed(const rig *r, dmc_seq *seq, const float *q, const float *k, const float *v, int t, int n, float *out)
{
    int64_t nq = r->s.H * r->s.G * r->s.D, nk = r->s.H * r->s.D;
    float *scratch = floats(dmc_seq_scratch(seq, n));
    assert_int_equal(dmc_seq_reserve(seq, n), DMC_OK);
    dmc_new_tokens x = {
        .T = n, .q = q + t * nq, .k = k + t * nk, .v = v + t * nk, .ld_q = nq, .ld_kv = nk, .out = out + t * nq};
    for (int h = 0; h < r->s.H; h++) dmc_cache_update_attend(seq, 0, h, &x, scratch);
    dmc_seq_advance(seq, n);
    dmc_free(scratch);
}

static void assert_same_content(const dmc_seq *a, const dmc_seq *b)
{
    const dmc_seq_options *o = dmc_seq_facts(a);
    size_t row = (size_t)o->head_dim * sizeof(float);
    assert_int_equal(dmc_seq_tokens(a), dmc_seq_tokens(b));
    for (int h = 0; h < o->n_kv_heads; h++) {
        assert_int_equal(dmc_seq_slots(a, 0, h), dmc_seq_slots(b, 0, h));
        for (int64_t i = 0; i < dmc_seq_slots(a, 0, h); i++) {
            float ka[256], va[256], kb[256], vb[256];
            dmc_seq_slot(a, 0, h, i, ka, va);
            dmc_seq_slot(b, 0, h, i, kb, vb);
            assert_memory_equal(ka, kb, row);
            assert_memory_equal(va, vb, row);
        }
        const dmc_accumulator *x = dmc_seq_accumulator(a, 0, h), *y = dmc_seq_accumulator(b, 0, h);
        assert_int_equal(x->n_run, y->n_run);
        assert_int_equal(x->count, y->count);
        assert_true(x->z == y->z);
        if (!dmc_pools(&o->policy)) continue;
        assert_memory_equal(x->sum, y->sum, dmc_accumulator_floats(&o->policy, o->head_dim) * sizeof(float));
    }
}

/* ---- references ---- */

/* Attention over all T tokens at once from the same parts: the hard form of training. */
static void parallel_form(const rig *r, float *out)
{
    const shape *s = &r->s;
    const dmc_policy *p = &s->policy;
    int64_t T = s->T, D = s->D, nq = s->H * s->G * D, nk = s->H * D;
    bool settles = p->kind != DMC_POLICY_NONE;
    float *logit = floats((size_t)T), *omega = floats((size_t)T), *alpha = floats((size_t)T), *mask = floats((size_t)T);
    float *y = floats((size_t)(T * 2 * D)), *raw = floats((size_t)(T * D)), *q = floats((size_t)(DMC_LANES * D));
    float *scratch = floats(dmc_attend_scratch(s->D, 2 * T));
    dmc_accumulator acc = {.sum = floats(dmc_accumulator_floats(p, s->D))};
    acc.ring = acc.sum + 2 * D;
    for (int h = 0; h < s->H; h++) {
        const float *k = r->k + h * D, *v = r->v + h * D;
        if (settles) {
            dmc_gate_rows rows = {.head_dim = s->D,
                                  .group = s->G,
                                  .n_kv_heads = s->H,
                                  .ih = h,
                                  .T = T,
                                  .q = r->q,
                                  .k = r->k,
                                  .ld_q = nq,
                                  .ld_k = nk};
            dmc_gates(p, &rows, logit, omega);
            for (int64_t t = 0; t < T; t++) alpha[t] = t > 0 && logit[t] > 0;
            for (int64_t t = 0; t < T; t++) mask[t] = t + 1 < T && alpha[t + 1] > 0 ? -INFINITY : 0;
        }
        if (dmc_pools(p)) {
            dmc_accumulator_reset(p, s->D, &acc);
            dmc_settle(p, s->D, T, alpha, omega, k, nk, v, nk, &acc, y, NULL);
        } else {
            for (int64_t t = 0; t < T; t++) {
                memcpy(y + t * 2 * D, k + t * nk, (size_t)D * sizeof(float));
                memcpy(y + t * 2 * D + D, v + t * nk, (size_t)D * sizeof(float));
            }
        }
        for (int64_t t = 0; t < T; t++) {
            float *yt = y + t * 2 * D;
            dmc_rotate_without(&r->rope, dmc_key_channel(p), s->pos0 + t, yt, yt);
            dmc_rotate_without(&r->rope, dmc_key_channel(p), s->pos0 + t, k + t * nk, raw + t * D);
        }
        const dmc_segment segments[2] = {{.kind = DMC_SEG_SETTLED,
                                          .k = y,
                                          .v = y + D,
                                          .ld_k = 2 * D,
                                          .ld_v = 2 * D,
                                          .n = T,
                                          .mask = settles ? mask : NULL},
                                         {.kind = DMC_SEG_RAW, .k = raw, .v = v, .ld_k = D, .ld_v = nk, .n = T}};
        for (int64_t lane = 0; lane < T * s->G; lane++) {
            int64_t t = lane / s->G, j = h * s->G + lane % s->G;
            dmc_rotate_without(&r->rope, dmc_query_channel(p, (int)(lane % s->G)), s->pos0 + t, r->q + t * nq + j * D,
                               q);
            dmc_attend_args a = {.head_dim = s->D,
                                 .n_lanes = 1,
                                 .q = {q},
                                 .i = {t},
                                 .out = {out + t * nq + j * D},
                                 .delay = settles ? p->delay : 0,
                                 .segments = segments,
                                 .n_segments = settles && p->delay ? 2 : 1,
                                 .scratch = scratch};
            s->kernels->attend(&a);
        }
    }
    float *all[] = {logit, omega, alpha, mask, y, raw, q, scratch, acc.sum};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) dmc_free(all[i]);
}

/* Token by token in double precision, written from the equations alone. out [T][H*G*D], n_slots [H] at the end. */
static void reference(const rig *r, double *out, int *n_slots)
{
    const shape *s = &r->s;
    const dmc_policy *p = &s->policy;
    int T = s->T, D = s->D, nq = s->H * s->G * D, nk = s->H * D, d = p->delay, ch = p->channel;
    double(*state)[2][256] = calloc((size_t)T, sizeof *state); /* pooled state of each token, key rotated */
    int *slot_of = calloc((size_t)T, sizeof *slot_of);
#define ROTATE(x, t)                                                                                       \
    do {                                                                                                   \
        (x)[ch] = 0;                                                                                       \
        for (int i_ = 0; i_ < D / 2; i_++) {                                                               \
            int a_ = s->interleaved ? 2 * i_ : i_, b_ = s->interleaved ? 2 * i_ + 1 : i_ + D / 2;          \
            double f_ = (double)(s->pos0 + (t)) * pow(10000, -2.0 * i_ / D), xa_ = (x)[a_], xb_ = (x)[b_]; \
            (x)[a_] = xa_ * cos(f_) - xb_ * sin(f_);                                                       \
            (x)[b_] = xb_ * cos(f_) + xa_ * sin(f_);                                                       \
        }                                                                                                  \
        (x)[ch] = 0;                                                                                       \
    } while (0)
    for (int h = 0; h < s->H; h++) {
        int slots = 0, start = 0;
        for (int t = 0; t < T; t++) { /* states and slots of all tokens; the delay only says when they appear */
            bool merge = t > 0 && r->k[t * nk + h * D + ch] - p->offset > 0;
            if (!merge) start = t, slots++;
            slot_of[t] = slots - 1;
            double z = 0;
            memset(state[t], 0, sizeof state[t]);
            for (int u = t; u >= start && (p->window == 0 || t - u < p->window); u--) {
                double mean = 0;
                for (int j = 0; j < s->G; j++) mean += r->q[u * nq + (h * s->G + j) * D + ch] / (double)s->G;
                double w = 1 / (1 + exp(-mean - p->offset)) + p->eps;
                z += w;
                for (int i = 0; i < D; i++)
                    state[t][0][i] += w * r->k[u * nk + h * D + i], state[t][1][i] += w * r->v[u * nk + h * D + i];
            }
            for (int i = 0; i < D; i++) state[t][0][i] /= z, state[t][1][i] /= z;
            ROTATE(state[t][0], t);
        }
        for (int i = 0; i < T; i++) {
            for (int j = 0; j < s->G; j++) {
                double q[256], o[256] = {0}, sum = 0;
                for (int x = 0; x < D; x++) q[x] = r->q[i * nq + (h * s->G + j) * D + x];
                ROTATE(q, i);
                for (int t = 0; t <= i; t++) {
                    double k[256], score = 0;
                    bool raw = t > i - d;
                    if (!raw && t < i - d && slot_of[t + 1] == slot_of[t]) continue; /* overwritten */
                    for (int x = 0; x < D; x++) k[x] = raw ? r->k[t * nk + h * D + x] : state[t][0][x];
                    if (raw) ROTATE(k, t);
                    for (int x = 0; x < D; x++) score += q[x] * k[x] / sqrt(D);
                    double e = exp(score);
                    sum += e;
                    for (int x = 0; x < D; x++) o[x] += e * (raw ? (double)r->v[t * nk + h * D + x] : state[t][1][x]);
                }
                for (int x = 0; x < D; x++) out[i * nq + (h * s->G + j) * D + x] = o[x] / sum;
            }
        }
        n_slots[h] = T > d ? slot_of[T - 1 - d] + 1 + d : T;
    }
#undef ROTATE
    free(state);
    free(slot_of);
}

/* ---- tests ---- */

/* One shape: one chunk, many random chunks and token by token agree in every bit, with the training form too. */
static void check_shape(const shape *s)
{
    rig r;
    setup(&r, s);
    size_t n = (size_t)s->T * s->H * s->G * s->D;
    float *whole = floats(n), *cut = floats(n), *single = floats(n), *parallel = floats(n);
    dmc_seq *a = new_seq(&r), *b = new_seq(&r), *c = new_seq(&r);
    feed(&r, a, r.q, r.k, r.v, 0, s->T, whole);
    for (int t = 0, m, i = 0; t < s->T; t += m, i++) {
        m = 1 + (int)(dmc_hash64(s->seed, 7, (uint64_t)i) % 40);
        if (m > s->T - t) m = s->T - t;
        feed(&r, b, r.q, r.k, r.v, t, m, cut);
    }
    for (int t = 0; t < s->T; t++) feed(&r, c, r.q, r.k, r.v, t, 1, single);
    parallel_form(&r, parallel);
    assert_memory_equal(whole, cut, n * sizeof(float));
    assert_memory_equal(whole, single, n * sizeof(float));
    assert_memory_equal(whole, parallel, n * sizeof(float));
    assert_same_content(a, b);
    assert_same_content(a, c);
    if (s->policy.kind == DMC_POLICY_DMC && s->policy.decision == DMC_DECISION_CHANNEL) {
        double *exact = calloc(n, sizeof *exact);
        int slots[8];
        reference(&r, exact, slots);
        for (size_t i = 0; i < n; i++) assert_true(fabs(whole[i] - exact[i]) < 2e-5);
        for (int h = 0; h < s->H; h++) assert_int_equal(dmc_seq_slots(a, 0, h), slots[h]);
        free(exact);
    } else if (s->policy.kind == DMC_POLICY_NONE) {
        for (int h = 0; h < s->H; h++) assert_int_equal(dmc_seq_slots(a, 0, h), s->T);
    }
    dmc_seq_close(a);
    dmc_seq_close(b);
    dmc_seq_close(c);
    dmc_free(whole);
    dmc_free(cut);
    dmc_free(single);
    dmc_free(parallel);
    teardown(&r);
}

static const int windows[] = {0, 1, 5, 12}, delays[] = {0, 1, 4, 17, 100}, groups[] = {1, 2, 4, 3},
                 dims[] = {8, 16, 64, 128};
#define PICK(list, at) list[(at) % (sizeof list / sizeof *list)]

static void test_chunks(void **state)
{
    (void)state;
    for (int tier = 1; tier <= 3; tier++) {
        const dmc_kernels *kn = dmc_kernels_pick(tier);
        if (!kn) continue;
        for (unsigned i = 0; i < 80; i++) { /* every window with every delay, four times */
            shape s = {.H = 1 + (int)(i % 3),
                       .G = PICK(groups, i / 3),
                       .D = PICK(dims, i / 20 + i),
                       .T = 60 + (int)(i * 7 % 90),
                       .kernels = kn,
                       .interleaved = i / 7 % 2,
                       .seed = i + 1};
            if (s.D == 128) s.T /= 2;
            s.policy = (dmc_policy){.kind = DMC_POLICY_DMC,
                                    .channel = i / 2 % 2 ? 0 : s.D - 1,
                                    .offset = 5,
                                    .eps = 0x1p-7f,
                                    .window = PICK(windows, i),
                                    .delay = PICK(delays, i / 4),
                                    .first_append = true,
                                    .cr = 1};
            s.pos0 = i % 11 == 0 ? 3000 : 0;
            check_shape(&s);
        }
    }
}

static void test_none(void **state)
{
    (void)state;
    for (int tier = 1; tier <= 3; tier++) {
        for (unsigned i = 0; i < 8 && dmc_kernels_pick(tier); i++) {
            shape s = {.H = 2,
                       .G = PICK(groups, i),
                       .D = PICK(dims, i),
                       .T = 70,
                       .kernels = dmc_kernels_pick(tier),
                       .interleaved = i & 1,
                       .seed = i,
                       .policy = {.kind = DMC_POLICY_NONE, .delay = i > 4 ? 9 : 0}};
            check_shape(&s);
        }
    }
}

/* The golden vectors say what the other policies compute; here, that it does not matter how the tokens come. */
static void test_other_policies(void **state)
{
    (void)state;
    static const dmc_policy_kind kinds[] = {DMC_POLICY_DMC, DMC_POLICY_DMS, DMC_POLICY_FMP};
    static const dmc_decision decisions[] = {DMC_DECISION_CHANNEL, DMC_DECISION_LAYER, DMC_DECISION_NOISE,
                                             DMC_DECISION_PERIOD};
    for (unsigned i = 0; i < 60; i++) {
        shape s = {.H = 1 + (int)(i % 3),
                   .G = PICK(groups, i / 3),
                   .D = PICK(dims, i / 20),
                   .T = 90,
                   .kernels = dmc_kernels_pick(0),
                   .interleaved = i & 1,
                   .seed = i};
        s.policy = dmc_policy_default(PICK(kinds, i), s.D);
        s.policy.decision = PICK(decisions, i / 3);
        s.policy.delay = PICK(delays, i / 5);
        s.policy.period = 1 + (int)(i % 5);
        if (s.policy.kind == DMC_POLICY_DMS) {
            s.policy.offset = 0; /* logits of either sign */
            if (s.policy.decision == DMC_DECISION_LAYER) s.policy.decision = DMC_DECISION_CHANNEL;
        }
        check_shape(&s);
    }
}

static shape usual(void)
{
    return (shape){
        .H = 3,
        .G = 2,
        .D = 16,
        .T = 400,
        .kernels = dmc_kernels_pick(0),
        .seed = 5,
        .policy = {
            .kind = DMC_POLICY_DMC, .channel = 15, .offset = 5, .eps = 0x1p-7f, .window = 12, .delay = 9, .cr = 1}};
}

/* What a recent window takes: a key, a value and two gates a token, and that its keys are those that
 * attention reads, whichever form it keeps them in. */
static void test_window(void **state)
{
    (void)state;
    static const dmc_policy_kind kinds[] = {DMC_POLICY_DMC, DMC_POLICY_DMS, DMC_POLICY_FMP};
    static const int wd[] = {1, 9, 64, 1000};
    for (unsigned i = 0; i < 12; i++) {
        shape s = usual(), at_once;
        s.policy = dmc_policy_default(PICK(kinds, i), s.D);
        s.policy.delay = 0;
        at_once = s;
        s.policy.delay = PICK(wd, i / 3);
        rig r, plain;
        setup(&r, &s);
        open_rig(&plain, &at_once);
        dmc_seq *seq = new_seq(&r), *without = new_seq(&plain);
        int64_t nk = s.H * s.D, d = s.policy.delay < s.T ? s.policy.delay : s.T;
        size_t row = (size_t)(8 * s.D + 8), empty = dmc_seq_bytes(seq), rows = (size_t)d * (size_t)s.H;
        assert_int_equal(empty - dmc_seq_bytes(without), rows * row);
        float *out = floats((size_t)s.T * s.H * s.G * s.D), rotated[256], k[256], v[256];
        feed(&r, seq, r.q, r.k, r.v, 0, 150, out);
        size_t pages = dmc_pool_bytes_used(r.pool) / (2 * DMC_PAGE_SLOTS * (size_t)s.D * sizeof(float));
        assert_int_equal(dmc_seq_bytes(seq) - empty,
                         pages * (dmc_pool_page_bytes(r.pool) + sizeof(dmc_page *) + sizeof(dmc_kv_page)));
        for (int h = 0; h < s.H; h++) {
            for (int64_t recent = d < 150 ? d : 150, t = 150 - recent; t < 150; t++) {
                dmc_seq_slot(seq, 0, h, dmc_seq_slots(seq, 0, h) - (150 - t), k, v);
                dmc_rotate_without(&r.rope, dmc_key_channel(&s.policy), t, r.k + t * nk + h * s.D, rotated);
                assert_memory_equal(k, rotated, (size_t)s.D * sizeof *k);
                assert_memory_equal(v, r.v + t * nk + h * s.D, (size_t)s.D * sizeof *v);
            }
        }
        dmc_seq_close(seq);
        dmc_seq_close(without);
        dmc_free(out);
        teardown(&r);
        teardown(&plain);
    }
}

/* Token by token the weight that is told is the one that Z grew by; a fork knows it too. */
static void test_weight(void **state)
{
    (void)state;
    shape s = usual();
    s.policy.window = 0;
    rig r;
    setup(&r, &s);
    float *out = floats((size_t)s.T * s.H * s.G * s.D), z = 0;
    dmc_seq *seq = new_seq(&r), *fork;
    const dmc_accumulator *acc = dmc_seq_accumulator(seq, 0, 1);
    int merged = 0;
    for (int t = 0; t < s.T; t++) {
        feed(&r, seq, r.q, r.k, r.v, t, 1, out);
        if (t < s.policy.delay) assert_true(acc->omega == 0);
        else assert_true(acc->omega > 0 && acc->omega <= 1 + s.policy.eps);
        assert_true(acc->z == (acc->n_run > 1 ? z : 0) + acc->omega);
        merged += acc->n_run > 1;
        z = acc->z;
    }
    assert_in_range(merged, s.T / 10, s.T * 9 / 10);
    assert_int_equal(dmc_seq_fork(&fork, seq), DMC_OK);
    assert_true(dmc_seq_accumulator(fork, 0, 1)->omega == acc->omega);
    dmc_seq_close(fork);
    dmc_seq_close(seq);
    dmc_free(out);
    teardown(&r);
}

/* A tree of forks: each goes on with tokens of its own and ends as a sequence fed from the start does. */
static void test_fork(void **state)
{
    (void)state;
    for (unsigned variant = 0; variant < 4; variant++) {
        shape s = usual();
        s.policy.delay = variant & 1 ? 9 : 0;
        s.policy.window = variant & 2 ? 12 : 0;
        rig r;
        setup(&r, &s);
        size_t nq = (size_t)s.T * s.H * s.G * s.D, nk = (size_t)s.T * s.H * s.D;
        float *q = floats(nq), *k = floats(nk), *v = floats(nk), *out = floats(nq), *expect = floats(nq);
        fill(&s, 200, s.T, q, k, v);
        for (int at = 1; at < 200; at += 13) {
            dmc_seq *trunk = new_seq(&r), *straight = new_seq(&r), *branch;
            feed(&r, trunk, r.q, r.k, r.v, 0, at, out);
            assert_int_equal(dmc_seq_fork(&branch, trunk), DMC_OK);
            for (int t = at; t < at + 50; t += 5) { /* both write in turns */
                feed(&r, branch, q, k, v, t, 5, out);
                feed(&r, trunk, r.q, r.k, r.v, t, 5, expect);
            }
            dmc_seq *other = new_seq(&r);
            feed(&r, straight, r.q, r.k, r.v, 0, at, expect);
            feed(&r, straight, q, k, v, at, 50, expect);
            assert_same_content(branch, straight);
            assert_memory_equal(out + (size_t)at * s.H * s.G * s.D, expect + (size_t)at * s.H * s.G * s.D,
                                50 * (size_t)(s.H * s.G * s.D) * sizeof(float));
            feed(&r, other, r.q, r.k, r.v, 0, at + 50, expect);
            assert_same_content(trunk, other);
            dmc_seq *snapshot; /* there and back */
            assert_int_equal(dmc_seq_fork(&snapshot, trunk), DMC_OK);
            feed(&r, trunk, q, k, v, at + 50, 60, out);
            assert_int_equal(dmc_seq_rewind(trunk, snapshot), DMC_OK);
            assert_same_content(trunk, other);
            assert_int_equal(dmc_seq_rewind(trunk, branch), DMC_OK);
            assert_same_content(trunk, straight);
            dmc_seq_close(trunk);
            feed(&r, snapshot, r.q, r.k, r.v, at + 50, 70, out);
            feed(&r, other, r.q, r.k, r.v, at + 50, 70, out);
            assert_same_content(snapshot, other);
            dmc_seq_close(snapshot);
            dmc_seq_close(other);
            dmc_seq_close(straight);
            dmc_seq_close(branch);
        }
        float *all[] = {q, k, v, out, expect};
        for (size_t i = 0; i < 5; i++) dmc_free(all[i]);
        teardown(&r);
    }
}

static void test_pages_come_back(void **state)
{
    (void)state;
    shape s = usual();
    s.T = 4000;
    rig r;
    setup(&r, &s);
    float *out = floats((size_t)s.T * s.H * s.G * s.D);
    dmc_seq *seqs[6];
    for (int i = 0; i < 6; i++) {
        seqs[i] = new_seq(&r);
        for (int t = 0; t < s.T; t += 100) feed(&r, seqs[i], r.q, r.k, r.v, t, 100, out);
    }
    size_t full = dmc_pool_bytes_held(r.pool), used = dmc_pool_bytes_used(r.pool);
    size_t page = 2 * DMC_PAGE_SLOTS * (size_t)s.D * sizeof(float);
    size_t pages = 0;
    for (int h = 0; h < s.H; h++)
        pages += 6 * (size_t)((dmc_seq_slots(seqs[0], 0, h) - s.policy.delay + DMC_PAGE_SLOTS - 1) / DMC_PAGE_SLOTS);
    assert_int_equal(used, pages * page); /* nothing reserved stays */
    for (int i = 0; i < 6; i++) dmc_seq_close(seqs[i]);
    assert_int_equal(dmc_pool_bytes_used(r.pool), 0);
    assert_true(full > 3 * 64 * page);
    assert_int_equal(dmc_pool_bytes_held(r.pool), 64 * page); /* one empty slab is kept */
    dmc_free(out);
    teardown(&r);
}

/* At the limit reserve refuses, changes nothing, and the sequence goes on once there is room. */
static void test_exhaustion(void **state)
{
    (void)state;
    shape s = usual();
    s.policy.delay = 0;
    rig r;
    setup(&r, &s);
    dmc_pool_close(r.pool);
    size_t page = 2 * DMC_PAGE_SLOTS * (size_t)s.D * sizeof(float);
    assert_int_equal(dmc_pool_create(&r.pool, DMC_KV_F32, s.D, 20 * page + 5), DMC_OK);
    float *out = floats((size_t)s.T * s.H * s.G * s.D);
    rig roomy = r;
    assert_int_equal(dmc_pool_create(&roomy.pool, DMC_KV_F32, s.D, 0), DMC_OK);
    dmc_seq *a = new_seq(&r), *b = new_seq(&r), *c = new_seq(&roomy);
    int na = 0, nb = 0;
    for (; dmc_seq_reserve(a, 10) == DMC_OK && na < 150; na += 10) feed(&r, a, r.q, r.k, r.v, na, 10, out);
    dmc_seq_advance(a, 0);
    for (; dmc_seq_reserve(b, 10) == DMC_OK; nb += 10) feed(&r, b, r.q, r.k, r.v, nb, 10, out);
    assert_true(nb > 0 && nb < 400);
    assert_int_equal(dmc_seq_reserve(b, 10), DMC_ERR_POOL);
    assert_non_null(strstr(dmc_last_error(), "pool"));
    assert_true(dmc_pool_bytes_held(r.pool) <= 20 * page);
    dmc_seq_close(a);
    feed(&r, b, r.q, r.k, r.v, nb, 10, out);
    for (int t = 0; t < nb + 10; t += 10) feed(&roomy, c, r.q, r.k, r.v, t, 10, out);
    assert_same_content(b, c);
    assert_int_equal(dmc_seq_reserve(b, s.T), DMC_ERR_CONTEXT);
    dmc_seq_close(b);
    dmc_seq_close(c);
    dmc_pool_close(roomy.pool);
    dmc_free(out);
    teardown(&r);
}

static void test_token_loop_never_allocates(void **state)
{
    (void)state;
    shape s = usual();
    rig r;
    setup(&r, &s);
    float *out = floats((size_t)s.T * s.H * s.G * s.D);
    dmc_seq *seq = new_seq(&r);
    float *scratch = floats(dmc_seq_scratch(seq, 1));
    int64_t nq = s.H * s.G * s.D, nk = s.H * s.D;
    feed(&r, seq, r.q, r.k, r.v, 0, s.policy.delay + 1, out); /* the first slab */
    dmc_fault_memory(0);
    for (int t = s.policy.delay + 1; t < s.T; t++) {
        assert_int_equal(dmc_seq_reserve(seq, 1), DMC_OK);
        dmc_new_tokens x = {
            .T = 1, .q = r.q + t * nq, .k = r.k + t * nk, .v = r.v + t * nk, .ld_q = nq, .ld_kv = nk, .out = out};
        for (int h = 0; h < s.H; h++) dmc_cache_update_attend(seq, 0, h, &x, scratch);
        dmc_seq_advance(seq, 1);
    }
    assert_int_equal(dmc_fault_memory_count(), 0);
    dmc_seq_close(seq);
    dmc_free(out);
    dmc_free(scratch);
    teardown(&r);
}

static void test_write_read(void **state)
{
    (void)state;
    char path[] = "/tmp/dmc-test-cache-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    for (int variant = 0; variant < 8; variant++) {
        shape s = usual();
        if (variant >= 4) s.policy = dmc_policy_default(variant < 6 ? DMC_POLICY_NONE : DMC_POLICY_DMS, s.D);
        if (variant >= 6) s.policy.offset = 0;
        s.policy.no_shift = variant == 7;
        s.policy.delay = variant & 1 ? 9 : 0;
        s.policy.window = variant & 2 ? 12 : 0;
        rig r;
        setup(&r, &s);
        float *out = floats((size_t)s.T * s.H * s.G * s.D), *expect = floats((size_t)s.T * s.H * s.G * s.D);
        int lengths[] = {0, 1, 5, 9, 10, 16, 150};
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            dmc_seq *a = new_seq(&r), *b = new_seq(&r);
            if (lengths[i]) feed(&r, a, r.q, r.k, r.v, 0, lengths[i], out);
            dmc_writer *w;
            dmc_mapping m;
            assert_int_equal(dmc_writer_open(&w, path), DMC_OK);
            uint64_t written = 1, read = 1;
            dmc_seq_write(a, w, &written);
            assert_int_equal(dmc_writer_commit(w), DMC_OK);
            assert_int_equal(dmc_map_file(&m, path), DMC_OK);
            assert_int_equal(dmc_seq_read(b, m.data, m.size, &read), DMC_OK);
            assert_true(read == written);
            assert_same_content(a, b);
            feed(&r, a, r.q, r.k, r.v, lengths[i], 40, expect);
            feed(&r, b, r.q, r.k, r.v, lengths[i], 40, out);
            size_t at = (size_t)lengths[i] * s.H * s.G * s.D;
            assert_memory_equal(out + at, expect + at, 40 * (size_t)(s.H * s.G * s.D) * sizeof(float));
            assert_same_content(a, b);
            dmc_seq_close(b);
            b = new_seq(&r); /* cut short anywhere, or one byte more: refused, and the sequence stays usable */
            uint8_t *bytes = dmc_malloc(m.size + 1, 1);
            memcpy(bytes, m.data, m.size);
            bytes[m.size] = 0;
            for (size_t n = 0; n < m.size; n += 1 + n / 16)
                assert_int_equal(dmc_seq_read(b, bytes, n, &read), DMC_ERR_FORMAT);
            assert_int_equal(dmc_seq_read(b, bytes, m.size + 1, &read), DMC_ERR_FORMAT);
            for (size_t n = 0; n < 64 && n < m.size; n++) { /* any count in the head may lie */
                for (int bit = 0; bit < 8; bit++) {
                    bytes[n] ^= (uint8_t)(1 << bit);
                    if (dmc_seq_read(b, bytes, m.size, &read) == DMC_OK) {
                        dmc_seq_close(b);
                        b = new_seq(&r);
                    }
                    bytes[n] ^= (uint8_t)(1 << bit);
                }
            }
            assert_int_equal(dmc_seq_read(b, bytes, m.size, &read), DMC_OK);
            dmc_free(bytes);
            dmc_unmap(&m);
            dmc_seq_close(a);
            dmc_seq_close(b);
        }
        dmc_free(out);
        dmc_free(expect);
        teardown(&r);
    }
    unlink(path);
}

static void test_memory_faults(void **state)
{
    (void)state;
    shape s = usual();
    rig r;
    setup(&r, &s);
    float *out = floats((size_t)s.T * s.H * s.G * s.D);
    dmc_seq *seq = new_seq(&r);
    feed(&r, seq, r.q, r.k, r.v, 0, 100, out);
    dmc_seq *f = fork_with_faults(seq);
    for (int t = 100; t < 300; t += 100) { /* a slab's descriptor cannot be had */
        dmc_fault_memory(1);
        dmc_status st = dmc_seq_reserve(f, 100);
        dmc_fault_memory(0);
        assert_true(st == DMC_OK || st == DMC_ERR_MEMORY);
        feed(&r, f, r.q, r.k, r.v, t, 100, out);
        feed(&r, seq, r.q, r.k, r.v, t, 100, out);
    }
    assert_same_content(f, seq);
    dmc_seq_close(f);
    dmc_seq_close(seq);
    dmc_free(out);
    teardown(&r);
}

/* Forks of one sequence in several threads: pages are shared, copied and dropped at the same time. */
typedef struct {
    const rig *r;
    dmc_seq *seq;
    float *out;
    int id;
} worker;

static void *work(void *p)
{
    worker *w = p;
    for (int t = 64; t < 364; t += 5) feed(w->r, w->seq, w->r->q, w->r->k, w->r->v, t, 5, w->out);
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    shape s = usual();
    s.policy.delay = 0;
    rig r;
    setup(&r, &s);
    size_t n = (size_t)s.T * s.H * s.G * s.D;
    for (int round = 0; round < 5; round++) {
        pthread_t threads[4];
        worker w[4];
        dmc_seq *seq = new_seq(&r);
        float *out = floats(n);
        feed(&r, seq, r.q, r.k, r.v, 0, 64, out);
        for (int i = 0; i < 4; i++) {
            w[i] = (worker){.r = &r, .out = floats(n), .id = i};
            assert_int_equal(dmc_seq_fork(&w[i].seq, seq), DMC_OK);
        }
        dmc_seq_close(seq);
        for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, work, &w[i]);
        for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
        for (int i = 1; i < 4; i++) assert_same_content(w[0].seq, w[i].seq);
        for (int i = 0; i < 4; i++) {
            dmc_seq_close(w[i].seq);
            dmc_free(w[i].out);
        }
        dmc_free(out);
    }
    teardown(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_none),
        cmocka_unit_test(test_other_policies),
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_weight),
        cmocka_unit_test(test_fork),
        cmocka_unit_test(test_pages_come_back),
        cmocka_unit_test(test_exhaustion),
        cmocka_unit_test(test_token_loop_never_allocates),
        cmocka_unit_test(test_write_read),
        cmocka_unit_test(test_memory_faults),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
