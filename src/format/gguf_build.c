#include "format/gguf_build.h"

#include <stdarg.h>
#include <string.h>

enum { T_U32 = 4, T_I32 = 5, T_F32 = 6, T_BOOL = 7, T_STRING = 8, T_ARRAY = 9, T_F64 = 12 };

void dmc_buffer_add(dmc_buffer *b, const void *data, size_t n)
{
    size_t need;
    if (b->failed || n == 0) return;
    if (!dmc_add(&need, b->n, n)) need = SIZE_MAX; /* which cannot be had */
    if (need > b->room) {
        size_t room = need < SIZE_MAX / 2 ? need + need / 2 + 64 : need;
        uint8_t *p = dmc_realloc(b->data, room, 1);
        if (!p) {
            b->failed = true;
            return;
        }
        b->data = p;
        b->room = room;
    }
    memcpy(b->data + b->n, data, n);
    b->n += n;
}

void dmc_buffer_addf(dmc_buffer *b, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof text) b->failed = true;
    else dmc_buffer_add(b, text, (size_t)n);
}

void dmc_buffer_free(dmc_buffer *b)
{
    dmc_free(b->data);
    *b = (dmc_buffer){0};
}

void dmc_buffer_add_string(dmc_buffer *b, const char *s, size_t n)
{
    uint64_t length = n;
    dmc_buffer_add(b, &length, 8);
    dmc_buffer_add(b, s, n);
}

static void put(dmc_gguf_keys *k, const char *key, uint32_t type, const void *value, size_t bytes)
{
    dmc_buffer_add_string(&k->bytes, key, strlen(key));
    dmc_buffer_add(&k->bytes, &type, 4);
    dmc_buffer_add(&k->bytes, value, bytes);
    k->n++;
}

static void put_array(dmc_gguf_keys *k, const char *key, uint32_t type, const void *elements, size_t bytes,
                      uint64_t count)
{
    put(k, key, T_ARRAY, &type, 4);
    dmc_buffer_add(&k->bytes, &count, 8);
    dmc_buffer_add(&k->bytes, elements, bytes);
}

void dmc_gguf_put_int(dmc_gguf_keys *k, const char *key, int value)
{
    int32_t v = value;
    put(k, key, v >= 0 ? T_U32 : T_I32, &v, 4);
}

void dmc_gguf_put_float(dmc_gguf_keys *k, const char *key, float value) { put(k, key, T_F32, &value, 4); }

void dmc_gguf_put_double(dmc_gguf_keys *k, const char *key, double value) { put(k, key, T_F64, &value, 8); }

void dmc_gguf_put_bool(dmc_gguf_keys *k, const char *key, bool value)
{
    uint8_t v = value;
    put(k, key, T_BOOL, &v, 1);
}

void dmc_gguf_put_string(dmc_gguf_keys *k, const char *key, const char *s, size_t n)
{
    uint64_t length = n;
    put(k, key, T_STRING, &length, 8);
    dmc_buffer_add(&k->bytes, s, n);
}

void dmc_gguf_put_raw(dmc_gguf_keys *k, dmc_bytes key, dmc_bytes raw)
{
    dmc_buffer_add_string(&k->bytes, key.s, key.n);
    dmc_buffer_add(&k->bytes, raw.s, raw.n);
    k->n++;
}

void dmc_gguf_put_ints(dmc_gguf_keys *k, const char *key, const void *elements, uint64_t count)
{
    put_array(k, key, T_I32, elements, 4 * (size_t)count, count);
}

void dmc_gguf_put_floats(dmc_gguf_keys *k, const char *key, const void *elements, uint64_t count)
{
    put_array(k, key, T_F32, elements, 4 * (size_t)count, count);
}

void dmc_gguf_put_strings(dmc_gguf_keys *k, const char *key, const dmc_buffer *elements, uint64_t count)
{
    put_array(k, key, T_STRING, elements->data, elements->n, count);
    k->bytes.failed = k->bytes.failed || elements->failed;
}

void dmc_gguf_write_header(dmc_writer *w, const dmc_gguf_keys *k, uint64_t n_tensors)
{
    const uint32_t version = 3;
    dmc_write(w, "GGUF", 4);
    dmc_write(w, &version, 4);
    dmc_write(w, &n_tensors, 8);
    dmc_write(w, &k->n, 8);
    dmc_write(w, k->bytes.data, k->bytes.n);
}
