/* Forward and backward of the whole network. Each backward line quotes the forward line that it differentiates. */
#include "train/net_inside.h"
#include "train/rows.h"

#include <math.h>
#include <string.h>

static dmc_attention_shape shape_of(const dmc_net *n, const dmc_pass *p, int il)
{
    return (dmc_attention_shape){.il = il,
                                 .B = n->B,
                                 .T = n->T,
                                 .H = n->c.n_kv_heads,
                                 .G = n->c.n_heads / n->c.n_kv_heads,
                                 .D = n->c.head_dim,
                                 .mode = p ? p->mode : DMC_MODE_SOFT,
                                 .policy = n->c.policy,
                                 .tau = p ? p->tau : 1,
                                 .channel_scale = p ? p->channel_scale : 1,
                                 .rope = &n->rope,
                                 .kernels = n->cpu.kernels};
}

/* The next n floats of a net's memory, on a line of their own; only counted where there is no memory yet. */
static float *take(const dmc_net *n, size_t *at, size_t floats)
{
    float *p = n->memory ? n->memory + *at : NULL;
    *at += (floats + 15) / 16 * 16;
    return p;
}

/* Lays the net's arrays out in memory, or only counts the floats when there is none. */
static size_t carve(dmc_net *n)
{
    size_t M = (size_t)n->B * (size_t)n->T, E = (size_t)n->c.n_embd, F = (size_t)n->c.n_ff, at = 0;
    size_t Q = (size_t)n->c.n_heads * (size_t)n->c.head_dim, K = (size_t)n->c.n_kv_heads * (size_t)n->c.head_dim,
           V = (size_t)n->c.n_vocab, H = (size_t)n->c.n_kv_heads, D = (size_t)n->c.head_dim;
    dmc_attention_shape s = shape_of(n, NULL, 0);
    size_t states = dmc_attention_states_floats(&s), gates = dmc_attention_gates_floats(&s);
    for (int il = 0; il < n->c.n_layers; il++) {
        dmc_layer_acts *a = &n->acts[il];
        *a = n->acts[0];
        if (!il || n->keep != DMC_KEEP_NOTHING) {
            a->x = take(n, &at, M * E);
            dmc_attention_gates_carve(&a->saved, &s, take(n, &at, gates));
        }
        if (!il || n->keep == DMC_KEEP_ALL) {
            a->h1 = take(n, &at, M * E), a->h2 = take(n, &at, M * E), a->x2 = take(n, &at, M * E);
            a->q = take(n, &at, M * Q), a->k = take(n, &at, M * K), a->v = take(n, &at, M * K);
            a->att = take(n, &at, M * Q);
            a->gate = take(n, &at, M * F), a->up = take(n, &at, M * F), a->act = take(n, &at, M * F);
            a->rs1 = take(n, &at, M), a->rs2 = take(n, &at, M);
            if (n->c.qk_norm) {
                a->q_lin = take(n, &at, M * Q), a->k_lin = take(n, &at, M * K);
                a->rs_q = take(n, &at, M * Q / D), a->rs_k = take(n, &at, M * H);
            }
            if (dmc_config_has_adapter(&n->c)) {
                a->h_adapter = take(n, &at, M * E), a->rs_adapter = take(n, &at, M), a->adapter = take(n, &at, M * H);
            }
            dmc_attention_states_carve(&a->saved, &s, take(n, &at, states));
        }
    }
    n->x_out = take(n, &at, M * E), n->hidden = take(n, &at, M * E), n->rs_out = take(n, &at, M);
    n->scratch = take(n, &at, (size_t)n->n_threads * n->scratch_floats);
    n->d_a = take(n, &at, M * E); /* also the forward's residual update */
    n->logits = take(n, &at, DMC_HEAD_ROWS * V), n->teacher_logits = take(n, &at, DMC_HEAD_ROWS * V);
    n->probs = take(n, &at, (size_t)n->n_threads * 2 * V);
    n->cpu.room = take(n, &at, DMC_GEMM_ROOM / sizeof(float));
    if (n->keep != DMC_KEEP_NOTHING) {
        n->d_hidden = take(n, &at, M * E), n->d_x = take(n, &at, M * E), n->d_b = take(n, &at, M * (E > Q ? E : Q));
        n->d_f = take(n, &at, M * F), n->d_g = take(n, &at, 2 * M * F);
        n->d_att = (dmc_attention_grads){.q = take(n, &at, M * Q),
                                         .k = take(n, &at, M * K),
                                         .v = take(n, &at, M * K),
                                         .adapter = take(n, &at, dmc_config_has_adapter(&n->c) ? M * H : 0),
                                         .logit = take(n, &at, M * H)};
        n->norm_parts = take(n, &at, DMC_NORM_PARTS * (E > D ? E : D));
    }
    return at;
}

