/* Training: gradients against finite differences, the hard training form against serving bit for bit, runs that repeat and resume. */
#include "small_net.h"

#include "train/init.h"
#include "train/recipe.h"
#include "train/step_bench.h"

#include <unistd.h>

/* Two threads. */
static dmc_cpu cpu;

static small *make(int window, int delay, int channel, bool interleaved, bool biases, int T)
{
    dmc_config c = tiny_config(window, delay);
    c.n_layers = 2;
    c.rope_interleaved = interleaved;
    c.policy.channel = channel;
    c.qkv_bias = c.o_bias = c.mlp_bias = biases;
    c.tied = !biases;
    return small_make(&c, &cpu, T, false);
}

static void test_gradients(void **state)
{
    (void)state;
    const struct {
        int window, delay, channel;
        bool interleaved, biases;
    } cases[] = {{0, 0, 15, false, false},
                 {0, 4, 15, true, true},
                 {5, 0, 0, false, false},
                 {3, 7, 15, false, true},
                 {12, 2, 0, true, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        small *s = make(cases[i].window, cases[i].delay, cases[i].channel, cases[i].interleaved, cases[i].biases, 21);
        dmc_loss_options ce = {.ce_weight = 1};
        small_check_gradients(s, (dmc_pass){.mode = DMC_MODE_SOFT, .tau = 1, .noise = s->noise}, &ce, -0.01f);
        small_check_gradients(s, (dmc_pass){.mode = DMC_MODE_PLAIN, .channel_scale = 0.4f}, &ce, 0);
        small_drop(s);
    }
}

static void test_gradients_distillation(void **state)
{
    (void)state;
    for (int forward = 0; forward < 2; forward++) {
        small *s = make(0, 2, 15, false, true, 17);
        int32_t lengths[2] = {17, 9};
        dmc_pass p = {.ids = s->ids, .lengths = lengths, .mode = DMC_MODE_PLAIN, .channel_scale = 1};
        float *hidden = dmc_calloc((size_t)(s->B * s->T * s->c.n_embd), sizeof *hidden),
              *head = dmc_calloc((size_t)(s->c.n_vocab * s->c.n_embd), sizeof *head);
        memcpy(hidden, dmc_net_forward(s->net, s->w, &p), (size_t)(s->B * s->T * s->c.n_embd) * sizeof *hidden);
        memcpy(head, s->w + s->l.head, (size_t)(s->c.n_vocab * s->c.n_embd) * sizeof *head);
        dmc_loss_options same = {.kl_weight = 1, .kl_forward = forward, .teacher_hidden = hidden, .teacher_head = head};
        assert_true(fabs(dmc_net_loss(s->net, s->w, &p, &same, NULL, 1).kl) < 1e-5); /* teacher and student agree */
        dmc_loss_options o = {
            .ce_weight = 0.5f, .kl_weight = 2, .kl_forward = forward, .teacher_hidden = hidden, .teacher_head = head};
        small_check_gradients(s, (dmc_pass){.lengths = lengths, .mode = DMC_MODE_SOFT, .tau = 0.7f, .noise = s->noise},
                              &o, 0);
        dmc_free(hidden), dmc_free(head);
        small_drop(s);
    }
}

/* ---- one gradient, however it is computed ---- */

/* The gradient by a net of its own -> g [n_floats]; its size in bytes. */
static size_t gradient_by(small *s, const dmc_cpu *by, dmc_keep keep, const dmc_pass *p, float *g)
{
    const dmc_loss_options ce = {.ce_weight = 1};
    dmc_net *mine = s->net;
    assert_int_equal(dmc_net_create(&s->net, &s->c, &s->l, by, s->B, s->T, keep), DMC_OK);
    size_t bytes = dmc_net_bytes(s->net);
    small_loss(s, p, &ce, -0.01f, g);
    dmc_net_close(s->net);
    s->net = mine;
    return bytes;
}

/* Any number of threads, activations kept or computed again: the same bits, in both kinds of arithmetic. */
static void test_gradients_repeat(void **state)
{
    (void)state;
    for (int c = 0; c < 8; c++) {
        small *s = make(0, c & 1 ? 4 : 0, 15, false, c & 1, 40);
        size_t n = s->l.n_floats;
        float *g[3];
        dmc_cpu one = {.kernels = cpu.kernels}, three = {.kernels = cpu.kernels};
        dmc_pass p = {.ids = s->ids,
                      .mode = c & 2 ? DMC_MODE_SOFT : DMC_MODE_PLAIN,
                      .tau = 1,
                      .noise = s->noise,
                      .channel_scale = 1,
                      .math = c & 4 ? DMC_MATH_BF16 : DMC_MATH_F32};
        assert_int_equal(dmc_threads_create(&three.threads, 3, false), DMC_OK);
        for (int i = 0; i < 3; i++) g[i] = dmc_calloc(n, sizeof **g);
        size_t all = gradient_by(s, &one, DMC_KEEP_ALL, &p, g[0]);
        gradient_by(s, &three, DMC_KEEP_ALL, &p, g[1]);
        size_t inputs = gradient_by(s, &one, DMC_KEEP_INPUTS, &p, g[2]);
        assert_memory_equal(g[0], g[1], n * sizeof **g);
        assert_memory_equal(g[0], g[2], n * sizeof **g);
        assert_true(inputs < all);
        dmc_threads_close(three.threads);
        for (int i = 0; i < 3; i++) dmc_free(g[i]);
        small_drop(s);
    }
}

/* Gradients overwrite what was there, or are added to it. */
static void test_gradients_accumulate(void **state)
{
    (void)state;
    for (int untied = 0; untied < 2; untied++) {
        small *s = make(0, 3, 15, false, untied, 21);
        const dmc_loss_options ce = {.ce_weight = 1};
        dmc_pass p = {.ids = s->ids, .mode = DMC_MODE_SOFT, .tau = 1, .noise = s->noise};
        float *once = dmc_calloc(s->l.n_floats, sizeof *once);
        small_loss(s, &p, &ce, -0.01f, once);
        for (size_t i = 0; i < s->l.n_floats; i++) s->g[i] = once[i] == 0 ? 0 : 7; /* the gaps between tensors stay 0 */
        small_loss(s, &p, &ce, -0.01f, s->g);
        assert_memory_equal(s->g, once, s->l.n_floats * sizeof *once);
        p.accumulate = true;
        small_loss(s, &p, &ce, -0.01f, s->g);
        for (size_t i = 0; i < s->l.n_floats; i++)
            assert_true(fabsf(s->g[i] - 2 * once[i]) <= 1e-5f * fabsf(once[i]) + 1e-6f);
        dmc_free(once);
        small_drop(s);
    }
}

/* ---- runs ---- */

static dmc_corpus make_corpus(size_t n, int vocab)
{
    dmc_corpus c = {.n = n, .n_docs = n / 50, .bos = 1};
    c.ids = dmc_calloc(n, sizeof *c.ids);
    c.doc = dmc_calloc(c.n_docs + 1, sizeof *c.doc);
    for (size_t i = 0; i < n; i++) /* short words said again: something to learn */
        c.ids[i] = (int32_t)(3 + dmc_hash64(1, i / 40, i % 7) % (uint64_t)(vocab - 3));
    for (size_t i = 0; i <= c.n_docs; i++) c.doc[i] = i * 50;
    return c;
}

static dmc_train_options run_options(const dmc_config *c, bool packed)
{
    dmc_train_options o;
    dmc_recipe_retrofit(
        &o, c, &(dmc_recipe){.method = DMC_METHOD_DMC, .cr = 2, .ctx = 48, .batch = 2, .steps = 30, .delay = 4});
    o.packed = packed;
    o.kl_weight = 0.5f;
    o.eval_every = 10;
    o.save_seconds = 0;
    return o;
}

static bool stop_at(const dmc_train_report *r, void *user) { return r->step != *(int64_t *)user; }

/* -> the weights after a run that was stopped after `stops` steps (-1: never) and resumed by a new trainer. */
static dmc_status run(float **weights, size_t *n, bool packed, int passes, int64_t stop, const char *state)
{
    dmc_config c = tiny_config(0, 4);
    dmc_policy policy = c.policy;
    c.policy = dmc_policy_none();
    dmc_corpus text = make_corpus(4000, c.n_vocab), held = make_corpus(400, c.n_vocab);
    dmc_train_options o = run_options(&c, packed);
    o.policy.offset = policy.offset + 2;
    o.accumulate = passes;
    dmc_checkpoint *m = NULL;
    dmc_trainer *t = NULL;
    dmc_status status = DMC_OK;
    unlink(state);
    *weights = NULL;
    for (int part = 0; part < (stop >= 0 ? 2 : 1); part++) {
        dmc_trainer_close(t);
        dmc_checkpoint_close(m);
        t = NULL, m = NULL;
        DMC_GOTO(dmc_checkpoint_create(&m, &c));
        dmc_init_weights(m, 4);
        DMC_GOTO(dmc_trainer_create(&t, m, &text, &held, &o, &cpu));
        if (part) DMC_GOTO(dmc_trainer_resume(t, state));
        status = dmc_trainer_run(t, state, stop_at, &stop);
        if (part == 0 && stop >= 0 && status == DMC_ERR_INTERRUPTED) status = DMC_OK;
        if (status != DMC_OK) goto done;
    }
    dmc_layout l;
    DMC_GOTO(dmc_layout_create(&l, &m->config, false));
    *n = l.n_floats;
    *weights = dmc_calloc(l.n_floats, sizeof(float));
    status = *weights ? dmc_layout_load(&l, m, *weights) : dmc_fail(DMC_ERR_MEMORY, "out of memory");
    dmc_layout_free(&l);
done:
    dmc_trainer_close(t);
    dmc_checkpoint_close(m);
    dmc_corpus_free(&text);
    dmc_corpus_free(&held);
    return status;
}

static const char state_path[] = "test_train.state";

static void test_runs_repeat_and_resume(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        float *a, *b;
        size_t n;
        bool packed = kind % 2;
        int passes = 1 + kind / 2;
        assert_int_equal(run(&a, &n, packed, passes, -1, state_path), DMC_OK);
        for (int64_t stop = -1; stop < 30; stop += passes == 1 ? 7 : 14) { /* in every stage */
            assert_int_equal(run(&b, &n, packed, passes, stop, state_path), DMC_OK);
            assert_memory_equal(a, b, n * sizeof *a);
            dmc_free(b);
        }
        dmc_free(a);
    }
    unlink(state_path);
}

