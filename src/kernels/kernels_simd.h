/* The vector kernels, written once on 16-lane vectors (GCC vector extensions) and compiled once per instruction set: each
 * kernels_<set>.c includes this file and exports its table. Contracts: kernels.h. */
#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

#pragma GCC diagnostic ignored "-Wpsabi" /* vectors never cross a call: everything below is inlined */

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

/* ---- dense products ---- */

/* A tile of mr x 4 outputs; columns beyond N repeat the last one and are not stored. */
INLINE void nt_tile(const int mr, int64_t N, int64_t K, const float *x, int64_t ldx, const float *w, int64_t ldw,
                    float *y, int64_t ldy)
{
    const float *wr[4];
    for (int j = 0; j < 4; j++) wr[j] = w + (j < N ? j : N - 1) * ldw;
    v16 acc[4][4] = {{{0}}};
    int64_t k = 0;
    for (; k + 16 <= K; k += 16) {
        v16 b0 = load(wr[0] + k), b1 = load(wr[1] + k), b2 = load(wr[2] + k), b3 = load(wr[3] + k);
#pragma GCC unroll 4
        for (int i = 0; i < mr; i++) {
            v16 a = load(x + i * ldx + k);
            acc[i][0] += a * b0;
            acc[i][1] += a * b1;
            acc[i][2] += a * b2;
            acc[i][3] += a * b3;
        }
    }
    if (k < K) {
        v16 b0 = load_part(wr[0] + k, K - k), b1 = load_part(wr[1] + k, K - k);
        v16 b2 = load_part(wr[2] + k, K - k), b3 = load_part(wr[3] + k, K - k);
#pragma GCC unroll 4
        for (int i = 0; i < mr; i++) {
            v16 a = load_part(x + i * ldx + k, K - k);
            acc[i][0] += a * b0;
            acc[i][1] += a * b1;
            acc[i][2] += a * b2;
            acc[i][3] += a * b3;
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < mr; i++) {
        v4 s = sum4(acc[i][0], acc[i][1], acc[i][2], acc[i][3]);
        memcpy(y + i * ldy, &s, (size_t)(N < 4 ? N : 4) * sizeof(float));
    }
}

static void gemm_nt(int64_t M, int64_t N, int64_t K, const float *x, int64_t ldx, const float *w, int64_t ldw, float *y,
                    int64_t ldy)
{
    for (int64_t n = 0; n < N; n += 4) {
        int64_t m = 0;
        for (; m + 4 <= M; m += 4) nt_tile(4, N - n, K, x + m * ldx, ldx, w + n * ldw, ldw, y + m * ldy + n, ldy);
        const float *xm = x + m * ldx;
        float *ym = y + m * ldy + n;
        if (M - m == 3) nt_tile(3, N - n, K, xm, ldx, w + n * ldw, ldw, ym, ldy);
        if (M - m == 2) nt_tile(2, N - n, K, xm, ldx, w + n * ldw, ldw, ym, ldy);
        if (M - m == 1) nt_tile(1, N - n, K, xm, ldx, w + n * ldw, ldw, ym, ldy);
    }
}

/* A tile of 8 x 32 outputs (the last `part` columns when part < 32) over P terms. Rows beyond I repeat the last one and are not stored. */
INLINE void nn_tile(int64_t I, const bool whole, int64_t part, int64_t P, const float *a, int64_t ai, int64_t ap,
                    const float *b, int64_t ldb, float *c, int64_t ldc, bool accumulate)
{
    v16 acc[8][2] = {{{0}}};
    const float *ar[8];
    for (int i = 0; i < 8; i++) ar[i] = a + (i < I ? i : I - 1) * ai;
    int64_t n0 = part < 16 ? part : 16, n1 = part - n0;
    for (int64_t p = 0; p < P; p++) {
        const float *br = b + p * ldb;
        v16 b0 = whole ? load(br) : load_part(br, n0), b1 = whole ? load(br + 16) : load_part(br + n0, n1);
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            float x = ar[i][p * ap];
            acc[i][0] += x * b0;
            acc[i][1] += x * b1;
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        float *cr = c + i * ldc;
        if (i >= I) continue;
        if (whole) {
            if (accumulate) acc[i][0] += load(cr), acc[i][1] += load(cr + 16);
            store(cr, acc[i][0]);
            store(cr + 16, acc[i][1]);
        } else {
            if (accumulate) acc[i][0] += load_part(cr, n0), acc[i][1] += load_part(cr + n0, n1);
            store_part(cr, acc[i][0], n0);
            store_part(cr + n0, acc[i][1], n1);
        }
    }
}

static void gemm_nn(int64_t I, int64_t J, int64_t P, const float *a, int64_t ai, int64_t ap, const float *b,
                    int64_t ldb, float *c, int64_t ldc, bool accumulate)
{
    enum { DEPTH = 512 }; /* terms per pass: a panel of b stays in the first-level caches */
    for (int64_t p = 0; p < P || p == 0; p += DEPTH, accumulate = true) {
        int64_t n = P - p < DEPTH ? P - p : DEPTH;
        for (int64_t j = 0; j < J; j += 32) {
            for (int64_t i = 0; i < I; i += 8) {
                const float *at = a + i * ai + p * ap, *bt = b + p * ldb + j;
                float *ct = c + i * ldc + j;
                if (J - j >= 32) nn_tile(I - i, true, 32, n, at, ai, ap, bt, ldb, ct, ldc, accumulate);
                else nn_tile(I - i, false, J - j, n, at, ai, ap, bt, ldb, ct, ldc, accumulate);
            }
        }
    }
}

/* ---- attention: 16 queries in the 16 lanes, keys one after the other, so each lane has one chain of sums ---- */

typedef struct {
    int D, pad; /* head_dim; rounded up to 16 */
    v16 *qt;    /* [D] queries across lanes, scaled */
    i16 rel;    /* token index of each lane's query, from the least */
    int64_t least, most;
    float *p; /* [rows][16] scores, then weights */
} lanes;

INLINE lanes lanes_of(const dmc_attend_args *a)
{
    lanes L = {.D = a->head_dim, .pad = (a->head_dim + 15) / 16 * 16, .least = a->i[0], .most = a->i[0]};
    L.qt = (v16 *)a->scratch;
    L.p = a->scratch + 4 * 16 * (size_t)L.pad;
    float scale = 1.0f / sqrtf((float)L.D);
    for (int l = 1; l < a->n_lanes; l++) {
        if (a->i[l] < L.least) L.least = a->i[l];
        if (a->i[l] > L.most) L.most = a->i[l];
    }
    for (int l = 0; l < 16; l++) { /* idle lanes repeat the first query */
        int from = l < a->n_lanes ? l : 0;
        L.rel[l] = (int32_t)(a->i[from] - L.least);
        for (int d = 0; d < L.D; d++) ((float *)&L.qt[d])[l] = a->q[from][d] * scale;
    }
    return L;
}

/* Rows [lo, hi) of a segment that some lane sees. */
INLINE void visible_rows(const lanes *L, const dmc_segment *g, int64_t delay, int64_t *lo, int64_t *hi)
{
    *lo = 0;
    *hi = g->n;
    if (g->kind == DMC_SEG_SETTLED && L->most - delay + 1 - g->t0 < *hi) *hi = L->most - delay + 1 - g->t0;
    if (g->kind == DMC_SEG_RAW && L->least - delay + 1 - g->t0 > *lo) *lo = L->least - delay + 1 - g->t0;
    if (g->kind == DMC_SEG_RAW && L->most + 1 - g->t0 < *hi) *hi = L->most + 1 - g->t0;
    if (*hi < *lo) *hi = *lo;
}

/* Clamps an index difference to the range of the lanes' offsets; order is what matters. */
INLINE int32_t near(int64_t x) { return x < -1 ? -1 : x > (1 << 30) ? (1 << 30) : (int32_t)x; }

/* Adds what visibility asks for to a row of scores. */
INLINE v16 biased(const lanes *L, const dmc_segment *g, int64_t r, int64_t delay, v16 s)
{
    const v16 hidden = splat(-INFINITY);
    if (g->kind == DMC_SEG_ALWAYS) return s;
    int64_t t = g->t0 + r - L->least;
    i16 edge = L->rel - near(t + delay); /* i - delay - t, lane by lane */
    if (g->kind == DMC_SEG_RAW) return select16((edge < 0) & (L->rel >= near(t)), s, hidden);
    if (g->mask) s = select16(edge > 0, s + g->mask[r], s);
    return select16(edge >= 0, s, hidden);
}

/* Scores of rows [lo, hi) against all lanes; n of them at a time so that their chains overlap. */
INLINE void score_rows(const lanes *L, const v16 *xt, const int n, const float *k, int64_t ld, v16 *s)
{
    v16 acc[8] = {{0}};
    for (int d = 0; d < L->D; d++) {
        v16 x = xt[d];
#pragma GCC unroll 8
        for (int j = 0; j < n; j++) acc[j] += x * k[j * ld + d];
    }
#pragma GCC unroll 8
    for (int j = 0; j < n; j++) s[j] = acc[j];
}

/* out^T[d] = sum over rows of w[row] * x[row][d], 8 values of d at a time; all segments, rows that `p` holds, in order. */
INLINE void weigh(const dmc_attend_args *a, const lanes *L, const float *p, bool values, v16 *out)
{
    for (int d0 = 0; d0 < L->D; d0 += 8) {
        v16 acc[8] = {{0}};
        const float *pr = p;
        int nd = L->D - d0 < 8 ? L->D - d0 : 8;
        for (int is = 0; is < a->n_segments; is++) {
            const dmc_segment *g = &a->segments[is];
            int64_t lo, hi, ld = values ? g->ld_v : g->ld_k;
            visible_rows(L, g, a->delay, &lo, &hi);
            const float *x = (values ? g->v : g->k) + lo * ld + d0;
            if (nd == 8) {
                for (int64_t r = lo; r < hi; r++, pr += 16, x += ld) {
                    v16 w = load(pr);
#pragma GCC unroll 8
                    for (int j = 0; j < 8; j++) acc[j] += w * x[j];
                }
            } else {
                for (int64_t r = lo; r < hi; r++, pr += 16, x += ld)
                    for (int j = 0; j < nd; j++) acc[j] += load(pr) * x[j];
            }
        }
        for (int j = 0; j < nd; j++) out[d0 + j] = acc[j];
    }
}

static void attend(const dmc_attend_args *a)
{
    lanes L = lanes_of(a);
    v16 top = splat(-INFINITY);
    v16 *s = (v16 *)L.p, *end = s;
    for (int is = 0; is < a->n_segments; is++) {
        const dmc_segment *g = &a->segments[is];
        int64_t lo, hi, r;
        visible_rows(&L, g, a->delay, &lo, &hi);
        for (r = lo; r + 8 <= hi; r += 8, end += 8) {
            score_rows(&L, L.qt, 8, g->k + r * g->ld_k, g->ld_k, end);
            for (int j = 0; j < 8; j++) {
                end[j] = biased(&L, g, r + j, a->delay, end[j]);
                top = max16(end[j], top);
            }
        }
        for (; r < hi; r++, end++) {
            score_rows(&L, L.qt, 1, g->k + r * g->ld_k, g->ld_k, end);
            *end = biased(&L, g, r, a->delay, *end);
            top = max16(*end, top);
        }
    }
    i16 blind = top == splat(-INFINITY);
    v16 base = select16(blind, (v16){0}, top), sum = {0};
    for (v16 *e = s; e < end; e++) {
        *e = exp16(*e - base);
        sum += *e;
    }
    v16 *out = L.qt + L.pad;
    weigh(a, &L, L.p, true, out);
    for (int l = 0; l < a->n_lanes; l++) {
        float z = sum[l];
        for (int d = 0; d < L.D; d++) a->out[l][d] = blind[l] ? 0 : ((float *)&out[d])[l] / z;
        if (a->lse[l]) *a->lse[l] = blind[l] ? -INFINITY : top[l] + logf(z);
    }
}

/* x[row][0..D) += sum over lanes of w[row][lane] * y[lane][0..D), y padded with zeros to `pad` per lane. */
INLINE void scatter_row(int D, int pad, const float *w, const float *y, float *x)
{
    for (int d = 0; d < D; d += 16) {
        v16 a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0};
#pragma GCC unroll 4
        for (int l = 0; l < 16; l += 4) {
            a0 += w[l] * load(y + l * pad + d);
            a1 += w[l + 1] * load(y + (l + 1) * pad + d);
            a2 += w[l + 2] * load(y + (l + 2) * pad + d);
            a3 += w[l + 3] * load(y + (l + 3) * pad + d);
        }
        a0 = (a0 + a1) + (a2 + a3);
        if (D - d >= 16) store(x + d, load(x + d) + a0);
        else store_part(x + d, load_part(x + d, D - d) + a0, D - d);
    }
}

