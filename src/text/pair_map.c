#include "text/pair_map.h"

static void place(dmc_pair_map *m, dmc_pair pair)
{
    for (size_t i = dmc_pair_hash(pair.left, pair.right);; i++) {
        dmc_pair *s = &m->slots[i & (m->n_slots - 1)];
        if (s->value == DMC_NO_PAIR) {
            *s = pair;
            m->n++;
            return;
        }
        if (s->left == pair.left && s->right == pair.right) return;
    }
}

dmc_status dmc_pair_add(dmc_pair_map *m, uint32_t left, uint32_t right, uint32_t value)
{
    if (m->n >= m->n_slots / 2) {
        dmc_pair_map bigger = {.n_slots = m->n_slots ? m->n_slots * 2 : 64};
        bigger.slots = dmc_malloc(bigger.n_slots, sizeof *bigger.slots);
        if (!bigger.slots) return dmc_fail(DMC_ERR_MEMORY, "out of memory: map of %zu pairs", bigger.n_slots);
        for (size_t i = 0; i < bigger.n_slots; i++) bigger.slots[i].value = DMC_NO_PAIR;
        for (size_t i = 0; i < m->n_slots; i++)
            if (m->slots[i].value != DMC_NO_PAIR) place(&bigger, m->slots[i]);
        dmc_pair_free(m);
        *m = bigger;
    }
    place(m, (dmc_pair){left, right, value});
    return DMC_OK;
}

void dmc_pair_free(dmc_pair_map *m)
{
    dmc_free(m->slots);
    *m = (dmc_pair_map){0};
}
