/* Tokenizers against what others give: the shared test strings of a dozen vocabularies, ids of independent
 * implementations, golden ids of real models; and against themselves: a naive merger, round trips, streaming. */
#define _GNU_SOURCE
#include "tokenizer_support.h"
#include "text/utf8.h"

#include <pthread.h>

/* ---- the suite: NAME.inp has texts, NAME.out the ids of each on a line ---- */

typedef struct {
    const char *cases;      /* ggml-vocab-NAME */
    const char *vocabulary; /* relative to the shared data; NULL: the vocabulary is not there */
    const char *why;        /* ... or not of a kind that is supported */
} suite_entry;

#define SUITE "tokenizer-vocab-gguf-suite/ggml-vocab-"
static const suite_entry suite[] = {
    {"llama-spm", SUITE "llama-spm.gguf", NULL},
    {"llama-spm", "tokenizer-llama2/tokenizer.model", NULL},
    {"llama-spm", "tokenizer-llama2/tokenizer.bin", NULL},
    {"phi-3", SUITE "phi-3.gguf", NULL},
    {"llama-bpe", "tokenizer-llama3/tokenizer.model", NULL},
    {"qwen2", "tokenizer-qwen2.5/tokenizer_config.json", NULL},
    {"deepseek-r1-qwen", "tokenizer-qwen2.5/tokenizer_config.json", NULL},
    {"deepseek-llm", SUITE "deepseek-llm.gguf", NULL},
    {"deepseek-coder", SUITE "deepseek-coder.gguf", NULL},
    {"falcon", SUITE "falcon.gguf", NULL},
    {"gpt-2", SUITE "gpt-2.gguf", NULL},
    {"mpt", SUITE "mpt.gguf", NULL},
    {"mpt", SUITE "gpt-neox.gguf", NULL}, /* the same vocabulary, without cases of its own */
    {"mpt", "tokenizer-gpt-neox/tokenizer.json", NULL},
    {"refact", SUITE "refact.gguf", NULL},
    {"starcoder", SUITE "starcoder.gguf", NULL},
    {"bert-bge", NULL, "WordPiece, not BPE"},
    {"chameleon", NULL, "cases without a vocabulary"},
    {"command-r", NULL, "cases without a vocabulary"},
    {"roberta-bpe", NULL, "cases without a vocabulary"},
    {"baichuan", NULL, "a vocabulary without cases"},
};

static const char separator[] = "\n__ggml_vocab_test__\n";

/* Runs all cases; *total counts them. Returns those that pass. */
static int run_cases(const dmc_tokenizer *t, const char *name, int *total)
{
    char path[512];
    size_t n_texts, n_lines;
    snprintf(path, sizeof path, "%s/" SUITE "%s.gguf.inp", DMC_SHARED_DATA, name);
    char *texts = (char *)get_file(path, &n_texts);
    snprintf(path, sizeof path, "%s/" SUITE "%s.gguf.out", DMC_SHARED_DATA, name);
    char *lines = (char *)get_file(path, &n_lines), *line = lines;
    int passed = 0;
    *total = 0;
    for (char *text = texts, *end;
         (end = memmem(text, (size_t)(texts + n_texts - text), separator, strlen(separator)));) {
        char *line_end = memchr(line, '\n', (size_t)(lines + n_lines - line));
        assert_non_null(line_end);
        *line_end = 0;
        size_t n, k = 0;
        int32_t *ids = encode(t, text, (size_t)(end - text), false, &n);
        bool equal = true;
        for (char *p = line, *next;; p = next, k++) {
            long want = strtol(p, &next, 10);
            if (next == p) break;
            equal &= k < n && ids[k] == want;
        }
        equal &= k == n;
        if (!equal) print_message("    %s, case %d: %zu ids for %zu\n", name, *total, n, k);
        passed += equal;
        ++*total;
        dmc_free(ids);
        line = line_end + 1;
        text = end + strlen(separator);
    }
    assert_int_equal(line - lines, n_lines); /* as many lines as texts */
    free(texts);
    free(lines);
    return passed;
}

