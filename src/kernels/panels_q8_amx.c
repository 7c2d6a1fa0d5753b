/* Products with int8-like panels on a matrix unit: one instruction multiplies 16 rows of x by 32 columns of a panel (16 of Q6_K). */
#include "kernels/amx.h"
#include "kernels/panels_q8_512.h"

/* Tiles, two of a kind to work on two products at a time: results and x of full groups of rows, of the last group, weights. */
enum { RESULT = 0, X = 2, LAST_RESULT = 3, LAST_X = 5, WEIGHTS = 6 };

enum {
    FEW = 4,           /* rows that the vector unit multiplies as fast as memory gives weights */
    AHEAD = 1088,      /* bytes, one unit of Q8_0: what is asked for in advance where a panel is read as it lies */
    PAGE = 4096,       /* where the second-level cache's own reading ahead stops */
    PAGE_OPENING = 12, /* lines of the next page that start it there */
};

static void configure(q8_type t, int64_t R_last)
{
    tile_shapes c = {.palette = 1};
    int cols = DMC_PANEL_COLS / t.subs;
    for (int i = 0; i < 8; i++) {
        c.row_bytes[i] = (uint16_t)(i == X || i == LAST_X ? cols : 64);
        c.rows[i] = (uint8_t)(i >= WEIGHTS ? cols / 4 : i >= LAST_RESULT ? R_last : Q8_GROUP);
    }
    load_tile_shapes(&c);
}

/* One instruction's worth of columns; tiles' numbers must be literals. */
INLINE void multiply(bool full, int odd, const int8_t *x, const uint8_t *q)
{
    if (odd) _tile_loadd(7, q, 64);
    else _tile_loadd(6, q, 64);
    if (full) {
        _tile_loadd(2, x, DMC_PANEL_COLS);
        if (odd) {
            _tile_zero(1);
            _tile_dpbssd(1, 2, 7);
        } else {
            _tile_zero(0);
            _tile_dpbssd(0, 2, 6);
        }
        return;
    }
    _tile_loadd(5, x, DMC_PANEL_COLS);
    if (odd) {
        _tile_zero(4);
        _tile_dpbssd(4, 5, 7);
    } else {
        _tile_zero(3);
        _tile_dpbssd(3, 5, 6);
    }
}

INLINE void put_result(bool full, int odd, float (*dot)[DMC_PANEL_ROWS])
{
    if (full && odd) _tile_stored(1, dot, 64);
    else if (full) _tile_stored(0, dot, 64);
    else if (odd) _tile_stored(4, dot, 64);
    else _tile_stored(3, dot, 64);
}

/* What a run over some blocks works on. */
typedef struct {
    q8_type t;
    q8_weights w;
    q8_group x;
} run;

/* p in a register of its own: instructions that read through it need no index, which would split them in two. */
INLINE const void *in_register(const void *p)
{
    __asm__("" : "+r"(p));
    return p;
}

/* The line of scales behind the second block; and, at the first block that begins in a page, the start of the next page. */
INLINE void ask_for_rest(const uint8_t *q, const char *soon, int64_t b)
{
    if (b % 2) _mm_prefetch(soon + Q8_LINE * 8, _MM_HINT_T0);
    const uintptr_t within = (uintptr_t)q % PAGE;
    if (within >= Q8_BLOCK + (b % 2 ? 0 : Q8_LINE)) return;
    const char *next = in_register(q - within + PAGE);
#pragma GCC unroll 12
    for (int i = 0; i < PAGE_OPENING; i++) _mm_prefetch(next + Q8_LINE * i, _MM_HINT_T1);
}

INLINE void multiply_step(bool full, int odd, int R, const run *r, int64_t step)
{
    int64_t b = step / r->t.subs, part = step % r->t.subs * (DMC_PANEL_COLS / r->t.subs);
    const uint8_t *q = r->w.q + b / 2 * r->w.pair + b % 2 * Q8_BLOCK + part * DMC_PANEL_ROWS;
    if (r->w.ahead) {
        const char *soon = in_register(q + r->w.ahead);
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) _mm_prefetch(soon + Q8_LINE * i, _MM_HINT_T0);
        if (!r->w.scale) ask_for_rest(q, soon, b);
    }
    multiply(full, odd, r->x.q + b * R * DMC_PANEL_COLS + part, q);
}

/* Of 16 rows: unpacked, or Q8_0's halfs where they lie. */
INLINE __m512 scale_of(const q8_weights *w, int64_t step)
{
    if (w->scale) return _mm512_loadu_ps(w->scale + step * DMC_PANEL_ROWS);
    return next_halfs(w->q + step / 2 * w->pair + 2 * Q8_BLOCK + step % 2 * 32, 0);
}

/* y continued by a result. */
INLINE void add_step(int R, const run *r, int64_t step, float (*dot)[DMC_PANEL_ROWS], __m512 *y)
{
    int64_t b = step / r->t.subs;
    const float *sx = in_register(r->x.scale + b * R), *ox = r->x.offset + b * R;
    const __m512 scale = scale_of(&r->w, step);
#pragma GCC unroll 16
    for (int m = 0; m < R; m++)
        y[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(dot[m])),
                               _mm512_mul_ps(scale, _mm512_set1_ps(sx[m])), y[m]);
    if (!r->t.offsets) return;
    ox = in_register(ox);
    __m512 offset = _mm512_loadu_ps(r->w.offset + b * DMC_PANEL_ROWS);
