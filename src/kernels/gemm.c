/* Matrix products of any orientation, spread over threads.
 *
 * Both factors are packed into the forms that the kernels multiply, some terms at a time: a block of the factor with fewer rows once,
 * for all threads; of the other one each task packs a stripe of its own and multiplies it by that block. What a pass sums up depends
 * on the number of terms alone, so results do not depend on threads, blocks or stripes. */
#include "kernels/ops.h"

enum {
    DEPTH_BYTES = 2048, /* of the terms of a row that one pass sums up */
    STRIPE = 128,       /* rows of a stripe: 256 KiB of a task's stack */
    UNIT = 32,          /* rows of the common block that a task packs */
    WORTH = 1000000     /* multiplications that are worth waking other threads for */
};

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t pieces(int64_t n, int64_t size) { return (n + size - 1) / size; }

/* One factor, as rows of what is summed over: x[r * row + p * term]. */
typedef struct {
    const float *x;
    int64_t n, row, term;
} factor;

typedef struct {
    dmc_pack_any *pack_a, *pack_b;
    dmc_panels_linear *multiply;
    dmc_dtype type; /* of the packed factors */
    factor a, b;
    int64_t P, ldc;
    float *c;
    bool accumulate;
    bool common_a; /* the common block is a's */
    void *block;
} job;

static factor part(factor f, int64_t r, int64_t n) { return (factor){f.x + r * f.row, n, f.row, f.term}; }

static void pack(const job *g, bool a, const factor *f, int64_t r0, int64_t r1, void *out)
{
    dmc_pack_any *pack_rows = a ? g->pack_a : g->pack_b;
    pack_rows(f->n, g->P, f->x, f->row, f->term, r0, r1, out);
}

static void pack_task(void *arg, int64_t task, int thread)
{
    const job *g = arg;
    const factor *f = g->common_a ? &g->a : &g->b;
    (void)thread;
    pack(g, g->common_a, f, task * UNIT, least(f->n, task * UNIT + UNIT), g->block);
}

static void stripe_task(void *arg, int64_t task, int thread)
{
    const job *g = arg;
    _Alignas(64) uint8_t packed[STRIPE * DEPTH_BYTES];
    int64_t r = task * STRIPE;
    (void)thread;
    if (g->common_a) {
        factor f = part(g->b, r, least(g->b.n - r, STRIPE));
        pack(g, false, &f, 0, f.n, packed);
        g->multiply(g->type, g->a.n, f.n, g->P, g->block, packed, 0, dmc_panels_count(f.n), g->c + r, g->ldc,
                    g->accumulate);
    } else {
        factor f = part(g->a, r, least(g->a.n - r, STRIPE));
        pack(g, true, &f, 0, f.n, packed);
        g->multiply(g->type, f.n, g->b.n, g->P, packed, g->block, 0, dmc_panels_count(g->b.n), g->c + r * g->ldc,
                    g->ldc, g->accumulate);
    }
}

static void clear(int64_t I, int64_t J, float *c, int64_t ldc)
{
    for (int64_t i = 0; i < I; i++)
        for (int64_t j = 0; j < J; j++) c[i * ldc + j] = 0;
}

void dmc_gemm(const dmc_cpu *cpu, dmc_math math, int64_t I, int64_t J, int64_t P, const float *a, int64_t ai,
              int64_t ap, const float *b, int64_t bp, int64_t bj, float *c, int64_t ldc, bool accumulate)
{
    _Alignas(64) uint8_t small[STRIPE * DEPTH_BYTES];
    const dmc_kernels *kn = cpu->kernels;
    bool bf16 = math == DMC_MATH_BF16;
    job g = {bf16 ? kn->pack_a_bf16 : kn->pack_f32,
             bf16 ? kn->pack_b_bf16 : kn->pack_f32,
             bf16 ? kn->linear_bf16 : kn->linear_f32,
             bf16 ? DMC_BF16 : DMC_F32,
             .ldc = ldc,
             .common_a = I < J,
             .block = cpu->room ? cpu->room : small};
    int64_t n = I < J ? I : J, other = I + J - n, depth = DEPTH_BYTES / (bf16 ? 2 : 4);
    int64_t most = (cpu->room ? DMC_GEMM_ROOM : (int64_t)sizeof small) / DEPTH_BYTES;
    if (P < 1 && !accumulate) clear(I, J, c, ldc);
    for (int64_t p = 0; p < P; p += depth) {
        g.P = least(P - p, depth);
        g.accumulate = accumulate || p > 0;
        for (int64_t r = 0; r < n; r += most) {
            int64_t size = least(n - r, most);
            dmc_threads *threads = size * other * g.P > WORTH ? cpu->threads : NULL;
            g.a = (factor){a + p * ap, I, ai, ap};
            g.b = (factor){b + p * bp, J, bj, bp};
            *(g.common_a ? &g.a : &g.b) = part(g.common_a ? g.a : g.b, r, size);
            g.c = g.common_a ? c + r * ldc : c + r;
            dmc_parallel(threads, pieces(size, UNIT), pack_task, &g);
            dmc_parallel(threads, pieces(other, STRIPE), stripe_task, &g);
        }
    }
}