static void test_suite(void **state)
{
    (void)state;
    need(shared_data("tokenizer-vocab-gguf-suite"));
    int missed = 0;
    for (size_t i = 0; i < sizeof suite / sizeof *suite; i++) {
        const suite_entry *s = &suite[i];
        const char *why =
            s->vocabulary && !dmc_exists(shared_data(s->vocabulary)) ? "the vocabulary is not there" : s->why;
        if (why) {
            print_message("  %-18s %-50s skipped: %s\n", s->cases, s->vocabulary ? s->vocabulary : "", why);
            continue;
        }
        int total;
        dmc_tokenizer *t = open_tokenizer(shared_data(s->vocabulary));
        int passed = run_cases(t, s->cases, &total);
        print_message("  %-18s %-50s %d/%d\n", s->cases, s->vocabulary, passed, total);
        missed += total - passed;
        dmc_tokenizer_close(t);
    }
    assert_int_equal(missed, 0);
}

/* Every vocabulary of the suite opens, or is refused by name. */
static void test_suite_opens(void **state)
{
    (void)state;
    dmc_tokenizer *t;
    size_t n;
    need(shared_data(SUITE "bert-bge.gguf"));
    uint8_t *data = get_file(shared_data(SUITE "bert-bge.gguf"), &n);
    assert_int_equal(open_gguf_bytes(&t, data, n), DMC_ERR_UNSUPPORTED);
    assert_non_null(strstr(dmc_last_error(), "bert"));
    free(data);
    t = open_tokenizer(shared_data(SUITE "baichuan.gguf"));
    assert_int_equal(dmc_tokenizer_size(t), 64000);
    dmc_tokenizer_close(t);
}

/* ---- ids of independent implementations ---- */

static const struct {
    const char *name, *path;
} golden_vocabularies[] = {
    {"gpt-2", SUITE "gpt-2.gguf"},
    {"gpt-neox", "tokenizer-gpt-neox/tokenizer.json"},
    {"tinystories-656k", "weights-tinystories-656k/tokenizer.json"},
    {"qwen2.5", "tokenizer-qwen2.5/tokenizer_config.json"},
    {"llama-2", "tokenizer-llama2/tokenizer.model"},
    {"tok105", "weights-babyllama-tok105/tok105.model"},
    {"llama-3", "tokenizer-llama3/tokenizer.model"},
};

static size_t from_hex(char *out, const char *hex, size_t n)
{
    for (size_t i = 0; i < n / 2; i++) {
        unsigned byte;
        sscanf(hex + 2 * i, "%2x", &byte);
        out[i] = (char)byte;
    }
    return n / 2;
}

static void check_golden_line(const dmc_tokenizer *t, const char *line)
{
    char text[1024];
    const char *hex = strchr(line, ' ') + 1, *p = strchr(hex, ' ');
    size_t n_text = from_hex(text, hex, (size_t)(p - hex)), n, k = 0;
    int32_t *ids = encode(t, text, n_text, false, &n);
    for (char *next;; p = next, k++) {
        long want = strtol(p, &next, 10);
        if (next == p) break;
        if (k >= n || ids[k] != want) fail_msg("id %zu: %s", k, line);
    }
    if (k != n) fail_msg("%zu ids: %s", n, line);
    dmc_free(ids);
}

static void test_golden(void **state)
{
    (void)state;
    need(shared_data("tokenizer-llama2"));
    for (size_t v = 0; v < sizeof golden_vocabularies / sizeof *golden_vocabularies; v++) {
        dmc_tokenizer *t = open_tokenizer(shared_data(golden_vocabularies[v].path));
        size_t n_name = strlen(golden_vocabularies[v].name), n_lines = 0;
        char line[4096];
        FILE *f = fopen(DMC_SOURCE_DIR "/tests/tokenizer_golden.txt", "r");
        assert_non_null(f);
        while (fgets(line, sizeof line, f)) {
            if (strncmp(line, golden_vocabularies[v].name, n_name) != 0 || line[n_name] != ' ') continue;
            check_golden_line(t, line);
            n_lines++;
        }
        fclose(f);
        assert_in_range(n_lines, 35, 36);
        dmc_tokenizer_close(t);
    }
}

/* ---- golden ids of real models ---- */

