/* A map from a pair of numbers to a number: merges (left id, right id) -> rank, edges (node, byte) -> node.
 * Open addressing; zero-initialised is empty. Numbers are below UINT32_MAX. */
#ifndef DMC_PAIR_MAP_H
#define DMC_PAIR_MAP_H

#include "base/base.h"

#define DMC_NO_PAIR UINT32_MAX

typedef struct {
    uint32_t left, right, value;
} dmc_pair;

typedef struct {
    dmc_pair *slots;
    size_t n, n_slots; /* entries; power of two */
} dmc_pair_map;

static inline size_t dmc_pair_hash(uint32_t left, uint32_t right)
{
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u;
    return (size_t)(h ^ h >> 32);
}

static inline uint32_t dmc_pair_get(const dmc_pair_map *m, uint32_t left, uint32_t right)
{
    if (m->n == 0) return DMC_NO_PAIR;
    for (size_t i = dmc_pair_hash(left, right);; i++) {
        const dmc_pair *s = &m->slots[i & (m->n_slots - 1)];
        if (s->value == DMC_NO_PAIR) return DMC_NO_PAIR;
        if (s->left == left && s->right == right) return s->value;
    }
}

/* Adds a pair; one that is there keeps its value. */
dmc_status dmc_pair_add(dmc_pair_map *m, uint32_t left, uint32_t right, uint32_t value);
void dmc_pair_free(dmc_pair_map *m);

#endif
