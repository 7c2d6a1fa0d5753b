/* The kernels that only training uses equal the reference in every tier, on odd sizes, and stay inside their buffers; training's
 * operations over rows give the same bits for any number of threads. */
#include "train/rows.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const dmc_kernels *tiers[4];
static int n_tiers;
static uint64_t counter;

static int64_t below(int64_t n) { return (int64_t)(dmc_hash64(2, 0, counter++) % (uint64_t)n); }

enum { GUARD = 16 };
static const float canary = 12345.678f;

/* n random floats between guards */
static float *vec(int64_t n)
{
    float *p = dmc_malloc((size_t)n + 2 * GUARD, sizeof *p);
    assert_non_null(p);
    for (int64_t i = 0; i < n + 2 * GUARD; i++)
        p[i] = i < GUARD || i >= n + GUARD ? canary : (float)dmc_normal(1, 0, counter++);
    return p + GUARD;
}

static float *copy(const float *x, int64_t n)
{
    float *y = vec(n);
    memcpy(y, x, (size_t)n * sizeof *y);
    return y;
}

static void drop(float *p, int64_t n)
{
    for (int i = 0; i < GUARD; i++) {
        assert_true(p[i - GUARD] == canary);
        assert_true(p[n + i] == canary);
    }
    dmc_free(p - GUARD);
}

static void close_to(const float *a, const float *b, int64_t n, float tol)
{
    float top = 1e-30f;
    for (int64_t i = 0; i < n; i++) top = fabsf(b[i]) > top ? fabsf(b[i]) : top;
    for (int64_t i = 0; i < n; i++)
        if (!(fabsf(a[i] - b[i]) <= tol * top)) fail_msg("element %lld: %g, expected %g", (long long)i, a[i], b[i]);
}

static void test_adamw(void **state)
{
    (void)state;
    for (int it = 0; it < n_tiers; it++) {
        for (int c = 0; c < 60; c++) {
            int64_t n = 1 + below(200);
            float *g = vec(n), *w[2] = {vec(n)}, *m[2] = {vec(n)}, *v[2] = {vec(n)};
            for (int64_t i = 0; i < n; i++) v[0][i] = c % 3 ? v[0][i] * v[0][i] : 0;
            if (c % 5 == 0) memset(g, 0, (size_t)n * sizeof *g); /* 0 / (0 + eps) */
            w[1] = copy(w[0], n), m[1] = copy(m[0], n), v[1] = copy(v[0], n);
            for (int k = 0; k < 2; k++) {
                const dmc_kernels *kn = k ? tiers[it] : &dmc_kernels_ref;
                kn->adamw(n, w[k], g, m[k], v[k], 0.7f, 1e-2f, 0.9f, 0.95f, 1e-8f, 0.1f, 0.271f, 0.142625f);
            }
            close_to(m[1], m[0], n, 1e-6f), close_to(v[1], v[0], n, 1e-6f), close_to(w[1], w[0], n, 1e-5f);
            drop(g, n);
            for (int k = 0; k < 2; k++) drop(w[k], n), drop(m[k], n), drop(v[k], n);
        }
    }
}

/* One value is updated alike wherever it stands in a call: an optimiser step may be cut into any parts. */
static void test_adamw_cut(void **state)
{
    (void)state;
    enum { N = 150 };
    for (int it = 0; it < n_tiers; it++) {
        float *g = vec(N), *w[2] = {vec(N)}, *m[2] = {vec(N)}, *v[2] = {vec(N)};
        for (int i = 0; i < N; i++) v[0][i] = fabsf(v[0][i]);
        w[1] = copy(w[0], N), m[1] = copy(m[0], N), v[1] = copy(v[0], N);
        for (int k = 0; k < 2; k++)
            for (int64_t i = 0, n; i < N; i += n) {
                n = k ? 1 + below(40) : N;
                if (n > N - i) n = N - i;
                tiers[it]->adamw(n, w[k] + i, g + i, m[k] + i, v[k] + i, 1, 1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 0.1f,
                                 0.05f);
            }
        assert_memory_equal(w[0], w[1], N * sizeof(float));
        assert_memory_equal(m[0], m[1], N * sizeof(float));
        assert_memory_equal(v[0], v[1], N * sizeof(float));
        drop(g, N);
        for (int k = 0; k < 2; k++) drop(w[k], N), drop(m[k], N), drop(v[k], N);
    }
}

static void test_sum_squares(void **state)
{
    (void)state;
    for (int it = 0; it < n_tiers; it++) {
        for (int c = 0; c < 100; c++) {
            int64_t n = below(300);
            float *x = vec(n);
            double want = dmc_kernels_ref.sum_squares(n, x), got = tiers[it]->sum_squares(n, x);
            assert_true(fabs(got - want) <= 1e-12 * want);
            drop(x, n);
        }
        float huge[3] = {1e30f, -1e30f, 1e-30f}; /* beyond float32 */
        assert_true(fabs(tiers[it]->sum_squares(3, huge) / 2e60 - 1) < 1e-6);
    }
}