static void check_reference(const char *file, const char *vocabulary)
{
    json_t *root;
    ASSERT_OK(dmc_json_load_file(&root, shared_data(file), 1 << 24));
    dmc_tokenizer *t = open_tokenizer(shared_data(vocabulary));
    const json_t *sequences = json_object_get(root, "sequences"), *prompt = json_object_get(root, "prompt");
    assert_true(dmc_tokenizer_adds_bos(t));
    for (size_t i = 0; i < (sequences ? json_array_size(sequences) : 1); i++) {
        const json_t *s = json_array_get(sequences, i);
        const json_t *text = s ? json_object_get(s, "text") : prompt,
                     *want = s ? json_object_get(s, "ids") : json_object_get(root, "prompt_ids");
        int32_t *ids;
        size_t n;
        ASSERT_OK(dmc_tokenizer_encode(&ids, &n, t, json_string_value(text), json_string_length(text), true, false));
        assert_int_equal(n, json_array_size(want));
        for (size_t k = 0; k < n; k++) assert_int_equal(ids[k], json_integer_value(json_array_get(want, k)));
        if (s) { /* and back */
            size_t n_back;
            char *back = decode(t, ids, n, &n_back);
            assert_int_equal(n_back, json_string_length(text));
            assert_memory_equal(back, json_string_value(text), n_back);
            free(back);
        }
        dmc_free(ids);
    }
    dmc_tokenizer_close(t);
    json_decref(root);
}

static void test_reference(void **state)
{
    (void)state;
    need(shared_data("golden-reference"));
    check_reference("golden-reference/stories260K_nll.json", "weights-stories260K/tok512.bin");
    check_reference("golden-reference/stories260K_nll.json", "weights-stories260K-gguf/stories260K.gguf");
    check_reference("golden-reference/stories260K_greedy.json", "weights-stories260K/tok512.bin");
    check_reference("golden-reference/tinystories-656k_nll.json", "weights-tinystories-656k/tokenizer.json");
    check_reference("golden-reference/tinystories-656k_greedy.json", "weights-tinystories-656k/tokenizer.json");
}

/* A generated text in this vocabulary, there and back; the last line has no newline, which it could not write. */
static void test_babyllama(void **state)
{
    (void)state;
    need(shared_data("weights-babyllama-tok105/tok105.bin"));
    size_t n_text, n, n_back;
    char *text = (char *)get_file(shared_data("golden-reference/babyllama-tok105_run.c_t0.0.txt"), &n_text);
    while (n_text && text[n_text - 1] == '\n') n_text--;
    dmc_tokenizer *bin = open_tokenizer(shared_data("weights-babyllama-tok105/tok105.bin"));
    dmc_tokenizer *model = open_tokenizer(shared_data("weights-babyllama-tok105/tok105.model"));
    int32_t *ids = encode(bin, text, n_text, false, &n), *same = encode(model, text, n_text, false, &n_back);
    assert_int_equal(n, n_back);
    assert_memory_equal(ids, same, n * sizeof *ids);
    char *back = decode(bin, ids, n, &n_back);
    assert_int_equal(n_back, n_text);
    assert_memory_equal(back, text, n_text);
    CHECK_IDS(bin, "\n", false, 3, 0); /* a space in front; no newline, and no bytes to fall back to: unknown */
    CHECK_IDS(bin, "\n\n", false, 3, 0);
    free(back);
    free(text);
    dmc_free(ids);
    dmc_free(same);
    dmc_tokenizer_close(bin);
    dmc_tokenizer_close(model);
}

/* ---- a naive merger: again and again, over all pairs ---- */

static bool naive_rank(const dmc_tokenizer *t, const char *s, const dmc_symbol *a, const dmc_symbol *b, uint32_t *rank,
                       int32_t *id)
{
    if (t->rule == DMC_MERGE_PIECES) {
        *id = dmc_vocab_find(t, s + a->start, a->n + b->n);
        if (*id >= 0) *rank = t->tokens[*id].rank;
        return *id >= 0;
    }
    *rank = a->id < 0 || b->id < 0 ? DMC_NO_PAIR : dmc_pair_get(&t->merges, (uint32_t)a->id, (uint32_t)b->id);
    if (*rank != DMC_NO_PAIR) *id = t->merged[*rank];
    return *rank != DMC_NO_PAIR;
}

