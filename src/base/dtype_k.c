#include "base/dtype_k.h"

#include <math.h>
#include <string.h>

enum { SUB = 32, SUB6 = 16, SCALES = 12 };

/* ---- bytes <-> numbers ---- */

/* ggml's place for eight 6-bit scales and minima: the first four of each fill the low six bits of 4 bytes, the others are split. */
static void unpack_scales(const uint8_t *p, dmc_k_codes *c)
{
    for (int j = 0; j < 4; j++) {
        c->sc[j] = (int8_t)(p[j] & 63);
        c->m[j] = (int8_t)(p[j + 4] & 63);
        c->sc[j + 4] = (int8_t)((p[j + 8] & 15) | p[j] >> 6 << 4);
        c->m[j + 4] = (int8_t)(p[j + 8] >> 4 | p[j + 4] >> 6 << 4);
    }
}

static void pack_scales(const dmc_k_codes *c, uint8_t *p)
{
    for (int j = 0; j < 4; j++) {
        p[j] = (uint8_t)(c->sc[j] | c->sc[j + 4] >> 4 << 6);
        p[j + 4] = (uint8_t)(c->m[j] | c->m[j + 4] >> 4 << 6);
        p[j + 8] = (uint8_t)((c->sc[j + 4] & 15) | (c->m[j + 4] & 15) << 4);
    }
}

/* Where element i of Q4_K and Q5_K lies: nibble byte, its shift; its fifth bit is bit i / 32 of h[i % 32]. */
static int byte_of(int i) { return i / 64 * 32 + i % 32; }
static int shift_of(int i) { return i / 32 % 2 * 4; }

/* Of Q6_K: nibble byte and shift, byte of its two upper bits and their shift. */
static int byte6_of(int i) { return i / 128 * 64 + i % 64; }
static int shift6_of(int i) { return i / 64 % 2 * 4; }
static int high6_of(int i) { return i / 128 * 32 + i % 32; }
static int high_shift6_of(int i) { return i / 32 % 4 * 2; }

void dmc_k_unpack(dmc_dtype t, const uint8_t *block, dmc_k_codes *c)
{
    if (t == DMC_Q6_K) {
        const uint8_t *high = block + 128;
        memcpy(c->sc, block + 192, 16);
        memcpy(&c->d, block + 208, 2);
        for (int i = 0; i < DMC_K_BLOCK; i++)
            c->q[i] = (int8_t)(((block[byte6_of(i)] >> shift6_of(i) & 15) | (high[high6_of(i)] >> high_shift6_of(i) & 3)
                                                                                << 4) -
                               32);
        return;
    }
    const uint8_t *fifth = block + 4 + SCALES, *q = fifth + (t == DMC_Q5_K ? 32 : 0);
    memcpy(&c->d, block, 2);
    memcpy(&c->dmin, block + 2, 2);
    unpack_scales(block + 4, c);
    for (int i = 0; i < DMC_K_BLOCK; i++) {
        int code = q[byte_of(i)] >> shift_of(i) & 15;
        if (t == DMC_Q5_K) code |= (fifth[i % 32] >> i / 32 & 1) << 4;
        c->q[i] = (int8_t)code;
    }
}

static void pack(dmc_dtype t, const dmc_k_codes *c, uint8_t *block)
{
    if (t == DMC_Q6_K) {
        memset(block, 0, 192);
        memcpy(block + 192, c->sc, 16);
        memcpy(block + 208, &c->d, 2);
        for (int i = 0; i < DMC_K_BLOCK; i++) {
            int code = c->q[i] + 32;
            block[byte6_of(i)] |= (uint8_t)((code & 15) << shift6_of(i));
            block[128 + high6_of(i)] |= (uint8_t)(code >> 4 << high_shift6_of(i));
        }
        return;
    }
    uint8_t *fifth = block + 4 + SCALES, *q = fifth + (t == DMC_Q5_K ? 32 : 0);
    memcpy(block, &c->d, 2);
    memcpy(block + 2, &c->dmin, 2);
    pack_scales(c, block + 4);
    memset(fifth, 0, (size_t)(q - fifth) + 128);
    for (int i = 0; i < DMC_K_BLOCK; i++) {
        q[byte_of(i)] |= (uint8_t)((c->q[i] & 15) << shift_of(i));
        if (t == DMC_Q5_K) fifth[i % 32] |= (uint8_t)(c->q[i] >> 4 << i / 32);
    }
}

void dmc_decode_k(dmc_dtype t, const uint8_t *block, float *x)
{
    dmc_k_codes c;
    dmc_k_unpack(t, block, &c);
    float d = dmc_f16_to_f32(c.d);
    if (t == DMC_Q6_K) {
        for (int i = 0; i < DMC_K_BLOCK; i++) x[i] = d * (float)c.sc[i / SUB6] * (float)c.q[i];
        return;
    }
    float dmin = dmc_f16_to_f32(c.dmin);
    for (int i = 0; i < DMC_K_BLOCK; i++) x[i] = d * (float)c.sc[i / SUB] * (float)c.q[i] - dmin * (float)c.m[i / SUB];
}

/* ---- finding good numbers ---- */

