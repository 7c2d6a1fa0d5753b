/* KL divergence: how far a compressed cache moves what the model predicts, token by token, from an uncompressed one. */
#include "eval.h"
#include "progress.h"

#include "base/threads.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    double kl, nll, nll_reference;
    bool same; /* most likely token */
} judgement;

typedef struct {
    int n_vocab, chunk;
    float *logits, *reference; /* [chunk][n_vocab] */
    const int32_t *next;       /* [chunk] tokens that follow the rows */
    judgement *out;
} rows;

static double log_sum_exp(const float *x, int n, int *best)
{
    double sum = 0;
    *best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[*best]) *best = i;
    for (int i = 0; i < n; i++) sum += exp((double)(x[i] - x[*best]));
    return log(sum) + (double)x[*best];
}

static void judge(void *arg, int64_t i, int thread)
{
    const rows *r = arg;
    (void)thread;
    const float *x = r->logits + i * r->n_vocab, *p = r->reference + i * r->n_vocab;
    int best, best_reference;
    double z = log_sum_exp(x, r->n_vocab, &best), zp = log_sum_exp(p, r->n_vocab, &best_reference), kl = 0;
    for (int v = 0; v < r->n_vocab; v++) {
        double log_p = (double)p[v] - zp;
        kl += exp(log_p) * (log_p - ((double)x[v] - z));
    }
    r->out[i] = (judgement){.kl = kl < 0 ? 0 : kl, /* rounding may leave -1e-16 */
                            .nll = z - (double)x[r->next[i]],
                            .nll_reference = zp - (double)p[r->next[i]],
                            .same = best == best_reference};
}

/* One window through both caches -> n - 1 judgements, of the tokens behind the first. */
static dmc_status read_window(rows *r, dmc_threads *team, dmc_session *s, dmc_session *reference, const int32_t *ids,
                              size_t n, judgement *out)
{
    for (size_t at = 0; at < n - 1; at += (size_t)r->chunk) {
        const size_t left = n - 1 - at, fed = left < (size_t)r->chunk ? left : (size_t)r->chunk;
        DMC_TRY(dmc_session_feed(s, ids + at, fed, r->logits, true));
        DMC_TRY(dmc_session_feed(reference, ids + at, fed, r->reference, true));
        r->next = ids + at + 1;
        r->out = out + at;
        dmc_parallel(team, (int64_t)fed, judge, r);
    }
    return DMC_OK;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void sum_up(eval_kld_result *out, const judgement *all, double *kl, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        kl[i] = all[i].kl;
        out->kl += all[i].kl;
        out->nll += all[i].nll;
        out->nll_reference += all[i].nll_reference;
        out->same += all[i].same;
    }
    qsort(kl, (size_t)n, sizeof *kl, ascending);
    out->kl /= (double)n, out->nll /= (double)n, out->nll_reference /= (double)n;
    out->median = kl[n / 2];
    out->p99 = kl[n - 1 - n / 100];
    out->worst = kl[n - 1];
}

dmc_status eval_kld(eval_kld_result *out, dmc_engine *e, dmc_engine *reference, const eval_tokens *stream,
                    const eval_options *o)
{
    const dmc_info *info = dmc_engine_info(e), *other = dmc_engine_info(reference);
    dmc_session_options so, none = dmc_session_options_default();
    dmc_session *s = NULL, *ref = NULL;
    dmc_threads *team = NULL;
    judgement *all = NULL, *window = NULL;
    int32_t *ids = NULL;
    double *kl = NULL;
    progress bar;
    bool showing = false;
    int64_t judged = 0;
    dmc_status status;
    rows r = {.n_vocab = info->n_vocab};
    *out = (eval_kld_result){0};
    DMC_TRY(eval_prepare(&so, e, o));
    out->cache.policy = so.policy;
    if (other->n_vocab != info->n_vocab || other->n_ctx < so.n_ctx)
        return dmc_fail(DMC_ERR_ARG, "the reference has %d tokens and a context of %d; %d and %d are needed",
                        other->n_vocab, other->n_ctx, info->n_vocab, so.n_ctx);
    none.n_ctx = so.n_ctx, none.chunk = so.chunk, none.override_policy = true; /* its policy is 'none' */
    DMC_TRY(eval_windows_cut(&out->windows, stream, info, o->protocol, so.n_ctx, o->stride, o->limit));
    r.chunk = so.chunk;
    DMC_GOTO(dmc_threads_create(&team, o->threads ? o->threads : dmc_threads_cores(), false));
    DMC_GOTO(dmc_array(&r.logits, (size_t)r.chunk * (size_t)r.n_vocab, sizeof *r.logits));
    DMC_GOTO(dmc_array(&r.reference, (size_t)r.chunk * (size_t)r.n_vocab, sizeof *r.reference));
    DMC_GOTO(dmc_array(&ids, (size_t)out->windows.ctx, sizeof *ids));
    DMC_GOTO(dmc_array(&window, (size_t)out->windows.ctx, sizeof *window));
    DMC_GOTO(dmc_array(&all, (size_t)out->windows.judged, sizeof *all));
    DMC_GOTO(dmc_array(&kl, (size_t)out->windows.judged, sizeof *kl));
    progress_start(&bar, &(progress_options){.title = "eval kld",
                                             .total = (int64_t)out->windows.n,
                                             .unit = "tok",
                                             .per_item = (double)out->windows.tokens / (double)out->windows.n,
                                             .quiet = o->quiet,
                                             .no_color = o->no_color});
    showing = true;
    const double start = dmc_now();
    for (size_t i = 0; i < out->windows.n; i++) {
        const eval_window w = eval_window_of(&out->windows, stream, i);
        const size_t n = eval_window_tokens(&w);
        if (n <= w.from) continue;
        eval_window_ids(&out->windows, &w, stream, ids);
        DMC_GOTO(dmc_session_create(&s, e, &so));
        DMC_GOTO(dmc_session_create(&ref, reference, &none));
        DMC_GOTO(read_window(&r, team, s, ref, ids, n, window));
        memcpy(all + judged, window + w.from - 1, (n - w.from) * sizeof *all);
        judged += (int64_t)(n - w.from);
        eval_cache_add(&out->cache, s);
        out->reference_bytes += dmc_session_stats(ref).kv_bytes;
        dmc_session_close(s), dmc_session_close(ref);
        s = ref = NULL;
        progress_update(&bar, (int64_t)i + 1, "CR %.2f", eval_cache_cr(&out->cache));
    }
    out->seconds = dmc_now() - start;
    sum_up(out, all, kl, judged);
    if (!isfinite(out->kl)) status = dmc_fail(DMC_ERR_NUMERIC, "the model predicts what is not a number");
done:
    if (showing) progress_end(&bar);
    dmc_session_close(s), dmc_session_close(ref);
    dmc_threads_close(team);
    dmc_free(r.logits), dmc_free(r.reference), dmc_free(ids), dmc_free(window), dmc_free(all), dmc_free(kl);
    return status;
}
