/* The tokenizer's contract: opening whatever defines it, encoding, decoding. */
#include "text/grow.h"
#include "text/hf_config.h"
#include "text/vocab.h"

#include <string.h>

/* Bytes that one call encodes: offsets have 32 bits, and normalising may triple them. */
#define MAX_TEXT ((size_t)1 << 30)

/* ---- opening ---- */

static dmc_status read_mapped(dmc_tokenizer *t, const dmc_tokenizer_source *src, const char *path,
                              const dmc_config *config)
{
    dmc_mapping file;
    dmc_status status = dmc_map_file(&file, path);
    if (status != DMC_OK) return status;
    if (path == src->hf_json_path) {
        status = dmc_read_hf_json(t, (const char *)file.data, file.size, path);
    } else if (path == src->llama2c_bin_path) {
        status = dmc_read_llama2c(t, file.data, file.size, config ? config->n_vocab : 0, path);
    } else if (file.size > 0 && file.data[0] != 0x0A) { /* the tag of SentencePiece's pieces; no base64 */
        status = dmc_read_tiktoken(t, file.data, file.size, path);
    } else {
        status = dmc_read_sentencepiece(t, file.data, file.size, src, path);
    }
    dmc_unmap(&file);
    return status;
}

/* vocab.json and merges.txt: the directory of any file that the source names. */
static dmc_status read_directory(dmc_tokenizer *t, const dmc_tokenizer_source *src, const char *beside)
{
    char *dir = dmc_strdup(beside);
    if (!dir) return dmc_fail(DMC_ERR_MEMORY, "out of memory");
    char *slash = strrchr(dir, '/');
    if (slash) slash[slash == dir] = 0;
    dmc_status status = dmc_read_vocab_merges(t, slash ? dir : ".", src);
    dmc_free(dir);
    return status;
}

static bool is_vocab_json(const char *path)
{
    const char *slash = strrchr(path, '/');
    return strcmp(slash ? slash + 1 : path, "vocab.json") == 0;
}

static dmc_status read_config_ends(dmc_tokenizer *t, const dmc_tokenizer_source *src)
{
    dmc_hf_config config;
    DMC_TRY(dmc_hf_config_open(&config, src));
    dmc_hf_config_apply_ends(&config, t);
    dmc_hf_config_close(&config);
    return DMC_OK;
}

static dmc_status read_source(dmc_tokenizer *t, const dmc_tokenizer_source *src, const dmc_config *config)
{
    if (src->hf_json) {
        DMC_TRY(dmc_read_hf_json(t, src->hf_json, src->hf_json_bytes, "tokenizer.json inside the model file"));
        return read_config_ends(t, src);
    }
    if (src->hf_json_path && !is_vocab_json(src->hf_json_path)) {
        DMC_TRY(read_mapped(t, src, src->hf_json_path, config));
        return read_config_ends(t, src);
    }
    if (src->sp_model_path) return read_mapped(t, src, src->sp_model_path, config);
    if (src->llama2c_bin_path) return read_mapped(t, src, src->llama2c_bin_path, config);
    if (src->gguf) return dmc_read_gguf_vocab(t, src->gguf, "GGUF metadata");
    if (src->hf_json_path || src->hf_config_path)
        return read_directory(t, src, src->hf_json_path ? src->hf_json_path : src->hf_config_path);
    return dmc_fail(DMC_ERR_UNSUPPORTED,
                    "the model has no tokenizer: put its tokenizer.json, tokenizer.model or, for llama2.c, "
                    "tokenizer.bin beside it");
}

/* What the model knows and its tokenizer's files do not say. Ids that it has beyond the vocabulary, as padding, have
 * no text. */
static dmc_status apply_model(dmc_tokenizer *t, const dmc_config *config)
{
    if (config->n_vocab > t->n_tokens) {
        dmc_token *tokens = dmc_realloc(t->tokens, (size_t)config->n_vocab, sizeof *tokens);
        if (!tokens) return dmc_fail(DMC_ERR_MEMORY, "out of memory: %d tokens", config->n_vocab);
        memset(tokens + t->n_tokens, 0, (size_t)(config->n_vocab - t->n_tokens) * sizeof *tokens);
        t->tokens = tokens;
        t->n_tokens = config->n_vocab;
    }
    if (t->bos < 0 && config->bos < t->n_tokens) t->bos = config->bos;
    for (int i = 0; i < config->n_eos && i < 8; i++) dmc_vocab_mark_end(t, config->eos[i]);
    return DMC_OK;
}

dmc_status dmc_tokenizer_open(dmc_tokenizer **out, const dmc_tokenizer_source *src, const dmc_config *config)
{
    dmc_status status;
    *out = NULL;
    dmc_tokenizer *t = dmc_calloc(1, sizeof *t);
    if (!t) return dmc_fail(DMC_ERR_MEMORY, "out of memory: tokenizer");
    t->bos = t->unknown = -1;
    DMC_GOTO(read_source(t, src, config));
    if (config) DMC_GOTO(apply_model(t, config));
    *out = t;
    t = NULL;
done:
    dmc_tokenizer_close(t);
    return status;
}

