/* Safetensors: a parsed header over a mapping. General: any shape up to 8 dimensions, every plain element type.
 * Layout: 8 bytes little-endian header length, JSON header, raw little-endian data, C order. */
#ifndef DMC_SAFETENSORS_H
#define DMC_SAFETENSORS_H

#include "base/base.h"

typedef struct {
    const char *name;
    const char *dtype; /* as written: "F32", "F64", "BF16", "I32", "I64", "U8", "BOOL", ... */
    int n_dims;        /* 0 for a scalar */
    int64_t shape[8];  /* outermost first */
    int64_t n_elements;
    const void *data; /* may be unaligned */
    size_t bytes;
} dmc_st_tensor;

typedef struct dmc_safetensors dmc_safetensors;

/* `data` must outlive the result; `where` names the file in messages. DMC_ERR_FORMAT unless the tensors cover the data
 * section exactly, without gaps or overlaps. */
dmc_status dmc_safetensors_parse(dmc_safetensors **out, const void *data, size_t size, const char *where);
dmc_status dmc_safetensors_open(dmc_safetensors **out, const char *path); /* maps the file itself */
void dmc_safetensors_close(dmc_safetensors *s);                           /* NULL allowed */

size_t dmc_safetensors_count(const dmc_safetensors *s);
const dmc_st_tensor *dmc_safetensors_at(const dmc_safetensors *s, size_t i);           /* in the order of names */
const dmc_st_tensor *dmc_safetensors_find(const dmc_safetensors *s, const char *name); /* NULL: not there */
const char *dmc_safetensors_metadata(const dmc_safetensors *s, const char *key); /* of __metadata__; NULL: not there */

#endif
