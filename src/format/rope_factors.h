/* Llama 3.1's RoPE scaling as a table: frequency i is divided by factor i. GGUF files hold the table (rope_freqs.weight),
 * Hugging Face's the four constants that it is made from. */
#ifndef DMC_ROPE_FACTORS_H
#define DMC_ROPE_FACTORS_H

#include "format/config.h"

void dmc_rope_factors(float *out, const dmc_config *c); /* [head_dim / 2]; c->rope_kind must be DMC_ROPE_LLAMA3 */

/* Finds the constants that make this table [head_dim / 2] and sets c's scaling; all ones mean none. c->rope_original_ctx
 * is tried first if positive. False: no known constants make it. */
bool dmc_rope_factors_recognise(dmc_config *c, const float *table);

#endif
