/* Element types: every 16-bit float, rounding, block layouts, error bounds, unaligned sources, awkward values. */
#include "base/dtype.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint32_t bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

static void test_names_and_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        dmc_dtype t;
        size_t bytes_of_512;
    } cases[] = {{"F32", DMC_F32, 2048},  {"f16", DMC_F16, 1024},  {"bf16", DMC_BF16, 1024}, {"q8_0", DMC_Q8_0, 544},
                 {"Q4_0", DMC_Q4_0, 288}, {"q4_k", DMC_Q4_K, 288}, {"Q5_K", DMC_Q5_K, 352},  {"q6_K", DMC_Q6_K, 420}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dmc_dtype t;
        size_t bytes;
        assert_true(dmc_dtype_parse(&t, cases[i].name));
        assert_int_equal(t, cases[i].t);
        assert_true(dmc_dtype_row_bytes(&bytes, t, 512));
        assert_int_equal(bytes, cases[i].bytes_of_512);
        assert_int_equal(dmc_dtype_row_bytes(&bytes, t, 33), dmc_dtype_block(t) == 1);
        assert_int_equal(dmc_dtype_row_bytes(&bytes, t, 32), dmc_dtype_block(t) <= 32);
        assert_false(dmc_dtype_row_bytes(&bytes, t, SIZE_MAX - 31) && dmc_dtype_block(t) == 1);
    }
    dmc_dtype t;
    assert_false(dmc_dtype_parse(&t, "q5_0"));
    assert_false(dmc_dtype_parse(&t, ""));
}

/* Decoding then encoding gives every half back; NaNs stay NaNs. */
static void test_every_16_bit_float(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        uint16_t in = (uint16_t)h, out;
        float f = dmc_f16_to_f32(in), g;
        int exponent = in >> 10 & 31, mantissa = in & 1023;
        double expected = exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024 + mantissa, exponent - 25);
        if (exponent == 31) {
            assert_true(mantissa ? isnan(f) : isinf(f));
        } else {
            assert_true(f == (in & 0x8000 ? -expected : expected));
        }
        out = dmc_f32_to_f16(f);
        assert_true(isnan(f) ? (out & 0x7fff) > 0x7c00 : out == in);
        dmc_decode_row(DMC_BF16, &in, &g, 1);
        assert_int_equal(bits(g), h << 16);
        dmc_encode_row(DMC_BF16, &g, &out, 1);
        assert_true(isnan(g) ? (out & 0x7fff) > 0x7f80 : out == in);
    }
}