/* Conversion to an integer that is defined for every float. */
static int nearest(float v, int lowest, int highest)
{
    if (v >= (float)highest) return highest;
    return v >= (float)lowest ? (int)rintf(v) : lowest;
}

/* x ~ scale q - offset with q = 0 .. top and scale, offset >= 0: tries several steps around the obvious one, fits a line by
 * least squares to what each gives, keeps the best. */
static void fit_line(const float *x, int top, float *scale, float *offset)
{
    float low = 0, high = x[0], best = INFINITY;
    for (int i = 0; i < SUB; i++) {
        low = fminf(low, x[i]);
        high = fmaxf(high, x[i]);
    }
    *scale = (high - low) / (float)top;
    *offset = -low;
    if (!(high > low)) {
        *scale = 0;
        return;
    }
    for (int step = 0; step <= 20; step++) {
        float inverse = ((float)top - 1.0f + 0.1f * (float)step) / (high - low);
        double n = SUB, sq = 0, sqq = 0, sx = 0, sxq = 0, sxx = 0;
        for (int i = 0; i < SUB; i++) {
            double q = nearest((x[i] - low) * inverse, 0, top), v = x[i];
            sq += q, sqq += q * q, sx += v, sxq += v * q, sxx += v * v;
        }
        double det = n * sqq - sq * sq, a = det > 0 ? (n * sxq - sq * sx) / det : 0, b = (a * sq - sx) / n;
        if (b < 0) { /* offsets cannot be negative */
            b = 0;
            a = sqq > 0 ? sxq / sqq : 0;
        }
        double error = sxx + a * a * sqq + n * b * b - 2 * a * sxq + 2 * b * sx - 2 * a * b * sq;
        if (a > 0 && error < best) {
            best = (float)error;
            *scale = (float)a;
            *offset = (float)b;
        }
    }
}

/* x ~ scale q with q = -32 .. 31, in the same way. */
static float fit_scale(const float *x)
{
    float extreme = 0, scale, best = -1;
    for (int i = 0; i < SUB6; i++)
        if (fabsf(x[i]) > fabsf(extreme)) extreme = x[i];
    scale = extreme / -32.0f;
    if (extreme == 0) return 0;
    for (int step = -9; step <= 9; step++) {
        float inverse = -(32.0f + 0.1f * (float)step) / extreme, sqq = 0, sxq = 0;
        for (int i = 0; i < SUB6; i++) {
            float q = (float)nearest(x[i] * inverse, -32, 31);
            sqq += q * q;
            sxq += x[i] * q;
        }
        if (sqq > 0 && sxq * sxq > best * sqq) { /* the error is sum x^2 - sxq^2 / sqq */
            best = sxq * sxq / sqq;
            scale = sxq / sqq;
        }
    }
    return scale;
}

static void encode_6(const float *x, dmc_k_codes *c)
{
    float scales[16], extreme = 0;
    for (int s = 0; s < 16; s++) {
        scales[s] = fit_scale(x + s * SUB6);
        if (fabsf(scales[s]) > fabsf(extreme)) extreme = scales[s];
    }
    c->d = dmc_f32_to_f16(extreme / -128.0f);
    float d = dmc_f16_to_f32(c->d);
    for (int s = 0; s < 16; s++) {
        c->sc[s] = (int8_t)(d != 0 ? nearest(scales[s] / d, -128, 127) : 0);
        float scale = d * (float)c->sc[s];
        for (int i = s * SUB6; i < (s + 1) * SUB6; i++)
            c->q[i] = (int8_t)(scale != 0 ? nearest(x[i] / scale, -32, 31) : 0);
    }
}

static void encode_45(const float *x, int top, dmc_k_codes *c)
{
    float scales[8], offsets[8], most = 0, most_offset = 0;
    for (int s = 0; s < 8; s++) {
        fit_line(x + s * SUB, top, &scales[s], &offsets[s]);
        most = fmaxf(most, scales[s]);
        most_offset = fmaxf(most_offset, offsets[s]);
    }
    c->d = dmc_f32_to_f16(most / 63.0f);
    c->dmin = dmc_f32_to_f16(most_offset / 63.0f);
    float d = dmc_f16_to_f32(c->d), dmin = dmc_f16_to_f32(c->dmin);
    for (int s = 0; s < 8; s++) {
        c->sc[s] = (int8_t)(d > 0 ? nearest(scales[s] / d, 0, 63) : 0);
        c->m[s] = (int8_t)(dmin > 0 ? nearest(offsets[s] / dmin, 0, 63) : 0);
        float scale = d * (float)c->sc[s], offset = dmin * (float)c->m[s];
        for (int i = s * SUB; i < (s + 1) * SUB; i++)
            c->q[i] = (int8_t)(scale > 0 ? nearest((x[i] + offset) / scale, 0, top) : 0);
    }
}

void dmc_encode_k(dmc_dtype t, const float *x, uint8_t *block)
{
    dmc_k_codes c = {0};
    if (t == DMC_Q6_K) encode_6(x, &c);
    else encode_45(x, t == DMC_Q4_K ? 15 : 31, &c);
    pack(t, &c, block);
}
