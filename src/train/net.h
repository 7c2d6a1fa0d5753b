/* The network in training: one forward pass that keeps what the backward pass needs, and the backward pass, over B sequences of T tokens.
 * Everything is float32 but, with DMC_MATH_BF16, the factors of the matrix products (adapters are float32 always). */
#ifndef DMC_TRAIN_NET_H
#define DMC_TRAIN_NET_H

#include "kernels/ops.h"
#include "train/attention.h"
#include "train/layout.h"

typedef struct dmc_net dmc_net;

/* Everything a pass over one batch needs besides the parameters. */
typedef struct {
    const int32_t *ids;     /* [B][T]; rows shorter than T are padded with any valid id */
    const int32_t *lengths; /* [B] tokens that count, or NULL: all T */
    dmc_mode mode;
    dmc_math math;       /* F32: training = serving, bit for bit */
    float channel_scale; /* PLAIN */
    float tau;           /* SOFT */
    const float *noise;  /* SOFT: [L][B][H][T] g1 - g2, or NULL */
    bool accumulate;     /* gradients are added to g; else they overwrite it */
} dmc_pass;

/* What a net keeps of each layer for the backward pass. */
typedef enum {
    DMC_KEEP_NOTHING, /* there will be none: teacher, evaluation */
    DMC_KEEP_INPUTS,  /* the layer's input: the backward pass computes the rest again, the same bits */
    DMC_KEEP_ALL
} dmc_keep;

/* cpu->threads must outlive the net. */
dmc_status dmc_net_create(dmc_net **out, const dmc_config *c, const dmc_layout *l, const dmc_cpu *cpu, int B, int T,
                          dmc_keep keep);
void dmc_net_close(dmc_net *n);
size_t dmc_net_bytes(const dmc_net *n); /* of its activations and scratch */

/* Another decision channel, offset, or period of decisions by a rule, for the passes to come. */
void dmc_net_set_channel(dmc_net *n, int channel);
void dmc_net_set_offset(dmc_net *n, float offset);
void dmc_net_set_period(dmc_net *n, int period);

/* -> last hidden states after the final norm [B*T][n_embd], valid until the next forward. */
const float *dmc_net_forward(dmc_net *n, const float *w, const dmc_pass *p);
/* alpha of a layer after forward [B][H][T] (SOFT, HARD), for the compression loss and for inspection. Not with KEEP_NOTHING; y and y_rot
 * with KEEP_ALL only. */
const dmc_attention_saved *dmc_net_attention(const dmc_net *n, int il);

/* Un-rotated queries [B*T][n_heads*head_dim] and keys [B*T][n_kv_heads*head_dim] of a layer after forward, from its input: the layer's
 * weights w must still be those of the forward pass. Not with KEEP_NOTHING. */
void dmc_net_qk(dmc_net *n, const float *w, int il, const float **q, const float **k);

/* Losses of the last forward pass. */
typedef struct {
    float ce_weight, kl_weight;  /* next-token cross entropy; distillation from the teacher's hidden states */
    bool kl_forward;             /* KL(teacher || student) instead of KL(student || teacher) */
    const float *teacher_hidden; /* [B*T][n_embd] or NULL */
    const float *teacher_head;   /* [n_vocab][n_embd] */
} dmc_loss_options;
typedef struct {
    double ce, kl;      /* means over the positions that count */
    int64_t n_ce, n_kl; /* positions */
} dmc_loss;
/* Losses, and with g: the gradient of the head into g (p->accumulate) and of the hidden states, kept for dmc_net_backward, times scale. */
dmc_loss dmc_net_loss(dmc_net *n, const float *w, const dmc_pass *p, const dmc_loss_options *o, float *g, float scale);
/* Logits of given rows in float32 (tests): [n_rows][n_vocab] */
void dmc_net_logits(const dmc_net *n, const float *w, int64_t row, int64_t n_rows, float *logits);

/* Of the last backward pass with d_alpha: the alpha-derivative, the same for all settled decisions, that would have to be taken off for the pass to
 * move their mean neither way. */
double dmc_net_pull(const dmc_net *n);

/* Behind dmc_net_loss with the same p and g: the rest of the gradient, of the loss and of the compression loss. d_alpha [L][B][H]: the
 * derivative of that by alpha of a head, straight through, over the first n_counted [B] tokens of each sample; both NULL: no
 * compression loss. */
void dmc_net_backward(dmc_net *n, const float *w, const dmc_pass *p, const float *d_alpha, const int32_t *n_counted,
                      float *g);

/* Gumbel difference g1 - g2 (a logistic variable) times scale for a pass: [L][B][H][T], a function of (seed, pass) alone. */
void dmc_noise_fill(const dmc_cpu *cpu, float *noise, const dmc_config *c, int B, int T, uint64_t seed, uint64_t pass,
                    float scale);

#endif
