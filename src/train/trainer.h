/* The training loop: pretraining, vanilla continuation and retrofits (METHOD 3 to 6).
 * doc/retrofit.md explains the recipe behind the defaults.
 *
 * A run is a function of (model, text, options, kernels): noise, order and schedule depend on the step alone, so a run that is
 * killed and resumed from its state file ends bit-identical to one that was not. */
#ifndef DMC_TRAINER_H
#define DMC_TRAINER_H

#include "train/data.h"
#include "train/optim.h"

typedef enum { DMC_STAGE_TRAIN, DMC_STAGE_ZERO, DMC_STAGE_RAMP, DMC_STAGE_HOLD } dmc_stage;
const char *dmc_stage_name(dmc_stage s);

typedef struct {
    int ctx, batch, accumulate; /* tokens per sample, samples per pass, passes per step */
    bool packed;                /* documents run into each other; else one document per sample */
    dmc_math math;              /* of training passes; measurements are float32, as serving */
    bool recompute; /* activations are computed again in the backward pass: less memory, more time, the same bits */
    uint64_t seed;
    float lr, lr_min; /* peak; at the end of the cosine */
    int64_t steps_warmup;
    int64_t steps_flat;  /* plain training: the cosine begins after so many steps (at least steps_warmup) */
    int64_t steps_train; /* plain training (pretraining, vanilla continuation): warm-up, then cosine over the rest */
    int64_t steps_zero, steps_ramp, steps_hold; /* retrofit: zero-out, CR ramp, fixed CR with cosine */
    dmc_adamw adamw;
    float ce_weight, kl_weight; /* language-model loss; distillation from the model as it was at the start */
    bool kl_forward;
    /* compression (retrofit only) */
    dmc_policy
        policy; /* what to retrofit to; channel -1: the one that costs least; cr: the target, recent window counted. The period of
                          decisions by a rule is made from it */
    bool adapters_only; /* all else is frozen */
    bool equal_heads;   /* the heads of a layer are held to the same CR */
    bool turn_channel;  /* what the decision channel carried is turned out of it first (channel.h) */
    bool fade_noise;    /* over the first half of the hold stage, so that training ends deciding as serving does */
    float tau;
    /* Share of the way that a step moves the offset of the decisions, to where its batch would have had the scheduled CR; 0: it stays, and the
     * compression loss alone pulls, as published. */
    float steer;
    float price;         /* weight of the compression loss; with steer only of what holds heads equal */
    int64_t eval_every;  /* steps between held-out measurements; 0: only at the end */
    int eval_samples;    /* at most */
    double save_seconds; /* between state files; 0: at every step; negative: never */
} dmc_train_options;

typedef struct {
    int64_t step, n_steps; /* step: finished steps */
    dmc_stage stage;
    double loss, ce, kl; /* of the training batch; kl 0 without distillation */
    double hinge;        /* shortfall of the mean decision, max(0, alpha* - mean alpha) */
    double
        uneven; /* mean over heads of how far their decisions are from their layer's, |mean alpha - layer's mean alpha| */
    double price;         /* weight of hinge and, with equal_heads, of a smooth form of uneven */
    double offset;        /* of the decisions */
    double cr, cr_target; /* of the batch, window counted (noisy hard decisions); scheduled */
    double lr, grad_norm;
    double val_ce, val_cr;  /* last held-out measurement with hard decisions, or NaN */
    double step_seconds;    /* of this step, without measuring and saving */
    double tokens, seconds; /* since the start of the run, resumed parts included */
    bool measured;          /* val_* is of this step */
    const char *warning;    /* something that the user should know, or NULL */
} dmc_train_report;

/* Called after every step; returning false stops the run after saving its state (DMC_ERR_INTERRUPTED). */
typedef bool dmc_train_callback(const dmc_train_report *r, void *user);

typedef struct dmc_trainer dmc_trainer;

/* model: F32, in memory (dmc_checkpoint_create or _clone_f32), changed by the run. train, held_out (or NULL): with the model's tokenizer.
 * cpu->threads must outlive the trainer. */
dmc_status dmc_trainer_create(dmc_trainer **out, dmc_checkpoint *model, const dmc_corpus *train,
                              const dmc_corpus *held_out, const dmc_train_options *o, const dmc_cpu *cpu);
void dmc_trainer_close(dmc_trainer *t);
/* Reads a state file written by the same model, text and options; anything else is refused with the difference. */
dmc_status dmc_trainer_resume(dmc_trainer *t, const char *state_path);
/* Runs to the end; the model's tensors and config.policy are then the result. state_path may be NULL. */
dmc_status dmc_trainer_run(dmc_trainer *t, const char *state_path, dmc_train_callback *callback, void *user);
int64_t dmc_trainer_step(const dmc_trainer *t);
/* Tokens and seconds of the run so far, resumed parts included. */
void dmc_trainer_work(const dmc_trainer *t, double *tokens, double *seconds);
/* Held-out loss of a model as it stands, hard decisions (policy dmc) or none, in the parallel form that equals serving bit for bit. */
dmc_status dmc_trainer_measure(dmc_trainer *t, bool compressed, double *ce, double *cr);

#endif
