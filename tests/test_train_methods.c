/* Every method of training: gradients against finite differences, the hard form against serving bit for bit, and short runs that keep their
 * CR, repeat, resume and reload. */
#include "small_net.h"

#include "train/init.h"
#include "train/prepare.h"
#include "train/recipe.h"

#include <stdlib.h>
#include <unistd.h>

/* Two threads. */
static dmc_cpu cpu;

/* ---- policies as they are trained ---- */

typedef struct {
    const char *name;
    dmc_policy_kind kind;
    dmc_decision decision;
    int delay, window, period;
    bool qk_norm, interleaved, biases;
} variant;

static const variant variants[] = {
    {"dms", DMC_POLICY_DMS, DMC_DECISION_CHANNEL, 0, 0, 1, false, false, false},
    {"dms, delay", DMC_POLICY_DMS, DMC_DECISION_CHANNEL, 5, 0, 1, true, false, true},
    {"dms, delay beyond the end", DMC_POLICY_DMS, DMC_DECISION_CHANNEL, 500, 0, 1, false, true, false},
    {"adapters", DMC_POLICY_DMS, DMC_DECISION_ADAPTER, 0, 0, 1, false, true, true},
    {"adapters, delay", DMC_POLICY_DMS, DMC_DECISION_ADAPTER, 6, 0, 1, true, false, false},
    {"dms by chance", DMC_POLICY_DMS, DMC_DECISION_NOISE, 3, 0, 2, false, false, false},
    {"dmc", DMC_POLICY_DMC, DMC_DECISION_CHANNEL, 0, 0, 1, false, false, false},
    {"dmc, window", DMC_POLICY_DMC, DMC_DECISION_CHANNEL, 3, 5, 1, false, false, false},
    {"dmc, q/k-norm", DMC_POLICY_DMC, DMC_DECISION_CHANNEL, 4, 12, 1, true, false, true},
    {"hardc", DMC_POLICY_DMC, DMC_DECISION_LAYER, 0, 0, 1, false, false, false},
    {"hardc, delay, window", DMC_POLICY_DMC, DMC_DECISION_LAYER, 4, 5, 1, true, true, false},
    {"dmc by chance", DMC_POLICY_DMC, DMC_DECISION_NOISE, 0, 0, 3, false, false, true},
    {"dmc in turn", DMC_POLICY_DMC, DMC_DECISION_PERIOD, 4, 5, 3, false, false, false},
    {"fmp", DMC_POLICY_FMP, DMC_DECISION_CHANNEL, 0, 0, 4, false, false, false},
    {"fmp, delay", DMC_POLICY_FMP, DMC_DECISION_CHANNEL, 7, 0, 3, true, true, true},
};
enum { N_VARIANTS = sizeof variants / sizeof *variants };

static bool by_rule(const variant *v)
{
    return v->kind == DMC_POLICY_FMP || v->decision == DMC_DECISION_NOISE || v->decision == DMC_DECISION_PERIOD;
}

static dmc_config config_of(const variant *v)
{
    dmc_config c = tiny_config(v->window, v->delay);
    c.policy.kind = v->kind;
    c.policy.decision = v->decision;
    c.policy.period = v->period;
    c.policy.scale = 3;
    c.policy.channel = 15;
    c.qk_norm = v->qk_norm;
    c.rope_interleaved = v->interleaved;
    c.qkv_bias = c.o_bias = c.mlp_bias = v->biases;
    return c;
}

static void test_gradients(void **state)
{
    (void)state;
    const dmc_loss_options ce = {.ce_weight = 1};
    for (int i = 0; i < N_VARIANTS; i++) {
        dmc_config c = config_of(&variants[i]);
        bool rule = by_rule(&variants[i]);
        c.n_layers = 2;
        small *s = small_make(&c, &cpu, 21, false);
        print_message("%s\n", variants[i].name);
        small_check_gradients(s, (dmc_pass){.mode = rule ? DMC_MODE_HARD : DMC_MODE_SOFT, .tau = 1, .noise = s->noise},
                              &ce, rule ? 0 : -0.01f);
        small_check_gradients(s, (dmc_pass){.mode = DMC_MODE_PLAIN, .channel_scale = 0.4f}, &ce, 0);
        small_drop(s);
    }
}

