/* The page pool: memory of all settled slots. A page holds 16 slots of one KV head; pages are cut from slabs that come from the
 * operating system and go back there when all their pages are free (one empty slab is kept against thrashing).
 *
 * Pages are reference-counted: forks share them. Thread-safe; the lock is taken per list of pages, never per token.
 */
#ifndef DMC_POOL_H
#define DMC_POOL_H

#include "kernels/kv.h"

typedef struct dmc_page {
    void *k, *v;     /* its halves: kv.h */
    atomic_int refs; /* sequences whose page table holds it */
    struct dmc_slab *slab;
    struct dmc_page *next; /* in the slab's free list, or in a list from dmc_pool_take */
} dmc_page;

typedef struct dmc_pool dmc_pool;

/* Pages of one type (not AUTO) and head size; limit_bytes 0: no limit. */
dmc_status dmc_pool_create(dmc_pool **out, dmc_kv_type type, int head_dim, size_t limit_bytes);
void dmc_pool_close(dmc_pool *p); /* after all sequences; NULL allowed */
dmc_kv_type dmc_pool_type(const dmc_pool *p);

/* A list of n pages with one reference each, all or none: DMC_ERR_POOL at the limit, DMC_ERR_MEMORY without memory. */
dmc_status dmc_pool_take(dmc_pool *p, int64_t n, dmc_page **list);
/* One more reference on each page; the caller holds one already. */
void dmc_pool_share(dmc_page *const *pages, int64_t n);
/* One reference less on each page; those without any become free. */
void dmc_pool_drop(dmc_pool *p, dmc_page *const *pages, int64_t n);

/* Whether somebody else refers to the page too. If not, nobody can start to but its holder. */
static inline bool dmc_page_shared(const dmc_page *g)
{
    return atomic_load_explicit(&g->refs, memory_order_acquire) > 1;
}

size_t dmc_pool_page_bytes(const dmc_pool *p); /* a page with its descriptor */
size_t dmc_pool_bytes_held(dmc_pool *p);       /* slots, from the operating system */
size_t dmc_pool_bytes_used(dmc_pool *p);       /* of those, in pages that somebody refers to */

#endif
