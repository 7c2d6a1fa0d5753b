/* Picks the kernels for the machine that runs, once, at open. */
#include "kernels/kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Which gcc 12 cannot be asked for by name. */
static bool have_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

/* The matrix unit has state of its own, 8 KiB a thread, for which Linux wants to be asked once per process. */
static bool have_amx(void)
{
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18, BF16 = 1 << 22, TILE = 1 << 24, INT8 = 1 << 25 };
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & (BF16 | TILE | INT8)) != (BF16 | TILE | INT8)) return false;
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}
#endif

const dmc_kernels *dmc_kernels_pick(int tier)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") &&
                have_f16c();
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vnni");
    bool amx = avx512 && __builtin_cpu_supports("avx512bf16") && (tier == 0 || tier == 4) && have_amx();
    if (tier == 0) tier = amx ? 4 : avx512 ? 3 : avx2 ? 2 : 1;
    if (tier == 4) return amx ? &dmc_kernels_amx : NULL;
    if (tier == 3) return avx512 ? &dmc_kernels_avx512 : NULL;
    if (tier == 2) return avx2 ? &dmc_kernels_avx2 : NULL;
#endif
    return tier == 0 || tier == 1 ? &dmc_kernels_ref : NULL;
}
