/* Random models, the machine's limits, and the arithmetic of dmc bench. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/base.h"
#include "bench.h"
#include "format/random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- random checkpoints ---- */

static dmc_checkpoint *tiny(dmc_dtype type, uint64_t seed)
{
    dmc_checkpoint *c;
    assert_int_equal(dmc_checkpoint_random(&c, "tiny", type, seed, NULL), DMC_OK);
    return c;
}

static void test_random_repeats(void **state)
{
    (void)state;
    dmc_checkpoint *a = tiny(DMC_Q8_0, 1), *b = tiny(DMC_Q8_0, 1), *other = tiny(DMC_Q8_0, 2);
    bool differs = false;
    assert_int_equal(a->n_tensors, b->n_tensors);
    for (size_t i = 0; i < a->n_tensors; i++) {
        assert_string_equal(a->tensors[i].name, b->tensors[i].name);
        assert_memory_equal(a->tensors[i].data, b->tensors[i].data, a->tensors[i].bytes);
        if (a->tensors[i].n_dims == 2)
            differs |= memcmp(a->tensors[i].data, other->tensors[i].data, a->tensors[i].bytes) != 0;
    }
    assert_true(differs);
    dmc_checkpoint_close(a);
    dmc_checkpoint_close(b);
    dmc_checkpoint_close(other);
}

/* The standard deviation is the one promised, layers differ, norms are 1. */
static void check_values(const dmc_checkpoint *c)
{
    static float x[512 * 192];
    for (size_t i = 0; i < c->n_tensors; i++) {
        const dmc_tensor *t = &c->tensors[i];
        size_t n = (size_t)(t->shape[0] * t->shape[1]);
        double sum = 0, squares = 0;
        assert_true(n <= sizeof x / sizeof x[0]);
        dmc_decode_row(t->dtype, t->data, x, n);
        for (size_t j = 0; j < n; j++) {
            if (t->n_dims == 1) assert_true(x[j] == 1);
            sum += x[j];
            squares += (double)x[j] * x[j];
        }
        if (t->n_dims == 1) continue;
        double wanted = 0.6 / sqrt((double)t->shape[1]), got = sqrt(squares / (double)n);
        assert_true(fabs(sum / (double)n) < 0.1 * wanted);
        assert_true(got > 0.9 * wanted && got < 1.1 * wanted);
    }
}

static void test_random_types(void **state)
{
    (void)state;
    for (int type = 0; type < DMC_DTYPE_COUNT; type++) {
        dmc_checkpoint *c = tiny((dmc_dtype)type, 3);
        dmc_dtype wanted = 64 % dmc_dtype_block((dmc_dtype)type) ? DMC_Q8_0 : (dmc_dtype)type;
        assert_int_equal(dmc_checkpoint_find(c, "model.embed_tokens.weight")->dtype, wanted);
        assert_int_equal(dmc_checkpoint_find(c, "model.norm.weight")->dtype, DMC_F32);
        assert_memory_not_equal(dmc_checkpoint_find(c, "model.layers.0.mlp.up_proj.weight")->data,
                                dmc_checkpoint_find(c, "model.layers.1.mlp.up_proj.weight")->data, 64);
        check_values(c);
        dmc_checkpoint_close(c);
    }
}

static void test_random_refuses(void **state)
{
    (void)state;
    dmc_checkpoint *c;
    assert_int_equal(dmc_checkpoint_random(&c, "14m", DMC_F32, 0, NULL), DMC_ERR_ARG);
    assert_null(c);
    assert_non_null(strstr(dmc_last_error(), "14m"));
    assert_non_null(strstr(dmc_last_error(), "llama2-7b"));
    assert_int_equal(dmc_checkpoint_random(&c, "tiny", DMC_DTYPE_COUNT, 0, NULL), DMC_ERR_ARG);
}

static void test_random_out_of_memory(void **state)
{
    (void)state;
    for (long k = 1;; k++) {
        dmc_checkpoint *c;
        dmc_fault_memory(k);
        dmc_status s = dmc_checkpoint_random(&c, "tiny", DMC_Q8_0, 0, NULL);
        dmc_fault_memory(0);
        if (s == DMC_OK) {
            assert_true(k > 20);
            dmc_checkpoint_close(c);
            return;
        }
        assert_int_equal(s, DMC_ERR_MEMORY);
        assert_null(c);
    }
}

