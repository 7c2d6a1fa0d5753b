/* Engine and sessions: real models against their golden references; batches, forks, saved states, full pools and failing calls. */
#include "tiny_model.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#ifndef DMC_SHARED_DATA
#define DMC_SHARED_DATA DMC_SOURCE_DIR "/../shared/data"
#endif

#define DATA(name) DMC_SHARED_DATA "/" name
#define STORIES_BIN DATA("weights-stories260K/stories260K.bin")
#define STORIES_GGUF DATA("weights-stories260K-gguf/stories260K.gguf")
#define TINYSTORIES DATA("weights-tinystories-656k")
#define BABYLLAMA DATA("weights-babyllama-tok105/babyllama-tok105.bin")

#define assert_ok(call)                                                                           \
    do {                                                                                          \
        dmc_status ok_ = (call);                                                                  \
        if (ok_ != DMC_OK) fail_msg("%s: %s: %s", #call, dmc_status_text(ok_), dmc_last_error()); \
    } while (0)

static void need(const char *path)
{
    if (dmc_exists(path)) return;
    print_message("%s is not there\n", path);
    skip();
}

static float *floats(size_t n)
{
    float *p = dmc_calloc(n, sizeof *p);
    assert_non_null(p);
    return p;
}

static int n_vocab(const dmc_engine *e) { return dmc_engine_info(e)->n_vocab; }

static int32_t best(const float *logits, int n)
{
    int32_t b = 0;
    for (int i = 1; i < n; i++)
        if (logits[i] > logits[b]) b = i;
    return b;
}

/* ---- real models ---- */

static json_t *golden(const char *name)
{
    char path[512];
    json_error_t error;
    snprintf(path, sizeof path, "%s/%s", DATA("golden-reference"), name);
    json_t *j = json_load_file(path, 0, &error);
    assert_non_null(j);
    return j;
}

static size_t ids_of(const json_t *array, int32_t *ids)
{
    for (size_t i = 0; i < json_array_size(array); i++) ids[i] = (int32_t)json_integer_value(json_array_get(array, i));
    return json_array_size(array);
}

static double logsumexp(const float *x, int n)
{
    double top = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++) top = fmax(top, x[i]);
    for (int i = 0; i < n; i++) sum += exp(x[i] - top);
    return top + log(sum);
}

static void check_greedy(const char *model, const char *reference)
{
    need(model);
    json_t *g = golden(reference), *per = json_object_get(g, "per_position");
    dmc_engine *e;
    dmc_session *s, *all;
    int32_t ids[1024], prompt[64];
    size_t n_prompt, n = ids_of(json_object_get(g, "greedy_ids"), ids), n_fed = json_array_size(per), got;
    const char *text = json_string_value(json_object_get(g, "prompt"));
    assert_ok(dmc_engine_open(&e, model, NULL));
    assert_ok(dmc_encode(e, text, strlen(text), true, false, prompt, 64, &got));
    n_prompt = ids_of(json_object_get(g, "prompt_ids"), ids + 512);
    assert_int_equal(got, n_prompt);
    assert_memory_equal(prompt, ids + 512, n_prompt * sizeof *prompt);

    int V = n_vocab(e);
    float *logits = floats((size_t)V), *together = floats(n_fed * (size_t)V);
    assert_ok(dmc_session_create(&s, e, NULL));
    assert_ok(dmc_session_create(&all, e, NULL));
    assert_ok(dmc_session_feed(all, ids, n_fed, together, true));
    for (size_t t = 0; t < n_fed; t++) {
        const json_t *p = json_array_get(per, t), *top = json_object_get(p, "top5");
        assert_int_equal(ids[t], json_integer_value(json_object_get(p, "in")));
        assert_ok(dmc_session_feed(s, &ids[t], 1, logits, false));
        assert_memory_equal(logits, together + t * (size_t)V, (size_t)V * sizeof(float));
        for (size_t i = 0; i < 5; i++) {
            const json_t *pair = json_array_get(top, i);
            double want = json_number_value(json_array_get(pair, 1));
            assert_true(fabs(logits[json_integer_value(json_array_get(pair, 0))] - want) < 1e-3);
        }
        assert_true(fabs(logsumexp(logits, V) - json_number_value(json_object_get(p, "logsumexp"))) < 1e-3);
        if (t + 1 >= n_prompt && t + 1 < n) assert_int_equal(best(logits, V), ids[t + 1]);
    }
    assert_true(dmc_session_stats(s).cr == 1);
    dmc_session_close(s);
    dmc_session_close(all);
    dmc_engine_close(e);
    dmc_free(logits);
    dmc_free(together);
    json_decref(g);
}

