/* llama2.c checkpoints and their tokenizers. */
#include "format/storage.h"
#include "format/vocabulary.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dmc_checkpoint *c;
    const dmc_mapping m = {data, size};
    dmc_llama2c_vocabulary_count(data, size);
    if (dmc_checkpoint_new(&c, "/nowhere/fuzz.bin", 0) != DMC_OK) return 0;
    if (dmc_llama2c_read(c, &m) == DMC_OK)
        for (size_t i = 0; i < c->n_tensors; i++) dmc_checksum(c->tensors[i].data, c->tensors[i].bytes, 0);
    dmc_checkpoint_close(c);
    return 0;
}
