/* int8-like panels: packing loses nothing; the product is what panels.h says; every tier, any M and any range of panels give the same bits
 * and touch nothing else. */
#include "kernels/kernels.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const dmc_dtype types[] = {DMC_Q8_0, DMC_Q4_0, DMC_Q4_K, DMC_Q5_K, DMC_Q6_K};
enum { N_TYPES = sizeof types / sizeof types[0], GUARD = 64 };
static const dmc_kernels *tiers[4]; /* the reference first */
static int n_tiers;
static uint64_t counter;

static float rnd(void) { return (float)dmc_normal(5, 0, counter++); }
static uint64_t any(void) { return dmc_hash64(6, 0, counter++); }
static int64_t below(int64_t n) { return (int64_t)(any() % (uint64_t)n); }

/* n bytes on a line of their own with guards around them. */
static uint8_t *bytes(size_t n)
{
    uint8_t *p = aligned_alloc(64, (n + 2 * GUARD + 63) / 64 * 64);
    assert_non_null(p);
    memset(p, 0xa5, n + 2 * GUARD);
    return p + GUARD;
}

static void drop(void *buffer, size_t n)
{
    uint8_t *p = buffer;
    for (int i = 0; i < GUARD; i++) {
        assert_int_equal(p[i - GUARD], 0xa5);
        assert_int_equal(p[n + (size_t)i], 0xa5);
    }
    free(p - GUARD);
}

static float *floats(int64_t n)
{
    float *p = (float *)bytes((size_t)n * sizeof *p);
    for (int64_t i = 0; i < n; i++) p[i] = rnd();
    return p;
}

static size_t row_bytes(dmc_dtype t, int64_t cols)
{
    size_t n;
    assert_true(dmc_dtype_row_bytes(&n, t, (size_t)cols));
    return n;
}

/* A matrix of any codes at all, the most extreme ones too, with halfs of a sensible size. */
static uint8_t *matrix(dmc_dtype t, int64_t rows, int64_t cols)
{
    size_t n = row_bytes(t, cols), block = row_bytes(t, dmc_dtype_block(t));
    uint8_t *p = bytes(n * (size_t)rows);
    for (size_t i = 0; i < n * (size_t)rows; i++) {
        uint64_t r = any();
        p[i] = r & 0x300 ? (uint8_t)r : r & 0x400 ? 0xff : 0x80;
    }
    for (uint8_t *b = p; b < p + n * (size_t)rows; b += block) {
        uint16_t d = dmc_f32_to_f16(rnd() * 0.01f), dmin = dmc_f32_to_f16(rnd() * 0.01f);
        memcpy(t == DMC_Q6_K ? b + block - 2 : b, &d, 2);
        if (t == DMC_Q4_K || t == DMC_Q5_K) memcpy(b + 2, &dmin, 2);
    }
    return p;
}

typedef struct {
    dmc_dtype type;
    int64_t M, rows, K;
    float *x, *y;
    uint8_t *w, *panels, *operand;
} product;

static product make(dmc_dtype type, int64_t M, int64_t rows, int64_t K)
{
    product p = {.type = type, .M = M, .rows = rows, .K = K, .x = floats(M * K), .y = floats(M * rows)};
    p.w = matrix(type, rows, K);
    p.panels = bytes(dmc_panels_bytes(type, rows, K));
    p.operand = bytes(dmc_operand_bytes(DMC_OPERAND_Q8, M, K));
    assert_int_equal(dmc_operand_bytes(DMC_OPERAND_Q8, M, K) % 64, 0);
    assert_int_equal(dmc_operand_of(type), DMC_OPERAND_Q8);
    dmc_panels_pack(type, type, rows, K, p.w, 0, dmc_panels_count(rows), p.panels);
    dmc_kernels_ref.pack_x_q8(M, K, p.x, K, 0, M, p.operand);
    return p;
}

static void linear(const dmc_kernels *kn, const product *p, float *y, bool add)
{
    kn->linear_q8(p->type, p->M, p->rows, p->K, p->operand, p->panels, 0, dmc_panels_count(p->rows), y, p->rows, add);
}

static void done(product *p)
{
    drop(p->x, (size_t)(p->M * p->K) * sizeof(float));
    drop(p->y, (size_t)(p->M * p->rows) * sizeof(float));
    drop(p->w, row_bytes(p->type, p->K) * (size_t)p->rows);
    drop(p->panels, dmc_panels_bytes(p->type, p->rows, p->K));
    drop(p->operand, dmc_operand_bytes(DMC_OPERAND_Q8, p->M, p->K));
}