static void check_nll(const char *model, const char *reference)
{
    need(model);
    json_t *g = golden(reference), *sequences = json_object_get(g, "sequences");
    dmc_engine *e;
    double sum = 0;
    int tokens = 0;
    assert_ok(dmc_engine_open(&e, model, NULL));
    int V = n_vocab(e);
    float *logits = floats(512 * (size_t)V);
    for (size_t i = 0; i < json_array_size(sequences); i++) {
        const json_t *q = json_array_get(sequences, i);
        const char *text = json_string_value(json_object_get(q, "text"));
        int32_t ids[512], want[512];
        size_t n, n_want = ids_of(json_object_get(q, "ids"), want);
        assert_ok(dmc_encode(e, text, strlen(text), true, false, ids, 512, &n));
        assert_int_equal(n, n_want);
        assert_memory_equal(ids, want, n * sizeof *ids);
        dmc_session *s;
        assert_ok(dmc_session_create(&s, e, NULL));
        assert_ok(dmc_session_feed(s, ids, n, logits, true));
        double nll = 0;
        for (size_t t = 0; t + 1 < n; t++)
            nll += logsumexp(logits + t * (size_t)V, V) - logits[t * (size_t)V + (size_t)ids[t + 1]];
        double expected = json_number_value(json_object_get(q, "nll_sum"));
        assert_true(fabs(nll - expected) < 1e-4 * expected);
        sum += nll;
        tokens += (int)n - 1;
        dmc_session_close(s);
    }
    assert_true(fabs(sum / tokens - json_number_value(json_object_get(g, "mean_nll"))) < 1e-4 * sum / tokens);
    dmc_engine_close(e);
    dmc_free(logits);
    json_decref(g);
}

static void test_greedy_bin(void **state) { (void)state, check_greedy(STORIES_BIN, "stories260K_greedy.json"); }
static void test_greedy_gguf(void **state) { (void)state, check_greedy(STORIES_GGUF, "stories260K_greedy.json"); }
static void test_greedy_hf(void **state) { (void)state, check_greedy(TINYSTORIES, "tinystories-656k_greedy.json"); }
static void test_nll_bin(void **state) { (void)state, check_nll(STORIES_BIN, "stories260K_nll.json"); }
static void test_nll_gguf(void **state) { (void)state, check_nll(STORIES_GGUF, "stories260K_nll.json"); }
static void test_nll_hf(void **state) { (void)state, check_nll(TINYSTORIES, "tinystories-656k_nll.json"); }

/* Greedy text up to the end of the context, the last token not fed, as the program that wrote the reference does. */
static void check_text(const char *model, const char *prompt, int steps, const char *reference)
{
    need(model);
    char path[512], text[4096], piece[256];
    dmc_mapping m;
    dmc_engine *e;
    dmc_session *s;
    dmc_detok d = {0};
    int32_t ids[512];
    size_t n, n_text = 0, n_piece;
    snprintf(path, sizeof path, "%s/%s", DATA("golden-reference"), reference);
    assert_ok(dmc_map_file(&m, path));
    assert_ok(dmc_engine_open(&e, model, NULL));
    assert_ok(dmc_session_create(&s, e, NULL));
    assert_ok(dmc_encode(e, prompt, strlen(prompt), true, false, ids, 512, &n));
    float *logits = floats((size_t)n_vocab(e));
    for (int t = 0; t <= steps; t++) {
        if ((size_t)t >= n) {
            ids[n++] = best(logits, n_vocab(e));
            if (dmc_token_is_end(e, ids[t])) break;
        }
        assert_ok(dmc_detok_push(e, &d, ids[t], piece, sizeof piece, &n_piece));
        memcpy(text + n_text, piece, n_piece);
        n_text += n_piece;
        if (t < steps) assert_ok(dmc_session_feed(s, &ids[t], 1, logits, false));
    }
    size_t want = m.size;
    while (want && m.data[want - 1] == '\n') want--;
    assert_int_equal(n_text, want);
    assert_memory_equal(text, m.data, want);
    dmc_free(logits);
    dmc_session_close(s);
    dmc_engine_close(e);
    dmc_unmap(&m);
}

static void test_text_babyllama(void **state)
{
    (void)state;
    check_text(BABYLLAMA, "Once upon a time", 256, "babyllama-tok105_run.c_t0.0.txt");
}

static void test_text_stories(void **state)
{
    (void)state, check_text(STORIES_BIN, "", 256, "stories260K_run.c_t0.0.txt");
}

/* ---- small models in memory ---- */

typedef struct {
    int window, delay;
} variant;
static const variant variants[] = {{0, 0}, {12, 0}, {0, 9}, {12, 30}};
enum { N_VARIANTS = sizeof variants / sizeof *variants };

static dmc_engine *tiny(variant v, size_t pool_bytes)
{
    dmc_engine *e;
    dmc_config c = tiny_config(v.window, v.delay);
    assert_ok(tiny_engine(&e, &c, 3, pool_bytes));
    return e;
}

static dmc_session *new_session(dmc_engine *e, int chunk)
{
    dmc_session *s;
    dmc_session_options o = dmc_session_options_default();
    o.chunk = chunk;
    assert_ok(dmc_session_create(&s, e, &o));
    return s;
}

static void random_ids(int32_t *ids, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)(dmc_hash64(seed, 0, i) % 97);
}

