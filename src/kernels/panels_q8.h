/* int8-like panels and their operand: layouts, and the loop over a product that the tiers share.
 *
 * A panel holds the bytes of its 16 rows' blocks as they lie in the file, transposed in words of 4 bytes: line i, 64 bytes, has word i of
 * all 16 rows. So nothing is lost or added, packing is a transposition, and a line's lanes are rows. Per unit of columns:
 *
 *   Q8_0   64 columns   [2 blocks][8 lines of q]  [2][16] d                              1088 bytes
 *   Q4_0   64 columns   [2 blocks][4 lines of q]  [2][16] d                               576 bytes
 *   Q4_K  256 columns   d and dmin, 3 lines of scales, 32 lines of q                     2304 bytes
 *   Q5_K  256 columns   d and dmin, 3 lines of scales, 8 lines of fifth bits, 32 of q    2816 bytes
 *   Q6_K  256 columns   32 lines of q, 16 of upper bits, 4 of scales, [16] d, 32 unused  3392 bytes
 *
 * Operand: rows in groups of 16; the last group is filled up with zero rows to 4, 8 or 16. A group of R rows, with B = K / 32:
 *   int8 q[B][R][32];  float scale[B][R];  float offset[B][R] = -(scale * sum of q);  int32 sum[B][2][R] of 16 q each
 */
#ifndef DMC_PANELS_Q8_H
#define DMC_PANELS_Q8_H

#include "kernels/tiers.h"
#include "kernels/vec16.h"

enum { Q8_GROUP = 16, Q8_LINE = 64, Q8_BLOCK = DMC_PANEL_COLS * DMC_PANEL_ROWS };

/* ---- operand ---- */

typedef struct {
    int64_t R, n; /* rows with and without filling */
    int8_t *q;
    float *scale, *offset;
    int32_t *sum;
} q8_group;

INLINE int64_t q8_filled(int64_t n) { return n <= 4 ? 4 : n <= 8 ? 8 : 16; }

/* Group g of the operand of M rows. */
INLINE q8_group q8_group_of(const void *operand, int64_t M, int64_t K, int64_t g)
{
    int64_t B = K / DMC_PANEL_COLS, left = M - g * Q8_GROUP, n = left < Q8_GROUP ? left : Q8_GROUP, R = q8_filled(n);
    uint8_t *p = (uint8_t *)(uintptr_t)operand + g * Q8_GROUP * B * (DMC_PANEL_COLS + 4 * (int64_t)sizeof(float));
    float *scale = (float *)(p + B * R * DMC_PANEL_COLS);
    return (q8_group){R, n, (int8_t *)p, scale, scale + B * R, (int32_t *)(scale + 2 * B * R)};
}

/* ---- panels ---- */

typedef struct {
    int cols, bytes; /* of a unit */
    int subs;        /* scales per 32 columns */
    int bias;        /* of the codes: the number that a code u stands for is u - bias */
    bool offsets;
} q8_type;

INLINE q8_type q8_type_of(dmc_dtype t)
{
    switch (t) {
    case DMC_Q8_0: return (q8_type){64, 1088, 1, 128, false};
    case DMC_Q4_0: return (q8_type){64, 576, 1, 8, false};
    case DMC_Q4_K: return (q8_type){256, 36 * Q8_LINE, 1, 0, true};
    case DMC_Q5_K: return (q8_type){256, 44 * Q8_LINE, 1, 0, true};
    default: return (q8_type){256, 53 * Q8_LINE, 2, 32, false};
    }
}

INLINE int64_t q8_panel_bytes(q8_type t, int64_t cols) { return (cols + t.cols - 1) / t.cols * t.bytes; }

/* A block of a row as it lies in the file: block_bytes of the type. */
void dmc_q8_row_block(dmc_dtype type, int64_t cols, const void *panels, int64_t row, int64_t block, uint8_t *file);

/* ---- products ---- */

