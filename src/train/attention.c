/* Training attention, forward and backward. METHOD section 3 (training form) and 6 (delay). */
#include "train/attention.h"

#include <math.h>
#include <string.h>

static bool has_raw(const dmc_attention_shape *s) { return s->mode == DMC_MODE_PLAIN || s->policy.delay > 0; }

size_t dmc_attention_saved_floats(const dmc_attention_shape *s)
{
    size_t n = (size_t)s->B * s->H * s->T, D = (size_t)s->D, G = (size_t)s->G;
    return n * (G * D + D + 2 * D + D + 5 + G) + 16 * 10; /* each array starts on a 64-byte line */
}

static float *take(float **memory, size_t n)
{
    float *p = *memory;
    *memory += (n + 15) / 16 * 16;
    return p;
}

void dmc_attention_saved_carve(dmc_attention_saved *a, const dmc_attention_shape *s, float *memory)
{
    size_t n = (size_t)s->B * s->H * s->T, D = (size_t)s->D, G = (size_t)s->G;
    a->q_rot = take(&memory, n * G * D);
    a->k_rot = take(&memory, n * D);
    a->y = take(&memory, n * 2 * D);
    a->y_rot = take(&memory, n * D);
    a->l = take(&memory, n);
    a->alpha = take(&memory, n);
    a->omega = take(&memory, n);
    a->z = take(&memory, n);
    a->mask = take(&memory, n);
    a->lse = take(&memory, n * G);
}

size_t dmc_attention_scratch_floats(const dmc_attention_shape *s)
{
    size_t T = (size_t)s->T, D = (size_t)s->D;
    size_t accumulator = dmc_accumulator_floats(&s->policy, s->D);
    return dmc_attend_scratch(s->D, 2 * s->T) + accumulator + T * (2 * D + D + D + 4) + 16 * D + 2 * D + 16 * 12;
}

/* The rotation of keys and queries: channel scaled before and after (1: plain RoPE, 0: taken out). */
static void rotate_scaled(const dmc_rope *r, int channel, float scale, bool inverse, int64_t pos, const float *x,
                          float *y)
{
    if (y != x) memcpy(y, x, (size_t)r->head_dim * sizeof(float));
    y[channel] *= scale;
    if (inverse) dmc_rope_apply_inverse(r, pos, y, y);
    else dmc_rope_apply(r, pos, y, y);
    y[channel] *= scale;
}

static float log_sigmoid(float x) { return x > 0 ? -log1pf(expf(-x)) : x - log1pf(expf(x)); }
static float sigmoid(float x) { return x > 0 ? 1 / (1 + expf(-x)) : expf(x) / (1 + expf(x)); }

/* alpha_t and the mask M_t = log(1 - alpha_{t+1}) from the decision logits in l. */
static void decide(const dmc_attention_shape *s, const float *noise, float *l, float *alpha, float *mask)
{
    for (int t = 0; t < s->T; t++) {
        if (s->mode == DMC_MODE_SOFT) {
            l[t] = (l[t] + (noise ? noise[t] : 0)) / s->tau;
            alpha[t] = sigmoid(l[t]);
            if (alpha[t] < 1e-8f) alpha[t] = 0; /* nothing but denormal numbers would come of it, and they are slow */
        } else {
            alpha[t] = l[t] > 0 ? 1 : 0;
        }
    }
    for (int t = 0; t + 1 < s->T; t++)
        mask[t] = s->mode == DMC_MODE_SOFT ? log_sigmoid(-l[t + 1]) : alpha[t + 1] > 0 ? -INFINITY : 0;
    mask[s->T - 1] = 0;
}

typedef struct {
    dmc_segment segment[2];
    int n;
    int64_t delay;
} keys;

static keys keys_of(const dmc_attention_shape *s, const dmc_attention_saved *a, int b, int h, const float *v)
{
    int64_t at = ((int64_t)b * s->H + h) * s->T, D = s->D;
    keys x = {.delay = s->mode == DMC_MODE_PLAIN ? s->T : s->policy.delay};
    if (s->mode != DMC_MODE_PLAIN)
        x.segment[x.n++] = (dmc_segment){.kind = DMC_SEG_SETTLED,
                                         .k = a->y_rot + at * D,
                                         .v = a->y + at * 2 * D + D,
                                         .ld_k = D,
                                         .ld_v = 2 * D,
                                         .n = s->T,
                                         .mask = a->mask + at};
    if (has_raw(s))
        x.segment[x.n++] = (dmc_segment){.kind = DMC_SEG_RAW,
                                         .k = a->k_rot + at * D,
                                         .v = v + ((int64_t)b * s->T * s->H + h) * D,
                                         .ld_k = D,
                                         .ld_v = (int64_t)s->H * D,
                                         .n = s->T};
    return x;
}