/* What is frozen has no gradient, and what is not has the same as ever. */
static void test_frozen_base(void **state)
{
    (void)state;
    const dmc_loss_options ce = {.ce_weight = 1};
    dmc_config c = config_of(&variants[4]);
    small *all = small_make(&c, &cpu, 21, false), *some = small_make(&c, &cpu, 21, true);
    dmc_pass p = {.ids = all->ids, .mode = DMC_MODE_SOFT, .tau = 1, .noise = all->noise};
    small_loss(all, &p, &ce, -0.01f, all->g);
    small_loss(some, &p, &ce, -0.01f, some->g);
    size_t n = dmc_layout_trained(&some->l);
    assert_true(n < some->l.n_floats / 10 && some->l.first + n == all->l.n_floats);
    assert_memory_equal(some->g, all->g + some->l.first, n * sizeof *some->g);
    small_check_gradients(some, p, &ce, -0.01f);
    small_drop(all), small_drop(some);
}

/* Any number of threads, activations kept or computed again: the same bits. The heads of hardc share their decision's gradient. */
static void test_gradients_repeat(void **state)
{
    (void)state;
    const dmc_loss_options ce = {.ce_weight = 1};
    dmc_cpu one = {.kernels = cpu.kernels};
    for (int i = 0; i < N_VARIANTS; i++) {
        dmc_config c = config_of(&variants[i]);
        small *s = small_make(&c, &cpu, 40, false);
        size_t n = s->l.n_floats;
        float *again = dmc_calloc(n, sizeof *again);
        dmc_net *both = s->net;
        dmc_pass p = {.ids = s->ids, .mode = by_rule(&variants[i]) ? DMC_MODE_HARD : DMC_MODE_SOFT, .tau = 1};
        p.noise = s->noise;
        small_loss(s, &p, &ce, -0.01f, s->g);
        assert_int_equal(dmc_net_create(&s->net, &s->c, &s->l, &one, s->B, s->T, DMC_KEEP_INPUTS), DMC_OK);
        small_loss(s, &p, &ce, -0.01f, again);
        assert_memory_equal(s->g, again, n * sizeof *again);
        dmc_net_close(both);
        dmc_free(again);
        small_drop(s);
    }
}

/* ---- training = serving ---- */

/* The settled states that survive, slot by slot; returns how many did not. */
static int64_t check_slots(const dmc_config *c, const dmc_net *net, const dmc_session *s, int64_t T)
{
    int64_t gone = 0, settled = T - c->policy.delay > 0 ? T - c->policy.delay : 0;
    for (int il = 0; il < c->n_layers; il++) {
        const dmc_attention_saved *a = dmc_net_attention(net, il);
        for (int h = 0; h < c->n_kv_heads; h++) {
            int64_t slot = 0;
            for (int64_t t = 0; t < settled; t++) {
                if (t + 1 < settled && a->alpha[h * T + t + 1] > 0) {
                    gone++;
                    continue;
                }
                float k[c->head_dim], v[c->head_dim];
                size_t bytes = sizeof k;
                dmc_seq_slot(s->seq, il, h, slot++, k, v);
                assert_memory_equal(k, a->y_rot + (h * T + t) * c->head_dim, bytes);
                if (a->y) assert_memory_equal(v, a->y + ((h * T + t) * 2 + 1) * c->head_dim, bytes);
            }
            assert_int_equal(slot + (T - settled), dmc_session_head_slots(s, il, h));
        }
    }
    return gone;
}