dmc_status dmc_net_create(dmc_net **out, const dmc_config *c, const dmc_layout *l, const dmc_cpu *cpu, int B, int T,
                          dmc_keep keep)
{
    dmc_net *n = NULL;
    double *inv_freq = NULL;
    dmc_status status = DMC_OK;
    *out = NULL;
    if (B < 1 || T < 1) return dmc_fail(DMC_ERR_ARG, "a batch of %d sequences of %d tokens", B, T);
    DMC_TRY(dmc_array(&n, 1, sizeof *n));
    n->c = *c, n->l = l, n->cpu = *cpu, n->B = B, n->T = T, n->keep = keep;
    n->n_threads = dmc_threads_count(cpu->threads);
    DMC_GOTO(dmc_array(&n->acts, (size_t)c->n_layers, sizeof *n->acts));
    DMC_GOTO(dmc_array(&inv_freq, (size_t)c->head_dim / 2, sizeof *inv_freq));
    dmc_config_inv_freq(c, inv_freq);
    DMC_GOTO(dmc_rope_create(&n->rope, c->head_dim, T, c->rope_interleaved, inv_freq));
    dmc_attention_shape s = shape_of(n, NULL, 0);
    n->scratch_floats = (dmc_attention_scratch_floats(&s) + 15) / 16 * 16;
    size_t floats = carve(n);
    n->bytes = floats * sizeof(float);
    n->memory = dmc_malloc(floats, sizeof(float));
    if (!n->memory) {
        status = dmc_fail(DMC_ERR_MEMORY,
                          "training needs %.1f GiB for %d sequences of %d tokens: take a smaller --batch or --ctx",
                          (double)n->bytes / 0x1p30, B, T);
        goto done;
    }
    carve(n);
    *out = n;
done:
    dmc_free(inv_freq);
    if (status != DMC_OK) dmc_net_close(n);
    return status;
}

void dmc_net_close(dmc_net *n)
{
    if (!n) return;
    dmc_rope_free(&n->rope);
    dmc_free(n->memory);
    dmc_free(n->acts);
    dmc_free(n);
}

size_t dmc_net_bytes(const dmc_net *n) { return n->bytes; }

const dmc_attention_saved *dmc_net_attention(const dmc_net *n, int il) { return &n->acts[il].saved; }

void dmc_net_set_channel(dmc_net *n, int channel) { n->c.policy.channel = channel; }
void dmc_net_set_offset(dmc_net *n, float offset) { n->c.policy.offset = offset; }
void dmc_net_set_period(dmc_net *n, int period) { n->c.policy.period = period; }

void dmc_net_linear(const dmc_net *n, dmc_math math, int64_t M, const float *x, const float *w, int64_t rows,
                    int64_t cols, const float *bias, float *y)
{
    if (math == DMC_MATH_F32) { /* as serving does */
        dmc_weight m = {.dtype = DMC_F32, .rows = rows, .cols = cols, .data = w};
        dmc_linear(&n->cpu, M, x, &m, bias, y);
        return;
    }
    dmc_gemm(&n->cpu, math, M, rows, cols, x, cols, 1, w, 1, cols, y, rows, false);
    if (bias) dmc_bias_rows(&n->cpu, M, rows, bias, y);
}

/* ---- forward ---- */

