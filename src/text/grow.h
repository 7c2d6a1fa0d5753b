/* Arrays that grow by doubling. */
#ifndef DMC_GROW_H
#define DMC_GROW_H

#include "base/base.h"

#include <string.h>

/* Makes room for `need` items of `size` bytes in *(T **)array, whose capacity is *cap; on failure nothing has
 * changed. */
static inline dmc_status dmc_grow(void *array, size_t *cap, size_t need, size_t size)
{
    if (need <= *cap) return DMC_OK;
    size_t wanted = *cap > SIZE_MAX / 4 ? need : *cap * 2;
    if (wanted < need) wanted = need;
    if (wanted < 16) wanted = 16;
    void *old, *p;
    memcpy(&old, array, sizeof old);
    p = dmc_realloc(old, wanted, size);
    if (!p) return dmc_fail(DMC_ERR_MEMORY, "out of memory: %zu x %zu bytes", wanted, size);
    memcpy(array, &p, sizeof p);
    *cap = wanted;
    return DMC_OK;
}

#endif
