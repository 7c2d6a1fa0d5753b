/* Vocabularies that lie, are cut, or are damaged, and memory that runs out: a clear error or a tokenizer that works,
 * no accident. */
#define _GNU_SOURCE
#include "tokenizer_support.h"

typedef enum { JSON, SENTENCEPIECE, LLAMA2C, TIKTOKEN, GGUF_SPM, GGUF_BPE, N_KINDS } kind;

/* Opens a vocabulary of this kind from bytes on the heap. */
static dmc_status open_bytes(dmc_tokenizer **t, kind k, const uint8_t *data, size_t n)
{
    *t = NULL;
    if (k == GGUF_SPM || k == GGUF_BPE) return open_gguf_bytes(t, data, n);
    if (k == JSON) {
        dmc_tokenizer_source source = {.hf_json = (const char *)data, .hf_json_bytes = n};
        return dmc_tokenizer_open(t, &source, NULL);
    }
    const char *path = scratch("hostile");
    put_file(path, data, n);
    dmc_tokenizer_source source = {0};
    *(k == LLAMA2C ? &source.llama2c_bin_path : &source.sp_model_path) = (char *)(uintptr_t)path;
    return dmc_tokenizer_open(t, &source, NULL);
}

/* A good file of each kind; free(). */
static uint8_t *good_file(kind k, size_t *n)
{
    uint8_t *data = malloc(32768);
    static const char tiktoken[] = "IQ== 0\nIg== 1\nIyQl 2\n";
    if (k == GGUF_SPM || k == GGUF_BPE) {
        free(data);
        return small_gguf(n, k == GGUF_SPM, 0, 0);
    }
    if (k == JSON) strcpy((char *)data, small_json());
    if (k == TIKTOKEN) strcpy((char *)data, tiktoken);
    *n = k == JSON || k == TIKTOKEN ? strlen((char *)data) : k == LLAMA2C ? small_bin(data) : small_sp(data, 2, 20);
    return data;
}

/* Encodes, decodes, asks for everything: whatever opened must work. */
static void use(const dmc_tokenizer *t)
{
    static const char *const texts[] = {"ab <s>ab<x> \xe2\x96\x81\xff 12\n", "", " ",
                                        "\xf0\x9f\xa6\x99 aaaaaaaaaaaaaaaa<user></s>"};
    for (size_t i = 0; i < 4; i++)
        for (int special = 0; special < 2; special++) {
            int32_t *ids;
            size_t n, n_back;
            if (dmc_tokenizer_encode(&ids, &n, t, texts[i], strlen(texts[i]), true, special) != DMC_OK) continue;
            free(decode(t, ids, n, &n_back));
            dmc_free(ids);
        }
    for (int id = -1; id <= dmc_tokenizer_size(t); id++) {
        const char *bytes;
        size_t n;
        uint64_t sum = 0;
        bool inside = id >= 0 && id < dmc_tokenizer_size(t);
        assert_int_equal(dmc_tokenizer_bytes(t, id, &bytes, &n), inside ? DMC_OK : DMC_ERR_ARG);
        for (size_t i = 0; i < n; i++) sum += (uint8_t)bytes[i];
        assert_true(sum <= 255 * n); /* the bytes are there */
        (void)(dmc_tokenizer_is_end(t, id) + dmc_tokenizer_is_control(t, id));
    }
    assert_in_range(dmc_tokenizer_bos(t) + 1, 0, dmc_tokenizer_size(t));
}

static void try_bytes(kind k, const uint8_t *data, size_t n)
{
    uint8_t *exact = malloc(n ? n : 1); /* so that a read beyond the end is seen */
    memcpy(exact, data, n);
    dmc_tokenizer *t;
    dmc_status status = open_bytes(&t, k, exact, n);
    assert_true((status == DMC_OK) == (t != NULL));
    if (status != DMC_OK) assert_true(strlen(dmc_last_error()) > 0);
    if (t) use(t);
    dmc_tokenizer_close(t);
    free(exact);
}

/* How many bytes to go on by: sanitized builds take every third. */
static size_t step(size_t n) { return 1 + n / (DMC_SANITIZED ? 300 : 2000); }

static void test_truncated(void **state)
{
    (void)state;
    for (kind k = 0; k < N_KINDS; k++) {
        size_t n;
        uint8_t *data = good_file(k, &n);
        for (size_t cut = 0; cut < n; cut += step(n)) try_bytes(k, data, cut);
        free(data);
    }
}

