#define _GNU_SOURCE
#include "eval_text.h"

#include <string.h>

static const char separator[] = "<|endoftext|>";

static bool is_line_end(char c) { return c == '\n' || c == '\r'; }

bool eval_next_document(const char *text, size_t n, size_t *pos, size_t *begin, size_t *end)
{
    while (*pos < n) {
        const char *stop = memmem(text + *pos, n - *pos, separator, sizeof separator - 1);
        *begin = *pos;
        *end = stop ? (size_t)(stop - text) : n;
        *pos = stop ? *end + sizeof separator - 1 : n;
        while (*begin < *end && is_line_end(text[*begin])) ++*begin;
        while (*begin < *end && is_line_end(text[*end - 1])) --*end;
        if (*begin < *end) return true;
    }
    return false;
}

/* ---- tokens ------------------------------------------------------------------------------------------------------ */

void eval_tokens_free(eval_tokens *t)
{
    dmc_free(t->ids);
    dmc_free(t->bytes);
    dmc_free(t->document);
    *t = (eval_tokens){0};
}

static dmc_status make_room(eval_tokens *t, size_t more)
{
    if (more <= t->capacity - t->n) return DMC_OK;
    size_t capacity = (t->n + more) * 3 / 2 + 64;
    int32_t *ids = dmc_realloc(t->ids, capacity, sizeof *ids);
    if (ids) t->ids = ids;
    uint32_t *bytes = dmc_realloc(t->bytes, capacity, sizeof *bytes);
    if (bytes) t->bytes = bytes;
    if (!ids || !bytes) return dmc_fail(DMC_ERR_MEMORY, "out of memory for %zu tokens", capacity);
    t->capacity = capacity;
    return DMC_OK;
}

static dmc_status encode(eval_tokens *t, const dmc_engine *e, const char *text, size_t n, size_t *n_ids)
{
    DMC_TRY(make_room(t, n / 2 + 16));
    dmc_status status = dmc_encode(e, text, n, false, false, t->ids + t->n, t->capacity - t->n, n_ids);
    if (*n_ids <= t->capacity - t->n) return status;
    DMC_TRY(make_room(t, *n_ids));
    return dmc_encode(e, text, n, false, false, t->ids + t->n, t->capacity - t->n, n_ids);
}

/* Which bytes of the text each of its tokens holds. Some tokenizers put a space in front, and some change characters: what is
 * too much or missing is set right at the ends. */
static dmc_status share_out(eval_tokens *t, const dmc_engine *e, size_t first, const char *text, size_t n)
{
    const char *bytes;
    size_t passed = 0, given = 0, n_bytes;
    for (size_t i = first; i < t->n; i++) {
        DMC_TRY(dmc_token_bytes(e, t->ids[i], &bytes, &n_bytes));
        if (i == first && n_bytes && bytes[0] == ' ' && text[0] != ' ') n_bytes--;
        passed += n_bytes;
        size_t upto = i + 1 == t->n || passed > n ? n : passed;
        t->bytes[i] = (uint32_t)(upto - given);
        given = upto;
    }
    return DMC_OK;
}

static dmc_status append_mark(eval_tokens *t, int id)
{
    DMC_TRY(make_room(t, 1));
    t->ids[t->n] = id;
    t->bytes[t->n++] = 0;
    return DMC_OK;
}

dmc_status eval_append_document(eval_tokens *t, const dmc_engine *e, const char *text, size_t n, bool bos, bool eos)
{
    const dmc_info *info = dmc_engine_info(e);
    size_t n_ids, first;
    if (bos && info->bos >= 0) DMC_TRY(append_mark(t, info->bos));
    first = t->n;
    DMC_TRY(encode(t, e, text, n, &n_ids));
    t->n += n_ids;
    DMC_TRY(share_out(t, e, first, text, n));
    return eos && info->eos >= 0 ? append_mark(t, info->eos) : DMC_OK;
}

/* What one file adds. */
typedef dmc_status append_file(eval_tokens *out, const dmc_engine *e, const char *text, size_t n);

static dmc_status append_text(eval_tokens *out, const dmc_engine *e, const char *text, size_t n)
{
    return n ? eval_append_document(out, e, text, n, dmc_engine_info(e)->adds_bos, false) : DMC_OK;
}

static dmc_status append_stripped(eval_tokens *out, const dmc_engine *e, const char *text, size_t n)
{
    return append_text(out, e, text, n - (n && text[n - 1] == '\n'));
}

static dmc_status begin_document(eval_tokens *t)
{
    if (t->n_documents == t->documents_capacity) {
        const size_t capacity = t->documents_capacity * 3 / 2 + 64;
        size_t *document = dmc_realloc(t->document, capacity, sizeof *document);
        if (!document) return dmc_fail(DMC_ERR_MEMORY, "out of memory for %zu documents", capacity);
        t->document = document;
        t->documents_capacity = capacity;
    }
    t->document[t->n_documents++] = t->n;
    return DMC_OK;
}

static dmc_status append_documents(eval_tokens *out, const dmc_engine *e, const char *text, size_t n)
{
    for (size_t pos = 0, begin, end; eval_next_document(text, n, &pos, &begin, &end);) {
        DMC_TRY(begin_document(out));
        DMC_TRY(eval_append_document(out, e, text + begin, end - begin, true, true));
    }
    return DMC_OK;
}

static dmc_status read_each(eval_tokens *out, const dmc_engine *e, const char *const *files, int n_files,
                            append_file *append)
{
    dmc_status status = DMC_OK;
    *out = (eval_tokens){0};
    for (int i = 0; i < n_files && status == DMC_OK; i++) {
        dmc_mapping m;
        DMC_GOTO(dmc_map_file(&m, files[i]));
        status = append(out, e, (const char *)m.data, m.size);
        dmc_unmap(&m);
    }
    if (status == DMC_OK && out->n == 0)
        status = dmc_fail(DMC_ERR_FORMAT, "%s: no text in it", n_files ? files[0] : "--data");
done:
    if (status != DMC_OK) eval_tokens_free(out);
    return status;
}

dmc_status eval_read_texts(eval_tokens *out, const dmc_engine *e, const char *const *files, int n_files,
                           bool strip_newline)
{
    return read_each(out, e, files, n_files, strip_newline ? append_stripped : append_text);
}

dmc_status eval_read_files(eval_tokens *out, const dmc_engine *e, const char *const *files, int n_files)
{
    return read_each(out, e, files, n_files, append_documents);
}
