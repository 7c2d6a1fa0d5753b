/* Products with BF16 panels: every tier, every number of rows and every range of panels give the bits of the reference, and the
 * reference is what panels.h says. */
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
static uint64_t counter;

static float rnd(void) { return (float)dmc_normal(3, 0, counter++); }
static int64_t below(int64_t n) { return (int64_t)(dmc_hash64(4, 0, counter++) % (uint64_t)n); }

/* n random floats; wild: denormal, tiny, huge and zero ones among them. */
static float *vec(int64_t n, bool wild)
{
    float *p = dmc_malloc((size_t)n, sizeof *p);
    assert_non_null(p);
    for (int64_t i = 0; i < n; i++) p[i] = wild ? ldexpf(rnd(), (int)below(160) - 145) : rnd();
    return p;
}

/* Guarded, 64-byte aligned bytes. */
enum { GUARD = 64 };
typedef struct {
    uint8_t *p;
    size_t n;
} room;

static room make_room(size_t n)
{
    room r = {aligned_alloc(64, (n + 2 * GUARD + 63) / 64 * 64), n};
    assert_non_null(r.p);
    memset(r.p, 0xa5, n + 2 * GUARD);
    r.p += GUARD;
    return r;
}

static void drop(room r)
{
    for (int i = 0; i < GUARD; i++) {
        assert_int_equal(r.p[i - GUARD], 0xa5);
        assert_int_equal(r.p[r.n + (size_t)i], 0xa5);
    }
    free(r.p - GUARD);
}

static void test_pack(void **state)
{
    (void)state;
    const dmc_dtype from[] = {DMC_BF16, DMC_F32, DMC_F16};
    for (int c = 0; c < 60; c++) {
        int64_t rows = 1 + below(50), cols = 1 + below(100);
        dmc_dtype type = from[c % 3];
        size_t row_bytes = 0;
        dmc_dtype_row_bytes(&row_bytes, type, (size_t)cols);
        uint8_t *src = dmc_malloc((size_t)rows, row_bytes);
        float *x = vec(rows * cols, false), *row = vec(cols, false);
        for (int64_t r = 0; r < rows; r++)
            dmc_encode_row(type, x + r * cols, src + (size_t)r * row_bytes, (size_t)cols);
        room panels = make_room(dmc_panels_bytes(DMC_BF16, rows, cols));
        int64_t n_panels = dmc_panels_count(rows), cut = below(n_panels + 1), n_blocks = (cols + 31) / 32;
        dmc_panels_pack(type, DMC_BF16, rows, cols, src, cut, n_panels, panels.p);
        dmc_panels_pack(type, DMC_BF16, rows, cols, src, 0, cut, panels.p);
        for (int64_t r = 0; r < n_panels * 16; r++) {
            uint16_t want[100] = {0};
            if (r < rows) {
                dmc_decode_row(type, src + (size_t)r * row_bytes, x, (size_t)cols);
                dmc_encode_row(DMC_BF16, x, want, (size_t)cols);
                dmc_decode_row(DMC_BF16, want, x, (size_t)cols);
                dmc_panels_row(DMC_BF16, rows, cols, panels.p, r, row);
                assert_memory_equal(row, x, (size_t)cols * sizeof *row);
            }
            for (int64_t k = 0; k < n_blocks * 32; k++) { /* the layout itself, padding included */
                uint16_t got;
                memcpy(&got, panels.p + (r / 16 * n_blocks + k / 32) * 1024 + k % 32 / 2 * 64 + r % 16 * 4 + k % 2 * 2,
                       2);
                assert_int_equal(got, k < cols ? want[k] : 0);
            }
        }
        drop(panels), dmc_free(src), dmc_free(x), dmc_free(row);
    }
    assert_true(dmc_panels_bytes(DMC_BF16, INT64_MAX, 64) == SIZE_MAX);
    assert_true(dmc_panels_bytes(DMC_BF16, 1 << 30, (int64_t)1 << 40) == SIZE_MAX);
}

typedef struct {
    int64_t M, rows, K;
    float *x, *w;
    room operand, panels;
} product;

static product make_product(int64_t M, int64_t rows, int64_t K, bool wild)
{
    product q = {M,
                 rows,
                 K,
                 vec(M * K, wild),
                 vec(rows * K, wild),
                 make_room(dmc_operand_bytes(DMC_OPERAND_BF16, M, K)),
                 make_room(dmc_panels_bytes(DMC_BF16, rows, K))};
    dmc_panels_pack(DMC_F32, DMC_BF16, rows, K, q.w, 0, dmc_panels_count(rows), q.panels.p);
    return q;
}

static void free_product(product q) { drop(q.operand), drop(q.panels), dmc_free(q.x), dmc_free(q.w); }

static float to_bf16(float x)
{
    uint16_t h;
    dmc_encode_row(DMC_BF16, &x, &h, 1);
    dmc_decode_row(DMC_BF16, &h, &x, 1);
    return x;
}

