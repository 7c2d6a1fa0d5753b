/* Frequencies of the rotary embedding as a model file scales them. */
#include "format/config.h"

#include <math.h>

void dmc_config_inv_freq(const dmc_config *c, double *inv_freq)
{
    const double two_pi = 6.283185307179586;
    for (int i = 0; i < c->head_dim / 2; i++) {
        double f = pow(c->rope_theta, -2.0 * i / c->head_dim);
        if (c->rope_kind == DMC_ROPE_LINEAR) f /= c->rope_factor;
        if (c->rope_kind ==
            DMC_ROPE_LLAMA3) { /* long wavelengths are stretched, short ones kept, those between blended */
            double turns = c->rope_original_ctx * f / two_pi; /* over the original context */
            double keep = (turns - c->rope_low_freq) / (c->rope_high_freq - c->rope_low_freq);
            keep = keep < 0 ? 0 : keep > 1 ? 1 : keep;
            f = (1 - keep) * f / c->rope_factor + keep * f;
        }
        inv_freq[i] = f;
    }
}
