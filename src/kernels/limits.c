/* Times the tiers' arithmetic and the reading of memory. The best of some tries counts: a limit is what can be reached. */
#include "kernels/limits.h"

#include <string.h>
#include <unistd.h>

static const dmc_limit_ops *ops_of(const dmc_kernels *tier)
{
#if defined(__x86_64__)
    if (tier == &dmc_kernels_amx) return &dmc_limit_ops_amx;
    if (tier == &dmc_kernels_avx512) return &dmc_limit_ops_avx512;
    if (tier == &dmc_kernels_avx2) return &dmc_limit_ops_avx2;
#endif
    (void)tier;
    return &dmc_limit_ops_ref;
}

/* ---- arithmetic ---- */

enum { TRIES = 5, TASKS = 4 }; /* tasks a thread */

typedef struct {
    double (*op)(int64_t rounds);
    int64_t rounds;
    double done; /* operations of one task */
} op_job;

static void op_task(void *arg, int64_t task, int thread)
{
    op_job *g = arg;
    (void)thread;
    double done = g->op(g->rounds);
    if (task == 0) g->done = done;
}

static double rate_of(double (*op)(int64_t rounds), dmc_threads *team)
{
    enum { FIRST = 1000 };
    op_job g = {.op = op, .rounds = FIRST};
    int64_t tasks = (int64_t)dmc_threads_count(team) * TASKS;
    double best = 0;
    if (!op) return 0;
    double start = dmc_now();
    op(FIRST);
    double seconds = dmc_now() - start;
    g.rounds = (int64_t)(FIRST * 0.002 / (seconds > 1e-7 ? seconds : 1e-7)) + 1; /* tasks of two milliseconds */
    for (int i = 0; i < TRIES; i++) {
        start = dmc_now();
        dmc_parallel(team, tasks, op_task, &g);
        double rate = g.done * (double)tasks / (dmc_now() - start);
        if (rate > best) best = rate;
    }
    return best;
}

/* ---- memory ---- */

#define ROW \
    ((size_t)4001 * 128) /* of a stream; an odd number of lines, so that rows do not fall on one set of a cache */
#define BLOCK (DMC_LIMIT_STREAMS * ROW)
enum { FEWEST_BLOCKS = 64, MOST_BLOCKS = 1024 };

typedef struct {
    const dmc_limit_ops *ops;
    uint8_t *data; /* [n_blocks][BLOCK] */
    int64_t n_blocks;
    bool streams;
    uint64_t sums[MOST_BLOCKS]; /* so that the reads are not optimised away */
} read_job;

/* Twice the last cache, or part of what is read over and over would come from there; FEWEST where its size is not told, and at most a quarter of
 * the memory beyond that. */
static int64_t blocks(void)
{
    int64_t n = FEWEST_BLOCKS;
#if defined(_SC_LEVEL3_CACHE_SIZE) && defined(_SC_PHYS_PAGES)
    const int64_t cache = sysconf(_SC_LEVEL3_CACHE_SIZE), pages = sysconf(_SC_PHYS_PAGES);
    const int64_t wanted = 2 * cache / (int64_t)BLOCK, room = pages / 4 * sysconf(_SC_PAGESIZE) / (int64_t)BLOCK;
    n = wanted < room ? wanted : room;
#endif
    return n < FEWEST_BLOCKS ? FEWEST_BLOCKS : n > MOST_BLOCKS ? MOST_BLOCKS : n;
}

static void fill_task(void *arg, int64_t task, int thread)
{
    const read_job *g = arg;
    (void)thread;
    memset(g->data + (size_t)task * BLOCK, 1, BLOCK);
}

static void read_task(void *arg, int64_t task, int thread)
{
    read_job *g = arg;
    (void)thread;
    g->sums[task] = g->ops->read(g->data + (size_t)task * BLOCK, ROW, g->streams);
}

static double read_rate(read_job *g, bool streams, dmc_threads *team)
{
    double best = 0;
    g->streams = streams;
    for (int i = 0; i < TRIES; i++) {
        double start = dmc_now();
        dmc_parallel(team, g->n_blocks, read_task, g);
        double rate = (double)g->n_blocks * (double)BLOCK / (dmc_now() - start);
        if (rate > best) best = rate;
    }
    return best;
}

dmc_status dmc_limits_measure(dmc_limits *out, const dmc_kernels *tier, dmc_threads *team)
{
    const dmc_limit_ops *ops = ops_of(tier);
    read_job g = {.ops = ops, .n_blocks = blocks()};
    *out = (dmc_limits){0};
    g.data = dmc_malloc_large((size_t)g.n_blocks * BLOCK);
    if (!g.data && g.n_blocks > FEWEST_BLOCKS) {
        g.n_blocks = FEWEST_BLOCKS;
        g.data = dmc_malloc_large(FEWEST_BLOCKS * BLOCK);
    }
    if (!g.data) return dmc_fail(DMC_ERR_MEMORY, "out of memory for %zu bytes to read", FEWEST_BLOCKS * BLOCK);
    dmc_parallel(team, g.n_blocks, fill_task, &g);
    out->read = read_rate(&g, false, team);
    out->read_streams = read_rate(&g, true, team);
    dmc_free(g.data);
    out->f32 = rate_of(ops->f32, team);
    out->int8 = rate_of(ops->int8, team);
    out->bf16 = rate_of(ops->bf16, team);
    return DMC_OK;
}
