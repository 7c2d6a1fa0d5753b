/* Attention of one layer in training: decide (soft with Gumbel noise, or hard), pool, mask, attend; and the gradients of all of it.
 * Every intermediate state of a run is kept as a key; the mask M hides those that inference would have overwritten. M is one number per
 * key, so nothing of size T x T is ever stored. Gates, pooling, rotation and attention are the functions that serving uses.
 *
 * Shapes: B sequences of T tokens, M = B*T rows, H KV heads, G query heads per KV head, Hq = H*G, D head size.
 */
#ifndef DMC_TRAIN_ATTENTION_H
#define DMC_TRAIN_ATTENTION_H

#include "cache/dmc_update.h"
#include "kernels/kernels.h"

typedef enum {
    DMC_MODE_PLAIN, /* causal attention; channel_scale multiplies the channel before and after RoPE (retrofit, stage 1) */
    DMC_MODE_SOFT, /* alpha = sigmoid((k[ch] - c + noise) / tau) */
    DMC_MODE_HARD  /* alpha = (k[ch] > c): what serving does */
} dmc_mode;

typedef struct {
    int B, T, H, G, D;
    dmc_mode mode;
    dmc_policy policy;
    float tau;
    float channel_scale; /* PLAIN */
    const dmc_rope *rope;
    const dmc_kernels *kernels;
} dmc_attention_shape;

/* What the forward pass keeps of a layer. All arrays [B][H][T]... */
typedef struct {
    const float *noise;                  /* g1 - g2, or NULL: none */
    float *q_rot;                        /* [B][H][T][G][D] */
    float *k_rot;                        /* [B][H][T][D] raw keys, rotated (PLAIN, or delay > 0) */
    float *y;                            /* [B][H][T][2D] pooled states before RoPE (policy dmc) */
    float *y_rot;                        /* [B][H][T][D] their keys, rotated; with delay 0 in the place of k_rot */
    float *l, *alpha, *omega, *z, *mask; /* [B][H][T]; l is the decision logit over tau when SOFT */
    float *lse;                          /* [B][H][T][G] */
} dmc_attention_saved;

/* Floats that they need, whatever the mode, and their carving: the states (q_rot, k_rot, y, y_rot), and the gates, all the rest but noise.
 * memory: 64-byte aligned, or NULL. */
size_t dmc_attention_states_floats(const dmc_attention_shape *s);
size_t dmc_attention_gates_floats(const dmc_attention_shape *s);
void dmc_attention_states_carve(dmc_attention_saved *a, const dmc_attention_shape *s, float *memory);
void dmc_attention_gates_carve(dmc_attention_saved *a, const dmc_attention_shape *s, float *memory);
/* Floats of scratch for each thread (64-byte aligned). */
size_t dmc_attention_scratch_floats(const dmc_attention_shape *s);

/* out [M][Hq*D] from un-rotated q [M][Hq*D], k, v [M][H*D]; one (sequence, KV head). */
void dmc_attention_forward(const dmc_attention_shape *s, dmc_attention_saved *a, int b, int h, const float *q,
                           const float *k, const float *v, float *out, float *scratch);
/* d_q, d_k, d_v of the same (sequence, KV head) from d_out; overwritten. d_alpha: gradient of the compression loss with respect to
 * alpha of each of the first n_counted tokens (one number), straight through to the soft alpha. */
void dmc_attention_backward(const dmc_attention_shape *s, const dmc_attention_saved *a, int b, int h, const float *k,
                            const float *v, const float *out, const float *d_out, float d_alpha, int n_counted,
                            float *d_q, float *d_k, float *d_v, float *scratch);

#endif