static void test_damaged(void **state)
{
    (void)state;
    static const uint8_t values[] = {0, 0xFF, '"', '9', 0x7F};
    for (kind k = 0; k < N_KINDS; k++) {
        size_t n;
        uint8_t *data = good_file(k, &n);
        for (size_t i = 0; i < n; i += step(n)) {
            uint8_t kept = data[i];
            data[i] = (uint8_t)(kept + 1);
            try_bytes(k, data, n);
            data[i] = values[i % sizeof values];
            try_bytes(k, data, n);
            data[i] = kept;
        }
        free(data);
    }
}

/* Real files, cut and damaged at a few places. */
static void test_real_files(void **state)
{
    (void)state;
    static const struct {
        kind k;
        const char *path;
    } files[] = {
        {JSON, "weights-tinystories-656k/tokenizer.json"},
        {SENTENCEPIECE, "weights-babyllama-tok105/tok105.model"},
        {LLAMA2C, "weights-stories260K/tok512.bin"},
        {SENTENCEPIECE, "tokenizer-llama2/tokenizer.model"},
        {TIKTOKEN, "tokenizer-llama3/tokenizer.model"},
        {GGUF_BPE, "tokenizer-vocab-gguf-suite/ggml-vocab-gpt-2.gguf"},
        {GGUF_SPM, "weights-stories260K-gguf/stories260K.gguf"},
    };
    need(shared_data(files[4].path));
    for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
        size_t n;
        uint8_t *data = get_file(shared_data(files[f].path), &n);
        for (uint64_t i = 0; i < 12; i++) {
            size_t at = dmc_hash64(1, f, i) % n;
            uint8_t kept = data[at];
            data[at] = (uint8_t)dmc_hash64(2, f, i);
            try_bytes(files[f].k, data, n);
            data[at] = kept;
            if (i % 3 == 0) try_bytes(files[f].k, data, at);
        }
        free(data);
    }
}

static void refused(kind k, const void *data, size_t n, const char *why)
{
    dmc_tokenizer *t;
    dmc_status status = open_bytes(&t, k, data, n);
    if (status == DMC_OK || status == DMC_ERR_MEMORY) fail_msg("not refused: %s", why);
    assert_null(t);
    if (!strstr(dmc_last_error(), why)) fail_msg("'%s' does not say '%s'", dmc_last_error(), why);
}

static void refused_json(const char *model, const char *why)
{
    char json[4096];
    int n = snprintf(json, sizeof json, "{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},%s}", model);
    refused(JSON, json, (size_t)n, why);
}
#define MODEL(vocab, merges) "\"model\":{\"type\":\"BPE\",\"vocab\":{" vocab "},\"merges\":[" merges "]}"

static void test_json_lies(void **state)
{
    (void)state;
    refused_json(MODEL("\"a\":1000000000", ""), "1000000000");
    refused_json(MODEL("\"a\":-1", ""), "no id");
    refused_json(MODEL("\"a\":4294967296", ""), "4294967296");
    refused_json(MODEL("\"a\":1.5", ""), "no id");
    refused_json(MODEL("\"a\":\"0\"", ""), "no id");
    refused_json(MODEL("\"a\":0,\"b\":0", ""), "twice");
    refused_json(MODEL("\"a\":0,\"a\":1", ""), "duplicate");
    refused_json(MODEL("", ""), "vocabulary of 0");
    refused_json(MODEL("\"a\":0,\"b\":1", "\"a b\""), "not in the vocabulary");
    refused_json(MODEL("\"a\":0,\"b\":1,\"ab\":2", "\"a c\""), "not in the vocabulary");
    refused_json(MODEL("\"a\":0", "\"ab\""), "not two pieces");
    refused_json(MODEL("\"a\":0", "[\"a\"]"), "not two pieces");
    refused_json(MODEL("\"a\":0", "[\"a\",1]"), "not two pieces");
    refused_json(MODEL("\"a\":0", "7"), "not two pieces");
    refused_json("\"model\":{\"type\":\"BPE\",\"vocab\":[],\"merges\":[]}", "'vocab'");
    refused_json("\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":{}}", "'merges'");
    refused_json("\"model\":[]", "no 'model'");
    refused_json("\"added_tokens\":[{\"id\":99999999,\"content\":\"x\"}]," MODEL("\"a\":0", ""), "99999999");
    refused_json("\"added_tokens\":[{\"content\":\"x\"}]," MODEL("\"a\":0", ""), "no id");
    refused_json("\"added_tokens\":[{\"id\":1}]," MODEL("\"a\":0", ""), "no content");
    refused_json("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}}],"
                 "\"special_tokens\":{\"x\":"
                 "{\"ids\":[77]}}}," MODEL("\"a\":0", ""),
                 "has no id");
    refused(JSON, "[]", 2, "no 'model'");
    refused(JSON, "", 0, "");

    char *deep = malloc(400000); /* nesting: of JSON, and of sequences of normalisers */
    memset(deep, '[', 400000);
    refused(JSON, deep, 400000, "");
    size_t n = (size_t)sprintf(deep, "{\"normalizer\":");
    for (int i = 0; i < 100; i++) n += (size_t)sprintf(deep + n, "{\"type\":\"Sequence\",\"normalizers\":[");
    n += (size_t)sprintf(deep + n, "null");
    for (int i = 0; i < 100; i++) n += (size_t)sprintf(deep + n, "]}");
    n += (size_t)sprintf(deep + n, ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}");
    refused(JSON, deep, n, "too deep");

    n = (size_t)sprintf(
        deep,
        "{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"added_tokens\":[{\"id\":1,\"content\":\""); /* 100 000 bytes */
    memset(deep + n, 'x', 100000);
    n += 100000;
    n += (size_t)sprintf(deep + n, "\"}]," MODEL("\"a\":0", "") "}");
    refused(JSON, deep, n, "more than");
    free(deep);
}

