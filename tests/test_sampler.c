/* Sampling: the right token without chance, the right distribution with it, and no accident on bad numbers. */
#include "base/base.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static dmc_sampler *sampler(int n_vocab, float temp, int top_k, float top_p, uint64_t seed)
{
    dmc_sampler *s;
    dmc_sampler_options o = {.temp = temp, .top_k = top_k, .top_p = top_p, .seed = seed};
    assert_int_equal(dmc_sampler_create(&s, n_vocab, &o), DMC_OK);
    return s;
}

static void test_greedy(void **state)
{
    (void)state;
    dmc_sampler *s = sampler(5, 0, 0, 1, 1);
    assert_int_equal(dmc_sample(s, (float[]){1, 3, 2, 3, 0}), 1); /* the lowest of equals */
    assert_int_equal(dmc_sample(s, (float[]){-1, -3, -2, -3, -1e30f}), 0);
    assert_int_equal(dmc_sample(s, (float[]){NAN, -3, NAN, -2, NAN}), 3);
    assert_int_equal(dmc_sample(s, (float[]){NAN, NAN, NAN, NAN, NAN}), 0);
    assert_int_equal(dmc_sample(s, (float[]){1, 2, INFINITY, 5, INFINITY}), 2);
    assert_int_equal(dmc_sample(s, (float[]){-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY}), 0);
    dmc_sampler_close(s);
    dmc_sampler_close(NULL);
}

/* Counts of n draws from 8 logits. */
static void draw(const dmc_sampler_options *o, const float logits[8], int n, int counts[8])
{
    dmc_sampler *s = sampler(8, o->temp, o->top_k, o->top_p, o->seed);
    memset(counts, 0, 8 * sizeof *counts);
    for (int i = 0; i < n; i++) {
        int32_t id = dmc_sample(s, logits);
        assert_in_range(id, 0, 7);
        counts[id]++;
    }
    dmc_sampler_close(s);
}

/* Asserts that the draws follow p: chi-squared far below what chance allows, and nothing where p is 0. */
static void check_draws(const dmc_sampler_options *o, const float logits[8], const double p[8])
{
    enum { N = 40000 };
    int counts[8];
    double chi2 = 0;
    draw(o, logits, N, counts);
    for (int i = 0; i < 8; i++) {
        if (p[i] == 0) assert_int_equal(counts[i], 0);
        else chi2 += (counts[i] - N * p[i]) * (counts[i] - N * p[i]) / (N * p[i]);
    }
    if (chi2 > 25) fail_msg("chi-squared %g with at most 7 degrees of freedom", chi2); /* 1 in 1000 is 24 */
}

static const float logits8[8] = {0.5f, 2.0f, -1.0f, 1.0f, 2.5f, 0.0f, -3.0f, 1.5f}; /* descending: 4 1 7 3 0 5 2 6 */
static const int order8[8] = {4, 1, 7, 3, 0, 5, 2, 6};

/* Probabilities of the first `kept` of the order at a temperature. */
static void expected(double p[8], double temp, int kept)
{
    double sum = 0;
    for (int i = 0; i < 8; i++) p[i] = 0;
    for (int i = 0; i < kept; i++) sum += p[order8[i]] = exp(logits8[order8[i]] / temp);
    for (int i = 0; i < 8; i++) p[i] /= sum;
}

static void test_distribution(void **state)
{
    (void)state;
    double p[8];
    const double temps[] = {0.5, 1, 2};
    for (int t = 0; t < 3; t++) {
        expected(p, temps[t], 8);
        check_draws(&(dmc_sampler_options){.temp = (float)temps[t], .top_p = 1, .seed = 7}, logits8, p);
        for (int k = 1; k <= 7; k += 3) {
            expected(p, temps[t], k);
            check_draws(&(dmc_sampler_options){.temp = (float)temps[t], .top_k = k, .top_p = 1, .seed = 9}, logits8, p);
        }
    }
    check_draws(&(dmc_sampler_options){.temp = 1, .top_p = 1, .seed = 3}, (float[8]){0},
                (double[8]){.125, .125, .125, .125, .125, .125, .125, .125});
}

/* The nucleus: as few of the most likely as reach top-p. */
static void test_nucleus(void **state)
{
    (void)state;
    double p[8], all[8];
    expected(all, 1, 8);
    for (float top_p = 0.05f; top_p < 1; top_p += 0.09f) {
        double sum = 0;
        int kept = 0;
        while (sum < (double)top_p) sum += all[order8[kept++]];
        expected(p, 1, kept);
        check_draws(&(dmc_sampler_options){.temp = 1, .top_p = top_p, .seed = 11}, logits8, p);
    }
    /* after top-k: of what that has left */
    expected(all, 1, 3);
    expected(p, 1, all[4] + all[1] >= 0.8 ? 2 : 3);
    check_draws(&(dmc_sampler_options){.temp = 1, .top_k = 3, .top_p = 0.8f, .seed = 12}, logits8, p);
}

