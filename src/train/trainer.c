/* The training loop. */
#include "train/channel.h"
#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLE = 1 << 14 };
static const double BALANCE_RATE = 0.2;

struct dmc_trainer {
    dmc_train_options o;
    dmc_checkpoint *model;
    dmc_cpu cpu;
    dmc_layout layout;
    dmc_net *net, *teacher;
    float *w, *teacher_w; /* [layout.n_floats] */
    float *g, *m, *v;     /* of what is trained */
    dmc_sampling train, held_out;
    bool has_held_out;
    int32_t *ids, *lengths, *counted; /* [batch][ctx], [batch] */
    float *noise, *d_alpha;           /* [L][B][H][T], [L][B][H] */
    float *sample;                    /* [SAMPLE] logits */
    double *merged;                   /* [L][H] decisions of the last pass that merge or evict */
    uint64_t fingerprint;
    /* the state of the run */
    int64_t step, slack; /* slack: steps in a row that the CR lagged behind its target */
    /* The derivative that all decisions are given, so that the language model moves their mean neither way. */
    double balance;
    double price, tokens, seconds, val_ce, val_cr, first_loss, smooth_loss; /* and o.policy.offset, which is steered */
};

const char *dmc_stage_name(dmc_stage s)
{
    static const char *const names[] = {"train", "zero-out", "ramp", "hold"};
    return names[s];
}

static int64_t total_steps(const dmc_train_options *o)
{
    return o->steps_train ? o->steps_train : o->steps_zero + o->steps_ramp + o->steps_hold;
}

static dmc_stage stage_at(const dmc_train_options *o, int64_t step)
{
    if (o->steps_train) return DMC_STAGE_TRAIN;
    if (step < o->steps_zero) return DMC_STAGE_ZERO;
    return step < o->steps_zero + o->steps_ramp ? DMC_STAGE_RAMP : DMC_STAGE_HOLD;
}

/* Warm-up, constant, cosine: over all of plain training, over the hold stage of a retrofit. */
static float rate_at(const dmc_train_options *o, int64_t step)
{
    int64_t plain = o->steps_flat > o->steps_warmup ? o->steps_flat : o->steps_warmup;
    int64_t from = o->steps_train ? plain : o->steps_zero + o->steps_ramp, n = total_steps(o) - from;
    if (step < o->steps_warmup) return o->lr * (float)(step + 1) / (float)o->steps_warmup;
    if (step < from || n < 1) return o->lr;
    double done = (double)(step - from) / (double)n;
    return o->lr_min + (o->lr - o->lr_min) * (float)(0.5 + 0.5 * cos(3.14159265358979323846 * done));
}

/* CR(s) = 1 + (CR - 1) min(1, s/S), 0-based within the ramp (METHOD 3) */
static double cr_at(const dmc_train_options *o, int64_t step)
{
    int64_t s = step - o->steps_zero;
    if (o->steps_train || s < 0) return 1;
    return 1 + (o->policy.cr - 1.0) * (s >= o->steps_ramp ? 1 : (double)s / (double)o->steps_ramp);
}

/* Decisions that nothing has to learn. */
static bool by_rule(const dmc_policy *p)
{
    return p->kind == DMC_POLICY_FMP || p->decision == DMC_DECISION_NOISE || p->decision == DMC_DECISION_PERIOD;
}

/* Tokens that share a slot where that is a rule, so that a context has the CR asked for, recent window counted. */
static int period_at(const dmc_train_options *o, double cr)
{
    return (int)ceil((o->ctx - o->policy.delay) / (o->ctx / cr - o->policy.delay) - 1e-6);
}

static float noise_at(const dmc_train_options *o, int64_t step)
{
    int64_t s = step - o->steps_zero - o->steps_ramp;
    return s <= 0 || !o->fade_noise ? 1 : fmaxf(0, 1 - 2 * (float)s / (float)o->steps_hold);
}

/* ---- identity of a run: what a state file must agree with ---- */