/* The smallest sizes, odd ones, and some beyond what the kernels do at a time. */
static int64_t some_cols(dmc_dtype t, int c)
{
    int64_t block = dmc_dtype_block(t);
    return c == 0 ? block : block * (1 + below(c % 4 ? 3 : 1500 / block));
}

static void test_rows_come_back(void **state)
{
    (void)state;
    for (int it = 0; it < N_TYPES; it++) {
        for (int c = 0; c < 12; c++) {
            product p = make(types[it], 1, 1 + below(40), some_cols(types[it], c));
            size_t n = row_bytes(p.type, p.K);
            float *a = floats(p.K), *b = floats(p.K);
            for (int64_t r = 0; r < p.rows; r++) {
                dmc_panels_row(p.type, p.rows, p.K, p.panels, r, a);
                dmc_decode_row(p.type, p.w + n * (size_t)r, b, (size_t)p.K);
                assert_memory_equal(a, b, (size_t)p.K * sizeof *a);
            }
            uint8_t *again = bytes(dmc_panels_bytes(p.type, p.rows, p.K)); /* in two ranges */
            int64_t cut = below(dmc_panels_count(p.rows) + 1);
            dmc_panels_pack(p.type, p.type, p.rows, p.K, p.w, 0, cut, again);
            dmc_panels_pack(p.type, p.type, p.rows, p.K, p.w, cut, dmc_panels_count(p.rows), again);
            assert_memory_equal(p.panels, again, dmc_panels_bytes(p.type, p.rows, p.K));
            drop(again, dmc_panels_bytes(p.type, p.rows, p.K));
            drop(a, (size_t)p.K * sizeof *a), drop(b, (size_t)p.K * sizeof *b);
            done(&p);
        }
    }
}

/* Panels are hardly larger than the file. */
static void test_sizes(void **state)
{
    (void)state;
    for (int it = 0; it < N_TYPES; it++) {
        size_t file = row_bytes(types[it], 2048) * 4096, panels = dmc_panels_bytes(types[it], 4096, 2048);
        assert_true(panels >= file && panels <= file + file / 100);
        assert_int_equal(dmc_panels_bytes(types[it], 1, 512) % 64, 0);
        assert_true(dmc_panels_bytes(types[it], INT64_MAX / 2, INT64_MAX / 512 * 256) == SIZE_MAX);
    }
}

/* The reference against double precision, with x as the operand has it. */
static void test_reference(void **state)
{
    (void)state;
    for (int it = 0; it < N_TYPES; it++) {
        for (int c = 0; c < 8; c++) {
            product p = make(types[it], 1 + below(20), 1 + below(40), some_cols(types[it], c));
            size_t n = row_bytes(p.type, p.K);
            float *w = floats(p.K);
            linear(&dmc_kernels_ref, &p, p.y, false);
            for (int64_t r = 0; r < p.rows; r++) {
                dmc_decode_row(p.type, p.w + n * (size_t)r, w, (size_t)p.K);
                for (int64_t m = 0; m < p.M; m++) {
                    double sum = 0, top = 0;
                    const float *x = p.x + m * p.K;
                    for (int64_t k = 0; k < p.K; k += 32) {
                        float scale = 0;
                        for (int i = 0; i < 32; i++) scale = fmaxf(scale, fabsf(x[k + i]) / 127);
                        for (int i = 0; i < 32; i++) {
                            double v = rint((double)(x[k + i] * (1 / scale))) * scale * w[k + i];
                            assert_true(fabs(rint((double)(x[k + i] * (1 / scale))) * scale - x[k + i]) <=
                                        0.501 * scale);
                            sum += v;
                            top += fabs(v);
                        }
                    }
                    assert_true(fabs(sum - p.y[m * p.rows + r]) <= 1e-5 * top);
                }
            }
            drop(w, (size_t)p.K * sizeof *w);
            done(&p);
        }
    }
}