static void test_edges(void **state)
{
    (void)state;
    int counts[8], same[8];
    double p[8];
    draw(&(dmc_sampler_options){.temp = 1, .top_p = 0}, logits8, 1000, counts); /* only the most likely */
    assert_int_equal(counts[4], 1000);
    draw(&(dmc_sampler_options){.temp = 1, .top_k = 1, .top_p = 1}, logits8, 1000, counts);
    assert_int_equal(counts[4], 1000);
    draw(&(dmc_sampler_options){.temp = 1e-30f, .top_p = 1}, logits8, 1000, counts);
    assert_int_equal(counts[4], 1000);
    expected(p, 1, 8);
    check_draws(&(dmc_sampler_options){.temp = 1, .top_k = 100, .top_p = 1, .seed = 4}, logits8,
                p); /* more than there are */
    draw(&(dmc_sampler_options){.temp = 1, .top_p = 1, .seed = 5}, logits8, 1000, counts);
    draw(&(dmc_sampler_options){.temp = 1, .top_p = 1, .seed = 5}, logits8, 1000, same);
    assert_memory_equal(counts, same, sizeof counts);
    draw(&(dmc_sampler_options){.temp = 1, .top_p = 1, .seed = 6}, logits8, 1000, same);
    assert_memory_not_equal(counts, same, sizeof counts);
    draw(&(dmc_sampler_options){.temp = 3e38f, .top_p = 1, .seed = 5}, logits8, 1000, counts);
    for (int i = 0; i < 8; i++) assert_in_range(counts[i], 50, 250);
    dmc_sampler *s = sampler(1, 1, 0, 0.5f, 0);
    assert_int_equal(dmc_sample(s, (float[]){-5}), 0);
    dmc_sampler_close(s);
}

static void test_bad_numbers(void **state)
{
    (void)state;
    static const float values[] = {NAN, INFINITY, -INFINITY, 0, 1e38f, -1e38f, 1e-40f, 3};
    const double half[8] = {0, .5, 0, 0, .5, 0, 0, 0}, eighths[8] = {.125, .125, .125, .125, .125, .125, .125, .125};
    const dmc_sampler_options plain = {.temp = 1, .top_p = 1, .seed = 2},
                              nucleus = {.temp = 1, .top_k = 5, .top_p = 0.9f, .seed = 2};
    check_draws(&plain, (float[8]){NAN, 1, NAN, NAN, 1, NAN, NAN, NAN}, half);
    check_draws(&nucleus, (float[8]){1, INFINITY, 7, 1e38f, INFINITY, NAN, 0, -INFINITY},
                half); /* they share all chance */
    check_draws(&plain,
                (float[8]){-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY},
                eighths);
    for (uint64_t k = 0; k < 3000;
         k++) { /* any mixture of them, any options: some token that is a number, if there is one */
        float logits[8];
        bool any = false;
        for (uint64_t i = 0; i < 8; i++) logits[i] = values[dmc_hash64(1, k, i) % 8], any |= !isnan(logits[i]);
        dmc_sampler *s = sampler(8, (float)(dmc_hash64(2, k, 0) % 3), (int)(dmc_hash64(2, k, 1) % 10),
                                 (float)(dmc_hash64(2, k, 2) % 5) / 4, k);
        for (int i = 0; i < 5; i++) {
            int32_t id = dmc_sample(s, logits);
            assert_in_range(id, 0, 7);
            if (any) assert_false(isnan(logits[id]));
        }
        dmc_sampler_close(s);
    }
}

/* A vocabulary of real size: top-k and nucleus agree with a plain sort. */
static void test_large(void **state)
{
    (void)state;
    enum { N = 50000 };
    float *logits = malloc(N * sizeof *logits);
    for (uint64_t i = 0; i < N; i++) logits[i] = (float)(int)(dmc_normal(1, 2, i) * 20) / 8; /* many equal ones */
    for (int k = 1; k < 5000; k *= 7) {
        dmc_sampler *s = sampler(N, 1, k, 1, 1);
        for (int i = 0; i < 50; i++) {
            int32_t id = dmc_sample(s, logits);
            int before = 0; /* those that come first: greater, or equal with a lower id */
            for (int32_t j = 0; j < N; j++) before += logits[j] > logits[id] || (logits[j] == logits[id] && j < id);
            assert_true(before < k);
        }
        dmc_sampler_close(s);
    }
    free(logits);
}

static void test_options(void **state)
{
    (void)state;
    dmc_sampler *s;
    const dmc_sampler_options bad[] = {{.temp = -1, .top_p = 1},
                                       {.temp = NAN, .top_p = 1},
                                       {.temp = INFINITY, .top_p = 1},
                                       {.temp = 1, .top_p = 1.5f},
                                       {.temp = 1, .top_p = -0.1f},
                                       {.temp = 1, .top_p = NAN},
                                       {.temp = 1, .top_p = 1, .top_k = -1}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(dmc_sampler_create(&s, 8, &bad[i]), DMC_ERR_ARG);
        assert_null(s);
    }
    assert_int_equal(dmc_sampler_create(&s, 0, NULL), DMC_ERR_ARG);
    assert_int_equal(dmc_sampler_create(&s, 8, NULL), DMC_OK); /* the defaults */
    dmc_sampler_close(s);
    for (long k = 1; k <= 3; k++) {
        dmc_fault_memory(k);
        assert_int_equal(dmc_sampler_create(&s, 8, NULL), DMC_ERR_MEMORY);
        dmc_fault_memory(0);
        assert_null(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy),  cmocka_unit_test(test_distribution), cmocka_unit_test(test_nucleus),
        cmocka_unit_test(test_edges),   cmocka_unit_test(test_bad_numbers),  cmocka_unit_test(test_large),
        cmocka_unit_test(test_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