static uint64_t fingerprint(const dmc_trainer *t)
{
    const dmc_train_options *o = &t->o;
    const dmc_config *c = &t->model->config;
    char text[1024];
    const dmc_policy *p = &o->policy;
    int n = snprintf(
        text, sizeof text,
        "%d %d %d %d %llu %a %a %lld %lld %lld %lld %lld %lld %a %a %a %a %a %a %a %a %d %d %d %d %d %d %d %d %d %a %a %a %d %d %a "
        "%a %a %a %a %a %d %a %d %d %d",
        o->ctx, o->batch, o->accumulate, o->packed, (unsigned long long)o->seed, o->lr, o->lr_min,
        (long long)o->steps_warmup, (long long)o->steps_flat, (long long)o->steps_train, (long long)o->steps_zero,
        (long long)o->steps_ramp, (long long)o->steps_hold, o->adamw.beta1, o->adamw.beta2, o->adamw.eps,
        o->adamw.weight_decay, o->adamw.clip, o->adamw.decision_scale, o->ce_weight, o->kl_weight, o->kl_forward,
        o->adapters_only, o->equal_heads, o->turn_channel, o->fade_noise, (int)p->kind, (int)p->decision, p->channel,
        p->period, p->offset, p->scale, p->eps, p->window, p->delay, p->cr, o->tau, o->steer, o->price, c->norm_eps,
        c->rope_theta, (int)c->rope_kind, c->rope_factor, c->rope_interleaved, c->qk_norm, (int)o->math);
    uint64_t h = dmc_checksum(text, (size_t)n, 1);
    h = dmc_checksum(t->train.corpus->ids, t->train.corpus->n * sizeof(int32_t), h);
    return dmc_checksum(t->w, t->layout.n_floats * sizeof(float), h);
}

static dmc_status check_options(const dmc_train_options *o, const dmc_config *c)
{
    if (o->ctx < 2 || o->ctx > c->n_ctx)
        return dmc_fail(DMC_ERR_ARG, "a context of %d tokens: the model takes 2 to %d", o->ctx, c->n_ctx);
    if (o->batch < 1 || o->accumulate < 1) return dmc_fail(DMC_ERR_ARG, "batch and accumulation must be at least 1");
    if ((int64_t)o->batch * o->ctx > 1 << 24)
        return dmc_fail(DMC_ERR_ARG, "%d samples of %d tokens in a pass: at most 2^24 tokens", o->batch, o->ctx);
    if (total_steps(o) < 1) return dmc_fail(DMC_ERR_ARG, "no steps to train");
    if (o->steps_train) return DMC_OK;
    if (!dmc_decides(&o->policy) || o->policy.cr < 1)
        return dmc_fail(DMC_ERR_ARG, "a retrofit needs policy dmc, dms or fmp and a CR of at least 1");
    if (o->policy.no_shift)
        return dmc_fail(DMC_ERR_ARG,
                        "dms is trained to decide at a token on the one before: no_shift is for the models of others");
    if (o->policy.window < 0 || o->policy.window > 256)
        return dmc_fail(DMC_ERR_ARG, "a merge window of %d: 0 (no limit) to 256", o->policy.window);
    if (o->policy.delay < 0 || (double)o->policy.delay >= 0.9 * o->ctx / o->policy.cr)
        return dmc_fail(
            DMC_ERR_ARG,
            "a recent window of %d tokens alone holds more than a CR of %g leaves of a context of %d: take a smaller --delay or a "
            "longer --ctx",
            o->policy.delay, (double)o->policy.cr, o->ctx);
    return DMC_OK;
}

/* Decides which channel shall decide, and turns what it carries out of it. */
static void free_channel(dmc_trainer *t)
{
    const dmc_config *c = &t->model->config;
    int64_t n_rows = (int64_t)t->o.batch * t->o.ctx;
    for (int b = 0; b < t->o.batch; b++)
        dmc_sampling_get(&t->train, (uint64_t)b, t->ids + (int64_t)b * t->o.ctx, &t->lengths[b]);
    dmc_pass p = {.ids = t->ids, .lengths = t->lengths, .mode = DMC_MODE_PLAIN, .channel_scale = 1};
    if (t->o.policy.channel < 0)
        t->o.policy.channel = dmc_channel_choose(t->net, c, &t->layout, &p, n_rows, t->w, t->g);
    t->model->config.policy.channel = t->o.policy.channel;
    dmc_net_set_channel(t->net, t->o.policy.channel);
    if (!t->o.turn_channel) return;
    dmc_net_forward(t->net, t->w, &p);
    dmc_channel_turn(t->net, c, &t->layout, n_rows, t->o.policy.channel, t->w);
}

