/* JSON output of the commands, on top of jansson. These die when memory runs out. */
#ifndef DMC_TOOLS_JSON_OUT_H
#define DMC_TOOLS_JSON_OUT_H

#include <jansson.h>
#include <stdint.h>

json_t *json_new_object(void);
json_t *json_new_array(void);
void json_put(json_t *object, const char *key, json_t *value); /* takes value over */
void json_put_bool(json_t *object, const char *key, int value);
void json_put_int(json_t *object, const char *key, int64_t value);
void json_put_real(json_t *object, const char *key, double value); /* null if it is not finite */
void json_put_string(json_t *object, const char *key, const char *text);
/* n bytes of text; bytes that are not UTF-8 become U+FFFD. */
void json_put_text(json_t *object, const char *key, const char *text, size_t n);
void json_push(json_t *array, json_t *value); /* takes value over */
void json_push_int(json_t *array, int64_t value);
void json_push_real(json_t *array, double value);
/* Prints the object to stdout with a line end and frees it. */
void json_print(json_t *object);

#endif