/* y = x W^T + b, W and b at their offsets in w */
static void linear(const dmc_net *n, const dmc_pass *p, const float *w, size_t at, size_t bias, bool has_bias,
                   int64_t rows, int64_t cols, const float *x, float *y)
{
    dmc_net_linear(n, p->math, (int64_t)n->B * n->T, x, w + at, rows, cols, has_bias ? w + bias : NULL, y);
}

typedef struct {
    const dmc_net *n;
    dmc_attention_shape s;
    dmc_layer_acts *a;
    dmc_attention_in in;
    const float *d_alpha; /* [B][H] of the layer, or NULL */
    const int32_t *n_counted;
} heads_job;

static heads_job heads_of(const dmc_net *n, const dmc_pass *p, int il)
{
    dmc_layer_acts *a = &n->acts[il];
    return (heads_job){
        .n = n,
        .s = shape_of(n, p, il),
        .a = a,
        .in = {.q = a->q, .k = a->k, .v = a->v, .adapter = dmc_config_has_adapter(&n->c) ? a->adapter : NULL}};
}

static float *scratch_of(const dmc_net *n, int thread) { return n->scratch + (size_t)thread * n->scratch_floats; }

static void attention_task(void *arg, int64_t task, int thread)
{
    const heads_job *g = arg;
    int b = (int)(task / g->s.H), h = (int)(task % g->s.H);
    dmc_attention_forward(&g->s, &g->a->saved, b, h, &g->in, g->a->att, scratch_of(g->n, thread));
}

static void queries_and_keys(const dmc_net *n, const float *w, const dmc_pass *p, int il)
{
    const dmc_config *c = &n->c;
    int64_t M = (int64_t)n->B * n->T, E = c->n_embd, Q = c->n_heads * c->head_dim, K = c->n_kv_heads * c->head_dim;
    const dmc_layer_at *at = &n->l->layers[il];
    dmc_layer_acts *a = &n->acts[il];
    dmc_rmsnorm_rows(&n->cpu, M, E, a->x, w + at->norm1, c->norm_eps, a->h1, a->rs1); /* h1 = norm(x) */
    float *q = c->qk_norm ? a->q_lin : a->q, *k = c->qk_norm ? a->k_lin : a->k;
    linear(n, p, w, at->wq, at->bq, c->qkv_bias, Q, E, a->h1, q); /* q = h1 Wq^T */
    linear(n, p, w, at->wk, at->bk, c->qkv_bias, K, E, a->h1, k);
    if (!c->qk_norm) return;
    int64_t D = c->head_dim; /* q = norm(q), of each head */
    dmc_rmsnorm_rows(&n->cpu, M * Q / D, D, q, w + at->q_norm, c->norm_eps, a->q, a->rs_q);
    dmc_rmsnorm_rows(&n->cpu, M * K / D, D, k, w + at->k_norm, c->norm_eps, a->k, a->rs_k);
}

/* Decisions of DMS from the residual stream: adapter = norm(x) W^T. */
static void adapters(const dmc_net *n, const float *w, int il)
{
    const dmc_config *c = &n->c;
    int64_t M = (int64_t)n->B * n->T, E = c->n_embd;
    const dmc_layer_at *at = &n->l->layers[il];
    dmc_layer_acts *a = &n->acts[il];
    if (!dmc_config_has_adapter(c)) return;
    dmc_rmsnorm_rows(&n->cpu, M, E, a->x, w + at->adapter_norm, c->norm_eps, a->h_adapter, a->rs_adapter);
    dmc_net_linear(n, DMC_MATH_F32, M, a->h_adapter, w + at->adapter, c->n_kv_heads, E, NULL, a->adapter);
}

