/* Training text as token ids, cut into samples. Documents are separated by "<|endoftext|>" in the files; each becomes
 * [BOS] ids [EOS] with the model's own ids. Sample order is a function of (seed, epoch) alone. */
#ifndef DMC_DATA_H
#define DMC_DATA_H

#include "text/tokenizer.h"

typedef struct {
    int32_t *ids; /* all documents, one after the other */
    size_t n;
    size_t *doc; /* [n_docs + 1] where each begins */
    size_t n_docs;
    size_t text_bytes;
    int bos; /* -1: none */
} dmc_corpus;

dmc_status dmc_corpus_load(dmc_corpus *out, const dmc_tokenizer *t, const dmc_config *c, const char *const *files,
                           size_t n_files);
void dmc_corpus_free(dmc_corpus *c);
/* Cuts the last `fraction` of the tokens off as a corpus of their own: between two documents if they are small, else inside one. */
dmc_status dmc_corpus_split(dmc_corpus *c, dmc_corpus *tail, double fraction);

/* Samples of at most T tokens. packed: the stream in pieces of T (T - 1 behind a BOS), documents running into each other; else one document
 * each, cut off at T. */
typedef struct {
    const dmc_corpus *corpus;
    int T;
    bool packed;
    size_t n_samples;
    uint64_t seed;
    uint32_t *order; /* permutation of the current epoch */
    uint64_t epoch;
} dmc_sampling;

dmc_status dmc_sampling_create(dmc_sampling *out, const dmc_corpus *c, int T, bool packed, uint64_t seed);
void dmc_sampling_free(dmc_sampling *s);
/* The i-th sample of all epochs, shuffled -> ids [T] (padded with its last id), length. */
void dmc_sampling_get(dmc_sampling *s, uint64_t i, int32_t *ids, int32_t *length);
/* Sample i in file order, not shuffled (held-out measurements). */
void dmc_sampling_plain(const dmc_sampling *s, size_t i, int32_t *ids, int32_t *length);

#endif