/* Ids of ASCII text in a vocabulary without pre-tokeniser that has a token for each character. */
static size_t naive_encode(const dmc_tokenizer *t, const char *text, int32_t *ids)
{
    char s[512];
    dmc_symbol symbols[512];
    size_t n = 0;
    int best;
    sprintf(s, " %s", text);
    for (const char *p = s; *p; p++) symbols[n] = (dmc_symbol){(uint32_t)n, 1, dmc_vocab_find(t, p, 1), 0, 0}, n++;
    do {
        uint32_t rank, best_rank = 0;
        int32_t id, best_id = -1;
        best = -1;
        for (size_t i = 0; i + 1 < n; i++)
            if (naive_rank(t, s, &symbols[i], &symbols[i + 1], &rank, &id) && (best < 0 || rank < best_rank)) {
                best = (int)i;
                best_rank = rank;
                best_id = id;
            }
        if (best >= 0) {
            symbols[best].n += symbols[best + 1].n;
            symbols[best].id = best_id;
            memmove(symbols + best + 1, symbols + best + 2, (n - (size_t)best - 2) * sizeof *symbols);
            n--;
        }
    } while (best >= 0);
    for (size_t i = 0; i < n; i++) ids[i] = symbols[i].id;
    return n;
}

static void test_naive(void **state)
{
    (void)state;
    static const char *const paths[] = {"weights-tinystories-656k/tokenizer.json", "tokenizer-llama2/tokenizer.model",
                                        "weights-stories260K/tok512.bin"};
    need(shared_data("corpus-tinystories-valid"));
    size_t n_corpus;
    char *corpus = (char *)get_file(shared_data("corpus-tinystories-valid/tinystories_val.txt"), &n_corpus);
    for (size_t i = 0; i < n_corpus; i++) /* all three have these characters */
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWY ,.!?'\n", corpus[i])) corpus[i] = ' ';
    for (size_t v = 0; v < 3; v++) {
        dmc_tokenizer *t = open_tokenizer(shared_data(paths[v]));
        for (uint64_t k = 0; k < 60; k++) {
            char text[401];
            int32_t want[512];
            size_t at = dmc_hash64(1, v, k) % (n_corpus - 400), n;
            memcpy(text, corpus + at, 400);
            text[400] = 0;
            for (char *p = text; v > 0 && (p = strchr(p, '\n'));) *p = ' '; /* only the first has a newline */
            size_t n_want = naive_encode(t, text, want);
            int32_t *ids = encode(t, text, 400, false, &n);
            assert_int_equal(n, n_want);
            assert_memory_equal(ids, want, n * sizeof *ids);
            dmc_free(ids);
        }
        dmc_tokenizer_close(t);
    }
    free(corpus);
}

/* ---- round trips ---- */

static size_t put_character(char *out, uint32_t c)
{
    if ((c >= 0xD800 && c < 0xE000) || c == 0) c = 'x';
    return (size_t)dmc_utf8_put(out, c);
}

/* Random characters of all planes, mostly the low ones. */
static size_t random_text(char *out, size_t n, uint64_t stream)
{
    static const uint32_t limits[] = {0x80, 0x80, 0x80, 0x300, 0x3000, 0x10000, 0x110000};
    size_t length = 0;
    for (uint64_t k = 0; length + 4 <= n; k += 2)
        length += put_character(out + length,
                                (uint32_t)(dmc_hash64(3, stream, k) % limits[dmc_hash64(3, stream, k + 1) % 7]));
    return length;
}

/* The tokens' bytes, one after the other, are the text. */
static void check_round_trip(const dmc_tokenizer *t, const char *text, size_t n, size_t n_prefix)
{
    size_t n_ids, at = 0;
    int32_t *ids = encode(t, text, n, false, &n_ids);
    for (size_t i = 0; i < n_ids; i++) {
        const char *bytes;
        size_t n_bytes;
        ASSERT_OK(dmc_tokenizer_bytes(t, ids[i], &bytes, &n_bytes));
        if (i == 0) assert_true(n_bytes >= n_prefix);
        size_t skip_bytes = i == 0 ? n_prefix : 0;
        assert_true(at + n_bytes - skip_bytes <= n);
        assert_memory_equal(text + at, bytes + skip_bytes, n_bytes - skip_bytes);
        at += n_bytes - skip_bytes;
    }
    assert_int_equal(at, n);
    dmc_free(ids);
}

