/* Where the elements of a page half lie (kv.h draws it), and the sizes of the blocks in which the kernels walk over pages. */
#ifndef DMC_KV_LAYOUT_H
#define DMC_KV_LAYOUT_H

#include "kernels/kv.h"

enum {
    KV_GROUP = 32,      /* channels of Q4 that share a scale and an offset */
    KV_KEY_BIAS = 128,  /* keys of Q8 are stored as unsigned bytes: what VNNI multiplies with signed ones */
    KV_BLOCK_PAGES = 8, /* pages between two looks at the running maximum in attend_slots */
    KV_BLOCK = KV_BLOCK_PAGES * DMC_PAGE_SLOTS,
    KV_CHUNK_KEYS = 256, /* keys that attend_chunk brings into its own form at a time */
    KV_CHUNK_GROUP = 32, /* keys that are skipped or masked together */
    KV_CHUNK_ROWS = 32,  /* query rows that attend_chunk handles at a time */
    KV_SCORE_LD =
        KV_CHUNK_KEYS + 16 /* row stride of its scores: no power of two, so that rows spread over cache sets */
};

static inline int kv_round(int n, int to) { return (n + to - 1) / to * to; }

/* Channels that a half holds, padding included. */
static inline int kv_channels(dmc_kv_type t, int head_dim)
{
    return t == DMC_KV_Q8 ? kv_round(head_dim, 4) : t == DMC_KV_Q4 ? kv_round(head_dim, KV_GROUP) : head_dim;
}

/* Offset of the scales behind the integers: Q8 float [16 slots]; Q4 [channels / 32][16 slots][2] bf16: scale, offset. */
static inline size_t kv_scales(dmc_kv_type t, int head_dim)
{
    size_t elements = (size_t)DMC_PAGE_SLOTS * (size_t)kv_channels(t, head_dim);
    return t == DMC_KV_Q8 ? elements : elements / 2;
}

/* Index of channel d of a slot: elements of 16-bit types, bytes of Q8. */
static inline int kv_key_at(dmc_kv_type t, int slot, int d)
{
    int per = t == DMC_KV_F16 ? 1 : t == DMC_KV_BF16 ? 2 : 4;
    return (d / per * DMC_PAGE_SLOTS + slot) * per + d % per;
}

static inline int kv_value_at(dmc_kv_type t, int channels, int slot, int d)
{
    int per = t == DMC_KV_F16 ? 1 : t == DMC_KV_BF16 ? 2 : 4;
    return (slot / per * channels + d) * per + slot % per;
}

static inline float kv_bf16_to_f32(uint32_t h)
{
    union {
        uint32_t u;
        float f;
    } x = {.u = h << 16};
    return x.f;
}

/* Keys of Q4 are stored times a Hadamard matrix (orthogonal, its own inverse), 32 channels at a time: channels that stand out, as
 * those of keys do, would take the other channels' 16 steps for themselves. */
static inline void kv_rotate(float *x)
{
    for (int h = 1; h < KV_GROUP; h *= 2) {
        for (int i = 0; i < KV_GROUP; i += 2 * h) {
            for (int j = i; j < i + h; j++) {
                float a = x[j], b = x[j + h];
                x[j] = a + b;
                x[j + h] = a - b;
            }
        }
    }
    for (int i = 0; i < KV_GROUP; i++) x[i] *= 0.17677669529663687f; /* 1 / sqrt(32) */
}

/* Floats of scratch that hold n floats and keep what follows on a cache line. */
static inline size_t kv_line(size_t n) { return (n + 15) / 16 * 16; }

#endif
