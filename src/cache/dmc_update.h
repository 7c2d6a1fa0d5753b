/* The DMC update (arXiv 2403.09636, section 3): decide, then append or accumulate. One KV head.
 *
 *     a_t = k_t[ch] - c                            decision logit; merge iff a_t > 0
 *     w_t = sigmoid(mean_j q_{t,j}[ch] + c) + eps  importance, mean over the query heads of the group
 *     N_t = alpha_t N_{t-1} + w_t x_t              x = [k; v] un-rotated, channel of k zeroed   (W = 0)
 *     Z_t = alpha_t Z_{t-1} + w_t
 *     y_t = N_t / Z_t                              slot = (RoPE_t(key half), value half), channel zeroed again
 *
 * With a window W > 0, N_t = sum_{j < W} c_j w_{t-j} x_{t-j}, c_0 = 1, c_j = alpha_t ... alpha_{t-j+1}: at most the last W tokens of a run.
 * Serving calls these functions with alpha in {0, 1}, training with soft alpha or, to measure, hard ones: the same code, the same bits.
 */
#ifndef DMC_UPDATE_H
#define DMC_UPDATE_H

#include "kernels/rope.h"

/* Gates of T tokens. q: row t at q + t*ld_q, its `group` heads at stride head_dim; k: row t at k + t*ld_k. -> logit [T], omega [T]. */
void dmc_gates(const dmc_policy *p, int head_dim, int group, int64_t T, const float *q, int64_t ld_q, const float *k,
               int64_t ld_k, float *logit, float *omega);

/* The open accumulator of a head: all that is needed to go on merging. */
typedef struct {
    float *sum;    /* [2 * head_dim] N of the newest settled token (W = 0) */
    float z;       /* its Z */
    int64_t n_run; /* tokens in the open run, beyond W too; 0: nothing has settled */
    int64_t count; /* tokens settled so far */
    float *ring;   /* W > 0: [W][2 * head_dim + 2]: w x, w and alpha of the last W settled tokens; token r at r % W */
} dmc_accumulator;

/* Floats of sum and ring for this policy. */
size_t dmc_accumulator_floats(const dmc_policy *p, int head_dim);
void dmc_accumulator_reset(const dmc_policy *p, int head_dim, dmc_accumulator *a);

/* Settles T tokens one after the other. alpha [T] (alpha of a head's very first token is taken as 0), omega [T]; k, v rows un-rotated.
 * -> y [T][2*head_dim]: pooled states before RoPE, channel of the key half 0; z [T] (may be NULL). `a` is left as after the last token. */
void dmc_settle(const dmc_policy *p, int head_dim, int64_t T, const float *alpha, const float *omega, const float *k,
                int64_t ld_k, const float *v, int64_t ld_v, dmc_accumulator *a, float *y, float *z);

/* y = RoPE_pos(x without the channel) without the channel. x may be y. */
void dmc_rotate_without(const dmc_rope *r, int channel, int64_t pos, const float *x, float *y);

#endif