static void test_shapes(void **state)
{
    static const struct {
        const char *name;
        double params;
    } shapes[] = {{"15m", 15.2e6},       {"110m", 109.5e6},    {"1b", 1.1e9},         {"llama2-7b", 6.74e9},
                  {"llama3-8b", 8.03e9}, {"qwen2-7b", 7.62e9}, {"qwen3-0.6b", 596e6}, {"qwen3-8b", 8.19e9}};
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        dmc_config c;
        assert_int_equal(dmc_shape_config(&c, shapes[i].name), DMC_OK);
        assert_int_equal(dmc_config_check(&c, shapes[i].name), DMC_OK);
        assert_true(c.n_ctx >= 16384);
        double q = c.n_heads * c.head_dim, k = c.n_kv_heads * c.head_dim;
        double params = c.n_layers * (double)c.n_embd * (2 * q + 2 * k + 3.0 * c.n_ff) +
                        (c.tied ? 1.0 : 2.0) * c.n_vocab * c.n_embd;
        assert_true(fabs(params / shapes[i].params - 1) < 0.01);
    }
}

static void test_random_engine(void **state)
{
    static const char *const types[] = {"f32", "f16", "bf16", "q8_0", "q4_0"};
    (void)state;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        dmc_engine *e;
        dmc_session *s;
        float logits[512];
        int32_t ids[32];
        size_t n;
        assert_int_equal(dmc_engine_open_random(&e, "tiny", types[i], 5, NULL), DMC_OK);
        assert_int_equal(dmc_encode(e, "a bc", 4, true, false, ids, 32, &n), DMC_OK);
        assert_int_equal(ids[0], 1);
        assert_int_equal(dmc_session_create(&s, e, NULL), DMC_OK);
        assert_int_equal(dmc_session_feed(s, ids, n, logits, false), DMC_OK);
        double squares = 0;
        for (int j = 0; j < 512; j++) squares += (double)logits[j] * logits[j];
        assert_true(squares > 1 && squares < 1e4); /* finite, and not all the same */
        dmc_session_close(s);
        dmc_engine_close(e);
    }
    dmc_engine *e;
    assert_int_equal(dmc_engine_open_random(&e, "tiny", "q9", 0, NULL), DMC_ERR_ARG);
    assert_null(e);
}

/* ---- figures ---- */

static void test_summary(void **state)
{
    (void)state;
    double median, spread, odd[] = {5, 1, 3, 2, 4}, even[] = {4, 1, 2, 3}, one[] = {7};
    bench_summary(odd, 5, &median, &spread);
    assert_true(median == 3);
    assert_true(fabs(spread - 2.0 / 3) < 1e-12);
    bench_summary(even, 4, &median, &spread);
    assert_true(median == 2.5);
    assert_true(fabs(spread - 1.5 / 2.5) < 1e-12);
    bench_summary(one, 1, &median, &spread);
    assert_true(median == 7 && spread == 0);
}

static void test_floor(void **state)
{
    (void)state;
    dmc_limits l = {.read = 10, .read_streams = 20, .f32 = 100, .int8 = 1000, .bf16 = 500};
    bench_case c = {.work = BENCH_DECODE};
    bench_result r = {.type = "Q8_0", .kv = DMC_KV_F16, .bytes = 200, .products = 1000, .attention = 500};
    assert_true(bench_floor(&r, &c, &l) == 10); /* 200 bytes at 20 a second */
    r.products = 20000;
    assert_true(bench_floor(&r, &c, &l) == 20000 / 1000.0 + 500 / 500.0);
    r.kv = DMC_KV_F32;
    assert_true(bench_floor(&r, &c, &l) == 20000 / 1000.0 + 500 / 100.0);
    snprintf(r.type, sizeof r.type, "F32");
    assert_true(bench_floor(&r, &c, &l) == 20000 / 100.0 + 500 / 100.0);
    c.math = DMC_MATH_BF16;
    assert_true(bench_floor(&r, &c, &l) == 20000 / 500.0 + 500 / 100.0);
    l.bf16 = 0; /* no such unit */
    assert_true(bench_floor(&r, &c, &l) == 20000 / 100.0 + 500 / 100.0);
}

