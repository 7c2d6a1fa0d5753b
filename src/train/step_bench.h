/* What one training step costs: random weights, random tokens; forward, loss, backward, AdamW. */
#ifndef DMC_STEP_BENCH_H
#define DMC_STEP_BENCH_H

#include "format/config.h"
#include "kernels/ops.h"

/* n_steps steps over B sequences of T tokens of a model of this shape (the first ones meet cold memory: leave one out). dmc: with
 * c->policy's soft decisions, else plain attention. recompute: activations are computed again in the backward pass.
 * -> seconds [n_steps] of each step; bytes: all that a step holds, i.e. parameters, gradients, moments and activations. */
dmc_status dmc_step_bench(const dmc_config *c, const dmc_cpu *cpu, dmc_math math, int B, int T, bool dmc,
                          bool recompute, int n_steps, double *seconds, size_t *bytes);

#endif
