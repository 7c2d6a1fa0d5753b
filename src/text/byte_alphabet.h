/* The alphabet in which byte-level BPE files write bytes: each of the 256 bytes is one printable character. */
#ifndef DMC_BYTE_ALPHABET_H
#define DMC_BYTE_ALPHABET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

uint32_t dmc_alphabet_char(uint8_t byte); /* code point that stands for the byte; below 0x144 */
/* Bytes that a piece of n bytes of UTF-8 stands for (at most n, into out); false if some character stands for no
 * byte. */
bool dmc_alphabet_decode(char *out, size_t *n_out, const char *piece, size_t n);

#endif