static void assert_same(const dmc_session *a, const dmc_session *b)
{
    const dmc_info *f = dmc_engine_info(a->e);
    assert_int_equal(dmc_session_stats(a).n_tokens, dmc_session_stats(b).n_tokens);
    for (int il = 0; il < f->n_layers; il++) {
        for (int ih = 0; ih < f->n_kv_heads; ih++) {
            assert_int_equal(dmc_session_head_slots(a, il, ih), dmc_session_head_slots(b, il, ih));
            for (int64_t i = 0; i < dmc_session_head_slots(a, il, ih); i++) {
                float ka[f->head_dim], va[f->head_dim], kb[f->head_dim], vb[f->head_dim];
                dmc_seq_slot(a->seq, il, ih, i, ka, va);
                dmc_seq_slot(b->seq, il, ih, i, kb, vb);
                assert_memory_equal(ka, kb, sizeof ka);
                assert_memory_equal(va, vb, sizeof va);
            }
        }
    }
}

static void test_chunks(void **state)
{
    (void)state;
    enum { T = 300, V = 97 };
    int32_t ids[T];
    random_ids(ids, T, 1);
    for (int i = 0; i < N_VARIANTS; i++) {
        dmc_engine *e = tiny(variants[i], 0);
        float *want = floats(T * V), *got = floats(T * V);
        dmc_session *ref = new_session(e, 512);
        assert_ok(dmc_session_feed(ref, ids, T, want, true));
        dmc_stats st = dmc_session_stats(ref);
        assert_true(st.cr > 1.2 && st.kv_bytes < 2 * st.kv_bytes_uncompressed);
        assert_int_equal(st.n_slots_uncompressed, T * 9);
        for (int chunk = 1; chunk <= 128; chunk = chunk * 3 + 1) {
            dmc_session *s = new_session(e, chunk);
            assert_ok(dmc_session_feed(s, ids, T, got, true));
            assert_memory_equal(want, got, T * V * sizeof(float));
            assert_same(ref, s);
            dmc_session_close(s);
        }
        dmc_session_close(ref);
        dmc_engine_close(e);
        dmc_free(want);
        dmc_free(got);
    }
}

static void test_number_of_threads(void **state)
{
    (void)state;
    enum { T = 200, V = 97 };
    int32_t ids[T];
    float *want = floats(T * V), *got = floats(T * V);
    random_ids(ids, T, 1);
    for (int n = 1; n <= 5; n++) {
        dmc_engine *e;
        dmc_engine_options o = dmc_engine_options_default();
        dmc_config c = tiny_config(12, 9);
        o.n_threads = n;
        assert_ok(tiny_engine_with(&e, &c, 3, &o));
        dmc_session *s = new_session(e, 0);
        assert_ok(dmc_session_feed(s, ids, T, n == 1 ? want : got, true));
        if (n > 1) assert_memory_equal(want, got, T * V * sizeof(float));
        dmc_session_close(s);
        dmc_engine_close(e);
    }
    dmc_free(want);
    dmc_free(got);
}

/* Prompts of many lengths and single tokens in one batch: what each session gets is what it would get alone. */
static void test_batch(void **state)
{
    (void)state;
    enum { B = 9, V = 97 };
    for (int i = 0; i < N_VARIANTS; i++) {
        dmc_engine *e = tiny(variants[i], 0);
        dmc_session *batch[B], *alone[B];
        float *got = floats(B * V), *want = floats(B * V);
        int32_t ids[B * 300];
        size_t n[B];
        dmc_status results[B];
        for (int b = 0; b < B; b++) batch[b] = new_session(e, b % 2 ? 0 : 7), alone[b] = new_session(e, 0);
        for (int round = 0; round < 6; round++) {
            size_t total = 0;
            for (int b = 0; b < B; b++) {
                n[b] = round % 2 ? 1 : dmc_hash64(5, (uint64_t)round, (uint64_t)b) % 90;
                if (round == 0 && b == 4) n[b] = 250;
                random_ids(ids + total, n[b], (uint64_t)(round * B + b));
                if (n[b]) assert_ok(dmc_session_feed(alone[b], ids + total, n[b], want + b * V, false));
                total += n[b];
            }
            assert_ok(dmc_batch_feed(batch, B, ids, n, got, results));
            for (int b = 0; b < B; b++) {
                assert_int_equal(results[b], DMC_OK);
                assert_memory_equal(got + b * V, want + b * V, V * sizeof(float));
                assert_same(batch[b], alone[b]);
            }
        }
        for (int b = 0; b < B; b++) dmc_session_close(batch[b]), dmc_session_close(alone[b]);
        dmc_engine_close(e);
        dmc_free(got);
        dmc_free(want);
    }
}

static void logits_uncompressed(dmc_engine *e, const int32_t *ids, size_t n, float *logits)
{
    dmc_session *s;
    dmc_session_options o = dmc_session_options_default();
    o.override_policy = true; /* with 'none' */
    assert_ok(dmc_session_create(&s, e, &o));
    assert_ok(dmc_session_feed(s, ids, n, logits, false));
    dmc_session_close(s);
}

