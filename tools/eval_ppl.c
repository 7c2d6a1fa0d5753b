/* Perplexity of a text, read in windows through the real cache. */
#include "eval.h"
#include "progress.h"

#include <math.h>

double eval_ppl_nll(const eval_ppl_result *r) { return r->nll / (double)r->windows.judged; }
double eval_ppl_bits_per_byte(const eval_ppl_result *r) { return r->nll / log(2) / (double)r->bytes; }

typedef struct {
    const dmc_engine *e;
    eval_judge judge;
    int32_t *ids; /* [ctx] of the window */
    double *nll;
    bool *hit;
} reader;

static void reader_free(reader *r)
{
    eval_judge_free(&r->judge);
    dmc_free(r->ids);
    dmc_free(r->nll);
    dmc_free(r->hit);
}

static dmc_status reader_create(reader *r, const dmc_engine *e, int ctx, int chunk, int threads)
{
    dmc_status status;
    *r = (reader){.e = e};
    DMC_GOTO(eval_judge_create(&r->judge, e, chunk, threads));
    DMC_GOTO(dmc_array(&r->ids, (size_t)ctx, sizeof *r->ids));
    DMC_GOTO(dmc_array(&r->nll, (size_t)ctx, sizeof *r->nll));
    DMC_GOTO(dmc_array(&r->hit, (size_t)ctx, sizeof *r->hit));
    return DMC_OK;
done:
    reader_free(r);
    return status;
}

static dmc_status read_window(eval_ppl_result *out, reader *r, dmc_session *s, const eval_tokens *stream,
                              const eval_window *w)
{
    const size_t n = eval_window_tokens(w);
    eval_window_ids(&out->windows, w, stream, r->ids);
    DMC_TRY(eval_judge_feed(&r->judge, s, r->ids, n, r->nll, r->hit));
    for (size_t i = w->from; i < n; i++) {
        out->nll += r->nll[i];
        out->bytes += stream->bytes[w->at + i - w->front];
    }
    eval_cache_add(&out->cache, s);
    return DMC_OK;
}

dmc_status eval_ppl(eval_ppl_result *out, dmc_engine *e, const eval_tokens *stream, const eval_options *o,
                    eval_window_fn *each, void *user)
{
    dmc_session_options so;
    dmc_status status = DMC_OK;
    reader r;
    int64_t judged = 0;
    DMC_TRY(eval_prepare(&so, e, o));
    *out = (eval_ppl_result){.cache.policy = so.policy};
    DMC_TRY(eval_windows_cut(&out->windows, stream, dmc_engine_info(e), o->protocol, so.n_ctx, o->stride, o->limit));
    DMC_TRY(reader_create(&r, e, out->windows.ctx, so.chunk, o->threads));

    progress bar;
    progress_start(&bar, &(progress_options){.title = "eval ppl",
                                             .total = (int64_t)out->windows.n,
                                             .unit = "tok",
                                             .per_item = (double)out->windows.tokens / (double)out->windows.n,
                                             .quiet = o->quiet,
                                             .no_color = o->no_color});
    const double start = dmc_now();
    for (size_t i = 0; i < out->windows.n && status == DMC_OK; i++) {
        const eval_window w = eval_window_of(&out->windows, stream, i);
        dmc_session *s;
        const size_t n = eval_window_tokens(&w);
        if (n <= w.from) continue; /* a document of one token, or a stride that leaves one alone */
        judged += (int64_t)(n - w.from);
        DMC_GOTO(dmc_session_create(&s, e, &so));
        status = read_window(out, &r, s, stream, &w);
        if (status == DMC_OK && each) each(s, user);
        dmc_session_close(s);
        progress_update(&bar, (int64_t)i + 1, "nll %.4f  CR %.2f", out->nll / (double)judged,
                        eval_cache_cr(&out->cache));
    }
done:
    progress_end(&bar);
    out->seconds = dmc_now() - start;
    reader_free(&r);
    return status;
}