/* Fills one attention call for the query lanes [lane, lane + 16) of T*G. */
static dmc_attend_args lanes_from(const dmc_attention_shape *s, const dmc_attention_saved *a, const keys *x, int b,
                                  int h, int lane, float *out, float *scratch)
{
    int64_t D = s->D, at = ((int64_t)b * s->H + h) * s->T * s->G;
    int n = s->T * s->G - lane < DMC_LANES ? s->T * s->G - lane : DMC_LANES;
    dmc_attend_args c = {.head_dim = s->D,
                         .n_lanes = n,
                         .delay = x->delay,
                         .segments = x->segment,
                         .n_segments = x->n,
                         .scratch = scratch};
    for (int j = 0; j < n; j++) {
        int t = (lane + j) / s->G, g = (lane + j) % s->G;
        c.q[j] = a->q_rot + (at + lane + j) * D;
        c.i[j] = t;
        c.out[j] = out + (((int64_t)b * s->T + t) * s->H * s->G + (int64_t)h * s->G + g) * D;
        c.lse[j] = a->lse + at + lane + j;
    }
    return c;
}

void dmc_attention_forward(const dmc_attention_shape *s, dmc_attention_saved *a, int b, int h, const float *q,
                           const float *k, const float *v, float *out, float *scratch)
{
    int D = s->D, ch = s->policy.channel;
    int64_t ld_q = (int64_t)s->H * s->G * D, ld_k = (int64_t)s->H * D, at = ((int64_t)b * s->H + h) * s->T;
    float in = s->mode == DMC_MODE_PLAIN ? s->channel_scale : 0;
    const float *qh = q + (int64_t)b * s->T * ld_q + (int64_t)h * s->G * D;
    const float *kh = k + (int64_t)b * s->T * ld_k + (int64_t)h * D,
                *vh = v + (int64_t)b * s->T * ld_k + (int64_t)h * D;

    for (int t = 0; t < s->T; t++) {
        for (int g = 0; g < s->G; g++)
            rotate_scaled(s->rope, ch, in, false, t, qh + t * ld_q + g * D, a->q_rot + ((at + t) * s->G + g) * D);
        if (has_raw(s)) rotate_scaled(s->rope, ch, in, false, t, kh + t * ld_k, a->k_rot + (at + t) * D);
    }
    if (s->mode != DMC_MODE_PLAIN) {
        dmc_gates(&s->policy, D, s->G, s->T, qh, ld_q, kh, ld_k, a->l + at, a->omega + at);
        decide(s, a->noise ? a->noise + at : NULL, a->l + at, a->alpha + at, a->mask + at);
        dmc_accumulator acc = {.sum = scratch, .ring = scratch + 2 * D};
        dmc_accumulator_reset(&s->policy, D, &acc);
        dmc_settle(&s->policy, D, s->T, a->alpha + at, a->omega + at, kh, ld_k, vh, ld_k, &acc, a->y + at * 2 * D,
                   a->z + at);
        for (int t = 0; t < s->T; t++)
            dmc_rotate_without(s->rope, ch, t, a->y + (at + t) * 2 * D, a->y_rot + (at + t) * D);
    }
    keys x = keys_of(s, a, b, h, v);
    for (int lane = 0; lane < s->T * s->G; lane += DMC_LANES) {
        dmc_attend_args c = lanes_from(s, a, &x, b, h, lane, out, scratch);
        s->kernels->attend(&c);
    }
}

static float dot(int n, const float *a, const float *b)
{
    float s = 0;
    for (int i = 0; i < n; i++) s += a[i] * b[i];
    return s;
}

/* One token's x = [k without channel; v]. */
static void token(int D, int ch, const float *k, const float *v, float *x)
{
    memcpy(x, k, (size_t)D * sizeof(float));
    memcpy(x + D, v, (size_t)D * sizeof(float));
    x[ch] = 0;
}

