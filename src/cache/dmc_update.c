/* The DMC update. The header has the equations. */
#include "cache/dmc_update.h"

#include <math.h>
#include <string.h>

/* The mean of one channel of n heads that lie side by side. */
static float mean_channel(const float *heads, int n, int head_dim, int channel)
{
    float sum = 0;
    for (int j = 0; j < n; j++) sum += heads[j * head_dim + channel];
    return sum / (float)n;
}

/* Decision on token t of the timeline; q, k: its rows. */
static float decision(const dmc_policy *p, const dmc_gate_rows *x, int64_t t, const float *q, const float *k)
{
    bool dms = p->kind == DMC_POLICY_DMS;
    int64_t D = x->head_dim;
    dmc_decision from = p->kind == DMC_POLICY_FMP ? DMC_DECISION_PERIOD : p->decision;
    switch (from) {
    case DMC_DECISION_LAYER: return mean_channel(k, x->n_kv_heads, x->head_dim, p->channel) - p->offset;
    case DMC_DECISION_ADAPTER: return p->scale * x->adapter[(t - x->t0) * x->n_kv_heads + x->ih] - p->offset;
    case DMC_DECISION_PERIOD: return t % p->period ? 1 : -1;
    case DMC_DECISION_NOISE:
        return dmc_uniform(0, (uint64_t)x->il * (uint64_t)x->n_kv_heads + (uint64_t)x->ih, (uint64_t)t) * p->period > 1
                   ? 1
                   : -1;
    default:
        return dms ? p->scale * q[x->ih * x->group * D + p->channel] - p->offset
                   : k[x->ih * D + p->channel] - p->offset;
    }
}

void dmc_gates(const dmc_policy *p, const dmc_gate_rows *x, float *logit, float *omega)
{
    int64_t D = x->head_dim;
    for (int64_t r = 0; r < x->T; r++) {
        const float *q = x->q + r * x->ld_q, *k = x->k + r * x->ld_k;
        logit[r] = decision(p, x, x->t0 + r, q, k);
        omega[r] = 1;
        if (p->kind != DMC_POLICY_DMC) continue;
        float mean = mean_channel(q + x->ih * x->group * D, x->group, x->head_dim, p->channel);
        omega[r] = 1.0f / (1.0f + expf(-(mean + p->offset))) + p->eps;
    }
}

int dmc_key_channel(const dmc_policy *p) { return p->kind == DMC_POLICY_DMC ? p->channel : -1; }

int dmc_query_channel(const dmc_policy *p, int j)
{
    bool borrowed = p->kind == DMC_POLICY_DMS && p->decision != DMC_DECISION_ADAPTER && j == 0;
    return p->kind == DMC_POLICY_DMC || borrowed ? p->channel : -1;
}

bool dmc_decides(const dmc_policy *p) { return p->kind == DMC_POLICY_DMS || dmc_pools(p); }

bool dmc_pools(const dmc_policy *p) { return p->kind == DMC_POLICY_DMC || p->kind == DMC_POLICY_FMP; }

static size_t ring_entry(int head_dim) { return 2 * (size_t)head_dim + 2; }

size_t dmc_accumulator_floats(const dmc_policy *p, int head_dim)
{
    return 2 * (size_t)head_dim + (size_t)p->window * ring_entry(head_dim);
}

void dmc_accumulator_reset(const dmc_policy *p, int head_dim, dmc_accumulator *a)
{
    memset(a->sum, 0, 2 * (size_t)head_dim * sizeof(float));
    if (p->window) memset(a->ring, 0, (size_t)p->window * ring_entry(head_dim) * sizeof(float));
    a->z = a->omega = 0;
    a->n_run = a->count = 0;
}

/* N_t and Z_t of a windowed run, newest token first: a dead product of alphas ends the run. */
static void sum_window(const dmc_policy *p, int n, dmc_accumulator *a)
{
    size_t entry = ring_entry(n / 2);
    int64_t reach = a->count < p->window ? a->count : p->window;
    const float *e = a->ring + (size_t)((a->count - 1) % p->window) * entry;
    memcpy(a->sum, e, (size_t)n * sizeof(float));
    a->z = e[n];
    float c = e[n + 1];
    for (int64_t j = 1; j < reach && c != 0; j++) {
        e = a->ring + (size_t)((a->count - 1 - j) % p->window) * entry;
        for (int i = 0; i < n; i++) a->sum[i] += c * e[i];
        a->z += c * e[n];
        c *= e[n + 1];
    }
}

void dmc_settle(const dmc_policy *p, int head_dim, int64_t T, const float *alpha, const float *omega, const float *k,
                int64_t ld_k, const float *v, int64_t ld_v, dmc_accumulator *a, float *y, float *z)
{
    int n = 2 * head_dim, channel = dmc_key_channel(p);
    for (int64_t t = 0; t < T; t++, y += n) {
        float al = a->count ? alpha[t] : 0, w = omega[t];
        float *x = p->window ? a->ring + (size_t)(a->count % p->window) * ring_entry(head_dim) : y; /* w_t x_t */
        for (int i = 0; i < head_dim; i++) x[i] = w * k[t * ld_k + i];
        for (int i = 0; i < head_dim; i++) x[head_dim + i] = w * v[t * ld_v + i];
        if (channel >= 0) x[channel] = 0;
        a->omega = w;
        a->count++;
        a->n_run = al > 0.5f ? a->n_run + 1 : 1;
        if (p->window) {
            x[n] = w;
            x[n + 1] = al;
            sum_window(p, n, a);
        } else {
            for (int i = 0; i < n; i++) a->sum[i] = al * a->sum[i] + x[i];
            a->z = al * a->z + w;
        }
        for (int i = 0; i < n; i++) y[i] = a->sum[i] / a->z;
        if (z) z[t] = a->z;
    }
}

void dmc_rotate_without(const dmc_rope *r, int channel, int64_t pos, const float *x, float *y)
{
    if (channel < 0) {
        dmc_rope_apply(r, pos, x, y);
        return;
    }
    if (y != x) memcpy(y, x, (size_t)r->head_dim * sizeof(float));
    y[channel] = 0;
    dmc_rope_apply(r, pos, y, y);
    y[channel] = 0;
}
