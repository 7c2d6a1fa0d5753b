/* The forward pass of a Llama-type model, flat, as in the paper: N rows, one per token of the batch. */
#include "model/forward.h"

#include <omp.h>
#include <string.h>

static void add(int64_t n, float *x, const float *y)
{
    for (int64_t i = 0; i < n; i++) x[i] += y[i];
}

/* The only step that looks beyond a row: every head of every sequence updates its cache and attends to it. */
static void attention(const dmc_model *m, dmc_work *w, int il, int64_t n_items, const dmc_item *items)
{
    const dmc_config *c = &m->config;
    int64_t H = c->n_kv_heads, nq = (int64_t)c->n_heads * c->head_dim, nk = H * c->head_dim, work = 0;
    for (int64_t i = 0; i < n_items; i++) work += items[i].n * (items[i].n + dmc_seq_tokens(items[i].seq)) * nq;
#pragma omp parallel for schedule(dynamic) num_threads(w->n_threads) if (work > 2000000)
    for (int64_t task = 0; task < n_items * H; task++) {
        const dmc_item *item = &items[task / H];
        int64_t r = w->first[task / H];
        dmc_cache_update_attend(item->seq, il, (int)(task % H), item->n, w->q + r * nq, nq, w->k + r * nk,
                                w->v + r * nk, nk, w->att + r * nq, nq,
                                w->scratch + (size_t)omp_get_thread_num() * w->n_scratch);
    }
}

/* Logits of the rows that somebody wants. Rows whose logits lie one behind the other in memory go through the head together. */
static void logits(const dmc_model *m, dmc_work *w, int64_t n_items, const dmc_item *items)
{
    const dmc_config *c = &m->config;
    int64_t E = c->n_embd, V = c->n_vocab, n = 0;
    float *out = NULL; /* of the n rows gathered in h */
    for (int64_t i = 0; i <= n_items; i++) {
        const dmc_item *item = i < n_items ? &items[i] : NULL;
        if (item && !item->logits) continue;
        if (n && (!item || item->logits != out + n * V)) {
            dmc_rmsnorm_rows(m->kernels, n, E, w->h, m->norm, c->norm_eps, w->h, NULL);
            dmc_linear(m->kernels, n, w->h, &m->head, NULL, out);
            n = 0;
        }
        if (!item) break;
        if (n == 0) out = item->logits;
        int64_t rows = item->all ? item->n : 1;
        memcpy(w->h + n * E, w->x + (w->first[i] + item->n - rows) * E, (size_t)(rows * E) * sizeof(float));
        n += rows;
    }
}

void dmc_forward(const dmc_model *m, dmc_work *w, int64_t n_items, const dmc_item *items, const int32_t *ids)
{
    const dmc_config *c = &m->config;
    const dmc_kernels *kn = m->kernels;
    int64_t E = c->n_embd, F = c->n_ff, N = 0;
    for (int64_t i = 0; i < n_items; N += items[i++].n) w->first[i] = N;

    dmc_embed(N, ids, &m->embed, w->x); /* x [N][E] */
    for (int il = 0; il < c->n_layers; il++) {
        const dmc_layer *l = &m->layers[il];
        dmc_rmsnorm_rows(kn, N, E, w->x, l->attn_norm, c->norm_eps, w->h, NULL); /* h [N][E] */
        dmc_linear(kn, N, w->h, &l->q, l->q_bias, w->q);                         /* q [N][n_heads*head_dim] */
        dmc_linear(kn, N, w->h, &l->k, l->k_bias, w->k);                         /* k [N][n_kv_heads*head_dim] */
        dmc_linear(kn, N, w->h, &l->v, l->v_bias, w->v);                         /* v [N][n_kv_heads*head_dim] */
        attention(m, w, il, n_items, items);                                     /* att [N][n_heads*head_dim] */
        dmc_linear(kn, N, w->att, &l->o, l->o_bias, w->h);                       /* h [N][E] */
        add(N * E, w->x, w->h);                                                  /* x [N][E] */

        dmc_rmsnorm_rows(kn, N, E, w->x, l->ffn_norm, c->norm_eps, w->h, NULL); /* h [N][E] */
        dmc_linear(kn, N, w->h, &l->gate, l->gate_bias, w->gate);               /* gate [N][F] */
        dmc_linear(kn, N, w->h, &l->up, l->up_bias, w->up);                     /* up [N][F] */
        dmc_swiglu_rows(kn, N * F, w->gate, w->up, w->gate);                    /* gate [N][F]: silu(gate) * up */
        dmc_linear(kn, N, w->gate, &l->down, l->down_bias, w->h);               /* h [N][E] */
        add(N * E, w->x, w->h);                                                 /* x [N][E] */
    }
    logits(m, w, n_items, items);
}

/* ---- working memory ---- */

dmc_status dmc_work_fit(dmc_work *w, const dmc_model *m, int64_t n_rows, int n_threads, size_t n_scratch)
{
    const dmc_config *c = &m->config;
    size_t E = (size_t)c->n_embd, Q = (size_t)c->n_heads * (size_t)c->head_dim,
           K = (size_t)c->n_kv_heads * (size_t)c->head_dim;
    size_t F = (size_t)c->n_ff, bytes;
    if (n_rows <= w->n_rows && n_threads <= w->n_threads && n_scratch <= w->n_scratch) return DMC_OK;
    dmc_work grown = {.n_rows = n_rows > w->n_rows ? n_rows : w->n_rows,
                      .n_threads = n_threads > w->n_threads ? n_threads : w->n_threads,
                      .n_scratch = n_scratch > w->n_scratch ? n_scratch : w->n_scratch};
    dmc_work_free(w);
    size_t N = (size_t)grown.n_rows;
    if (dmc_mul(&bytes, grown.n_scratch * sizeof(float), (size_t)grown.n_threads)) grown.scratch = dmc_malloc(bytes, 1);
    grown.rows = dmc_malloc(N, (2 * E + 2 * Q + 2 * K + 2 * F) * sizeof(float));
    grown.first = dmc_malloc(N, sizeof *grown.first);
    if (!grown.rows || !grown.scratch || !grown.first) {
        dmc_work_free(&grown);
        return dmc_fail(DMC_ERR_MEMORY, "out of memory for a pass over %lld tokens", (long long)n_rows);
    }
    grown.x = grown.rows;
    grown.h = grown.x + N * E;
    grown.q = grown.h + N * E;
    grown.att = grown.q + N * Q;
    grown.k = grown.att + N * Q;
    grown.v = grown.k + N * K;
    grown.gate = grown.v + N * K;
    grown.up = grown.gate + N * F;
    *w = grown;
    return DMC_OK;
}

void dmc_work_free(dmc_work *w)
{
    dmc_free(w->rows);
    dmc_free(w->scratch);
    dmc_free(w->first);
    *w = (dmc_work){0};
}
