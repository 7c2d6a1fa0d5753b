#include "eval_windows.h"

#include <string.h>

dmc_status eval_read_stream(eval_tokens *out, const dmc_engine *e, const char *const *files, int n_files,
                            eval_protocol protocol)
{
    if (protocol == EVAL_PACKED || protocol == EVAL_SEPARATE) return eval_read_files(out, e, files, n_files);
    return eval_read_texts(out, e, files, n_files, protocol == EVAL_HALVES);
}

size_t eval_window_tokens(const eval_window *w) { return w->front + w->n; }

eval_window eval_window_of(const eval_windows *w, const eval_tokens *stream, size_t i)
{
    const size_t ctx = (size_t)w->ctx, stride = (size_t)w->stride;
    const bool bos = w->bos >= 0;
    eval_window out = {.from = 1};
    switch (w->protocol) {
    case EVAL_PACKED: out.at = i * (ctx - bos), out.n = ctx - bos, out.front = bos; break;
    case EVAL_SEPARATE: {
        const size_t end = i + 1 < stream->n_documents ? stream->document[i + 1] : stream->n;
        out.at = stream->document[i];
        out.n = end - out.at < ctx ? end - out.at : ctx;
        break;
    }
    case EVAL_HALVES: out.at = i * ctx, out.n = ctx, out.inside = bos, out.from = ctx / 2 + 1; break;
    case EVAL_SLIDING:
        out.at = i * stride;
        out.n = ctx < stream->n - out.at ? ctx : stream->n - out.at;
        if (i && stride < ctx) out.from = ctx - stride;
        break;
    }
    return out;
}

void eval_window_ids(const eval_windows *windows, const eval_window *w, const eval_tokens *stream, int32_t *ids)
{
    memcpy(ids + w->front, stream->ids + w->at, w->n * sizeof *ids);
    if (w->front || w->inside) ids[0] = windows->bos;
}

/* Context, stride, and how many windows the stream gives. */
static dmc_status lay_out(eval_windows *out, const eval_tokens *stream, int stride)
{
    const size_t head = out->protocol == EVAL_PACKED && out->bos >= 0;
    const int asked = out->ctx;
    size_t ctx = (size_t)asked;
    if (out->protocol == EVAL_PACKED || out->protocol == EVAL_SLIDING) {
        if (stream->n + head < ctx) ctx = stream->n + head;
        if (ctx < 2) return dmc_fail(DMC_ERR_ARG, "the text has one token: there is nothing to predict");
    }
    if (out->protocol == EVAL_HALVES && (stream->n < ctx || ctx < 4))
        return dmc_fail(
            DMC_ERR_ARG,
            "a text of %zu tokens in windows of %zu: this protocol needs a whole window, of 4 tokens or more",
            stream->n, ctx);
    out->ctx = (int)ctx;
    out->stride = stride ? stride : out->ctx / 2;
    switch (out->protocol) {
    case EVAL_PACKED:
    case EVAL_HALVES: out->n = stream->n / (ctx - head); break;
    case EVAL_SEPARATE: out->n = stream->n_documents; break;
    case EVAL_SLIDING:
        if (out->stride > asked)
            return dmc_fail(DMC_ERR_ARG, "--stride %d: a window has %d tokens", out->stride, asked);
        out->n = 1 + (stream->n - ctx + (size_t)out->stride - 1) / (size_t)out->stride;
        break;
    }
    return DMC_OK;
}

dmc_status eval_windows_cut(eval_windows *out, const eval_tokens *stream, const dmc_info *info, eval_protocol protocol,
                            int ctx, int stride, int64_t limit)
{
    *out = (eval_windows){.protocol = protocol, .ctx = ctx, .bos = -1};
    /* separate documents have their own in front already */
    if (protocol == EVAL_PACKED || (protocol != EVAL_SEPARATE && info->adds_bos)) out->bos = info->bos;
    DMC_TRY(lay_out(out, stream, stride));
    out->all = out->n;
    if (limit && out->n > (size_t)limit) out->n = (size_t)limit;
    out->left_out = protocol == EVAL_SLIDING ? 0 : (int64_t)stream->n;
    for (size_t i = 0; i < out->all; i++) {
        const eval_window w = eval_window_of(out, stream, i);
        const size_t n = eval_window_tokens(&w);
        if (protocol != EVAL_SLIDING) out->left_out -= (int64_t)w.n;
        if (i >= out->n) continue;
        out->tokens += (int64_t)n;
        if (n > w.from) out->judged += (int64_t)(n - w.from);
    }
    if (!out->judged) return dmc_fail(DMC_ERR_ARG, "the text has one token a window: there is nothing to predict");
    return DMC_OK;
}

void eval_windows_describe(const eval_windows *w, char *out, size_t size)
{
    const long long n = (long long)w->all, left_out = (long long)w->left_out;
    const bool bos = w->bos >= 0;
    switch (w->protocol) {
    case EVAL_PACKED:
        snprintf(
            out, size,
            "documents one after the other with begin and end of text, cut into %lld windows of %d tokens%s that do "
            "not overlap; a fresh cache for each; every token but a window's first is scored; %lld tokens at the end left "
            "out",
            n, w->ctx, bos ? " (the first a begin of text)" : "", left_out);
        break;
    case EVAL_SEPARATE:
        snprintf(
            out, size,
            "%lld separate documents with begin and end of text, each cut off at %d tokens; a fresh cache for each; every "
            "token but a document's first is scored; %lld tokens behind the cuts left out",
            n, w->ctx, left_out);
        break;
    case EVAL_HALVES:
        snprintf(
            out, size,
            "llama.cpp's: the file without its last line end as one text, cut into %lld windows of %d tokens that do not "
            "overlap%s; a fresh cache for each; the tokens from %d on are scored, counted from 0; %lld tokens at the end left "
            "out",
            n, w->ctx, bos ? ", their first token replaced by a begin of text" : "", w->ctx / 2 + 1, left_out);
        break;
    case EVAL_SLIDING:
        snprintf(
            out, size,
            "sliding: the file as one text%s, %lld windows of at most %d tokens, each %d tokens further; a fresh cache for "
            "each; a token is scored in the first window that holds it, if another one stands before it there",
            bos ? " behind a begin of text" : "", n, w->ctx, w->stride);
        break;
    }
    const size_t length = strlen(out);
    if (w->n < w->all) snprintf(out + length, size - length, "; of these the first %lld alone", (long long)w->n);
}
