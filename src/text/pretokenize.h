/* Cutting text into words, within which byte-level BPE merges: a list of regular expressions, each of which cuts
 * what the one before it left. */
#ifndef DMC_PRETOKENIZE_H
#define DMC_PRETOKENIZE_H

#include "base/base.h"

/* What becomes of the matches; the text between two matches is a word in every case but KEEP. */
typedef enum {
    DMC_SPLIT_ISOLATED,   /* each match is a word */
    DMC_SPLIT_CONTIGUOUS, /* adjacent matches are one word */
    DMC_SPLIT_TO_LEFT,    /* a match belongs to the text in front of it */
    DMC_SPLIT_TO_RIGHT,   /* ... behind it */
    DMC_SPLIT_REMOVED,    /* matches are dropped */
    DMC_SPLIT_KEEP        /* matches are words, the text between them is dropped */
} dmc_split_behavior;

#define DMC_MAX_SPLITS 16

typedef struct {
    void *codes[DMC_MAX_SPLITS]; /* compiled expressions */
    dmc_split_behavior behavior[DMC_MAX_SPLITS];
    int n;
} dmc_splitter;

/* The next expression: PCRE2 syntax, Unicode classes. */
dmc_status dmc_splitter_add(dmc_splitter *s, const char *pattern, size_t n, dmc_split_behavior b, const char *where);
void dmc_splitter_free(dmc_splitter *s);

typedef struct {
    uint32_t start, n;
} dmc_span;

/* What one call of encode carries along. */
typedef struct {
    dmc_span *words, *next;
    size_t n_words, cap_words, cap_next;
    void *match, *limits;
} dmc_split_state;

/* Cuts bytes [start, start + n) of text into state->words (offsets into text). Bytes that are no UTF-8 are words of
 * their own. */
dmc_status dmc_split(dmc_split_state *state, const dmc_splitter *s, const char *text, uint32_t start, uint32_t n);
void dmc_split_state_free(dmc_split_state *state);

#endif
