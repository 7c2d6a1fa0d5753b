/* UTF-8 as it comes: valid characters, the beginning of one, or bytes that are neither. */
#ifndef DMC_UTF8_H
#define DMC_UTF8_H

#include <stddef.h>
#include <stdint.h>

#define DMC_REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */
#define DMC_SPACE_MARK "\xE2\x96\x81"  /* U+2581, SentencePiece's visible space */

/* Looks at the first character of n > 0 bytes. Returns its length (1..4) and stores its code point; 0 if the n bytes
 * are only the beginning of a character; -k if the first k bytes are no UTF-8 and never will be (a maximal subpart,
 * the unit that one U+FFFD stands for). Surrogates, overlong forms and values above U+10FFFF are no UTF-8. */
int dmc_utf8_scan(const char *s, size_t n, uint32_t *code);

/* Writes a code point (below 0x110000, no surrogate); returns its length, 1..4. */
int dmc_utf8_put(char out[4], uint32_t code);

#endif