/* Weights of every type, packed: with F32 slots one chunk, many chunks, single tokens and a batch give the same bits, on every tier, near those of the exact ones. */
static void test_packed_weights(void **state)
{
    (void)state;
    enum { V = 97, N = 70 };
    static const dmc_dtype types[] = {DMC_F32, DMC_BF16, DMC_Q8_0, DMC_Q4_0, DMC_Q4_K, DMC_Q5_K, DMC_Q6_K};
    static const double near[] = {0.02, 0.02, 0.03, 0.6, 0.6, 0.3, 0.15};
    const char *path = "/tmp/dmc-test-packed.gguf";
    dmc_config config = tiny_config(0, 3);
    int32_t ids[N];
    float whole[V], other[V], exact[V];
    config.n_embd = 256, config.n_ff = 512, config.n_layers = 2;
    random_ids(ids, N, 3);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        dmc_engine *plain;
        assert_ok(tiny_engine(&plain, &config, 11, 0));
        for (size_t k = 0; k < plain->checkpoint->n_tensors;
             k++) { /* wide layers: smaller weights, or attention is all or nothing */
            const dmc_tensor *t = &plain->checkpoint->tensors[k];
            float *w = (float *)(uintptr_t)t->data;
            for (size_t j = 0; t->n_dims == 2 && j < t->bytes / sizeof *w; j++) w[j] *= 0.25f;
        }
        remove(path);
        assert_ok(dmc_write_gguf(path, plain->checkpoint, NULL, types[i]));
        logits_uncompressed(plain, ids, N, exact);
        dmc_engine_close(plain);
        for (int tier = 1; tier <= 4; tier++) {
            if (!dmc_kernels_pick(tier)) continue;
            dmc_engine *e;
            dmc_engine_options o = dmc_engine_options_default();
            o.tier = tier, o.kv = DMC_KV_F32, o.math = DMC_MATH_BF16, o.n_threads = 2, o.same_bits = true;
            assert_ok(dmc_engine_open(&e, path, &o));
            assert_non_null(e->model.panels);
            dmc_session *all = new_session(e, 0), *cut = new_session(e, 7), *single = new_session(e, 0),
                        *batch[2] = {new_session(e, 0), new_session(e, 0)};
            assert_ok(dmc_session_feed(all, ids, N, whole, false));
            assert_ok(dmc_session_feed(cut, ids, N, other, false));
            assert_memory_equal(whole, other, sizeof whole);
            for (int t = 0; t < N; t++) assert_ok(dmc_session_feed(single, ids + t, 1, other, false));
            assert_memory_equal(whole, other, sizeof whole);
            int32_t both[2 * N];
            float two[2 * V];
            dmc_status results[2];
            memcpy(both, ids, sizeof ids), memcpy(both + N, ids, sizeof ids);
            assert_ok(dmc_batch_feed(batch, 2, both, (size_t[]){N, N}, two, results));
            assert_memory_equal(whole, two, sizeof whole);
            assert_memory_equal(whole, two + V, sizeof whole);
            double top = 0, worst = 0; /* a merge more or less would hide what rounding does */
            logits_uncompressed(e, ids, N, other);
            for (int v = 0; v < V; v++) {
                assert_true(isfinite(whole[v]));
                top = fmax(top, fabs((double)exact[v]));
                worst = fmax(worst, fabs((double)exact[v] - (double)other[v]));
            }
            if (!(worst > 0 && worst < near[i] * top))
                fail_msg("%s, tier %d: %g of %g", dmc_dtype_name(types[i]), tier, worst, top);
            dmc_session_close(all), dmc_session_close(cut), dmc_session_close(single);
            dmc_session_close(batch[0]), dmc_session_close(batch[1]);
            dmc_engine_close(e);
        }
    }
    remove(path);
}

/* Sessions whose slots are in 16, 8 and 4 bits: saved and restored with the same bits, and not into slots of another type. */
static void test_slot_types(void **state)
{
    (void)state;
    enum { V = 97 };
    const char *path = "/tmp/dmc-test-slots.state";
    dmc_config config = tiny_config(12, 5);
    int32_t ids[300];
    float a[V], b[V], forced[V];
    random_ids(ids, 300, 4);
    for (int kv = DMC_KV_F32; kv < DMC_KV_COUNT; kv++) {
        dmc_engine *e, *other;
        dmc_engine_options o = dmc_engine_options_default();
        o.kv = (dmc_kv_type)kv;
        assert_ok(tiny_engine_with(&e, &config, 1, &o));
        o.kv = kv == DMC_KV_F32 ? DMC_KV_F16 : DMC_KV_F32;
        assert_ok(tiny_engine_with(&other, &config, 1, &o));
        assert_int_equal(dmc_engine_info(e)->kv, kv);
        dmc_session *s = new_session(e, 64), *r;
        assert_ok(dmc_session_feed(s, ids, 200, a, false));
        assert_ok(dmc_session_save(s, path));
        assert_ok(dmc_session_restore(&r, e, path));
        for (int t = 200; t < 220; t++) {
            assert_ok(dmc_session_feed(s, ids + t, 1, a, false));
            assert_ok(dmc_session_feed(r, ids + t, 1, b, false));
            assert_memory_equal(a, b, sizeof a);
        }
        dmc_session_close(r);
        assert_int_equal(dmc_session_restore(&r, other, path), DMC_ERR_ARG);
        assert_non_null(strstr(dmc_last_error(), dmc_kv_name((dmc_kv_type)kv)));
        dmc_stats st = dmc_session_stats(s);
        assert_true(st.kv_bytes_uncompressed ==
                    (size_t)(220 * 3 * 3) * 2 * dmc_kv_half_bytes((dmc_kv_type)kv, 16) / DMC_PAGE_SLOTS);
        dmc_session_options so = dmc_session_options_default();
        so.forced_cr = 3;
        assert_ok(dmc_session_create(&r, e, &so));
        assert_ok(dmc_session_feed(r, ids, 300, forced, false));
        assert_true(fabs(dmc_session_stats(r).cr - 3) < 0.3); /* the recent window counts */
        dmc_session_close(r);
        so.forced_cr = 0.5;
        assert_int_equal(dmc_session_create(&r, e, &so), DMC_ERR_ARG);
        dmc_session_close(s);
        dmc_engine_close(e), dmc_engine_close(other);
    }
    remove(path);
}

