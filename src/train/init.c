/* Initial weights. */
#include "train/init.h"

#include <math.h>
#include <string.h>

void dmc_init_weights(dmc_checkpoint *model, uint64_t seed)
{
    for (size_t i = 0; i < model->n_tensors; i++) {
        dmc_tensor *t = &model->tensors[i];
        float *w = (float *)(uintptr_t)t->data; /* a created checkpoint is writable */
        bool residual = strstr(t->name, "o_proj.weight") || strstr(t->name, "down_proj.weight");
        double deviation =
            0.6 / sqrt((double)t->shape[t->n_dims - 1]) / (residual ? sqrt(2.0 * model->config.n_layers) : 1);
        uint64_t stream = dmc_checksum(t->name, strlen(t->name), 0);
        int64_t n = t->n_dims == 1 ? t->shape[0] : t->shape[0] * t->shape[1];
        bool gain = t->n_dims == 1 && strstr(t->name, "norm");
        for (int64_t j = 0; j < n; j++)
            w[j] = t->n_dims == 2 ? (float)(deviation * dmc_normal(seed, stream, (uint64_t)j)) : gain ? 1.0f : 0.0f;
    }
}
