/* What happens to text before it is cut into words: Unicode normal forms, the space that SentencePiece puts in
 * front. */
#ifndef DMC_NORMALIZE_H
#define DMC_NORMALIZE_H

#include "base/base.h"

typedef enum { DMC_FORM_NONE, DMC_FORM_NFC, DMC_FORM_NFD, DMC_FORM_NFKC, DMC_FORM_NFKD } dmc_unicode_form;
typedef enum {
    DMC_PREFIX_NEVER,
    DMC_PREFIX_FIRST,
    DMC_PREFIX_ALWAYS
} dmc_prefix; /* FIRST: of the text, not of what follows a special token */

typedef struct {
    dmc_unicode_form form;
    dmc_prefix prefix;      /* a space in front ... */
    bool prefix_if_missing; /* ... unless there is one */
    bool space_mark;        /* U+2581 in the text is a space, too */
    bool squeeze;           /* runs of spaces become one, those at both ends go */
    bool replace_invalid;   /* bytes that are no UTF-8 become U+FFFD: the vocabulary has no tokens for them */
} dmc_normalizer;

typedef struct {
    char *s;
    size_t n, cap;
} dmc_text;

/* U+2581 becomes a space, in place; returns the new length. */
size_t dmc_unmark(char *s, size_t n);
dmc_status dmc_text_append(dmc_text *t, const char *s, size_t n);
/* Appends the normalised form of s; first: s begins the text. Bytes that are no UTF-8 pass unless they are replaced. */
dmc_status dmc_normalize(dmc_text *out, const dmc_normalizer *z, const char *s, size_t n, bool first);

#endif
