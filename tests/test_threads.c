/* The team of threads: every task runs once, on a thread of its own number, whoever calls and however often. */
#define _GNU_SOURCE
#include "base/threads.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { MOST = 3000 };

typedef struct {
    dmc_threads *team;
    atomic_int runs[MOST], inside[8], clashes;
    int64_t nested; /* tasks that each task starts itself */
} count;

static void nested_body(void *arg, int64_t task, int thread)
{
    count *c = arg;
    (void)task;
    if (thread != 0) atomic_fetch_add(&c->clashes, 1);
    atomic_fetch_add(&c->runs[MOST - 1], 1);
}

static void body(void *arg, int64_t task, int thread)
{
    count *c = arg;
    if (atomic_fetch_add(&c->inside[thread], 1) != 0) atomic_fetch_add(&c->clashes, 1);
    atomic_fetch_add(&c->runs[task], 1);
    if (c->nested) dmc_parallel(c->team, c->nested, nested_body, c);
    atomic_fetch_sub(&c->inside[thread], 1);
}

static void check_counts(count *c, int64_t n, int times)
{
    for (int64_t i = 0; i < n; i++) assert_int_equal(atomic_load(&c->runs[i]), times);
    assert_int_equal(atomic_load(&c->clashes), 0);
}

static void test_every_task_once(void **state)
{
    (void)state;
    for (int n = 1; n <= 8; n += n < 3 ? 1 : 5) {
        for (int pin = 0; pin < 2; pin++) {
            dmc_threads *t;
            assert_int_equal(dmc_threads_create(&t, n, pin), DMC_OK);
            assert_int_equal(dmc_threads_count(t), n);
            static count c;
            memset(&c, 0, sizeof c);
            c.team = t;
            int64_t sizes[] = {1, 2, 3, 7, 64, 1000};
            for (int round = 0; round < 200; round++)
                for (int i = 0; i < 6; i++) dmc_parallel(t, sizes[i] / (round % 3 + 1) + 1, body, &c);
            assert_int_equal(atomic_load(&c.clashes), 0);
            assert_int_equal(atomic_load(&c.runs[0]), 1200);
            memset(&c, 0, sizeof c);
            dmc_parallel(t, MOST, body, &c);
            check_counts(&c, MOST, 1);
            dmc_parallel(t, 0, body, &c);
            dmc_parallel(t, -5, body, &c);
            check_counts(&c, MOST, 1);
            dmc_threads_close(t);
        }
    }
    static count alone;
    dmc_parallel(NULL, 50, body, &alone);
    check_counts(&alone, 50, 1);
    assert_int_equal(dmc_threads_count(NULL), 1);
    assert_true(dmc_threads_cores() >= 1);
    dmc_threads_close(NULL);
}

static void test_nested(void **state)
{
    (void)state;
    static count c;
    assert_int_equal(dmc_threads_create(&c.team, 4, false), DMC_OK);
    c.nested = 5;
    dmc_parallel(c.team, 100, body, &c);
    check_counts(&c, 100, 1);
    assert_int_equal(atomic_load(&c.runs[MOST - 1]), 500);
    dmc_threads_close(c.team);
}

static void *caller(void *arg)
{
    count *c = arg;
    for (int i = 0; i < 300; i++) {
        dmc_parallel(c->team, 40, body, c);
        for (volatile int spin = 0; spin < (i % 7) * 20000;)
            spin = spin + 1; /* so that the team falls asleep now and then */
    }
    return NULL;
}

/* Several callers: one has the team, the others work alone; each has thread numbers of its own. */
static void test_callers(void **state)
{
    (void)state;
    static count c[3];
    pthread_t threads[3];
    dmc_threads *t;
    assert_int_equal(dmc_threads_create(&t, 3, false), DMC_OK);
    for (int i = 0; i < 3; i++) {
        c[i].team = t;
        assert_int_equal(pthread_create(&threads[i], NULL, caller, &c[i]), 0);
    }
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < 3; i++) check_counts(&c[i], 40, 300);
    dmc_threads_close(t);
}

/* Pinning takes nothing away for good, from nobody: not from a team inside of another's time, not in whatever order they close. */
static void test_pinning(void **state)
{
    (void)state;
    cpu_set_t before, during, after;
    dmc_threads *a, *b;
    int cores = dmc_threads_cores();
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    assert_int_equal(CPU_COUNT(&before), cores);
    assert_int_equal(dmc_threads_create(&a, 2, true), DMC_OK);
    assert_int_equal(sched_getaffinity(0, sizeof during, &during), 0);
    if (cores > 1) assert_int_equal(CPU_COUNT(&during), 1);
    assert_int_equal(dmc_threads_cores(), cores);
    assert_int_equal(dmc_threads_create(&b, 2, true), DMC_OK);
    dmc_threads_close(a);
    dmc_threads_close(b);
    assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
    assert_true(CPU_EQUAL(&before, &after));
}

static void test_failures(void **state)
{
    (void)state;
    dmc_threads *t = (dmc_threads *)1;
    assert_int_equal(dmc_threads_create(&t, 0, false), DMC_ERR_ARG);
    assert_null(t);
    dmc_fault_memory(1);
    assert_int_equal(dmc_threads_create(&t, 2, false), DMC_ERR_MEMORY);
    dmc_fault_memory(0);
    assert_null(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_task_once), cmocka_unit_test(test_nested),
                                       cmocka_unit_test(test_callers), cmocka_unit_test(test_pinning),
                                       cmocka_unit_test(test_failures)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
