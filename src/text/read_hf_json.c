/* Hugging Face's tokenizer.json, for BPE models: byte-level (GPT-2's alphabet, a pre-tokeniser) and
 * SentencePiece-like (spaces as U+2581, byte fallback). What is not understood is refused by name: a text cut in
 * other places is another text to the model. */
#include "text/families.h"
#include "text/hf_config.h"
#include "text/utf8.h"

#include <string.h>

#define MAX_DEPTH 8 /* of Sequences in Sequences */
#define GPT2_FAMILY "gpt-2"

typedef struct {
    dmc_tokenizer *t;
    const char *where;
    bool byte_level; /* pieces are written in GPT-2's alphabet */
    int depth;
} reader;

static const char *type_of(const json_t *part)
{
    const char *type = dmc_json_text(part, "type");
    return type ? type : "(no type)";
}

static dmc_status unsupported(const reader *r, const char *what, const json_t *part)
{
    return dmc_fail(DMC_ERR_UNSUPPORTED, "%s: %s '%s', or this form of it, is not supported", r->where, what,
                    type_of(part));
}

/* Calls read on each member of a Sequence. */
static dmc_status each(reader *r, const json_t *array, const char *what, dmc_status (*read)(reader *, const json_t *))
{
    if (!json_is_array(array)) return dmc_fail(DMC_ERR_FORMAT, "%s: a %s 'Sequence' without members", r->where, what);
    if (++r->depth > MAX_DEPTH) return dmc_fail(DMC_ERR_FORMAT, "%s: %ss nested too deep", r->where, what);
    for (size_t i = 0; i < json_array_size(array); i++) DMC_TRY(read(r, json_array_get(array, i)));
    r->depth--;
    return DMC_OK;
}

/* ---- normaliser ---- */

static bool is_string(const json_t *v, const char *s)
{
    return json_is_string(v) && strcmp(json_string_value(v), s) == 0;
}

static dmc_status read_normalizer(reader *r, const json_t *part)
{
    static const char *const forms[] = {
        [DMC_FORM_NFC] = "NFC", [DMC_FORM_NFD] = "NFD", [DMC_FORM_NFKC] = "NFKC", [DMC_FORM_NFKD] = "NFKD"};
    dmc_normalizer *z = &r->t->normalizer;
    if (json_is_null(part) || !part) return DMC_OK;
    const char *type = type_of(part);
    if (strcmp(type, "Sequence") == 0)
        return each(r, json_object_get(part, "normalizers"), "normalizer", read_normalizer);
    for (int form = DMC_FORM_NFC; form <= DMC_FORM_NFKD; form++) {
        if (strcmp(type, forms[form]) != 0) continue;
        z->form = (dmc_unicode_form)form;
        return DMC_OK;
    }
    if (strcmp(type, "Prepend") == 0 && is_string(json_object_get(part, "prepend"), DMC_SPACE_MARK)) {
        z->prefix = DMC_PREFIX_ALWAYS;
        r->t->strip_start = true;
        return DMC_OK;
    }
    const json_t *pattern = json_object_get(part, "pattern");
    bool space =
        is_string(json_object_get(pattern, "String"), " ") || is_string(json_object_get(pattern, "Regex"), " ");
    if (strcmp(type, "Replace") == 0 && space && is_string(json_object_get(part, "content"), DMC_SPACE_MARK)) {
        z->space_mark = true;
        return DMC_OK;
    }
    return unsupported(r, "normalizer", part);
}

/* ---- pre-tokeniser ---- */

static dmc_status add_pattern(reader *r, const char *pattern, dmc_split_behavior b)
{
    return dmc_splitter_add(&r->t->splitter, pattern, strlen(pattern), b, r->where);
}

static dmc_status read_byte_level(reader *r, const json_t *part)
{
    r->byte_level = true;
    if (dmc_json_flag(part, "add_prefix_space", true)) {
        if (r->t->splitter.n > 0) return unsupported(r, "pre_tokenizer", part); /* it would prefix every word */
        r->t->normalizer.prefix = DMC_PREFIX_ALWAYS;
        r->t->normalizer.prefix_if_missing = true;
    }
    if (!dmc_json_flag(part, "use_regex", true)) return DMC_OK;
    return dmc_splitter_add_family(&r->t->splitter, dmc_family_find(GPT2_FAMILY, strlen(GPT2_FAMILY)));
}

