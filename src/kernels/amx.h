/* The matrix unit: eight tiles of up to 16 rows of 64 bytes, and numbers in bf16 for it. For *_amx.c. */
#ifndef DMC_AMX_H
#define DMC_AMX_H

#include "kernels/vec16.h"

#include <immintrin.h>

typedef struct {
    uint8_t palette, start, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_shapes;

static inline void shape_tile(tile_shapes *t, int tile, int64_t rows, int64_t row_bytes)
{
    t->palette = 1;
    t->rows[tile] = (uint8_t)rows;
    t->row_bytes[tile] = (uint16_t)row_bytes;
}

/* gcc 12 believes that instructions on tiles read no memory, and the configuration eight bytes: what was written before must not stay
 * in registers, nor be thought to be for nobody. */
INLINE void tiles_may_read(const void *p) { __asm__ volatile("" ::"r"(p) : "memory"); }

INLINE void load_tile_shapes(const tile_shapes *t)
{
    tiles_may_read(t);
    _tile_loadconfig(t);
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