dmc_status dmc_trainer_create(dmc_trainer **out, dmc_checkpoint *model, const dmc_corpus *train,
                              const dmc_corpus *held_out, const dmc_train_options *o, const dmc_cpu *cpu)
{
    dmc_trainer *t = NULL;
    dmc_status status = DMC_OK;
    *out = NULL;
    DMC_TRY(check_options(o, &model->config));
    DMC_TRY(dmc_array(&t, 1, sizeof *t));
    t->o = *o, t->model = model, t->cpu = *cpu, t->price = o->price, t->val_ce = t->val_cr = NAN;
    if (!o->steps_train && by_rule(&o->policy)) t->o.policy.period = period_at(o, o->policy.cr);
    if (!o->steps_train) model->config.policy = t->o.policy;
    if (model->config.policy.channel < 0) model->config.policy.channel = model->config.head_dim - 1;
    const dmc_config *c = &model->config;
    size_t tokens = (size_t)o->batch * (size_t)o->ctx, heads = (size_t)c->n_layers * (size_t)c->n_kv_heads;
    DMC_GOTO(dmc_layout_create(&t->layout, c, o->adapters_only));
    size_t n = t->layout.n_floats, trained = dmc_layout_trained(&t->layout);
    DMC_GOTO(dmc_array(&t->w, n, sizeof(float)));
    DMC_GOTO(dmc_array(&t->g, trained, sizeof(float)));
    DMC_GOTO(dmc_array(&t->m, trained, sizeof(float)));
    DMC_GOTO(dmc_array(&t->v, trained, sizeof(float)));
    DMC_GOTO(dmc_layout_load(&t->layout, model, t->w));
    DMC_GOTO(
        dmc_net_create(&t->net, c, &t->layout, cpu, o->batch, o->ctx, o->recompute ? DMC_KEEP_INPUTS : DMC_KEEP_ALL));
    if (o->kl_weight > 0) {
        if (!o->adapters_only) { /* else it is what it was at the start */
            DMC_GOTO(dmc_array(&t->teacher_w, n, sizeof(float)));
            memcpy(t->teacher_w, t->w, n * sizeof(float));
        }
        DMC_GOTO(dmc_net_create(&t->teacher, c, &t->layout, cpu, o->batch, o->ctx, DMC_KEEP_NOTHING));
    }
    DMC_GOTO(dmc_sampling_create(&t->train, train, o->ctx, o->packed, o->seed));
    if (held_out) {
        DMC_GOTO(dmc_sampling_create(&t->held_out, held_out, o->ctx, o->packed, o->seed));
        t->has_held_out = true;
    }
    DMC_GOTO(dmc_array(&t->ids, tokens, sizeof *t->ids));
    DMC_GOTO(dmc_array(&t->lengths, (size_t)o->batch, sizeof *t->lengths));
    DMC_GOTO(dmc_array(&t->counted, (size_t)o->batch, sizeof *t->counted));
    DMC_GOTO(dmc_array(&t->d_alpha, (size_t)o->batch * heads, sizeof *t->d_alpha));
    DMC_GOTO(dmc_array(&t->noise, tokens * heads, sizeof *t->noise));
    DMC_GOTO(dmc_array(&t->merged, heads, sizeof *t->merged));
    DMC_GOTO(dmc_array(&t->sample, SAMPLE, sizeof *t->sample));
    t->fingerprint = fingerprint(t);
    if (!o->steps_train && dmc_query_channel(&c->policy, 0) >= 0) free_channel(t);
    *out = t;
done:
    if (status != DMC_OK) dmc_trainer_close(t);
    return status;
}