/* Between two neighbouring halves: the nearer one, and the even one half-way. */
static void test_f16_rounds_to_nearest_even(void **state)
{
    (void)state;
    for (uint16_t h = 0; h < 0x7bff; h++) {
        double a = dmc_f16_to_f32(h), b = dmc_f16_to_f32((uint16_t)(h + 1));
        float middle = (float)((a + b) / 2);
        assert_int_equal(dmc_f32_to_f16(middle), h % 2 ? h + 1 : h);
        assert_int_equal(dmc_f32_to_f16(nextafterf(middle, 0)), h);
        assert_int_equal(dmc_f32_to_f16(nextafterf(middle, INFINITY)), h + 1);
        assert_int_equal(dmc_f32_to_f16(-middle), 0x8000 | (h % 2 ? h + 1 : h));
    }
    assert_int_equal(dmc_f32_to_f16(65519.99f), 0x7bff);
    assert_int_equal(dmc_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(dmc_f32_to_f16(INFINITY), 0x7c00);
    assert_int_equal(dmc_f32_to_f16(1e-30f), 0);
}

static void test_bf16_rounds_to_nearest_even(void **state)
{
    (void)state;
    const struct {
        uint32_t in;
        uint16_t out;
    } cases[] = {{0x3f808000, 0x3f80}, {0x3f818000, 0x3f82}, {0x3f808001, 0x3f81},
                 {0x3f807fff, 0x3f80}, {0x7f7fffff, 0x7f80}, {0x00008000, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        float f;
        uint16_t out;
        memcpy(&f, &cases[i].in, 4);
        dmc_encode_row(DMC_BF16, &f, &out, 1);
        assert_int_equal(out, cases[i].out);
    }
}

/* A block by hand: layout of d and q, rounding half away from zero (Q8_0) and upwards after the shift (Q4_0). */
static void test_block_layout(void **state)
{
    (void)state;
    float x[32] = {0}, y[32];
    uint8_t q[34];
    x[0] = -127;
    x[1] = 63.5f;
    x[2] = -0.5f;
    x[31] = 1;
    dmc_encode_row(DMC_Q8_0, x, q, 32);
    assert_int_equal(q[0] | q[1] << 8, 0x3c00); /* d = 1 */
    assert_int_equal((int8_t)q[2], -127);
    assert_int_equal((int8_t)q[3], 64);
    assert_int_equal((int8_t)q[4], -1);
    assert_int_equal((int8_t)q[33], 1);

    memset(x, 0, sizeof x);
    x[0] = 16; /* the extreme is positive, so d = -2 */
    x[1] = -14;
    x[16] = 1;
    x[17] = -1;
    dmc_encode_row(DMC_Q4_0, x, q, 32);
    assert_int_equal(q[0] | q[1] << 8, 0xc000);
    assert_int_equal(q[2], 0 | 8 << 4); /* 16 -> 0; 1 / -2 + 8.5 = 8 */
    assert_int_equal(q[3], 15 | 9 << 4);
    dmc_decode_row(DMC_Q4_0, q, y, 32);
    assert_true(y[0] == 16 && y[1] == -14 && y[16] == 0 && y[17] == -2 && y[2] == 0);
}

/* The K types written down as ggml decodes them, in the order of their bytes. */
static void decode_as_ggml(dmc_dtype t, const uint8_t *p, float *y)
{
    uint16_t half[2];
    if (t == DMC_Q6_K) {
        const uint8_t *ql = p, *qh = p + 128;
        const int8_t *sc = (const int8_t *)p + 192;
        memcpy(half, p + 208, 2);
        float d = dmc_f16_to_f32(half[0]);
        for (int n = 0; n < 256; n += 128, y += 128, ql += 64, qh += 32, sc += 8) {
            for (int l = 0; l < 32; l++) {
                y[l] = d * (float)sc[l / 16] * (float)((ql[l] & 15) + (qh[l] & 3) * 16 - 32);
                y[l + 32] = d * (float)sc[l / 16 + 2] * (float)((ql[l + 32] & 15) + (qh[l] / 4 & 3) * 16 - 32);
                y[l + 64] = d * (float)sc[l / 16 + 4] * (float)(ql[l] / 16 + (qh[l] / 16 & 3) * 16 - 32);
                y[l + 96] = d * (float)sc[l / 16 + 6] * (float)(ql[l + 32] / 16 + qh[l] / 64 * 16 - 32);
            }
        }
        return;
    }
    memcpy(half, p, 4);
    const uint8_t *s = p + 4, *qh = p + 16, *ql = t == DMC_Q5_K ? p + 48 : p + 16;
    for (int j = 0; j < 8; j++) {
        int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) + s[j - 4] / 64 * 16;
        int least = j < 4 ? s[j + 4] & 63 : s[j + 4] / 16 + s[j] / 64 * 16;
        float d = dmc_f16_to_f32(half[0]) * (float)scale, m = dmc_f16_to_f32(half[1]) * (float)least;
        for (int l = 0; l < 32; l++) {
            int q = j % 2 ? ql[j / 2 * 32 + l] / 16 : ql[j / 2 * 32 + l] & 15;
            if (t == DMC_Q5_K && qh[l] & 1 << j) q += 16;
            y[32 * j + l] = d * (float)q - m;
        }
    }
}

static void test_k_types_decode_as_ggml(void **state)
{
    (void)state;
    for (int t = DMC_Q4_K; t <= DMC_Q6_K; t++) {
        for (uint64_t s = 0; s < 500; s++) {
            uint8_t p[210];
            float x[256], y[256];
            for (uint64_t i = 0; i < sizeof p; i++) p[i] = (uint8_t)dmc_hash64(21, s, i);
            uint16_t d = dmc_f32_to_f16((float)dmc_normal(22, s, 0)),
                     dmin = dmc_f32_to_f16((float)dmc_normal(22, s, 1));
            memcpy(t == DMC_Q6_K ? p + 208 : p, &d, 2);
            if (t != DMC_Q6_K) memcpy(p + 2, &dmin, 2);
            dmc_decode_row((dmc_dtype)t, p, x, 256);
            decode_as_ggml((dmc_dtype)t, p, y);
            assert_memory_equal(x, y, sizeof x);
        }
    }
}

/* Errors of normally distributed values, relative to their root mean square: Q4_0 reaches 0.086, Q8_0 0.0054. */
static void test_k_types_encode_well(void **state)
{
    (void)state;
    static const struct {
        dmc_dtype t;
        double bound;
    } cases[] = {{DMC_Q4_K, 0.073}, {DMC_Q5_K, 0.037}, {DMC_Q6_K, 0.018}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        double error = 0, power = 0;
        for (uint64_t s = 0; s < 100; s++) {
            float x[256], y[256];
            uint8_t p[210];
            for (uint64_t i = 0; i < 256; i++) x[i] = (float)(exp((double)(s % 7)) * dmc_normal(23, s, i));
            dmc_encode_row(cases[c].t, x, p, 256);
            dmc_decode_row(cases[c].t, p, y, 256);
            for (int i = 0; i < 256; i++) {
                error += (x[i] - y[i]) * (x[i] - y[i]) * exp(-2.0 * (double)(s % 7));
                power += x[i] * x[i] * exp(-2.0 * (double)(s % 7));
            }
        }
        assert_true(sqrt(error / power) < cases[c].bound);
    }
}

/* Half a step, with the rounding of d itself; Q4_0 loses a whole step at the end that has no code. */
static void test_error_bounds(void **state)
{
    (void)state;
    float x[32], y[32];
    uint8_t q[34];
    double worst8 = 0, worst4 = 0;
    for (uint64_t s = 0; s < 20000; s++) {
        float extreme = 0;
        double scale = exp(8 * dmc_uniform(7, s, 99) - 4);
        for (int i = 0; i < 32; i++) {
            x[i] = (float)(scale * dmc_normal(7, s, (uint64_t)i));
            extreme = fmaxf(extreme, fabsf(x[i]));
        }
        dmc_encode_row(DMC_Q8_0, x, q, 32);
        dmc_decode_row(DMC_Q8_0, q, y, 32);
        for (int i = 0; i < 32; i++) worst8 = fmax(worst8, fabs(x[i] - y[i]) / (extreme / 127));
        dmc_encode_row(DMC_Q4_0, x, q, 32);
        dmc_decode_row(DMC_Q4_0, q, y, 32);
        for (int i = 0; i < 32; i++) worst4 = fmax(worst4, fabs(x[i] - y[i]) / (extreme / 8));
    }
    assert_true(worst8 > 0.49 && worst8 < 0.5 + 127.0 / 2048);
    assert_true(worst4 > 0.9 && worst4 < 1.0 + 8.0 / 2048);
}

/* Encoding what was decoded changes nothing, so repeated conversions do not drift. */
static void test_encoding_is_stable(void **state)
{
    (void)state;
    float x[32], y[32];
    uint8_t q[34], r[34];
    for (uint64_t s = 0; s < 2000; s++) {
        for (int i = 0; i < 32; i++) x[i] = (float)dmc_normal(11, s, (uint64_t)i);
        dmc_encode_row(DMC_Q4_0, x, q, 32);
        dmc_decode_row(DMC_Q4_0, q, y, 32);
        dmc_encode_row(DMC_Q4_0, y, r, 32);
        assert_memory_equal(q, r, 18);
    }
}

/* Zeros, values so small that 1/d overflows, infinities, NaN: defined bytes, no trap, and zeros decode to zeros. */
static void test_awkward_values(void **state)
{
    (void)state;
    const float awkward[] = {0, -0.0f, 1e-40f, -1e-45f, 3e38f, INFINITY, -INFINITY, NAN};
    for (size_t a = 0; a < sizeof awkward / sizeof awkward[0]; a++) {
        for (int t = 0; t < DMC_DTYPE_COUNT; t++) {
            float x[256] = {0}, y[256];
            uint8_t q[1024];
            x[5] = awkward[a];
            dmc_encode_row((dmc_dtype)t, x, q, 256);
            dmc_decode_row((dmc_dtype)t, q, y, 256);
            for (int i = 0; i < 256 && awkward[a] == 0; i++) assert_true(y[i] == 0);
        }
    }
}

static void test_unaligned_sources(void **state)
{
    (void)state;
    float x[256], straight[256], shifted[256];
    uint8_t q[1025];
    for (int i = 0; i < 256; i++) x[i] = (float)dmc_normal(3, 0, (uint64_t)i);
    for (int t = 0; t < DMC_DTYPE_COUNT; t++) {
        size_t bytes;
        assert_true(dmc_dtype_row_bytes(&bytes, (dmc_dtype)t, 256));
        dmc_encode_row((dmc_dtype)t, x, q, 256);
        dmc_decode_row((dmc_dtype)t, q, straight, 256);
        memmove(q + 1, q, bytes);
        dmc_decode_row((dmc_dtype)t, q + 1, shifted, 256);
        assert_memory_equal(straight, shifted, sizeof straight);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_and_sizes),
        cmocka_unit_test(test_every_16_bit_float),
        cmocka_unit_test(test_f16_rounds_to_nearest_even),
        cmocka_unit_test(test_bf16_rounds_to_nearest_even),
        cmocka_unit_test(test_block_layout),
        cmocka_unit_test(test_k_types_decode_as_ggml),
        cmocka_unit_test(test_k_types_encode_well),
        cmocka_unit_test(test_error_bounds),
        cmocka_unit_test(test_encoding_is_stable),
        cmocka_unit_test(test_awkward_values),
        cmocka_unit_test(test_unaligned_sources),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