static void attend_grad(const dmc_attend_grad_args *b)
{
    const dmc_attend_args *a = b->forward;
    lanes L = lanes_of(a);
    v16 *dot = L.qt + L.pad;                                    /* [pad] d_out across lanes */
    float *qr = (float *)(dot + L.pad), *dor = qr + 16 * L.pad; /* [16][pad] scaled queries and d_out, row-wise */
    float scale = 1.0f / sqrtf((float)L.D);
    v16 lse = {0}, delta = {0};
    i16 idle = {0};
    memset(dot, 0, 3 * 16 * (size_t)L.pad * sizeof(float));
    for (int l = 0; l < 16; l++) {
        idle[l] = -1;
        if (l >= a->n_lanes || *a->lse[l] == -INFINITY) continue;
        idle[l] = 0;
        lse[l] = *a->lse[l];
        float s = 0;
        for (int d = 0; d < L.D; d++) {
            s += b->d_out[l][d] * a->out[l][d];
            ((float *)&dot[d])[l] = dor[l * L.pad + d] = b->d_out[l][d];
            qr[l * L.pad + d] = a->q[l][d] * scale;
        }
        delta[l] = s;
    }
    int64_t rows = 0, lo, hi;
    for (int is = 0; is < a->n_segments; is++) {
        visible_rows(&L, &a->segments[is], a->delay, &lo, &hi);
        rows += hi - lo;
    }
    v16 *p = (v16 *)L.p, *ds = p + rows;
    for (int is = 0; is < a->n_segments; is++) {
        const dmc_segment *g = &a->segments[is];
        visible_rows(&L, g, a->delay, &lo, &hi);
        for (int64_t r = lo, n; r < hi; r += n, p += n, ds += n) {
            const float *k = g->k + r * g->ld_k, *v = g->v + r * g->ld_v;
            n = hi - r >= 8 ? 8 : 1;
            if (n == 8) {
                score_rows(&L, L.qt, 8, k, g->ld_k, p);
                score_rows(&L, dot, 8, v, g->ld_v, ds);
            } else {
                score_rows(&L, L.qt, 1, k, g->ld_k, p);
                score_rows(&L, dot, 1, v, g->ld_v, ds);
            }
            for (int64_t j = 0; j < n; j++) {
                v16 w = exp16(biased(&L, g, r + j, a->delay, p[j]) - lse);
                p[j] = select16(idle | (w < splat(1e-20f)), (v16){0},
                                w); /* products of less would be denormal, and slow */
                ds[j] = p[j] * (ds[j] - delta);
                scatter_row(L.D, L.pad, (const float *)&p[j], dor, b->d_v[is] + (r + j) * g->ld_v);
                scatter_row(L.D, L.pad, (const float *)&ds[j], qr, b->d_k[is] + (r + j) * g->ld_k);
                if (g->kind == DMC_SEG_SETTLED && g->mask && b->d_mask[is]) {
                    i16 before = L.rel - near(g->t0 + r + j - L.least + a->delay) > 0;
                    b->d_mask[is][r + j] += sum1(select16(before, ds[j], (v16){0}));
                }
            }
        }
    }
    weigh(a, &L, (const float *)((v16 *)L.p + rows), false, dot);
    for (int l = 0; l < a->n_lanes; l++)
        for (int d = 0; d < L.D; d++) b->d_q[l][d] = ((float *)&dot[d])[l] * scale;
}

