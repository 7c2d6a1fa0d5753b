/* Bytes as a vocabulary. The first byte says of which kind; what opens must encode, decode and give memory back. The
 * text that it encodes is the end of the same bytes, so that both grow together. */
#include "format/gguf.h"
#include "text/detok.h"
#include "text/vocab.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static dmc_status open_hf_json(dmc_tokenizer **t, const uint8_t *data, size_t n, const dmc_config *config)
{
    dmc_tokenizer_source source = {.hf_json = (const char *)data, .hf_json_bytes = n};
    return dmc_tokenizer_open(t, &source, config);
}

/* tokenizer.json and tokenizer_config.json, with a zero between. */
static dmc_status open_hf_pair(dmc_tokenizer **t, const uint8_t *data, size_t n, const dmc_config *config)
{
    const uint8_t *zero = memchr(data, 0, n);
    if (!zero) return DMC_ERR_FORMAT;
    dmc_tokenizer_source source = {.hf_json = (const char *)data,
                                   .hf_json_bytes = (size_t)(zero - data),
                                   .hf_config = (const char *)zero + 1,
                                   .hf_config_bytes = (size_t)(data + n - zero - 1)};
    return dmc_tokenizer_open(t, &source, config);
}

static dmc_status open_gguf(dmc_tokenizer **t, const uint8_t *data, size_t n, const dmc_config *config)
{
    dmc_gguf *g;
    DMC_TRY(dmc_gguf_parse(&g, data, n, "fuzz"));
    dmc_tokenizer_source source = {.gguf = g};
    dmc_status status = dmc_tokenizer_open(t, &source, config);
    dmc_gguf_close(g);
    return status;
}

/* The readers of files, without the files. */
static dmc_status open_direct(dmc_tokenizer **t, uint8_t kind, const uint8_t *data, size_t n)
{
    const dmc_tokenizer_source source = {0};
    *t = dmc_calloc(1, sizeof **t);
    if (!*t) return DMC_ERR_MEMORY;
    (*t)->bos = (*t)->unknown = -1;
    dmc_status status = kind == 0   ? dmc_read_sentencepiece(*t, data, n, &source, "fuzz")
                        : kind == 1 ? dmc_read_tiktoken(*t, data, n, "fuzz")
                                    : dmc_read_llama2c(*t, data, n, 0, "fuzz");
    if (status == DMC_OK) return status;
    dmc_tokenizer_close(*t);
    *t = NULL;
    return status;
}

static void use(const dmc_tokenizer *t, const char *text, size_t n, bool special)
{
    int32_t *ids;
    size_t n_ids, k;
    char *out = malloc(3 * (1 << 20));
    dmc_detok d = {0};
    if (dmc_tokenizer_encode(&ids, &n_ids, t, text, n, true, special) == DMC_OK) {
        for (size_t i = 0; i < n_ids; i++)
            if (dmc_detok_push_tokenizer(t, &d, ids[i], out, 3 * (1 << 20), &k) != DMC_OK) abort();
        dmc_detok_flush(&d, out, 16);
        dmc_free(ids);
    }
    for (int id = 0; id < dmc_tokenizer_size(t) && id < 1000; id++)
        if (dmc_detok_push_tokenizer(t, &d, id, out, 3 * (1 << 20), &k) != DMC_OK) abort();
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    dmc_tokenizer *t = NULL;
    const dmc_config config = {.n_vocab = 512, .bos = 1, .eos = {2}, .n_eos = 1};
    if (n < 1) return 0;
    uint8_t kind = data[0] % 6;
    uint8_t *copy = malloc(n);
    memcpy(copy, data + 1, n - 1);
    dmc_status status = kind == 3   ? open_hf_json(&t, copy, n - 1, &config)
                        : kind == 4 ? open_hf_pair(&t, copy, n - 1, &config)
                        : kind == 5 ? open_gguf(&t, copy, n - 1, &config)
                                    : open_direct(&t, kind, copy, n - 1);
    if ((status == DMC_OK) != (t != NULL)) abort();
    free(copy); /* nothing points into it */
    if (t) {
        size_t n_text = n < 200 ? n : 200;
        use(t, (const char *)data + n - n_text, n_text, data[0] & 0x80);
        use(t, "ab <s>ab \xe2\x96\x81\xff 12", 16, true);
    }
    dmc_tokenizer_close(t);
    return 0;
}
