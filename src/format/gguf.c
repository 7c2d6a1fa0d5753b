#include "format/gguf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Types of values. */
enum { T_U8, T_I8, T_U16, T_I16, T_U32, T_I32, T_F32, T_BOOL, T_STRING, T_ARRAY, T_U64, T_I64, T_F64, T_COUNT };

static const uint8_t scalar_bytes[T_COUNT] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

/* The least that an entry can take: bounds the counts before anything is allocated. */
enum { LEAST_KEY = 8 + 4 + 1, LEAST_TENSOR = 8 + 4 + 8 + 4 + 8, LEAST_STRING = 8 };

typedef struct {
    dmc_bytes key, raw;
    uint32_t type; /* of the value, or of an array's elements */
    bool is_array;
    uint64_t count;       /* elements; 1 unless an array */
    const uint8_t *value; /* first element */
    size_t *offsets;      /* of the strings of an array, from value */
} entry;

struct dmc_gguf {
    entry *entries; /* in the order of the file */
    size_t n_entries;
    const entry **by_key;
    dmc_gguf_tensor *tensors; /* in the order of names */
    size_t n_tensors;
};

/* What is left of the file while its header is read. */
typedef struct {
    const uint8_t *at;
    size_t left;
    const char *where;
} cursor;

/* ---- reading ---- */

static dmc_status cut_off(const cursor *c, const char *what)
{
    return dmc_fail(DMC_ERR_FORMAT, "%s: %s does not fit into the file; it is cut off or corrupt", c->where, what);
}

static const uint8_t *take(cursor *c, size_t n)
{
    if (n > c->left) return NULL;
    const uint8_t *p = c->at;
    c->at += n;
    c->left -= n;
    return p;
}

static bool take_u32(cursor *c, uint32_t *out)
{
    const uint8_t *p = take(c, 4);
    if (p) memcpy(out, p, 4);
    return p;
}

static bool take_u64(cursor *c, uint64_t *out)
{
    const uint8_t *p = take(c, 8);
    if (p) memcpy(out, p, 8);
    return p;
}

static bool take_string(cursor *c, dmc_bytes *out)
{
    uint64_t n;
    if (!take_u64(c, &n) || n > c->left) return false;
    *out = (dmc_bytes){(const char *)take(c, (size_t)n), (size_t)n};
    return true;
}

static int compare(dmc_bytes a, dmc_bytes b)
{
    int order = memcmp(a.s, b.s, a.n < b.n ? a.n : b.n);
    return order ? order : (a.n > b.n) - (a.n < b.n);
}

/* A name from the file as it may stand in a message: short and printable. */
typedef struct {
    char text[64];
} printable;

static printable show(dmc_bytes b)
{
    printable p;
    size_t n = b.n < sizeof p.text - 1 ? b.n : sizeof p.text - 1;
    for (size_t i = 0; i < n; i++) p.text[i] = b.s[i] >= 32 && b.s[i] < 127 ? b.s[i] : '?';
    p.text[n] = 0;
    return p;
}

/* ---- keys ---- */

static dmc_status parse_string_array(entry *e, cursor *c)
{
    dmc_bytes s;
    if (e->count > c->left / LEAST_STRING) return cut_off(c, "an array of strings");
    e->value = c->at;
    DMC_TRY(dmc_array(&e->offsets, (size_t)e->count, sizeof *e->offsets));
    for (uint64_t i = 0; i < e->count; i++) {
        e->offsets[i] = (size_t)(c->at - e->value);
        if (!take_string(c, &s)) return cut_off(c, "a string of an array");
    }
    return DMC_OK;
}

