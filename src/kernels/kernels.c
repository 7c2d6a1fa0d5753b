/* Picks the kernels for the machine that runs, once, at open. */
#include "kernels/kernels.h"

const dmc_kernels *dmc_kernels_pick(int tier)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (tier == 0) tier = avx512 ? 3 : avx2 ? 2 : 1;
    if (tier == 3) return avx512 ? &dmc_kernels_avx512 : NULL;
    if (tier == 2) return avx2 ? &dmc_kernels_avx2 : NULL;
#endif
    return tier == 0 || tier == 1 ? &dmc_kernels_ref : NULL;
}
