/* GGUF: the parser, every accessor on every key, and the reading of a model. */
#include "format/gguf.h"
#include "format/storage.h"

#include <string.h>

static void touch(const dmc_gguf *g, const char *key)
{
    int64_t i;
    double d;
    bool b;
    dmc_bytes s;
    volatile char sink = 0;
    dmc_gguf_int(g, key, &i);
    dmc_gguf_float(g, key, &d);
    dmc_gguf_bool(g, key, &b);
    if (dmc_gguf_string(g, key, &s) && s.n) sink = s.s[s.n - 1];
    int64_t n = dmc_gguf_count_strings(g, key);
    for (i = 0; i < n; i++)
        if (dmc_gguf_array_string(g, key, i, &s) && s.n) sink = s.s[s.n - 1];
    n = dmc_gguf_count_ints(g, key);
    if (n > 0) dmc_gguf_array_int(g, key, n - 1, &i);
    n = dmc_gguf_count_floats(g, key);
    if (n > 0) dmc_gguf_array_float(g, key, n - 1, &d);
    (void)sink;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dmc_gguf *g;
    dmc_checkpoint *c;
    const dmc_mapping m = {data, size};
    if (dmc_gguf_parse(&g, data, size, "fuzz") == DMC_OK) {
        for (size_t i = 0; i < dmc_gguf_n_keys(g); i++) {
            dmc_bytes key, raw;
            char name[64];
            dmc_gguf_key_at(g, i, &key, &raw);
            size_t n = key.n < sizeof name - 1 ? key.n : sizeof name - 1;
            memcpy(name, key.s, n);
            name[n] = 0;
            touch(g, name);
        }
        dmc_gguf_close(g);
    }
    if (dmc_checkpoint_new(&c, "fuzz", 0) != DMC_OK) return 0;
    if (dmc_gguf_read(c, &m) == DMC_OK)
        for (size_t i = 0; i < c->n_tensors; i++)
            dmc_checksum(c->tensors[i].data, c->tensors[i].bytes, 0); /* all of it is readable */
    dmc_checkpoint_close(c);
    return 0;
}
