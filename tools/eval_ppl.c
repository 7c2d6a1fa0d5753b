/* Perplexity of a text, read in windows through the real cache. */
#include "eval.h"
#include "progress.h"

#include <math.h>
#include <string.h>

double eval_ppl_nll(const eval_ppl_result *r) { return r->nll / (double)r->tokens; }
double eval_ppl_bits_per_byte(const eval_ppl_result *r) { return r->nll / log(2) / (double)r->bytes; }

void eval_ppl_protocol(char *out, size_t size, const eval_ppl_result *r, const dmc_session_options *s)
{
    char how[96];
    eval_describe(how, sizeof how, s);
    snprintf(
        out, size,
        "%s; documents one after the other with begin and end of text, cut into %lld windows of %d tokens%s that do not "
        "overlap; a fresh cache for each; every token but a window's first is scored; %lld tokens at the end left out",
        how, (long long)r->cache.n, r->ctx, r->bos ? " (the first a begin of text)" : "", (long long)r->dropped);
}

typedef struct {
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

static dmc_status reader_create(reader *r, const dmc_engine *e, int ctx, int chunk)
{
    dmc_status status;
    *r = (reader){0};
    DMC_GOTO(eval_judge_create(&r->judge, e, chunk));
    DMC_GOTO(dmc_array(&r->ids, (size_t)ctx, sizeof *r->ids));
    DMC_GOTO(dmc_array(&r->nll, (size_t)ctx, sizeof *r->nll));
    DMC_GOTO(dmc_array(&r->hit, (size_t)ctx, sizeof *r->hit));
    return DMC_OK;
done:
    reader_free(r);
    return status;
}

/* Reads r->ids. bytes: what each of them stands for. */
static dmc_status read_window(eval_ppl_result *out, reader *r, dmc_session *s, const uint32_t *bytes)
{
    DMC_TRY(eval_judge_feed(&r->judge, s, r->ids, (size_t)out->ctx, r->nll, r->hit));
    for (int i = 1; i < out->ctx; i++) {
        out->nll += r->nll[i];
        out->bytes += bytes[i - out->bos];
    }
    out->tokens += out->ctx - 1;
    eval_cache_add(&out->cache, s);
    return DMC_OK;
}

dmc_status eval_ppl(eval_ppl_result *out, dmc_engine *e, const eval_tokens *stream, const eval_options *o,
                    eval_window_fn *each, void *user)
{
    const int bos = dmc_engine_info(e)->bos;
    const size_t head = bos >= 0;
    dmc_session_options so;
    dmc_status status = DMC_OK;
    reader r;
    DMC_TRY(eval_prepare(&so, e, o));
    *out = (eval_ppl_result){.ctx = so.n_ctx, .bos = bos >= 0};
    if (stream->n + head < (size_t)out->ctx) out->ctx = (int)(stream->n + head);
    if (out->ctx < 2) return dmc_fail(DMC_ERR_ARG, "the text has one token: there is nothing to predict");
    const size_t body = (size_t)out->ctx - head;
    size_t n_windows = stream->n / body;
    out->dropped = (int64_t)(stream->n - n_windows * body);
    if (o->limit && n_windows > (size_t)o->limit) n_windows = (size_t)o->limit;
    DMC_TRY(reader_create(&r, e, out->ctx, so.chunk));

    progress bar;
    progress_start(&bar, &(progress_options){.title = "eval ppl",
                                             .total = (int64_t)n_windows,
                                             .unit = "tok",
                                             .per_item = out->ctx,
                                             .quiet = o->quiet,
                                             .no_color = o->no_color});
    const double start = dmc_now();
    if (head) r.ids[0] = bos;
    for (size_t i = 0; i < n_windows && status == DMC_OK; i++) {
        dmc_session *s;
        DMC_GOTO(dmc_session_create(&s, e, &so));
        memcpy(r.ids + head, stream->ids + i * body, body * sizeof *r.ids);
        status = read_window(out, &r, s, stream->bytes + i * body);
        if (status == DMC_OK && each) each(s, user);
        dmc_session_close(s);
        progress_update(&bar, (int64_t)i + 1, "nll %.4f  CR %.2f", eval_ppl_nll(out), eval_cache_cr(&out->cache));
    }
done:
    progress_end(&bar);
    out->seconds = dmc_now() - start;
    reader_free(&r);
    return status;
}
