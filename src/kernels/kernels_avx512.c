/* The vector kernels for machines with AVX-512. */
#include "kernels/kernels_simd.h"

const dmc_kernels dmc_kernels_avx512 = DMC_SIMD_TABLE("AVX-512");
