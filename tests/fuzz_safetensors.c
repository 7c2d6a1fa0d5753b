/* Safetensors: the parser; every tensor that it reports can be found and read. */
#include "format/safetensors.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dmc_safetensors *s;
    if (dmc_safetensors_parse(&s, data, size, "fuzz") != DMC_OK) return 0;
    for (size_t i = 0; i < dmc_safetensors_count(s); i++) {
        const dmc_st_tensor *t = dmc_safetensors_at(s, i);
        if (dmc_safetensors_find(s, t->name) != t) abort();
        dmc_checksum(t->data, t->bytes, 0);
    }
    dmc_safetensors_metadata(s, "format");
    dmc_safetensors_close(s);
    return 0;
}
