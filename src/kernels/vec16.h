/* Vectors of 16 floats in GCC's vector extensions, for every kernel that is written once and compiled per instruction set. */
#ifndef DMC_VEC16_H
#define DMC_VEC16_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#pragma GCC diagnostic ignored "-Wpsabi" /* vectors never cross a call: everything below is inlined */
#pragma GCC diagnostic ignored "-Wunused-function"

typedef float v16 __attribute__((vector_size(64)));
typedef float v8 __attribute__((vector_size(32)));
typedef float v4 __attribute__((vector_size(16)));
typedef int32_t i16 __attribute__((vector_size(64)));

#define INLINE static inline __attribute__((always_inline))

INLINE v16 load(const float *p)
{
    v16 v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void store(float *p, v16 v) { memcpy(p, &v, sizeof v); }

/* The first n < 16 floats, zeros behind them. */
INLINE v16 load_part(const float *p, int64_t n)
{
    v16 v = {0};
    memcpy(&v, p, (size_t)n * sizeof(float));
    return v;
}

INLINE void store_part(float *p, v16 v, int64_t n) { memcpy(p, &v, (size_t)n * sizeof(float)); }

INLINE v16 splat(float x) { return x - (v16){0}; }

INLINE v16 select16(i16 mask, v16 yes, v16 no) { return (v16)((mask & (i16)yes) | (~mask & (i16)no)); }

INLINE v16 max16(v16 a, v16 b) { return select16(a > b, a, b); }

INLINE v4 fold(v16 a) /* 16 lanes to 4 partial sums */
{
    v8 b = __builtin_shufflevector(a, a, 0, 1, 2, 3, 4, 5, 6, 7) +
           __builtin_shufflevector(a, a, 8, 9, 10, 11, 12, 13, 14, 15);
    return __builtin_shufflevector(b, b, 0, 1, 2, 3) + __builtin_shufflevector(b, b, 4, 5, 6, 7);
}

/* Sums of the lanes of four vectors. Every sum in this file is folded this way, so equal inputs give equal bits. */
INLINE v4 sum4(v16 a, v16 b, v16 c, v16 d)
{
    v4 x = fold(a), y = fold(b), z = fold(c), w = fold(d);
    v4 p = __builtin_shufflevector(x, y, 0, 4, 1, 5), q = __builtin_shufflevector(x, y, 2, 6, 3, 7);
    v4 r = __builtin_shufflevector(z, w, 0, 4, 1, 5), s = __builtin_shufflevector(z, w, 2, 6, 3, 7);
    v4 t0 = __builtin_shufflevector(p, r, 0, 1, 4, 5), t1 = __builtin_shufflevector(p, r, 2, 3, 6, 7);
    v4 t2 = __builtin_shufflevector(q, s, 0, 1, 4, 5), t3 = __builtin_shufflevector(q, s, 2, 3, 6, 7);
    return (t0 + t1) + (t2 + t3);
}

INLINE float sum1(v16 a) { return sum4(a, a, a, a)[0]; }

/* exp(x) for x <= 88, relative error below 2e-7 (Cephes' polynomial); exactly 0 below -87. */
INLINE v16 exp16(v16 x)
{
    i16 tiny = x < splat(-87.0f);
    x = select16(tiny, (v16){0}, x);
    v16 shift = splat(12582912.0f); /* 1.5 * 2^23: rounds to the nearest integer */
    v16 n = (x * 1.44269504f + shift) - shift;
    v16 r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    v16 p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    i16 bits = (__builtin_convertvector(n, i16) + 127) << 23;
    return select16(tiny, (v16){0}, p * (v16)bits);
}

#endif