static dmc_status parse_value(entry *e, cursor *c)
{
    size_t bytes;
    dmc_bytes s;
    e->count = 1;
    if (!take_u32(c, &e->type)) return cut_off(c, "a key's type");
    if (e->type == T_ARRAY) {
        e->is_array = true;
        if (!take_u32(c, &e->type) || !take_u64(c, &e->count)) return cut_off(c, "an array's header");
        if (e->type == T_ARRAY)
            return dmc_fail(DMC_ERR_UNSUPPORTED, "%s: key '%s' is an array of arrays", c->where, show(e->key).text);
    }
    if (e->type >= T_COUNT)
        return dmc_fail(DMC_ERR_FORMAT, "%s: key '%s' has an unknown type %u", c->where, show(e->key).text, e->type);
    if (e->type == T_STRING && e->is_array) return parse_string_array(e, c);
    e->value = c->at;
    if (e->type == T_STRING) return take_string(c, &s) ? DMC_OK : cut_off(c, "a string");
    if (e->count > SIZE_MAX || !dmc_mul(&bytes, (size_t)e->count, scalar_bytes[e->type]) || !take(c, bytes))
        return cut_off(c, "a value");
    return DMC_OK;
}

static int by_key(const void *a, const void *b)
{
    return compare((*(const entry *const *)a)->key, (*(const entry *const *)b)->key);
}

static dmc_status parse_keys(dmc_gguf *g, cursor *c, uint64_t n)
{
    if (n > c->left / LEAST_KEY) return cut_off(c, "the list of keys");
    DMC_TRY(dmc_array(&g->entries, (size_t)n, sizeof *g->entries));
    DMC_TRY(dmc_array(&g->by_key, (size_t)n, sizeof *g->by_key));
    for (; g->n_entries < n; g->n_entries++) {
        entry *e = &g->entries[g->n_entries];
        if (!take_string(c, &e->key)) return cut_off(c, "a key");
        e->raw.s = (const char *)c->at;
        dmc_status status = parse_value(e, c);
        if (status != DMC_OK) {
            dmc_free(e->offsets); /* not counted yet */
            return status;
        }
        e->raw.n = (size_t)((const char *)c->at - e->raw.s);
        g->by_key[g->n_entries] = e;
    }
    if (n) qsort(g->by_key, (size_t)n, sizeof *g->by_key, by_key);
    for (size_t i = 1; i < n; i++)
        if (compare(g->by_key[i - 1]->key, g->by_key[i]->key) == 0)
            return dmc_fail(DMC_ERR_FORMAT, "%s: key '%s' stands there twice", c->where, show(g->by_key[i]->key).text);
    return DMC_OK;
}

/* ---- tensors ---- */

static const struct {
    uint32_t number;
    dmc_dtype dtype;
} ggml_types[] = {{0, DMC_F32},  {1, DMC_F16},   {30, DMC_BF16}, {8, DMC_Q8_0},
                  {2, DMC_Q4_0}, {12, DMC_Q4_K}, {13, DMC_Q5_K}, {14, DMC_Q6_K}};

uint32_t dmc_gguf_type_of(dmc_dtype t)
{
    for (size_t i = 0; i < sizeof ggml_types / sizeof ggml_types[0]; i++)
        if (ggml_types[i].dtype == t) return ggml_types[i].number;
    return UINT32_MAX;
}

const char *dmc_gguf_type_name(uint32_t type)
{
    static const char *const names[] = {
        [0] = "F32",      [1] = "F16",     [2] = "Q4_0",    [3] = "Q4_1",  [6] = "Q5_0",  [7] = "Q5_1",  [8] = "Q8_0",
        [9] = "Q8_1",     [10] = "Q2_K",   [11] = "Q3_K",   [12] = "Q4_K", [13] = "Q5_K", [14] = "Q6_K", [15] = "Q8_K",
        [16] = "IQ2_XXS", [20] = "IQ4_NL", [23] = "IQ4_XS", [24] = "I8",   [26] = "I32",  [28] = "F64",  [30] = "BF16"};
    return type < sizeof names / sizeof names[0] && names[type] ? names[type] : "an unknown type";
}

