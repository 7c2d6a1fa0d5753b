/* Products in float32 of packed factors: 24 of the 32 registers are sums. */
#include "kernels/gemm_f32_simd.h"
#include "kernels/tiers.h"

void dmc_pack_f32_avx512(int64_t rows, int64_t K, const float *src, int64_t row, int64_t col, int64_t r0, int64_t r1,
                         void *out)
{
    pack_f32(rows, K, src, row, col, r0, r1, out);
}

void dmc_linear_f32_avx512(dmc_dtype type, int64_t M, int64_t rows, int64_t K, const void *operand, const void *panels,
                           int64_t p0, int64_t p1, float *y, int64_t ldy, bool add)
{
    (void)type;
    linear_f32(8, 3, M, rows, K, operand, panels, p0, p1, y, ldy, add);
}
