/* Reading memory, compiled once per instruction set: each limits_*.c includes this file. */
#ifndef DMC_LIMITS_READ_H
#define DMC_LIMITS_READ_H

#include "kernels/limits.h"

#pragma GCC diagnostic ignored "-Wpsabi" /* vectors never cross a call */

typedef uint64_t dmc_line __attribute__((vector_size(64)));

static inline __attribute__((always_inline)) uint64_t read_rows(const uint8_t *p, size_t row_bytes, size_t n_rows)
{
    dmc_line sum[2] = {{0}, {0}};
    for (size_t i = 0; i < row_bytes; i += 2 * sizeof(dmc_line)) {
        for (size_t r = 0; r < n_rows; r++) {
            const uint8_t *q = p + r * row_bytes + i;
            __builtin_prefetch(q + 1024);
            sum[0] += *(const dmc_line *)q;
            sum[1] += *(const dmc_line *)(q + sizeof(dmc_line));
        }
    }
    sum[0] += sum[1];
    return sum[0][0] + sum[0][1] + sum[0][2] + sum[0][3] + sum[0][4] + sum[0][5] + sum[0][6] + sum[0][7];
}

static uint64_t read_memory(const uint8_t *p, size_t row_bytes, bool streams)
{
    return streams ? read_rows(p, row_bytes, DMC_LIMIT_STREAMS) : read_rows(p, row_bytes * DMC_LIMIT_STREAMS, 1);
}

#endif
