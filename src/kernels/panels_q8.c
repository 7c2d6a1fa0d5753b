/* int8-like panels: packing and reading back. Layout: panels_q8.h. */
#include "kernels/panels_q8.h"

#include "base/dtype_k.h"
#include "kernels/panels_kinds.h"

q8_room *dmc_q8_room(void)
{
    static _Thread_local q8_room room;
    return &room;
}

size_t dmc_operand_bytes_q8(int64_t M, int64_t K)
{
    int64_t full = M / Q8_GROUP * Q8_GROUP, rows = full + (M > full ? q8_filled(M - full) : 0);
    int64_t blocks = (K + DMC_PANEL_COLS - 1) / DMC_PANEL_COLS;
    return (size_t)(rows * blocks) * (DMC_PANEL_COLS + 4 * sizeof(float));
}

size_t dmc_panels_bytes_q8(dmc_dtype type, int64_t rows, int64_t cols)
{
    size_t bytes;
    q8_type t = q8_type_of(type);
    size_t units = (size_t)cols / (size_t)t.cols + (cols % t.cols != 0);
    if (!dmc_mul(&bytes, units, (size_t)t.bytes) || !dmc_mul(&bytes, bytes, (size_t)dmc_panels_count(rows)))
        return SIZE_MAX;
    return bytes;
}

/* ---- where a row's words lie in a unit ---- */

typedef void mover(uint8_t *in_unit, uint8_t *in_file, size_t n);

static void to_unit(uint8_t *in_unit, uint8_t *in_file, size_t n) { memcpy(in_unit, in_file, n); }
static void to_file(uint8_t *in_unit, uint8_t *in_file, size_t n) { memcpy(in_file, in_unit, n); }

INLINE void move_words(mover *move, uint8_t *line, int row, uint8_t *file, int words)
{
    for (int i = 0; i < words; i++) move(line + Q8_LINE * i + 4 * row, file + 4 * i, 4);
}

/* The half d of a row. */
INLINE void move_half(mover *move, uint8_t *halfs, int row, uint8_t *file) { move(halfs + 2 * row, file, 2); }

/* One block of a file, block b of its unit (0 unless a unit has two), row of its panel. */
INLINE void move_block(mover *move, dmc_dtype type, uint8_t *unit, int b, int row, uint8_t *file)
{
    switch (type) {
    case DMC_Q8_0:
        move_half(move, unit + 16 * Q8_LINE + 32 * b, row, file);
        move_words(move, unit + 8 * Q8_LINE * b, row, file + 2, 8);
        break;
    case DMC_Q4_0:
        move_half(move, unit + 8 * Q8_LINE + 32 * b, row, file);
        move_words(move, unit + 4 * Q8_LINE * b, row, file + 2, 4);
        break;
    case DMC_Q4_K: move_words(move, unit, row, file, 36); break;
    case DMC_Q5_K: move_words(move, unit, row, file, 44); break;
    default: move_words(move, unit, row, file, 52); move_half(move, unit + 52 * Q8_LINE, row, file + 52 * 4);
    }
}

static void pack_block(dmc_dtype type, uint8_t *unit, int b, int row, const uint8_t *file)
{
    move_block(to_unit, type, unit, b, row, (uint8_t *)(uintptr_t)file);
}

void dmc_panels_pack_q8(dmc_dtype type, int64_t rows, int64_t cols, const void *src, int64_t p0, int64_t p1,
                        void *panels)
{
    q8_type t = q8_type_of(type);
    int block = dmc_dtype_block(type), per_unit = t.cols / block;
    int64_t units = (cols + t.cols - 1) / t.cols, blocks = cols / block;
    size_t block_bytes = 0;
    dmc_dtype_row_bytes(&block_bytes, type, (size_t)block);
    for (int64_t p = p0; p < p1; p++) {
        int64_t n = q8_least(DMC_PANEL_ROWS, rows - p * DMC_PANEL_ROWS);
        for (int64_t u = 0; u < units; u++) {
            uint8_t *unit = (uint8_t *)panels + (p * units + u) * t.bytes;
            int64_t b0 = u * per_unit, b1 = q8_least(b0 + per_unit, blocks);
            if (n < DMC_PANEL_ROWS || b1 < b0 + per_unit || type == DMC_Q6_K) memset(unit, 0, (size_t)t.bytes);
            for (int64_t b = b0; b < b1; b++)
                for (int r = 0; r < n; r++)
                    pack_block(type, unit, (int)(b - b0), r,
                               (const uint8_t *)src + (size_t)((p * DMC_PANEL_ROWS + r) * blocks + b) * block_bytes);
        }
    }
}

void dmc_q8_row_block(dmc_dtype type, int64_t cols, const void *panels, int64_t row, int64_t block, uint8_t *file)
{
    q8_type t = q8_type_of(type);
    int64_t per_unit = t.cols / dmc_dtype_block(type), p = row / DMC_PANEL_ROWS;
    uint8_t *unit = (uint8_t *)(uintptr_t)panels + p * q8_panel_bytes(t, cols) + block / per_unit * t.bytes;
    move_block(to_file, type, unit, (int)(block % per_unit), (int)(row % DMC_PANEL_ROWS), file);
}

void dmc_panels_row_q8(dmc_dtype type, int64_t rows, int64_t cols, const void *panels, int64_t row, float *out)
{
    uint8_t file[DMC_Q6_K_BYTES];
    int block = dmc_dtype_block(type);
    (void)rows;
    for (int64_t b = 0; b < cols / block; b++) {
        dmc_q8_row_block(type, cols, panels, row, b, file);
        dmc_decode_row(type, file, out + b * block, (size_t)block);
    }
}