void dmc_trainer_close(dmc_trainer *t)
{
    if (!t) return;
    dmc_net_close(t->net);
    dmc_net_close(t->teacher);
    dmc_sampling_free(&t->train);
    dmc_sampling_free(&t->held_out);
    dmc_layout_free(&t->layout);
    void *arrays[] = {t->w,       t->g,       t->m,     t->v,       t->teacher_w, t->ids,
                      t->lengths, t->counted, t->noise, t->d_alpha, t->merged,    t->sample};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) dmc_free(arrays[i]);
    dmc_free(t);
}

int64_t dmc_trainer_step(const dmc_trainer *t) { return t->step; }

void dmc_trainer_work(const dmc_trainer *t, double *tokens, double *seconds)
{
    *tokens = t->tokens;
    *seconds = t->seconds;
}

static void set_offset(dmc_trainer *t, float offset)
{
    t->o.policy.offset = t->model->config.policy.offset = offset;
    dmc_net_set_offset(t->net, offset);
}

/* ---- state file: magic, fingerprint, numbers, w, m, v of what is trained, checksum ---- */

static const char magic[8] = "DMCRUN2";
typedef struct {
    char magic[8];
    uint64_t fingerprint, n_floats;
    int64_t step, slack;
    double price, offset, balance, tokens, seconds, val_ce, val_cr, first_loss, smooth_loss;
} state_head;

static dmc_status save_state(const dmc_trainer *t, const char *path)
{
    size_t n = dmc_layout_trained(&t->layout);
    state_head h = {.fingerprint = t->fingerprint,
                    .n_floats = n,
                    .step = t->step,
                    .slack = t->slack,
                    .price = t->price,
                    .offset = t->o.policy.offset,
                    .balance = t->balance,
                    .tokens = t->tokens,
                    .seconds = t->seconds,
                    .val_ce = t->val_ce,
                    .val_cr = t->val_cr,
                    .first_loss = t->first_loss,
                    .smooth_loss = t->smooth_loss};
    const float *arrays[] = {t->w + t->layout.first, t->m, t->v};
    dmc_writer *w;
    memcpy(h.magic, magic, sizeof magic);
    DMC_TRY(dmc_writer_open(&w, path));
    uint64_t sum = dmc_checksum(&h, sizeof h, 0);
    dmc_write(w, &h, sizeof h);
    for (int i = 0; i < 3; i++) {
        sum = dmc_checksum(arrays[i], n * sizeof(float), sum);
        dmc_write(w, arrays[i], n * sizeof(float));
    }
    dmc_write(w, &sum, sizeof sum);
    return dmc_writer_commit(w);
}

dmc_status dmc_trainer_resume(dmc_trainer *t, const char *path)
{
    dmc_mapping m;
    state_head h;
    dmc_status status = DMC_OK;
    size_t n = dmc_layout_trained(&t->layout) * sizeof(float);
    DMC_TRY(dmc_map_file(&m, path));
    if (m.size != sizeof h + 3 * n + sizeof(uint64_t) || memcmp(m.data, magic, sizeof magic)) {
        status = dmc_fail(DMC_ERR_FORMAT, "%s: not the state of a run on this model", path);
        goto done;
    }
    memcpy(&h, m.data, sizeof h);
    uint64_t sum, want = dmc_checksum(&h, sizeof h, 0);
    memcpy(&sum, m.data + m.size - sizeof sum, sizeof sum);
    for (int i = 0; i < 3; i++) want = dmc_checksum(m.data + sizeof h + (size_t)i * n, n, want);
    if (sum != want) {
        status = dmc_fail(DMC_ERR_FORMAT, "%s: damaged (checksum)", path);
    } else if (h.fingerprint != t->fingerprint) {
        status = dmc_fail(
            DMC_ERR_ARG,
            "%s: belongs to a run with another model, text or options: repeat those of the run, or start a new one",
            path);
    } else if (h.step < 0 || h.step > total_steps(&t->o)) {
        status =
            dmc_fail(DMC_ERR_FORMAT, "%s: step %lld of %lld", path, (long long)h.step, (long long)total_steps(&t->o));
    } else {
        memcpy(t->w + t->layout.first, m.data + sizeof h, n);
        memcpy(t->m, m.data + sizeof h + n, n);
        memcpy(t->v, m.data + sizeof h + 2 * n, n);
        t->step = h.step, t->slack = h.slack, t->price = h.price, t->tokens = h.tokens, t->seconds = h.seconds;
        set_offset(t, (float)h.offset);
        t->balance = h.balance;
        t->val_ce = h.val_ce, t->val_cr = h.val_cr, t->first_loss = h.first_loss, t->smooth_loss = h.smooth_loss;
    }
done:
    dmc_unmap(&m);
    return status;
}

