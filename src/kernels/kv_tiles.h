/* The matrix unit: eight tiles of up to 16 rows of 64 bytes. For *_amx.c. */
#ifndef DMC_KV_TILES_H
#define DMC_KV_TILES_H

#include "kernels/kv_vec.h"

enum { TILE = 512, LINE = 32 }; /* bf16 numbers of a tile, of one of its rows */

typedef struct {
    uint8_t palette, start, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_shapes;

static inline void shape_tile(tile_shapes *t, int tile, int rows, int row_bytes)
{
    t->palette = 1;
    t->rows[tile] = (uint8_t)rows;
    t->row_bytes[tile] = (uint16_t)row_bytes;
}

/* 32 numbers, rounded to nearest even. */
INLINE __m512i bf16_of(v16 low, v16 high) { return (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low); }

/* Two vectors as pairs: lane i holds low[i] and high[i]. */
INLINE __m512i bf16_pairs(v16 low, v16 high)
{
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, bf16_of(low, high));
}

#endif
