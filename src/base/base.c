/* Errors, memory, arithmetic-free helpers. Files are in file.c, random numbers in random.c. */
#define _GNU_SOURCE
#include "base/base.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

static _Thread_local char last_error[1024] = "no error";

const char *dmc_status_text(dmc_status s)
{
    switch (s) {
#define DMC_STATUS_TEXT(name, text) \
    case name: return text;
        DMC_STATUS_LIST(DMC_STATUS_TEXT)
#undef DMC_STATUS_TEXT
    }
    return "unknown status";
}

const char *dmc_last_error(void) { return last_error; }

dmc_status dmc_fail(dmc_status s, const char *fmt, ...)
{
    char text[sizeof last_error]; /* the arguments may point into last_error */
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    memcpy(last_error, text, sizeof text);
    return s;
}

/* ---- fault injection: a countdown; the call that brings it to zero fails ---- */

static atomic_long memory_left, memory_calls, io_left, io_calls;

void dmc_fault_memory(long k)
{
    atomic_store(&memory_left, k);
    atomic_store(&memory_calls, 0);
}

void dmc_fault_io(long k)
{
    atomic_store(&io_left, k);
    atomic_store(&io_calls, 0);
}

long dmc_fault_memory_count(void) { return atomic_load(&memory_calls); }
long dmc_fault_io_count(void) { return atomic_load(&io_calls); }

static bool memory_fault(void)
{
    atomic_fetch_add_explicit(&memory_calls, 1, memory_order_relaxed);
    return atomic_load_explicit(&memory_left, memory_order_relaxed) > 0 && atomic_fetch_sub(&memory_left, 1) == 1;
}

bool dmc_io_fault(void);
bool dmc_io_fault(void)
{
    atomic_fetch_add_explicit(&io_calls, 1, memory_order_relaxed);
    return atomic_load_explicit(&io_left, memory_order_relaxed) > 0 && atomic_fetch_sub(&io_left, 1) == 1;
}

/* ---- memory ---- */

void *dmc_malloc(size_t n, size_t size)
{
    size_t bytes;
    if (!dmc_mul(&bytes, n, size) || bytes > PTRDIFF_MAX - 64 || memory_fault()) return NULL;
    return aligned_alloc(64, (bytes + 64) / 64 * 64); /* never zero bytes */
}

void *dmc_calloc(size_t n, size_t size)
{
    void *p = dmc_malloc(n, size);
    if (p) memset(p, 0, n * size);
    return p;
}

void *dmc_malloc_large(size_t bytes)
{
    const size_t huge = (size_t)2 << 20;
    if (bytes < huge || bytes > PTRDIFF_MAX - huge) return dmc_malloc(bytes, 1);
    if (memory_fault()) return NULL;
    size_t rounded = (bytes + huge - 1) / huge * huge;
    void *p = aligned_alloc(huge, rounded);
    if (p) madvise(p, rounded, MADV_HUGEPAGE); /* a wish */
    return p;
}

void *dmc_realloc(void *p, size_t n, size_t size)
{
    size_t bytes;
    if (!dmc_mul(&bytes, n, size) || bytes > PTRDIFF_MAX - 64 || memory_fault()) return NULL;
    return realloc(p, bytes ? bytes : 1);
}

void dmc_free(void *p) { free(p); }

char *dmc_strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = dmc_malloc(n, 1);
    if (p) memcpy(p, s, n);
    return p;
}

dmc_status dmc_array(void *out_pointer, size_t n, size_t size)
{
    void *p = dmc_calloc(n, size);
    if (!p) return dmc_fail(DMC_ERR_MEMORY, "out of memory: %zu x %zu bytes", n, size);
    memcpy(out_pointer, &p, sizeof p);
    return DMC_OK;
}

/* ---- time, checksum ---- */

double dmc_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

uint64_t dmc_checksum(const void *data, size_t n, uint64_t seed)
{
    const uint8_t *p = data;
    uint64_t h = seed ^ 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}