enum {
    Q8_PANELS = 4, /* streams of memory that a core reads at the same time */
    Q8_ROWS = 512, /* rows of x for which panels are unpacked once */
    /* Columns unpacked at a time: x of a group fits into the innermost cache, 4 panels into the next. */
    Q8_CHUNK = 2048,
    /* Of a panel, but at least a unit, before the next stream's turn: one group of rows waits for memory. */
    Q8_FEW_BYTES = 1152
};

/* A piece of a panel in the form that products are made from. */
typedef struct {
    const uint8_t *q;    /* [blocks][8][16][4] codes, */
    int64_t pair;        /* two blocks at a time this many bytes apart */
    const float *scale;  /* [blocks][subs][16]; NULL: the halfs of Q8_0, where they lie */
    const float *offset; /* [blocks][16], for types that have offsets */
    int64_t ahead;       /* this far behind q lie codes that will be wanted soon; 0: no need to fetch them */
} q8_weights;

typedef struct {
    uint8_t q[Q8_CHUNK / DMC_PANEL_COLS][Q8_BLOCK];
    float scale[2 * Q8_CHUNK / DMC_PANEL_COLS][DMC_PANEL_ROWS];
    float offset[Q8_CHUNK / DMC_PANEL_COLS][DMC_PANEL_ROWS];
} q8_unpacked;

typedef struct {
    _Alignas(64) float tile[2][Q8_GROUP][DMC_PANEL_ROWS]; /* for a matrix unit's results */
    q8_unpacked w[Q8_PANELS];
    float sum[Q8_ROWS / Q8_GROUP][Q8_PANELS][Q8_GROUP][DMC_PANEL_ROWS];
} q8_room;
q8_room *dmc_q8_room(void); /* of the thread that calls */

/* unpack: `blocks` blocks of a panel from the start of a unit. Where ahead > 0, memory is asked for what lies that many bytes behind each
 * line that is read: requests as steady as the work, in bursts they would wait for each other.
 * rows: sum[R][16] continued over these blocks, for a group of x whose q, scale, offset and sum start at the first of them. */
typedef q8_weights q8_unpack(dmc_dtype type, const uint8_t *unit, int64_t blocks, int64_t ahead, q8_unpacked *room);
typedef void q8_rows(dmc_dtype type, q8_weights w, int64_t blocks, q8_group x, float sum[][DMC_PANEL_ROWS]);

/* Calls rows with the type as a constant. */
INLINE void q8_rows_by_type(q8_rows *rows, dmc_dtype type, q8_weights w, int64_t blocks, q8_group x,
                            float sum[][DMC_PANEL_ROWS])
{
    switch (type) {
    case DMC_Q8_0: rows(DMC_Q8_0, w, blocks, x, sum); break;
    case DMC_Q4_0: rows(DMC_Q4_0, w, blocks, x, sum); break;
    case DMC_Q4_K: rows(DMC_Q4_K, w, blocks, x, sum); break;
    case DMC_Q5_K: rows(DMC_Q5_K, w, blocks, x, sum); break;
    default: rows(DMC_Q6_K, w, blocks, x, sum);
    }
}

/* An unpack for kernels that take codes straight from the panel. */
INLINE q8_weights q8_as_they_are(dmc_dtype type, const uint8_t *unit, int64_t blocks, int64_t ahead, q8_unpacked *room)
{
    (void)type, (void)blocks, (void)room;
    return (q8_weights){.q = unit, .ahead = ahead};
}

INLINE q8_group q8_group_from(q8_group x, int64_t block)
{
    x.q += block * x.R * DMC_PANEL_COLS;
    x.scale += block * x.R;
    x.offset += block * x.R;
    x.sum += block * x.R * 2;
    return x;
}

