/* Arithmetic limits of the matrix unit: two tiles times two tiles into four, which need no memory. */
#include "kernels/amx.h"
#include "kernels/limits_read.h"

enum { TILES = 8, ROWS = 16, ROW_BYTES = 64 };

static void begin(void)
{
    tile_shapes c = {0};
    for (int i = 0; i < TILES; i++) shape_tile(&c, i, ROWS, ROW_BYTES);
    load_tile_shapes(&c);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
}

static double int8(int64_t rounds)
{
    begin();
    for (int64_t r = 0; r < rounds; r++) {
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 7);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
    }
    _tile_release();
    return 2.0 * 4 * ROWS * 16 * ROW_BYTES * (double)rounds;
}

static double bf16(int64_t rounds)
{
    begin();
    for (int64_t r = 0; r < rounds; r++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
    return 2.0 * 4 * ROWS * 16 * (ROW_BYTES / 2) * (double)rounds;
}

const dmc_limit_ops dmc_limit_ops_amx = {.read = read_memory, .f32 = dmc_limit_f32_avx512, .int8 = int8, .bf16 = bf16};