static dmc_status read_metaspace(reader *r, const json_t *part)
{
    const char *scheme = dmc_json_text(part, "prepend_scheme");
    if (!is_string(json_object_get(part, "replacement"), DMC_SPACE_MARK) || r->t->splitter.n > 0)
        return unsupported(r, "pre_tokenizer", part);
    if (!scheme) scheme = dmc_json_flag(part, "add_prefix_space", true) ? "always" : "never";
    dmc_normalizer *z = &r->t->normalizer;
    z->space_mark = true;
    z->prefix_if_missing = true;
    z->prefix = strcmp(scheme, "always") == 0  ? DMC_PREFIX_ALWAYS
                : strcmp(scheme, "first") == 0 ? DMC_PREFIX_FIRST
                                               : DMC_PREFIX_NEVER;
    r->t->strip_start = z->prefix != DMC_PREFIX_NEVER;
    return dmc_json_flag(part, "split", true) ? add_pattern(r, " ", DMC_SPLIT_TO_RIGHT) : DMC_OK;
}

/* Writes a pattern that matches the literal text s. */
static dmc_status add_literal(reader *r, const char *s, size_t n, dmc_split_behavior b)
{
    char *pattern = dmc_malloc(n, 8);
    if (!pattern) return dmc_fail(DMC_ERR_MEMORY, "%s: out of memory", r->where);
    size_t length = 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t c = (uint8_t)s[i];
        if (c < 0x80) length += (size_t)snprintf(pattern + length, 8, "\\x{%02x}", c);
        if (c >= 0x80) pattern[length++] = s[i];
    }
    dmc_status status = dmc_splitter_add(&r->t->splitter, pattern, length, b, r->where);
    dmc_free(pattern);
    return status;
}

static bool read_behavior(dmc_split_behavior *b, const json_t *part, const char *missing)
{
    static const char *const names[] = {"Isolated", "Contiguous", "MergedWithPrevious", "MergedWithNext", "Removed"};
    const char *name = dmc_json_text(part, "behavior");
    for (int i = 0; i < 5; i++) {
        if (strcmp(name ? name : missing, names[i]) != 0) continue;
        *b = (dmc_split_behavior)i;
        return true;
    }
    return false;
}

static dmc_status read_split(reader *r, const json_t *part)
{
    const json_t *pattern = json_object_get(part, "pattern");
    const json_t *regex = json_object_get(pattern, "Regex"), *literal = json_object_get(pattern, "String");
    dmc_split_behavior b;
    if (!read_behavior(&b, part, "") || !(json_is_string(regex) || json_is_string(literal)))
        return unsupported(r, "pre_tokenizer", part);
    if (dmc_json_flag(part, "invert", false)) { /* the text between the matches is what is meant */
        if (b != DMC_SPLIT_ISOLATED && b != DMC_SPLIT_REMOVED) return unsupported(r, "pre_tokenizer", part);
        if (b == DMC_SPLIT_REMOVED) b = DMC_SPLIT_KEEP;
    }
    if (json_is_string(literal)) return add_literal(r, json_string_value(literal), json_string_length(literal), b);
    return dmc_splitter_add(&r->t->splitter, json_string_value(regex), json_string_length(regex), b, r->where);
}

static dmc_status read_pre_tokenizer(reader *r, const json_t *part)
{
    if (json_is_null(part) || !part) return DMC_OK;
    const char *type = type_of(part);
    dmc_split_behavior b;
    if (strcmp(type, "Sequence") == 0)
        return each(r, json_object_get(part, "pretokenizers"), "pre_tokenizer", read_pre_tokenizer);
    if (strcmp(type, "ByteLevel") == 0) return read_byte_level(r, part);
    if (strcmp(type, "Metaspace") == 0) return read_metaspace(r, part);
    if (strcmp(type, "Split") == 0) return read_split(r, part);
    if (strcmp(type, "Digits") == 0)
        return add_pattern(r, "\\p{N}",
                           dmc_json_flag(part, "individual_digits", false) ? DMC_SPLIT_ISOLATED : DMC_SPLIT_CONTIGUOUS);
    if (strcmp(type, "Punctuation") == 0 && read_behavior(&b, part, "Isolated"))
        return add_pattern(r, "[\\p{P}!-/:-@\\[-`{-~]", b);
    return unsupported(r, "pre_tokenizer", part);
}

