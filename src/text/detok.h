/* Streaming detokeniser: tokens in, whole UTF-8 characters out. */
#ifndef DMC_DETOK_H
#define DMC_DETOK_H

#include "text/tokenizer.h"

/* Adds one token and writes what is ready to out; a zero-initialised dmc_detok begins a text. Bytes that cannot
 * begin or continue a character come out as U+FFFD; those of a character that is not complete are held back. Control
 * tokens write nothing but end a held character; a BOS begins the text anew. Where the tokenizer puts a space in
 * front of every text, the space that the first token begins with is left out. DMC_ERR_ARG: no such token, or cap
 * too small, and nothing has changed; 3 * (the token's bytes + 4) always suffice. */
dmc_status dmc_detok_push_tokenizer(const dmc_tokenizer *t, dmc_detok *d, int32_t id, char *out, size_t cap,
                                    size_t *n_out);

#endif