/* The words of panels.h, once more. */
static void test_reference(void **state)
{
    (void)state;
    for (int c = 0; c < 40; c++) {
        product q = make_product(1 + below(20), 1 + below(40), 1 + below(100), false);
        float *y = vec(q.M * q.rows, false), *z = vec(q.M * q.rows, false);
        memcpy(y, z, (size_t)(q.M * q.rows) * sizeof *y);
        dmc_kernels_ref.pack_x_bf16(q.M, q.K, q.x, q.K, 0, q.M, q.operand.p);
        dmc_kernels_ref.linear_bf16(DMC_BF16, q.M, q.rows, q.K, q.operand.p, q.panels.p, 0, dmc_panels_count(q.rows), y,
                                    q.rows, c & 1);
        for (int64_t i = 0; i < q.M * q.rows; i++) {
            float sum = 0;
            for (int64_t b = 0; b < q.K; b += 32) {
                float chain[2] = {0, 0};
                for (int64_t k = b; k < q.K && k < b + 32; k++)
                    chain[k & 1] =
                        fmaf(to_bf16(q.x[i / q.rows * q.K + k]), to_bf16(q.w[i % q.rows * q.K + k]), chain[k & 1]);
                sum += chain[0] + chain[1];
            }
            if (c & 1) sum += z[i];
            assert_memory_equal(&sum, y + i, sizeof sum);
        }
        free_product(q), dmc_free(y), dmc_free(z);
    }
}

static void test_operand(void **state)
{
    (void)state;
    for (int it = 0; it < n_tiers; it++) {
        for (int c = 0; c < 40; c++) {
            product q = make_product(1 + below(70), 1, 1 + below(150), false);
            room want = make_room(q.operand.n);
            int64_t ld = q.K + below(3), cut = below((q.M + 15) / 16 + 1) * 16;
            float *x = vec(q.M * ld, false);
            if (cut > q.M) cut = q.M;
            x[below(q.M * ld)] = c & 1 ? INFINITY : NAN;
            dmc_kernels_ref.pack_x_bf16(q.M, q.K, x, ld, 0, q.M, want.p);
            tiers[it]->pack_x_bf16(q.M, q.K, x, ld, 0, cut, q.operand.p);
            if (cut < q.M) tiers[it]->pack_x_bf16(q.M, q.K, x, ld, cut, q.M, q.operand.p);
            assert_memory_equal(q.operand.p, want.p, want.n);
            drop(want), dmc_free(x), free_product(q);
        }
    }
}

/* Bits, but for the sign and the payload of NaNs, which the matrix unit chooses for itself. */
static void same_bits(const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (memcmp(a + i, b + i, sizeof *a) == 0 || (isnan(a[i]) && isnan(b[i]))) continue;
        fail_msg("element %lld: %a, expected %a", (long long)i, a[i], b[i]);
    }
}

static void test_tiers(void **state)
{
    (void)state;
    for (int it = 0; it < n_tiers; it++) {
        for (int c = 0; c < 150; c++) {
            bool add = c & 1, wild = c % 4 == 3;
            product q =
                make_product(c % 3 ? 1 + below(8) : 1 + below(80), 1 + below(150), 1 + below(c % 5 ? 130 : 600), wild);
            int64_t n_panels = dmc_panels_count(q.rows), p0 = below(n_panels), p1 = p0 + 1 + below(n_panels - p0);
            int64_t ld = q.rows + below(20), n = q.M * ld;
            float *y = vec(n, false), *z = vec(n, false);
            memcpy(y, z, (size_t)n * sizeof *y); /* what is left alone has to stay equal too */
            tiers[it]->pack_x_bf16(q.M, q.K, q.x, q.K, 0, q.M, q.operand.p);
            dmc_kernels_ref.linear_bf16(DMC_BF16, q.M, q.rows, q.K, q.operand.p, q.panels.p, p0, p1, z, ld, add);
            tiers[it]->linear_bf16(DMC_BF16, q.M, q.rows, q.K, q.operand.p, q.panels.p, p0, p1, y, ld, add);
            same_bits(y, z, n);
            free_product(q), dmc_free(y), dmc_free(z);
        }
    }
}

static void test_rows_alone(void **state)
{
    (void)state;
    for (int it = 0; it < n_tiers; it++) {
        for (int c = 0; c < 20; c++) {
            product q = make_product(2 + below(50), 1 + below(100), 1 + below(200), false);
            int64_t n_panels = dmc_panels_count(q.rows);
            float *y = vec(q.M * q.rows, false), *one = vec(q.rows, false);
            tiers[it]->pack_x_bf16(q.M, q.K, q.x, q.K, 0, q.M, q.operand.p);
            tiers[it]->linear_bf16(DMC_BF16, q.M, q.rows, q.K, q.operand.p, q.panels.p, 0, n_panels, y, q.rows, false);
            for (int64_t m = 0; m < q.M; m++) {
                tiers[it]->pack_x_bf16(1, q.K, q.x + m * q.K, q.K, 0, 1, q.operand.p);
                tiers[it]->linear_bf16(DMC_BF16, 1, q.rows, q.K, q.operand.p, q.panels.p, 0, n_panels, one, q.rows,
                                       false);
                assert_memory_equal(one, y + m * q.rows, (size_t)q.rows * sizeof *one);
            }
            free_product(q), dmc_free(y), dmc_free(one);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pack), cmocka_unit_test(test_reference),
                                       cmocka_unit_test(test_operand), cmocka_unit_test(test_tiers),
                                       cmocka_unit_test(test_rows_alone)};
    for (int tier = 1; tier <= 4; tier++) {
        const dmc_kernels *kn = dmc_kernels_pick(tier);
        if (kn) tiers[n_tiers++] = kn;
        else print_message("tier %d: this machine cannot run it\n", tier);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