static void test_limits(void **state)
{
    static const int tiers[] = {1, 0};
    (void)state;
    for (size_t i = 0; i < sizeof tiers / sizeof tiers[0]; i++) {
        dmc_limits l;
        assert_int_equal(dmc_limits_measure(&l, dmc_kernels_pick(tiers[i]), NULL), DMC_OK);
        assert_true(l.read > 1e8 && l.read < 1e13);
        assert_true(l.read_streams > 1e8 && l.read_streams < 1e13);
        assert_true(l.f32 > 1e8 && l.f32 < 1e13);
        if (tiers[i] == 1) assert_true(l.int8 == 0 && l.bf16 == 0);
    }
    dmc_limits l;
    dmc_fault_memory(1); /* what is read is smaller then, if it can be */
    const dmc_status status = dmc_limits_measure(&l, dmc_kernels_pick(1), NULL);
    assert_true(status == DMC_ERR_MEMORY || (status == DMC_OK && l.read > 1e8));
    dmc_fault_memory(0);
}

/* ---- CSV ---- */

static void read_back(const char *path, char *out, size_t size)
{
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    out[fread(out, 1, size - 1, f)] = 0;
    fclose(f);
}

static int count(const char *text, char c)
{
    int n = 0;
    for (; *text; text++) n += *text == c;
    return n;
}

static void test_csv(void **state)
{
    (void)state;
    char path[] = "/tmp/dmc-test-bench-XXXXXX", text[8192];
    int fd = mkstemp(path);
    origin m = {.machine = "A \"fast\", new one", .date = "2001-01-01T00:00:00Z", .cores = 2, .commit = "abc"};
    bench_setup s = {.model = "models/a.gguf", .generate = 32, .repeat = 5};
    bench_case c = {.work = BENCH_DECODE, .depth = 8192, .batch = 2, .cr = 4};
    bench_result r = {.type = "Q8_0",
                      .kv = DMC_KV_Q8,
                      .threads = 2,
                      .seconds = 2,
                      .tokens = 64,
                      .cr = 3.9,
                      .peak_rss_bytes = 1 << 20};
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 0), 0);
    close(fd);
    assert_int_equal(bench_append_csv(path, &m, &s, &c, &r), DMC_OK);
    assert_int_equal(bench_append_csv(path, &m, &s, &c, &r), DMC_OK);
    read_back(path, text, sizeof text);
    assert_int_equal(count(text, '\n'), 3);
    assert_memory_equal(text, "model,type,work,depth,batch,", 28);
    const char *first = strchr(text, '\n') + 1, *second = strchr(first, '\n') + 1;
    assert_memory_equal(first, "a.gguf,Q8_0,decode,8192,2,4,3.9,q8,", 35);
    assert_memory_equal(first, second, strlen(second));
    assert_non_null(strstr(second, ",\"A \"\"fast\"\", new one\",2,abc,2001-01-01T00:00:00Z\n"));
    assert_non_null(strstr(second, ",2,32,0,0,0,,0,1048576,")); /* seconds, tokens a second ... no floor ... */
    FILE *f = fopen(path, "w");
    fputs("other,columns\n1,2\n", f);
    fclose(f);
    assert_int_equal(bench_append_csv(path, &m, &s, &c, &r), DMC_ERR_FORMAT);
    read_back(path, text, sizeof text);
    assert_string_equal(text, "other,columns\n1,2\n");
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_repeats), cmocka_unit_test(test_random_types),
        cmocka_unit_test(test_random_refuses), cmocka_unit_test(test_random_out_of_memory),
        cmocka_unit_test(test_shapes),         cmocka_unit_test(test_random_engine),
        cmocka_unit_test(test_summary),        cmocka_unit_test(test_floor),
        cmocka_unit_test(test_limits),         cmocka_unit_test(test_csv),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