static void test_round_trip(void **state)
{
    (void)state;
    static const char *const byte_level[] = {SUITE "gpt-2.gguf", "tokenizer-llama3/tokenizer.model"};
    static const char *const with_prefix[] = {SUITE "llama-spm.gguf", "tokenizer-llama2/tokenizer.bin"};
    char text[600];
    need(shared_data(byte_level[1]));
    for (size_t v = 0; v < 2; v++) {
        dmc_tokenizer *t = open_tokenizer(shared_data(byte_level[v]));
        for (uint64_t k = 0; k < 200; k++) {
            check_round_trip(t, text, random_text(text, 10 + k % 500, k), 0);
            for (size_t i = 0; i < sizeof text; i++) text[i] = (char)dmc_hash64(4, k, i);
            check_round_trip(t, text, k, 0);
        }
        dmc_tokenizer_close(t);
    }
    for (size_t v = 0; v < 2; v++) {
        dmc_tokenizer *t = open_tokenizer(shared_data(with_prefix[v]));
        for (uint64_t k = 0; k < 200; k++) {
            for (size_t i = 0; i < sizeof text; i++) text[i] = (char)dmc_hash64(4, k, i);
            for (size_t i = 0; i + 3 < sizeof text; i++) /* U+2581 comes back as a space */
                if (memcmp(text + i, "\xe2\x96\x81", 3) == 0) text[i] = 'x';
            check_round_trip(t, text, k, k > 0);
        }
        dmc_tokenizer_close(t);
    }
}

/* Vocabularies without all bytes: bytes that are no UTF-8 become U+FFFD. */
static void test_replacement(void **state)
{
    (void)state;
    need(shared_data(SUITE "deepseek-coder.gguf"));
    dmc_tokenizer *t = open_tokenizer(shared_data(SUITE "deepseek-coder.gguf"));
    size_t n, n_back;
    int32_t *ids = encode(t, "a\xff\xe2\x82z\xf0\x9f", 7, false, &n);
    char *back = decode(t, ids, n, &n_back);
    assert_string_equal(back, "a\xef\xbf\xbd\xef\xbf\xbdz\xef\xbf\xbd");
    free(back);
    dmc_free(ids);
    dmc_tokenizer_close(t);
}

/* ---- special tokens ---- */

static void test_special(void **state)
{
    (void)state;
    need(shared_data("tokenizer-llama3/tokenizer.model"));
    dmc_tokenizer *t = open_tokenizer(shared_data("tokenizer-llama3/tokenizer.model"));
    assert_int_equal(dmc_tokenizer_size(t), 128256);
    assert_int_equal(dmc_tokenizer_bos(t), 128000);
    assert_true(dmc_tokenizer_adds_bos(t));
    for (int id = 128000; id < 128256; id++) assert_true(dmc_tokenizer_is_control(t, id));
    for (int id = 0; id < 128256; id++)
        assert_int_equal(dmc_tokenizer_is_end(t, id), id == 128001 || id == 128008 || id == 128009);
    CHECK_IDS(t, "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>", true, 128006, 882, 128007, 271, 13347,
              128009);
    size_t n;
    int32_t *ids = encode(t, "<|eot_id|>", 10, false, &n);
    for (size_t i = 0; i < n; i++) assert_true(ids[i] < 128000);
    dmc_free(ids);
    dmc_tokenizer_close(t);

    t = open_tokenizer(shared_data("tokenizer-qwen2.5/tokenizer_config.json"));
    assert_int_equal(dmc_tokenizer_size(t), 151665);
    assert_false(dmc_tokenizer_adds_bos(t));
    assert_true(dmc_tokenizer_is_end(t, 151645) && dmc_tokenizer_is_end(t, 151643) && !dmc_tokenizer_is_end(t, 151644));
    CHECK_IDS(t, "<|im_start|>user\nHi<|im_end|>\n", true, 151644, 872, 198, 13048, 151645, 198);
    assert_false(dmc_tokenizer_is_control(t, 151657)); /* <tool_call> is text */
    CHECK_IDS(t, "<tool_call>", false, 151657);
    dmc_tokenizer_close(t);

    t = open_tokenizer(shared_data("tokenizer-llama2/tokenizer.model"));
    assert_int_equal(dmc_tokenizer_bos(t), 1);
    assert_true(dmc_tokenizer_is_end(t, 2) && dmc_tokenizer_is_control(t, 1) && !dmc_tokenizer_is_control(t, 0));
    CHECK_IDS(t, "<s>Hi</s>", true, 1, 6324, 2);
    dmc_tokenizer_close(t);
}