static void test_fork_rewind(void **state)
{
    (void)state;
    enum { V = 97 };
    int32_t a[200], b[200];
    random_ids(a, 200, 1);
    random_ids(b, 200, 2);
    for (int i = 0; i < N_VARIANTS; i++) {
        dmc_engine *e = tiny(variants[i], 0);
        float want[V], got[V];
        dmc_session *s = new_session(e, 0), *straight = new_session(e, 0), *fork, *empty = new_session(e, 0);
        assert_ok(dmc_session_feed(s, a, 77, NULL, false));
        assert_ok(dmc_session_fork(&fork, s));
        assert_ok(dmc_session_feed(s, b, 50, NULL, false));
        assert_ok(dmc_session_feed(fork, a + 77, 50, got, false));
        assert_ok(dmc_session_feed(straight, a, 127, want, false));
        assert_memory_equal(want, got, sizeof want);
        assert_same(fork, straight);
        assert_ok(dmc_session_rewind(s, fork));
        assert_ok(dmc_session_feed(s, b, 30, got, false));
        assert_ok(dmc_session_feed(straight, b, 30, want, false));
        assert_memory_equal(want, got, sizeof want);
        assert_ok(dmc_session_rewind(s, empty));
        assert_int_equal(dmc_session_stats(s).n_tokens, 0);
        assert_ok(dmc_session_feed(s, a, 127, got, false));
        assert_same(s, fork);
        dmc_engine *other = tiny(variants[i], 0);
        dmc_session *stranger = new_session(other, 0);
        assert_int_equal(dmc_session_rewind(s, stranger), DMC_ERR_ARG);
        dmc_session_close(stranger);
        dmc_engine_close(other);
        dmc_session_close(s);
        dmc_session_close(straight);
        dmc_session_close(fork);
        dmc_session_close(empty);
        dmc_engine_close(e);
    }
}