/* One tensor's description. *offset is within the data section, whose start is not known yet. */
static dmc_status parse_tensor(dmc_gguf_tensor *t, uint64_t *offset, cursor *c)
{
    uint32_t n_dims;
    size_t elements = 1, row;
    if (!take_string(c, &t->name) || !take_u32(c, &n_dims)) return cut_off(c, "a tensor's description");
    if (n_dims < 1 || n_dims > 4)
        return dmc_fail(DMC_ERR_FORMAT, "%s: tensor '%s' has %u dimensions", c->where, show(t->name).text, n_dims);
    t->n_dims = (int)n_dims;
    for (uint32_t i = 0; i < n_dims; i++) {
        uint64_t dim;
        if (!take_u64(c, &dim)) return cut_off(c, "a tensor's shape");
        if (dim < 1 || dim > INT64_MAX || !dmc_mul(&elements, elements, (size_t)dim))
            return dmc_fail(DMC_ERR_FORMAT, "%s: tensor '%s': dimension %u is zero or too large", c->where,
                            show(t->name).text, i);
        t->shape[n_dims - 1 - i] = (int64_t)dim;
    }
    if (!take_u32(c, &t->type) || !take_u64(c, offset)) return cut_off(c, "a tensor's description");
    for (size_t i = 0; i < sizeof ggml_types / sizeof ggml_types[0]; i++) {
        if (ggml_types[i].number != t->type) continue;
        t->known = true;
        t->dtype = ggml_types[i].dtype;
    }
    if (!t->known) return DMC_OK;
    size_t cols = (size_t)t->shape[n_dims - 1];
    if (!dmc_dtype_row_bytes(&row, t->dtype, cols) || !dmc_mul(&t->bytes, row, elements / cols))
        return dmc_fail(DMC_ERR_FORMAT, "%s: tensor '%s': rows of %zu elements cannot be %s", c->where,
                        show(t->name).text, cols, dmc_dtype_name(t->dtype));
    return DMC_OK;
}

static int by_place(const void *a, const void *b)
{
    const dmc_gguf_tensor *x = a, *y = b;
    return ((const char *)x->data > (const char *)y->data) - ((const char *)x->data < (const char *)y->data);
}

static int by_name(const void *a, const void *b)
{
    return compare(((const dmc_gguf_tensor *)a)->name, ((const dmc_gguf_tensor *)b)->name);
}

/* No two tensors share a byte or a name. Leaves them in the order of names. */
static dmc_status check_tensors(dmc_gguf *g, const char *where)
{
    if (g->n_tensors) qsort(g->tensors, g->n_tensors, sizeof *g->tensors, by_place);
    for (size_t i = 1; i < g->n_tensors; i++) {
        const dmc_gguf_tensor *t = &g->tensors[i - 1];
        if (t->data == t[1].data || (const char *)t->data + t->bytes > (const char *)t[1].data)
            return dmc_fail(DMC_ERR_FORMAT, "%s: tensors '%s' and '%s' overlap", where, show(t->name).text,
                            show(t[1].name).text);
    }
    if (g->n_tensors) qsort(g->tensors, g->n_tensors, sizeof *g->tensors, by_name);
    for (size_t i = 1; i < g->n_tensors; i++)
        if (compare(g->tensors[i - 1].name, g->tensors[i].name) == 0)
            return dmc_fail(DMC_ERR_FORMAT, "%s: tensor '%s' stands there twice", where, show(g->tensors[i].name).text);
    return DMC_OK;
}

static dmc_status parse_tensors(dmc_gguf *g, cursor *c, uint64_t n, size_t alignment, const uint8_t *file)
{
    dmc_status status = DMC_OK;
    uint64_t *offsets = NULL;
    if (n > c->left / LEAST_TENSOR) return cut_off(c, "the list of tensors");
    DMC_GOTO(dmc_array(&g->tensors, (size_t)n, sizeof *g->tensors));
    DMC_GOTO(dmc_array(&offsets, (size_t)n, sizeof *offsets));
    for (; g->n_tensors < n; g->n_tensors++)
        DMC_GOTO(parse_tensor(&g->tensors[g->n_tensors], &offsets[g->n_tensors], c));

    size_t padding = (alignment - (size_t)(c->at - file) % alignment) % alignment;
    if (n && !take(c, padding)) DMC_GOTO(cut_off(c, "the tensors' data"));
    for (size_t i = 0; i < n; i++) {
        dmc_gguf_tensor *t = &g->tensors[i];
        if (offsets[i] % alignment || offsets[i] >= c->left || t->bytes > c->left - offsets[i])
            DMC_GOTO(dmc_fail(DMC_ERR_FORMAT,
                              "%s: tensor '%s': %zu bytes at offset %llu do not lie within the data section of %zu; "
                              "the file is cut off or corrupt",
                              c->where, show(t->name).text, t->bytes, (unsigned long long)offsets[i], c->left));
        t->data = c->at + offsets[i];
    }
    status = check_tensors(g, c->where);
done:
    dmc_free(offsets);
    return status;
}

