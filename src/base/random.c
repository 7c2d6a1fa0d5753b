/* Counter-based random numbers: a hash of (seed, stream, counter). No state, so order and threads do not matter. */
#include "base/base.h"

#include <math.h>

static uint64_t mix(uint64_t x) /* the finaliser of SplitMix64 (Steele, Lea, Flood 2014) */
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

uint64_t dmc_hash64(uint64_t seed, uint64_t stream, uint64_t counter)
{
    uint64_t h = mix(seed + 0x9e3779b97f4a7c15u);
    h = mix(h ^ (stream + 0xd1b54a32d192ed03u));
    return mix(h + 0x9e3779b97f4a7c15u * (counter + 1));
}

double dmc_uniform(uint64_t seed, uint64_t stream, uint64_t counter)
{
    return ((double)(dmc_hash64(seed, stream, counter) >> 12) + 0.5) * 0x1p-52;
}

double dmc_normal(uint64_t seed, uint64_t stream, uint64_t counter)
{
    double u = dmc_uniform(seed, stream, 2 * counter), v = dmc_uniform(seed, stream, 2 * counter + 1);
    return sqrt(-2 * log(u)) * cos(2 * 3.14159265358979323846 * v);
}
