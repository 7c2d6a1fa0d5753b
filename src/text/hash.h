/* FNV-1a over a few bytes, folded once: for the hash tables of pieces and words. */
#ifndef DMC_HASH_H
#define DMC_HASH_H

#include <stddef.h>
#include <stdint.h>

static inline uint32_t dmc_hash_bytes(const char *s, size_t n)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < n; i++) h = (h ^ (uint8_t)s[i]) * 16777619u;
    return h ^ h >> 15;
}

#endif
