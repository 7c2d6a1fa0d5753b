/* The kernels that stand in files of their own, one per instruction set, and how they come into the tables. */
#ifndef DMC_TIERS_H
#define DMC_TIERS_H

#include "kernels/kernels.h"

#define DMC_TIER_DECLARE(set)                                     \
    dmc_pack_x dmc_pack_x_bf16_##set, dmc_pack_x_q8_##set;        \
    dmc_panels_linear dmc_linear_bf16_##set, dmc_linear_q8_##set; \
    dmc_pack_any dmc_pack_a_bf16_##set, dmc_pack_b_bf16_##set;    \
    dmc_pack_any dmc_pack_f32_##set;                              \
    dmc_panels_linear dmc_linear_f32_##set;                       \
    dmc_attend_slots dmc_attend_slots_##set;                      \
    dmc_attend_chunk dmc_attend_chunk_##set;
DMC_TIER_DECLARE(ref)
DMC_TIER_DECLARE(avx2)
DMC_TIER_DECLARE(avx512)
DMC_TIER_DECLARE(amx)
#undef DMC_TIER_DECLARE
dmc_unpack_bf16 dmc_unpack_bf16_amx;
/* Pays with a matrix unit alone. */
#define dmc_unpack_bf16_ref NULL
#define dmc_unpack_bf16_avx2 NULL
#define dmc_unpack_bf16_avx512 NULL

/* set: everything but what a matrix unit does; amx: that. The two are the same where there is no matrix unit. */
#define DMC_TIER_ENTRIES(set, amx)                                                                                \
    .pack_x_bf16 = dmc_pack_x_bf16_##set, .pack_x_q8 = dmc_pack_x_q8_##set, .linear_bf16 = dmc_linear_bf16_##amx, \
    .linear_q8 = dmc_linear_q8_##amx, .pack_a_bf16 = dmc_pack_a_bf16_##amx, .pack_b_bf16 = dmc_pack_b_bf16_##amx, \
    .pack_f32 = dmc_pack_f32_##set, .linear_f32 = dmc_linear_f32_##set, .attend_slots = dmc_attend_slots_##amx,   \
    .attend_chunk = dmc_attend_chunk_##amx, .unpack_bf16 = dmc_unpack_bf16_##amx

#endif
