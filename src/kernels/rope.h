/* Rotary position embedding (Su et al. 2021). Angles are exact: position * theta^(-2i/D) in double precision, never rounded to bf16. */
#ifndef DMC_ROPE_H
#define DMC_ROPE_H

#include "base/base.h"

typedef struct {
    int head_dim;
    int64_t n_pos;
    bool interleaved; /* pairs (2i, 2i+1); else (i, i + D/2) */
    float *cs;        /* [n_pos][head_dim]: cos of the D/2 pairs, then sin */
} dmc_rope;

/* inv_freq [head_dim/2]: angle per position of each pair. */
dmc_status dmc_rope_create(dmc_rope *out, int head_dim, int64_t n_pos, bool interleaved, const double *inv_freq);
/* theta^(-2i/D) for i < D/2 */
void dmc_rope_inv_freq(double *inv_freq, int head_dim, double theta);
void dmc_rope_free(dmc_rope *r);
/* y = rotated x (may alias); one head. */
void dmc_rope_apply(const dmc_rope *r, int64_t pos, const float *x, float *y);
/* dx = inverse rotation of dy (the transpose; may alias). */
void dmc_rope_apply_inverse(const dmc_rope *r, int64_t pos, const float *x, float *y);

#endif