/* Logits of a served timeline and of the training form with hard decisions: the same bits, and the same slots. */
static void check_serving(dmc_engine *e, int64_t T, bool expect_gone)
{
    dmc_config c = e->checkpoint->config;
    bool none = c.policy.kind == DMC_POLICY_NONE;
    dmc_session *s;
    dmc_session_options so = dmc_session_options_default();
    so.chunk = 37;
    assert_int_equal(dmc_session_create(&s, e, &so), DMC_OK);
    dmc_layout l;
    dmc_net *net;
    size_t n = (size_t)T * (size_t)c.n_vocab;
    assert_int_equal(dmc_layout_create(&l, &c, false), DMC_OK);
    float *w = dmc_calloc(l.n_floats, sizeof *w), *served = dmc_calloc(n, sizeof *w),
          *trained = dmc_calloc(n, sizeof *w);
    int32_t *ids = dmc_calloc((size_t)T, sizeof *ids);
    for (int64_t t = 0; t < T; t++) ids[t] = (int32_t)(dmc_hash64(6, 1, (uint64_t)t) % (uint64_t)c.n_vocab);
    assert_int_equal(dmc_layout_load(&l, e->checkpoint, w), DMC_OK);
    assert_int_equal(dmc_net_create(&net, &c, &l, &cpu, 1, (int)T, DMC_KEEP_ALL), DMC_OK);
    dmc_pass p = {.ids = ids, .mode = none ? DMC_MODE_PLAIN : DMC_MODE_HARD, .channel_scale = 1};
    dmc_net_forward(net, w, &p);
    dmc_net_logits(net, w, 0, T, trained);
    assert_int_equal(dmc_session_feed(s, ids, (size_t)T, served, true), DMC_OK);
    assert_memory_equal(trained, served, n * sizeof *w);
    if (!none) {
        int64_t gone = check_slots(&c, net, s, T);
        if (expect_gone) assert_true(gone > T / 2); /* the test would be idle otherwise */
    }
    dmc_free(w), dmc_free(served), dmc_free(trained), dmc_free(ids);
    dmc_net_close(net);
    dmc_layout_free(&l);
    dmc_session_close(s);
}

static void test_training_is_serving(void **state)
{
    (void)state;
    static const variant more[] = {
        {"dmc, W 12", DMC_POLICY_DMC, DMC_DECISION_CHANNEL, 0, 12, 1, false, false, false},
        {"dmc, delay 17", DMC_POLICY_DMC, DMC_DECISION_CHANNEL, 17, 0, 1, false, false, false},
        {"dmc, delay beyond the end", DMC_POLICY_DMC, DMC_DECISION_CHANNEL, 500, 0, 1, false, false, false},
        {"none", DMC_POLICY_NONE, DMC_DECISION_CHANNEL, 0, 0, 1, false, false, false},
        {"none, q/k-norm", DMC_POLICY_NONE, DMC_DECISION_CHANNEL, 0, 0, 1, true, false, true},
    };
    enum { T = 150, N_MORE = sizeof more / sizeof *more };
    for (int i = 0; i < N_VARIANTS + N_MORE; i++) {
        const variant *v = i < N_VARIANTS ? &variants[i] : &more[i - N_VARIANTS];
        dmc_engine *e;
        dmc_config c = config_of(v);
        print_message("%s\n", v->name);
        assert_int_equal(tiny_engine(&e, &c, 9, 0), DMC_OK);
        check_serving(e, T, v->delay < T);
        dmc_engine_close(e);
    }
}

/* ---- models made ready ---- */

static dmc_checkpoint *random_model(int n_heads, int n_kv_heads, bool biases)
{
    dmc_config c = tiny_config(0, 0);
    dmc_checkpoint *m;
    c.policy = dmc_policy_none();
    c.n_heads = n_heads, c.n_kv_heads = n_kv_heads;
    c.qkv_bias = biases;
    assert_int_equal(dmc_checkpoint_create(&m, &c), DMC_OK);
    dmc_init_weights(m, 4);
    for (size_t i = 0; i < m->n_tensors; i++) /* biases too */
        for (int64_t j = 0; m->tensors[i].n_dims == 1 && j < m->tensors[i].shape[0]; j++)
            ((float *)(uintptr_t)m->tensors[i].data)[j] += 0.1f * (float)dmc_normal(8, i, (uint64_t)j);
    return m;
}

static float *of(const dmc_checkpoint *m, const char *name)
{
    const dmc_tensor *t = dmc_checkpoint_find(m, name);
    assert_non_null(t);
    return (float *)(uintptr_t)t->data;
}