static bool note_loss(const dmc_train_report *r, void *user)
{
    double *sum = user;
    *sum += r->step > 80 ? r->ce : 0; /* over the last twenty steps */
    return true;
}

/* A short run in bf16 learns what one in float32 learns, and its state does not go on in float32. */
static void test_bf16_run(void **state)
{
    (void)state;
    double sum[2] = {0, 0};
    dmc_config c = tiny_config(0, 4);
    c.policy = dmc_policy_none();
    dmc_corpus text = make_corpus(4000, c.n_vocab);
    dmc_checkpoint *m;
    dmc_trainer *t;
    dmc_train_options o;
    dmc_recipe_train(&o, &c, 48, 4, 100, false);
    o.save_seconds = 0;
    for (int math = 0; math < 2; math++) {
        assert_int_equal(dmc_checkpoint_create(&m, &c), DMC_OK);
        dmc_init_weights(m, 4);
        o.math = (dmc_math)math;
        assert_int_equal(dmc_trainer_create(&t, m, &text, NULL, &o, &cpu), DMC_OK);
        assert_int_equal(dmc_trainer_run(t, state_path, note_loss, &sum[math]), DMC_OK);
        assert_int_equal(dmc_trainer_resume(t, state_path), DMC_OK);
        dmc_trainer_close(t);
        dmc_checkpoint_close(m);
    }
    assert_true(sum[0] < 20 * 4.2); /* it has learned: log 97 is 4.57 */
    assert_true(sum[0] != sum[1] && fabs(sum[1] / sum[0] - 1) < 0.01);
    assert_int_equal(dmc_checkpoint_create(&m, &c), DMC_OK);
    dmc_init_weights(m, 4);
    o.math = DMC_MATH_F32;
    assert_int_equal(dmc_trainer_create(&t, m, &text, NULL, &o, &cpu), DMC_OK);
    assert_int_equal(dmc_trainer_resume(t, state_path), DMC_ERR_ARG);
    dmc_trainer_close(t);
    dmc_checkpoint_close(m);
    dmc_corpus_free(&text);
    unlink(state_path);
}

