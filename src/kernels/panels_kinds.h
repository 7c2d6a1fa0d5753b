/* The two kinds of packed weights, for panels.c: panels_bf16.c and panels_q8.c. Contracts: panels.h. */
#ifndef DMC_PANELS_KINDS_H
#define DMC_PANELS_KINDS_H

#include "kernels/panels.h"

size_t dmc_operand_bytes_bf16(int64_t M, int64_t K);
size_t dmc_panels_bytes_bf16(int64_t rows, int64_t cols);
void dmc_panels_pack_bf16(dmc_dtype from, int64_t rows, int64_t cols, const void *src, int64_t p0, int64_t p1,
                          void *panels);
void dmc_panels_row_bf16(int64_t rows, int64_t cols, const void *panels, int64_t row, float *out);

size_t dmc_operand_bytes_q8(int64_t M, int64_t K);
size_t dmc_panels_bytes_q8(dmc_dtype type, int64_t rows, int64_t cols);
void dmc_panels_pack_q8(dmc_dtype type, int64_t rows, int64_t cols, const void *src, int64_t p0, int64_t p1,
                        void *panels);
void dmc_panels_row_q8(dmc_dtype type, int64_t rows, int64_t cols, const void *panels, int64_t row, float *out);

#endif