/* ---- the file ---- */

static dmc_status parse(dmc_gguf *g, const uint8_t *data, size_t size, const char *where)
{
    cursor c = {data, size, where};
    uint32_t version;
    uint64_t n_tensors, n_keys;
    int64_t alignment = 32;
    const uint8_t *magic = take(&c, 4);
    if (!magic || memcmp(magic, "GGUF", 4) != 0) return dmc_fail(DMC_ERR_FORMAT, "%s: not a GGUF file", where);
    if (!take_u32(&c, &version)) return cut_off(&c, "the header");
    if (version != 2 && version != 3)
        return dmc_fail(DMC_ERR_UNSUPPORTED, "%s: GGUF version %u%s; versions 2 and 3, little-endian, are read", where,
                        version, version & 0xffff ? "" : " (big-endian?)");
    if (!take_u64(&c, &n_tensors) || !take_u64(&c, &n_keys)) return cut_off(&c, "the header");
    DMC_TRY(parse_keys(g, &c, n_keys));
    if (dmc_gguf_int(g, "general.alignment", &alignment) &&
        (alignment < 1 || alignment > 65536 || (alignment & (alignment - 1))))
        return dmc_fail(DMC_ERR_FORMAT, "%s: general.alignment %lld is no power of two up to 65536", where,
                        (long long)alignment);
    return parse_tensors(g, &c, n_tensors, (size_t)alignment, data);
}

dmc_status dmc_gguf_parse(dmc_gguf **out, const uint8_t *data, size_t size, const char *where)
{
    *out = NULL;
    dmc_gguf *g;
    DMC_TRY(dmc_array(&g, 1, sizeof *g));
    dmc_status status = parse(g, data, size, where);
    if (status == DMC_OK) *out = g;
    else dmc_gguf_close(g);
    return status;
}

void dmc_gguf_close(dmc_gguf *g)
{
    if (!g) return;
    for (size_t i = 0; i < g->n_entries; i++) dmc_free(g->entries[i].offsets);
    dmc_free(g->entries);
    dmc_free(g->by_key);
    dmc_free(g->tensors);
    dmc_free(g);
}

/* ---- values ---- */

static const entry *find(const dmc_gguf *g, const char *key)
{
    const entry wanted = {.key = {key, strlen(key)}}, *p = &wanted;
    const entry **found = g->n_entries ? bsearch(&p, g->by_key, g->n_entries, sizeof *g->by_key, by_key) : NULL;
    return found ? *found : NULL;
}

static const entry *find_scalar(const dmc_gguf *g, const char *key)
{
    const entry *e = find(g, key);
    return e && !e->is_array ? e : NULL;
}

/* Element i of an array that has one. */
static const entry *find_element(const dmc_gguf *g, const char *key, int64_t i)
{
    const entry *e = find(g, key);
    return e && e->is_array && i >= 0 && (uint64_t)i < e->count ? e : NULL;
}

static bool is_int(uint32_t type) { return type <= T_I32 || type == T_BOOL || type == T_U64 || type == T_I64; }
static bool is_float(uint32_t type) { return type == T_F32 || type == T_F64; }