static void temporary(char path[64])
{
    strcpy(path, "/tmp/dmc-test-engine-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
}

static void test_save_restore(void **state)
{
    (void)state;
    enum { V = 97 };
    char path[64];
    int32_t ids[300];
    random_ids(ids, 300, 1);
    temporary(path);
    for (int i = 0; i <= N_VARIANTS; i++) {
        dmc_engine *e = tiny(variants[i % N_VARIANTS], 0);
        dmc_session_options o = dmc_session_options_default();
        o.override_policy = i == N_VARIANTS; /* once the vanilla cache */
        o.n_ctx = 400;
        for (size_t n = 0; n <= 250; n += 1 + n) {
            dmc_session *s, *r;
            float want[V], got[V];
            assert_ok(dmc_session_create(&s, e, &o));
            if (n) assert_ok(dmc_session_feed(s, ids, n, NULL, false));
            assert_ok(dmc_session_save(s, path));
            assert_ok(dmc_session_restore(&r, e, path));
            assert_same(s, r);
            assert_ok(dmc_session_feed(s, ids + n, 40, want, false));
            assert_ok(dmc_session_feed(r, ids + n, 40, got, false));
            assert_memory_equal(want, got, sizeof want);
            assert_int_equal(dmc_session_feed(r, ids, 300, NULL, false), n + 340 > 400 ? DMC_ERR_CONTEXT : DMC_OK);
            dmc_session_close(s);
            dmc_session_close(r);
        }
        dmc_engine_close(e);
    }
    unlink(path);
}

/* A byte that changes anywhere is found out; a file that ends early too; the file of another model, or of another version, is
 * refused. */
static void test_state_corruption(void **state)
{
    (void)state;
    char path[64];
    int32_t ids[70];
    random_ids(ids, 70, 1);
    temporary(path);
    for (int i = 0; i < N_VARIANTS; i++) {
        dmc_engine *e = tiny(variants[i], 0), *other;
        dmc_session *s = new_session(e, 0), *r = NULL;
        dmc_mapping m;
        assert_ok(dmc_session_feed(s, ids, 70, NULL, false));
        assert_ok(dmc_session_save(s, path));
        assert_ok(dmc_map_file(&m, path));
        uint8_t *bytes = dmc_malloc(m.size, 1);
        memcpy(bytes, m.data, m.size);
        size_t step = DMC_SANITIZED ? 211 : 37;
        for (size_t at = 0; at < m.size; at += at < 200 || at + 20 > m.size ? 1 : step) {
            bytes[at] ^= (uint8_t)(1 << at % 8);
            assert_int_not_equal(dmc_state_parse(&r, e, bytes, m.size, "test"), DMC_OK);
            assert_null(r);
            bytes[at] ^= (uint8_t)(1 << at % 8);
        }
        for (size_t n = 0; n < m.size; n += n < 200 ? 1 : 997)
            assert_int_not_equal(dmc_state_parse(&r, e, bytes, n, "test"), DMC_OK);
        assert_ok(dmc_state_parse(&r, e, bytes, m.size, "test"));
        assert_same(s, r);
        dmc_session_close(r);
        bytes[4]--; /* the version before */
        assert_int_equal(dmc_state_parse(&r, e, bytes, m.size, "test"), DMC_ERR_UNSUPPORTED);
        assert_non_null(strstr(dmc_last_error(), "saved in version"));
        dmc_config c = tiny_config(variants[i].window, variants[i].delay);
        assert_ok(tiny_engine(&other, &c, 4, 0));
        assert_int_equal(dmc_session_restore(&r, other, path), DMC_ERR_ARG);
        assert_non_null(strstr(dmc_last_error(), "another model"));
        dmc_engine_close(other);
        dmc_free(bytes);
        dmc_unmap(&m);
        dmc_session_close(s);
        dmc_engine_close(e);
    }
    unlink(path);
    dmc_session *r;
    dmc_engine *e = tiny(variants[0], 0);
    assert_int_equal(dmc_session_restore(&r, e, "/nowhere/state"), DMC_ERR_IO);
    dmc_session *s = new_session(e, 0);
    assert_int_equal(dmc_session_save(s, "/nowhere/state"), DMC_ERR_IO);
    dmc_session_close(s);
    dmc_engine_close(e);
}

/* A pool that cannot hold all: what does not fit is refused and left as it was, the others finish as if they were alone. */
static void test_pool_exhaustion(void **state)
{
    (void)state;
    enum { B = 4, V = 97 };
    const size_t page = 16 * 2 * 16 * sizeof(float);
    for (int i = 0; i < N_VARIANTS; i++) {
        dmc_engine *e = tiny(variants[i], 200 * page), *roomy = tiny(variants[i], 0);
        dmc_session *s[B], *alone[B];
        int32_t ids[B * 500];
        size_t n[B] = {300, 250, 400, 100};
        float got[B * V], want[B * V];
        dmc_status results[B];
        int refused = 0;
        random_ids(ids, sizeof ids / sizeof *ids, 9);
        for (int b = 0; b < B; b++) s[b] = new_session(e, 0), alone[b] = new_session(roomy, 0);
        assert_ok(dmc_session_feed(s[3], ids, 10, NULL, false));
        assert_ok(dmc_session_feed(alone[3], ids, 10, NULL, false));
        assert_ok(dmc_batch_feed(s, B, ids, n, got, results));
        for (size_t b = 0, at = 0; b < B; at += n[b++]) {
            if (results[b] == DMC_OK) {
                assert_ok(dmc_session_feed(alone[b], ids + at, n[b], want + b * V, false));
                assert_memory_equal(got + b * V, want + b * V, V * sizeof(float));
            } else {
                assert_int_equal(results[b], DMC_ERR_POOL);
                refused++;
            }
            assert_same(s[b], alone[b]);
        }
        assert_true(refused >= 1 && refused < B);
        dmc_stats st = dmc_session_stats(s[3]);
        assert_true(st.pool_bytes <= 200 * page);
        for (int b = 0; b < B; b++) /* a single feed is all or nothing, too */
            if (results[b] != DMC_OK)
                assert_int_equal(dmc_session_feed(s[b], ids, 400, NULL, false), DMC_ERR_POOL),
                    assert_same(s[b], alone[b]);
        for (int b = 0; b < B; b++) /* with the others gone there is room */
            if (results[b] == DMC_OK) dmc_session_close(s[b]), s[b] = NULL;
        for (int b = 0; b < B; b++) {
            if (s[b]) {
                assert_ok(dmc_session_feed(s[b], ids, 100, got, false));
                assert_ok(dmc_session_feed(alone[b], ids, 100, want, false));
                assert_memory_equal(got, want, V * sizeof(float));
            }
            dmc_session_close(s[b]);
            dmc_session_close(alone[b]);
        }
        assert_int_equal(dmc_pool_bytes_used(e->pool), 0);
        assert_true(dmc_pool_bytes_held(e->pool) <= 64 * page);
        dmc_engine_close(e);
        dmc_engine_close(roomy);
    }
}

static void test_token_loop_never_allocates(void **state)
{
    (void)state;
    enum { V = 97 };
    dmc_engine *e = tiny(variants[3], 0);
    dmc_session *s[2] = {new_session(e, 0), new_session(e, 0)};
    int32_t ids[600];
    float logits[2 * V];
    size_t n[2] = {1, 1};
    dmc_status results[2];
    random_ids(ids, 600, 1);
    assert_ok(dmc_session_feed(s[0], ids, 100, logits, false));
    assert_ok(dmc_session_feed(s[1], ids, 50, logits, false));
    assert_ok(dmc_batch_feed(s, 2, ids, n, logits, results));
    dmc_fault_memory(0);
    for (int t = 0; t < 200; t++) assert_ok(dmc_session_feed(s[0], &ids[t], 1, logits, false));
    for (int t = 0; t < 200; t++) assert_ok(dmc_batch_feed(s, 2, &ids[t], n, logits, results));
    assert_true(dmc_fault_memory_count() <= 9); /* slabs alone, one for 64 pages */
    dmc_session_close(s[0]);
    dmc_session_close(s[1]);
    dmc_engine_close(e);
}

static void test_wrong_calls(void **state)
{
    (void)state;
    dmc_engine *e = tiny(variants[0], 0), *other = tiny(variants[0], 0), *none;
    dmc_session *s = new_session(e, 0), *t = new_session(other, 0), *never = s;
    dmc_session_options o = dmc_session_options_default();
    int32_t ids[700] = {1, 2, 97};
    size_t n[2] = {1, 1};
    float *logits = floats(97);
    dmc_status results[2];
    assert_int_equal(dmc_session_feed(s, ids, 0, NULL, false), DMC_ERR_ARG);
    assert_int_equal(dmc_session_feed(s, ids, 3, NULL, false), DMC_ERR_ARG);
    ids[2] = -1;
    assert_int_equal(dmc_session_feed(s, ids, 3, NULL, false), DMC_ERR_ARG);
    ids[2] = 0;
    assert_int_equal(dmc_session_feed(s, ids, 601, NULL, false), DMC_ERR_CONTEXT);
    assert_non_null(strstr(dmc_last_error(), "context"));
    assert_int_equal(dmc_session_stats(s).n_tokens, 0);
    assert_int_equal(dmc_batch_feed((dmc_session *[]){s, s}, 2, ids, n, NULL, results), DMC_ERR_ARG);
    assert_int_equal(dmc_batch_feed((dmc_session *[]){s, t}, 2, ids, n, NULL, results), DMC_ERR_ARG);
    dmc_session *u = new_session(e, 0);
    ids[1] = 1000;
    assert_ok(dmc_batch_feed((dmc_session *[]){s, u}, 2, ids, n, NULL, results));
    assert_int_equal(results[0], DMC_OK);
    assert_int_equal(results[1], DMC_ERR_ARG);
    assert_int_equal(dmc_session_stats(s).n_tokens, 1);
    assert_int_equal(dmc_session_stats(u).n_tokens, 0);

    o.n_ctx = 601;
    assert_int_equal(dmc_session_create(&never, e, &o), DMC_ERR_ARG);
    assert_null(never);
    o.n_ctx = -1;
    assert_int_equal(dmc_session_create(&never, e, &o), DMC_ERR_ARG);
    o = dmc_session_options_default();
    o.chunk = 100000;
    assert_int_equal(dmc_session_create(&never, e, &o), DMC_ERR_ARG);
    o = (dmc_session_options){.override_policy = true, .policy = dmc_policy_default(DMC_POLICY_DMC, 16)};
    o.policy.channel = 16;
    assert_int_equal(dmc_session_create(&never, e, &o), DMC_ERR_ARG);

    size_t k;
    int32_t id;
    const char *bytes;
    dmc_detok d = {0};
    char out[16];
    assert_int_equal(dmc_encode(e, "x", 1, true, false, &id, 1, &k), DMC_ERR_UNSUPPORTED); /* no tokenizer */
    assert_non_null(strstr(dmc_last_error(), "tokenizer"));
    assert_int_equal(dmc_token_bytes(e, 1, &bytes, &k), DMC_ERR_UNSUPPORTED);
    assert_int_equal(dmc_detok_push(e, &d, 1, out, sizeof out, &k), DMC_ERR_UNSUPPORTED);
    assert_true(dmc_token_is_end(e, 2) && !dmc_token_is_end(e, 1) && !dmc_token_is_control(e, 1));

    dmc_engine_options eo = dmc_engine_options_default();
    assert_int_equal(dmc_engine_open(&none, "/nowhere", &eo), DMC_ERR_IO);
    assert_null(none);
    dmc_session_close(NULL);
    dmc_engine_close(NULL);
    dmc_session_close(s);
    dmc_session_close(t);
    dmc_session_close(u);
    dmc_engine_close(e);
    dmc_engine_close(other);
    dmc_free(logits);
}

/* ---- failing calls ---- */

static dmc_status load_and_run(const char *model, const char *path)
{
    dmc_engine *e = NULL;
    dmc_session *s = NULL, *f = NULL, *r = NULL;
    float *logits = NULL;
    int32_t ids[64];
    size_t n;
    dmc_status status;
    DMC_GOTO(dmc_engine_open(&e, model, NULL));
    DMC_GOTO(dmc_array(&logits, (size_t)n_vocab(e), sizeof *logits));
    DMC_GOTO(dmc_encode(e, "Once upon a time", 16, true, false, ids, 64, &n));
    dmc_session_options o = {.chunk = 2,
                             .override_policy = true,
                             .policy = dmc_policy_default(DMC_POLICY_DMC, dmc_engine_info(e)->head_dim)};
    DMC_GOTO(dmc_session_create(&s, e, &o));
    DMC_GOTO(dmc_session_feed(s, ids, n, logits, false));
    DMC_GOTO(dmc_session_fork(&f, s));
    DMC_GOTO(dmc_batch_feed((dmc_session *[]){s, f}, 2, ids, (const size_t[]){1, 1}, NULL, (dmc_status[]){0, 0}));
    DMC_GOTO(dmc_session_save(s, path));
    DMC_GOTO(dmc_session_restore(&r, e, path));
done:
    dmc_session_close(r);
    dmc_session_close(f);
    dmc_session_close(s);
    dmc_free(logits);
    dmc_engine_close(e);
    return status;
}

/* The k-th allocation or file call fails, for every k: an error comes back, nothing leaks (the sanitizer looks), no file stays. */
static void check_faults(const char *model, void (*set)(long), long (*count)(void))
{
    need(model);
    char path[64];
    temporary(path);
    set(0);
    assert_ok(load_and_run(model, path));
    long all = count(), step = all / (DMC_SANITIZED ? 40 : 150) + 1;
    assert_true(all > 5);
    for (long k = 1; k <= all; k += k < 40 || all - k < 60 ? 1 : step) {
        set(k);
        dmc_status status = load_and_run(model, path);
        long reached = count();
        set(0);
        if (status == DMC_OK && reached >= k)
            continue; /* a failure that does no harm: a directory that cannot be synced */
        /* a JSON parser that runs out of memory may see a syntax error */
        assert_true(status == DMC_ERR_MEMORY || status == DMC_ERR_IO ||
                    (status == DMC_ERR_FORMAT && set == dmc_fault_memory));
        assert_true(strlen(dmc_last_error()) > 5);
    }
    assert_ok(load_and_run(model, path));
    unlink(path);
}

static void test_memory_faults_bin(void **state)
{
    (void)state, check_faults(STORIES_BIN, dmc_fault_memory, dmc_fault_memory_count);
}
static void test_memory_faults_gguf(void **state)
{
    (void)state, check_faults(STORIES_GGUF, dmc_fault_memory, dmc_fault_memory_count);
}
static void test_memory_faults_hf(void **state)
{
    (void)state, check_faults(TINYSTORIES, dmc_fault_memory, dmc_fault_memory_count);
}
static void test_io_faults(void **state)
{
    (void)state;
    check_faults(STORIES_BIN, dmc_fault_io, dmc_fault_io_count);
    check_faults(TINYSTORIES, dmc_fault_io, dmc_fault_io_count);
}

/* ---- threads: sessions of one engine side by side ---- */

typedef struct {
    dmc_engine *e;
    float logits[97];
} worker;

static void *work(void *p)
{
    worker *w = p;
    int32_t ids[200];
    dmc_session *s, *f;
    random_ids(ids, 200, 1);
    if (dmc_session_create(&s, w->e, NULL) != DMC_OK) return NULL;
    dmc_session_feed(s, ids, 100, NULL, false);
    if (dmc_session_fork(&f, s) == DMC_OK) {
        dmc_session_feed(f, ids, 10, NULL, false);
        dmc_session_close(f);
    }
    for (int t = 100; t < 200; t++) dmc_session_feed(s, &ids[t], 1, w->logits, false);
    dmc_session_close(s);
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    enum { N = 4 };
    dmc_engine *e = tiny(variants[2], 0);
    pthread_t threads[N];
    worker w[N] = {{0}};
    for (int i = 0; i < N; i++) w[i].e = e, pthread_create(&threads[i], NULL, work, &w[i]);
    for (int i = 0; i < N; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < N; i++) assert_memory_equal(w[i].logits, w[0].logits, sizeof w[0].logits);
    assert_true(w[0].logits[0] != 0);
    assert_int_equal(dmc_pool_bytes_used(e->pool), 0);
    dmc_engine_close(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy_bin),
        cmocka_unit_test(test_greedy_gguf),
        cmocka_unit_test(test_greedy_hf),
        cmocka_unit_test(test_nll_bin),
        cmocka_unit_test(test_nll_gguf),
        cmocka_unit_test(test_nll_hf),
        cmocka_unit_test(test_text_babyllama),
        cmocka_unit_test(test_text_stories),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_number_of_threads),
        cmocka_unit_test(test_batch),
        cmocka_unit_test(test_packed_weights),
        cmocka_unit_test(test_slot_types),
        cmocka_unit_test(test_fork_rewind),
        cmocka_unit_test(test_save_restore),
        cmocka_unit_test(test_state_corruption),
        cmocka_unit_test(test_pool_exhaustion),
        cmocka_unit_test(test_token_loop_never_allocates),
        cmocka_unit_test(test_wrong_calls),
        cmocka_unit_test(test_memory_faults_bin),
        cmocka_unit_test(test_memory_faults_gguf),
        cmocka_unit_test(test_memory_faults_hf),
        cmocka_unit_test(test_io_faults),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