/* ---- vocabulary, merges, added tokens ---- */

static dmc_status read_id(const reader *r, int64_t *id, const json_t *v, const char *of)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return dmc_fail(DMC_ERR_FORMAT, "%s: token '%.64s' has no id", r->where, of);
    *id = json_integer_value(v);
    return DMC_OK;
}

static dmc_status reserve(const reader *r, json_t *vocab, const json_t *added)
{
    size_t n = json_object_size(vocab) + json_array_size(added);
    int64_t max = -1, id = -1;
    const char *piece;
    json_t *value;
    json_object_foreach(vocab, piece, value)
    {
        DMC_TRY(read_id(r, &id, value, piece));
        if (id > max) max = id;
    }
    for (size_t i = 0; i < json_array_size(added); i++) {
        DMC_TRY(read_id(r, &id, json_object_get(json_array_get(added, i), "id"), "(added)"));
        if (id > max) max = id;
    }
    if (max >= dmc_max_ids(n))
        return dmc_fail(DMC_ERR_FORMAT, "%s: a token id of %lld among %zu tokens", r->where, (long long)max, n);
    return dmc_vocab_reserve(r->t, (size_t)(max + 1), r->where);
}

static dmc_status read_vocab(const reader *r, json_t *vocab, bool byte_fallback)
{
    dmc_tokenizer *t = r->t;
    const char *piece;
    json_t *value;
    json_object_foreach(vocab, piece, value)
    {
        int64_t id = json_integer_value(value);
        size_t n = strlen(piece);
        if (t->tokens[id].kind != DMC_KIND_UNUSED)
            return dmc_fail(DMC_ERR_FORMAT, "%s: token id %lld is given twice", r->where, (long long)id);
        if (r->byte_level) {
            DMC_TRY(dmc_vocab_set_bytes(t, id, piece, n));
        } else {
            bool byte = byte_fallback && dmc_byte_piece(piece, n) >= 0;
            DMC_TRY(dmc_vocab_set_sp(t, id, piece, n, byte ? DMC_KIND_BYTE : DMC_KIND_NORMAL, 0));
        }
    }
    return DMC_OK;
}

static dmc_status read_added(const reader *r, const json_t *added)
{
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *token = json_array_get(added, i), *content = json_object_get(token, "content");
        if (!json_is_string(content))
            return dmc_fail(DMC_ERR_FORMAT, "%s: added token %zu has no content", r->where, i);
        int extra = (dmc_json_flag(token, "lstrip", false) ? DMC_TOKEN_LSTRIP : 0) |
                    (dmc_json_flag(token, "rstrip", false) ? DMC_TOKEN_RSTRIP : 0);
        DMC_TRY(dmc_vocab_set_added(r->t, json_integer_value(json_object_get(token, "id")), json_string_value(content),
                                    json_string_length(content), dmc_json_flag(token, "special", false), extra));
    }
    return DMC_OK;
}

static dmc_status read_merges(const reader *r, const json_t *merges)
{
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const json_t *m = json_array_get(merges, i), *a = json_array_get(m, 0), *b = json_array_get(m, 1);
        if (json_is_string(m)) {
            DMC_TRY(dmc_vocab_merge_line(r->t, json_string_value(m), json_string_length(m)));
        } else if (json_array_size(m) == 2 && json_is_string(a) && json_is_string(b)) {
            DMC_TRY(dmc_vocab_merge(r->t, json_string_value(a), json_string_length(a), json_string_value(b),
                                    json_string_length(b)));
        } else {
            return dmc_fail(DMC_ERR_FORMAT, "%s: merge %zu is not two pieces", r->where, i);
        }
    }
    return DMC_OK;
}

/* ---- post-processor: all that matters here is a special token in front of the text ---- */

static dmc_status read_post_processor(reader *r, const json_t *part)
{
    if (strcmp(type_of(part), "Sequence") == 0)
        return each(r, json_object_get(part, "processors"), "post_processor", read_post_processor);
    if (strcmp(type_of(part), "TemplateProcessing") != 0) return DMC_OK;
    const char *name =
        dmc_json_text(json_object_get(json_array_get(json_object_get(part, "single"), 0), "SpecialToken"), "id");
    if (!name) return DMC_OK;
    const json_t *id =
        json_array_get(json_object_get(json_object_get(json_object_get(part, "special_tokens"), name), "ids"), 0);
    if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= r->t->n_tokens)
        return dmc_fail(DMC_ERR_FORMAT, "%s: the special token '%.64s' in front of every text has no id", r->where,
                        name);
    r->t->bos = (int)json_integer_value(id);
    r->t->adds_bos = true;
    return DMC_OK;
}