/* ---- measuring ---- */

typedef struct {
    double merged, settled, tokens, recent; /* decisions over layers and heads; the last two per layer and head */
} slots;

/* Counts the decisions of the last forward pass; fills counted[b], the tokens of each sample that leave the window, and merged. */
static slots count_slots(const dmc_trainer *t, int n_samples)
{
    const dmc_config *c = &t->model->config;
    int H = c->n_kv_heads;
    slots s = {0};
    memset(t->merged, 0, (size_t)(c->n_layers * H) * sizeof *t->merged);
    for (int b = 0; b < n_samples; b++) {
        int len = t->lengths[b], d = c->policy.delay;
        t->counted[b] = len > d ? len - d : 0;
        s.tokens += len;
        s.recent += len < d ? len : d;
        s.settled += t->counted[b];
        for (int il = 0; il < c->n_layers; il++)
            for (int h = 0; h < H; h++) {
                const float *a = dmc_net_attention(t->net, il)->alpha + ((int64_t)b * H + h) * t->o.ctx;
                for (int i = 1; i < t->counted[b]; i++) /* the first token always appends */
                    t->merged[il * H + h] += a[i] > 0.5f;
            }
    }
    for (int i = 0; i < c->n_layers * H; i++) s.merged += t->merged[i] / ((double)c->n_layers * H);
    return s;
}

static double ratio(const slots *s) { return s->tokens / (s->recent + s->settled - s->merged); }

dmc_status dmc_trainer_measure(dmc_trainer *t, bool compressed, double *ce, double *cr)
{
    if (!t->has_held_out) return dmc_fail(DMC_ERR_ARG, "no held-out text was given");
    size_t n = t->held_out.n_samples;
    if (t->o.eval_samples > 0 && n > (size_t)t->o.eval_samples) n = (size_t)t->o.eval_samples;
    double sum = 0, count = 0;
    slots all = {0};
    for (size_t i = 0; i < n; i += (size_t)t->o.batch) {
        int used = n - i < (size_t)t->o.batch ? (int)(n - i) : t->o.batch;
        for (int b = 0; b < t->o.batch; b++) {
            dmc_sampling_plain(&t->held_out, i + (size_t)(b < used ? b : 0), t->ids + (int64_t)b * t->o.ctx,
                               &t->lengths[b]);
            if (b >= used) t->lengths[b] = 0; /* fills the batch, counts for nothing */
        }
        dmc_pass p = {.ids = t->ids,
                      .lengths = t->lengths,
                      .mode = compressed ? DMC_MODE_HARD : DMC_MODE_PLAIN,
                      .channel_scale = 1};
        dmc_loss_options lo = {.ce_weight = 1};
        dmc_net_forward(t->net, t->w, &p);
        dmc_loss l = dmc_net_loss(t->net, t->w, &p, &lo, NULL, 1);
        sum += l.ce * (double)l.n_ce;
        count += (double)l.n_ce;
        if (!compressed) continue;
        slots s = count_slots(t, used);
        all.merged += s.merged, all.settled += s.settled, all.tokens += s.tokens, all.recent += s.recent;
    }
    *ce = sum / (count > 0 ? count : 1);
    *cr = compressed ? ratio(&all) : 1;
    return DMC_OK;
}

/* ---- one step ---- */