static void test_small(void **state)
{
    (void)state;
    dmc_tokenizer *t;
    uint8_t data[8192];
    ASSERT_OK(open_json(&t, small_json()));
    assert_int_equal(dmc_tokenizer_bos(t), 259);
    assert_true(dmc_tokenizer_adds_bos(t));
    CHECK_IDS(t, "", false);
    CHECK_IDS(t, "abcab", false, 257, 256);
    CHECK_IDS(t, " a\xff", false, 258, 255);
    CHECK_IDS(t, "<s>ab<x></s>", true, 259, 256, 261, 260);
    CHECK_IDS(t, "<s>ab<x>", false, '<', 's', '>', 256, 261);
    dmc_tokenizer_close(t);

    put_file(scratch("small.model"), data, small_sp(data, 2, 256));
    t = open_tokenizer(scratch("small.model"));
    CHECK_IDS(t, "", false);
    CHECK_IDS(t, "ab", false, 7);
    CHECK_IDS(t, "ba\xc3\xa9\n", false, 3, 5, 4, 9, N_SMALL_PIECES + '\n');
    CHECK_IDS(t, "b<user>b", false, 3, 5, 8, 3, 5);
    CHECK_IDS(t, "\xff", false, 3, N_SMALL_PIECES + 0xFF);
    dmc_tokenizer_close(t);
    put_file(scratch("small.model"), data, small_sp(data, 2, 0)); /* no bytes to fall back to */
    t = open_tokenizer(scratch("small.model"));
    CHECK_IDS(t,
              "xyz\xff"
              "a\n",
              false, 3, 0, 4, 0);
    dmc_tokenizer_close(t);

    put_file(scratch("small.bin"), data, small_bin(data));
    t = open_tokenizer(scratch("small.bin"));
    CHECK_IDS(t, "ab b", false, 7, 3, 5);
    CHECK_IDS(t, "<s>ab", true, 1, 7);
    dmc_tokenizer_close(t);

    for (int spm = 0; spm < 2; spm++) {
        size_t n;
        uint8_t *gguf = small_gguf(&n, spm, 0, 0);
        ASSERT_OK(open_gguf_bytes(&t, gguf, n));
        if (spm) CHECK_IDS(t, "ab<user>", false, 7, 8);
        else CHECK_IDS(t, "ab a<x><s>z", true, 4, 3, 1, 5, 0);
        dmc_tokenizer_close(t);
        free(gguf);
    }
}

/* A model whose matrices are padded beyond its vocabulary, and which says what the vocabulary's file does not. */
static void test_padded(void **state)
{
    (void)state;
    dmc_tokenizer *t;
    const char *bytes;
    size_t n;
    dmc_config config = {.n_vocab = 300, .bos = 3, .eos = {5, 299}, .n_eos = 2};
    uint8_t data[8192];
    put_file(scratch("small.model"), data, small_sp(data, 2, 256));
    dmc_tokenizer_source source = {.sp_model_path = (char *)(uintptr_t)scratch("small.model")};
    ASSERT_OK(dmc_tokenizer_open(&t, &source, &config));
    assert_int_equal(dmc_tokenizer_size(t), 300);
    assert_int_equal(dmc_tokenizer_bos(t), 1); /* the file's own */
    ASSERT_OK(dmc_tokenizer_bytes(t, 299, &bytes, &n));
    assert_int_equal(n, 0);
    assert_true(dmc_tokenizer_is_end(t, 5) && dmc_tokenizer_is_end(t, 299) && dmc_tokenizer_is_end(t, 2));
    assert_int_equal(dmc_tokenizer_bytes(t, 300, &bytes, &n), DMC_ERR_ARG);
    assert_int_equal(dmc_tokenizer_bytes(t, -1, &bytes, &n), DMC_ERR_ARG);
    assert_false(dmc_tokenizer_is_end(t, -1) || dmc_tokenizer_is_end(t, 300) || dmc_tokenizer_is_control(t, 1 << 30));
    dmc_tokenizer_close(t);
    dmc_tokenizer_source nothing = {0};
    assert_int_equal(dmc_tokenizer_open(&t, &nothing, &config), DMC_ERR_UNSUPPORTED);
    assert_null(t);
    dmc_tokenizer_close(NULL);
}

/* ---- vocab.json and merges.txt ---- */

static void copy_file(const char *to, const char *from)
{
    size_t n;
    uint8_t *data = get_file(from, &n);
    put_file(to, data, n);
    free(data);
}

