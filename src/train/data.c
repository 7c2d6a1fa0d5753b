/* Corpora and samples. */
#define _GNU_SOURCE
#include "train/data.h"

#include <string.h>

static const char separator[] = "<|endoftext|>";

static dmc_status append(dmc_corpus *c, size_t *cap, const int32_t *ids, size_t n)
{
    if (c->n + n > *cap) {
        size_t bigger = (c->n + n) * 3 / 2 + 1024;
        int32_t *p = dmc_realloc(c->ids, bigger, sizeof *p);
        if (!p) return dmc_fail(DMC_ERR_MEMORY, "out of memory for %zu training tokens", bigger);
        c->ids = p;
        *cap = bigger;
    }
    memcpy(c->ids + c->n, ids, n * sizeof *ids);
    c->n += n;
    return DMC_OK;
}

static dmc_status add_document(dmc_corpus *c, size_t *cap, size_t *doc_cap, const dmc_tokenizer *t,
                               const dmc_config *config, const char *text, size_t n)
{
    while (n && (text[0] == '\n' || text[0] == '\r')) text++, n--;
    while (n && (text[n - 1] == '\n' || text[n - 1] == '\r')) n--;
    if (!n) return DMC_OK;
    int32_t *ids = NULL, end = config->n_eos ? config->eos[0] : -1, bos = c->bos;
    size_t n_ids = 0;
    dmc_status status = dmc_tokenizer_encode(&ids, &n_ids, t, text, n, false, false);
    if (status != DMC_OK) return status;
    if (c->n_docs + 2 > *doc_cap) {
        size_t bigger = *doc_cap * 2 + 64;
        size_t *p = dmc_realloc(c->doc, bigger, sizeof *p);
        if (!p) {
            status = dmc_fail(DMC_ERR_MEMORY, "out of memory for %zu documents", bigger);
            goto done;
        }
        c->doc = p;
        *doc_cap = bigger;
    }
    c->doc[c->n_docs] = c->n;
    if (bos >= 0) DMC_GOTO(append(c, cap, &bos, 1));
    DMC_GOTO(append(c, cap, ids, n_ids));
    if (end >= 0) DMC_GOTO(append(c, cap, &end, 1));
    c->doc[++c->n_docs] = c->n;
    c->text_bytes += n;
done:
    dmc_free(ids);
    return status;
}

dmc_status dmc_corpus_load(dmc_corpus *out, const dmc_tokenizer *t, const dmc_config *config, const char *const *files,
                           size_t n_files)
{
    size_t cap = 0, doc_cap = 0;
    dmc_status status = DMC_OK;
    *out = (dmc_corpus){.bos = config->bos};
    for (size_t i = 0; i < n_files && status == DMC_OK; i++) {
        dmc_mapping m;
        DMC_GOTO(dmc_map_file(&m, files[i]));
        const char *at = (const char *)m.data, *end = at + m.size;
        while (at < end && status == DMC_OK) {
            const char *stop = memmem(at, (size_t)(end - at), separator, sizeof separator - 1);
            status = add_document(out, &cap, &doc_cap, t, config, at, (size_t)((stop ? stop : end) - at));
            at = stop ? stop + sizeof separator - 1 : end;
        }
        dmc_unmap(&m);
    }
    if (status == DMC_OK && !out->n)
        status = dmc_fail(DMC_ERR_FORMAT, "%s: no text in it", n_files ? files[0] : "--data");
    for (size_t i = 0; i < out->n && status == DMC_OK; i++)
        if (out->ids[i] < 0 || out->ids[i] >= config->n_vocab)
            status =
                dmc_fail(DMC_ERR_FORMAT, "the tokenizer gives id %d, the model has %d: they do not belong together",
                         (int)out->ids[i], config->n_vocab);
done:
    if (status != DMC_OK) dmc_corpus_free(out);
    return status;
}

void dmc_corpus_free(dmc_corpus *c)
{
    dmc_free(c->ids);
    dmc_free(c->doc);
    *c = (dmc_corpus){0};
}

