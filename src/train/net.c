/* Forward and backward of the whole network. Each backward line quotes the forward line that it differentiates. */
#include "train/net.h"

#include <math.h>
#include <omp.h>
#include <string.h>

enum { HEAD_ROWS = 256, NORM_PARTS = 16 }; /* rows of logits alive at a time; partial sums of a gain's gradient */

typedef struct {
    float *x, *h1, *q, *k, *v, *att, *x2, *h2, *gate, *up, *act; /* [M][...] */
    float *rs1, *rs2;                                            /* [M] */
    dmc_attention_saved saved;
} layer_acts;

struct dmc_net {
    dmc_config c;
    const dmc_layout *l;
    const dmc_kernels *kn;
    dmc_rope rope;
    int B, T, n_threads;
    bool save;
    layer_acts *acts;               /* [n_layers], or all the same */
    float *x_out, *hidden, *rs_out; /* residual after the last layer, after the final norm, its 1/rms */
    float *d_hidden;                /* [M][E] */
    float *d_x, *d_a, *d_b, *d_f, *d_g, *d_q, *d_k, *d_v, *norm_parts; /* backward scratch */
    float *logits, *teacher_logits;                                    /* [HEAD_ROWS][V] */
    float *probs;                                                      /* [n_threads][2][V] */
    float *scratch;                                                    /* [n_threads][scratch_floats] */
    size_t scratch_floats, bytes;
    float *memory;
};

static dmc_attention_shape shape_of(const dmc_net *n, const dmc_pass *p)
{
    return (dmc_attention_shape){.B = n->B,
                                 .T = n->T,
                                 .H = n->c.n_kv_heads,
                                 .G = n->c.n_heads / n->c.n_kv_heads,
                                 .D = n->c.head_dim,
                                 .mode = p ? p->mode : DMC_MODE_SOFT,
                                 .policy = n->c.policy,
                                 .tau = p ? p->tau : 1,
                                 .channel_scale = p ? p->channel_scale : 1,
                                 .rope = &n->rope,
                                 .kernels = n->kn};
}

/* Lays the net's arrays out in memory, or only counts the floats when memory is NULL. */
static size_t carve(dmc_net *n, float *memory)
{
    size_t M = (size_t)n->B * n->T, E = (size_t)n->c.n_embd, F = (size_t)n->c.n_ff, at = 0;
    size_t Q = (size_t)n->c.n_heads * n->c.head_dim, K = (size_t)n->c.n_kv_heads * n->c.head_dim,
           V = (size_t)n->c.n_vocab;
    dmc_attention_shape s = shape_of(n, NULL);
    size_t saved = dmc_attention_saved_floats(&s);
#define TAKE(field, count) ((field) = memory ? memory + at : NULL, at += ((count) + 15) / 16 * 16)
    for (int il = 0; il < n->c.n_layers; il++) {
        layer_acts *a = &n->acts[il];
        if (il && !n->save) {
            *a = n->acts[0];
            continue;
        }
        float *attention;
        TAKE(a->x, M * E), TAKE(a->h1, M * E), TAKE(a->q, M * Q), TAKE(a->k, M * K), TAKE(a->v, M * K),
            TAKE(a->att, M * Q);
        TAKE(a->x2, M * E), TAKE(a->h2, M * E), TAKE(a->gate, M * F), TAKE(a->up, M * F), TAKE(a->act, M * F);
        TAKE(a->rs1, M), TAKE(a->rs2, M), TAKE(attention, saved);
        if (memory) dmc_attention_saved_carve(&a->saved, &s, attention);
    }
    TAKE(n->x_out, M * E), TAKE(n->hidden, M * E), TAKE(n->rs_out, M);
    TAKE(n->scratch, (size_t)n->n_threads * n->scratch_floats);
    TAKE(n->d_a, M * E); /* also the forward's residual update */
    TAKE(n->logits, HEAD_ROWS * V), TAKE(n->teacher_logits, HEAD_ROWS * V);
    TAKE(n->probs, (size_t)n->n_threads * 2 * V);
    if (n->save) {
        TAKE(n->d_hidden, M * E), TAKE(n->d_x, M * E), TAKE(n->d_b, M * (E > Q ? E : Q)), TAKE(n->d_f, M * F),
            TAKE(n->d_g, 2 * M * F);
        TAKE(n->d_q, M * Q), TAKE(n->d_k, M * K), TAKE(n->d_v, M * K), TAKE(n->norm_parts, NORM_PARTS * E);
    }
#undef TAKE
    return at;
}

