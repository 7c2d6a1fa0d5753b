/* Weights of a new model: normal with deviation 0.6 / sqrt(inputs), projections into the residual stream divided by sqrt(2 layers), gains 1.
 * (A fixed 0.02 is for wide models: at width 128 attention then starts so flat that copying heads do not form, doc/attempts.md.) */
#ifndef DMC_INIT_H
#define DMC_INIT_H

#include "format/checkpoint.h"

/* model: from dmc_checkpoint_create. A function of the seed and the tensors' names alone. */
void dmc_init_weights(dmc_checkpoint *model, uint64_t seed);

#endif
