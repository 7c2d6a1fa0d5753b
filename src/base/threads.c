/* The team: one word says what is left to claim, one word counts what has not ended, one word announces work to sleepers. */
#define _GNU_SOURCE
#include "base/threads.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { STACK = 4 << 20 }; /* kernels keep blocks of matrices on it, and in memory of the thread that is taken from it */
enum { SPIN_NS = 30000, PAUSES = 2 }; /* how long a thread looks for work or for the end before it sleeps */

struct dmc_threads {
    int n;
    atomic_bool closing;
    bool pinned;
    pid_t owner;          /* the thread that was pinned with the workers */
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

static void futex_wake(atomic_uint *word, int n)
{
    syscall(SYS_futex, (void *)word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

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

/* ---- cores ---- */

/* What the process may use, read before anything is pinned here. */
static cpu_set_t cores;
static pthread_once_t cores_once = PTHREAD_ONCE_INIT;

static void read_cores(void)
{
    if (sched_getaffinity(0, sizeof cores, &cores) != 0) CPU_ZERO(&cores);
}

int dmc_threads_cores(void)
{
    pthread_once(&cores_once, read_cores);
    int n = CPU_COUNT(&cores);
    if (n == 0) n = (int)sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? n : 1;
}

/* On the id-th core of those that the process may use. A wish: without it the threads work all the same. */
static void pin_to_core(pid_t thread, int id)
{
    cpu_set_t one;
    int core = -1;
    for (int left = id % CPU_COUNT(&cores); left >= 0 && core + 1 < CPU_SETSIZE;)
        if (CPU_ISSET(++core, &cores)) left--;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    sched_setaffinity(thread, sizeof one, &one);
}

/* ---- work ---- */

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
    if (t->pinned) pin_to_core(0, w->id);
    for (unsigned seen = 0;;) {
        if (!spin_until_not(&t->job, seen)) {
            atomic_fetch_add(&t->sleepers, 1);
            while (atomic_load(&t->job) == seen) futex_wait(&t->job, seen);
            atomic_fetch_sub(&t->sleepers, 1);
        }
        seen = atomic_load(&t->job);
        if (atomic_load(&t->closing)) return NULL;
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

int dmc_threads_count(const dmc_threads *t) { return t ? t->n : 1; }

dmc_status dmc_threads_create(dmc_threads **out, int n, bool pin)
{
    *out = NULL;
    if (n < 1) return dmc_fail(DMC_ERR_ARG, "%d threads are not possible", n);
    dmc_threads *t = dmc_calloc(1, sizeof *t + (size_t)n * sizeof t->workers[0]);
    if (!t) return dmc_fail(DMC_ERR_MEMORY, "out of memory for %d threads", n);
    pthread_attr_t attributes;
    pthread_mutex_init(&t->busy, NULL);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    t->n = 1;
    t->pinned = pin && dmc_threads_cores() > 1 && CPU_COUNT(&cores) > 1;
    for (; t->n < n; t->n++) {
        struct dmc_worker *w = &t->workers[t->n];
        w->team = t;
        w->id = t->n;
        if (pthread_create(&w->thread, &attributes, worker, w) != 0) {
            pthread_attr_destroy(&attributes);
            dmc_threads_close(t);
            return dmc_fail(DMC_ERR_MEMORY, "the system gives no more than %d threads; ask for fewer", w->id);
        }
    }
    if (t->pinned) pin_to_core(t->owner = (pid_t)syscall(SYS_gettid), 0);
    pthread_attr_destroy(&attributes);
    *out = t;
    return DMC_OK;
}

void dmc_threads_close(dmc_threads *t)
{
    if (!t) return;
    atomic_store(&t->closing, true);
    announce(t, t->n);
    for (int i = 1; i < t->n; i++) pthread_join(t->workers[i].thread, NULL);
    if (t->owner) sched_setaffinity(t->owner, sizeof cores, &cores); /* fails where it has ended */
    pthread_mutex_destroy(&t->busy);
    dmc_free(t);
}