/* Everything of a layer that its backward pass needs, from its input. */
static void layer_forward(const dmc_net *n, const float *w, const dmc_pass *p, int il)
{
    const dmc_config *c = &n->c;
    int64_t M = (int64_t)n->B * n->T, E = c->n_embd, F = c->n_ff, Q = c->n_heads * c->head_dim,
            K = c->n_kv_heads * c->head_dim;
    const dmc_layer_at *at = &n->l->layers[il];
    dmc_layer_acts *a = &n->acts[il];
    heads_job g = heads_of(n, p, il);
    queries_and_keys(n, w, p, il);
    adapters(n, w, il);
    linear(n, p, w, at->wv, at->bv, c->qkv_bias, K, E, a->h1, a->v);
    a->saved.noise = p->noise ? p->noise + (int64_t)il * n->B * g.s.H * n->T : NULL;
    dmc_parallel(n->cpu.threads, (int64_t)n->B * g.s.H, attention_task, &g);
    linear(n, p, w, at->wo, at->bo, c->o_bias, E, Q, a->att, n->d_a);
    dmc_add_rows(&n->cpu, M * E, a->x, n->d_a, a->x2);                                 /* x2 = x + att Wo^T */
    dmc_rmsnorm_rows(&n->cpu, M, E, a->x2, w + at->norm2, c->norm_eps, a->h2, a->rs2); /* h2 = norm(x2) */
    linear(n, p, w, at->wg, at->bg, c->mlp_bias, F, E, a->h2, a->gate);
    linear(n, p, w, at->wu, at->bu, c->mlp_bias, F, E, a->h2, a->up);
    dmc_swiglu_rows(&n->cpu, M * F, a->gate, a->up, a->act); /* act = silu(gate) up */
}

const float *dmc_net_forward(dmc_net *n, const float *w, const dmc_pass *p)
{
    const dmc_config *c = &n->c;
    int64_t M = (int64_t)n->B * n->T, E = c->n_embd, F = c->n_ff;
    dmc_weight embed = {.dtype = DMC_F32, .rows = c->n_vocab, .cols = E, .data = w + n->l->embed};
    dmc_embed(M, p->ids, &embed, n->acts[0].x); /* [M][E] */
    for (int il = 0; il < c->n_layers; il++) {
        const dmc_layer_at *at = &n->l->layers[il];
        const dmc_layer_acts *a = &n->acts[il];
        float *next = il + 1 < c->n_layers ? n->acts[il + 1].x : n->x_out;
        layer_forward(n, w, p, il);
        linear(n, p, w, at->wd, at->bd, c->mlp_bias, E, F, a->act, n->d_a);
        dmc_add_rows(&n->cpu, M * E, a->x2, n->d_a, next); /* x' = x2 + act Wd^T */
    }
    dmc_rmsnorm_rows(&n->cpu, M, E, n->x_out, w + n->l->norm, c->norm_eps, n->hidden, n->rs_out);
    return n->hidden;
}

void dmc_net_qk(dmc_net *n, const float *w, int il, const float **q, const float **k)
{
    if (n->keep != DMC_KEEP_ALL) queries_and_keys(n, w, &(dmc_pass){.math = DMC_MATH_F32}, il);
    *q = n->acts[il].q;
    *k = n->acts[il].k;
}

/* ---- backward ---- */

/* y = x W^T + b:  dx (+)= dy W;  dW (+)= dy^T x;  db (+)= sum of rows; nothing for what is frozen */
static void linear_backward(const dmc_net *n, const dmc_pass *p, const float *w, float *g, size_t at, size_t bias,
                            bool has_bias, int64_t rows, int64_t cols, const float *x, const float *dy, float *dx,
                            bool accumulate)
{
    int64_t M = (int64_t)n->B * n->T;
    dmc_gemm(&n->cpu, p->math, M, cols, rows, dy, rows, 1, w + at, cols, 1, dx, cols, accumulate);
    float *dw = dmc_grad_of(n, g, at), *db = has_bias ? dmc_grad_of(n, g, bias) : NULL;
    if (dw) dmc_gemm(&n->cpu, p->math, rows, cols, M, dy, 1, rows, x, cols, 1, dw, cols, p->accumulate);
    if (db) dmc_bias_rows_grad(&n->cpu, M, rows, dy, db, p->accumulate);
}

/* h = norm(x):  dx += ..., dgain (+)= ... */
static void norm_backward(const dmc_net *n, const dmc_pass *p, const float *w, float *g, size_t gain, const float *x,
                          const float *rs, const float *dh, float *dx)
{
    dmc_rmsnorm_rows_grad(&n->cpu, (int64_t)n->B * n->T, n->c.n_embd, x, w + gain, rs, dh, dx, dmc_grad_of(n, g, gain),
                          p->accumulate, n->norm_parts);
}

