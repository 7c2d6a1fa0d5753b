/* The default recipes. */
#include "train/recipe.h"

#include <math.h>

/* Adam moves each weight by about lr a step, so a row over n inputs of size 1 moves its output by about lr * n: the usual rule that
 * the rate falls with the width keeps that constant. 1e-3 at width 128, 3e-5 (the paper's) at 4096. */
static float rate_for(const dmc_config *c) { return (float)(0.128 / c->n_embd); }

static void common(dmc_train_options *o, const dmc_config *c, int ctx, int batch)
{
    *o = (dmc_train_options){.accumulate = 1,
                             .packed = true,
                             .seed = 1,
                             .lr = rate_for(c),
                             .adamw = dmc_adamw_default(),
                             .ce_weight = 1,
                             .tau = 0.1f,
                             .eval_samples = 64,
                             .save_seconds = 30};
    o->ctx = ctx ? ctx : c->n_ctx < 512 ? c->n_ctx : 512;
    o->batch = batch ? batch : 4096 / o->ctx > 1 ? 4096 / o->ctx : 1;
    o->lr_min = o->lr * 0.05f;
}

static dmc_policy policy_for(const dmc_config *c, const dmc_recipe *r)
{
    bool dms = r->method == DMC_METHOD_DMS || r->method == DMC_METHOD_DMS_ADAPTER;
    dmc_policy p = dmc_policy_default(dms                           ? DMC_POLICY_DMS
                                      : r->method == DMC_METHOD_FMP ? DMC_POLICY_FMP
                                                                    : DMC_POLICY_DMC,
                                      c->head_dim);
    if (p.kind == DMC_POLICY_DMC)
        p.channel = -1; /* measured: the one that costs least. DMS keeps the published one, the last */
    p.decision = r->decision;
    if (r->method == DMC_METHOD_DMC_HARDC) p.decision = DMC_DECISION_LAYER;
    if (r->method == DMC_METHOD_DMS_ADAPTER) p.decision = DMC_DECISION_ADAPTER;
    p.cr = (float)r->cr;
    return p;
}

/* The control and GQA: the schedule of a retrofit, its warm-up, its flat part, its cosine, without compression. */
static void without_compression(dmc_train_options *o)
{
    o->steps_train = o->steps_zero + o->steps_ramp + o->steps_hold;
    o->steps_flat = o->steps_zero + o->steps_ramp;
    o->policy = dmc_policy_none();
}

/* The published constants: 250 steps of zero-out, 6000 for each unit of CR, 2000 to solidify, in proportion to the steps there are; a rate that
 * ends at a tenth. The learning rate is scaled by the width (rate_for), as all rates here. */
static void as_published(dmc_train_options *o, const dmc_config *c, const dmc_recipe *r)
{
    const double zero = 250, ramp = 6000 * (r->cr - 1), hold = 2000;
    const int64_t steps = o->steps_zero + o->steps_ramp + o->steps_hold;
    o->steps_zero = (int64_t)((double)steps * zero / (zero + ramp + hold) + 0.5);
    o->steps_hold = (int64_t)((double)steps * hold / (zero + ramp + hold) + 0.5);
    o->steps_ramp = steps - o->steps_zero - o->steps_hold;
    o->policy.window = 12, o->policy.channel = c->head_dim - 1;
    o->steer = 0, o->price = 1, o->adamw.decision_scale = 1, o->lr_min = o->lr / 10;
    o->turn_channel = o->fade_noise = false;
    if (r->delay < 0) o->policy.delay = 0;
}

void dmc_recipe_retrofit(dmc_train_options *o, const dmc_config *c, const dmc_recipe *r)
{
    static const double steps_per_cr[] = {[DMC_REGIME_SHORT] = 30, [DMC_REGIME_REGULAR] = 60, [DMC_REGIME_LONG] = 120};
    common(o, c, r->ctx, r->batch);
    dmc_policy *p = &o->policy;
    *p = policy_for(c, r);
    p->delay = r->delay >= 0 ? r->delay : (int)(o->ctx / r->cr / 2); /* half of the slots that the CR leaves */
    int64_t steps = r->steps ? r->steps : (int64_t)(steps_per_cr[r->regime] * (4 + r->cr));
    o->steps_zero = dmc_query_channel(p, 0) >= 0 ? steps / 10 : 0;
    o->steps_ramp = steps / 2;
    o->steps_hold = steps - o->steps_zero - o->steps_ramp;
    o->steps_warmup = steps / 40;
    o->turn_channel = o->fade_noise = true;
    o->steer = 0.2f;
    o->price = 5;
    o->equal_heads = r->method == DMC_METHOD_DMC_C;
    o->adapters_only = r->method == DMC_METHOD_DMS_ADAPTER;
    if (p->kind == DMC_POLICY_DMS) o->ce_weight = 0, o->kl_weight = 1;
    /* a decision logit can cross its offset in a few steps */
    float reach = 2.5f / (o->lr * (float)c->n_embd);
    o->adamw.decision_scale = p->kind == DMC_POLICY_DMS ? reach / p->scale : fmaxf(1, reach);
    o->eval_every = steps / 4;
    if (r->paper) as_published(o, c, r);
    if (r->method == DMC_METHOD_NONE || r->method == DMC_METHOD_GQA) without_compression(o);
}

void dmc_recipe_train(dmc_train_options *o, const dmc_config *c, int ctx, int batch, int64_t steps, bool gentle)
{
    common(o, c, ctx, batch);
    o->steps_train = steps ? steps : 2000;
    o->steps_warmup = o->steps_train / (gentle ? 40 : 20);
    if (!gentle) o->lr *= 3;
    o->lr_min = o->lr * 0.05f;
    o->eval_every = o->steps_train / 5;
}