/* One step of the optimiser: the rows that decide at a rate of their own, the same bits for any number of threads. */
static void test_optimiser(void **state)
{
    (void)state;
    small *s = make(0, 0, 15, false, true, 8);
    size_t n = s->l.n_floats;
    float *a[4], *b[3]; /* g, w, m, v; w, m, v again */
    dmc_adamw o = dmc_adamw_default();
    o.decision_scale = 3, o.eps = 0, o.weight_decay = 0, o.clip = 0;
    for (int i = 0; i < 4; i++) a[i] = dmc_calloc(n, sizeof **a);
    for (int i = 0; i < 3; i++) b[i] = dmc_calloc(n, sizeof **b);
    double squares = 0;
    for (int i = 0; i < s->l.n_params; i++) {
        const dmc_param *p = &s->l.params[i];
        for (int64_t j = 0; j < p->rows * p->cols; j++) {
            float g = (float)dmc_normal(5, (uint64_t)i, (uint64_t)j);
            a[0][p->at + (size_t)j] = g;
            squares += (double)g * g;
        }
    }
    dmc_cpu one = {.kernels = cpu.kernels};
    double norm = dmc_adamw_step(&o, &s->l, &cpu, 15, a[1], a[0], a[2], a[3], 1, 1e-2f);
    assert_true(fabs(norm / sqrt(squares) - 1) < 1e-9);
    assert_true(dmc_adamw_step(&o, &s->l, &one, 15, b[0], a[0], b[1], b[2], 1, 1e-2f) == norm);
    for (int i = 0; i < 3; i++) assert_memory_equal(a[i + 1], b[i], n * sizeof **a);
    for (int i = 0; i < s->l.n_params; i++) { /* the first step moves each weight by the rate, against its gradient */
        const dmc_param *p = &s->l.params[i];
        for (int64_t j = 0; j < p->rows * p->cols; j++) {
            size_t at = p->at + (size_t)j;
            float rate = p->period && j / p->cols % s->c.head_dim == 15 ? 3e-2f : 1e-2f;
            assert_true(fabsf(a[1][at] + (a[0][at] > 0 ? rate : -rate)) < 1e-5f);
        }
    }
    for (int i = 0; i < 4; i++) dmc_free(a[i]);
    for (int i = 0; i < 3; i++) dmc_free(b[i]);
    small_drop(s);
}