/* How hard heads are pulled towards their layer's mean: fully from this distance on, in proportion below. */
static const double FIRM = 0.05;

/* Fills d_alpha of a layer: `down` for all its heads (negative or 0), and with equal_heads times `each` the derivative of the mean over heads of
 * a smooth |mean alpha - layer's mean alpha|. n: decisions of a head. Returns the sum of the deviations. */
static double layer_loss(const dmc_trainer *t, int il, double n, double down, double each)
{
    int B = t->o.batch, H = t->model->config.n_kv_heads;
    double layer = 0, pulls = 0, uneven = 0;
    for (int h = 0; h < H; h++) layer += t->merged[il * H + h] / n / H;
    for (int pass = 0; pass < 2; pass++) /* the layer's mean moves with each head: the mean pull is taken off again */
        for (int h = 0; h < H; h++) {
            double apart = t->merged[il * H + h] / n - layer, pull = fmax(-1, fmin(1, apart / FIRM));
            if (pass == 0) {
                pulls += pull / H;
                uneven += fabs(apart);
                continue;
            }
            for (int b = 0; b < B; b++)
                t->d_alpha[(il * B + b) * H + h] = (float)(down + (t->o.equal_heads ? each * (pull - pulls) : 0));
        }
    return uneven;
}

/* alpha*: the mean decision with which the cache, recent window included, has this CR. */
static double wanted_share(double cr, const slots *s)
{
    return fmin(0.999, 1 - (s->tokens / cr - s->recent) / (s->settled > 0 ? s->settled : 1));
}

/* Compression loss of the pass: price * max(0, alpha* - mean alpha) over all settled decisions of the batch, where the offset is not
 * steered. Fills d_alpha; returns the shortfall alpha* - mean alpha (may be negative) and how uneven the heads of a layer are. */
static double compression_loss(dmc_trainer *t, double cr_target, const slots *s, double *uneven)
{
    const dmc_config *c = &t->model->config;
    double n = s->settled > 0 ? s->settled : 1, heads = (double)c->n_layers * c->n_kv_heads;
    double shortfall = wanted_share(cr_target, s) - s->merged / n, each = t->price / (n * heads) / t->o.accumulate;
    const double down = t->o.steer > 0 ? t->balance : shortfall > 0 ? -each : 0;
    *uneven = 0;
    for (int il = 0; il < c->n_layers; il++) *uneven += layer_loss(t, il, n, down, each) / heads;
    return shortfall;
}

