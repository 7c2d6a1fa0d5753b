/* Packed weights of either kind. */
#include "kernels/panels_kinds.h"

dmc_operand_kind dmc_operand_of(dmc_dtype panels)
{
    if (panels == DMC_F32 || panels == DMC_F16) return DMC_OPERAND_F32;
    return panels == DMC_BF16 ? DMC_OPERAND_BF16 : DMC_OPERAND_Q8;
}

size_t dmc_operand_bytes(dmc_operand_kind kind, int64_t M, int64_t K)
{
    switch (kind) {
    case DMC_OPERAND_BF16: return dmc_operand_bytes_bf16(M, K);
    case DMC_OPERAND_Q8: return dmc_operand_bytes_q8(M, K);
    default: return 0;
    }
}

size_t dmc_panels_bytes(dmc_dtype type, int64_t rows, int64_t cols)
{
    switch (dmc_operand_of(type)) {
    case DMC_OPERAND_BF16: return dmc_panels_bytes_bf16(rows, cols);
    case DMC_OPERAND_Q8: return dmc_panels_bytes_q8(type, rows, cols);
    default: return 0;
    }
}

void dmc_panels_pack(dmc_dtype from, dmc_dtype to, int64_t rows, int64_t cols, const void *src, int64_t p0, int64_t p1,
                     void *panels)
{
    if (to == DMC_BF16) dmc_panels_pack_bf16(from, rows, cols, src, p0, p1, panels);
    else dmc_panels_pack_q8(from, rows, cols, src, p0, p1, panels);
}

void dmc_panels_row(dmc_dtype type, int64_t rows, int64_t cols, const void *panels, int64_t row, float *out)
{
    if (type == DMC_BF16) dmc_panels_row_bf16(rows, cols, panels, row, out);
    else dmc_panels_row_q8(type, rows, cols, panels, row, out);
}
