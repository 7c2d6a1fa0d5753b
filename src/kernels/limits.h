/* What a machine can do at best: how fast memory is read and how fast arithmetic runs that needs no memory. Floors of measured times. */
#ifndef DMC_LIMITS_H
#define DMC_LIMITS_H

#include "base/threads.h"
#include "kernels/kernels.h"

typedef struct {
    double read;         /* bytes a second from memory, each thread reads one stream */
    double read_streams; /* the same, each thread reads 8 rows at a time */
    double f32, int8,
        bf16; /* operations a second (a multiply-add counts as 2) that a thread's registers allow; 0: no such unit */
} dmc_limits;

/* Measures with all threads of the team (NULL: one) and the instructions of this table's tier; a second or less. Reads twice the last cache that
 * the system tells of, 250 MiB at least, 4 GiB at most: where there are several such caches, the limit may be set too high. */
dmc_status dmc_limits_measure(dmc_limits *out, const dmc_kernels *tier, dmc_threads *team);

/* ---- the tiers: limits_*.c ---- */

#define DMC_LIMIT_STREAMS 8

/* read: DMC_LIMIT_STREAMS rows that lie one behind the other, side by side (streams) or in order; row_bytes is a multiple of 128.
 * Others: `rounds` rounds of arithmetic in registers -> operations done. int8, bf16: NULL where the tier has no instruction that
 * beats f32. */
typedef struct {
    uint64_t (*read)(const uint8_t *p, size_t row_bytes, bool streams);
    double (*f32)(int64_t rounds);
    double (*int8)(int64_t rounds);
    double (*bf16)(int64_t rounds);
} dmc_limit_ops;

extern const dmc_limit_ops dmc_limit_ops_ref;
#if defined(__x86_64__)
double dmc_limit_f32_avx512(int64_t rounds); /* AMX machines have it, too */
extern const dmc_limit_ops dmc_limit_ops_avx2, dmc_limit_ops_avx512, dmc_limit_ops_amx;
#endif

#endif
