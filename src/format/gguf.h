/* GGUF v2/v3: a parsed header over a mapping. Every access is checked for type and count. */
#ifndef DMC_GGUF_H
#define DMC_GGUF_H

#include "base/dtype.h"

typedef struct dmc_gguf dmc_gguf;

dmc_status dmc_gguf_parse(dmc_gguf **out, const uint8_t *data, size_t size,
                          const char *where); /* data must outlive it */
void dmc_gguf_close(dmc_gguf *g);

typedef struct {
    const char *s;
    size_t n;
} dmc_bytes; /* not NUL-terminated */

/* false if the key is missing or of another type / out of range. Integers of any width and bool convert where the value fits. */
bool dmc_gguf_int(const dmc_gguf *g, const char *key, int64_t *out);
bool dmc_gguf_float(const dmc_gguf *g, const char *key, double *out);
bool dmc_gguf_bool(const dmc_gguf *g, const char *key, bool *out);
bool dmc_gguf_string(const dmc_gguf *g, const char *key, dmc_bytes *out);
/* Arrays: the count, or -1 if missing or not an array of that kind. */
int64_t dmc_gguf_count_strings(const dmc_gguf *g, const char *key);
int64_t dmc_gguf_count_ints(const dmc_gguf *g, const char *key);
int64_t dmc_gguf_count_floats(const dmc_gguf *g, const char *key);
bool dmc_gguf_array_string(const dmc_gguf *g, const char *key, int64_t i, dmc_bytes *out); /* O(1) */
bool dmc_gguf_array_int(const dmc_gguf *g, const char *key, int64_t i, int64_t *out);
bool dmc_gguf_array_float(const dmc_gguf *g, const char *key, int64_t i, double *out);

/* Keys in the order of the file. raw: the value as the file holds it, from its 32-bit type on. */
size_t dmc_gguf_n_keys(const dmc_gguf *g);
void dmc_gguf_key_at(const dmc_gguf *g, size_t i, dmc_bytes *key, dmc_bytes *raw);

typedef struct {
    dmc_bytes name;
    uint32_t type; /* ggml's number */
    bool known;    /* dtype and bytes are set; else only the start of the data has been checked */
    dmc_dtype dtype;
    int n_dims;       /* 1..4 */
    int64_t shape[4]; /* outermost first, other than in the file */
    const void *data;
    size_t bytes;
} dmc_gguf_tensor;

size_t dmc_gguf_n_tensors(const dmc_gguf *g);
const dmc_gguf_tensor *dmc_gguf_find_tensor(const dmc_gguf *g, const char *name); /* NULL: not there */
const char *dmc_gguf_type_name(uint32_t type); /* ggml's name, or "an unknown type" */
uint32_t dmc_gguf_type_of(dmc_dtype t);        /* ggml's number */

#endif
