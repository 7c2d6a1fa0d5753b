#include "text/hf_config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static dmc_status open_beside(json_t **out, const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    char *dir = dmc_strdup(slash ? path : ".");
    if (!dir) return dmc_fail(DMC_ERR_MEMORY, "out of memory");
    if (slash) dir[slash == path ? 1 : slash - path] = 0;
    char *beside = dmc_path_join(dir, name);
    dmc_free(dir);
    if (!beside) return dmc_fail(DMC_ERR_MEMORY, "out of memory");
    dmc_status status = dmc_exists(beside) ? dmc_json_load_file(out, beside, DMC_MAX_JSON) : DMC_OK;
    dmc_free(beside);
    return status;
}

dmc_status dmc_hf_config_open(dmc_hf_config *c, const dmc_tokenizer_source *src)
{
    const char *path = src->hf_config_path, *where = path ? path : "tokenizer_config.json inside the model file";
    dmc_status status = DMC_OK;
    *c = (dmc_hf_config){0};
    if (path) {
        DMC_GOTO(dmc_json_load_file(&c->config, path, DMC_MAX_JSON));
        DMC_GOTO(open_beside(&c->added, path, "added_tokens.json"));
    } else if (src->hf_config) {
        DMC_GOTO(dmc_json_load(&c->config, src->hf_config, src->hf_config_bytes, where));
    }
    if ((c->config && !json_is_object(c->config)) || (c->added && !json_is_object(c->added)))
        status = dmc_fail(DMC_ERR_FORMAT, "%s, or added_tokens.json beside it, is not a JSON object", where);
done:
    if (status != DMC_OK) dmc_hf_config_close(c);
    return status;
}

void dmc_hf_config_close(dmc_hf_config *c)
{
    json_decref(c->config);
    json_decref(c->added);
    *c = (dmc_hf_config){0};
}

/* The keys of added_tokens_decoder are ids in decimal; -1 for anything else. */
static int64_t parse_id(const char *s)
{
    char *end;
    errno = 0;
    long long v = strtoll(s, &end, 10);
    return *s && !*end && !errno && v >= 0 && v < INT32_MAX ? v : -1;
}

size_t dmc_hf_config_room(const dmc_hf_config *c, size_t n)
{
    json_t *decoder = json_object_get(c->config, "added_tokens_decoder"), *value;
    const char *key;
    int64_t max = (int64_t)n - 1, limit = dmc_max_ids(n + json_object_size(decoder) + json_object_size(c->added));
    json_object_foreach(decoder, key, value) if (parse_id(key) > max && parse_id(key) < limit) max = parse_id(key);
    json_object_foreach(c->added, key, value) if (json_integer_value(value) > max && json_integer_value(value) < limit)
        max = json_integer_value(value);
    return (size_t)(max + 1);
}

/* A token named by the config: a string, or an object with its content. */
static int named_token(const dmc_hf_config *c, const dmc_tokenizer *t, const char *key)
{
    const json_t *v = json_object_get(c->config, key);
    if (json_is_object(v)) v = json_object_get(v, "content");
    return json_is_string(v) ? dmc_vocab_find_any(t, json_string_value(v), json_string_length(v)) : -1;
}

void dmc_hf_config_apply_ends(const dmc_hf_config *c, dmc_tokenizer *t)
{
    int bos = named_token(c, t, "bos_token");
    if (bos >= 0) t->bos = bos;
    dmc_vocab_mark_end(t, named_token(c, t, "eos_token"));
    t->adds_bos = dmc_json_flag(c->config, "add_bos_token", t->adds_bos);
}

dmc_status dmc_hf_config_apply(const dmc_hf_config *c, dmc_tokenizer *t)
{
    json_t *decoder = json_object_get(c->config, "added_tokens_decoder"), *value;
    const char *key;
    json_object_foreach(c->added, key,
                        value) /* knows no flags: added_tokens_decoder, where there is one, says it better */
        if (json_is_integer(value))
            DMC_TRY(dmc_vocab_set_added(t, json_integer_value(value), key, strlen(key), true, 0));
    json_object_foreach(decoder, key, value)
    {
        const json_t *content = json_object_get(value, "content");
        if (!json_is_string(content)) continue;
        int extra = (dmc_json_flag(value, "lstrip", false) ? DMC_TOKEN_LSTRIP : 0) |
                    (dmc_json_flag(value, "rstrip", false) ? DMC_TOKEN_RSTRIP : 0);
        bool special = dmc_json_flag(value, "special", false);
        int64_t id = parse_id(key);
        if (id >= 0 && id < t->n_tokens && !special && t->tokens[id].kind == DMC_KIND_CONTROL)
            t->tokens[id].kind = DMC_KIND_USER;
        DMC_TRY(dmc_vocab_set_added(t, id, json_string_value(content), json_string_length(content), special, extra));
    }
    dmc_hf_config_apply_ends(c, t);
    return DMC_OK;
}