void dmc_tokenizer_close(dmc_tokenizer *t)
{
    if (!t) return;
    dmc_free(t->tokens);
    dmc_free(t->blob);
    dmc_free(t->pieces);
    dmc_free(t->merged);
    dmc_free(t->added_ids);
    dmc_pair_free(&t->merges);
    dmc_pair_free(&t->added);
    dmc_splitter_free(&t->splitter);
    dmc_free(t);
}

/* ---- questions ---- */

static const dmc_token *token_of(const dmc_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->n_tokens ? &t->tokens[id] : NULL;
}

int dmc_tokenizer_size(const dmc_tokenizer *t) { return t->n_tokens; }
int dmc_tokenizer_bos(const dmc_tokenizer *t) { return t->bos; }
bool dmc_tokenizer_adds_bos(const dmc_tokenizer *t) { return t->adds_bos && t->bos >= 0; }

bool dmc_tokenizer_is_end(const dmc_tokenizer *t, int32_t id)
{
    const dmc_token *token = token_of(t, id);
    return token && (token->flags & DMC_TOKEN_END);
}

bool dmc_tokenizer_is_control(const dmc_tokenizer *t, int32_t id)
{
    const dmc_token *token = token_of(t, id);
    return token && token->kind == DMC_KIND_CONTROL;
}

dmc_status dmc_tokenizer_bytes(const dmc_tokenizer *t, int32_t id, const char **bytes, size_t *n)
{
    const dmc_token *token = token_of(t, id);
    *bytes = "";
    *n = 0;
    if (!token) return dmc_fail(DMC_ERR_ARG, "token id %d in a vocabulary of %d", id, t->n_tokens);
    *bytes = t->blob + token->start;
    *n = token->n;
    return DMC_OK;
}

/* ---- encoding ---- */

/* The longest added token at the beginning of s; -1: none. Control tokens count only if special. */
static int32_t match_added(const dmc_tokenizer *t, const char *s, size_t n, bool special)
{
    int32_t best = -1;
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        node = dmc_pair_get(&t->added, node, (uint8_t)s[i]);
        if (node == DMC_NO_PAIR) break;
        int32_t id = t->added_ids[node];
        if (id >= 0 && (special || t->tokens[id].kind == DMC_KIND_USER)) best = id;
    }
    return best;
}

static bool is_white(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* A stretch of text between two added tokens. */
static dmc_status encode_text(dmc_encoder *e, const char *s, size_t n, bool first)
{
    size_t start = e->text.n;
    DMC_TRY(dmc_normalize(&e->text, &e->t->normalizer, s, n, first));
    if (e->text.n > UINT32_MAX) return dmc_fail(DMC_ERR_ARG, "the text is too long to be encoded at once");
    DMC_TRY(dmc_split(&e->split, &e->t->splitter, e->text.s, (uint32_t)start, (uint32_t)(e->text.n - start)));
    e->after_unknown = false;
    for (size_t i = 0; i < e->split.n_words; i++)
        DMC_TRY(dmc_encode_word(e, e->split.words[i].start, e->split.words[i].n));
    return DMC_OK;
}

static dmc_status encode_all(dmc_encoder *e, const char *text, size_t n, bool special)
{
    const dmc_tokenizer *t = e->t;
    size_t done = 0;
    for (size_t i = 0; i < n;) {
        int32_t id = t->added_first[(uint8_t)text[i]] ? match_added(t, text + i, n - i, special) : -1;
        if (id < 0) {
            i++;
            continue;
        }
        size_t end = i;
        if (t->tokens[id].flags & DMC_TOKEN_LSTRIP)
            while (end > done && is_white(text[end - 1])) end--;
        DMC_TRY(encode_text(e, text + done, end - done, done == 0));
        DMC_TRY(dmc_encoder_push(e, id));
        i += t->tokens[id].n;
        if (t->tokens[id].flags & DMC_TOKEN_RSTRIP)
            while (i < n && is_white(text[i])) i++;
        done = i;
    }
    return encode_text(e, text + done, n - done, done == 0);
}

dmc_status dmc_tokenizer_encode(int32_t **ids, size_t *n_ids, const dmc_tokenizer *t, const char *text, size_t n,
                                bool add_bos, bool special)
{
    *ids = NULL;
    *n_ids = 0;
    if (n > MAX_TEXT) return dmc_fail(DMC_ERR_ARG, "%zu bytes of text, more than %zu: encode it in parts", n, MAX_TEXT);
    dmc_encoder e = {.t = t};
    dmc_status status;
    DMC_GOTO(dmc_grow(&e.ids, &e.cap_ids, n / 4 + 2, sizeof *e.ids));
    if (add_bos && t->bos >= 0) DMC_GOTO(dmc_encoder_push(&e, t->bos));
    DMC_GOTO(encode_all(&e, text, n, special));
    *ids = e.ids;
    *n_ids = e.n_ids;
    e.ids = NULL;
done:
    dmc_free(e.ids);
    dmc_free(e.text.s);
    dmc_free(e.symbols);
    dmc_free(e.heap);
    dmc_free(e.cache);
    dmc_split_state_free(&e.split);
    return status;
}
