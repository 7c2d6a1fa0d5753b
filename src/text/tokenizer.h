/* Tokenizers: SentencePiece-style BPE with byte fallback ("spm") and byte-level BPE with a pre-tokeniser pattern
 * ("bpe"). Immutable after opening; encode is thread-safe. */
#ifndef DMC_TOKENIZER_H
#define DMC_TOKENIZER_H

#include "base/base.h"

struct dmc_tokenizer_source;

typedef struct dmc_tokenizer dmc_tokenizer;

#include "format/checkpoint.h"

dmc_status dmc_tokenizer_open(dmc_tokenizer **out, const dmc_tokenizer_source *src, const dmc_config *config);
void dmc_tokenizer_close(dmc_tokenizer *t);

int dmc_tokenizer_size(const dmc_tokenizer *t);
int dmc_tokenizer_bos(const dmc_tokenizer *t);       /* -1: none */
bool dmc_tokenizer_adds_bos(const dmc_tokenizer *t); /* whether the model's own settings put a BOS in front */
bool dmc_tokenizer_is_end(const dmc_tokenizer *t, int32_t id);
bool dmc_tokenizer_is_control(const dmc_tokenizer *t, int32_t id);

/* Ids in a fresh array (dmc_free). special: special tokens written in the text become their ids. add_bos as asked. */
dmc_status dmc_tokenizer_encode(int32_t **ids, size_t *n_ids, const dmc_tokenizer *t, const char *text, size_t n,
                                bool add_bos, bool special);
/* Bytes of a token as they continue a text (SentencePiece's U+2581 is a space, <0xNN> its byte). */
dmc_status dmc_tokenizer_bytes(const dmc_tokenizer *t, int32_t id, const char **bytes, size_t *n);

/* Trains a byte-level BPE on text: n_vocab ids in all = specials, then 256 bytes, then merges in order; pattern =
 * GPT-2's. Deterministic; ties go to the smaller pair. Returns the text of a tokenizer.json (dmc_free) that
 * dmc_tokenizer_open reads. specials[0] is BOS, specials[1] EOS; where the text has one, it is cut there. DMC_ERR_ARG
 * if the text has too few words for so many tokens. */
dmc_status dmc_bpe_train(char **json, size_t *json_bytes, const char *text, size_t n, int n_vocab,
                         const char *const *specials, int n_specials);

#endif