/* ---- rows ---- */

static float softmax(int64_t n, const float *x, float *y)
{
    v16 top16 = splat(-INFINITY), sum16 = {0};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) top16 = max16(load(x + i), top16);
    float top = -INFINITY, sum;
    for (int l = 0; l < 16; l++) top = top16[l] > top ? top16[l] : top;
    for (; i < n; i++) top = x[i] > top ? x[i] : top;
    for (i = 0; i + 16 <= n; i += 16) {
        v16 e = exp16(load(x + i) - top);
        sum16 += e;
        store(y + i, e);
    }
    if (i < n) {
        v16 e = splat(-INFINITY);
        memcpy(&e, x + i, (size_t)(n - i) * sizeof(float));
        e = exp16(e - top);
        sum16 += e;
        store_part(y + i, e, n - i);
    }
    sum = sum1(sum16);
    float inv = 1.0f / sum;
    for (i = 0; i < n; i++) y[i] *= inv;
    return top + logf(sum);
}

INLINE v16 sigmoid16(v16 x) { return 1.0f / (1.0f + exp16(select16(x < splat(-80.0f), splat(80.0f), -x))); }

static void swiglu(int64_t n, const float *gate, const float *up, float *h)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        v16 g = load(gate + i);
        store(h + i, g * sigmoid16(g) * load(up + i));
    }
    if (i < n) {
        v16 g = load_part(gate + i, n - i);
        store_part(h + i, g * sigmoid16(g) * load_part(up + i, n - i), n - i);
    }
}

