/* Rotary position embedding: tables and application. */
#include "kernels/rope.h"

#include <math.h>

void dmc_rope_inv_freq(double *inv_freq, int head_dim, double theta)
{
    for (int i = 0; i < head_dim / 2; i++) inv_freq[i] = pow(theta, -2.0 * i / head_dim);
}

dmc_status dmc_rope_create(dmc_rope *out, int head_dim, int64_t n_pos, bool interleaved, const double *inv_freq)
{
    size_t n;
    *out = (dmc_rope){.head_dim = head_dim, .n_pos = n_pos, .interleaved = interleaved};
    if (!dmc_mul(&n, (size_t)n_pos, (size_t)head_dim))
        return dmc_fail(DMC_ERR_MEMORY, "RoPE table of %lld positions", (long long)n_pos);
    DMC_TRY(dmc_array(&out->cs, n, sizeof *out->cs));
    int half = head_dim / 2;
    for (int64_t t = 0; t < n_pos; t++) {
        for (int i = 0; i < half; i++) {
            double angle = (double)t * inv_freq[i];
            out->cs[t * head_dim + i] = (float)cos(angle);
            out->cs[t * head_dim + half + i] = (float)sin(angle);
        }
    }
    return DMC_OK;
}

void dmc_rope_free(dmc_rope *r)
{
    dmc_free(r->cs);
    r->cs = NULL;
}

/* x may be y: a pair is read before it is written, and no other one touches it. */
/* Pairs `other` apart, each `step` behind the one before. */
static inline __attribute__((always_inline)) void pairs(int half, int step, int other, const float *restrict cs,
                                                        float sign, const float *x, float *y)
{
    for (int i = 0; i < half; i++) {
        float a = x[i * step], b = x[i * step + other], si = sign * cs[half + i];
        y[i * step] = a * cs[i] - b * si;
        y[i * step + other] = b * cs[i] + a * si;
    }
}

static void rotate(const dmc_rope *r, int64_t pos, float sign, const float *x, float *y)
{
    int half = r->head_dim / 2;
    const float *cs = r->cs + pos * r->head_dim;
    if (r->interleaved) pairs(half, 2, 1, cs, sign, x, y);
    else if (x == y) pairs(half, 1, half, cs, sign, y, y);
    else pairs(half, 1, half, cs, sign, x, y);
}

void dmc_rope_apply(const dmc_rope *r, int64_t pos, const float *x, float *y) { rotate(r, pos, 1, x, y); }
void dmc_rope_apply_inverse(const dmc_rope *r, int64_t pos, const float *x, float *y) { rotate(r, pos, -1, x, y); }