static void test_tiers_pack_the_same(void **state)
{
    (void)state;
    const float awkward[] = {0,     -0.0f,  1e-40f,   -1e-45f,   FLT_MIN, 127 * FLT_MIN,
                             3e38f, -3e38f, INFINITY, -INFINITY, NAN};
    for (int c = 0; c < 60; c++) {
        int64_t M = 1 + below(c % 5 ? 20 : 70), K = 32 * (1 + below(20)), ld = K + below(9);
        size_t n = dmc_operand_bytes(DMC_OPERAND_Q8, M, K);
        float *x = floats(M * ld);
        for (int64_t i = 0; i < M * ld && c % 2; i++)
            x[i] = below(40) ? x[i] * expf((float)below(60) - 30) : awkward[below(sizeof awkward / sizeof *awkward)];
        for (int64_t i = 0; i < M * ld && c % 7 == 0; i++) x[i] *= 1e-44f;
        uint8_t *a = bytes(n), *b = bytes(n);
        dmc_kernels_ref.pack_x_q8(M, K, x, ld, 0, M, a);
        for (int it = 1; it < n_tiers; it++) {
            memset(b, 1, n);
            int64_t cut = below((M + 15) / 16) * 16;
            tiers[it]->pack_x_q8(M, K, x, ld, cut, M, b);
            tiers[it]->pack_x_q8(M, K, x, ld, 0, cut, b);
            for (size_t i = 0; i < n / 4; i++) { /* all but the sign of what is not a number */
                float f, g;
                memcpy(&f, a + 4 * i, 4), memcpy(&g, b + 4 * i, 4);
                if (memcmp(&f, &g, 4) != 0 && !(isnan(f) && isnan(g))) fail_msg("%s: word %zu", tiers[it]->name, i);
            }
        }
        drop(a, n), drop(b, n), drop(x, (size_t)(M * ld) * sizeof *x);
    }
}

static void test_tiers_multiply_the_same(void **state)
{
    (void)state;
    static const int64_t Ms[] = {1, 2, 4, 5, 8, 9, 16, 17, 24, 33};
    for (int it = 0; it < N_TYPES; it++) {
        for (int c = 0; c < 20; c++) {
            int64_t M = Ms[c % 10], rows = 1 + below(c % 3 ? 50 : 150);
            product p = make(types[it], M, rows, some_cols(types[it], c));
            size_t n = (size_t)(M * rows) * sizeof(float);
            bool add = c & 1;
            float *expected = floats(M * rows), *y = floats(M * rows);
            memcpy(expected, p.y, n);
            linear(&dmc_kernels_ref, &p, expected, add);
            for (int t = 1; t < n_tiers; t++) {
                memcpy(y, p.y, n);
                linear(tiers[t], &p, y, add);
                if (memcmp(y, expected, n) != 0)
                    fail_msg("%s, %s: M %d, rows %d, K %d", tiers[t]->name, dmc_dtype_name(p.type), (int)M, (int)rows,
                             (int)p.K);
            }
            drop(y, n), drop(expected, n);
            done(&p);
        }
    }
}

/* Many rows at once, one row alone, panels in any ranges, a wide y: the same bits, and nothing else is written. */
static void test_rows_and_panels_are_independent(void **state)
{
    (void)state;
    const int64_t counts[] = {7, 13, DMC_SANITIZED ? 35 : 530}; /* one group, small and large; several */
    for (int it = 0; it < 3 * N_TYPES; it++) {
        for (int t = 1; t < n_tiers; t++) {
            product p = make(types[it / 3], counts[it % 3], 70, 2304);
            int64_t ld = p.rows + 3, n_panels = dmc_panels_count(p.rows), M = p.M;
            float *y = floats(M * ld), *old = floats(M * ld), *one = floats(p.rows);
            uint8_t *operand = bytes(dmc_operand_bytes(DMC_OPERAND_Q8, 1, p.K));
            linear(tiers[t], &p, p.y, false);
            memcpy(y, old, (size_t)(M * ld) * sizeof *y);
            for (int64_t p0 = 0, p1; p0 < n_panels; p0 = p1) {
                p1 = p0 + 1 + below(n_panels - p0);
                tiers[t]->linear_q8(p.type, M, p.rows, p.K, p.operand, p.panels, p0, p1, y, ld, true);
            }
            for (int64_t m = 0; m < M; m++) {
                for (int64_t n = 0; n < ld; n++) {
                    float before = old[m * ld + n];
                    assert_true(y[m * ld + n] == (n < p.rows ? before + p.y[m * p.rows + n] : before));
                }
            }
            for (int c = 0; c < 10; c++) {
                int64_t m = below(M);
                tiers[t]->pack_x_q8(1, p.K, p.x + m * p.K, p.K, 0, 1, operand);
                tiers[t]->linear_q8(p.type, 1, p.rows, p.K, operand, p.panels, 0, n_panels, one, p.rows, false);
                assert_memory_equal(one, p.y + m * p.rows, (size_t)p.rows * sizeof *one);
            }
            drop(operand, dmc_operand_bytes(DMC_OPERAND_Q8, 1, p.K));
            drop(y, (size_t)(M * ld) * sizeof *y), drop(old, (size_t)(M * ld) * sizeof *y);
            drop(one, (size_t)p.rows * sizeof *one);
            done(&p);
        }
    }
}

