/* Operations over many rows, spread over OpenMP threads. Results do not depend on the number of threads or rows (kernels.h). */
#ifndef DMC_OPS_H
#define DMC_OPS_H

#include "base/dtype.h"
#include "kernels/kernels.h"

/* A matrix as it lies in a model file: rows x cols, row-major. cols <= DMC_MAX_COLS for types other than F32. */
typedef struct {
    dmc_dtype dtype;
    int64_t rows, cols;
    const void *data;
} dmc_weight;
#define DMC_MAX_COLS (1 << 16)

/* y[M, rows] = x[M, cols] w^T + bias (bias [rows] or NULL) */
void dmc_linear(const dmc_kernels *kn, int64_t M, const float *x, const dmc_weight *w, const float *bias, float *y);
/* y[M, n] = rmsnorm(x[M, n]) * gain[n]; rs [M] or NULL */
void dmc_rmsnorm_rows(const dmc_kernels *kn, int64_t M, int64_t n, const float *x, const float *gain, float eps,
                      float *y, float *rs);
/* h = silu(gate) * up, all of n values */
void dmc_swiglu_rows(const dmc_kernels *kn, int64_t n, const float *gate, const float *up, float *h);
/* y[M, cols] = rows ids[M] of w */
void dmc_embed(int64_t M, const int32_t *ids, const dmc_weight *w, float *y);

/* gemm_nn of the kernel table, its output tiles spread over threads (training). */
void dmc_gemm_nn(const dmc_kernels *kn, int64_t I, int64_t J, int64_t P, const float *a, int64_t ai, int64_t ap,
                 const float *b, int64_t ldb, float *c, int64_t ldc, bool accumulate);

#endif
