/* A team of threads for short parallel loops: it wakes within microseconds, spins briefly, then sleeps. A thread that the
 * system has taken off its core holds up nothing but the task that it is at: tasks are claimed one by one, the caller takes part. */
#ifndef DMC_THREADS_H
#define DMC_THREADS_H

#include "base/base.h"

typedef struct dmc_threads dmc_threads;

/* n threads, the caller's included (n >= 1). pin: each on a core of its own, of those that the process might use when it started
 * its first team; the thread that creates the team too, until the team is closed. Fails with DMC_ERR_MEMORY. */
dmc_status dmc_threads_create(dmc_threads **out, int n, bool pin);
void dmc_threads_close(dmc_threads *t);      /* NULL allowed */
int dmc_threads_count(const dmc_threads *t); /* NULL: 1 */
int dmc_threads_cores(void);                 /* cores that this process may use */

/* thread: 0 .. count - 1, a different one for each body that runs at the same time. */
typedef void dmc_task(void *arg, int64_t task, int thread);

/* Runs body(arg, 0 .. n_tasks - 1) and returns when all have ended; earlier tasks start earlier. While the team works for
 * somebody else, inside of a body, or with t NULL, the caller does all tasks itself as thread 0. n_tasks < 2^31. */
void dmc_parallel(dmc_threads *t, int64_t n_tasks, dmc_task *body, void *arg);

#endif