static void attention_backward_task(void *arg, int64_t task, int thread)
{
    const heads_job *g = arg;
    const dmc_net *n = g->n;
    const dmc_layer_acts *a = g->a;
    int b = (int)(task / g->s.H), h = (int)(task % g->s.H);
    dmc_attention_backward(&g->s, &a->saved, b, h, &g->in, a->att, n->d_b, g->d_alpha ? g->d_alpha[task] : 0,
                           g->d_alpha ? g->n_counted[b] : 0, &n->d_att, scratch_of(n, thread));
}

/* A task of its own, since heads of a layer may decide as one. */
static void decisions_backward_task(void *arg, int64_t b, int thread)
{
    const heads_job *g = arg;
    (void)thread;
    dmc_attention_backward_decisions(&g->s, (int)b, &g->n->d_att);
}

static void add_pull(dmc_net *n, const heads_job *g)
{
    for (int64_t task = 0; task < (int64_t)n->B * g->s.H; task++)
        for (int i = 1; i < g->n_counted[task / g->s.H]; i++) {
            const float alpha = g->a->saved.alpha[task * n->T + i];
            n->pull += n->d_att.logit[task * n->T + i];
            n->give += alpha * (1 - alpha) / g->s.tau;
        }
}

double dmc_net_pull(const dmc_net *n) { return n->give > 0 ? n->pull / n->give : 0; }

/* q = norm(q_lin) of each head: the gradient of q_lin, in n->d_b, that of q otherwise */
static float *head_norm_backward(const dmc_net *n, const dmc_pass *p, const float *w, float *g, size_t gain,
                                 int64_t n_heads, const float *x, const float *rs, float *d_q)
{
    int64_t rows = (int64_t)n->B * n->T * n_heads, D = n->c.head_dim;
    if (!n->c.qk_norm) return d_q;
    dmc_zero_rows(&n->cpu, rows * D, n->d_b);
    dmc_rmsnorm_rows_grad(&n->cpu, rows, D, x, w + gain, rs, d_q, n->d_b, dmc_grad_of(n, g, gain), p->accumulate,
                          n->norm_parts);
    return n->d_b;
}

/* adapter = norm(x) W^T; without soft decisions nothing comes back to it */
static void adapters_backward(const dmc_net *n, const dmc_pass *p, const float *w, float *g, int il)
{
    const dmc_config *c = &n->c;
    const dmc_layer_at *at = &n->l->layers[il];
    const dmc_layer_acts *a = &n->acts[il];
    if (!dmc_config_has_adapter(c)) return;
    if (p->mode != DMC_MODE_SOFT) dmc_zero_rows(&n->cpu, (int64_t)n->B * n->T * c->n_kv_heads, n->d_att.adapter);
    dmc_pass f32 = *p;
    f32.math = DMC_MATH_F32;
    linear_backward(n, &f32, w, g, at->adapter, 0, false, c->n_kv_heads, c->n_embd, a->h_adapter, n->d_att.adapter,
                    n->d_b, false);
    norm_backward(n, p, w, g, at->adapter_norm, a->x, a->rs_adapter, n->d_b, n->d_x);
}

