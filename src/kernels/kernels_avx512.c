/* The vector kernels for machines with AVX-512, without and with a matrix unit. */
#include "kernels/kernels_simd.h"

const dmc_kernels dmc_kernels_avx512 = DMC_SIMD_TABLE("AVX-512", avx512, avx512);
const dmc_kernels dmc_kernels_amx = DMC_SIMD_TABLE("AMX", avx512, amx);
