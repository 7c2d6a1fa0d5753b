#include "format/json.h"

#include <limits.h>
#include <math.h>
#include <pthread.h>

/* jansson reports most failed allocations as if the text were malformed, and after some it goes on with a token cut short.
 * So they are noted here, and none is forgiven. */
static _Thread_local bool out_of_memory;

static void *allocate(size_t n)
{
    void *p = dmc_malloc(n, 1);
    if (!p) out_of_memory = true;
    return p;
}

static void route_allocations(void) { json_set_alloc_funcs(allocate, dmc_free); }

dmc_status dmc_json_load(json_t **out, const void *text, size_t n, const char *where)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, route_allocations);

    json_error_t e;
    out_of_memory = false;
    *out = json_loadb(text, n, JSON_REJECT_DUPLICATES, &e);
    if (!*out && json_error_code(&e) == json_error_numeric_overflow)
        *out = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &e);
    if (out_of_memory) {
        json_decref(*out);
        *out = NULL;
        return dmc_fail(DMC_ERR_MEMORY, "%s: out of memory", where);
    }
    if (*out) return DMC_OK;
    return dmc_fail(DMC_ERR_FORMAT, "%s: not valid JSON at line %d, column %d: %s", where, e.line, e.column, e.text);
}

dmc_status dmc_json_load_file(json_t **out, const char *path, size_t limit)
{
    dmc_mapping m;
    *out = NULL;
    DMC_TRY(dmc_map_file(&m, path));
    dmc_status status = m.size <= limit
                            ? dmc_json_load(out, m.data, m.size, path)
                            : dmc_fail(DMC_ERR_FORMAT, "%s: %zu bytes; at most %zu are read here", path, m.size, limit);
    dmc_unmap(&m);
    return status;
}

bool dmc_json_as_int(int *out, const json_t *value)
{
    double x;
    if (json_is_integer(value) && json_integer_value(value) >= INT_MIN && json_integer_value(value) <= INT_MAX)
        x = (double)json_integer_value(value);
    else if (json_is_real(value)) x = json_real_value(value);
    else return false;
    if (!(x >= INT_MIN && x <= INT_MAX) || x != floor(x)) return false;
    *out = (int)x;
    return true;
}

/* The member, or NULL where there is nothing to read. */
static const json_t *member(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    return json_is_null(v) ? NULL : v;
}

static dmc_status wrong(const char *where, const char *key, const char *wanted)
{
    return dmc_fail(DMC_ERR_FORMAT, "%s: '%s' must be %s", where, key, wanted);
}

dmc_status dmc_json_get_int(int *out, const json_t *object, const char *key, const char *where)
{
    const json_t *v = member(object, key);
    return !v || dmc_json_as_int(out, v) ? DMC_OK : wrong(where, key, "a whole number of 32 bits");
}

dmc_status dmc_json_get_real(double *out, const json_t *object, const char *key, const char *where)
{
    const json_t *v = member(object, key);
    if (v && !json_is_number(v)) return wrong(where, key, "a number");
    if (v) *out = json_number_value(v);
    return DMC_OK;
}

dmc_status dmc_json_get_float(float *out, const json_t *object, const char *key, const char *where)
{
    double x = *out;
    DMC_TRY(dmc_json_get_real(&x, object, key, where));
    *out = (float)x;
    return isfinite(*out) ? DMC_OK : wrong(where, key, "a number within the range of 32-bit floats");
}

dmc_status dmc_json_get_bool(bool *out, const json_t *object, const char *key, const char *where)
{
    const json_t *v = member(object, key);
    if (v && !json_is_boolean(v)) return wrong(where, key, "true or false");
    if (v) *out = json_is_true(v);
    return DMC_OK;
}

dmc_status dmc_json_get_string(const char **out, const json_t *object, const char *key, const char *where)
{
    const json_t *v = member(object, key);
    if (v && !json_is_string(v)) return wrong(where, key, "a string");
    if (v) *out = json_string_value(v);
    return DMC_OK;
}