void dmc_net_backward(dmc_net *n, const float *w, const dmc_pass *p, const float *d_alpha, const int32_t *n_counted,
                      float *g)
{
    const dmc_config *c = &n->c;
    int64_t M = (int64_t)n->B * n->T, E = c->n_embd, F = c->n_ff, D = c->head_dim, Q = c->n_heads * D,
            K = c->n_kv_heads * D;
    n->pull = n->give = 0;
    dmc_zero_rows(&n->cpu, M * E, n->d_x);
    norm_backward(n, p, w, g, n->l->norm, n->x_out, n->rs_out, n->d_hidden, n->d_x);
    for (int il = c->n_layers - 1; il >= 0; il--) {
        const dmc_layer_at *at = &n->l->layers[il];
        dmc_layer_acts *a = &n->acts[il];
        float *d_gate = n->d_g, *d_up = n->d_g + M * F;
        if (n->keep == DMC_KEEP_INPUTS && il + 1 < c->n_layers) layer_forward(n, w, p, il); /* the last one is there */
        /* x' = x2 + act Wd^T */
        linear_backward(n, p, w, g, at->wd, at->bd, c->mlp_bias, E, F, a->act, n->d_x, n->d_f, false);
        /* act = silu(gate) up */
        dmc_swiglu_rows_grad(&n->cpu, M * F, a->gate, a->up, n->d_f, d_gate, d_up);
        /* gate = h2 Wg^T, up = h2 Wu^T */
        linear_backward(n, p, w, g, at->wg, at->bg, c->mlp_bias, F, E, a->h2, d_gate, n->d_a, false);
        linear_backward(n, p, w, g, at->wu, at->bu, c->mlp_bias, F, E, a->h2, d_up, n->d_a, true);
        /* h2 = norm(x2): n->d_x becomes the gradient of x2 */
        norm_backward(n, p, w, g, at->norm2, a->x2, a->rs2, n->d_a, n->d_x);
        /* x2 = x + att Wo^T */
        linear_backward(n, p, w, g, at->wo, at->bo, c->o_bias, E, Q, a->att, n->d_x, n->d_b, false);
        heads_job heads = heads_of(n, p, il);
        heads.d_alpha = d_alpha ? d_alpha + (int64_t)il * n->B * heads.s.H : NULL;
        heads.n_counted = n_counted;
        dmc_parallel(n->cpu.threads, (int64_t)n->B * heads.s.H, attention_backward_task, &heads);
        dmc_parallel(n->cpu.threads, n->B, decisions_backward_task, &heads);
        if (d_alpha) add_pull(n, &heads);
        adapters_backward(n, p, w, g, il);
        /* q = h1 Wq^T, k = h1 Wk^T, v = h1 Wv^T, and the norms of q and k */
        const float *d_q = head_norm_backward(n, p, w, g, at->q_norm, c->n_heads, a->q_lin, a->rs_q, n->d_att.q);
        linear_backward(n, p, w, g, at->wq, at->bq, c->qkv_bias, Q, E, a->h1, d_q, n->d_a, false);
        const float *d_k = head_norm_backward(n, p, w, g, at->k_norm, c->n_kv_heads, a->k_lin, a->rs_k, n->d_att.k);
        linear_backward(n, p, w, g, at->wk, at->bk, c->qkv_bias, K, E, a->h1, d_k, n->d_a, true);
        linear_backward(n, p, w, g, at->wv, at->bv, c->qkv_bias, K, E, a->h1, n->d_att.v, n->d_a, true);
        /* h1 = norm(x) */
        norm_backward(n, p, w, g, at->norm1, a->x, a->rs1, n->d_a, n->d_x);
    }
    /* x = embed[id]; a head that is the embedding has left its gradient there */
    float *d_embed = dmc_grad_of(n, g, n->l->embed);
    if (!d_embed) return;
    if (!p->accumulate && n->l->embed != n->l->head) dmc_zero_rows(&n->cpu, c->n_vocab * E, d_embed);
    dmc_embed_grad(&n->cpu, M, E, p->ids, n->d_x, d_embed);
}

/* ---- noise ---- */

enum { NOISE = 4096 }; /* a task's values */

typedef struct {
    float *noise, scale;
    int64_t n;
    uint64_t seed, pass;
} noise_job;

static void noise_task(void *arg, int64_t task, int thread)
{
    const noise_job *g = arg;
    (void)thread;
    for (int64_t i = task * NOISE; i < g->n && i < (task + 1) * NOISE; i++) {
        double u = dmc_uniform(g->seed, g->pass, (uint64_t)i);
        g->noise[i] = g->scale * (float)log(u / (1 - u));
    }
}

void dmc_noise_fill(const dmc_cpu *cpu, float *noise, const dmc_config *c, int B, int T, uint64_t seed, uint64_t pass,
                    float scale)
{
    noise_job g = {noise, scale, (int64_t)c->n_layers * B * c->n_kv_heads * T, seed, pass};
    dmc_parallel(cpu->threads, (g.n + NOISE - 1) / NOISE, noise_task, &g);
}
