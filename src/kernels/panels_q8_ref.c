/* Products with int8-like panels: what they are. */
#include "kernels/panels_q8.h"

#include "base/dtype_k.h"

#include <float.h>
#include <stdlib.h>

/* ---- the operand ---- */

static uint32_t float_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

/* The greatest magnitude; not a number where one of them is none. */
static float greatest(const float *x)
{
    uint32_t most = 0;
    float f;
    for (int i = 0; i < DMC_PANEL_COLS; i++) {
        uint32_t magnitude = float_bits(x[i]) & 0x7fffffff;
        most = magnitude > most ? magnitude : most;
    }
    memcpy(&f, &most, 4);
    return f;
}

static void pack_block(const float *x, q8_group x8, int64_t b, int64_t r)
{
    float scale = greatest(x) / 127.0f;
    float inverse = scale >= FLT_MIN && scale <= FLT_MAX ? 1.0f / scale : 0.0f; /* else all q are 0 */
    int32_t sum[2] = {0, 0};
    for (int i = 0; i < DMC_PANEL_COLS; i++) {
        int q = inverse != 0 ? (int)rintf(x[i] * inverse) : 0;
        x8.q[(b * x8.R + r) * DMC_PANEL_COLS + i] = (int8_t)q;
        sum[i / 16] += q;
    }
    x8.scale[b * x8.R + r] = scale;
    x8.offset[b * x8.R + r] = -(scale * (float)(sum[0] + sum[1]));
    for (int h = 0; h < 2; h++) x8.sum[(2 * b + h) * x8.R + r] = sum[h];
}

void dmc_pack_x_q8_ref(int64_t M, int64_t K, const float *x, int64_t ldx, int64_t m0, int64_t m1, void *operand)
{
    static const float zeros[DMC_PANEL_COLS];
    for (int64_t g = m0 / Q8_GROUP; g * Q8_GROUP < m1; g++) {
        q8_group x8 = q8_group_of(operand, M, K, g);
        for (int64_t r = 0; r < x8.R; r++)
            for (int64_t b = 0; b < K / DMC_PANEL_COLS; b++)
                pack_block(r < x8.n ? x + (g * Q8_GROUP + r) * ldx + b * DMC_PANEL_COLS : zeros, x8, b, r);
    }
}

/* ---- the product ---- */

/* 32 or 256 columns of a row of weights. */
typedef struct {
    int8_t q[DMC_K_BLOCK];
    float scale[DMC_K_BLOCK / 16], offset[DMC_K_BLOCK / 32]; /* per 32 / subs columns, per 32 columns */
} numbers;

static void unpack(dmc_dtype type, const uint8_t *file, numbers *w)
{
    uint16_t d;
    if (type == DMC_Q8_0 || type == DMC_Q4_0) {
        memcpy(&d, file, 2);
        w->scale[0] = dmc_f16_to_f32(d);
        for (int i = 0; i < 16 && type == DMC_Q4_0; i++) {
            w->q[i] = (int8_t)((file[2 + i] & 15) - 8);
            w->q[i + 16] = (int8_t)((file[2 + i] >> 4) - 8);
        }
        if (type == DMC_Q8_0) memcpy(w->q, file + 2, DMC_PANEL_COLS);
        return;
    }
    dmc_k_codes c;
    dmc_k_unpack(type, file, &c);
    memcpy(w->q, c.q, sizeof w->q);
    for (int s = 0; s < (type == DMC_Q6_K ? 16 : 8); s++) w->scale[s] = dmc_f16_to_f32(c.d) * (float)c.sc[s];
    for (int s = 0; s < 8 && type != DMC_Q6_K; s++) w->offset[s] = dmc_f16_to_f32(c.dmin) * (float)c.m[s];
}

/* y continued over block b of the operand, `at` columns into the numbers w. */
static float block_of(q8_type t, const numbers *w, int at, q8_group x, int64_t b, int64_t r, float y)
{
    int n = DMC_PANEL_COLS / t.subs;
    const int8_t *q = x.q + (b * x.R + r) * DMC_PANEL_COLS;
    for (int s = 0; s < t.subs; s++) {
        int32_t sum = 0;
        for (int i = s * n; i < (s + 1) * n; i++) sum += w->q[at + i] * q[i];
        y = fmaf((float)sum, w->scale[at / n + s] * x.scale[b * x.R + r], y);
    }
    return t.offsets ? fmaf(w->offset[at / DMC_PANEL_COLS], x.offset[b * x.R + r], y) : y;
}

void dmc_linear_q8_ref(dmc_dtype type, int64_t M, int64_t rows, int64_t K, const void *operand, const void *panels,
                       int64_t p0, int64_t p1, float *y, int64_t ldy, bool add)
{
    q8_type t = q8_type_of(type);
    int block = dmc_dtype_block(type);
    uint8_t file[DMC_Q6_K_BYTES];
    numbers w;
    for (int64_t n = p0 * DMC_PANEL_ROWS; n < q8_least(p1 * DMC_PANEL_ROWS, rows); n++) {
        for (int64_t g = 0; g * Q8_GROUP < M; g++) {
            q8_group x = q8_group_of(operand, M, K, g);
            float sum[Q8_GROUP] = {0};
            for (int64_t k = 0; k < K; k += DMC_PANEL_COLS) {
                if (k % block == 0) {
                    dmc_q8_row_block(type, K, panels, n, k / block, file);
                    unpack(type, file, &w);
                }
                for (int64_t r = 0; r < x.n; r++)
                    sum[r] = block_of(t, &w, (int)(k % block), x, k / DMC_PANEL_COLS, r, sum[r]);
            }
            for (int64_t r = 0; r < x.n; r++) {
                float *out = y + (g * Q8_GROUP + r) * ldy + n;
                *out = add ? *out + sum[r] : sum[r];
            }
        }
    }
}
