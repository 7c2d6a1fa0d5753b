/* Products with BF16 panels: 32 vector registers. */
#include "kernels/panels_bf16_simd.h"
#include "kernels/tiers.h"

void dmc_pack_x_bf16_avx512(int64_t M, int64_t K, const float *x, int64_t ldx, int64_t m0, int64_t m1, void *operand)
{
    dmc_pack_a_bf16_avx512(M, K, x, ldx, 1, m0, m1, operand);
}

void dmc_linear_bf16_avx512(dmc_dtype type, int64_t M, int64_t rows, int64_t K, const void *operand, const void *panels,
                            int64_t p0, int64_t p1, float *y, int64_t ldy, bool add)
{
    (void)type;
    linear_bf16(4, 4, 3, M, rows, K, operand, panels, p0, p1, y, ldy, add);
}
