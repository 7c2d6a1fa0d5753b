/* tokenizer_config.json and added_tokens.json beside it: what Hugging Face says of a vocabulary that lies in another
 * file. */
#ifndef DMC_HF_CONFIG_H
#define DMC_HF_CONFIG_H

#include "format/json.h"
#include "text/vocab.h"

typedef struct {
    json_t *config; /* tokenizer_config.json, or NULL */
    json_t *added;  /* added_tokens.json, or NULL */
} dmc_hf_config;

/* From the files, or from the text of tokenizer_config.json in memory; with neither it is empty. */
dmc_status dmc_hf_config_open(dmc_hf_config *c, const dmc_tokenizer_source *src);
void dmc_hf_config_close(dmc_hf_config *c);
/* Ids that a vocabulary of n tokens has with the added ones. */
size_t dmc_hf_config_room(const dmc_hf_config *c, size_t n);
/* Defines the added tokens, BOS and EOS, and whether a BOS stands in front. Before dmc_vocab_index. */
dmc_status dmc_hf_config_apply(const dmc_hf_config *c, dmc_tokenizer *t);
/* The same for BOS, EOS and adds_bos alone, where the vocabulary's own file defines the added tokens. */
void dmc_hf_config_apply_ends(const dmc_hf_config *c, dmc_tokenizer *t);

/* A member's boolean or string; `missing` or NULL if there is none. */
static inline bool dmc_json_flag(const json_t *object, const char *key, bool missing)
{
    const json_t *v = json_object_get(object, key);
    return json_is_boolean(v) ? json_boolean_value(v) : missing;
}

static inline const char *dmc_json_text(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

#define DMC_MAX_JSON ((size_t)256 << 20) /* bytes of a file; the largest tokenizer.json in use has 35 MB */

/* Limit of ids in a vocabulary whose files define n tokens: there may be gaps, but not for gigabytes. */
static inline int64_t dmc_max_ids(size_t n) { return 2 * (int64_t)n + 4096; }

#endif