dmc_status dmc_corpus_split(dmc_corpus *c, dmc_corpus *tail, double fraction)
{
    size_t cut = (size_t)((double)c->n * (1 - fraction)), first = 0;
    while (first < c->n_docs && c->doc[first] < cut) first++; /* the first document that begins behind the cut */
    bool between = first < c->n_docs && c->doc[first] - cut <= (c->n - cut) / 2;
    if (between) cut = c->doc[first]; /* else a large document is cut in two, and its rest comes first in the tail */
    size_t rest = between ? 0 : 1;
    *tail = (dmc_corpus){.bos = c->bos, .n = c->n - cut, .n_docs = c->n_docs - first + rest};
    if (!cut || !tail->n) return dmc_fail(DMC_ERR_ARG, "the text has %zu tokens: too few to hold some out", c->n);
    tail->ids = dmc_malloc(tail->n, sizeof *tail->ids);
    tail->doc = dmc_malloc(tail->n_docs + 1, sizeof *tail->doc);
    if (!tail->ids || !tail->doc) {
        dmc_corpus_free(tail);
        return dmc_fail(DMC_ERR_MEMORY, "out of memory for the held-out text");
    }
    memcpy(tail->ids, c->ids + cut, tail->n * sizeof *tail->ids);
    tail->doc[0] = 0;
    for (size_t i = first; i <= c->n_docs; i++) tail->doc[i - first + rest] = c->doc[i] - cut;
    c->n = c->doc[first] = cut;
    c->n_docs = first;
    return DMC_OK;
}

dmc_status dmc_sampling_create(dmc_sampling *out, const dmc_corpus *c, int T, bool packed, uint64_t seed)
{
    *out = (dmc_sampling){.corpus = c, .T = T, .packed = packed, .seed = seed, .epoch = UINT64_MAX};
    size_t body = (size_t)T - (c->bos >= 0);
    if (T < 2) return dmc_fail(DMC_ERR_ARG, "a context of %d tokens: at least 2 are needed", T);
    out->n_samples = packed ? c->n / body : c->n_docs;
    if (packed && !out->n_samples)
        return dmc_fail(
            DMC_ERR_ARG,
            "the text, or what is held out of it, has %zu tokens, fewer than one sample of %d: take more text or a smaller --ctx",
            c->n, T);
    if (out->n_samples > UINT32_MAX) return dmc_fail(DMC_ERR_ARG, "too many samples");
    return dmc_array(&out->order, out->n_samples, sizeof *out->order);
}

void dmc_sampling_free(dmc_sampling *s)
{
    dmc_free(s->order);
    s->order = NULL;
}

static void shuffle(dmc_sampling *s, uint64_t epoch)
{
    for (size_t i = 0; i < s->n_samples; i++) s->order[i] = (uint32_t)i;
    for (size_t i = s->n_samples; i-- > 1;) { /* Fisher and Yates */
        size_t j = (size_t)(dmc_hash64(s->seed, epoch, i) % (i + 1));
        uint32_t x = s->order[i];
        s->order[i] = s->order[j];
        s->order[j] = x;
    }
    s->epoch = epoch;
}

void dmc_sampling_get(dmc_sampling *s, uint64_t i, int32_t *ids, int32_t *length)
{
    uint64_t epoch = i / s->n_samples;
    if (epoch != s->epoch) shuffle(s, epoch);
    dmc_sampling_plain(s, s->order[i % s->n_samples], ids, length);
}

void dmc_sampling_plain(const dmc_sampling *s, size_t i, int32_t *ids, int32_t *length)
{
    const dmc_corpus *c = s->corpus;
    size_t from, n, head = s->packed && c->bos >= 0;
    if (s->packed) {
        n = (size_t)s->T - head;
        from = i * n;
    } else {
        from = c->doc[i];
        n = c->doc[i + 1] - from;
        if (n > (size_t)s->T) n = (size_t)s->T;
    }
    if (head) ids[0] = c->bos;
    memcpy(ids + head, c->ids + from, n * sizeof *ids);
    *length = (int32_t)(head + n);
    for (int t = *length; t < s->T; t++) ids[t] = t ? ids[t - 1] : 0;
}