static int upwards(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* By how much the offset should be larger for the share `wanted` of the last pass's decisions to merge: a quantile of their logits, of at most
 * SAMPLE of them at even distances. 0: the share is none or all. */
static float offset_lacks(const dmc_trainer *t, double wanted)
{
    const dmc_config *c = &t->model->config;
    int64_t stride = 0, seen = 0, n = 0;
    double settled = 0, decided = 0; /* the first token of a sample decides nothing, and counts */
    for (int b = 0; b < t->o.batch; b++) {
        settled += t->counted[b];
        decided += t->counted[b] > 0 ? t->counted[b] - 1 : 0;
    }
    stride = (int64_t)settled * c->n_layers * c->n_kv_heads / SAMPLE + 1;
    for (int il = 0; il < c->n_layers; il++)
        for (int b = 0; b < t->o.batch; b++)
            for (int h = 0; h < c->n_kv_heads; h++) {
                const float *l = dmc_net_attention(t->net, il)->l + ((int64_t)b * c->n_kv_heads + h) * t->o.ctx;
                for (int i = 1; i < t->counted[b]; i++, seen++)
                    if (seen % stride == 0) t->sample[n++] = l[i] * t->o.tau;
            }
    const int64_t merged = (int64_t)(wanted * (double)n * settled / (decided > 0 ? decided : 1) + 0.5);
    if (merged < 1 || merged >= n) return 0;
    qsort(t->sample, (size_t)n, sizeof *t->sample, upwards);
    return t->sample[n - merged];
}

/* The channel that decides is taken away from attention for good: of the heads that lose it. */
static void zero_channel(dmc_trainer *t)
{
    int ch = t->o.policy.channel;
    for (int i = 0; i < t->layout.n_params; i++) {
        const dmc_param *p = &t->layout.params[i];
        for (int64_t r = ch; p->period && r < p->rows; r += p->period) {
            size_t at = p->at + (size_t)(r * p->cols), n = (size_t)p->cols * sizeof(float);
            memset(t->w + at, 0, n);
            memset(t->m + at, 0, n);
            memset(t->v + at, 0, n);
        }
    }
}

/* The losses of a pass in this stage, and for distillation the teacher's forward pass. */
static dmc_loss_options losses_of(dmc_trainer *t, dmc_stage stage, const dmc_pass *student)
{
    const dmc_train_options *o = &t->o;
    const float *w = t->teacher_w ? t->teacher_w : t->w;
    dmc_loss_options lo = {.ce_weight = o->ce_weight,
                           .kl_weight = stage == DMC_STAGE_TRAIN ? 0 : o->kl_weight,
                           .kl_forward = o->kl_forward};
    if (!(lo.kl_weight > 0)) return lo;
    dmc_pass p = {.ids = student->ids, .lengths = student->lengths, .math = o->math, .channel_scale = 1};
    lo.teacher_hidden = dmc_net_forward(t->teacher, w, &p);
    lo.teacher_head = w + t->layout.head;
    return lo;
}

static void next_batch(dmc_trainer *t, uint64_t pass)
{
    const dmc_train_options *o = &t->o;
    for (int b = 0; b < o->batch; b++) {
        dmc_sampling_get(&t->train, pass * (uint64_t)o->batch + (uint64_t)b, t->ids + (int64_t)b * o->ctx,
                         &t->lengths[b]);
        t->tokens += t->lengths[b];
    }
}

static void take_step(dmc_trainer *t, dmc_train_report *r)
{
    const dmc_train_options *o = &t->o;
    const dmc_config *c = &t->model->config;
    dmc_stage stage = stage_at(o, t->step);
    bool compresses = stage == DMC_STAGE_RAMP || stage == DMC_STAGE_HOLD, learns = compresses && !by_rule(&o->policy);
    if (compresses && t->step == o->steps_zero && dmc_query_channel(&o->policy, 0) >= 0) zero_channel(t);
    *r = (dmc_train_report){
        .stage = stage, .n_steps = total_steps(o), .lr = rate_at(o, t->step), .cr_target = cr_at(o, t->step), .cr = 1};
    if (compresses && !learns) dmc_net_set_period(t->net, period_at(o, r->cr_target));
    slots sum = {0};
    dmc_loss_options lo = {0};
    double shortfall = 0;
    float lacks = 0; /* of the offset */
    for (int a = 0; a < o->accumulate; a++) {
        uint64_t pass = (uint64_t)t->step * (uint64_t)o->accumulate + (uint64_t)a;
        next_batch(t, pass);
        dmc_pass p = {.ids = t->ids, .lengths = t->lengths, .math = o->math, .channel_scale = 1, .accumulate = a > 0};
        lo = losses_of(t, stage, &p);
        if (compresses) p.mode = DMC_MODE_HARD;
        if (learns) {
            p.mode = DMC_MODE_SOFT;
            p.tau = o->tau;
            p.noise = t->noise;
            dmc_noise_fill(&t->cpu, t->noise, c, o->batch, o->ctx, o->seed, pass, noise_at(o, t->step));
        } else if (stage == DMC_STAGE_ZERO) {
            p.channel_scale = fmaxf(0, 1 - (float)t->step / (0.8f * (float)o->steps_zero));
        }
        dmc_net_forward(t->net, t->w, &p);
        dmc_loss l = dmc_net_loss(t->net, t->w, &p, &lo, t->g, 1.0f / (float)o->accumulate);
        r->ce += l.ce / o->accumulate;
        r->kl += l.kl / o->accumulate;
        if (compresses) {
            double uneven = 0;
            slots s = count_slots(t, o->batch);
            if (learns) shortfall += compression_loss(t, r->cr_target, &s, &uneven) / o->accumulate;
            if (learns && o->steer > 0) lacks += offset_lacks(t, wanted_share(r->cr_target, &s)) / (float)o->accumulate;
            sum.merged += s.merged, sum.settled += s.settled, sum.tokens += s.tokens, sum.recent += s.recent;
            r->uneven += uneven / o->accumulate;
        }
        dmc_net_backward(t->net, t->w, &p, learns ? t->d_alpha : NULL, t->counted, t->g);
        if (learns && o->steer > 0) t->balance -= BALANCE_RATE * dmc_net_pull(t->net);
    }
    r->hinge = shortfall > 0 ? shortfall : 0;
    r->price = t->price;
    r->loss = lo.ce_weight * r->ce + lo.kl_weight * r->kl +
              t->price * ((o->steer > 0 ? 0 : r->hinge) + (o->equal_heads ? r->uneven : 0));
    if (compresses) r->cr = ratio(&sum);
    r->grad_norm = dmc_adamw_step(&o->adamw, &t->layout, &t->cpu, compresses ? o->policy.channel : -1, t->w, t->g, t->m,
                                  t->v, t->step + 1, (float)r->lr);
    if (learns && o->steer > 0 && isfinite(r->loss)) set_offset(t, o->policy.offset + o->steer * lacks);
    r->offset = o->policy.offset;
    t->slack = learns && shortfall > 0.1 ? t->slack + 1 : 0;
    t->step++;
}

static dmc_status judge(dmc_trainer *t, dmc_train_report *r)
{
    if (!isfinite(r->loss) || !isfinite(r->grad_norm))
        return dmc_fail(
            DMC_ERR_NUMERIC,
            "step %lld: the loss is not a number. Take a smaller --lr (now %g), or a longer --warmup; the last saved state is intact",
            (long long)t->step, (double)t->o.lr);
    if (t->step == 1) t->first_loss = t->smooth_loss = r->ce;
    t->smooth_loss += 0.05 * (r->ce - t->smooth_loss);
    if (t->step % 50 == 0 && t->smooth_loss > 1.2 * t->first_loss + 0.5)
        r->warning = "the loss diverges: take a smaller --lr, and for a retrofit a larger --delay or more --steps";
    if (t->slack > 0 && t->slack % 100 == 0)
        r->warning =
            "the compression ratio does not follow its target: give the ramp more steps (--steps), or raise --decision-scale (with --steer 0: --price)";
    return DMC_OK;
}

dmc_status dmc_trainer_run(dmc_trainer *t, const char *state_path, dmc_train_callback *callback, void *user)
{
    int64_t n = total_steps(&t->o);
    double saved = dmc_now();
    dmc_status status = DMC_OK;
    while (t->step < n) {
        dmc_train_report r;
        double start = dmc_now();
        take_step(t, &r);
        r.step_seconds = dmc_now() - start;
        DMC_TRY(judge(t, &r));
        if (t->has_held_out && (t->step == n || (t->o.eval_every && t->step % t->o.eval_every == 0))) {
            DMC_TRY(
                dmc_trainer_measure(t, r.stage == DMC_STAGE_RAMP || r.stage == DMC_STAGE_HOLD, &t->val_ce, &t->val_cr));
            r.measured = true;
        }
        double now = dmc_now();
        t->seconds += now - start;
        bool go_on = true, due = t->o.save_seconds >= 0 && now - saved >= t->o.save_seconds;
        r.step = t->step, r.val_ce = t->val_ce, r.val_cr = t->val_cr, r.tokens = t->tokens, r.seconds = t->seconds;
        if (callback) go_on = callback(&r, user);
        if (state_path && (due || !go_on || t->step == n)) {
            DMC_TRY(save_state(t, state_path));
            saved = dmc_now();
        }
        if (!go_on && t->step < n) {
            status = dmc_fail(DMC_ERR_INTERRUPTED, "stopped at step %lld of %lld", (long long)t->step, (long long)n);
            break;
        }
    }
    dmc_status stored = dmc_layout_store(&t->layout, t->w, t->model);
    return status != DMC_OK ? status : stored;
}
