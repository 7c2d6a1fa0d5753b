/* The methods of training, and the default recipe of each, from nothing but the model, the CR and the length of the run. doc/retrofit.md gives
 * the reasons. */
#ifndef DMC_RECIPE_H
#define DMC_RECIPE_H

#include "train/trainer.h"

typedef enum {
    DMC_METHOD_NONE,        /* the same training without compression: the control */
    DMC_METHOD_DMC,         /* one CR over all layers and heads (delay 0: arXiv 2403.09636) */
    DMC_METHOD_DMC_C,       /* the heads of a layer keep the same CR */
    DMC_METHOD_DMC_HARDC,   /* the heads of a layer decide as one */
    DMC_METHOD_DMS,         /* eviction, decided by a channel of the queries (arXiv 2506.05345); all weights learn */
    DMC_METHOD_DMS_ADAPTER, /* eviction, decided by adapters, which alone learn */
    DMC_METHOD_FMP,         /* a fixed number of tokens shares a slot */
    DMC_METHOD_GQA          /* fewer KV heads (prepare.h), trained on without compression */
} dmc_method;

/* How many steps for each unit of CR. */
typedef enum { DMC_REGIME_SHORT, DMC_REGIME_REGULAR, DMC_REGIME_LONG } dmc_regime;

typedef struct {
    dmc_method method;
    dmc_decision decision; /* NOISE or PERIOD: by a rule instead of learned; else the method's own */
    dmc_regime regime;
    double cr;
    int ctx, batch; /* 0: defaults */
    int64_t steps;  /* of the whole run; 0: the default of this CR and regime */
    int delay;      /* -1: the default of this context */
    bool paper; /* dmc, its two kin and their control: the published constants (METHOD 4), steps in their proportions */
} dmc_recipe;

void dmc_recipe_retrofit(dmc_train_options *o, const dmc_config *c, const dmc_recipe *r);
/* Plain training of a new model, or on from an old one (gentle: at the rate that a retrofit would use). */
void dmc_recipe_train(dmc_train_options *o, const dmc_config *c, int ctx, int batch, int64_t steps, bool gentle);

#endif
