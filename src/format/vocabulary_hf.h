/* Private to format/: the table of tokens that GGUF's standard keys hold, and how a tokenizer.json fills it. */
#ifndef DMC_VOCABULARY_HF_H
#define DMC_VOCABULARY_HF_H

#include "format/gguf_build.h"
#include "format/json.h"

typedef enum {
    DMC_TOKEN_NORMAL = 1,
    DMC_TOKEN_UNKNOWN,
    DMC_TOKEN_CONTROL,
    DMC_TOKEN_USER_DEFINED,
    DMC_TOKEN_UNUSED,
    DMC_TOKEN_BYTE
} dmc_token_type;

typedef struct {
    dmc_buffer texts, scores, types; /* as the file will hold them */
    uint64_t n;
    int unknown; /* id, or -1 */
} dmc_vocabulary;

void dmc_vocabulary_add(dmc_vocabulary *v, const char *text, size_t n, float score, dmc_token_type type);
void dmc_vocabulary_pad(dmc_vocabulary *v,
                        int n_vocab); /* unused tokens up to n_vocab, as other converters name them */
void dmc_vocabulary_put_table(dmc_gguf_keys *k, const dmc_vocabulary *v, const char *model);
void dmc_vocabulary_free(dmc_vocabulary *v);
bool dmc_token_is_byte(const char *s, size_t n); /* "<0x0A>" */

/* Standard keys for a parsed tokenizer.json of n_vocab tokens. Puts nothing if it is not a BPE that GGUF has a name for. */
dmc_status dmc_vocabulary_put_hf(dmc_gguf_keys *k, const json_t *root, int n_vocab);

#endif