static void swiglu_grad(int64_t n, const float *gate, const float *up, const float *d_h, float *d_gate, float *d_up)
{
    for (int64_t i = 0; i < n; i += 16) {
        int64_t part = n - i < 16 ? n - i : 16;
        v16 g = load_part(gate + i, part), u = load_part(up + i, part), dh = load_part(d_h + i, part), s = sigmoid16(g);
        store_part(d_gate + i, dh * u * s * (1.0f + g * (1.0f - s)), part);
        store_part(d_up + i, dh * g * s, part);
    }
}

static float rmsnorm(int64_t n, const float *x, const float *gain, float eps, float *y)
{
    v16 sum = {0};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) sum += load(x + i) * load(x + i);
    if (i < n) sum += load_part(x + i, n - i) * load_part(x + i, n - i);
    float rs = 1.0f / sqrtf(sum1(sum) / (float)n + eps);
    for (i = 0; i < n; i++) y[i] = x[i] * rs * gain[i];
    return rs;
}

static void rmsnorm_grad(int64_t n, const float *x, const float *gain, float rs, const float *d_y, float *d_x,
                         float *d_gain)
{
    v16 sum = {0};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) sum += load(d_y + i) * load(gain + i) * load(x + i);
    if (i < n) sum += load_part(d_y + i, n - i) * load_part(gain + i, n - i) * load_part(x + i, n - i);
    float c = sum1(sum) * rs * rs / (float)n;
    for (i = 0; i < n; i++) {
        d_gain[i] += d_y[i] * x[i] * rs;
        d_x[i] += rs * (d_y[i] * gain[i] - x[i] * c);
    }
}

static void adamw(int64_t n, float *w, const float *g, float *m, float *v, float clip, float lr, float b1, float b2,
                  float eps, float wd, float c1, float c2)
{
    for (int64_t i = 0; i < n; i++) {
        float gi = g[i] * clip;
        m[i] = b1 * m[i] + (1 - b1) * gi;
        v[i] = b2 * v[i] + (1 - b2) * gi * gi;
        w[i] = w[i] * (1 - lr * wd) - lr * (m[i] / c1) / (sqrtf(v[i] / c2) + eps);
    }
}

#define DMC_SIMD_TABLE(table_name)                                                                                \
    {                                                                                                             \
        .name = table_name, .gemm_nt = gemm_nt, .gemm_nn = gemm_nn, .attend = attend, .attend_grad = attend_grad, \
        .softmax = softmax, .swiglu = swiglu, .swiglu_grad = swiglu_grad, .rmsnorm = rmsnorm,                     \
        .rmsnorm_grad = rmsnorm_grad, .adamw = adamw,                                                             \
    }
