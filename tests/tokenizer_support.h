/* What the tests of tokenizers share: opening one from whatever defines it, encoding, decoding, small vocabularies. */
#ifndef DMC_TESTS_TOKENIZER_SUPPORT_H
#define DMC_TESTS_TOKENIZER_SUPPORT_H

#include "format/gguf_build.h"
#include "format/json.h"
#include "format_support.h"
#include "text/byte_alphabet.h"
#include "text/detok.h"
#include "text/vocab.h"

static inline dmc_status open_gguf_bytes(dmc_tokenizer **t, const void *data, size_t n)
{
    dmc_gguf *g;
    *t = NULL;
    DMC_TRY(dmc_gguf_parse(&g, data, n, "test.gguf"));
    dmc_tokenizer_source source = {.gguf = g};
    dmc_status status = dmc_tokenizer_open(t, &source, NULL);
    dmc_gguf_close(g);
    return status;
}

/* By the ending of its name: .gguf, tokenizer.json, .model, .bin, tokenizer_config.json (vocab.json beside it). */
static inline dmc_tokenizer *open_tokenizer(const char *path)
{
    dmc_tokenizer *t = NULL;
    dmc_tokenizer_source source = {0};
    char *name = (char *)(uintptr_t)path;
    const char *dot = strrchr(path, '.');
    if (!strcmp(dot, ".gguf")) {
        dmc_mapping file;
        ASSERT_OK(dmc_map_file(&file, path));
        ASSERT_OK(open_gguf_bytes(&t, file.data, file.size));
        dmc_unmap(&file);
        return t;
    }
    if (!strcmp(dot, ".model")) source.sp_model_path = name;
    else if (!strcmp(dot, ".bin")) source.llama2c_bin_path = name;
    else if (strstr(path, "tokenizer_config")) source.hf_config_path = name;
    else source.hf_json_path = name;
    ASSERT_OK(dmc_tokenizer_open(&t, &source, NULL));
    return t;
}

static inline dmc_status open_json(dmc_tokenizer **t, const char *json)
{
    dmc_tokenizer_source source = {.hf_json = json, .hf_json_bytes = strlen(json)};
    return dmc_tokenizer_open(t, &source, NULL);
}

static inline int32_t *encode(const dmc_tokenizer *t, const char *text, size_t n, bool special, size_t *n_ids)
{
    int32_t *ids;
    ASSERT_OK(dmc_tokenizer_encode(&ids, n_ids, t, text, n, false, special));
    for (size_t i = 0; i < *n_ids; i++) assert_in_range(ids[i], 0, dmc_tokenizer_size(t) - 1);
    return ids;
}

/* Asserts that text has exactly these ids; the list ends with -1. */
static inline void check_ids(const dmc_tokenizer *t, const char *text, bool special, const int32_t *want)
{
    size_t n, n_want = 0;
    int32_t *ids = encode(t, text, strlen(text), special, &n);
    while (want[n_want] >= 0) n_want++;
    bool equal = n == n_want && memcmp(ids, want, n * sizeof *ids) == 0;
    for (size_t i = 0; !equal && i < n; i++) print_message("%d ", ids[i]);
    if (!equal) fail_msg("'%s': these ids are not the ones wanted", text);
    dmc_free(ids);
}
#define CHECK_IDS(t, text, special, ...) check_ids(t, text, special, (const int32_t[]){__VA_ARGS__ __VA_OPT__(, ) - 1})

/* All tokens' text through the streaming detokeniser; NUL-terminated, free(). */
static inline char *decode(const dmc_tokenizer *t, const int32_t *ids, size_t n_ids, size_t *n)
{
    dmc_detok d = {0};
    size_t cap = 64, k;
    char *out = malloc(cap);
    *n = 0;
    for (size_t i = 0; i < n_ids; i++) {
        const char *bytes;
        size_t n_bytes;
        ASSERT_OK(dmc_tokenizer_bytes(t, ids[i], &bytes, &n_bytes));
        if (cap - *n < 3 * (n_bytes + 4) + 16) out = realloc(out, cap = 2 * cap + 3 * n_bytes + 64);
        ASSERT_OK(dmc_detok_push_tokenizer(t, &d, ids[i], out + *n, 3 * (n_bytes + 4), &k));
        *n += k;
    }
    *n += dmc_detok_flush(&d, out + *n, cap - *n);
    out[*n] = 0;
    return out;
}

/* ---- small vocabularies of every kind ---- */

/* Byte-level: the 256 bytes, then "ab", "abc", " a"; <s> and </s> are special, "<x>" is not. */
static inline char *small_json(void)
{
    static char json[32768];
    size_t n = 0;
    n += (size_t)snprintf(
        json, sizeof json,
        "{\"added_tokens\":[{\"id\":259,\"content\":\"<s>\",\"special\":true},{\"id\":260,\"content\":\"</s>\","
        "\"special\":true},{\"id\":261,\"content\":\"<x>\",\"special\":false}],\"normalizer\":null,"
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"post_processor\":{\"type\":"
        "\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}}],"
        "\"special_tokens\":{\"<s>\":{\"ids\":[259]}}},\"model\":{\"type\":\"BPE\",\"vocab\":{");
    for (int b = 0; b < 256; b++) {
        n += (size_t)snprintf(json + n, sizeof json - n, "\"\\u%04x\":%d,", dmc_alphabet_char((uint8_t)b), b);
    }
    snprintf(json + n, sizeof json - n,
             "\"ab\":256,\"abc\":257,\"\\u0120a\":258},\"merges\":[\"a b\",[\"ab\",\"c\"],\"\\u0120 a\"]}}");
    return json;
}

typedef struct {
    const char *piece;
    float score;
    int kind;
} small_piece;