static void test_binary_lies(void **state)
{
    (void)state;
    uint8_t data[4096], sp[8192];
    memcpy(data,
           "\6\0\0\0"
           "\0\0\0\0"
           "\0\312\232\073",
           12); /* 10^9 bytes */
    refused(LLAMA2C, data, 12, "beyond");
    memcpy(data,
           "\6\0\0\0"
           "\0\0\0\0"
           "\377\377\377\377",
           12);
    refused(LLAMA2C, data, 12, "beyond");
    refused(LLAMA2C, data, 4, "vocabulary of 0");
    refused(LLAMA2C, data, 2, "2 bytes");
    size_t n = small_bin(data);
    dmc_config config = {.n_vocab = 100, .bos = 1};
    dmc_tokenizer *t;
    put_file(scratch("short.bin"), data, n);
    dmc_tokenizer_source source = {.llama2c_bin_path = (char *)(uintptr_t)scratch("short.bin")};
    assert_int_equal(dmc_tokenizer_open(&t, &source, &config), DMC_ERR_FORMAT); /* another model's */

    refused(SENTENCEPIECE, sp, small_sp(sp, 1, 0), "unigram");
    refused(SENTENCEPIECE, "\x0A\x80\x94\xEB\xDC\x03", 6, "damaged"); /* a piece of 10^9 bytes */
    refused(SENTENCEPIECE, "\x0A\x02\x0A\x09", 4, "");
    refused(SENTENCEPIECE, "\x0A\x02\x0A\x00\x12\x02\x18\x02", 8, "without a token"); /* one piece, empty */
    refused(SENTENCEPIECE, "\x0A\x09\x0A\x05<0x-1\x18\x06\x12\x02\x18\x02", 15, "");
    refused(SENTENCEPIECE, "\x0A\x0A\x0A\x06<0x-1>\x18\x06\x12\x02\x18\x02", 16, "no byte piece");
    refused(SENTENCEPIECE, "\x0A\x05\x0A\x01z\x18\x63\x12\x02\x18\x02", 11, "no known type");
    refused(SENTENCEPIECE, "", 0, "");

    refused(TIKTOKEN, "IQ== 0\nIg== 1\n", 14, "128000");
    refused(TIKTOKEN, "IQ== 0\nIg== 0\n", 14, "line 2");
    refused(TIKTOKEN, "IQ== 5\n", 7, "line 1");
    refused(TIKTOKEN, "IQ== -1\n", 8, "line 1");
    refused(TIKTOKEN, "IQ==\n", 5, "line 1");
    refused(TIKTOKEN, "IQ== \n", 6, "line 1");
    refused(TIKTOKEN, " 0\n", 3, "line 1");
    refused(TIKTOKEN, "I=== 0\n", 7, "line 1");
    refused(TIKTOKEN, "IQ=! 0\n", 7, "line 1");
    refused(TIKTOKEN, "IQ== 99999999999999999999999999\n", 32, "line 1");
}

