/* The key section of a GGUF file under construction, in memory: it must be complete before its count can be written. */
#ifndef DMC_GGUF_BUILD_H
#define DMC_GGUF_BUILD_H

#include "format/gguf.h"

/* Bytes that grow. The first failed allocation sticks; what is added after it is dropped. */
typedef struct {
    uint8_t *data;
    size_t n, room;
    bool failed;
} dmc_buffer;

void dmc_buffer_add(dmc_buffer *b, const void *data, size_t n);
void dmc_buffer_addf(dmc_buffer *b, const char *fmt, ...)
    __attribute__((format(printf, 2, 3))); /* at most 1023 bytes a call */
void dmc_buffer_free(dmc_buffer *b);

/* A string as it stands in a GGUF file: 64-bit length, bytes. */
void dmc_buffer_add_string(dmc_buffer *b, const char *s, size_t n);

typedef struct {
    dmc_buffer bytes;
    uint64_t n;
} dmc_gguf_keys;

void dmc_gguf_put_int(dmc_gguf_keys *k, const char *key, int value); /* u32 where it fits, else i32 */
void dmc_gguf_put_float(dmc_gguf_keys *k, const char *key, float value);
void dmc_gguf_put_double(dmc_gguf_keys *k, const char *key, double value);
void dmc_gguf_put_bool(dmc_gguf_keys *k, const char *key, bool value);
void dmc_gguf_put_string(dmc_gguf_keys *k, const char *key, const char *s, size_t n);
void dmc_gguf_put_raw(dmc_gguf_keys *k, dmc_bytes key, dmc_bytes raw); /* a value as dmc_gguf_key_at gives it */
/* Arrays of `count` elements, whose bytes `elements` holds as the file will. */
void dmc_gguf_put_ints(dmc_gguf_keys *k, const char *key, const void *elements, uint64_t count);   /* int32_t */
void dmc_gguf_put_floats(dmc_gguf_keys *k, const char *key, const void *elements, uint64_t count); /* float */
void dmc_gguf_put_strings(dmc_gguf_keys *k, const char *key, const dmc_buffer *elements, uint64_t count);

/* Magic, version, counts and keys. */
void dmc_gguf_write_header(dmc_writer *w, const dmc_gguf_keys *k, uint64_t n_tensors);

#endif