/* SentencePiece: some pieces and all bytes. */
static const small_piece small_pieces[] = {{"<unk>", 0, 2},
                                           {"<s>", 0, 3},
                                           {"</s>", 0, 3},
                                           {"\xe2\x96\x81", -5, 1},
                                           {"a", -3, 1},
                                           {"b", -4, 1},
                                           {"ab", -1, 1},
                                           {"\xe2\x96\x81"
                                            "ab",
                                            -2, 1},
                                           {"<user>", 0, 4},
                                           {"\xc3\xa9", -6, 1}};
#define N_SMALL_PIECES ((int)(sizeof small_pieces / sizeof *small_pieces))

static inline small_piece small_piece_at(int id, char *name)
{
    if (id < N_SMALL_PIECES) return small_pieces[id];
    sprintf(name, "<0x%02X>", (unsigned)(id - N_SMALL_PIECES) & 0xFF);
    return (small_piece){name, 0, 6};
}

static inline size_t put_varint(uint8_t *out, uint64_t v)
{
    size_t n = 0;
    for (; v >= 128; v >>= 7) out[n++] = (uint8_t)(v | 128);
    out[n++] = (uint8_t)v;
    return n;
}

/* tokenizer.model: a message of the pieces, trainer settings, normaliser settings. */
static inline size_t small_sp(uint8_t *out, int model_type, int n_bytes)
{
    size_t n = 0;
    char name[16];
    for (int id = 0; id < N_SMALL_PIECES + n_bytes; id++) {
        small_piece p = small_piece_at(id, name);
        uint8_t length = (uint8_t)strlen(p.piece);
        out[n++] = 0x0A;
        out[n++] = (uint8_t)(2 + length + 5 + 2);
        out[n++] = 0x0A;
        out[n++] = length;
        memcpy(out + n, p.piece, length);
        n += length;
        out[n++] = 0x15;
        memcpy(out + n, &p.score, 4);
        n += 4;
        out[n++] = 0x18;
        out[n++] = (uint8_t)p.kind;
    }
    memcpy(out + n, (uint8_t[]){0x12, 2, 0x18, (uint8_t)model_type, 0x1A, 4, 0x18, 1, 0x20, 0}, 10);
    return n + 10;
}

/* tokenizer.bin of llama2.c. */
static inline size_t small_bin(uint8_t *out)
{
    static const struct {
        const char *piece;
        float score;
    } pieces[] = {{"<unk>", 0}, {"\n<s>\n", 0}, {"\n</s>\n", 0}, {" ", -5},
                  {"a", -3},    {"b", -4},      {"ab", -1},      {" ab", -2}};
    size_t n = 4;
    memcpy(out, &(int32_t){6}, 4);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        int32_t length = (int32_t)strlen(pieces[i].piece);
        memcpy(out + n, &pieces[i].score, 4);
        memcpy(out + n + 4, &length, 4);
        memcpy(out + n + 8, pieces[i].piece, (size_t)length);
        n += 8 + (size_t)length;
    }
    return n;
}

/* A GGUF header with a vocabulary; free the buffer with dmc_free. n_off: tokens, scores and types have this many
 * entries too few. */
static inline uint8_t *small_gguf(size_t *n, bool spm, int scores_off, int types_off)
{
    dmc_gguf_keys k = {0};
    dmc_buffer texts = {0}, scores = {0}, types = {0}, merges = {0};
    int count = spm ? N_SMALL_PIECES + 256 : 6;
    static const char *const bpe[] = {"<s>", "a", "b", "\xc4\xa0", "ab", "<x>"};
    static const int bpe_kinds[] = {3, 1, 1, 1, 1, 4};
    char name[16];
    for (int id = 0; id < count; id++) {
        small_piece p = spm ? small_piece_at(id, name) : (small_piece){bpe[id], 0, bpe_kinds[id]};
        int32_t kind = p.kind;
        dmc_buffer_add_string(&texts, p.piece, strlen(p.piece));
        if (id < count - scores_off) dmc_buffer_add(&scores, &p.score, 4);
        if (id < count - types_off) dmc_buffer_add(&types, &kind, 4);
    }
    dmc_buffer_add_string(&merges, "a b", 3);
    dmc_gguf_put_string(&k, "tokenizer.ggml.model", spm ? "llama" : "gpt2", spm ? 5 : 4);
    dmc_gguf_put_string(&k, "tokenizer.ggml.pre", spm ? "default" : "gpt-2", spm ? 7 : 5);
    dmc_gguf_put_strings(&k, "tokenizer.ggml.tokens", &texts, (uint64_t)count);
    if (spm) dmc_gguf_put_floats(&k, "tokenizer.ggml.scores", scores.data, (uint64_t)(count - scores_off));
    dmc_gguf_put_ints(&k, "tokenizer.ggml.token_type", types.data, (uint64_t)(count - types_off));
    dmc_gguf_put_strings(&k, "tokenizer.ggml.merges", &merges, 1);
    dmc_gguf_put_int(&k, "tokenizer.ggml.bos_token_id", spm ? 1 : 0);
    dmc_gguf_put_int(&k, "tokenizer.ggml.eos_token_id", spm ? 2 : 0);
    dmc_buffer_free(&texts);
    dmc_buffer_free(&scores);
    dmc_buffer_free(&types);
    dmc_buffer_free(&merges);
    uint8_t *out = malloc(24 + k.bytes.n);
    memcpy(out, "GGUF\3\0\0\0\0\0\0\0\0\0\0\0", 16);
    memcpy(out + 16, &k.n, 8);
    memcpy(out + 24, k.bytes.data, k.bytes.n);
    *n = 24 + k.bytes.n;
    dmc_buffer_free(&k.bytes);
    return out;
}

#endif