static void test_pooled_heads(void **state)
{
    (void)state;
    dmc_checkpoint *m = random_model(6, 6, true), *gqa, *same;
    int64_t E = m->config.n_embd, D = m->config.head_dim;
    assert_int_equal(dmc_prepare_gqa(&gqa, m, 3), DMC_OK);
    assert_int_equal(gqa->config.n_kv_heads, 2);
    assert_int_equal(dmc_config_check(&gqa->config, "pooled"), DMC_OK);
    static const char *const names[] = {"model.layers.1.self_attn.k_proj.weight",
                                        "model.layers.2.self_attn.v_proj.bias"};
    for (int i = 0; i < 2; i++) {
        int64_t row = i ? 1 : E;
        const float *x = of(m, names[i]), *y = of(gqa, names[i]);
        for (int64_t j = 0; j < 2 * D * row; j++) {
            int64_t head = j / (D * row), in = j % (D * row);
            float mean =
                (x[(3 * head) * D * row + in] + x[(3 * head + 1) * D * row + in] + x[(3 * head + 2) * D * row + in]) /
                3;
            assert_true(fabsf(y[j] - mean) < 1e-6f);
        }
    }
    assert_memory_equal(of(gqa, "model.layers.0.self_attn.q_proj.weight"),
                        of(m, "model.layers.0.self_attn.q_proj.weight"), (size_t)(6 * D * E) * sizeof(float));
    assert_int_equal(dmc_prepare_gqa(&same, m, 1), DMC_OK); /* nothing to pool */
    for (size_t i = 0; i < m->n_tensors; i++)
        assert_memory_equal(same->tensors[i].data, m->tensors[i].data, m->tensors[i].bytes);
    dmc_checkpoint_close(same);
    assert_int_equal(dmc_prepare_gqa(&same, m, 4), DMC_ERR_ARG);
    assert_null(same);
    dmc_checkpoint_close(gqa);
    dmc_checkpoint_close(m);
}

/* Adapters that have not learned evict nothing. */
static void test_fresh_adapters(void **state)
{
    (void)state;
    enum { T = 90 };
    dmc_checkpoint *plain = random_model(6, 3, true), *with;
    dmc_policy p = dmc_policy_default(DMC_POLICY_DMS, plain->config.head_dim);
    dmc_engine *a, *b;
    dmc_session *s[2];
    int32_t ids[T];
    float logits[2][97];
    p.decision = DMC_DECISION_ADAPTER;
    assert_int_equal(dmc_prepare_adapters(&with, plain, &p), DMC_OK);
    assert_int_equal(dmc_engine_of_checkpoint(&a, plain, NULL), DMC_OK);
    assert_int_equal(dmc_engine_of_checkpoint(&b, with, NULL), DMC_OK);
    for (int t = 0; t < T; t++) ids[t] = t % 90 + 3;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(dmc_session_create(&s[i], i ? b : a, NULL), DMC_OK);
        assert_int_equal(dmc_session_feed(s[i], ids, T, logits[i], false), DMC_OK);
    }
    assert_memory_equal(logits[0], logits[1], sizeof logits[0]);
    assert_true(dmc_session_stats(s[1]).cr == 1);
    for (int i = 0; i < 2; i++) dmc_session_close(s[i]);
    dmc_engine_close(a);
    dmc_engine_close(b);
}

/* ---- runs ---- */

static const char state_path[] = "test_train_methods.state";

/* Repeated short words: something to learn. */
static dmc_corpus make_corpus(size_t n, int vocab)
{
    dmc_corpus c = {.n = n, .n_docs = 1, .bos = 1};
    c.ids = dmc_calloc(n, sizeof *c.ids);
    c.doc = dmc_calloc(2, sizeof *c.doc);
    for (size_t i = 0; i < n; i++) c.ids[i] = (int32_t)(3 + dmc_hash64(1, i / 40, i % 7) % (uint64_t)(vocab - 3));
    c.doc[1] = n;
    return c;
}

typedef struct {
    const char *name;
    dmc_recipe r;
} method;

