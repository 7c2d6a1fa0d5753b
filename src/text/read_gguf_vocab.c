/* The vocabulary in a GGUF file's metadata: tokenizer.ggml.model "llama" is SentencePiece BPE with scores, "gpt2" is
 * byte-level BPE with merges and the name of its family's pre-tokeniser. */
#include "format/gguf.h"
#include "text/families.h"
#include "text/vocab.h"

#include <string.h>

static bool is(dmc_bytes b, const char *s) { return b.n == strlen(s) && memcmp(b.s, s, b.n) == 0; }

static dmc_status set_tokens(dmc_tokenizer *t, const dmc_gguf *g, bool spm, const char *where)
{
    int64_t n = dmc_gguf_count_strings(g, "tokenizer.ggml.tokens");
    int64_t n_scores = dmc_gguf_count_floats(g, "tokenizer.ggml.scores");
    int64_t n_types = dmc_gguf_count_ints(g, "tokenizer.ggml.token_type");
    if (n < 0) return dmc_fail(DMC_ERR_FORMAT, "%s: tokenizer.ggml.tokens is missing or no array of strings", where);
    if (spm && n_scores != n)
        return dmc_fail(DMC_ERR_FORMAT, "%s: %lld tokens, but %lld numbers in tokenizer.ggml.scores", where,
                        (long long)n, (long long)n_scores);
    if (n_types >= 0 && n_types != n)
        return dmc_fail(DMC_ERR_FORMAT, "%s: %lld tokens, but %lld numbers in tokenizer.ggml.token_type", where,
                        (long long)n, (long long)n_types);
    DMC_TRY(dmc_vocab_reserve(t, (size_t)n, where));
    for (int64_t id = 0; id < n; id++) {
        dmc_bytes piece;
        int64_t type = 1;
        double score = 0;
        dmc_token_kind kind;
        bool good = dmc_gguf_array_string(g, "tokenizer.ggml.tokens", id, &piece);
        if (n_types >= 0) good &= dmc_gguf_array_int(g, "tokenizer.ggml.token_type", id, &type);
        if (spm) good &= dmc_gguf_array_float(g, "tokenizer.ggml.scores", id, &score);
        if (!good || !dmc_token_kind_of(&kind, type))
            return dmc_fail(DMC_ERR_FORMAT, "%s: token %lld: its bytes, type or score are no such thing", where,
                            (long long)id);
        if (spm) {
            DMC_TRY(dmc_vocab_set_sp(t, id, piece.s, piece.n, kind, (float)score));
        } else if (kind == DMC_KIND_NORMAL) {
            DMC_TRY(dmc_vocab_set_bytes(t, id, piece.s, piece.n));
        } else {
            int flags = kind == DMC_KIND_UNUSED ? 0 : DMC_TOKEN_ADDED;
            DMC_TRY(dmc_vocab_set(t, id, piece.s, piece.n, kind == DMC_KIND_BYTE ? DMC_KIND_USER : kind, flags, 0));
        }
    }
    return DMC_OK;
}

static int special_id(const dmc_tokenizer *t, const dmc_gguf *g, const char *key, int missing)
{
    int64_t id;
    return dmc_gguf_int(g, key, &id) && id >= 0 && id < t->n_tokens ? (int)id : missing;
}

/* Old files name no pre-tokeniser; then the architecture tells. */
static const dmc_family *find_family(const dmc_gguf *g)
{
    dmc_bytes pre, architecture;
    if (dmc_gguf_string(g, "tokenizer.ggml.pre", &pre)) return dmc_family_find(pre.s, pre.n);
    if (!dmc_gguf_string(g, "general.architecture", &architecture)) return dmc_family_find("default", 7);
    const char *name = is(architecture, "gptneox") || is(architecture, "mpt") ? "gpt-neox"
                       : is(architecture, "gpt2")                             ? "gpt-2"
                       : is(architecture, "falcon")                           ? "falcon"
                       : is(architecture, "starcoder")                        ? "starcoder"
                                                                              : "default";
    return dmc_family_find(name, strlen(name));
}

