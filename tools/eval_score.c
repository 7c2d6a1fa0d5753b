/* Sessions to measure with, their caches, and the judgement of single tokens. */
#include "eval.h"

#include "base/threads.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

eval_options eval_options_default(void) { return (eval_options){.policy = policy_options_default(), .chunk = 128}; }

/* ---- sessions ---------------------------------------------------------------------------------------------------- */

dmc_status eval_prepare(dmc_session_options *out, const dmc_engine *e, const eval_options *o)
{
    const dmc_info *info = dmc_engine_info(e);
    *out = dmc_session_options_default();
    out->override_policy = true;
    out->chunk = o->chunk;
    out->n_ctx = o->ctx ? o->ctx : info->n_ctx < 2048 ? info->n_ctx : 2048;
    if (out->n_ctx > info->n_ctx)
        return dmc_fail(DMC_ERR_ARG, "--ctx %d: the model's context has %d tokens", out->n_ctx, info->n_ctx);
    if (out->n_ctx < 2) return dmc_fail(DMC_ERR_ARG, "a context of %d tokens: at least 2 are needed", out->n_ctx);
    return policy_choose(&out->policy, info, &o->policy);
}

void eval_describe(char *out, size_t size, const dmc_session_options *s)
{
    char policy[96];
    policy_describe(policy, sizeof policy, &s->policy);
    snprintf(out, size, "%s, context %d", policy, s->n_ctx);
}

void eval_describe_windows(char *out, size_t size, const dmc_session_options *s)
{
    eval_describe(out, size, s);
    const size_t n = strlen(out);
    if (s->policy.kind == DMC_POLICY_SNAPKV)
        snprintf(out + n, size - n, ", the first %d tokens its prompt (--chunk)", s->chunk);
}

void eval_protocol_text(char *out, size_t size, const eval_windows *w, const dmc_session_options *s)
{
    eval_describe_windows(out, size, s);
    size_t n = strlen(out);
    n += (size_t)snprintf(out + n, size - n, "; ");
    eval_windows_describe(w, out + n, size - n);
}

/* ---- caches ------------------------------------------------------------------------------------------------------ */

void eval_cache_add(eval_cache *c, const dmc_session *s)
{
    dmc_stats st = dmc_session_stats(s);
    c->n++;
    c->tokens += st.n_tokens;
    c->slots += st.n_slots;
    c->slots_uncompressed += st.n_slots_uncompressed;
    c->bytes += st.kv_bytes;
    c->bytes_uncompressed += st.kv_bytes_uncompressed;
}

double eval_cache_cr(const eval_cache *c) { return c->slots ? (double)c->slots_uncompressed / (double)c->slots : 1; }

/* ---- tokens ------------------------------------------------------------------------------------------------------ */

dmc_status eval_judge_create(eval_judge *j, const dmc_engine *e, int chunk, int threads)
{
    *j = (eval_judge){.n_vocab = dmc_engine_info(e)->n_vocab, .chunk = chunk};
    DMC_TRY(dmc_threads_create(&j->threads, threads ? threads : dmc_threads_cores(), false));
    return dmc_array(&j->logits, (size_t)chunk * (size_t)j->n_vocab, sizeof *j->logits);
}

void eval_judge_free(eval_judge *j)
{
    dmc_free(j->logits);
    dmc_threads_close(j->threads);
    *j = (eval_judge){0};
}

static void judge_row(const float *logits, int n_vocab, int32_t id, double *nll, bool *hit)
{
    int best = 0;
    double sum = 0;
    for (int i = 1; i < n_vocab; i++)
        if (logits[i] > logits[best]) best = i;
    for (int i = 0; i < n_vocab; i++) sum += expf(logits[i] - logits[best]);
    *nll = log(sum) + (double)logits[best] - (double)logits[id];
    *hit = best == id;
}

typedef struct {
    const float *logits;
    int n_vocab;
    const int32_t *ids; /* that follow each row of logits */
    double *nll;
    bool *hit;
} rows;

static void row_task(void *arg, int64_t i, int thread)
{
    const rows *r = arg;
    (void)thread;
    judge_row(r->logits + i * r->n_vocab, r->n_vocab, r->ids[i], &r->nll[i], &r->hit[i]);
}

void eval_judge_rows(eval_judge *j, const float *logits, const int32_t *next, size_t n, double *nll, bool *hit)
{
    dmc_parallel(j->threads, (int64_t)n, row_task,
                 &(rows){.logits = logits, .n_vocab = j->n_vocab, .ids = next, .nll = nll, .hit = hit});
}

dmc_status eval_judge_feed(eval_judge *j, dmc_session *s, const int32_t *ids, size_t n, double *nll, bool *hit)
{
    for (size_t at = 0; at < n; at += (size_t)j->chunk) {
        size_t fed = n - at < (size_t)j->chunk ? n - at : (size_t)j->chunk, judged = at + fed < n ? fed : fed - 1;
        DMC_TRY(dmc_session_feed(s, ids + at, fed, j->logits, true));
        eval_judge_rows(j, j->logits, ids + at + 1, judged, nll + at + 1, hit + at + 1);
    }
    return DMC_OK;
}