static void test_step_bench(void **state)
{
    (void)state;
    dmc_config c = tiny_config(0, 4);
    double seconds[3];
    size_t plain, merging, again;
    assert_int_equal(dmc_step_bench(&c, &cpu, DMC_MATH_F32, 2, 48, false, false, 3, seconds, &plain), DMC_OK);
    for (int i = 0; i < 3; i++) assert_true(seconds[i] > 0);
    assert_int_equal(dmc_step_bench(&c, &cpu, DMC_MATH_BF16, 2, 48, true, false, 3, seconds, &merging), DMC_OK);
    assert_int_equal(dmc_step_bench(&c, &cpu, DMC_MATH_F32, 2, 48, true, true, 3, seconds, &again), DMC_OK);
    assert_true(again < merging && plain < merging);
    c.policy = dmc_policy_none();
    assert_int_equal(dmc_step_bench(&c, &cpu, DMC_MATH_F32, 2, 48, true, false, 3, seconds, &plain), DMC_ERR_ARG);
}

static void test_state_files_are_checked(void **state)
{
    (void)state;
    dmc_config c = tiny_config(0, 4);
    c.policy = dmc_policy_none();
    dmc_corpus text = make_corpus(4000, c.n_vocab);
    dmc_train_options o = run_options(&c, true);
    dmc_checkpoint *m;
    dmc_trainer *t;
    float *weights;
    size_t n;
    assert_int_equal(run(&weights, &n, true, 1, 5, state_path), DMC_OK);
    dmc_free(weights);
    assert_int_equal(dmc_checkpoint_create(&m, &c), DMC_OK);
    dmc_init_weights(m, 5); /* another model */
    assert_int_equal(dmc_trainer_create(&t, m, &text, NULL, &o, &cpu), DMC_OK);
    assert_int_equal(dmc_trainer_resume(t, state_path), DMC_ERR_ARG);
    assert_int_equal(dmc_trainer_resume(t, "no such file"), DMC_ERR_IO);
    dmc_mapping whole;
    assert_int_equal(dmc_map_file(&whole, state_path), DMC_OK);
    for (size_t cut = 0; cut < 400; cut += 13) { /* cut short, then with one byte changed */
        FILE *f = fopen("test_train.bad", "wb");
        fwrite(whole.data, 1, cut * whole.size / 400, f);
        fclose(f);
        assert_int_equal(dmc_trainer_resume(t, "test_train.bad"), DMC_ERR_FORMAT);
        f = fopen("test_train.bad", "wb");
        for (size_t i = 0; i < whole.size; i++)
            fputc(whole.data[i] ^ (i == cut * (whole.size - 1) / 400 ? 0x55 : 0), f);
        fclose(f);
        assert_int_equal(dmc_trainer_resume(t, "test_train.bad"), DMC_ERR_FORMAT);
    }
    dmc_unmap(&whole);
    unlink("test_train.bad");
    unlink(state_path);
    dmc_trainer_close(t);
    dmc_checkpoint_close(m);
    dmc_corpus_free(&text);
}

