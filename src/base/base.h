/* Base: errors, memory, files, random numbers, time. Everything else in src/ stands on this.
 *
 * Errors: `return dmc_fail(DMC_ERR_FORMAT, "%s: tensor '%s' ends at byte %llu of a file of %llu", ...)` stores the message
 * for dmc_last_error() and returns the status. Messages say what is wrong, where, and what to do.
 * Memory and file calls go through here so that tests can make the k-th of them fail (dmc_fault_*).
 */
#ifndef DMC_BASE_H
#define DMC_BASE_H

#include "dmc/dmc.h"

#include <stdatomic.h>
#include <stdio.h>

/* ---- errors ---- */
dmc_status dmc_fail(dmc_status s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#define DMC_TRY(expr)                                \
    do {                                             \
        dmc_status try_status = (expr);              \
        if (try_status != DMC_OK) return try_status; \
    } while (0)
/* The same with a cleanup label: `status` is the function's result variable, `done` its one label. */
#define DMC_GOTO(expr)                   \
    do {                                 \
        status = (expr);                 \
        if (status != DMC_OK) goto done; \
    } while (0)

/* ---- checked arithmetic: false on overflow ---- */
static inline bool dmc_mul(size_t *out, size_t a, size_t b) { return !__builtin_mul_overflow(a, b, out); }
static inline bool dmc_add(size_t *out, size_t a, size_t b) { return !__builtin_add_overflow(a, b, out); }

/* ---- memory: NULL on failure, 64-byte aligned, n * size checked. dmc_calloc zeroes. ---- */
void *dmc_malloc(size_t n, size_t size);
void *dmc_calloc(size_t n, size_t size);
void *dmc_malloc_large(
    size_t bytes); /* for megabytes that are read from end to end: in huge pages where the system has them */
void *dmc_realloc(void *p, size_t n, size_t size); /* p from plain C alignment or from here; contents kept */
void dmc_free(void *p);
char *dmc_strdup(const char *s);
/* Zeroed array through a status: DMC_TRY(dmc_array(&p, n, sizeof *p)); */
dmc_status dmc_array(void *out_pointer, size_t n, size_t size);

/* ---- fault injection (tests only): the k-th next allocation / file call fails, k = 1, 2, ...; 0 switches it off.
 * dmc_fault_*_count: calls since it was last set. ---- */
void dmc_fault_memory(long k);
void dmc_fault_io(long k);
long dmc_fault_memory_count(void);
long dmc_fault_io_count(void);

/* ---- files ---- */
typedef struct {
    const uint8_t *data; /* read-only mapping (or heap copy for empty files: data non-NULL, size 0) */
    size_t size;
} dmc_mapping;
dmc_status dmc_map_file(dmc_mapping *out, const char *path); /* regular files only */
void dmc_unmap(dmc_mapping *m);
/* The bytes [p, p + n) of a mapping leave memory; they come back from the file when they are read again. */
void dmc_mapping_forget(const dmc_mapping *m, const void *p, size_t n);
bool dmc_is_dir(const char *path);
bool dmc_exists(const char *path);
dmc_status dmc_make_dir(const char *path); /* ok if it exists */
/* "dir/name" in a fresh string (dmc_free), NULL without memory. */
char *dmc_path_join(const char *dir, const char *name);

/* Atomic writer: bytes go to "PATH.tmp.PID"; commit = flush, fsync, rename, fsync of the directory. The first error sticks and
 * is returned by commit, which then removes the temporary file. abort (NULL allowed) removes it. Either frees the writer. A link is followed; a
 * device or a pipe is written straight, and stays one. */
typedef struct dmc_writer dmc_writer;
dmc_status dmc_writer_open(dmc_writer **out, const char *path);
void dmc_write(dmc_writer *w, const void *data, size_t n);
void dmc_writef(dmc_writer *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
uint64_t dmc_writer_tell(const dmc_writer *w);
dmc_status dmc_writer_commit(dmc_writer *w);
void dmc_writer_abort(dmc_writer *w);

/* ---- random numbers: counter-based, so a number depends only on (seed, stream, counter), never on order or threads ---- */
uint64_t dmc_hash64(uint64_t seed, uint64_t stream, uint64_t counter);
/* uniform in (0, 1), never 0 or 1 */
double dmc_uniform(uint64_t seed, uint64_t stream, uint64_t counter);
double dmc_normal(uint64_t seed, uint64_t stream, uint64_t counter);

/* ---- time, checksum ---- */
double dmc_now(void);                                             /* monotonic seconds */
uint64_t dmc_checksum(const void *data, size_t n, uint64_t seed); /* FNV-1a 64 over bytes; integrity, not security */

/* ---- policy.c ---- */

/* Every setting that the policy uses in range; DMC_ERR_FORMAT naming `where`, DMC_ERR_UNSUPPORTED for what does not go together. */
dmc_status dmc_policy_check(const dmc_policy *p, int head_dim, const char *where);
bool dmc_policy_equal(const dmc_policy *a, const dmc_policy *b);

#endif