static void test_gguf_lies(void **state)
{
    (void)state;
    size_t n;
    uint8_t *data = small_gguf(&n, true, 1, 0);
    refused(GGUF_SPM, data, n, "tokenizer.ggml.scores");
    free(data);
    data = small_gguf(&n, true, 0, 1);
    refused(GGUF_SPM, data, n, "tokenizer.ggml.token_type");
    free(data);
    static const char *const keys[] = {"tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type",
                                       "tokenizer.ggml.merges", "tokenizer.ggml.model",  "tokenizer.ggml.pre"};
    for (int spm = 0; spm < 2; spm++)
        for (size_t i = 0; i < 6; i++) { /* without a key that it has */
            data = small_gguf(&n, spm, 0, 0);
            uint8_t *key = memmem(data, n, keys[i], strlen(keys[i]));
            if (key) key[strlen(keys[i]) - 1] ^= 1;
            bool needed = i == 0 || (spm ? i == 1 : i == 3) || i == 4;
            if (needed) refused(GGUF_SPM, data, n, "tokenizer.ggml");
            else try_bytes(GGUF_SPM, data, n);
            free(data);
        }
    data = small_gguf(&n, false, 0, 0);
    memcpy(memmem(data, n, "gpt-2", 5), "gpt-x", 5);
    refused(GGUF_BPE, data, n, "gpt-x");
    memcpy(memmem(data, n, "gpt-x", 5), "gpt-2", 5);
    memcpy(memmem(data, n, "a b", 3), "a x", 3);
    refused(GGUF_BPE, data, n, "not in the vocabulary");
    free(data);
}

/* Patterns that would take for ever say so. */
static void test_backtracking(void **state)
{
    (void)state;
    static const char *const patterns[] = {
        "(a|aa)+$", "(a+)+$", "(?:a?){40}a{40}b", "(.*)*x", "((a|b)*c)*d", "(?R)?a", "a\\\\K", "(?=a)", "a*", ""};
    char json[2048], text[2001];
    memset(text, 'a', 2000);
    text[2000] = 0;
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        dmc_tokenizer *t;
        snprintf(json, sizeof json,
                 "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
                 "\"pattern\":{\"Regex\":\"%s\"},\"behavior\":"
                 "\"Isolated\"},{\"type\":\"ByteLevel\",\"use_regex\":false,\"add_prefix_space\":false}]}," MODEL(
                     "\"a\":0,\"b\":1", "") "}",
                 patterns[i]);
        if (open_json(&t, json) != DMC_OK) {
            assert_int_equal(i, 9); /* only that the empty one is refused would be acceptable */
            continue;
        }
        for (int b = 0; b < 2; b++) {
            int32_t *ids;
            size_t n;
            double start = dmc_now();
            text[1999] = b ? 'b' : 'a';
            dmc_status status = dmc_tokenizer_encode(&ids, &n, t, text, 2000, false, false);
            if (status == DMC_OK) assert_int_equal(n, 2000);
            else assert_int_equal(status, DMC_ERR_UNSUPPORTED);
            dmc_free(ids);
            assert_true(dmc_now() - start < 60);
        }
        dmc_tokenizer_close(t);
    }
}

/* ---- memory runs out ---- */

static void test_memory(void **state)
{
    (void)state;
    for (kind k = 0; k < N_KINDS; k++) {
        if (k == TIKTOKEN) continue; /* a good one is too large for this */
        size_t n;
        uint8_t *data = good_file(k, &n);
        dmc_tokenizer *t = NULL;
        for (long i = 1; !t; i++) {
            assert_true(i < 10000);
            if (k == SENTENCEPIECE || k == LLAMA2C) put_file(scratch("hostile"), data, n);
            dmc_fault_memory(i);
            dmc_status status = open_bytes(&t, k, data, n);
            dmc_fault_memory(0);
            if (status != DMC_OK && status != DMC_ERR_MEMORY)
                fail_msg("kind %d, allocation %ld: %s", (int)k, i, dmc_last_error());
        }
        static const char text[] = "ab<s>ab abc \xff<x>aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        dmc_status status = DMC_ERR_MEMORY;
        for (long i = 1; status != DMC_OK; i++) {
            int32_t *ids;
            size_t n_ids;
            assert_true(i < 1000);
            dmc_fault_memory(i);
            status = dmc_tokenizer_encode(&ids, &n_ids, t, text, sizeof text - 1, true, true);
            dmc_fault_memory(0);
            if (status != DMC_OK && (status != DMC_ERR_MEMORY || ids))
                fail_msg("kind %d, allocation %ld: %s", (int)k, i, dmc_last_error());
            dmc_free(ids);
        }
        dmc_tokenizer_close(t);
        free(data);
    }
}