INLINE void q8_finish(const float sum[][DMC_PANEL_ROWS], int64_t n_m, int64_t n_n, float *y, int64_t ldy, bool add)
{
    for (int64_t m = 0; m < n_m; m++, y += ldy) {
        v16 s = load(sum[m]);
        if (n_n == DMC_PANEL_ROWS) store(y, add ? load(y) + s : s);
        else store_part(y, add ? load_part(y, n_n) + s : s, n_n);
    }
}

INLINE int64_t q8_least(int64_t a, int64_t b) { return a < b ? a : b; }

/* All rows of x in [m0, m1), at most Q8_ROWS, times at most Q8_PANELS panels. One group of rows waits for memory: streams take turns
 * quickly, and each piece is used where it was just read. More groups share pieces that are as large as the caches like them. */
INLINE void q8_block(q8_unpack *unpack, q8_rows *rows_of, dmc_dtype type, int64_t M, int64_t m0, int64_t m1, int64_t K,
                     const void *operand, const uint8_t *panel, int64_t n_panels)
{
    q8_room *room = dmc_q8_room();
    q8_type t = q8_type_of(type);
    int64_t g0 = m0 / Q8_GROUP, n_groups = (m1 - m0 + Q8_GROUP - 1) / Q8_GROUP, bytes = q8_panel_bytes(t, K);
    int64_t few = t.bytes < Q8_FEW_BYTES ? Q8_FEW_BYTES / t.bytes * t.cols : t.cols;
    int64_t chunk = n_groups == 1 ? few : Q8_CHUNK;
    memset(room->sum, 0, sizeof room->sum[0] * (size_t)n_groups);
    for (int64_t k = 0; k < K; k += chunk) {
        int64_t blocks = q8_least(chunk, K - k) / DMC_PANEL_COLS, at = k / t.cols * t.bytes;
        int64_t next = k + chunk < K ? at + chunk / t.cols * t.bytes : Q8_PANELS * bytes; /* for this stream */
        q8_weights w[Q8_PANELS];
        for (int64_t p = 0; p < n_panels; p++) {
            w[p] = unpack(type, panel + p * bytes + at, blocks, next - at, &room->w[p]);
            if (n_groups == 1)
                rows_of(type, w[p], blocks, q8_group_from(q8_group_of(operand, M, K, g0), k / DMC_PANEL_COLS),
                        room->sum[0][p]);
        }
        for (int64_t g = 0; g < n_groups && n_groups > 1; g++) {
            q8_group x = q8_group_from(q8_group_of(operand, M, K, g0 + g), k / DMC_PANEL_COLS);
            for (int64_t p = 0; p < n_panels; p++) {
                rows_of(type, w[p], blocks, x, room->sum[g][p]);
                w[p].ahead = 0; /* asked for once */
            }
        }
    }
}

INLINE void q8_linear(q8_unpack *unpack, q8_rows *rows_of, dmc_dtype type, int64_t M, int64_t rows, int64_t K,
                      const void *operand, const void *panels, int64_t p0, int64_t p1, float *y, int64_t ldy, bool add)
{
    int64_t bytes = q8_panel_bytes(q8_type_of(type), K);
    for (int64_t m0 = 0; m0 < M; m0 += Q8_ROWS) {
        int64_t m1 = q8_least(m0 + Q8_ROWS, M);
        for (int64_t p = p0; p < p1; p += Q8_PANELS) {
            int64_t n_panels = q8_least(Q8_PANELS, p1 - p);
            q8_block(unpack, rows_of, type, M, m0, m1, K, operand, (const uint8_t *)panels + p * bytes, n_panels);
            for (int64_t m = m0; m < m1; m += Q8_GROUP) {
                for (int64_t i = 0; i < n_panels; i++) {
                    int64_t n = (p + i) * DMC_PANEL_ROWS;
                    q8_finish(dmc_q8_room()->sum[(m - m0) / Q8_GROUP][i], q8_least(Q8_GROUP, m1 - m),
                              q8_least(DMC_PANEL_ROWS, rows - n), y + m * ldy + n, ldy, add);
                }
            }
        }
    }
}

#endif
