/* K types: ggml's super-blocks of 256 elements, for dtype.c. A sub-block of 32 (Q6_K: 16) elements has a scale, and Q4_K and Q5_K a minimum,
 * which are themselves whole multiples of the super-block's halves.
 *
 *   Q4_K  half d, dmin; 6-bit sc[8], m[8] in 12 bytes; nibbles q[128]            x = d sc q - dmin m
 *   Q5_K  half d, dmin; 6-bit sc[8], m[8] in 12 bytes; fifth bits h[32]; q[128]  the same
 *   Q6_K  nibbles q[128]; upper two bits h[64]; int8 sc[16]; half d              x = d sc (q - 32)
 *
 * Nibbles of 64 consecutive elements (Q6_K: of 128) share 32 (64) bytes: the low ones are the first half. */
#ifndef DMC_DTYPE_K_H
#define DMC_DTYPE_K_H

#include "base/dtype.h"

enum { DMC_K_BLOCK = 256, DMC_Q4_K_BYTES = 144, DMC_Q5_K_BYTES = 176, DMC_Q6_K_BYTES = 210 };

void dmc_decode_k(dmc_dtype t, const uint8_t *block, float *x);
void dmc_encode_k(dmc_dtype t, const float *x, uint8_t *block);

/* The numbers that a super-block consists of. Q6_K: sc[16], q - 32; others: sc[8], m[8], q. */
typedef struct {
    uint16_t d, dmin; /* halfs */
    int8_t sc[16], m[8];
    int8_t q[DMC_K_BLOCK];
} dmc_k_codes;

void dmc_k_unpack(dmc_dtype t, const uint8_t *block, dmc_k_codes *c);

#endif
