/* JSON from untrusted bytes, through jansson: strict UTF-8, duplicate keys refused, nesting limited, memory from base. */
#ifndef DMC_JSON_H
#define DMC_JSON_H

#include "base/base.h"

#include <jansson.h>

/* Parses n bytes; `where` names the file in messages. The result is the caller's (json_decref). Integers beyond 64 bits
 * make every number of the document a real. */
dmc_status dmc_json_load(json_t **out, const void *text, size_t n, const char *where);
/* The same from a file of at most `limit` bytes; a parsed document takes up to fifty times its text. */
dmc_status dmc_json_load_file(json_t **out, const char *path, size_t limit);

/* Members of an object. Absent or null leaves *out as it was; another type or a value out of range is DMC_ERR_FORMAT. */
dmc_status dmc_json_get_int(int *out, const json_t *object, const char *key, const char *where);
dmc_status dmc_json_get_real(double *out, const json_t *object, const char *key, const char *where);
dmc_status dmc_json_get_float(float *out, const json_t *object, const char *key, const char *where);
dmc_status dmc_json_get_bool(bool *out, const json_t *object, const char *key, const char *where);
dmc_status dmc_json_get_string(const char **out, const json_t *object, const char *key,
                               const char *where); /* lives as long as object */

/* A whole number that fits an int, written as an integer or as a real. */
bool dmc_json_as_int(int *out, const json_t *value);

#endif
