/* llama2.c's tokenizer.bin: int32 length of the longest token, then for each token float32 score, int32 length,
 * bytes. Spaces are spaces; bytes are pieces <0xNN> from id 3 on, if the vocabulary has them. */
#include "text/vocab.h"

#include <string.h>

typedef struct {
    float score;
    int32_t n;
    const char *bytes;
} entry;

/* The entry at *at; moves on. */
static bool next_entry(entry *e, const uint8_t *data, size_t n, size_t *at)
{
    if (n - *at < 8) return false;
    memcpy(&e->score, data + *at, 4);
    memcpy(&e->n, data + *at + 4, 4);
    if (e->n < 0 || (size_t)e->n > n - *at - 8) return false;
    e->bytes = (const char *)data + *at + 8;
    *at += 8 + (size_t)e->n;
    return true;
}

static dmc_status set_entry(dmc_tokenizer *t, int id, const entry *e)
{
    if (id == 0) return dmc_vocab_set(t, id, e->bytes, (size_t)e->n, DMC_KIND_UNKNOWN, DMC_TOKEN_ADDED, 0);
    if (id <= 2) { /* BOS and EOS stand there as "\n<s>\n" */
        const char *s = e->bytes, *end = s + e->n;
        while (s < end && *s == '\n') s++;
        while (s < end && end[-1] == '\n') end--;
        return dmc_vocab_set(t, id, s, (size_t)(end - s), DMC_KIND_CONTROL, DMC_TOKEN_ADDED, 0);
    }
    if (dmc_byte_piece(e->bytes, (size_t)e->n) == id - 3)
        return dmc_vocab_set_sp(t, id, e->bytes, (size_t)e->n, DMC_KIND_BYTE, 0);
    /* Not dmc_vocab_set_sp: here a space is a space. */
    return dmc_vocab_set(t, id, e->bytes, (size_t)e->n, DMC_KIND_NORMAL, DMC_TOKEN_MERGES, dmc_rank_of_score(e->score));
}

dmc_status dmc_read_llama2c(dmc_tokenizer *t, const uint8_t *data, size_t n, int n_vocab, const char *where)
{
    size_t at = 4, count = 0;
    entry e;
    if (n < 4) return dmc_fail(DMC_ERR_FORMAT, "%s: %zu bytes are no llama2.c tokenizer", where, n);
    while (at < n && next_entry(&e, data, n, &at)) count++;
    if (at != n)
        return dmc_fail(DMC_ERR_FORMAT, "%s: token %zu, at byte %zu, goes beyond the file's end at %zu", where, count,
                        at, n);
    if (n_vocab > 0 && count < (size_t)n_vocab)
        return dmc_fail(DMC_ERR_FORMAT, "%s: %zu tokens for a model of %d; is it another model's tokenizer?", where,
                        count, n_vocab);
    DMC_TRY(dmc_vocab_reserve(t, count, where));
    at = 4;
    for (int id = 0; id < t->n_tokens; id++) {
        if (!next_entry(&e, data, n, &at)) break;
        DMC_TRY(set_entry(t, id, &e));
    }
    t->rule = DMC_MERGE_PIECES;
    t->characters = t->fuse_unknown = t->strip_start = true;
    t->normalizer = (dmc_normalizer){.prefix = DMC_PREFIX_ALWAYS};
    t->unknown = 0;
    t->bos = 1;
    t->adds_bos = true;
    dmc_vocab_mark_end(t, 1); /* in llama2.c, a BOS begins the next text */
    dmc_vocab_mark_end(t, 2);
    DMC_TRY(dmc_vocab_index(t));
    return dmc_vocab_finish(t);
}
