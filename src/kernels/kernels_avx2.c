/* The vector kernels for machines with AVX2. */
#include "kernels/kernels_simd.h"

const dmc_kernels dmc_kernels_avx2 = DMC_SIMD_TABLE("AVX2", avx2, avx2);
