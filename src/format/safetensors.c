#include "format/safetensors.h"

#include "format/json.h"

#include <stdlib.h>
#include <string.h>

/* The reference implementation reads headers up to 100 MB. No model needs a sixth of that, and parsed JSON is larger. */
enum { HEADER_LIMIT = 16 << 20 };

struct dmc_safetensors {
    dmc_mapping map; /* empty unless opened from a path */
    json_t *header;  /* owns names, types and metadata */
    dmc_st_tensor *tensors;
    size_t n_tensors;
};

/* Bytes per element, 0 if unknown. */
static size_t element_bytes(const char *dtype)
{
    static const struct {
        const char *name;
        size_t bytes;
    } types[] = {{"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F64", 8}, {"I64", 8},  {"I32", 4},     {"I16", 2},    {"I8", 1},
                 {"U64", 8}, {"U32", 4}, {"U16", 2},  {"U8", 1},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(dtype, types[i].name) == 0) return types[i].bytes;
    return 0;
}

/* A non-negative integer of an array. */
static bool array_size(size_t *out, const json_t *array, size_t i)
{
    const json_t *v = json_array_get(array, i);
    if (!json_is_integer(v) || json_integer_value(v) < 0) return false;
    *out = (size_t)json_integer_value(v);
    return true;
}

static dmc_status parse_shape(dmc_st_tensor *t, const json_t *shape, const char *where)
{
    size_t n = 1, dim;
    if (!json_is_array(shape) || json_array_size(shape) > sizeof t->shape / sizeof t->shape[0])
        return dmc_fail(DMC_ERR_FORMAT, "%s: tensor '%s': shape must be a list of at most 8 sizes", where, t->name);
    t->n_dims = (int)json_array_size(shape);
    for (int i = 0; i < t->n_dims; i++) {
        if (!array_size(&dim, shape, (size_t)i) || !dmc_mul(&n, n, dim) || n > INT64_MAX)
            return dmc_fail(DMC_ERR_FORMAT, "%s: tensor '%s': size %d of its shape is negative or too large", where,
                            t->name, i);
        t->shape[i] = (int64_t)dim;
    }
    t->n_elements = (int64_t)n;
    return DMC_OK;
}

static dmc_status parse_tensor(dmc_st_tensor *t, const char *name, const json_t *entry, const uint8_t *data,
                               size_t size, const char *where)
{
    const json_t *offsets = json_object_get(entry, "data_offsets");
    size_t begin, end, bytes;
    t->name = name;
    t->dtype = json_string_value(json_object_get(entry, "dtype"));
    if (!t->dtype) return dmc_fail(DMC_ERR_FORMAT, "%s: tensor '%s' has no dtype", where, name);
    if (!element_bytes(t->dtype))
        return dmc_fail(DMC_ERR_UNSUPPORTED, "%s: tensor '%s' has element type '%s', which is not known", where, name,
                        t->dtype);
    DMC_TRY(parse_shape(t, json_object_get(entry, "shape"), where));
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 || !array_size(&begin, offsets, 0) ||
        !array_size(&end, offsets, 1))
        return dmc_fail(DMC_ERR_FORMAT, "%s: tensor '%s': data_offsets must be [begin, end]", where, name);
    if (begin > end || end > size)
        return dmc_fail(
            DMC_ERR_FORMAT,
            "%s: tensor '%s' lies at bytes %zu..%zu of a data section of %zu; the file is cut off or corrupt", where,
            name, begin, end, size);
    if (!dmc_mul(&bytes, (size_t)t->n_elements, element_bytes(t->dtype)) || bytes != end - begin)
        return dmc_fail(DMC_ERR_FORMAT, "%s: tensor '%s': its shape and type do not fit its %zu bytes", where, name,
                        end - begin);
    t->data = data + begin;
    t->bytes = bytes;
    return DMC_OK;
}

static int by_place(const void *a, const void *b)
{
    const dmc_st_tensor *x = a, *y = b;
    if (x->data != y->data) return (const char *)x->data < (const char *)y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const dmc_st_tensor *)a)->name, ((const dmc_st_tensor *)b)->name);
}