/* Pooling backward, W = 0: the reverse scan. g = dy on entry, dx on return.
 *   N_t = alpha_t N_{t-1} + w_t x_t;  Z_t = alpha_t Z_{t-1} + w_t;  y_t = N_t / Z_t
 *   dN_t = g_t/Z_t + alpha_{t+1} dN_{t+1};  dZ_t = -(g_t.y_t)/Z_t + alpha_{t+1} dZ_{t+1} */
static void pool_backward_scan(int D, int ch, int T, const float *alpha, const float *omega, const float *z,
                               const float *y, const float *k, const float *v, int64_t ld, float *g, float *d_omega,
                               float *d_alpha, float *tmp)
{
    int n = 2 * D;
    float *d_n = tmp, *x = tmp + n, d_z = 0;
    memset(d_n, 0, (size_t)n * sizeof(float));
    for (int t = T - 1; t >= 0; t--) {
        float next = t + 1 < T ? alpha[t + 1] : 0, inv = 1 / z[t];
        float *gt = g + (int64_t)t * n;
        d_z = next * d_z - dot(n, gt, y + (int64_t)t * n) * inv;
        for (int i = 0; i < n; i++) d_n[i] = gt[i] * inv + next * d_n[i];
        token(D, ch, k + t * ld, v + t * ld, x);
        d_omega[t] = dot(n, d_n, x) + d_z;
        d_alpha[t] = t ? (dot(n, d_n, y + (int64_t)(t - 1) * n) + d_z) * z[t - 1] : 0; /* N_{t-1} = y_{t-1} Z_{t-1} */
        for (int i = 0; i < n; i++) gt[i] = omega[t] * d_n[i];
    }
}

/* Pooling backward with a window: y_i = sum_j c_{i,j} w_{i-j} x_{i-j} / Z_i.
 *   e_j = w_{i-j} g.(x_{i-j} - y_i) / Z_i;  dalpha_{i-m} += prod_{m'<m} alpha_{i-m'} (e_{m+1} + alpha_{i-m-1} (e_{m+2} + ...)) */
static void pool_backward_window(int D, int ch, int T, int W, const float *alpha, const float *omega, const float *z,
                                 const float *y, const float *k, const float *v, int64_t ld, float *g, float *d_omega,
                                 float *d_alpha, float *tmp)
{
    int n = 2 * D;
    float *x = tmp, *gi = tmp + n;
    memset(d_omega, 0, (size_t)T * sizeof(float));
    memset(d_alpha, 0, (size_t)T * sizeof(float));
    for (int i = 0; i < T;
         i++) { /* dx of token i is complete only after tokens up to i + W - 1: collect in place, g_i saved first */
        const float *yi = y + (int64_t)i * n;
        float inv = 1 / z[i], c = 1, e[256];
        int reach = i + 1 < W ? i + 1 : W;
        for (int d = 0; d < n; d++) gi[d] = g[(int64_t)i * n + d] * inv;
        memset(g + (int64_t)i * n, 0, (size_t)n * sizeof(float));
        float gy = dot(n, gi, yi);
        for (int j = 0; j < reach; j++) {
            int t = i - j;
            token(D, ch, k + t * ld, v + t * ld, x);
            float f = dot(n, gi, x) - gy;
            float *dx = g + (int64_t)t * n;
            for (int d = 0; d < n; d++) dx[d] += c * omega[t] * gi[d];
            d_omega[t] += c * f;
            e[j] = omega[t] * f;
            c *= alpha[t];
        }
        float rest = 0;
        for (int m = reach - 2; m >= 0;
             m--) { /* e[m + 1] + alpha_{i-m-1} (...), turned into its own array from the end */
            rest = e[m + 1] + (m + 2 < reach ? alpha[i - m - 1] * rest : 0);
            e[m + 1] = rest;
        }
        float before = 1;
        for (int m = 0; m + 1 < reach; m++) {
            d_alpha[i - m] += before * e[m + 1];
            before *= alpha[i - m];
        }
    }
}

