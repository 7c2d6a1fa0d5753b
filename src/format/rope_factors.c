#include "format/rope_factors.h"

#include <math.h>

enum { MAX_PAIRS = 2048 }; /* of the largest head dimension that dmc_config_check lets through */

void dmc_rope_factors(float *out, const dmc_config *c)
{
    double plain[MAX_PAIRS], scaled[MAX_PAIRS];
    dmc_config without = *c;
    without.rope_kind = DMC_ROPE_PLAIN;
    dmc_config_inv_freq(&without, plain);
    dmc_config_inv_freq(c, scaled);
    for (int i = 0; i < c->head_dim / 2; i++) out[i] = (float)(plain[i] / scaled[i]);
}

static bool matches(const dmc_config *c, const float *table)
{
    float made[MAX_PAIRS];
    dmc_rope_factors(made, c);
    for (int i = 0; i < c->head_dim / 2; i++)
        if (!(fabsf(made[i] - table[i]) <= 1e-4f * made[i])) return false;
    return true;
}

bool dmc_rope_factors_recognise(dmc_config *c, const float *table)
{
    dmc_config t = *c;
    bool plain = true;
    for (int i = 0; i < c->head_dim / 2; i++) plain = plain && fabsf(table[i] - 1) < 1e-6f;
    if (plain) return true;
    /* Every published model has low 1 and high 4; the slowest frequency bears the whole factor. */
    t.rope_kind = DMC_ROPE_LLAMA3;
    t.rope_low_freq = 1;
    t.rope_high_freq = 4;
    t.rope_factor = table[c->head_dim / 2 - 1];
    for (int shift = 0; shift <= 12; shift++) {
        t.rope_original_ctx = shift == 0 ? c->rope_original_ctx : 256 << shift;
        if (t.rope_original_ctx <= 0 || !matches(&t, table)) continue;
        *c = t;
        return true;
    }
    return false;
}
