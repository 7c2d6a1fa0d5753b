/* The DMC update (arXiv 2403.09636, section 3): decide, then append or accumulate. One KV head.
 *
 *     a_t = k_t[ch] - c                            decision logit; merge iff a_t > 0
 *     w_t = sigmoid(mean_j q_{t,j}[ch] + c) + eps  importance, mean over the query heads of the group
 *     N_t = alpha_t N_{t-1} + w_t x_t              x = [k; v] un-rotated, channel of k zeroed   (W = 0)
 *     Z_t = alpha_t Z_{t-1} + w_t
 *     y_t = N_t / Z_t                              slot = (RoPE_t(key half), value half), channel zeroed again
 *
 * With a window W > 0, N_t = sum_{j < W} c_j w_{t-j} x_{t-j}, c_0 = 1, c_j = alpha_t ... alpha_{t-j+1}: at most the last W tokens of a run.
 * DMS (arXiv 2506.05345) is the same machine with other gates: a_t = s q_t[ch] - c of the group's first query head, or from an adapter, and
 * y_t = x_t: a slot that is 'merged into' is overwritten, which evicts the token before t once t leaves the window. FMP is DMC with
 * a_t by a rule, w_t = 1 and no channel taken away.
 *
 * Serving calls these functions with alpha in {0, 1}, training with soft alpha or, to measure, hard ones: the same code, the same bits.
 */
#ifndef DMC_UPDATE_H
#define DMC_UPDATE_H

#include "kernels/rope.h"

/* What the gates of T tokens of a KV head are made from. Rows are whole: all heads of the layer, un-rotated. */
typedef struct {
    int head_dim, group, n_kv_heads;
    int il, ih;
    int64_t T, t0;        /* t0: index of the first of the tokens on its timeline */
    const float *q, *k;   /* [T][n_kv_heads * group * head_dim], [T][n_kv_heads * head_dim] */
    int64_t ld_q, ld_k;   /* their row strides */
    const float *adapter; /* [T][n_kv_heads] (decision 'adapter'), else NULL */
} dmc_gate_rows;

/* -> logit [T], of which a positive one merges (or evicts), and omega [T]. The window and the shift of DMS are not looked at. */
void dmc_gates(const dmc_policy *p, const dmc_gate_rows *x, float *logit, float *omega);

/* The channel that never reaches attention, of the keys and of query head j of a group; -1: all do. */
int dmc_key_channel(const dmc_policy *p);
int dmc_query_channel(const dmc_policy *p, int j);

/* Whether tokens settle by a decision; else all are appended. */
bool dmc_decides(const dmc_policy *p);

/* Whether merged slots are averages: dmc, fmp. Else a slot is one token. */
bool dmc_pools(const dmc_policy *p);

/* The open accumulator of a head: all that is needed to go on merging. */
typedef struct {
    float *sum;    /* [2 * head_dim] N of the newest settled token (W = 0) */
    float z;       /* its Z */
    int64_t n_run; /* tokens in the open run, beyond W too; 0: nothing has settled */
    int64_t count; /* tokens settled so far */
    float omega;   /* of the newest settled token; no part of a sequence's file */
    float *ring;   /* W > 0: [W][2 * head_dim + 2]: w x, w and alpha of the last W settled tokens; token r at r % W */
} dmc_accumulator;

/* Floats of sum and ring for this policy, which pools. */
size_t dmc_accumulator_floats(const dmc_policy *p, int head_dim);
void dmc_accumulator_reset(const dmc_policy *p, int head_dim, dmc_accumulator *a);

/* Settles T tokens one after the other. alpha [T] (alpha of a head's very first token is taken as 0), omega [T]; k, v rows un-rotated.
 * -> y [T][2*head_dim]: pooled states before RoPE, channel of the key half 0; z [T] (may be NULL). `a` is left as after the last token. */
void dmc_settle(const dmc_policy *p, int head_dim, int64_t T, const float *alpha, const float *omega, const float *k,
                int64_t ld_k, const float *v, int64_t ld_v, dmc_accumulator *a, float *y, float *z);

/* y = RoPE_pos(x without the channel) without the channel; channel -1: all of it. x may be y. */
void dmc_rotate_without(const dmc_rope *r, int channel, int64_t pos, const float *x, float *y);

#endif
