/* Where each tensor lies in the flat parameter array. */
#include "train/net.h"

#include <string.h>

static size_t add(dmc_layout *l, const char *name, int64_t rows, int64_t cols, bool vector)
{
    dmc_param *p = &l->params[l->n_params++];
    snprintf(p->name, sizeof p->name, "%s", name);
    p->rows = rows;
    p->cols = cols;
    p->n_dims = vector ? 1 : 2;
    p->at = l->n_floats;
    p->decision = strstr(name, "q_proj") || strstr(name, "k_proj");
    l->n_floats += ((size_t)rows * (size_t)cols + 15) / 16 * 16;
    return p->at;
}

static size_t add_layer(dmc_layout *l, int il, const char *stem, const char *kind, int64_t rows, int64_t cols)
{
    char name[64];
    snprintf(name, sizeof name, "model.layers.%d.%s.%s", il, stem, kind);
    return add(l, name, rows, cols, cols == 1);
}

dmc_status dmc_layout_create(dmc_layout *out, const dmc_config *c)
{
    *out = (dmc_layout){0};
    int64_t E = c->n_embd, F = c->n_ff, Q = (int64_t)c->n_heads * c->head_dim, K = (int64_t)c->n_kv_heads * c->head_dim;
    dmc_status status = DMC_OK;
    DMC_GOTO(dmc_array(&out->params, 16 * (size_t)c->n_layers + 3, sizeof *out->params));
    DMC_GOTO(dmc_array(&out->layers, (size_t)c->n_layers, sizeof *out->layers));
    out->embed = out->head = add(out, "model.embed_tokens.weight", c->n_vocab, E, false);
    for (int il = 0; il < c->n_layers; il++) {
        dmc_layer_at *a = &out->layers[il];
        a->norm1 = add_layer(out, il, "input_layernorm", "weight", E, 1);
        a->wq = add_layer(out, il, "self_attn.q_proj", "weight", Q, E);
        a->wk = add_layer(out, il, "self_attn.k_proj", "weight", K, E);
        a->wv = add_layer(out, il, "self_attn.v_proj", "weight", K, E);
        a->wo = add_layer(out, il, "self_attn.o_proj", "weight", E, Q);
        a->norm2 = add_layer(out, il, "post_attention_layernorm", "weight", E, 1);
        a->wg = add_layer(out, il, "mlp.gate_proj", "weight", F, E);
        a->wu = add_layer(out, il, "mlp.up_proj", "weight", F, E);
        a->wd = add_layer(out, il, "mlp.down_proj", "weight", E, F);
        if (c->qkv_bias) {
            a->bq = add_layer(out, il, "self_attn.q_proj", "bias", Q, 1);
            a->bk = add_layer(out, il, "self_attn.k_proj", "bias", K, 1);
            a->bv = add_layer(out, il, "self_attn.v_proj", "bias", K, 1);
        }
        if (c->o_bias) a->bo = add_layer(out, il, "self_attn.o_proj", "bias", E, 1);
        if (c->mlp_bias) {
            a->bg = add_layer(out, il, "mlp.gate_proj", "bias", F, 1);
            a->bu = add_layer(out, il, "mlp.up_proj", "bias", F, 1);
            a->bd = add_layer(out, il, "mlp.down_proj", "bias", E, 1);
        }
    }
    out->norm = add(out, "model.norm.weight", E, 1, true);
    if (!c->tied) out->head = add(out, "lm_head.weight", c->n_vocab, E, false);
done:
    if (status != DMC_OK) dmc_layout_free(out);
    return status;
}

void dmc_layout_free(dmc_layout *l)
{
    dmc_free(l->params);
    dmc_free(l->layers);
    *l = (dmc_layout){0};
}

static dmc_status find(const dmc_layout *l, int i, const dmc_checkpoint *c, const dmc_tensor **out)
{
    const dmc_param *p = &l->params[i];
    const dmc_tensor *t = dmc_checkpoint_find(c, p->name);
    if (!t || t->n_dims != p->n_dims || t->shape[0] != p->rows || (t->n_dims == 2 && t->shape[1] != p->cols))
        return dmc_fail(DMC_ERR_FORMAT, "tensor '%s' is missing or not of shape [%lld, %lld]", p->name,
                        (long long)p->rows, (long long)p->cols);
    *out = t;
    return DMC_OK;
}

dmc_status dmc_layout_load(const dmc_layout *l, const dmc_checkpoint *c, float *w)
{
    memset(w, 0, l->n_floats * sizeof *w);
    for (int i = 0; i < l->n_params; i++) {
        const dmc_tensor *t = NULL;
        DMC_TRY(find(l, i, c, &t));
        const dmc_param *p = &l->params[i];
        size_t n = (size_t)(p->n_dims == 1 ? p->rows : p->cols), rows = p->n_dims == 1 ? 1 : (size_t)p->rows,
               row_bytes = 0;
        if (!dmc_dtype_row_bytes(&row_bytes, t->dtype, n))
            return dmc_fail(DMC_ERR_FORMAT, "tensor '%s': bad row length", p->name);
        for (size_t r = 0; r < rows; r++)
            dmc_decode_row(t->dtype, (const uint8_t *)t->data + r * row_bytes, w + p->at + r * n, n);
    }
    return DMC_OK;
}

dmc_status dmc_layout_store(const dmc_layout *l, const float *w, dmc_checkpoint *c)
{
    for (int i = 0; i < l->n_params; i++) {
        const dmc_tensor *t = NULL;
        DMC_TRY(find(l, i, c, &t));
        const dmc_param *p = &l->params[i];
        if (t->dtype != DMC_F32) return dmc_fail(DMC_ERR_ARG, "tensor '%s': not F32", p->name);
        memcpy((void *)(uintptr_t)t->data, w + p->at, (size_t)p->rows * (size_t)p->cols * sizeof *w);
    }
    return DMC_OK;
}