/* The files beside a vocabulary: damaged, or lacking memory. */
static void test_config(void **state)
{
    (void)state;
    static const char *const configs[] = {
        "[]",
        "{\"added_tokens_decoder\":7,\"bos_token\":[],\"eos_token\":{\"content\":1},\"add_bos_token\":\"x\"}",
        "{\"added_tokens_decoder\":{\"x\":1,\"-5\":{\"content\":\"a\"},"
        "\"999999999999\":{\"content\":\"b\"},\"3\":{\"content\":7}}}",
        "{\"added_tokens_decoder\":{\"3\":{\"content\":\"\",\"special\":true},"
        "\"31\":{\"content\":\"<user2>\",\"lstrip\":true}},\"bos_token\":\"a\"}",
        "{\"tokenizer_class\":\"Qwen2Tokenizer\",\"eos_token\":{\"content\":\"ab\"}}",
        "{\"model_max_length\":1000000000000000019884624838656}",
        "{",
        ""};
    uint8_t data[8192];
    size_t n = small_sp(data, 2, 20);
    put_file(scratch("tokenizer.model"), data, n);
    put_text(scratch("vocab.json"), "{\"a\":0,\"b\":1,\"ab\":2}");
    put_text(scratch("merges.txt"), "#version: 0.2\na b\r\n\n");
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++)
        for (int form = 0; form < 2; form++) {
            dmc_tokenizer *t;
            put_text(scratch("tokenizer_config.json"), configs[i]);
            dmc_tokenizer_source source = {.hf_config_path = (char *)(uintptr_t)scratch("tokenizer_config.json"),
                                           .sp_model_path =
                                               form ? NULL : (char *)(uintptr_t)scratch("tokenizer.model")};
            dmc_status status = dmc_tokenizer_open(&t, &source, NULL);
            assert_true((status == DMC_OK) == (t != NULL));
            if (t) use(t);
            dmc_tokenizer_close(t);
        }
    for (int form = 0; form < 2; form++) {
        put_text(scratch("tokenizer_config.json"), configs[4]);
        put_text(scratch("added_tokens.json"), "{\"<z>\":30,\"<y>\":\"x\"}");
        dmc_tokenizer_source source = {.hf_config_path = (char *)(uintptr_t)scratch("tokenizer_config.json"),
                                       .sp_model_path = form ? NULL : (char *)(uintptr_t)scratch("tokenizer.model")};
        dmc_tokenizer *t = NULL;
        for (long i = 1; !t; i++) {
            dmc_fault_memory(i);
            dmc_status status = dmc_tokenizer_open(&t, &source, NULL);
            dmc_fault_memory(0);
            if (status != DMC_OK && status != DMC_ERR_MEMORY) fail_msg("allocation %ld: %s", i, dmc_last_error());
        }
        assert_int_equal(dmc_tokenizer_size(t), 31);
        CHECK_IDS(t, "<z>", true, 30);
        dmc_tokenizer_close(t);
        for (long i = 1, done = 0; !done; i++) { /* and files that cannot be read */
            dmc_fault_io(i);
            dmc_status status = dmc_tokenizer_open(&t, &source, NULL);
            dmc_fault_io(0);
            done = status == DMC_OK;
            if (!done) assert_int_equal(status, DMC_ERR_IO);
            dmc_tokenizer_close(t);
        }
    }
    put_text(scratch("merges.txt"), "a c\n");
    dmc_tokenizer_source source = {.hf_json_path = (char *)(uintptr_t)scratch("vocab.json")};
    dmc_tokenizer *t;
    assert_int_equal(dmc_tokenizer_open(&t, &source, NULL), DMC_ERR_FORMAT);
    source.hf_json_path = (char *)(uintptr_t)scratch("nothing.json");
    assert_int_equal(dmc_tokenizer_open(&t, &source, NULL), DMC_ERR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_truncated),    cmocka_unit_test(test_damaged),     cmocka_unit_test(test_real_files),
        cmocka_unit_test(test_json_lies),    cmocka_unit_test(test_binary_lies), cmocka_unit_test(test_gguf_lies),
        cmocka_unit_test(test_backtracking), cmocka_unit_test(test_memory),      cmocka_unit_test(test_config),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
