/* Arithmetic limits without special instructions. */
#include "kernels/limits_read.h"

static double f32(int64_t rounds)
{
    enum { N = 8, LANES = 4 };
    typedef float v4 __attribute__((vector_size(16)));
    v4 sum[N], a = {0.5f, 0.5f, 0.5f, 0.5f}, b = {1, 1, 1, 1};
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) {
        sum[i] = b;
        __asm__ volatile("" : "+x"(sum[i])); /* or equal sums would be calculated once */
    }
    for (int64_t r = 0; r < rounds; r++)
#pragma GCC unroll 8
        for (int i = 0; i < N; i++) sum[i] = sum[i] * a + b;
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) __asm__ volatile("" ::"x"(sum[i]));
    return 2.0 * N * LANES * (double)rounds;
}

const dmc_limit_ops dmc_limit_ops_ref = {.read = read_memory, .f32 = f32};
