/* What byte-level BPE models of one family share. A vocabulary in a GGUF file only names its family. */
#ifndef DMC_FAMILIES_H
#define DMC_FAMILIES_H

#include "text/pretokenize.h"

#define DMC_FAMILY_PATTERNS 6

typedef struct {
    const char *names; /* as in GGUF's tokenizer.ggml.pre; several, separated by spaces */
    const char *patterns
        [DMC_FAMILY_PATTERNS]; /* each cuts what the one before left; matches are words, and so is what lies between */
    bool nfc;                  /* text is normalised to NFC */
    bool adds_bos;             /* where the file does not say */
    bool whole_words;          /* a word that is a token needs no merging */
} dmc_family;

const dmc_family *dmc_family_find(const char *name, size_t n); /* NULL: none of that name */
dmc_status dmc_splitter_add_family(dmc_splitter *s, const dmc_family *f);

#endif
