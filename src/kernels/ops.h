/* Operations over many rows, spread over a team of threads. Results do not depend on the number of threads, nor on that of rows, but for
 * block types without same_bits (kernels.h). */
#ifndef DMC_OPS_H
#define DMC_OPS_H

#include "base/threads.h"
#include "kernels/kernels.h"

/* What computes. */
typedef struct {
    const dmc_kernels *kernels;
    dmc_threads *threads; /* NULL: the calling thread alone */
    bool same_bits; /* products with block types give the same bits for any number of rows, at the price of speed */
    void *room;     /* for dmc_gemm in bf16: DMC_GEMM_ROOM bytes, 64-byte aligned; NULL: it takes longer */
} dmc_cpu;
#define DMC_GEMM_ROOM (4 << 20)

/* A matrix rows x cols: as it lies in a model file, or packed (panels.h). */
typedef struct {
    dmc_dtype dtype; /* of data, or of the panels */
    int64_t rows, cols;
    const void *data;   /* row-major; cols <= DMC_MAX_COLS for types other than F32 */
    const void *panels; /* used instead of data where it is not NULL */
} dmc_weight;
#define DMC_MAX_COLS (1 << 16)

/* y[M, rows] = x[M, cols] w^T + bias (bias [rows] or NULL), or y += with add */
typedef struct {
    const dmc_weight *w;
    const float *bias;
    float *y;
    bool add;
} dmc_product;

/* n products of the same x[M, cols], e.g. q, k and v. operand: room for x as packed weights want it and for weights on their way through
 * another form, dmc_operand_room(cpu, M, cols) bytes, 64-byte aligned; may be NULL where no w is packed. Many rows times block types are
 * multiplied in bf16 where a matrix unit makes that faster, unless cpu->same_bits. */
void dmc_linears(const dmc_cpu *cpu, int64_t M, const float *x, int n, const dmc_product *products, void *operand);
size_t dmc_operand_room(const dmc_cpu *cpu, int64_t M, int64_t cols);
/* One product with a matrix that is not packed. */
void dmc_linear(const dmc_cpu *cpu, int64_t M, const float *x, const dmc_weight *w, const float *bias, float *y);

/* y[M, n] = rmsnorm(x[M, n]) * gain[n]; rs [M] or NULL */
void dmc_rmsnorm_rows(const dmc_cpu *cpu, int64_t M, int64_t n, const float *x, const float *gain, float eps, float *y,
                      float *rs);
/* h = silu(gate) * up, all of n values */
void dmc_swiglu_rows(const dmc_cpu *cpu, int64_t n, const float *gate, const float *up, float *h);
/* y[M, cols] = rows ids[M] of w */
void dmc_embed(int64_t M, const int32_t *ids, const dmc_weight *w, float *y);

/* gemm.c: c[i,j] (+)= sum_p a[i*ai + p*ap] b[p*bp + j*bj]; one of ai, ap and one of bp, bj is 1. Training's dX = dY W, dW = dY^T X and, in
 * bf16, Y = X W^T. The same bits for any number of threads. */
void dmc_gemm(const dmc_cpu *cpu, dmc_math math, int64_t I, int64_t J, int64_t P, const float *a, int64_t ai,
              int64_t ap, const float *b, int64_t bp, int64_t bj, float *c, int64_t ldc, bool accumulate);

#endif