static void test_pool_grad(void **state)
{
    (void)state;
    const int sizes[] = {4, 16, 40, 128, 130};
    for (int it = 0; it < n_tiers; it++) {
        for (int c = 0; c < 60; c++) {
            int64_t T = 1 + below(40), n = sizes[c % 5];
            float *alpha = vec(T), *omega = vec(T), *z = vec(T), *y = vec(T * n), *x = vec(T * n);
            for (int64_t t = 0; t < T; t++) {
                alpha[t] = c % 3 ? (float)below(2) : 1 / (1 + expf(-alpha[t]));
                omega[t] = 0.01f + fabsf(omega[t]), z[t] = 0.5f + fabsf(z[t]);
            }
            float *g[2] = {vec(T * n)}, *dw[2], *da[2], *tmp = vec(n);
            g[1] = copy(g[0], T * n);
            for (int k = 0; k < 2; k++) {
                const dmc_kernels *kn = k ? tiers[it] : &dmc_kernels_ref;
                dw[k] = vec(T), da[k] = vec(T);
                kn->pool_grad(T, n, alpha, omega, z, y, x, g[k], dw[k], da[k], tmp);
            }
            close_to(g[1], g[0], T * n, 2e-5f), close_to(dw[1], dw[0], T, 2e-5f), close_to(da[1], da[0], T, 2e-5f);
            drop(alpha, T), drop(omega, T), drop(z, T), drop(y, T * n), drop(x, T * n), drop(tmp, n);
            for (int k = 0; k < 2; k++) drop(g[k], T * n), drop(dw[k], T), drop(da[k], T);
        }
    }
}

/* ---- operations over rows ---- */

enum { M = 70, N = 300, ROWS = 11 };

typedef struct {
    float *sum, *biased, *d_bias, *d_gate, *d_up, *d_x, *d_gain, *table, *zero;
} results;

static results run_rows(const dmc_cpu *cpu, const float *a, const float *b, const float *c, const float *rs,
                        const int32_t *ids, bool accumulate)
{
    results r = {vec(M * N),     copy(a, M * N), copy(c, N),        vec(M * N), vec(M * N),
                 copy(c, M * N), copy(b, N),     copy(b, ROWS * N), vec(M * N)};
    float *parts = vec(DMC_NORM_PARTS * N);
    dmc_add_rows(cpu, M * N, a, b, r.sum);
    dmc_bias_rows(cpu, M, N, b, r.biased);
    dmc_bias_rows_grad(cpu, M, N, a, r.d_bias, accumulate);
    dmc_swiglu_rows_grad(cpu, M * N, a, b, c, r.d_gate, r.d_up);
    dmc_rmsnorm_rows_grad(cpu, M, N, a, b, rs, c, r.d_x, r.d_gain, accumulate, parts);
    dmc_embed_grad(cpu, M, N, ids, a, r.table);
    dmc_zero_rows(cpu, M * N, r.zero);
    drop(parts, DMC_NORM_PARTS * N);
    return r;
}

static void drop_results(results *r)
{
    drop(r->sum, M * N), drop(r->biased, M * N), drop(r->d_bias, N), drop(r->d_gate, M * N), drop(r->d_up, M * N);
    drop(r->d_x, M * N), drop(r->d_gain, N), drop(r->table, ROWS * N), drop(r->zero, M * N);
}

static void test_rows(void **state)
{
    (void)state;
    float *a = vec(M * N), *b = vec(M * N), *c = vec(M * N), *rs = vec(M);
    int32_t ids[M];
    dmc_threads *team;
    for (int i = 0; i < M; i++) ids[i] = (int32_t)below(ROWS);
    assert_int_equal(dmc_threads_create(&team, 3, false), DMC_OK);
    for (int accumulate = 0; accumulate < 2; accumulate++) {
        dmc_cpu one = {.kernels = dmc_kernels_pick(0)}, three = {.kernels = one.kernels, .threads = team};
        results x = run_rows(&one, a, b, c, rs, ids, accumulate), y = run_rows(&three, a, b, c, rs, ids, accumulate);
        assert_memory_equal(x.sum, y.sum, M * N * sizeof(float));
        assert_memory_equal(x.biased, y.biased, M * N * sizeof(float));
        assert_memory_equal(x.d_bias, y.d_bias, N * sizeof(float));
        assert_memory_equal(x.d_gate, y.d_gate, M * N * sizeof(float));
        assert_memory_equal(x.d_up, y.d_up, M * N * sizeof(float));
        assert_memory_equal(x.d_x, y.d_x, M * N * sizeof(float));
        assert_memory_equal(x.d_gain, y.d_gain, N * sizeof(float));
        assert_memory_equal(x.table, y.table, ROWS * N * sizeof(float));
        for (int i = 0; i < M * N; i++) assert_true(x.sum[i] == a[i] + b[i] && x.zero[i] == 0 && y.zero[i] == 0);
        for (int i = 0; i < N; i++) { /* one column of each sum, done by hand */
            float bias = accumulate ? c[i] : 0, row = b[3 * N + i];
            double gain = accumulate ? b[i] : 0;
            for (int m = 0; m < M; m++) {
                bias += a[m * N + i];
                gain += (double)c[m * N + i] * a[m * N + i] * rs[m];
                if (ids[m] == 3) row += a[m * N + i];
                assert_true(x.biased[m * N + i] == a[m * N + i] + b[i]);
            }
            assert_true(x.d_bias[i] == bias && x.table[3 * N + i] == row);
            assert_true(fabs(x.d_gain[i] - gain) <= 1e-4 * (1 + fabs(gain)));
        }
        drop_results(&x), drop_results(&y);
    }
    dmc_threads_close(team);
    drop(a, M * N), drop(b, M * N), drop(c, M * N), drop(rs, M);
}

int main(void)
{
    for (int t = 2; t <= 4; t++)
        if (dmc_kernels_pick(t)) tiers[n_tiers++] = dmc_kernels_pick(t);
        else print_message("tier %d: this machine cannot run it\n", t);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adamw),     cmocka_unit_test(test_adamw_cut), cmocka_unit_test(test_sum_squares),
        cmocka_unit_test(test_pool_grad), cmocka_unit_test(test_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
