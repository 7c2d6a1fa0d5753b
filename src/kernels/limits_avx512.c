/* Arithmetic limits of AVX-512. Its bf16 products run at half the rate of float32 ones and are left out. */
#include "kernels/limits_read.h"

#include <immintrin.h>

double dmc_limit_f32_avx512(int64_t rounds)
{
    enum { N = 12, LANES = 16 };
    __m512 sum[N], a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(1);
#pragma GCC unroll 12
    for (int i = 0; i < N; i++) {
        sum[i] = b;
        __asm__ volatile("" : "+v"(sum[i])); /* or equal sums would be calculated once */
    }
    for (int64_t r = 0; r < rounds; r++)
#pragma GCC unroll 12
        for (int i = 0; i < N; i++) sum[i] = _mm512_fmadd_ps(sum[i], a, b);
#pragma GCC unroll 12
    for (int i = 0; i < N; i++) __asm__ volatile("" ::"v"(sum[i]));
    return 2.0 * N * LANES * (double)rounds;
}

static double int8(int64_t rounds)
{
    enum { N = 12, BYTES = 64 };
    __m512i sum[N], a = _mm512_set1_epi8(3);
#pragma GCC unroll 12
    for (int i = 0; i < N; i++) {
        sum[i] = a;
        __asm__ volatile("" : "+v"(sum[i])); /* or equal sums would be calculated once */
    }
    for (int64_t r = 0; r < rounds; r++)
#pragma GCC unroll 12
        for (int i = 0; i < N; i++) sum[i] = _mm512_dpbusd_epi32(sum[i], a, a);
#pragma GCC unroll 12
    for (int i = 0; i < N; i++) __asm__ volatile("" ::"v"(sum[i]));
    return 2.0 * N * BYTES * (double)rounds;
}

const dmc_limit_ops dmc_limit_ops_avx512 = {.read = read_memory, .f32 = dmc_limit_f32_avx512, .int8 = int8};