/* ---- the whole ---- */

static dmc_status read_model(reader *r, const json_t *root, const json_t *model)
{
    dmc_tokenizer *t = r->t;
    json_t *vocab = json_object_get(model, "vocab");
    const json_t *added = json_object_get(root, "added_tokens"), *merges = json_object_get(model, "merges");
    if (!json_is_object(vocab) || !json_is_array(merges) || (added && !json_is_null(added) && !json_is_array(added)))
        return dmc_fail(DMC_ERR_FORMAT,
                        "%s: 'vocab', 'merges' or 'added_tokens' of the BPE model is missing or no such thing",
                        r->where);
    const char *unk = dmc_json_text(model, "unk_token");
    const json_t *unk_id = unk ? json_object_get(vocab, unk) : NULL;

    t->rule = DMC_MERGE_PAIRS;
    t->characters = !r->byte_level;
    t->fuse_unknown = dmc_json_flag(model, "fuse_unk", false);
    t->whole_words = dmc_json_flag(model, "ignore_merges", false);
    DMC_TRY(reserve(r, vocab, added));
    DMC_TRY(read_vocab(r, vocab, dmc_json_flag(model, "byte_fallback", false)));
    if (unk_id) t->unknown = (int)json_integer_value(unk_id);
    if (unk_id && !r->byte_level) { /* byte-level vocabularies name some special token that has another meaning */
        t->tokens[t->unknown].kind = DMC_KIND_UNKNOWN;
        t->tokens[t->unknown].flags = 0;
    }
    DMC_TRY(read_added(r, added));
    DMC_TRY(dmc_vocab_index(t));
    return read_merges(r, merges);
}

dmc_status dmc_read_hf_json(dmc_tokenizer *t, const char *json, size_t n, const char *where)
{
    json_t *root;
    if (n > DMC_MAX_JSON)
        return dmc_fail(DMC_ERR_FORMAT, "%s: %zu bytes; at most %zu are read", where, n, DMC_MAX_JSON);
    DMC_TRY(dmc_json_load(&root, json, n, where));
    reader r = {.t = t, .where = where};
    const json_t *model = json_object_get(root, "model");
    dmc_status status;
    const char *type = dmc_json_text(model, "type"), *prefix = dmc_json_text(model, "continuing_subword_prefix"),
               *suffix = dmc_json_text(model, "end_of_word_suffix");
    if (!json_is_object(model)) {
        status = dmc_fail(DMC_ERR_FORMAT, "%s: not a tokenizer.json: no 'model'", where);
        goto done;
    }
    if ((type && strcmp(type, "BPE") != 0) || (!type && !json_object_get(model, "merges"))) {
        status =
            dmc_fail(DMC_ERR_UNSUPPORTED, "%s: a tokenizer of type '%s'; only BPE is supported", where, type_of(model));
        goto done;
    }
    if ((prefix && *prefix) || (suffix && *suffix)) {
        status = dmc_fail(DMC_ERR_UNSUPPORTED, "%s: pieces with '%.32s%.32s' at word boundaries are not supported",
                          where, prefix ? prefix : "", suffix ? suffix : "");
        goto done;
    }
    DMC_GOTO(read_normalizer(&r, json_object_get(root, "normalizer")));
    r.depth = 0;
    DMC_GOTO(read_pre_tokenizer(&r, json_object_get(root, "pre_tokenizer")));
    if (r.byte_level == t->normalizer.space_mark) {
        status = dmc_fail(
            DMC_ERR_UNSUPPORTED,
            "%s: neither byte-level (pre_tokenizer 'ByteLevel') nor SentencePiece-like (spaces as U+2581)", where);
        goto done;
    }
    DMC_GOTO(read_model(&r, root, model));
    r.depth = 0;
    DMC_GOTO(read_post_processor(&r, json_object_get(root, "post_processor")));
    status = dmc_vocab_finish(t);
done:
    json_decref(root);
    return status;
}