static void test_vocab_merges(void **state)
{
    (void)state;
    need(shared_data("tokenizer-gpt2/gpt2_vocab.json"));
    copy_file(scratch("vocab.json"), shared_data("tokenizer-gpt2/gpt2_vocab.json"));
    copy_file(scratch("merges.txt"), shared_data("tokenizer-gpt2/gpt2_merges.txt"));
    dmc_tokenizer *t = open_tokenizer(scratch("vocab.json"));
    int total;
    assert_int_equal(run_cases(t, "gpt-2", &total), 46);
    assert_int_equal(total, 46);
    assert_int_equal(dmc_tokenizer_bos(t), 50256);
    assert_true(dmc_tokenizer_is_end(t, 50256) && dmc_tokenizer_is_control(t, 50256));
    assert_false(dmc_tokenizer_adds_bos(t));
    CHECK_IDS(t, "a<|endoftext|>a", true, 64, 50256, 64);
    static const char *const files[] = {"tinystories_sample.txt", "german.txt", "address.txt", "corpus.en"};
    for (size_t i = 0; i < 4; i++) {
        char path[64];
        size_t n;
        snprintf(path, sizeof path, "tokenizer-gpt2/%s", files[i]);
        uint8_t *text = get_file(shared_data(path), &n);
        check_round_trip(t, (char *)text, n, 0);
        free(text);
    }
    dmc_tokenizer_close(t);
}

/* ---- streaming ---- */

static void push(const dmc_tokenizer *t, dmc_detok *d, int32_t id, const char *want)
{
    char out[64];
    size_t n;
    ASSERT_OK(dmc_detok_push_tokenizer(t, d, id, out, sizeof out, &n));
    out[n] = 0;
    assert_string_equal(out, want);
}

static void test_stream(void **state)
{
    (void)state;
    dmc_tokenizer *t;
    dmc_detok d = {0};
    char out[16];
    size_t n;
    ASSERT_OK(open_json(&t, small_json())); /* ids 0..255 are bytes */
    push(t, &d, 0xF0, "");
    push(t, &d, 0x9F, "");
    push(t, &d, 0xA6, "");
    push(t, &d, 0x99, "\xf0\x9f\xa6\x99");
    push(t, &d, 0xE2, "");
    push(t, &d, 256,
         "\xef\xbf\xbd"
         "ab"); /* cannot go on like that */
    push(t, &d, 0x80, "\xef\xbf\xbd");
    push(t, &d, 0xE2, "");
    push(t, &d, 0x82, "");
    push(t, &d, 260, "\xef\xbf\xbd"); /* a control token ends it */
    push(t, &d, 0xE2, "");
    push(t, &d, 0x82, "");
    assert_int_equal(dmc_detok_flush(&d, out, 2), 0); /* too small: nothing has changed */
    assert_int_equal(dmc_detok_flush(&d, out, sizeof out), 3);
    assert_memory_equal(out, "\xef\xbf\xbd", 3);
    assert_int_equal(dmc_detok_flush(&d, out, sizeof out), 0);
    push(t, &d, 0xE2, "");
    assert_int_equal(dmc_detok_push_tokenizer(t, &d, 257, out, 5, &n), DMC_ERR_ARG);
    assert_int_equal(n, 0);
    assert_int_equal(dmc_detok_push_tokenizer(t, &d, 262, out, 16, &n), DMC_ERR_ARG);
    push(t, &d, 0x82, ""); /* still there */
    push(t, &d, 0xAC, "\xe2\x82\xac");
    push(t, &d, 258, " a"); /* no prefix here: the space is text */
    dmc_tokenizer_close(t);

    uint8_t data[8192];
    put_file(scratch("small.model"), data, small_sp(data, 2, 256));
    t = open_tokenizer(scratch("small.model"));
    d = (dmc_detok){0};
    push(t, &d, 1, "");
    push(t, &d, 7, "ab"); /* " ab" */
    push(t, &d, 7, " ab");
    push(t, &d, 2, "");
    push(t, &d, 7, " ab");
    push(t, &d, 1, ""); /* a new text */
    push(t, &d, 3, "");
    push(t, &d, 3, " ");
    dmc_tokenizer_close(t);
}