static bool element_int(const entry *e, int64_t i, int64_t *out)
{
    if (!is_int(e->type)) return false;
    const uint8_t *p = e->value + (size_t)i * scalar_bytes[e->type];
    uint64_t bits = 0;
    memcpy(&bits, p, scalar_bytes[e->type]);
    switch (e->type) {
    case T_I8: *out = (int8_t)bits; break;
    case T_I16: *out = (int16_t)bits; break;
    case T_I32: *out = (int32_t)bits; break;
    case T_BOOL: *out = bits != 0; break;
    case T_U64:
        if (bits > INT64_MAX) return false;
        *out = (int64_t)bits;
        break;
    default: *out = (int64_t)bits; break;
    }
    return true;
}

static bool element_float(const entry *e, int64_t i, double *out)
{
    int64_t whole;
    const uint8_t *p = e->value + (size_t)i * scalar_bytes[e->type];
    if (e->type == T_F64) {
        memcpy(out, p, 8);
    } else if (e->type == T_F32) {
        float f;
        memcpy(&f, p, 4);
        *out = f;
    } else {
        if (!element_int(e, i, &whole)) return false;
        *out = (double)whole;
    }
    return isfinite(*out);
}

/* A string whose length has been checked when the file was read. */
static dmc_bytes string_at(const uint8_t *p)
{
    uint64_t n;
    memcpy(&n, p, 8);
    return (dmc_bytes){(const char *)p + 8, (size_t)n};
}

bool dmc_gguf_int(const dmc_gguf *g, const char *key, int64_t *out)
{
    const entry *e = find_scalar(g, key);
    return e && element_int(e, 0, out);
}

bool dmc_gguf_float(const dmc_gguf *g, const char *key, double *out)
{
    const entry *e = find_scalar(g, key);
    return e && element_float(e, 0, out);
}

bool dmc_gguf_bool(const dmc_gguf *g, const char *key, bool *out)
{
    int64_t v;
    if (!dmc_gguf_int(g, key, &v) || v < 0 || v > 1) return false;
    *out = v;
    return true;
}

bool dmc_gguf_string(const dmc_gguf *g, const char *key, dmc_bytes *out)
{
    const entry *e = find_scalar(g, key);
    if (!e || e->type != T_STRING) return false;
    *out = string_at(e->value);
    return true;
}

int64_t dmc_gguf_count_strings(const dmc_gguf *g, const char *key)
{
    const entry *e = find(g, key);
    return e && e->is_array && e->type == T_STRING ? (int64_t)e->count : -1;
}

int64_t dmc_gguf_count_ints(const dmc_gguf *g, const char *key)
{
    const entry *e = find(g, key);
    return e && e->is_array && is_int(e->type) ? (int64_t)e->count : -1;
}

int64_t dmc_gguf_count_floats(const dmc_gguf *g, const char *key)
{
    const entry *e = find(g, key);
    return e && e->is_array && is_float(e->type) ? (int64_t)e->count : -1;
}

bool dmc_gguf_array_string(const dmc_gguf *g, const char *key, int64_t i, dmc_bytes *out)
{
    const entry *e = find_element(g, key, i);
    if (!e || e->type != T_STRING) return false;
    *out = string_at(e->value + e->offsets[i]);
    return true;
}

bool dmc_gguf_array_int(const dmc_gguf *g, const char *key, int64_t i, int64_t *out)
{
    const entry *e = find_element(g, key, i);
    return e && element_int(e, i, out);
}

bool dmc_gguf_array_float(const dmc_gguf *g, const char *key, int64_t i, double *out)
{
    const entry *e = find_element(g, key, i);
    return e && element_float(e, i, out);
}

size_t dmc_gguf_n_keys(const dmc_gguf *g) { return g->n_entries; }

void dmc_gguf_key_at(const dmc_gguf *g, size_t i, dmc_bytes *key, dmc_bytes *raw)
{
    *key = g->entries[i].key;
    *raw = g->entries[i].raw;
}

size_t dmc_gguf_n_tensors(const dmc_gguf *g) { return g->n_tensors; }

const dmc_gguf_tensor *dmc_gguf_find_tensor(const dmc_gguf *g, const char *name)
{
    const dmc_gguf_tensor wanted = {.name = {name, strlen(name)}};
    return g->n_tensors ? bsearch(&wanted, g->tensors, g->n_tensors, sizeof wanted, by_name) : NULL;
}
