#include "format/vocabulary_hf.h"

#include <stdlib.h>
#include <string.h>

/* One token on its way from the maps of tokenizer.json to a table in the order of ids. Texts live in the document. */
typedef struct {
    const char *text; /* NULL: no such id */
    float score;
    dmc_token_type type;
} token;

/* The first object below `value` whose "type" is this: normalisers and pre-tokenisers come singly or in sequences. */
static const json_t *find_type(const json_t *value, const char *type)
{
    const char *own = json_string_value(json_object_get(value, "type")), *key;
    json_t *child;
    size_t i;
    if (own && strcmp(own, type) == 0) return value;
    json_object_foreach((json_t *)(uintptr_t)value, key, child)
    {
        const json_t *found = find_type(child, type);
        if (found) return found;
    }
    json_array_foreach(value, i, child)
    {
        const json_t *found = find_type(child, type);
        if (found) return found;
    }
    return NULL;
}

/* GGUF's name of a byte-level pre-tokeniser, or NULL. */
static const char *pre_name(const json_t *root)
{
    static const char letters_and_on[] = "?\\p{L}+|";
    const json_t *pre = json_object_get(root, "pre_tokenizer"), *split = find_type(pre, "Split");
    const char *regex = json_string_value(json_object_get(json_object_get(split, "pattern"), "Regex"));
    if (!split) return find_type(pre, "ByteLevel") ? "gpt-2" : NULL;
    if (!regex || !strstr(regex, letters_and_on) ||
        !strstr(regex, "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]"))
        return NULL;
    if (strstr(regex, "|\\p{N}{1,3}|")) return "llama-bpe";
    return strstr(regex, "|\\p{N}|") ? "qwen2" : NULL;
}

static void fill_tokens(token *tokens, int n_vocab, const json_t *root)
{
    const json_t *added = json_object_get(root, "added_tokens"), *model = json_object_get(root, "model");
    const char *text, *unknown = json_string_value(json_object_get(model, "unk_token"));
    json_t *value;
    size_t i;
    int id;
    json_object_foreach(json_object_get(model, "vocab"), text, value)
    {
        if (!dmc_json_as_int(&id, value) || id < 0 || id >= n_vocab) continue;
        bool byte = dmc_token_is_byte(text, strlen(text)) && json_is_true(json_object_get(model, "byte_fallback"));
        tokens[id] = (token){text, 0, byte ? DMC_TOKEN_BYTE : DMC_TOKEN_NORMAL};
    }
    json_array_foreach(added, i, value)
    {
        text = json_string_value(json_object_get(value, "content"));
        if (!text || !dmc_json_as_int(&id, json_object_get(value, "id")) || id < 0 || id >= n_vocab) continue;
        tokens[id] = (token){
            text, 0, json_is_true(json_object_get(value, "special")) ? DMC_TOKEN_CONTROL : DMC_TOKEN_USER_DEFINED};
    }
    for (id = 0; id < n_vocab && unknown; id++)
        if (tokens[id].text && strcmp(tokens[id].text, unknown) == 0) tokens[id].type = DMC_TOKEN_UNKNOWN;
}

/* The two halves of a merge: "a b" or ["a", "b"]. False if it is neither. */
static bool merge_halves(const json_t *merge, dmc_bytes *left, dmc_bytes *right)
{
    const char *a = json_string_value(merge), *b;
    if (a) {
        const char *space = a[0] ? strchr(a + 1, ' ') : NULL; /* the first half may itself begin with one */
        if (!space) return false;
        *left = (dmc_bytes){a, (size_t)(space - a)};
        *right = (dmc_bytes){space + 1, strlen(space + 1)};
        return true;
    }
    a = json_string_value(json_array_get(merge, 0));
    b = json_string_value(json_array_get(merge, 1));
    if (!a || !b || json_array_size(merge) != 2) return false;
    *left = (dmc_bytes){a, strlen(a)};
    *right = (dmc_bytes){b, strlen(b)};
    return true;
}

static void join(dmc_buffer *out, dmc_bytes left, const char *between, dmc_bytes right)
{
    out->n = 0;
    dmc_buffer_add(out, left.s, left.n);
    dmc_buffer_add(out, between, strlen(between));
    dmc_buffer_add(out, right.s, right.n);
}

/* "llama" vocabularies rank merges by the score of what they make: minus the rank of the first merge that makes it. Tokens
 * that no merge makes come last. */
