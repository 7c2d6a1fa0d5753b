/* Row-parallel operations. */
#include "kernels/ops.h"

#include <string.h>

enum {
    ROWS = 64,
    COLS = 64,      /* a task's block of x rows and weight rows */
    WORTH = 2000000 /* multiplications that are worth waking other threads for: some 20 microseconds */
};

static _Thread_local float decoded[DMC_MAX_COLS]; /* weight rows of a type other than F32 */

static void linear_block(const dmc_kernels *kn, int64_t M, int64_t N, const float *x, const dmc_weight *w, int64_t n0,
                         float *y, int64_t ldy)
{
    int64_t K = w->cols;
    if (w->dtype == DMC_F32) {
        kn->gemm_nt(M, N, K, x, K, (const float *)w->data + n0 * K, K, y, ldy);
        return;
    }
    size_t row_bytes = 0;
    dmc_dtype_row_bytes(&row_bytes, w->dtype, (size_t)K);
    int64_t fit = DMC_MAX_COLS / K;
    for (int64_t n = 0; n < N; n += fit) {
        int64_t m = N - n < fit ? N - n : fit;
        for (int64_t r = 0; r < m; r++)
            dmc_decode_row(w->dtype, (const uint8_t *)w->data + (size_t)(n0 + n + r) * row_bytes, decoded + r * K,
                           (size_t)K);
        kn->gemm_nt(M, m, K, x, K, decoded, K, y + n, ldy);
    }
}

void dmc_linear(const dmc_kernels *kn, int64_t M, const float *x, const dmc_weight *w, const float *bias, float *y)
{
    int64_t N = w->rows, K = w->cols, tasks_m = (M + ROWS - 1) / ROWS, tasks_n = (N + COLS - 1) / COLS;
    /* weight blocks outermost: each is decoded once for its rows of x when M is small */
#pragma omp parallel for schedule(static) if (M * N * K > WORTH)
    for (int64_t task = 0; task < tasks_m * tasks_n; task++) {
        int64_t m = task / tasks_n * ROWS, n = task % tasks_n * COLS;
        int64_t mm = M - m < ROWS ? M - m : ROWS, nn = N - n < COLS ? N - n : COLS;
        float *out = y + m * N + n;
        linear_block(kn, mm, nn, x + m * K, w, n, out, N);
        if (bias)
            for (int64_t i = 0; i < mm; i++)
                for (int64_t j = 0; j < nn; j++) out[i * N + j] += bias[n + j];
    }
}

void dmc_rmsnorm_rows(const dmc_kernels *kn, int64_t M, int64_t n, const float *x, const float *gain, float eps,
                      float *y, float *rs)
{
#pragma omp parallel for schedule(static) if (M * n > WORTH / 16)
    for (int64_t m = 0; m < M; m++) {
        float r = kn->rmsnorm(n, x + m * n, gain, eps, y + m * n);
        if (rs) rs[m] = r;
    }
}

void dmc_swiglu_rows(const dmc_kernels *kn, int64_t n, const float *gate, const float *up, float *h)
{
    enum { STEP = 4096 };
#pragma omp parallel for schedule(static) if (n > WORTH / 16)
    for (int64_t i = 0; i < n; i += STEP) kn->swiglu(n - i < STEP ? n - i : STEP, gate + i, up + i, h + i);
}

void dmc_embed(int64_t M, const int32_t *ids, const dmc_weight *w, float *y)
{
    size_t row_bytes = 0;
    dmc_dtype_row_bytes(&row_bytes, w->dtype, (size_t)w->cols);
    for (int64_t m = 0; m < M; m++)
        dmc_decode_row(w->dtype, (const uint8_t *)w->data + (size_t)ids[m] * row_bytes, y + m * w->cols,
                       (size_t)w->cols);
}

void dmc_gemm_nn(const dmc_kernels *kn, int64_t I, int64_t J, int64_t P, const float *a, int64_t ai, int64_t ap,
                 const float *b, int64_t ldb, float *c, int64_t ldc, bool accumulate)
{
    int64_t ti = (I + ROWS - 1) / ROWS, tj = (J + COLS - 1) / COLS;
#pragma omp parallel for schedule(static) if (I * J * P > WORTH)
    for (int64_t task = 0; task < ti * tj; task++) {
        int64_t i = task / tj * ROWS, j = task % tj * COLS;
        kn->gemm_nn(I - i < ROWS ? I - i : ROWS, J - j < COLS ? J - j : COLS, P, a + i * ai, ai, ap, b + j, ldb,
                    c + i * ldc + j, ldc, accumulate);
    }
}
