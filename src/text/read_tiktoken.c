/* Llama 3's tokenizer.model: a line per token, its bytes in base64, a space, its rank, which is also its id. The
 * special tokens are not in the file; Meta's code gives them the 256 ids behind. */
#include "text/families.h"
#include "text/vocab.h"

#include <string.h>

#define N_LLAMA3 128000
#define N_SPECIAL 256
#define MAX_LINE 1024 /* bytes of base64; real ones have at most 200 */

static int base64_value(uint8_t c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static bool base64_decode(char *out, size_t *n_out, const uint8_t *s, size_t n)
{
    if (n == 0 || n % 4 || n > MAX_LINE) return false;
    size_t n_pad = s[n - 1] != '=' ? 0 : s[n - 2] != '=' ? 1 : 2;
    uint32_t bits = 0;
    *n_out = 0;
    for (size_t i = 0; i < n; i++) {
        int v = i >= n - n_pad ? 0 : base64_value(s[i]);
        if (v < 0) return false;
        bits = bits << 6 | (uint32_t)v;
        for (int k = 16; i % 4 == 3 && k >= 0; k -= 8) out[(*n_out)++] = (char)(bits >> k);
    }
    *n_out -= n_pad;
    return true;
}

static dmc_status set_special_tokens(dmc_tokenizer *t, int first)
{
    static const char *const names[] = {"<|begin_of_text|>",
                                        "<|end_of_text|>",
                                        "<|reserved_special_token_0|>",
                                        "<|reserved_special_token_1|>",
                                        "<|finetune_right_pad_id|>",
                                        "<|step_id|>",
                                        "<|start_header_id|>",
                                        "<|end_header_id|>",
                                        "<|eom_id|>",
                                        "<|eot_id|>",
                                        "<|python_tag|>",
                                        "<|image|>"};
    const int n_names = sizeof names / sizeof *names;
    for (int i = 0; i < N_SPECIAL; i++) {
        char reserved[48];
        snprintf(reserved, sizeof reserved, "<|reserved_special_token_%d|>", i - n_names + 2);
        const char *name = i < n_names ? names[i] : reserved;
        DMC_TRY(dmc_vocab_set(t, first + i, name, strlen(name), DMC_KIND_CONTROL, DMC_TOKEN_ADDED, 0));
    }
    t->bos = first;
    t->adds_bos = true;
    return DMC_OK;
}

dmc_status dmc_read_tiktoken(dmc_tokenizer *t, const uint8_t *data, size_t n, const char *where)
{
    size_t n_lines = 0;
    for (size_t i = 0; i < n; i++) n_lines += data[i] == '\n' || i + 1 == n;
    DMC_TRY(dmc_vocab_reserve(t, n_lines + N_SPECIAL, where));
    const uint8_t *p = data, *end = data + n;
    for (size_t line = 0; line < n_lines; line++) {
        const uint8_t *newline = memchr(p, '\n', (size_t)(end - p)), *stop = newline ? newline : end;
        const uint8_t *space = memchr(p, ' ', (size_t)(stop - p));
        char bytes[MAX_LINE];
        size_t n_bytes, rank = 0;
        bool good = space && base64_decode(bytes, &n_bytes, p, (size_t)(space - p)) && space + 1 < stop;
        for (const uint8_t *q = good ? space + 1 : stop; q < stop && good; q++) {
            good = *q >= '0' && *q <= '9';
            rank = rank * 10 + (*q - '0');
            good &= rank < n_lines;
        }
        if (!good || t->tokens[rank].kind != DMC_KIND_UNUSED)
            return dmc_fail(DMC_ERR_FORMAT, "%s: line %zu is no 'base64 rank' with a rank below %zu of its own", where,
                            line + 1, n_lines);
        DMC_TRY(dmc_vocab_set(t, (int64_t)rank, bytes, n_bytes, DMC_KIND_NORMAL, DMC_TOKEN_MERGES, (uint32_t)rank));
        p = stop + (newline != NULL);
    }
    if (n_lines != N_LLAMA3)
        return dmc_fail(
            DMC_ERR_UNSUPPORTED,
            "%s: %zu ranks; only Llama 3's vocabulary, of %d, is supported in this form (is there a tokenizer.json "
            "for it?)",
            where, n_lines, N_LLAMA3);
    DMC_TRY(set_special_tokens(t, (int)n_lines));
    t->rule = DMC_MERGE_PIECES;
    t->whole_words = true;
    DMC_TRY(dmc_splitter_add_family(&t->splitter, dmc_family_find("llama3", 6)));
    DMC_TRY(dmc_vocab_index(t));
    return dmc_vocab_finish(t);
}
