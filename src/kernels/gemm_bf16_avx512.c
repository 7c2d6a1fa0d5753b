/* Both factors of a product in bf16, of any orientation. */
#include "kernels/gemm_bf16_simd.h"
#include "kernels/tiers.h"

void dmc_pack_a_bf16_avx512(int64_t M, int64_t K, const float *x, int64_t row, int64_t col, int64_t m0, int64_t m1,
                            void *operand)
{
    pack_any(true, M, K, x, row, col, m0, m1, operand);
}

void dmc_pack_b_bf16_avx512(int64_t rows, int64_t K, const float *w, int64_t row, int64_t col, int64_t n0, int64_t n1,
                            void *panels)
{
    pack_any(false, rows, K, w, row, col, n0, n1, panels);
}
