/* Reads a llama2.c fp32 checkpoint: seven 32-bit integers, then float tensors, each kind stacked over the layers. */
#include "format/storage.h"
#include "format/vocabulary.h"

#include <limits.h>
#include <string.h>

enum { HEADER_BYTES = 7 * 4 };

/* Where each kind of tensor begins, in floats after the header. */
typedef struct {
    const dmc_config *config;
    const uint8_t *data;
    const char *where;
    size_t norm_attn, q, k, v, o, norm_ffn, gate, down, up, norm_out, output, end;
} layout;

/* Sizes come from a checked configuration, so nothing here overflows 64 bits. */
static void lay_out(layout *l)
{
    const dmc_config *c = l->config;
    size_t n = (size_t)c->n_layers, embd = (size_t)c->n_embd, ff = (size_t)c->n_ff, vocab = (size_t)c->n_vocab;
    size_t q = (size_t)c->n_heads * (size_t)c->head_dim, kv = (size_t)c->n_kv_heads * (size_t)c->head_dim;
    l->norm_attn = vocab * embd;
    l->q = l->norm_attn + n * embd;
    l->k = l->q + n * q * embd;
    l->v = l->k + n * kv * embd;
    l->o = l->v + n * kv * embd;
    l->norm_ffn = l->o + n * q * embd;
    l->gate = l->norm_ffn + n * embd;
    l->down = l->gate + n * ff * embd;
    l->up = l->down + n * ff * embd;
    l->norm_out = l->up + n * ff * embd;
    l->output = l->norm_out + embd + (size_t)c->n_ctx * (size_t)c->head_dim; /* tables of cos and sin lie between */
    l->end = l->output + (c->tied ? 0 : vocab * embd);
}

static dmc_status look_up(void *file, const dmc_weight *w, dmc_tensor *found)
{
    const layout *l = file;
    const struct {
        const char *gguf;
        size_t begin;
    } kinds[] = {{"attn_norm.weight", l->norm_attn},
                 {"attn_q.weight", l->q},
                 {"attn_k.weight", l->k},
                 {"attn_v.weight", l->v},
                 {"attn_output.weight", l->o},
                 {"ffn_norm.weight", l->norm_ffn},
                 {"ffn_gate.weight", l->gate},
                 {"ffn_down.weight", l->down},
                 {"ffn_up.weight", l->up}};
    size_t elements = (size_t)w->shape[0] * (size_t)w->shape[1], begin = 0; /* of the embedding */
    unsigned il;
    int at = 0;
    if (strcmp(w->gguf, "output_norm.weight") == 0) begin = l->norm_out;
    if (strcmp(w->gguf, "output.weight") == 0) begin = l->output;
    if (sscanf(w->gguf, "blk.%u.%n", &il, &at) == 1 && at)
        for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
            if (strcmp(w->gguf + at, kinds[i].gguf) == 0) begin = kinds[i].begin + il * elements;
    *found =
        (dmc_tensor){.dtype = DMC_F32, .n_dims = w->n_dims, .shape = {w->shape[0], w->shape[1]}, .bytes = elements * 4};
    found->data = l->data + begin * 4;
    return DMC_OK;
}

/* tok<vocabulary size>.bin or tokenizer.bin in the same directory, whichever has as many tokens as the model. */
static dmc_status find_tokenizer(dmc_checkpoint *c)
{
    char names[2][40] = {"", "tokenizer.bin"};
    dmc_status status = DMC_OK;
    char *dir = dmc_strdup(c->path), *path = NULL;
    if (!dir) return dmc_fail(DMC_ERR_MEMORY, "%s: out of memory", c->path);
    char *slash = strrchr(dir, '/');
    if (slash) slash[1] = 0;
    snprintf(names[0], sizeof names[0], "tok%d.bin", c->config.n_vocab);
    for (int i = 0; i < 2 && !c->tokenizer.llama2c_bin_path; i++) {
        dmc_mapping m;
        path = dmc_path_join(slash ? dir : ".", names[i]);
        if (!path) DMC_GOTO(dmc_fail(DMC_ERR_MEMORY, "%s: out of memory", c->path));
        if (dmc_exists(path) && !dmc_is_dir(path)) {
            DMC_GOTO(dmc_map_file(&m, path));
            if (dmc_llama2c_vocabulary_count(m.data, m.size) == c->config.n_vocab) {
                c->tokenizer.llama2c_bin_path = path;
                path = NULL;
            }
            dmc_unmap(&m);
        }
        dmc_free(path);
        path = NULL;
    }
done:
    dmc_free(path);
    dmc_free(dir);
    return status;
}

dmc_status dmc_llama2c_read(dmc_checkpoint *c, const dmc_mapping *m)
{
    int32_t h
        [7]; /* hidden size, feed-forward size, layers, heads, KV heads, vocabulary (negative: own output matrix), context */
    dmc_config *k = &c->config;
    if (m->size >= 4 && memcmp(m->data, "24ka", 4) == 0)
        return dmc_fail(
            DMC_ERR_UNSUPPORTED,
            "%s: a versioned (\"ak42\") llama2.c file, quantised as a rule; only the original fp32 form is read. "
            "Export it again with version 0, or use GGUF",
            c->path);
    if (m->size < HEADER_BYTES)
        return dmc_fail(DMC_ERR_FORMAT, "%s: neither GGUF nor a llama2.c checkpoint (%zu bytes)", c->path, m->size);
    memcpy(h, m->data, sizeof h);
    if (h[3] <= 0 || h[0] <= 0 || h[0] % h[3] || h[5] == INT32_MIN)
        return dmc_fail(DMC_ERR_FORMAT, "%s: neither GGUF nor a llama2.c checkpoint", c->path);
    k->n_embd = h[0];
    k->n_ff = h[1];
    k->n_layers = h[2];
    k->n_heads = h[3];
    k->n_kv_heads = h[4];
    k->n_vocab = h[5] < 0 ? -h[5] : h[5];
    k->n_ctx = h[6];
    k->head_dim = h[0] / h[3];
    k->tied = h[5] > 0;
    k->norm_eps = 1e-5f;
    k->rope_theta = 10000;
    k->rope_interleaved = true;
    if (k->n_vocab >
        2) { /* fixed by its tokenizers; stories follow one another with a BOS between, so it ends one, too */
        k->bos = 1;
        k->eos[0] = 2;
        k->eos[1] = 1;
        k->n_eos = 2;
    }
    DMC_TRY(dmc_config_check(k, c->path));

    layout l = {.config = k, .data = m->data + HEADER_BYTES, .where = c->path};
    lay_out(&l);
    if (l.end != (m->size - HEADER_BYTES) / 4 || m->size % 4)
        return dmc_fail(
            DMC_ERR_FORMAT,
            "%s: a llama2.c checkpoint of this shape has %zu bytes, the file %zu; it is cut off, or no such file",
            c->path, HEADER_BYTES + 4 * l.end, m->size);
    DMC_TRY(dmc_checkpoint_fill(c, look_up, &l, dmc_weight_count(k)));
    return find_tokenizer(c);
}
