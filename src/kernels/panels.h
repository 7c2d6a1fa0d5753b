/* Packed weights: what products y = x w^T with other types than F32 work on.
 *
 * A matrix [rows][cols] is cut into panels of 16 rows (the last one padded with zero rows), a panel into blocks of 32 columns (the last
 * one of a BF16 panel padded with zeros). One vector of 16 32-bit lanes holds 16 rows; a lane holds consecutive columns of its row, as
 * many as fit. So the same bytes feed VNNI, AMX (as its B tile) and plain vectors, and a panel is one stream of memory.
 *
 *   BF16 block, 1 KiB      [16 column pairs][16 rows][2] bf16
 *   int8 block, 512 bytes  [8 column quads][16 rows][4] int8, its 16 scales behind it
 *   4, 5, 6 bit blocks     the file's bytes in the same order: panels_q8.h
 *
 * x is brought into the form that the weights want, once for all products with it: the operand.
 *   BF16   x rounded to bf16 (to nearest even)
 *   int8   per 32 columns: scale = max|x| / 127, q = x * (1 / scale) to the nearest integer, ties to even (0 where 1 / scale is not a normal
 *          number), offset = -(scale * sum of q), each operation rounded once
 *
 * Numbers, the same for every tier and for every M, so that one token, a chunk and a batch agree bit for bit (unless dmc_linears goes another
 * way for many rows, ops.h):
 *   BF16   per block: two chains of 16 fused multiply-adds from 0 (even columns, odd columns, ascending), their sum is added to y: what
 *          one AMX instruction computes. Denormal numbers count as 0, before and after every operation.
 *   int8   per sub-block with one scale (32 columns; 16 of Q6_K), ascending: the exact integer sum; y = fma((float)sum, scale_w * scale_x, y),
 *          and for types with an offset (Q4_K, Q5_K) then y = fma(offset_w, offset_x, y).
 *          scale_w = d (Q8_0, Q4_0) or d * sc (K types), offset_w = dmin * m, each product rounded once.
 */
#ifndef DMC_PANELS_H
#define DMC_PANELS_H

#include "base/dtype.h"

#define DMC_PANEL_ROWS 16
#define DMC_PANEL_COLS 32

typedef enum { DMC_OPERAND_F32, DMC_OPERAND_BF16, DMC_OPERAND_Q8, DMC_OPERAND_COUNT } dmc_operand_kind;

/* What x becomes for panels of this type. F32 and F16: F32 (such matrices are not packed). */
dmc_operand_kind dmc_operand_of(dmc_dtype panels);
/* Bytes of the operand of M rows of K columns, a multiple of 64. F32: 0 (x itself). */
size_t dmc_operand_bytes(dmc_operand_kind kind, int64_t M, int64_t K);

/* Bytes of a packed matrix, 0 for types that are not packed. SIZE_MAX on overflow. */
size_t dmc_panels_bytes(dmc_dtype type, int64_t rows, int64_t cols);
/* Packs the panels [p0, p1) of a matrix of `from` rows as they lie in a file into 64-byte aligned memory of dmc_panels_bytes(to, ...).
 * to == from for all packed types; to == DMC_BF16 also from F32 and F16. Different ranges may run at the same time. */
void dmc_panels_pack(dmc_dtype from, dmc_dtype to, int64_t rows, int64_t cols, const void *src, int64_t p0, int64_t p1,
                     void *panels);
/* One row of a packed matrix, decoded: the same floats as dmc_decode_row gives for the row as it lay in the file (rounded, when
 * packing rounded). */
void dmc_panels_row(dmc_dtype type, int64_t rows, int64_t cols, const void *panels, int64_t row, float *out);

static inline int64_t dmc_panels_count(int64_t rows) { return (rows + DMC_PANEL_ROWS - 1) / DMC_PANEL_ROWS; }

/* ---- entries of the kernel table (kernels.h) ----
 * pack_x: rows [m0, m1) of x [M][K] (row stride ldx) into the operand of all M rows; m0 is a multiple of 16.
 * linear: y[m][n] (+)= row m of x times row n of w for all m < M and the rows n of the panels [p0, p1) that exist (n < rows).
 *   y points to y[0][0] of the whole product. add: the product is added to what y holds (one rounded addition). M is any number >= 1:
 *   M = 1 has to reach the bandwidth of memory, large M the peak of the arithmetic. */
typedef void dmc_pack_x(int64_t M, int64_t K, const float *x, int64_t ldx, int64_t m0, int64_t m1, void *operand);
typedef void dmc_panels_linear(dmc_dtype type, int64_t M, int64_t rows, int64_t K, const void *operand,
                               const void *panels, int64_t p0, int64_t p1, float *y, int64_t ldy, bool add);
/* pack_a, pack_b: rows [r0, r1) of the matrix whose element r, k is src[r * row + k * col] into the operand (a) or the panels (b) of all
 * rows; one of row and col is 1, r0 is a multiple of 16, r1 too or it is `rows`. */
typedef void dmc_pack_any(int64_t rows, int64_t K, const float *src, int64_t row, int64_t col, int64_t r0, int64_t r1,
                          void *out);

/* unpack_bf16: the panels [p0, p1) of a block type as BF16 panels, one behind the other: each weight decoded and rounded. May be NULL. */
typedef void dmc_unpack_bf16(dmc_dtype type, int64_t K, const void *panels, int64_t p0, int64_t p1, void *out);

#endif
