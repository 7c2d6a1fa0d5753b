#include "json_out.h"
#include "cli.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static json_t *checked(json_t *value)
{
    if (!value) cli_die(NULL, "out of memory");
    return value;
}

json_t *json_new_object(void) { return checked(json_object()); }
json_t *json_new_array(void) { return checked(json_array()); }

void json_put(json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, checked(value)) != 0) cli_die(NULL, "out of memory");
}

static json_t *real_value(double x) { return isfinite(x) ? json_real(x) : json_null(); }

void json_put_bool(json_t *object, const char *key, int value) { json_put(object, key, json_boolean(value)); }
void json_put_int(json_t *object, const char *key, int64_t value) { json_put(object, key, json_integer(value)); }
void json_put_real(json_t *object, const char *key, double value) { json_put(object, key, real_value(value)); }

void json_put_string(json_t *object, const char *key, const char *text)
{
    json_put_text(object, key, text, strlen(text));
}

void json_put_text(json_t *object, const char *key, const char *text, size_t n)
{
    char *clean = malloc(3 * n + 1); /* U+FFFD takes three bytes */
    size_t used = 0;
    if (!clean) cli_die(NULL, "out of memory");
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t step = utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(n - i), &c);
        bool bad = step <= 0;
        memcpy(clean + used, bad ? "\xef\xbf\xbd" : text + i, bad ? 3 : (size_t)step);
        used += bad ? 3 : (size_t)step;
        i += bad ? 1 : (size_t)step;
    }
    json_put(object, key, json_stringn(clean, used));
    free(clean);
}

void json_push(json_t *array, json_t *value)
{
    if (json_array_append_new(array, checked(value)) != 0) cli_die(NULL, "out of memory");
}

void json_push_int(json_t *array, int64_t value) { json_push(array, json_integer(value)); }
void json_push_real(json_t *array, double value) { json_push(array, real_value(value)); }

void json_print(json_t *object)
{
    if (json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(10)) != 0)
        cli_die(NULL, "cannot write the output");
    putchar('\n');
    json_decref(object);
}