static dmc_status read_spm(dmc_tokenizer *t, const dmc_gguf *g, const char *where)
{
    DMC_TRY(set_tokens(t, g, true, where));
    bool prefix = true;
    (void)dmc_gguf_bool(g, "tokenizer.ggml.add_space_prefix", &prefix);
    t->rule = DMC_MERGE_PIECES;
    t->characters = t->fuse_unknown = true;
    t->strip_start = prefix;
    t->normalizer = (dmc_normalizer){.prefix = prefix ? DMC_PREFIX_ALWAYS : DMC_PREFIX_NEVER, .space_mark = true};
    t->bos = 1;
    t->unknown = special_id(t, g, "tokenizer.ggml.unknown_token_id", 0);
    t->adds_bos = true;
    return dmc_vocab_index(t);
}

static dmc_status read_bpe(dmc_tokenizer *t, const dmc_gguf *g, const char *where)
{
    const dmc_family *family = find_family(g);
    if (!family) {
        dmc_bytes pre = {"", 0};
        (void)dmc_gguf_string(g, "tokenizer.ggml.pre", &pre);
        return dmc_fail(DMC_ERR_UNSUPPORTED, "%s: pre-tokeniser '%.*s' (tokenizer.ggml.pre) is not known", where,
                        (int)(pre.n < 64 ? pre.n : 64), pre.s);
    }
    DMC_TRY(set_tokens(t, g, false, where));
    t->rule = DMC_MERGE_PAIRS;
    t->whole_words = family->whole_words;
    t->adds_bos = family->adds_bos;
    t->normalizer = (dmc_normalizer){.form = family->nfc ? DMC_FORM_NFC : DMC_FORM_NONE};
    DMC_TRY(dmc_splitter_add_family(&t->splitter, family));
    DMC_TRY(dmc_vocab_index(t));
    int64_t n = dmc_gguf_count_strings(g, "tokenizer.ggml.merges");
    if (n < 0) return dmc_fail(DMC_ERR_FORMAT, "%s: tokenizer.ggml.merges is missing or no array of strings", where);
    for (int64_t i = 0; i < n; i++) {
        dmc_bytes line;
        if (!dmc_gguf_array_string(g, "tokenizer.ggml.merges", i, &line))
            return dmc_fail(DMC_ERR_FORMAT, "%s: merge %lld", where, (long long)i);
        DMC_TRY(dmc_vocab_merge_line(t, line.s, line.n));
    }
    return DMC_OK;
}

dmc_status dmc_read_gguf_vocab(dmc_tokenizer *t, const dmc_gguf *g, const char *where)
{
    dmc_bytes model;
    if (!dmc_gguf_string(g, "tokenizer.ggml.model", &model))
        return dmc_fail(DMC_ERR_FORMAT, "%s: no tokenizer (tokenizer.ggml.model is missing)", where);
    if (is(model, "llama")) {
        DMC_TRY(read_spm(t, g, where));
    } else if (is(model, "gpt2")) {
        DMC_TRY(read_bpe(t, g, where));
    } else {
        return dmc_fail(DMC_ERR_UNSUPPORTED, "%s: a tokenizer of type '%.*s'; 'llama' and 'gpt2' are supported", where,
                        (int)(model.n < 64 ? model.n : 64), model.s);
    }
    t->bos = special_id(t, g, "tokenizer.ggml.bos_token_id", t->bos);
    (void)dmc_gguf_bool(g, "tokenizer.ggml.add_bos_token", &t->adds_bos);
    dmc_vocab_mark_end(t, special_id(t, g, "tokenizer.ggml.eos_token_id", -1));
    dmc_vocab_mark_end(t, special_id(t, g, "tokenizer.ggml.eot_token_id", -1));
    dmc_vocab_mark_end(t, special_id(t, g, "tokenizer.ggml.eom_token_id", -1));
    return dmc_vocab_finish(t);
}