void dmc_attention_backward(const dmc_attention_shape *s, const dmc_attention_saved *a, int b, int h, const float *q,
                            const float *k, const float *v, const float *out, const float *d_out, float d_alpha_all,
                            int n_counted, float *d_q, float *d_k, float *d_v, float *scratch)
{
    int D = s->D, T = s->T, ch = s->policy.channel;
    int64_t ld_q = (int64_t)s->H * s->G * D, ld = (int64_t)s->H * D, at = ((int64_t)b * s->H + h) * T;
    int64_t row_q = (int64_t)b * T * ld_q + (int64_t)h * s->G * D, row = (int64_t)b * T * ld + (int64_t)h * D;
    bool plain = s->mode == DMC_MODE_PLAIN;
    float in = plain ? s->channel_scale : 0;
    (void)q;

    float *m = scratch + dmc_attend_scratch(D, 2 * T);
    float *dy = take(&m, (size_t)T * 2 * D), *dy_rot = take(&m, (size_t)T * D), *dk_rot = take(&m, (size_t)T * D);
    float *d_omega = take(&m, (size_t)T), *d_alpha = take(&m, (size_t)T), *d_mask = take(&m, (size_t)T),
          *dq_rot = take(&m, 16 * (size_t)D);
    float *tmp = take(&m, 4 * (size_t)D);
    memset(dy, 0, (size_t)(dq_rot - dy) * sizeof(float));
    for (int t = 0; t < T; t++) memset(d_v + row + t * ld, 0, (size_t)D * sizeof(float));

    keys x = keys_of(s, a, b, h, v);
    float *dks[2], *dvs[2], *dms[2] = {NULL, NULL};
    int n = 0;
    if (!plain) dks[n] = dy_rot, dvs[n] = dy + D, dms[n] = d_mask, n++;
    if (has_raw(s)) dks[n] = dk_rot, dvs[n] = d_v + row;
    for (int lane = 0; lane < T * s->G; lane += DMC_LANES) {
        /* out is only read here */
        dmc_attend_args c = lanes_from(s, a, &x, b, h, lane, (float *)(uintptr_t)out, scratch);
        dmc_attend_grad_args g = {.forward = &c, .d_k = dks, .d_v = dvs, .d_mask = dms};
        for (int j = 0; j < c.n_lanes; j++) {
            g.d_out[j] = d_out + (c.out[j] - out);
            g.d_q[j] = dq_rot + j * D;
        }
        s->kernels->attend_grad(&g);
        for (int j = 0; j < c.n_lanes; j++) {
            int t = (lane + j) / s->G, head = (lane + j) % s->G;
            rotate_scaled(s->rope, ch, in, true, t, g.d_q[j], d_q + row_q + t * ld_q + head * D);
        }
    }
    for (int t = 0; t < T; t++) { /* the raw key of the recent window, or of plain attention */
        float *dst = d_k + row + t * ld;
        if (has_raw(s)) rotate_scaled(s->rope, ch, in, true, t, dk_rot + (int64_t)t * D, dst);
        else memset(dst, 0, (size_t)D * sizeof(float));
    }
    if (plain) return;

    for (int t = 0; t < T; t++)
        rotate_scaled(s->rope, ch, 0, true, t, dy_rot + (int64_t)t * D, dy + (int64_t)t * 2 * D);
    const float *alpha = a->alpha + at, *omega = a->omega + at;
    if (s->policy.window)
        pool_backward_window(D, ch, T, s->policy.window, alpha, omega, a->z + at, a->y + at * 2 * D, k + row, v + row,
                             ld, dy, d_omega, d_alpha, tmp);
    else
        pool_backward_scan(D, ch, T, alpha, omega, a->z + at, a->y + at * 2 * D, k + row, v + row, ld, dy, d_omega,
                           d_alpha, tmp);
    for (int t = 0; t < T; t++) {
        float *kt = d_k + row + t * ld, *vt = d_v + row + t * ld, *xt = dy + (int64_t)t * 2 * D;
        for (int i = 0; i < D; i++) kt[i] += xt[i], vt[i] += xt[D + i];
        /* l_t = (k_t[ch] - c + noise) / tau: through alpha_t, and through M_{t-1} = log(1 - alpha_t) */
        float da = d_alpha[t] + (t < n_counted ? d_alpha_all : 0);
        kt[ch] = (alpha[t] * (1 - alpha[t]) * da - (t ? alpha[t] * d_mask[t - 1] : 0)) / s->tau;
        float sig = omega[t] - s->policy.eps, dw = sig * (1 - sig) * d_omega[t] / (float)s->G;
        for (int g = 0; g < s->G; g++)
            d_q[row_q + t * ld_q + g * D + ch] = dw; /* w_t = sigmoid(mean_j q_j[ch] + c) + eps */
    }
}