#pragma GCC unroll 16
    for (int m = 0; m < R; m++) y[m] = _mm512_fmadd_ps(offset, _mm512_set1_ps(ox[m]), y[m]);
}

/* sum[R][16] continued, R rows in registers. While one step is multiplied, the one before it is on its way through memory to the vector
 * unit, which is busy with the one before that. */
INLINE void some_rows(int R, bool full, q8_type t, q8_weights w, int64_t blocks, q8_group x,
                      float sum[][DMC_PANEL_ROWS])
{
    const run r = {t, w, x};
    float(*even)[DMC_PANEL_ROWS] = dmc_q8_room()->tile[0], (*odd)[DMC_PANEL_ROWS] = even + Q8_GROUP;
    int64_t n = blocks * t.subs;
    __m512 y[16];
#pragma GCC unroll 16
    for (int m = 0; m < R; m++) y[m] = _mm512_loadu_ps(sum[m]);
    multiply_step(full, 0, R, &r, 0);
    for (int64_t i = 0; i < n; i += 2) {
        if (i + 1 < n) multiply_step(full, 1, R, &r, i + 1);
        put_result(full, 0, even);
        if (i > 0) add_step(R, &r, i - 1, odd, y);
        if (i + 2 < n) multiply_step(full, 0, R, &r, i + 2);
        if (i + 1 < n) put_result(full, 1, odd);
        add_step(R, &r, i, even, y);
    }
    if (n % 2 == 0) add_step(R, &r, n - 1, odd, y);
#pragma GCC unroll 16
    for (int m = 0; m < R; m++) _mm512_storeu_ps(sum[m], y[m]);
}

INLINE void rows_of_type(q8_type t, q8_weights w, int64_t blocks, q8_group x, float sum[][DMC_PANEL_ROWS])
{
    if (x.R == 4) some_rows(4, false, t, w, blocks, x, sum);
    else if (x.R == 8) some_rows(8, false, t, w, blocks, x, sum);
    else some_rows(16, true, t, w, blocks, x, sum);
}

static void rows_amx(dmc_dtype type, q8_weights w, int64_t blocks, q8_group x, float sum[][DMC_PANEL_ROWS])
{
    switch (type) {
    case DMC_Q8_0:
    case DMC_Q4_0: rows_of_type(q8_type_of(DMC_Q8_0), w, blocks, x, sum); break;
    case DMC_Q6_K: rows_of_type(q8_type_of(DMC_Q6_K), w, blocks, x, sum); break;
    default: rows_of_type(q8_type_of(DMC_Q4_K), w, blocks, x, sum);
    }
}

/* y of one group of R rows, panel after panel: memory is one stream, which the caches' own reading ahead understands. */
INLINE void q8_stream(int R, bool full, int64_t M, int64_t rows, int64_t K, const void *operand, const void *panels,
                      int64_t p0, int64_t p1, float *y, int64_t ldy, bool add)
{
    const q8_type t = q8_type_of(DMC_Q8_0);
    const q8_group x = q8_group_of(operand, M, K, 0);
    const int64_t bytes = q8_panel_bytes(t, K);
    for (int64_t p = p0; p < p1; p++) {
        float sum[Q8_GROUP][DMC_PANEL_ROWS] = {0};
        const q8_weights w = {.q = (const uint8_t *)panels + p * bytes, .pair = t.bytes, .ahead = AHEAD};
        some_rows(R, full, t, w, K / DMC_PANEL_COLS, x, sum);
        q8_finish(sum, M, q8_least(DMC_PANEL_ROWS, rows - p * DMC_PANEL_ROWS), y + p * DMC_PANEL_ROWS, ldy, add);
    }
}

void dmc_linear_q8_amx(dmc_dtype type, int64_t M, int64_t rows, int64_t K, const void *operand, const void *panels,
                       int64_t p0, int64_t p1, float *y, int64_t ldy, bool add)
{
    if (M <= FEW) {
        dmc_linear_q8_avx512(type, M, rows, K, operand, panels, p0, p1, y, ldy, add);
        return;
    }
    configure(q8_type_of(type), q8_filled((M - 1) % Q8_GROUP + 1));
    if (type == DMC_Q8_0 && M > Q8_GROUP / 2 && M <= Q8_GROUP)
        q8_stream(Q8_GROUP, true, M, rows, K, operand, panels, p0, p1, y, ldy, add);
    else if (type == DMC_Q8_0 && M <= Q8_GROUP / 2)
        q8_stream(Q8_GROUP / 2, false, M, rows, K, operand, panels, p0, p1, y, ldy, add);
    else q8_linear(unpack_numbers, rows_amx, type, M, rows, K, operand, panels, p0, p1, y, ldy, add);
    _tile_release();
}
