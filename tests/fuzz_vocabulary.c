/* Tokenizers of every kind on their way into GGUF keys. The first byte of an input says which kind the rest is; what comes
 * out must be a GGUF header that parses. */
#define _GNU_SOURCE
#include "format/storage.h"
#include "format/vocabulary.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* The keys as a file without tensors. */
static void check(const dmc_gguf_keys *k)
{
    dmc_buffer file = {0};
    dmc_gguf *g;
    const uint32_t version = 3;
    const uint64_t n_tensors = 0;
    dmc_buffer_add(&file, "GGUF", 4);
    dmc_buffer_add(&file, &version, 4);
    dmc_buffer_add(&file, &n_tensors, 8);
    dmc_buffer_add(&file, &k->n, 8);
    dmc_buffer_add(&file, k->bytes.data, k->bytes.n);
    if (file.failed || dmc_gguf_parse(&g, file.data, file.n, "fuzz") != DMC_OK) abort();
    dmc_gguf_close(g);
    dmc_buffer_free(&file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dmc_checkpoint of = {0};
    dmc_gguf_keys k = {0};
    char path[64];
    if (size == 0) return 0;
    int fd = memfd_create("fuzz", 0);
    if (fd < 0 || write(fd, data + 1, size - 1) != (ssize_t)size - 1) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (data[0] == 's') of.tokenizer.sp_model_path = path;
    else if (data[0] == 'l') of.tokenizer.llama2c_bin_path = path;
    else of.tokenizer.hf_json_path = path;
    if (dmc_vocabulary_put(&k, &of, 300) == DMC_OK) check(&k);
    dmc_buffer_free(&k.bytes);
    close(fd);
    return 0;
}
