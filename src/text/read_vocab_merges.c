/* vocab.json and merges.txt, the older form of byte-level BPE: GPT-2's, Qwen's. tokenizer_config.json beside them
 * tells whose. */
#include "text/families.h"
#include "text/hf_config.h"

#include <string.h>

static dmc_status read_vocab(dmc_tokenizer *t, const dmc_hf_config *config, json_t *vocab, const char *where)
{
    const char *piece;
    json_t *value;
    int64_t limit = dmc_max_ids(json_object_size(vocab)), max = -1;
    json_object_foreach(vocab, piece, value)
    {
        int64_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= limit)
            return dmc_fail(DMC_ERR_FORMAT, "%s: token '%.64s' has no id, or one out of range", where, piece);
        if (id > max) max = id;
    }
    DMC_TRY(dmc_vocab_reserve(t, dmc_hf_config_room(config, (size_t)(max + 1)), where));
    json_object_foreach(vocab, piece, value)
    {
        int64_t id = json_integer_value(value);
        if (t->tokens[id].kind != DMC_KIND_UNUSED)
            return dmc_fail(DMC_ERR_FORMAT, "%s: token id %lld is given twice", where, (long long)id);
        DMC_TRY(dmc_vocab_set_bytes(t, id, piece, strlen(piece)));
    }
    return DMC_OK;
}

static dmc_status read_merges(dmc_tokenizer *t, const char *path)
{
    dmc_mapping file;
    DMC_TRY(dmc_map_file(&file, path));
    dmc_status status = DMC_OK;
    const char *p = (const char *)file.data, *end = p + file.size;
    for (bool first = true; p < end; first = false) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((newline ? newline : end) - p), next = n + (newline != NULL);
        if (n > 0 && p[n - 1] == '\r') n--;
        bool comment = first && n >= 8 && memcmp(p, "#version", 8) == 0;
        if (n > 0 && !comment) DMC_GOTO(dmc_vocab_merge_line(t, p, n));
        p += next;
    }
done:
    dmc_unmap(&file);
    return status;
}

static dmc_status read_both(dmc_tokenizer *t, const dmc_hf_config *config, const char *vocab_path,
                            const char *merges_path)
{
    json_t *vocab = NULL;
    dmc_status status;
    const char *class = config->config ? dmc_json_text(config->config, "tokenizer_class") : NULL;
    bool qwen = class && strncmp(class, "Qwen2", 5) == 0;
    const dmc_family *family = qwen ? dmc_family_find("qwen2", 5) : dmc_family_find("gpt-2", 5);
    DMC_GOTO(dmc_json_load_file(&vocab, vocab_path, DMC_MAX_JSON));
    if (!json_is_object(vocab)) {
        status = dmc_fail(DMC_ERR_FORMAT, "%s: not a JSON object of tokens", vocab_path);
        goto done;
    }
    t->rule = DMC_MERGE_PAIRS;
    t->normalizer.form = family->nfc ? DMC_FORM_NFC : DMC_FORM_NONE;
    if (dmc_json_flag(config->config, "add_prefix_space", false)) {
        t->normalizer.prefix = DMC_PREFIX_ALWAYS;
        t->normalizer.prefix_if_missing = true;
    }
    DMC_GOTO(dmc_splitter_add_family(&t->splitter, family));
    DMC_GOTO(read_vocab(t, config, vocab, vocab_path));
    DMC_GOTO(dmc_hf_config_apply(config, t));
    int end_of_text = dmc_vocab_find_any(t, "<|endoftext|>", 13);
    if (end_of_text >= 0) { /* where no config says so */
        DMC_GOTO(dmc_vocab_set_added(t, end_of_text, "<|endoftext|>", 13, true, 0));
        dmc_vocab_mark_end(t, end_of_text);
        if (t->bos < 0 && !qwen) t->bos = end_of_text;
    }
    DMC_GOTO(dmc_vocab_index(t));
    DMC_GOTO(read_merges(t, merges_path));
    status = dmc_vocab_finish(t);
done:
    json_decref(vocab);
    return status;
}

dmc_status dmc_read_vocab_merges(dmc_tokenizer *t, const char *dir, const dmc_tokenizer_source *src)
{
    dmc_hf_config config = {0};
    dmc_status status;
    char *vocab = dmc_path_join(dir, "vocab.json"), *merges = dmc_path_join(dir, "merges.txt");
    if (!vocab || !merges) {
        status = dmc_fail(DMC_ERR_MEMORY, "out of memory");
        goto done;
    }
    DMC_GOTO(dmc_hf_config_open(&config, src));
    DMC_GOTO(read_both(t, &config, vocab, merges));
done:
    dmc_hf_config_close(&config);
    dmc_free(vocab);
    dmc_free(merges);
    return status;
}
