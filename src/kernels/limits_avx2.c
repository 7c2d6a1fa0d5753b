/* Arithmetic limits of AVX2. */
#include "kernels/limits_read.h"

#include <immintrin.h>

static double f32(int64_t rounds)
{
    enum { N = 12, LANES = 8 };
    __m256 sum[N], a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(1);
#pragma GCC unroll 12
    for (int i = 0; i < N; i++) {
        sum[i] = b;
        __asm__ volatile("" : "+x"(sum[i])); /* or equal sums would be calculated once */
    }
    for (int64_t r = 0; r < rounds; r++)
#pragma GCC unroll 12
        for (int i = 0; i < N; i++) sum[i] = _mm256_fmadd_ps(sum[i], a, b);
#pragma GCC unroll 12
    for (int i = 0; i < N; i++) __asm__ volatile("" ::"x"(sum[i]));
    return 2.0 * N * LANES * (double)rounds;
}

static double int8(int64_t rounds)
{
    enum { N = 8, BYTES = 32 };
    __m256i sum[N], a = _mm256_set1_epi8(3), ones = _mm256_set1_epi16(1);
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) {
        sum[i] = a;
        __asm__ volatile("" : "+x"(sum[i])); /* or equal sums would be calculated once */
    }
    for (int64_t r = 0; r < rounds; r++)
#pragma GCC unroll 8
        for (int i = 0; i < N; i++)
            sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(_mm256_maddubs_epi16(a, sum[i]), ones));
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) __asm__ volatile("" ::"x"(sum[i]));
    return 2.0 * N * BYTES * (double)rounds;
}

const dmc_limit_ops dmc_limit_ops_avx2 = {.read = read_memory, .f32 = f32, .int8 = int8};