dmc_status dmc_net_create(dmc_net **out, const dmc_config *c, const dmc_layout *l, const dmc_kernels *kn, int B, int T,
                          bool save)
{
    dmc_net *n = NULL;
    double *inv_freq = NULL;
    dmc_status status = DMC_OK;
    *out = NULL;
    if (B < 1 || T < 1) return dmc_fail(DMC_ERR_ARG, "a batch of %d sequences of %d tokens", B, T);
    DMC_TRY(dmc_array(&n, 1, sizeof *n));
    n->c = *c, n->l = l, n->kn = kn, n->B = B, n->T = T, n->save = save, n->n_threads = omp_get_max_threads();
    DMC_GOTO(dmc_array(&n->acts, (size_t)c->n_layers, sizeof *n->acts));
    DMC_GOTO(dmc_array(&inv_freq, (size_t)c->head_dim / 2, sizeof *inv_freq));
    dmc_config_inv_freq(c, inv_freq);
    DMC_GOTO(dmc_rope_create(&n->rope, c->head_dim, T, c->rope_interleaved, inv_freq));
    dmc_attention_shape s = shape_of(n, NULL);
    n->scratch_floats = (dmc_attention_scratch_floats(&s) + 15) / 16 * 16;
    size_t floats = carve(n, NULL);
    n->bytes = floats * sizeof(float);
    n->memory = dmc_malloc(floats, sizeof(float));
    if (!n->memory) {
        status = dmc_fail(DMC_ERR_MEMORY,
                          "training needs %.1f GiB for %d sequences of %d tokens: take a smaller --batch or --ctx",
                          (double)n->bytes / 0x1p30, B, T);
        goto done;
    }
    carve(n, n->memory);
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

const dmc_attention_saved *dmc_net_attention(const dmc_net *n, int il) { return &n->acts[il].saved; }

void dmc_net_set_channel(dmc_net *n, int channel) { n->c.policy.channel = channel; }

void dmc_net_qk(const dmc_net *n, int il, const float **q, const float **k)
{
    *q = n->acts[il].q;
    *k = n->acts[il].k;
}

static dmc_weight matrix(const float *w, size_t at, int64_t rows, int64_t cols)
{
    return (dmc_weight){.dtype = DMC_F32, .rows = rows, .cols = cols, .data = w + at};
}

/* y = x W^T + b */
static void linear(const dmc_net *n, const float *w, size_t at, size_t bias, bool has_bias, int64_t rows, int64_t cols,
                   const float *x, float *y)
{
    dmc_weight m = matrix(w, at, rows, cols);
    dmc_linear(n->kn, (int64_t)n->B * n->T, x, &m, has_bias ? w + bias : NULL, y);
}

static void add_rows(float *y, const float *a, const float *b, int64_t n)
{
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

const float *dmc_net_forward(dmc_net *n, const float *w, const dmc_pass *p)
{
    const dmc_config *c = &n->c;
    int64_t M = (int64_t)n->B * n->T, E = c->n_embd, F = c->n_ff, D = c->head_dim, Q = c->n_heads * D,
            K = c->n_kv_heads * D;
    dmc_attention_shape s = shape_of(n, p);
    dmc_weight embed = matrix(w, n->l->embed, c->n_vocab, E);
    dmc_embed(M, p->ids, &embed, n->acts[0].x); /* [M][E] */
    for (int il = 0; il < c->n_layers; il++) {
        const dmc_layer_at *at = &n->l->layers[il];
        layer_acts *a = &n->acts[il];
        float *next = il + 1 < c->n_layers ? n->acts[il + 1].x : n->x_out;
        dmc_rmsnorm_rows(n->kn, M, E, a->x, w + at->norm1, c->norm_eps, a->h1, a->rs1); /* h1 = norm(x) */
        linear(n, w, at->wq, at->bq, c->qkv_bias, Q, E, a->h1, a->q);                   /* q = h1 Wq^T */
        linear(n, w, at->wk, at->bk, c->qkv_bias, K, E, a->h1, a->k);
        linear(n, w, at->wv, at->bv, c->qkv_bias, K, E, a->h1, a->v);
        a->saved.noise = p->noise ? p->noise + (int64_t)il * n->B * s.H * n->T : NULL;
#pragma omp parallel for collapse(2) schedule(dynamic)
        for (int b = 0; b < n->B; b++)
            for (int h = 0; h < s.H; h++)
                dmc_attention_forward(&s, &a->saved, b, h, a->q, a->k, a->v, a->att,
                                      n->scratch + (size_t)omp_get_thread_num() * n->scratch_floats);
        linear(n, w, at->wo, at->bo, c->o_bias, E, Q, a->att, n->d_a);
        add_rows(a->x2, a->x, n->d_a, M * E);                                            /* x2 = x + att Wo^T */
        dmc_rmsnorm_rows(n->kn, M, E, a->x2, w + at->norm2, c->norm_eps, a->h2, a->rs2); /* h2 = norm(x2) */
        linear(n, w, at->wg, at->bg, c->mlp_bias, F, E, a->h2, a->gate);
        linear(n, w, at->wu, at->bu, c->mlp_bias, F, E, a->h2, a->up);
        dmc_swiglu_rows(n->kn, M * F, a->gate, a->up, a->act); /* act = silu(gate) up */
        linear(n, w, at->wd, at->bd, c->mlp_bias, E, F, a->act, n->d_a);
        add_rows(next, a->x2, n->d_a, M * E); /* x' = x2 + act Wd^T */
    }
    dmc_rmsnorm_rows(n->kn, M, E, n->x_out, w + n->l->norm, c->norm_eps, n->hidden, n->rs_out);
    return n->hidden;
}

void dmc_net_logits(const dmc_net *n, const float *w, int64_t row, int64_t n_rows, float *logits)
{
    dmc_weight head = matrix(w, n->l->head, n->c.n_vocab, n->c.n_embd);
    dmc_linear(n->kn, n_rows, n->hidden + row * n->c.n_embd, &head, NULL, logits);
}

/* ---- losses ---- */

/* The id that row `row` must predict, or -1. */
static int32_t target_of(const dmc_net *n, const dmc_pass *p, int64_t row)
{
    int64_t t = row % n->T, length = p->lengths ? p->lengths[row / n->T] : n->T;
    return t + 1 < length ? p->ids[row + 1] : -1;
}

typedef struct {
    double ce, kl;
} row_loss;

/* z: logits of the student, replaced by their gradient times the weights. t: the teacher's (NULL: no distillation), replaced too.
 * p_s, p_t: room for the probabilities, [V] each. */
static row_loss loss_of_row(const dmc_net *n, const dmc_loss_options *o, int32_t target, float *z, float *t, float *p_s,
                            float *p_t, float ce_w, float kl_w)
{
    int64_t V = n->c.n_vocab;
    row_loss r = {0, 0};
    float lse = n->kn->softmax(V, z, p_s);
    if (target < 0) ce_w = 0;
    else r.ce = lse - z[target];
    if (t) {
        float tlse = n->kn->softmax(V, t, p_t), kl = 0, shift = lse - tlse;
        for (int64_t v = 0; v < V; v++) { /* t becomes log p_s - log p_t */
            t[v] = z[v] - t[v] - shift;
            kl += o->kl_forward ? -p_t[v] * t[v] : p_s[v] * t[v];
        }
        r.kl = kl;
        /* d KL(t||s)/dz = p_s - p_t;  d KL(s||t)/dz = p_s (log p_s - log p_t - KL) */
        for (int64_t v = 0; v < V; v++)
            z[v] = ce_w * p_s[v] + kl_w * (o->kl_forward ? p_s[v] - p_t[v] : p_s[v] * (t[v] - kl));
    } else {
        for (int64_t v = 0; v < V; v++) z[v] = ce_w * p_s[v]; /* dce/dz = p - 1[target] */
    }
    if (target >= 0) z[target] -= ce_w;
    return r;
}

dmc_loss dmc_net_loss(dmc_net *n, const float *w, const dmc_pass *p, const dmc_loss_options *o, float *g, float scale)
{
    int64_t M = (int64_t)n->B * n->T, E = n->c.n_embd, V = n->c.n_vocab;
    dmc_loss sum = {0};
    for (int64_t row = 0; row < M; row++) {
        sum.n_ce += target_of(n, p, row) >= 0;
        sum.n_kl += !p->lengths || row % n->T < p->lengths[row / n->T];
    }
    float ce_w = sum.n_ce ? scale * o->ce_weight / (float)sum.n_ce : 0,
          kl_w = sum.n_kl ? scale * o->kl_weight / (float)sum.n_kl : 0;
    bool distill = o->teacher_hidden != NULL;
    for (int64_t row = 0; row < M; row += HEAD_ROWS) {
        int64_t rows = M - row < HEAD_ROWS ? M - row : HEAD_ROWS;
        double ce = 0, kl = 0;
        dmc_net_logits(n, w, row, rows, n->logits);
        if (distill) {
            dmc_weight head = {.dtype = DMC_F32, .rows = V, .cols = E, .data = o->teacher_head};
            dmc_linear(n->kn, rows, o->teacher_hidden + row * E, &head, NULL, n->teacher_logits);
        }
        row_loss each[HEAD_ROWS];
#pragma omp parallel for schedule(static)
        for (int64_t r = 0; r < rows; r++) {
            int64_t m = row + r;
            bool counts = !p->lengths || m % n->T < p->lengths[m / n->T];
            float *z = n->logits + r * V, *room = n->probs + (size_t)omp_get_thread_num() * 2 * V;
            each[r] = (row_loss){0, 0};
            if (counts)
                each[r] = loss_of_row(n, o, target_of(n, p, m), z, distill ? n->teacher_logits + r * V : NULL, room,
                                      room + V, ce_w, kl_w);
            else memset(z, 0, (size_t)V * sizeof *z);
        }
        for (int64_t r = 0; r < rows; r++) ce += each[r].ce, kl += each[r].kl;
        sum.ce += ce, sum.kl += kl;
        if (!g) continue;
        dmc_gemm_nn(n->kn, rows, E, V, n->logits, V, 1, w + n->l->head, E, n->d_hidden + row * E, E,
                    false); /* logits = hidden W^T */
        dmc_gemm_nn(n->kn, V, E, rows, n->logits, 1, V, n->hidden + row * E, E, g + n->l->head, E, true);
    }
    if (sum.n_ce) sum.ce /= (double)sum.n_ce;
    if (sum.n_kl) sum.kl /= (double)sum.n_kl;
    return sum;
}

/* ---- backward ---- */

/* y = x W^T + b:  dx (+)= dy W;  dW += dy^T x;  db += sum of rows */
static void linear_backward(const dmc_net *n, const float *w, float *g, size_t at, size_t bias, bool has_bias,
                            int64_t rows, int64_t cols, const float *x, const float *dy, float *dx, bool accumulate)
{
    int64_t M = (int64_t)n->B * n->T;
    if (dx) dmc_gemm_nn(n->kn, M, cols, rows, dy, rows, 1, w + at, cols, dx, cols, accumulate);
    dmc_gemm_nn(n->kn, rows, cols, M, dy, 1, rows, x, cols, g + at, cols, true);
    if (!has_bias) return;
    for (int64_t m = 0; m < M; m++)
        for (int64_t i = 0; i < rows; i++) g[bias + (size_t)i] += dy[m * rows + i];
}

/* h = norm(x):  dx += ..., dgain += ...; the rows are cut into a fixed number of parts, so threads do not change the sums. */
static void norm_backward(dmc_net *n, const float *w, float *g, size_t gain, const float *x, const float *rs,
                          const float *dh, float *dx)
{
    int64_t M = (int64_t)n->B * n->T, E = n->c.n_embd;
    memset(n->norm_parts, 0, NORM_PARTS * (size_t)E * sizeof(float));
#pragma omp parallel for schedule(static)
    for (int part = 0; part < NORM_PARTS; part++)
        for (int64_t m = M * part / NORM_PARTS; m < M * (part + 1) / NORM_PARTS; m++)
            n->kn->rmsnorm_grad(E, x + m * E, w + gain, rs[m], dh + m * E, dx + m * E, n->norm_parts + part * E);
    for (int part = 0; part < NORM_PARTS; part++)
        for (int64_t i = 0; i < E; i++) g[gain + (size_t)i] += n->norm_parts[part * E + i];
}

void dmc_net_backward(dmc_net *n, const float *w, const dmc_pass *p, const float *d_alpha, const int32_t *n_counted,
                      float *g)
{
    const dmc_config *c = &n->c;
    int64_t M = (int64_t)n->B * n->T, E = c->n_embd, F = c->n_ff, D = c->head_dim, Q = c->n_heads * D,
            K = c->n_kv_heads * D;
    dmc_attention_shape s = shape_of(n, p);
    memset(n->d_x, 0, (size_t)(M * E) * sizeof(float));
    norm_backward(n, w, g, n->l->norm, n->x_out, n->rs_out, n->d_hidden, n->d_x);
    for (int il = c->n_layers - 1; il >= 0; il--) {
        const dmc_layer_at *at = &n->l->layers[il];
        layer_acts *a = &n->acts[il];
        float *d_gate = n->d_g, *d_up = n->d_g + M * F;
        /* x' = x2 + act Wd^T */
        linear_backward(n, w, g, at->wd, at->bd, c->mlp_bias, E, F, a->act, n->d_x, n->d_f, false);
        /* act = silu(gate) up */
#pragma omp parallel for schedule(static)
        for (int64_t m = 0; m < M; m++)
            n->kn->swiglu_grad(F, a->gate + m * F, a->up + m * F, n->d_f + m * F, d_gate + m * F, d_up + m * F);
        /* gate = h2 Wg^T, up = h2 Wu^T */
        linear_backward(n, w, g, at->wg, at->bg, c->mlp_bias, F, E, a->h2, d_gate, n->d_a, false);
        linear_backward(n, w, g, at->wu, at->bu, c->mlp_bias, F, E, a->h2, d_up, n->d_a, true);
        /* h2 = norm(x2): n->d_x becomes the gradient of x2 */
        norm_backward(n, w, g, at->norm2, a->x2, a->rs2, n->d_a, n->d_x);
        /* x2 = x + att Wo^T */
        linear_backward(n, w, g, at->wo, at->bo, c->o_bias, E, Q, a->att, n->d_x, n->d_b, false);
#pragma omp parallel for collapse(2) schedule(dynamic)
        for (int b = 0; b < n->B; b++)
            for (int h = 0; h < s.H; h++)
                dmc_attention_backward(&s, &a->saved, b, h, a->q, a->k, a->v, a->att, n->d_b, d_alpha ? d_alpha[b] : 0,
                                       d_alpha ? n_counted[b] : 0, n->d_q, n->d_k, n->d_v,
                                       n->scratch + (size_t)omp_get_thread_num() * n->scratch_floats);
        /* q = h1 Wq^T, k = h1 Wk^T, v = h1 Wv^T */
        linear_backward(n, w, g, at->wq, at->bq, c->qkv_bias, Q, E, a->h1, n->d_q, n->d_a, false);
        linear_backward(n, w, g, at->wk, at->bk, c->qkv_bias, K, E, a->h1, n->d_k, n->d_a, true);
        linear_backward(n, w, g, at->wv, at->bv, c->qkv_bias, K, E, a->h1, n->d_v, n->d_a, true);
        /* h1 = norm(x) */
        norm_backward(n, w, g, at->norm1, a->x, a->rs1, n->d_a, n->d_x);
    }
    for (int64_t m = 0; m < M; m++) /* x = embed[id] */
        for (int64_t i = 0; i < E; i++) g[n->l->embed + (size_t)(p->ids[m] * E + i)] += n->d_x[m * E + i];
}

void dmc_noise_fill(float *noise, const dmc_config *c, int B, int T, uint64_t seed, uint64_t pass, float scale)
{
    int64_t n = (int64_t)c->n_layers * B * c->n_kv_heads * T;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        double u = dmc_uniform(seed, pass, (uint64_t)i);
        noise[i] = scale * (float)log(u / (1 - u));
    }
}
