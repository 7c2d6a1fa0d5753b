/* Finds a model's weights in its checkpoint. */
#include "model/weights.h"

#include <string.h>

typedef struct {
    const dmc_checkpoint *c;
    float *free; /* what is left of the vectors' memory */
    int il;      /* layer, or -1 */
} finder;

static dmc_status find(const dmc_tensor **out, const finder *f, const char *name, int64_t rows, int64_t cols)
{
    char full[160];
    *out = NULL;
    if (f->il < 0) snprintf(full, sizeof full, "%s", name);
    else snprintf(full, sizeof full, "model.layers.%d.%s", f->il, name);
    const dmc_tensor *t = dmc_checkpoint_find(f->c, full);
    if (!t) return dmc_fail(DMC_ERR_FORMAT, "%s: the tensor '%s' is missing", f->c->path, full);
    if (t->shape[0] != rows || t->shape[1] != cols)
        return dmc_fail(DMC_ERR_FORMAT, "%s: '%s' has shape [%lld, %lld], the configuration wants [%lld, %lld]",
                        f->c->path, full, (long long)t->shape[0], (long long)t->shape[1], (long long)rows,
                        (long long)cols);
    if (t->dtype != DMC_F32 && cols > DMC_MAX_COLS)
        return dmc_fail(DMC_ERR_UNSUPPORTED, "%s: '%s' has rows of %lld elements; above %d they must be F32",
                        f->c->path, full, (long long)cols, DMC_MAX_COLS);
    *out = t;
    return DMC_OK;
}

static dmc_status matrix(dmc_weight *out, const finder *f, const char *name, int64_t rows, int64_t cols)
{
    const dmc_tensor *t;
    DMC_TRY(find(&t, f, name, rows, cols));
    *out = (dmc_weight){.dtype = t->dtype, .rows = rows, .cols = cols, .data = t->data};
    return DMC_OK;
}

static dmc_status vector(const float **out, finder *f, const char *name, int64_t n)
{
    const dmc_tensor *t;
    DMC_TRY(find(&t, f, name, n, 1));
    dmc_decode_row(t->dtype, t->data, f->free, (size_t)n);
    *out = f->free;
    f->free += n;
    return DMC_OK;
}

static dmc_status layer(dmc_layer *l, finder *f)
{
    const dmc_config *c = &f->c->config;
    int64_t E = c->n_embd, F = c->n_ff, Q = (int64_t)c->n_heads * c->head_dim, K = (int64_t)c->n_kv_heads * c->head_dim;
    DMC_TRY(vector(&l->attn_norm, f, "input_layernorm.weight", E));
    DMC_TRY(vector(&l->ffn_norm, f, "post_attention_layernorm.weight", E));
    DMC_TRY(matrix(&l->q, f, "self_attn.q_proj.weight", Q, E));
    DMC_TRY(matrix(&l->k, f, "self_attn.k_proj.weight", K, E));
    DMC_TRY(matrix(&l->v, f, "self_attn.v_proj.weight", K, E));
    DMC_TRY(matrix(&l->o, f, "self_attn.o_proj.weight", E, Q));
    DMC_TRY(matrix(&l->gate, f, "mlp.gate_proj.weight", F, E));
    DMC_TRY(matrix(&l->up, f, "mlp.up_proj.weight", F, E));
    DMC_TRY(matrix(&l->down, f, "mlp.down_proj.weight", E, F));
    if (c->qkv_bias) {
        DMC_TRY(vector(&l->q_bias, f, "self_attn.q_proj.bias", Q));
        DMC_TRY(vector(&l->k_bias, f, "self_attn.k_proj.bias", K));
        DMC_TRY(vector(&l->v_bias, f, "self_attn.v_proj.bias", K));
    }
    if (c->o_bias) DMC_TRY(vector(&l->o_bias, f, "self_attn.o_proj.bias", E));
    if (c->mlp_bias) {
        DMC_TRY(vector(&l->gate_bias, f, "mlp.gate_proj.bias", F));
        DMC_TRY(vector(&l->up_bias, f, "mlp.up_proj.bias", F));
        DMC_TRY(vector(&l->down_bias, f, "mlp.down_proj.bias", E));
    }
    return DMC_OK;
}

/* Norms and biases of a layer together: at most. */
static size_t vector_floats(const dmc_config *c)
{
    return 4 * (size_t)c->n_embd + 2 * (size_t)c->n_ff +
           ((size_t)c->n_heads + 2 * (size_t)c->n_kv_heads) * (size_t)c->head_dim;
}

dmc_status dmc_model_create(dmc_model *m, const dmc_checkpoint *c, const dmc_kernels *kernels)
{
    dmc_status status;
    const dmc_config *g = &c->config;
    finder f = {.c = c, .il = -1};
    *m = (dmc_model){.config = *g, .kernels = kernels};
    DMC_GOTO(dmc_array(&m->layers, (size_t)g->n_layers, sizeof *m->layers));
    DMC_GOTO(dmc_array(&m->vectors, (size_t)g->n_embd + (size_t)g->n_layers * vector_floats(g), sizeof *m->vectors));
    f.free = m->vectors;
    DMC_GOTO(matrix(&m->embed, &f, "model.embed_tokens.weight", g->n_vocab, g->n_embd));
    DMC_GOTO(vector(&m->norm, &f, "model.norm.weight", g->n_embd));
    m->head = m->embed;
    if (!g->tied) DMC_GOTO(matrix(&m->head, &f, "lm_head.weight", g->n_vocab, g->n_embd));
    for (f.il = 0; f.il < g->n_layers; f.il++) DMC_GOTO(layer(&m->layers[f.il], &f));
    return DMC_OK;
done:
    dmc_model_free(m);
    return status;
}

void dmc_model_free(dmc_model *m)
{
    dmc_free(m->vectors);
    dmc_free(m->layers);
    *m = (dmc_model){0};
}