/* Pieces of any length give the text, and never half a character. */
static void test_stream_whole(void **state)
{
    (void)state;
    static const char *const paths[] = {SUITE "gpt-2.gguf", SUITE "llama-spm.gguf", "tokenizer-llama3/tokenizer.model"};
    need(shared_data(paths[2]));
    for (size_t v = 0; v < 3; v++) {
        dmc_tokenizer *t = open_tokenizer(shared_data(paths[v]));
        for (uint64_t k = 0; k < 100; k++) {
            char text[400];
            size_t n_text = random_text(text, sizeof text, k + 1000), n, n_back;
            for (size_t i = 0; i + 3 <= n_text; i++)
                if (memcmp(text + i, "\xe2\x96\x81", 3) == 0) memcpy(text + i, "abc", 3);
            int32_t *ids = encode(t, text, n_text, false, &n);
            char *back = decode(t, ids, n, &n_back);
            assert_int_equal(n_back, n_text);
            assert_memory_equal(back, text, n_text);
            dmc_detok d = {0};
            for (size_t i = 0; i < n; i++) {
                char out[1024];
                uint32_t c;
                size_t n_out;
                ASSERT_OK(dmc_detok_push_tokenizer(t, &d, ids[i], out, sizeof out, &n_out));
                for (size_t j = 0; j < n_out;) {
                    int length = dmc_utf8_scan(out + j, n_out - j, &c);
                    assert_true(length > 0);
                    j += (size_t)length;
                }
            }
            free(back);
            dmc_free(ids);
        }
        dmc_tokenizer_close(t);
    }
}

/* ---- long and strange texts stay linear ---- */

static void test_long(void **state)
{
    (void)state;
    static const char *const paths[] = {SUITE "gpt-2.gguf",
                                        SUITE "llama-spm.gguf",
                                        SUITE "deepseek-llm.gguf",
                                        "tokenizer-llama3/tokenizer.model",
                                        "weights-tinystories-656k/tokenizer.json",
                                        "tokenizer-gpt-neox/tokenizer.json"};
    enum { N = 100000 };
    need(shared_data(paths[3]));
    char *text = malloc(N);
    for (size_t v = 0; v < 6; v++) {
        dmc_tokenizer *t = open_tokenizer(shared_data(paths[v]));
        for (int kind = 0; kind < 7; kind++) {
            static const char *const units[] = {"a", " ", "\n", "'", "\xcc\x81\xcc\x96", "\xff", " \n"};
            size_t n_unit = strlen(units[kind]), n;
            for (size_t i = 0; i < N; i++) text[i] = units[kind][i % n_unit];
            double start = dmc_now();
            dmc_free(encode(t, text, N, false, &n));
            double seconds = dmc_now() - start;
            if (seconds > 20) fail_msg("%s: %d bytes of kind %d took %.1f s", paths[v], N, kind, seconds);
        }
        dmc_tokenizer_close(t);
    }
    free(text);
}

static void *encode_many(void *argument)
{
    const dmc_tokenizer *t = argument;
    static const char text[] = "Once upon a time, there was a little girl named Lily. She loved 123 \xf0\x9f\xa6\x99!";
    uint64_t sum = 0;
    for (int i = 0; i < 200; i++) {
        int32_t *ids;
        size_t n;
        if (dmc_tokenizer_encode(&ids, &n, t, text, sizeof text - 1, true, true) != DMC_OK) return NULL;
        sum = sum * 31 + dmc_checksum(ids, n * sizeof *ids, 0);
        dmc_free(ids);
    }
    return (void *)(uintptr_t)sum;
}

static void test_threads(void **state)
{
    (void)state;
    need(shared_data(SUITE "gpt-2.gguf"));
    dmc_tokenizer *t = open_tokenizer(shared_data(SUITE "gpt-2.gguf"));
    pthread_t threads[3];
    void *want = encode_many(t), *got;
    assert_non_null(want);
    for (int i = 0; i < 3; i++) assert_int_equal(pthread_create(&threads[i], NULL, encode_many, t), 0);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], &got);
        assert_ptr_equal(got, want);
    }
    dmc_tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_suite),      cmocka_unit_test(test_suite_opens),  cmocka_unit_test(test_golden),
        cmocka_unit_test(test_reference),  cmocka_unit_test(test_babyllama),    cmocka_unit_test(test_naive),
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_replacement),  cmocka_unit_test(test_special),
        cmocka_unit_test(test_small),      cmocka_unit_test(test_padded),       cmocka_unit_test(test_vocab_merges),
        cmocka_unit_test(test_stream),     cmocka_unit_test(test_stream_whole), cmocka_unit_test(test_long),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