static void test_faults(void **state)
{
    (void)state;
    float *weights, *clean;
    size_t n;
    for (int io = 0; io < 2; io++) {
        void (*inject)(long) = io ? dmc_fault_io : dmc_fault_memory;
        long (*count)(void) = io ? dmc_fault_io_count : dmc_fault_memory_count;
        inject(0);
        assert_int_equal(run(&clean, &n, true, 1, 3, state_path), DMC_OK);
        enum { FAULTS = DMC_SANITIZED ? 30 : 150 }; /* spread over all calls; sanitizers are slow */
        long calls = count(), step = calls > FAULTS ? calls / FAULTS : 1;
        /* the test's own corpora take the first four allocations and do not expect NULL */
        for (long k = io ? 1 : 5; k <= calls; k += step) {
            inject(k);
            dmc_status s = run(&weights, &n, true, 1, 3, state_path);
            inject(0);
            if (s != DMC_OK) {
                assert_true(s == (io ? DMC_ERR_IO : DMC_ERR_MEMORY));
                continue;
            }
            assert_memory_equal(weights, clean, n * sizeof *clean); /* what failed did not matter */
            dmc_free(weights);
        }
        dmc_free(clean);
    }
    unlink(state_path);
}

static void test_options_are_checked(void **state)
{
    (void)state;
    dmc_config c = tiny_config(0, 0);
    c.policy = dmc_policy_none();
    dmc_corpus text = make_corpus(4000, c.n_vocab);
    dmc_checkpoint *m;
    dmc_trainer *t;
    assert_int_equal(dmc_checkpoint_create(&m, &c), DMC_OK);
    for (int i = 0; i < 6; i++) {
        dmc_train_options o = run_options(&c, true);
        if (i == 0) o.ctx = 1;
        if (i == 1) o.ctx = c.n_ctx + 1;
        if (i == 2) o.batch = 0;
        if (i == 3) o.policy.delay = 40; /* more than CR 2 of 48 leaves */
        if (i == 4) o.policy.window = 1000;
        if (i == 5) o.policy.cr = 0.5f;
        assert_int_equal(dmc_trainer_create(&t, m, &text, NULL, &o, &cpu), DMC_ERR_ARG);
        assert_null(t);
    }
    dmc_train_options o = run_options(&c, true);
    o.ctx = 500, o.policy.delay = 4;
    dmc_corpus tiny = make_corpus(100, c.n_vocab);
    assert_int_equal(dmc_trainer_create(&t, m, &tiny, NULL, &o, &cpu), DMC_ERR_ARG);
    dmc_corpus_free(&tiny);
    dmc_corpus_free(&text);
    dmc_checkpoint_close(m);
}

