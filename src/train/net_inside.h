/* The inside of a net, for the files that make up its passes. */
#ifndef DMC_NET_INSIDE_H
#define DMC_NET_INSIDE_H

#include "train/net.h"

enum { DMC_HEAD_ROWS = 256 }; /* rows of logits alive at a time */

typedef struct {
    float *x, *h1, *q, *k, *v, *att, *x2, *h2, *gate, *up, *act; /* [M][...] */
    float *rs1, *rs2;                                            /* [M] */
    float *q_lin, *k_lin, *rs_q, *rs_k;                          /* with q/k-norm: before it, and 1/rms of each head */
    float *h_adapter, *rs_adapter, *adapter;                     /* with adapters: normed x [M][E], 1/rms, W h [M][H] */
    dmc_attention_saved saved;
} dmc_layer_acts;

struct dmc_net {
    dmc_config c;
    const dmc_layout *l;
    dmc_cpu cpu;
    dmc_rope rope;
    int B, T, n_threads;
    dmc_keep keep;
    dmc_layer_acts *acts;           /* [n_layers]; what is not kept lies in one place for all of them */
    float *x_out, *hidden, *rs_out; /* residual after the last layer, after the final norm, its 1/rms */
    float *d_hidden;                /* [M][E] */
    float *d_x, *d_a, *d_b, *d_f, *d_g, *norm_parts; /* backward scratch */
    dmc_attention_grads d_att;
    float *logits, *teacher_logits; /* [DMC_HEAD_ROWS][V] */
    float *probs;                   /* [n_threads][2][V] */
    double pull, give; /* of the last backward pass, over settled decisions: sums of dL/dlogit and of dalpha/dlogit */
    float *scratch;    /* [n_threads][scratch_floats] */
    size_t scratch_floats, bytes;
    float *memory;
};

/* y[M, rows] = x[M, cols] W^T + bias (NULL: none) */
void dmc_net_linear(const dmc_net *n, dmc_math math, int64_t M, const float *x, const float *w, int64_t rows,
                    int64_t cols, const float *bias, float *y);

/* Where the gradient of the parameter at `at` goes in g; NULL: it is frozen. */
static inline float *dmc_grad_of(const dmc_net *n, float *g, size_t at)
{
    return at < n->l->first ? NULL : g + (at - n->l->first);
}

#endif