static void score_tokens(token *tokens, int n_vocab, const json_t *model, dmc_buffer *scratch)
{
    const json_t *vocab = json_object_get(model, "vocab"), *merges = json_object_get(model, "merges");
    json_t *merge;
    size_t rank;
    int id;
    dmc_bytes left, right;
    for (id = 0; id < n_vocab; id++) tokens[id].score = tokens[id].type == DMC_TOKEN_NORMAL ? -1e6f : 0;
    json_array_foreach(merges, rank, merge)
    {
        if (!merge_halves(merge, &left, &right)) continue;
        join(scratch, left, "", right);
        dmc_buffer_add(scratch, "", 1);
        if (scratch->failed) return;
        if (!dmc_json_as_int(&id, json_object_get(vocab, (const char *)scratch->data)) || id < 0 || id >= n_vocab)
            continue;
        if (tokens[id].score == -1e6f) tokens[id].score = -(float)rank;
    }
}

static void put_merges(dmc_gguf_keys *k, const json_t *merges, dmc_buffer *scratch)
{
    dmc_buffer strings = {0};
    uint64_t n = 0;
    json_t *merge;
    size_t i;
    dmc_bytes left, right;
    json_array_foreach(merges, i, merge)
    {
        if (!merge_halves(merge, &left, &right)) continue;
        join(scratch, left, " ", right);
        dmc_buffer_add_string(&strings, (const char *)scratch->data, scratch->n);
        n++;
    }
    dmc_gguf_put_strings(k, "tokenizer.ggml.merges", &strings, n);
    dmc_buffer_free(&strings);
}

static void put_table(dmc_gguf_keys *k, const token *tokens, int n_vocab, const char *model)
{
    dmc_vocabulary v = {.unknown = -1};
    for (int id = 0; id < n_vocab; id++) {
        const token *t = &tokens[id];
        if (t->type == DMC_TOKEN_UNKNOWN) v.unknown = id;
        if (t->text) dmc_vocabulary_add(&v, t->text, strlen(t->text), t->score, t->type);
        else dmc_vocabulary_pad(&v, id + 1);
    }
    dmc_vocabulary_put_table(k, &v, model);
    if (v.unknown >= 0) dmc_gguf_put_int(k, "tokenizer.ggml.unknown_token_id", v.unknown);
    dmc_vocabulary_free(&v);
}

/* Whether the post-processor puts a special token in front of a text. */
static bool adds_bos(const json_t *root)
{
    const json_t *template = find_type(json_object_get(root, "post_processor"), "TemplateProcessing");
    return json_object_get(json_array_get(json_object_get(template, "single"), 0), "SpecialToken");
}

dmc_status dmc_vocabulary_put_hf(dmc_gguf_keys *k, const json_t *root, int n_vocab)
{
    const json_t *model = json_object_get(root, "model"), *type = json_object_get(model, "type");
    const json_t *normaliser = json_object_get(root, "normalizer"),
                 *metaspace = find_type(json_object_get(root, "pre_tokenizer"), "Metaspace");
    bool fallback = json_is_true(json_object_get(model, "byte_fallback"));
    const char *pre = fallback ? NULL : pre_name(root);
    token *tokens;
    dmc_buffer scratch = {0};
    if ((type && strcmp(json_string_value(type) ? json_string_value(type) : "", "BPE") != 0) || (!fallback && !pre))
        return DMC_OK;
    DMC_TRY(dmc_array(&tokens, (size_t)n_vocab, sizeof *tokens));
    fill_tokens(tokens, n_vocab, root);
    if (fallback) {
        score_tokens(tokens, n_vocab, model, &scratch);
        put_table(k, tokens, n_vocab, "llama");
        dmc_gguf_put_bool(k, "tokenizer.ggml.add_space_prefix", metaspace || find_type(normaliser, "Prepend"));
    } else {
        put_table(k, tokens, n_vocab, "gpt2");
        dmc_gguf_put_string(k, "tokenizer.ggml.pre", pre, strlen(pre));
        put_merges(k, json_object_get(model, "merges"), &scratch);
    }
    dmc_gguf_put_bool(k, "tokenizer.ggml.add_bos_token", adds_bos(root));
    k->bytes.failed = k->bytes.failed || scratch.failed;
    dmc_free(tokens);
    dmc_buffer_free(&scratch);
    return DMC_OK;
}