/* Tensors must follow one another from the first byte of the data section to its last. */
static dmc_status check_cover(dmc_safetensors *s, const uint8_t *data, size_t size, const char *where)
{
    const uint8_t *at = data;
    if (s->n_tensors) qsort(s->tensors, s->n_tensors, sizeof *s->tensors, by_place);
    for (size_t i = 0; i < s->n_tensors; i++) {
        if (s->tensors[i].data != at)
            return dmc_fail(DMC_ERR_FORMAT, "%s: tensor '%s' overlaps another or leaves a gap before it", where,
                            s->tensors[i].name);
        at += s->tensors[i].bytes;
    }
    if ((size_t)(at - data) != size)
        return dmc_fail(DMC_ERR_FORMAT, "%s: tensors end at byte %zu of a data section of %zu", where,
                        (size_t)(at - data), size);
    if (s->n_tensors) qsort(s->tensors, s->n_tensors, sizeof *s->tensors, by_name);
    return DMC_OK;
}

static dmc_status parse(dmc_safetensors *s, const uint8_t *bytes, size_t size, const char *where)
{
    uint64_t header;
    if (size < 8) return dmc_fail(DMC_ERR_FORMAT, "%s: %zu bytes are too few for a safetensors file", where, size);
    memcpy(&header, bytes, 8);
    if (header > size - 8 || header > HEADER_LIMIT)
        return dmc_fail(
            DMC_ERR_FORMAT,
            "%s: a header of %llu bytes does not fit (file %zu, limit %d); the file is cut off or not safetensors",
            where, (unsigned long long)header, size, (int)HEADER_LIMIT);
    DMC_TRY(dmc_json_load(&s->header, bytes + 8, (size_t)header, where));
    const json_t *metadata = json_object_get(s->header, "__metadata__");
    if (!json_is_object(s->header) || (metadata && !json_is_object(metadata)))
        return dmc_fail(DMC_ERR_FORMAT, "%s: the header must be an object, and __metadata__ one too", where);

    const uint8_t *data = bytes + 8 + header;
    const char *name;
    json_t *entry;
    DMC_TRY(dmc_array(&s->tensors, json_object_size(s->header), sizeof *s->tensors));
    json_object_foreach(s->header, name, entry)
    {
        if (entry == metadata) continue;
        DMC_TRY(parse_tensor(&s->tensors[s->n_tensors], name, entry, data, size - 8 - (size_t)header, where));
        s->n_tensors++;
    }
    return check_cover(s, data, size - 8 - (size_t)header, where);
}

dmc_status dmc_safetensors_parse(dmc_safetensors **out, const void *data, size_t size, const char *where)
{
    *out = NULL;
    dmc_safetensors *s;
    DMC_TRY(dmc_array(&s, 1, sizeof *s));
    dmc_status status = parse(s, data, size, where);
    if (status == DMC_OK) *out = s;
    else dmc_safetensors_close(s);
    return status;
}

dmc_status dmc_safetensors_open(dmc_safetensors **out, const char *path)
{
    dmc_mapping map;
    *out = NULL;
    DMC_TRY(dmc_map_file(&map, path));
    dmc_status status = dmc_safetensors_parse(out, map.data, map.size, path);
    if (status == DMC_OK) (*out)->map = map;
    else dmc_unmap(&map);
    return status;
}

void dmc_safetensors_close(dmc_safetensors *s)
{
    if (!s) return;
    json_decref(s->header);
    dmc_free(s->tensors);
    dmc_unmap(&s->map);
    dmc_free(s);
}

size_t dmc_safetensors_count(const dmc_safetensors *s) { return s->n_tensors; }

const dmc_st_tensor *dmc_safetensors_at(const dmc_safetensors *s, size_t i)
{
    return i < s->n_tensors ? &s->tensors[i] : NULL;
}

const dmc_st_tensor *dmc_safetensors_find(const dmc_safetensors *s, const char *name)
{
    const dmc_st_tensor key = {.name = name};
    return s->n_tensors ? bsearch(&key, s->tensors, s->n_tensors, sizeof key, by_name) : NULL;
}

const char *dmc_safetensors_metadata(const dmc_safetensors *s, const char *key)
{
    return json_string_value(json_object_get(json_object_get(s->header, "__metadata__"), key));
}
