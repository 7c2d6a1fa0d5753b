/* Tiles of bf16 numbers, for attention on the matrix unit. */
#ifndef DMC_KV_TILES_H
#define DMC_KV_TILES_H

#include "kernels/amx.h"
#include "kernels/kv_vec.h"

enum { TILE = 512, LINE = 32 }; /* bf16 numbers of a tile, of one of its rows */

#endif