static const method methods[] = {
    {"dmc", {.method = DMC_METHOD_DMC, .cr = 2, .delay = 12}},
    {"dmc-c", {.method = DMC_METHOD_DMC_C, .cr = 2, .delay = 12}},
    {"dmc-hardc", {.method = DMC_METHOD_DMC_HARDC, .cr = 2, .delay = 12}},
    {"dms", {.method = DMC_METHOD_DMS, .cr = 2, .delay = 12}},
    {"dms-adapter", {.method = DMC_METHOD_DMS_ADAPTER, .cr = 2, .delay = 12}},
    {"fmp", {.method = DMC_METHOD_FMP, .cr = 3}},
    {"gqa", {.method = DMC_METHOD_GQA, .cr = 2}},
    {"none", {.method = DMC_METHOD_NONE, .cr = 2}}, /* from here on without a run on a real model */
    {"dmc, no delay", {.method = DMC_METHOD_DMC, .cr = 2}},
    {"dmc as published", {.method = DMC_METHOD_DMC, .cr = 2, .delay = -1, .paper = true}},
    {"dmc by chance", {.method = DMC_METHOD_DMC, .decision = DMC_DECISION_NOISE, .cr = 2, .delay = 12}},
    {"dms in turn", {.method = DMC_METHOD_DMS, .decision = DMC_DECISION_PERIOD, .cr = 2, .delay = 12}},
};
enum { DMC, DMC_C, DMC_HARDC, DMS, DMS_ADAPTER, FMP, GQA, N_REAL };
enum { N_METHODS = sizeof methods / sizeof *methods };

static dmc_train_options options_of(const method *m, const dmc_config *c, int ctx, int batch, int64_t steps)
{
    dmc_train_options o;
    dmc_recipe r = m->r;
    r.ctx = ctx, r.batch = batch, r.steps = steps;
    dmc_recipe_retrofit(&o, c, &r);
    o.save_seconds = 0;
    return o;
}

/* What the method wants of a model; `model` goes into it. */
static dmc_status prepare(dmc_checkpoint **model, const method *m, const dmc_policy *policy)
{
    dmc_checkpoint *ready = NULL;
    if (m->r.method == DMC_METHOD_GQA) DMC_TRY(dmc_prepare_gqa(&ready, *model, (int)m->r.cr));
    if (m->r.method == DMC_METHOD_DMS_ADAPTER) DMC_TRY(dmc_prepare_adapters(&ready, *model, policy));
    if (!ready) return DMC_OK;
    dmc_checkpoint_close(*model);
    *model = ready;
    return DMC_OK;
}

typedef struct {
    int64_t stop;
    dmc_train_report last;
} watch;

static bool on_step(const dmc_train_report *r, void *user)
{
    watch *w = user;
    w->last = *r;
    return r->step != w->stop;
}

static bool same_weights(const dmc_checkpoint *a, const dmc_checkpoint *b)
{
    for (size_t i = 0; i < a->n_tensors; i++) {
        const dmc_tensor *t = dmc_checkpoint_find(b, a->tensors[i].name);
        if (!t || t->bytes != a->tensors[i].bytes || memcmp(t->data, a->tensors[i].data, t->bytes)) return false;
    }
    return a->n_tensors == b->n_tensors && dmc_policy_equal(&a->config.policy, &b->config.policy);
}

/* A random model trained by a method; stopped after `stop` steps (0: never) and resumed by a new trainer. */
static dmc_status train_tiny(dmc_checkpoint **out, const method *m, int64_t stop, watch *w)
{
    dmc_status status = DMC_OK;
    dmc_trainer *t = NULL;
    dmc_config c = tiny_config(0, 0);
    dmc_corpus text = make_corpus(4000, c.n_vocab);
    c.policy = dmc_policy_none();
    c.n_kv_heads = 2, c.n_heads = 4;
    dmc_train_options o = options_of(m, &c, 48, 2, 30);
    *out = NULL;
    unlink(state_path);
    for (int part = 0; part < (stop ? 2 : 1); part++) {
        dmc_trainer_close(t);
        dmc_checkpoint_close(*out);
        t = NULL, *out = NULL;
        DMC_GOTO(dmc_checkpoint_create(out, &c));
        dmc_init_weights(*out, 4);
        DMC_GOTO(prepare(out, m, &o.policy));
        DMC_GOTO(dmc_trainer_create(&t, *out, &text, NULL, &o, &cpu));
        if (part) DMC_GOTO(dmc_trainer_resume(t, state_path));
        w->stop = part ? 0 : stop;
        status = dmc_trainer_run(t, state_path, on_step, w);
        if (status == DMC_ERR_INTERRUPTED && !part && stop) status = DMC_OK;
        if (status != DMC_OK) goto done;
    }
done:
    dmc_trainer_close(t);
    dmc_corpus_free(&text);
    if (status != DMC_OK) {
        dmc_checkpoint_close(*out);
        *out = NULL;
    }
    return status;
}