/* What is not a number or infinite in a row of x reaches that row of y and no other. */
static void test_not_a_number_stays_in_its_row(void **state)
{
    (void)state;
    for (int it = 0; it < N_TYPES; it++) {
        for (int t = 0; t < n_tiers; t++) {
            product p = make(types[it], 5, 20, 512);
            p.x[2 * p.K + 77] = t % 2 ? INFINITY : NAN;
            tiers[t]->pack_x_q8(p.M, p.K, p.x, p.K, 0, p.M, p.operand);
            linear(tiers[t], &p, p.y, false);
            for (int64_t m = 0; m < p.M; m++)
                for (int64_t n = 0; n < p.rows; n++) assert_true(isfinite(p.y[m * p.rows + n]) == (m != 2));
            done(&p);
        }
    }
}

/* Panels unpacked for the matrix unit: each weight as it is decoded, rounded to bf16 (a step of the last bit where the sum of two products
 * was rounded once instead of twice). */
static void test_unpacked(void **state)
{
    (void)state;
    static const dmc_dtype block_types[] = {DMC_Q8_0, DMC_Q4_0, DMC_Q4_K, DMC_Q5_K, DMC_Q6_K};
    enum { ROWS = 40, K = 2304 };
    for (int it = 0; it < n_tiers; it++) {
        if (!tiers[it]->unpack_bf16) continue;
        for (size_t i = 0; i < sizeof block_types / sizeof *block_types; i++) {
            size_t row_bytes;
            assert_true(dmc_dtype_row_bytes(&row_bytes, block_types[i], K));
            uint8_t *file = dmc_malloc(ROWS, row_bytes),
                    *panels = dmc_malloc(dmc_panels_bytes(block_types[i], ROWS, K), 1),
                    *out = dmc_malloc(dmc_panels_bytes(DMC_BF16, 32, K), 1);
            float *row = dmc_malloc(K, sizeof *row), *got = dmc_malloc(K, sizeof *got);
            for (int r = 0; r < ROWS; r++) {
                for (int k = 0; k < K; k++) row[k] = (float)dmc_normal(5, (uint64_t)r, (uint64_t)k);
                dmc_encode_row(block_types[i], row, file + (size_t)r * row_bytes, K);
            }
            dmc_panels_pack(block_types[i], block_types[i], ROWS, K, file, 0, 3, panels);
            tiers[it]->unpack_bf16(block_types[i], K, panels, 1, 3, out); /* rows 16 to 39, and zeros */
            int same = 0;
            for (int r = 16; r < ROWS; r++) {
                dmc_panels_row(block_types[i], ROWS, K, panels, r, row);
                dmc_panels_row(DMC_BF16, 32, K, out, r - 16, got);
                for (int k = 0; k < K; k++) {
                    assert_true(fabsf(got[k] - row[k]) <= 0.0079f * fabsf(row[k]));
                    same += fabsf(got[k] - row[k]) <= 0.00391f * fabsf(row[k]);
                }
            }
            assert_true(same > 24 * K * 999 / 1000);
            dmc_panels_row(DMC_BF16, 32, K, out, 31, got);
            for (int k = 0; k < K; k++) assert_true(got[k] == 0);
            dmc_free(file), dmc_free(panels), dmc_free(out), dmc_free(row), dmc_free(got);
        }
    }
}

int main(void)
{
    for (int tier = 1; tier <= 4; tier++)
        if (dmc_kernels_pick(tier)) tiers[n_tiers++] = dmc_kernels_pick(tier);
        else print_message("tier %d: this machine cannot run it\n", tier);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_come_back),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_tiers_pack_the_same),
        cmocka_unit_test(test_tiers_multiply_the_same),
        cmocka_unit_test(test_rows_and_panels_are_independent),
        cmocka_unit_test(test_not_a_number_stays_in_its_row),
        cmocka_unit_test(test_unpacked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