static bool count_warnings(const dmc_train_report *r, void *user)
{
    if (r->warning) ++*(int *)user;
    return true;
}

/* A loss that explodes ends the run with advice, and a CR that does not rise is said. */
static void test_trouble_is_told(void **state)
{
    (void)state;
    dmc_config c = tiny_config(0, 0);
    c.policy = dmc_policy_none();
    dmc_corpus text = make_corpus(4000, c.n_vocab);
    dmc_checkpoint *m;
    dmc_trainer *t;
    assert_int_equal(dmc_checkpoint_create(&m, &c), DMC_OK);
    dmc_init_weights(m, 4);
    dmc_train_options o = run_options(&c, true);
    o.lr = 1e30f;
    assert_int_equal(dmc_trainer_create(&t, m, &text, NULL, &o, &cpu), DMC_OK);
    assert_int_equal(dmc_trainer_run(t, NULL, NULL, NULL), DMC_ERR_NUMERIC);
    assert_non_null(strstr(dmc_last_error(), "--lr"));
    dmc_trainer_close(t);
    o = run_options(&c, true);
    o.policy.offset = 80; /* nothing will ever merge */
    o.steer = 0;
    o.steps_ramp = 20, o.steps_hold = 120, o.policy.cr = 4;
    int warnings = 0;
    dmc_init_weights(m, 4);
    assert_int_equal(dmc_trainer_create(&t, m, &text, NULL, &o, &cpu), DMC_OK);
    assert_int_equal(dmc_trainer_run(t, NULL, count_warnings, &warnings), DMC_OK);
    assert_true(warnings > 0);
    dmc_trainer_close(t);
    dmc_corpus_free(&text);
    dmc_checkpoint_close(m);
}

static void test_samples(void **state)
{
    (void)state;
    dmc_corpus c = make_corpus(5000, 97), tail;
    dmc_sampling s;
    int32_t ids[64], length;
    for (int packed = 0; packed < 2; packed++) {
        assert_int_equal(dmc_sampling_create(&s, &c, 64, packed, 3), DMC_OK);
        int seen[200] = {0};
        for (uint64_t i = 0; i < 3 * s.n_samples; i++) {
            dmc_sampling_get(&s, i, ids, &length);
            assert_true(length == (packed ? 64 : 50));
            if (packed) assert_int_equal(ids[0], 1);
            seen[s.order[i % s.n_samples]]++;
        }
        for (size_t i = 0; i < s.n_samples; i++) assert_int_equal(seen[i], 3); /* each sample once an epoch */
        dmc_sampling_free(&s);
    }
    assert_int_equal(dmc_corpus_split(&c, &tail, 0.05), DMC_OK);
    assert_int_equal(c.n + tail.n, 5000);
    assert_true(tail.n == 250 && tail.n_docs == 5 && c.n_docs == 95 && c.doc[95] == c.n && tail.doc[5] == tail.n);
    dmc_corpus_free(&tail);
    c.n_docs = 2, c.doc[1] = 100, c.doc[2] = c.n; /* a small document and a large one: the large one is cut */
    assert_int_equal(dmc_corpus_split(&c, &tail, 0.1), DMC_OK);
    assert_true(tail.n == 475 && tail.n_docs == 1 && c.n == 4275 && c.n_docs == 2 && c.doc[2] == c.n);
    dmc_corpus_free(&tail);
    dmc_corpus_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_gradients_distillation),
        cmocka_unit_test(test_gradients_repeat),
        cmocka_unit_test(test_gradients_accumulate),
        cmocka_unit_test(test_runs_repeat_and_resume),
        cmocka_unit_test(test_bf16_run),
        cmocka_unit_test(test_optimiser),
        cmocka_unit_test(test_step_bench),
        cmocka_unit_test(test_state_files_are_checked),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_options_are_checked),
        cmocka_unit_test(test_trouble_is_told),
        cmocka_unit_test(test_samples),
    };
    cpu.kernels = dmc_kernels_pick(0);
    if (dmc_threads_create(&cpu.threads, 2, false) != DMC_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    dmc_threads_close(cpu.threads);
    return failed;
}
