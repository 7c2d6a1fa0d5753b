/* The team: one word says what is left to claim, one word counts what has not ended, one word announces work to sleepers. */
#define _GNU_SOURCE
#include "base/threads.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SPIN_NS = 30000, PAUSES = 2 }; /* how long a thread looks for work or for the end before it sleeps */

struct dmc_threads {
    int n;
    bool closing, pinned;
    cpu_set_t cores; /* that the process might use before anything was pinned */
    int first_core;
    pthread_mutex_t busy; /* held by the caller whose tasks run */
    /* The job. Written while nothing is left to claim and nothing is pending; read by who has claimed a task of it. */
    dmc_task *body;
    void *arg;
    int64_t n_tasks;
    _Alignas(64) atomic_uint_fast64_t left; /* job number << 32 | tasks to claim */
    _Alignas(64) atomic_uint pending;       /* tasks that have not ended; a futex */
    atomic_uint waiting;                    /* the caller sleeps on it */
    _Alignas(64) atomic_uint job;           /* number of the last job; a futex */
    atomic_uint sleepers;
    struct dmc_worker {
        dmc_threads *team;
        pthread_t thread;
        int id;
    } workers[];
};

static void futex_wait(atomic_uint *word, unsigned value)
{
    syscall(SYS_futex, (void *)word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(atomic_uint *word, int n) { syscall(SYS_futex, (void *)word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0); }

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void pause_briefly(void)
{
    for (int i = 0; i < PAUSES; i++) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
}

/* Looks at a word until it is no longer `value`, for SPIN_NS at most. */
static bool spin_until_not(atomic_uint *word, unsigned value)
{
    for (int64_t end = now_ns() + SPIN_NS; atomic_load(word) == value; pause_briefly())
        if (now_ns() > end) return false;
    return true;
}

/* Claims and runs tasks until none is left. */
static void work(dmc_threads *t, int thread)
{
    unsigned done = 0;
    uint_fast64_t left = atomic_load(&t->left);
    while ((uint32_t)left) {
        if (!atomic_compare_exchange_weak(&t->left, &left, left - 1)) continue;
        /* the job cannot change before this task is reported as ended */
        t->body(t->arg, t->n_tasks - (int64_t)(uint32_t)left, thread);
        done++;
        left = atomic_load(&t->left);
    }
    if (done && atomic_fetch_sub(&t->pending, done) == done && atomic_load(&t->waiting)) futex_wake(&t->pending, 1);
}

static void *worker(void *arg)
{
    struct dmc_worker *w = arg;
    dmc_threads *t = w->team;
    for (unsigned seen = 0;;) {
        if (!spin_until_not(&t->job, seen)) {
            atomic_fetch_add(&t->sleepers, 1);
            while (atomic_load(&t->job) == seen) futex_wait(&t->job, seen);
            atomic_fetch_sub(&t->sleepers, 1);
        }
        seen = atomic_load(&t->job);
        if (t->closing) return NULL;
        work(t, w->id);
    }
}

static void announce(dmc_threads *t, int64_t n_tasks)
{
    atomic_fetch_add(&t->job, 1);
    if (atomic_load(&t->sleepers)) futex_wake(&t->job, n_tasks < t->n ? (int)n_tasks : t->n);
}

void dmc_parallel(dmc_threads *t, int64_t n_tasks, dmc_task *body, void *arg)
{
    if (n_tasks < 1) return;
    if (!t || t->n == 1 || n_tasks == 1 || pthread_mutex_trylock(&t->busy) != 0) {
        for (int64_t i = 0; i < n_tasks; i++) body(arg, i, 0);
        return;
    }
    t->body = body;
    t->arg = arg;
    t->n_tasks = n_tasks;
    atomic_store(&t->pending, (unsigned)n_tasks);
    uint_fast64_t number = (atomic_load(&t->left) >> 32) + 1;
    atomic_store(&t->left, number << 32 | (uint_fast64_t)n_tasks);
    announce(t, n_tasks - 1);
    work(t, 0);
    for (unsigned n; (n = atomic_load(&t->pending));) {
        if (spin_until_not(&t->pending, n)) continue;
        atomic_store(&t->waiting, 1);
        if ((n = atomic_load(&t->pending))) futex_wait(&t->pending, n);
        atomic_store(&t->waiting, 0);
    }
    pthread_mutex_unlock(&t->busy);
}

/* ---- create, close ---- */

int dmc_threads_cores(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? n : 1;
}

int dmc_threads_count(const dmc_threads *t) { return t ? t->n : 1; }

/* On the id-th core of those that the process may use, beginning with the one that the caller runs on. */
static void pin_to_core(const dmc_threads *t, pthread_t thread, int id)
{
    cpu_set_t one;
    int n = CPU_COUNT(&t->cores), core = t->first_core;
    for (int skip = n ? id % n : 0; skip > 0;) {
        core = (core + 1) % CPU_SETSIZE;
        if (CPU_ISSET(core, &t->cores)) skip--;
    }
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    pthread_setaffinity_np(thread, sizeof one, &one); /* a wish: without it the threads work all the same */
}

dmc_status dmc_threads_create(dmc_threads **out, int n, bool pin)
{
    *out = NULL;
    if (n < 1) return dmc_fail(DMC_ERR_ARG, "%d threads are not possible", n);
    dmc_threads *t = dmc_calloc(1, sizeof *t + (size_t)n * sizeof t->workers[0]);
    if (!t) return dmc_fail(DMC_ERR_MEMORY, "out of memory for %d threads", n);
    pthread_mutex_init(&t->busy, NULL);
    t->n = 1;
    t->first_core = sched_getcpu();
    t->pinned = pin && t->first_core >= 0 && sched_getaffinity(0, sizeof t->cores, &t->cores) == 0;
    for (; t->n < n; t->n++) {
        struct dmc_worker *w = &t->workers[t->n];
        w->team = t;
        w->id = t->n;
        if (pthread_create(&w->thread, NULL, worker, w) != 0) {
            dmc_threads_close(t);
            return dmc_fail(DMC_ERR_MEMORY, "the system gives no more than %d threads; ask for fewer", w->id);
        }
        if (t->pinned) pin_to_core(t, w->thread, w->id);
    }
    if (t->pinned) pin_to_core(t, pthread_self(), 0);
    *out = t;
    return DMC_OK;
}

void dmc_threads_close(dmc_threads *t)
{
    if (!t) return;
    t->closing = true;
    announce(t, t->n);
    for (int i = 1; i < t->n; i++) pthread_join(t->workers[i].thread, NULL);
    if (t->pinned) pthread_setaffinity_np(pthread_self(), sizeof t->cores, &t->cores);
    pthread_mutex_destroy(&t->busy);
    dmc_free(t);
}