static void test_runs_resume(void **state)
{
    (void)state;
    for (int i = 0; i < N_METHODS; i++) {
        dmc_checkpoint *whole, *cut;
        watch w = {0};
        print_message("%s\n", methods[i].name);
        assert_int_equal(train_tiny(&whole, &methods[i], 0, &w), DMC_OK);
        for (int64_t stop = 2; stop <= 30; stop += 14) { /* in the beginning, in the middle, when all is done */
            assert_int_equal(train_tiny(&cut, &methods[i], stop, &w), DMC_OK);
            assert_true(same_weights(whole, cut));
            assert_true(whole->config.policy.offset == cut->config.policy.offset);
            dmc_checkpoint_close(cut);
        }
        dmc_checkpoint_close(whole);
    }
    unlink(state_path);
}

/* Adapters learn, and nothing else does. */
static void test_base_stays(void **state)
{
    (void)state;
    dmc_checkpoint *m, *before;
    dmc_config c = tiny_config(0, 0);
    watch w = {0};
    c.policy = dmc_policy_none();
    c.n_kv_heads = 2, c.n_heads = 4;
    assert_int_equal(train_tiny(&m, &methods[DMS_ADAPTER], 0, &w), DMC_OK);
    assert_int_equal(dmc_checkpoint_create(&before, &c), DMC_OK);
    dmc_init_weights(before, 4);
    for (size_t i = 0; i < before->n_tensors; i++) {
        const dmc_tensor *t = &before->tensors[i];
        assert_memory_equal(of(m, t->name), t->data, t->bytes);
    }
    double moved = 0;
    for (int64_t j = 0; j < 2 * c.n_embd; j++)
        moved += fabsf(of(m, "model.layers.1.self_attn.dms_proj_alpha.weight")[j]);
    assert_true(moved > 0);
    dmc_checkpoint_close(before);
    dmc_checkpoint_close(m);
}

static void test_faults(void **state)
{
    (void)state;
    static const int which[] = {DMS, DMS_ADAPTER, GQA};
    for (int i = 0; i < 3; i++) {
        const method *m = &methods[which[i]];
        dmc_checkpoint *clean, *found;
        watch w = {0};
        dmc_fault_memory(0);
        assert_int_equal(train_tiny(&clean, m, 0, &w), DMC_OK);
        enum { FAULTS = DMC_SANITIZED ? 15 : 60 }; /* spread over all calls */
        long calls = dmc_fault_memory_count(), step = calls > FAULTS ? calls / FAULTS : 1;
        for (long k = 3; k <= calls; k += step) { /* the test's own corpus comes first */
            dmc_fault_memory(k);
            dmc_status s = train_tiny(&found, m, 0, &w);
            dmc_fault_memory(0);
            if (s != DMC_OK) {
                assert_int_equal(s, DMC_ERR_MEMORY);
                continue;
            }
            assert_true(same_weights(clean, found)); /* what failed did not matter */
            dmc_checkpoint_close(found);
        }
        dmc_checkpoint_close(clean);
    }
    unlink(state_path);
}

/* ---- a real model ---- */

static const char *real_model(void)
{
    static const char real[] = DMC_SHARED_DATA "/weights-tinystories-656k", own[] = DMC_SOURCE_DIR "/models/story.gguf";
    return dmc_is_dir(real) ? real : dmc_exists(own) ? own : NULL;
}

