/* Attention over typed pages for machines with AVX-512. */
#include "kernels/kv_rows.h"
#include "kernels/kv_slots.h"
#include "kernels/tiers.h"

void dmc_attend_slots_avx512(const dmc_attend_slots_args *a) { attend_slots(a); }

void dmc_attend_chunk_avx512(const dmc_attend_chunk_args *a) { attend_rows(a); }
