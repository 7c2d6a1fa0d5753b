/* AdamW (Loshchilov & Hutter 2019). */
#include "train/optim.h"

#include <math.h>

dmc_adamw dmc_adamw_default(void)
{
    return (dmc_adamw){
        .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .weight_decay = 0.1f, .clip = 1, .decision_scale = 1};
}

double dmc_adamw_step(const dmc_adamw *o, const dmc_layout *l, const dmc_kernels *kn, int head_dim, int channel,
                      float *w, const float *g, float *m, float *v, int64_t step, float lr)
{
    enum { PARTS = 4096 }; /* cut by the size alone: the sum does not depend on the threads */
    int64_t n = (int64_t)l->n_floats, part = n / PARTS > 1 << 14 ? n / PARTS + 1 : 1 << 14,
            parts = (n + part - 1) / part;
    double norm = 0, sums[PARTS + 1];
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < parts; i++) {
        double s = 0;
        for (int64_t j = i * part; j < n && j < (i + 1) * part; j++) s += (double)g[j] * g[j];
        sums[i] = s;
    }
    for (int64_t i = 0; i < parts; i++) norm += sums[i];
    norm = sqrt(norm);
    float clip = o->clip > 0 && norm > o->clip ? (float)(o->clip / norm) : 1;
    float c1 = 1 - powf(o->beta1, (float)step), c2 = 1 - powf(o->beta2, (float)step);
    for (int ip = 0; ip < l->n_params; ip++) {
        const dmc_param *p = &l->params[ip];
        float wd = p->n_dims > 1 ? o->weight_decay : 0;
#pragma omp parallel for schedule(static)
        for (int64_t r = 0; r < p->rows; r++) {
            size_t at = p->at + (size_t)(r * p->cols);
            float rate = p->decision && channel >= 0 && r % head_dim == channel ? lr * o->decision_scale : lr;
            kn->adamw(p->cols, w + at, g + at, m + at, v + at, clip, rate, o->beta1, o->beta2, o->eps, wd, c1, c2);
        }
    }
    return norm;
}
