/* Matrix products of any orientation: every tier agrees with plain sums, in bf16 with those of rounded factors, whatever the number of
 * threads, and stays inside its buffers. */
#include "base/base.h"
#include "kernels/ops.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const dmc_kernels *tiers[4];
static int n_tiers;
static dmc_threads *team;
static void *room;
static uint64_t counter;

static float rnd(void) { return (float)dmc_normal(5, 0, counter++); }
static int64_t below(int64_t n) { return (int64_t)(dmc_hash64(6, 0, counter++) % (uint64_t)n); }

static float *vec(int64_t n)
{
    float *p = dmc_malloc((size_t)n, sizeof *p);
    assert_non_null(p);
    for (int64_t i = 0; i < n; i++) p[i] = rnd();
    return p;
}

static float to_bf16(float x)
{
    uint16_t h;
    dmc_encode_row(DMC_BF16, &x, &h, 1);
    dmc_decode_row(DMC_BF16, &h, &x, 1);
    return x;
}

/* A product of random orientation. The matrices end where their buffers do, so that the sanitizer sees every read behind them. */
typedef struct {
    int64_t I, J, P, ai, ap, bp, bj, ldc;
    float *a, *b, *c;
    bool accumulate;
} product;

static product make_product(int64_t I, int64_t J, int64_t P, bool rows_of_b)
{
    product q = {.I = I, .J = J, .P = P, .ldc = J + below(3), .accumulate = below(2)};
    int64_t pad = below(3);
    bool a_by_row = below(2), b_by_row = rows_of_b || below(2);
    q.ai = a_by_row ? P + pad : 1, q.ap = a_by_row ? 1 : I + pad;
    q.bp = b_by_row ? J + pad : 1, q.bj = b_by_row ? 1 : P + pad;
    q.a = vec((I - 1) * q.ai + (P - 1) * q.ap + 1);
    q.b = vec((P - 1) * q.bp + (J - 1) * q.bj + 1);
    q.c = vec((I - 1) * q.ldc + J);
    return q;
}

static void free_product(product q) { dmc_free(q.a), dmc_free(q.b), dmc_free(q.c); }

static size_t bytes_of_c(const product *q) { return (size_t)((q->I - 1) * q->ldc + q->J) * sizeof(float); }

static void run(const product *q, const dmc_cpu *cpu, dmc_math math, float *c)
{
    memcpy(c, q->c, bytes_of_c(q));
    dmc_gemm(cpu, math, q->I, q->J, q->P, q->a, q->ai, q->ap, q->b, q->bp, q->bj, c, q->ldc, q->accumulate);
}

static void check_product(product q, dmc_math math)
{
    float *got = dmc_malloc(1, bytes_of_c(&q)), *again = dmc_malloc(1, bytes_of_c(&q));
    double *want = dmc_calloc((size_t)(q.I * q.J), sizeof *want);
    for (int64_t i = 0; i < q.I; i++) {
        for (int64_t p = 0; p < q.P; p++) {
            float a = q.a[i * q.ai + p * q.ap];
            if (math == DMC_MATH_BF16) a = to_bf16(a);
            for (int64_t j = 0; j < q.J; j++) {
                float b = q.b[p * q.bp + j * q.bj];
                want[i * q.J + j] += (double)a * (math == DMC_MATH_BF16 ? to_bf16(b) : b);
            }
        }
    }
    for (int it = 0; it < n_tiers; it++) {
        run(&q, &(dmc_cpu){.kernels = tiers[it], .room = room}, math, got);
        for (int64_t i = 0; i < q.I; i++) {
            for (int64_t j = 0; j < q.ldc && i * q.ldc + j < (q.I - 1) * q.ldc + q.J; j++) {
                float c = q.c[i * q.ldc + j], x = got[i * q.ldc + j];
                double exact = j >= q.J ? c : want[i * q.J + j] + (q.accumulate ? c : 0);
                double slack = j >= q.J ? 0 : 1e-5 * sqrt((double)q.P);
                if (!(fabs(x - exact) <= slack))
                    fail_msg("%s: c[%d][%d] is %g, not %g", tiers[it]->name, (int)i, (int)j, x, exact);
            }
        }
        run(&q, &(dmc_cpu){.kernels = tiers[it], .threads = team, .room = room}, math, again);
        assert_memory_equal(got, again, bytes_of_c(&q));
        run(&q, &(dmc_cpu){.kernels = tiers[it], .threads = team}, math, again);
        assert_memory_equal(got, again, bytes_of_c(&q));
    }
    dmc_free(got), dmc_free(again), dmc_free(want), free_product(q);
}

static void test_small(void **state)
{
    (void)state;
    for (int c = 0; c < 100; c++) {
        bool bf16 = c & 1;
        check_product(make_product(1 + below(70), 1 + below(100), 1 + below(90), !bf16),
                      bf16 ? DMC_MATH_BF16 : DMC_MATH_F32);
    }
}

/* More than a pass sums up, more rows than a task packs and than the smaller room holds, enough work for all threads. */
static void test_large(void **state)
{
    (void)state;
    const int64_t sizes[][3] = {{300, 41, 2100}, {37, 400, 1100}, {150, 160, 90},
                                {310, 300, 33},  {1, 700, 1500},  {700, 1, 70}};
    for (int c = 0; c < 12; c++) {
        const int64_t *s = sizes[c / 2];
        bool bf16 = c & 1;
        check_product(make_product(s[0], s[1], s[2], !bf16), bf16 ? DMC_MATH_BF16 : DMC_MATH_F32);
    }
}

/* Nothing to sum up: c is cleared or left alone. */
static void test_empty(void **state)
{
    (void)state;
    for (int it = 0; it < n_tiers; it++) {
        for (int math = DMC_MATH_F32; math <= DMC_MATH_BF16; math++) {
            dmc_cpu cpu = {.kernels = tiers[it]};
            float c[2][3] = {{1, 2, 3}, {4, 5, 6}}, x = 0;
            dmc_gemm(&cpu, (dmc_math)math, 2, 2, 0, &x, 0, 1, &x, 2, 1, c[0], 3, true);
            assert_true(c[0][0] == 1 && c[1][1] == 5);
            dmc_gemm(&cpu, (dmc_math)math, 2, 2, 0, &x, 0, 1, &x, 2, 1, c[0], 3, false);
            assert_true(c[0][0] == 0 && c[0][1] == 0 && c[0][2] == 3 && c[1][0] == 0 && c[1][1] == 0 && c[1][2] == 6);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_small), cmocka_unit_test(test_large),
                                       cmocka_unit_test(test_empty)};
    for (int tier = 1; tier <= 4; tier++) {
        const dmc_kernels *kn = dmc_kernels_pick(tier);
        if (kn) tiers[n_tiers++] = kn;
        else print_message("tier %d: this machine cannot run it\n", tier);
    }
    room = aligned_alloc(64, DMC_GEMM_ROOM);
    if (!room || dmc_threads_create(&team, 3, false) != DMC_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    dmc_threads_close(team);
    free(room);
    return failed;
}
