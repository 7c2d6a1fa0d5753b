/* Attention over typed pages, in plain loops that define correct: online softmax, one key after the other. */
#include "kernels/kv_layout.h"
#include "kernels/tiers.h"

#include <math.h>
#include <string.h>

/* What a row has seen so far: out is the sum of exp(score - top) v, sum that of exp(score - top). */
typedef struct {
    float top, sum;
} seen;

static void look(seen *s, int D, const float *q, const float *k, const float *v, float *out)
{
    float score = 0;
    for (int d = 0; d < D; d++) score += q[d] * k[d];
    score /= sqrtf((float)D);
    if (score == -INFINITY) return;
    float top = score > s->top ? score : s->top, old = s->sum != 0 ? expf(s->top - top) : 0, p = expf(score - top);
    for (int d = 0; d < D; d++) out[d] = out[d] * old + p * v[d];
    *s = (seen){.top = top, .sum = s->sum * old + p};
}

static void finish(const seen *s, int D, float *out)
{
    for (int d = 0; d < D && s->sum != 0; d++) out[d] /= s->sum;
}

void dmc_attend_slots_ref(const dmc_attend_slots_args *a)
{
    int D = a->head_dim;
    float *k = a->scratch, *v = k + D;
    seen s[DMC_LANES];
    for (int l = 0; l < a->n_lanes; l++) {
        s[l] = (seen){.top = -INFINITY};
        memset(a->out[l], 0, (size_t)D * sizeof(float));
    }
    for (int64_t i = 0; i < a->n_slots; i++) {
        const dmc_kv_page *p = &a->pages[i / DMC_PAGE_SLOTS];
        dmc_kv_get(a->type, D, p->k, p->v, (int)(i % DMC_PAGE_SLOTS), k, v);
        for (int l = 0; l < a->n_lanes; l++) look(&s[l], D, a->q[l], k, v, a->out[l]);
    }
    for (int l = 0; l < a->n_lanes; l++) {
        finish(&s[l], D, a->out[l]);
        *a->lse[l] = s[l].top + logf(s[l].sum);
    }
}

void dmc_attend_chunk_ref(const dmc_attend_chunk_args *a)
{
    int D = a->head_dim;
    float *k = a->scratch, *v = k + D;
    for (int64_t r = 0; r < a->n_rows; r++) {
        const float *q = a->q + r * D;
        float *out = a->out + r * D;
        seen s = {.top = -INFINITY};
        memset(out, 0, (size_t)D * sizeof(float));
        for (int64_t i = 0; i < a->n_slots; i++) {
            const dmc_kv_page *p = &a->pages[i / DMC_PAGE_SLOTS];
            dmc_kv_get(a->type, D, p->k, p->v, (int)(i % DMC_PAGE_SLOTS), k, v);
            look(&s, D, q, k, v, out);
        }
        int64_t token = r / a->group;
        for (int e = 0; e < a->n_keys; e++) {
            const dmc_chunk_keys *c = &a->keys[e];
            for (int64_t i = 0; i < c->n; i++)
                if (c->from[i] <= token && token < c->to[i])
                    look(&s, D, q, c->k + i * c->ld_k, c->v + i * c->ld_v, out);
        }
        finish(&s, D, out);
    }
}
