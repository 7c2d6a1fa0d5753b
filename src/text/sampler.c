/* Sampling the next token: temperature, then the k most likely, then the nucleus. The random numbers depend on the
 * seed and on how many tokens were drawn, on nothing else. A logit that is not a number has no chance; where some
 * are infinite, they share all of it. */
#include "base/base.h"

#include <math.h>
#include <stdlib.h>

#define STREAM 0x73616D706C65 /* of dmc_uniform */

typedef struct {
    float logit;
    int32_t id;
} candidate;

struct dmc_sampler {
    dmc_sampler_options options;
    int n_vocab;
    uint64_t n_drawn;
    candidate *candidates; /* [n_vocab] */
    double *weights;       /* [n_vocab] */
};

dmc_sampler_options dmc_sampler_options_default(void)
{
    return (dmc_sampler_options){.temp = 0.8f, .top_k = 0, .top_p = 0.95f, .seed = 0};
}

dmc_status dmc_sampler_create(dmc_sampler **out, int n_vocab, const dmc_sampler_options *opts)
{
    *out = NULL;
    dmc_sampler_options o = opts ? *opts : dmc_sampler_options_default();
    if (n_vocab < 1) return dmc_fail(DMC_ERR_ARG, "a sampler for %d tokens", n_vocab);
    if (!(o.temp >= 0) || isinf(o.temp))
        return dmc_fail(DMC_ERR_ARG, "temperature %g: it must be 0 (greedy) or more", (double)o.temp);
    if (!(o.top_p >= 0 && o.top_p <= 1))
        return dmc_fail(DMC_ERR_ARG, "top-p %g: it must be between 0 and 1 (off)", (double)o.top_p);
    if (o.top_k < 0) return dmc_fail(DMC_ERR_ARG, "top-k %d: it must be 0 (off) or more", o.top_k);
    dmc_sampler *s = dmc_calloc(1, sizeof *s);
    if (!s) return dmc_fail(DMC_ERR_MEMORY, "out of memory: sampler");
    s->options = o;
    s->n_vocab = n_vocab;
    s->candidates = dmc_malloc((size_t)n_vocab, sizeof *s->candidates);
    s->weights = dmc_malloc((size_t)n_vocab, sizeof *s->weights);
    if (!s->candidates || !s->weights) {
        dmc_sampler_close(s);
        return dmc_fail(DMC_ERR_MEMORY, "out of memory: sampler of %d tokens", n_vocab);
    }
    *out = s;
    return DMC_OK;
}

void dmc_sampler_close(dmc_sampler *s)
{
    if (!s) return;
    dmc_free(s->candidates);
    dmc_free(s->weights);
    dmc_free(s);
}

/* The id of the greatest logit, the lowest of equals; 0 if none is a number. */
static int32_t greatest(const float *logits, int n)
{
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        if (logits[i] > logits[best] || (isnan(logits[best]) && !isnan(logits[i]))) best = i;
    return best;
}

/* Descending by logit, ascending by id. */
static int compare(const void *pa, const void *pb)
{
    const candidate *a = pa, *b = pb;
    if (a->logit != b->logit) return a->logit > b->logit ? -1 : 1;
    return (a->id > b->id) - (a->id < b->id);
}

/* Moves the k first in the order of `compare` to the front, unordered: quickselect, without its worst case for equal
 * logits since no two candidates are equal. */
static void select_first(candidate *c, int n, int k)
{
    for (int low = 0, high = n - 1; low < high;) {
        candidate pivot = c[low + (high - low) / 2];
        int i = low, j = high;
        while (i <= j) {
            while (compare(&c[i], &pivot) < 0) i++;
            while (compare(&c[j], &pivot) > 0) j--;
            if (i <= j) {
                candidate swap = c[i];
                c[i++] = c[j];
                c[j--] = swap;
            }
        }
        if (k - 1 <= j) high = j;
        else if (k - 1 >= i) low = i;
        else return;
    }
}

/* exp((logit - max) / temp) of each candidate; returns their sum, at least 1 as the greatest is among them. */
static double weigh(double *weights, const candidate *c, int n, float max, float temp)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        weights[i] = isinf(max) ? c[i].logit == max : exp(((double)c[i].logit - (double)max) / (double)temp);
        sum += weights[i];
    }
    return sum;
}

/* Keeps the most likely candidates, sorted, that together reach the fraction p of the sum; at least one. Returns how
 * many. */
static int nucleus(double *weights, candidate *c, int n, double *sum, float max, const dmc_sampler_options *o)
{
    /* A weight this small is outside: if it were the nucleus' last, those below it would not fill the rest. */
    double floor_weight = (1.0 - (double)o->top_p) * *sum / n;
    int kept = 0;
    for (int i = 0; i < n; i++)
        if (weights[i] >= floor_weight) c[kept++] = c[i];
    qsort(c, (size_t)kept, sizeof *c, compare);
    weigh(weights, c, kept, max, o->temp);
    double goal = (double)o->top_p * *sum, reached = 0;
    int i = 0;
    do {
        reached += weights[i++];
    } while (i < kept && reached < goal);
    *sum = reached;
    return i;
}

int32_t dmc_sample(dmc_sampler *s, const float *logits)
{
    const dmc_sampler_options *o = &s->options;
    int32_t best = greatest(logits, s->n_vocab);
    if (o->temp == 0 || isnan(logits[best])) return best;
    float max = logits[best];
    int n = 0;
    for (int32_t i = 0; i < s->n_vocab; i++)
        if (!isnan(logits[i])) s->candidates[n++] = (candidate){logits[i], i};
    if (o->top_k > 0 && o->top_k < n) {
        select_first(s->candidates, n, o->top_k);
        n = o->top_k;
        qsort(s->candidates, (size_t)n, sizeof *s->candidates, compare);
    }
    double sum = weigh(s->weights, s->candidates, n, max, o->temp);
    if (o->top_p < 1) n = nucleus(s->weights, s->candidates, n, &sum, max, o);

    double left = dmc_uniform(o->seed, STREAM, s->n_drawn++) * sum;
    int last = 0; /* the last one with any chance: rounding may leave a remainder */
    for (int i = 0; i < n; i++) {
        if (s->weights[i] <= 0) continue;
        last = i;
        left -= s->weights[i];
        if (left < 0) break;
    }
    return s->candidates[last].id;
}
