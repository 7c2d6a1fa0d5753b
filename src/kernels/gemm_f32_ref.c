/* Products in float32 of packed factors: plain loops that define correct. */
#include "kernels/tiers.h"

void dmc_pack_f32_ref(int64_t rows, int64_t K, const float *src, int64_t row, int64_t col, int64_t r0, int64_t r1,
                      void *out)
{
    float *panels = out;
    for (int64_t r = r0; r < dmc_panels_count(r1) * DMC_PANEL_ROWS; r++) {
        float *to = panels + r / DMC_PANEL_ROWS * DMC_PANEL_ROWS * K + r % DMC_PANEL_ROWS;
        for (int64_t k = 0; k < K; k++) to[k * DMC_PANEL_ROWS] = r < rows ? src[r * row + k * col] : 0;
    }
}

void dmc_linear_f32_ref(dmc_dtype type, int64_t M, int64_t rows, int64_t K, const void *operand, const void *panels,
                        int64_t p0, int64_t p1, float *y, int64_t ldy, bool add)
{
    int64_t n1 = p1 * DMC_PANEL_ROWS < rows ? p1 * DMC_PANEL_ROWS : rows;
    (void)type;
    for (int64_t m = 0; m < M; m++) {
        const float *a = (const float *)operand + m / DMC_PANEL_ROWS * DMC_PANEL_ROWS * K + m % DMC_PANEL_ROWS;
        for (int64_t n = p0 * DMC_PANEL_ROWS; n < n1; n++) {
            const float *b = (const float *)panels + n / DMC_PANEL_ROWS * DMC_PANEL_ROWS * K + n % DMC_PANEL_ROWS;
            float sum = 0, *out = y + m * ldy + n;
            for (int64_t k = 0; k < K; k++) sum += a[k * DMC_PANEL_ROWS] * b[k * DMC_PANEL_ROWS];
            *out = add ? *out + sum : sum;
        }
    }
}