/* Trains it in seconds; the last measured CR, and how uneven the heads of a layer are. */
static dmc_train_report train_real(const method *m, const char *path)
{
    enum { STEPS = DMC_SANITIZED ? 24 : 80 };
    dmc_checkpoint *original, *model, *again;
    dmc_corpus text;
    dmc_trainer *t;
    watch w = {0};
    assert_int_equal(dmc_checkpoint_open(&original, path), DMC_OK);
    assert_int_equal(dmc_checkpoint_clone_f32(&model, original), DMC_OK);
    text = make_corpus(40000, model->config.n_vocab);
    dmc_train_options o = options_of(m, &model->config, 96, 4, STEPS);
    o.adamw.decision_scale *= 2; /* so few steps */
    assert_int_equal(prepare(&model, m, &o.policy), DMC_OK);
    assert_int_equal(dmc_trainer_create(&t, model, &text, &text, &o, &cpu), DMC_OK);
    assert_int_equal(dmc_trainer_run(t, NULL, on_step, &w), DMC_OK);
    dmc_trainer_close(t);
    /* what was written, in the format that has its rows in the same order, is what was trained, to the bit, and is served so */
    bool gguf = model->config.rope_interleaved;
    const char *written = gguf ? "test_train_methods.gguf" : "test_train_methods.hf";
    assert_int_equal((gguf ? dmc_write_gguf : dmc_write_hf)(written, model, original, DMC_F32), DMC_OK);
    dmc_engine *e;
    dmc_session *s;
    assert_int_equal(dmc_checkpoint_open(&again, written), DMC_OK);
    assert_true(same_weights(model, again));
    dmc_checkpoint_close(again);
    assert_int_equal(dmc_engine_open(&e, written, NULL), DMC_OK);
    check_serving(e, 200, false);
    enum { SERVED = 16 };
    double kept = 0;
    for (int i = 0; i < SERVED; i++) {
        assert_int_equal(dmc_session_create(&s, e, NULL), DMC_OK);
        assert_int_equal(dmc_session_feed(s, text.ids + i * 2000, 96, NULL, false), DMC_OK);
        kept += 1 / dmc_session_stats(s).cr;
        dmc_session_close(s);
    }
    const double served = SERVED / kept;
    if (o.steps_train) assert_true(served == 1 && w.last.val_cr == 1);
    else if (o.policy.kind == DMC_POLICY_FMP) assert_true(fabs(served / m->r.cr - 1) < 0.02);
    else assert_true(fabs(served / w.last.val_cr - 1) < 0.15); /* of other samples */
    dmc_engine_close(e);
    dmc_checkpoint_close(model);
    dmc_checkpoint_close(original);
    dmc_corpus_free(&text);
    assert_int_equal(system("rm -rf test_train_methods.gguf test_train_methods.hf"), 0);
    return w.last;
}

static void test_real_model(void **state)
{
    (void)state;
    const char *path = real_model();
    double uneven[N_REAL];
    if (!path) {
        print_message("no real model: neither ../shared/data nor models/story.gguf is there\n");
        skip();
    }
    for (int i = 0; i < N_REAL; i++) {
        dmc_train_report r = train_real(&methods[i], path);
        print_message("%-16s CR %.2f of %.2f, loss %.3f, uneven %.3f\n", methods[i].name, r.val_cr, methods[i].r.cr,
                      r.val_ce, r.uneven);
        uneven[i] = r.uneven;
        if (DMC_SANITIZED || r.stage == DMC_STAGE_TRAIN) continue; /* too few steps for a CR; none */
        assert_true(fabs(r.val_cr / methods[i].r.cr - 1) < 0.08);
    }
    if (!DMC_SANITIZED) assert_true(uneven[DMC_C] < 0.7 * uneven[DMC] && uneven[DMC_HARDC] < 1e-9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),        cmocka_unit_test(test_frozen_base),
        cmocka_unit_test(test_gradients_repeat), cmocka_unit_test(test_training_is_serving),
        cmocka_unit_test(test_pooled_heads),     cmocka_unit_test(test_fresh_adapters),
        cmocka_unit_test(test_runs_resume),      cmocka_unit_test(test_base_stays),
        cmocka_unit_test(test_faults),           cmocka_unit_test(test_real_model),
    };
    cpu.kernels = dmc_kernels_pick(0);
    if (dmc_threads_create(&cpu.threads, 2, false) != DMC_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    dmc_threads_close(cpu.threads);
    return failed;
}
