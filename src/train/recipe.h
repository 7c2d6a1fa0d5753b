/* The default recipe of a retrofit, from nothing but the model, the CR and the length of the run. doc/retrofit.md gives the reasons. */
#ifndef DMC_RECIPE_H
#define DMC_RECIPE_H

#include "train/trainer.h"

/* ctx, batch: 0 for defaults. steps: of the whole run, 0 for the default of this CR. delay: -1 for the default of this context. */
void dmc_recipe_retrofit(dmc_train_options *o, const dmc_config *c, int ctx, int batch, int64_t steps, double cr,
                         int delay);
/* Plain training of a new model, or on from an old one (gentle: at the rate that a retrofit would use). */
void dmc_recipe_train(dmc_train_options *o, const dmc_config *c, int ctx, int batch, int64_t steps, bool gentle);

#endif
