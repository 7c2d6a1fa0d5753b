/* The tokenizer trainer against a naive one, its file against the reader. */
#include "tokenizer_support.h"

static const char *const specials[] = {"<|begin|>", "<|end|>", "<|endoftext|>"};

static char *train(const char *text, size_t n, int n_vocab)
{
    char *json;
    size_t n_json;
    ASSERT_OK(dmc_bpe_train(&json, &n_json, text, n, n_vocab, specials, 3));
    assert_int_equal(json[n_json - 1], '\n');
    json[n_json - 1] = 0;
    return json;
}

/* ---- naive: count all pairs of all words again after each merge ---- */

enum { MAX_WORDS = 4000, MAX_LENGTH = 32 };
typedef struct {
    int symbols[MAX_LENGTH], length, count;
} naive_word;

/* Words of letters with the space in front of them, as GPT-2's pattern cuts a text of letters and single spaces. */
static int naive_words(naive_word *words, const char *text)
{
    int n = 0;
    for (const char *p = text; *p;) {
        size_t length = (*p == ' ') + strcspn(p + (*p == ' '), " ");
        naive_word w = {.length = (int)length, .count = 1};
        assert_in_range(length, 1, MAX_LENGTH);
        for (size_t i = 0; i < length; i++) w.symbols[i] = 3 + (unsigned char)p[i];
        words[n++] = w;
        assert_true(n < MAX_WORDS);
        p += length;
    }
    return n;
}

static bool naive_merge(naive_word *words, int n, int id, int *left, int *right)
{
    int *counts = calloc((size_t)id * (size_t)id, sizeof *counts), best = 0;
    for (int w = 0; w < n; w++)
        for (int i = 0; i + 1 < words[w].length; i++) counts[words[w].symbols[i] * id + words[w].symbols[i + 1]]++;
    for (int p = 1; p < id * id; p++)
        if (counts[p] > counts[best]) best = p;
    bool found = counts[best] > 0;
    *left = best / id;
    *right = best % id;
    free(counts);
    for (int w = 0; w < n && found; w++) {
        int k = 0;
        for (int i = 0; i < words[w].length; i++) {
            bool both = i + 1 < words[w].length && words[w].symbols[i] == *left && words[w].symbols[i + 1] == *right;
            words[w].symbols[k++] = both ? id : words[w].symbols[i];
            i += both;
        }
        words[w].length = k;
    }
    return found;
}

static void test_naive(void **state)
{
    (void)state;
    static naive_word words[MAX_WORDS];
    char text[6000];
    size_t n = 0;
    for (uint64_t k = 0; n + 16 < sizeof text; k++) { /* words over a small alphabet: many repetitions, many ties */
        if (n) text[n++] = ' ';
        for (uint64_t i = 0, length = 1 + dmc_hash64(1, 0, k) % 7; i < length; i++)
            text[n++] = "aaabbcde"[dmc_hash64(1, 1 + k, i) % 8];
    }
    text[n] = 0;
    char *json = train(text, n, 400);
    json_t *root;
    ASSERT_OK(dmc_json_load(&root, json, strlen(json), "trained"));
    const json_t *model = json_object_get(root, "model"), *vocab = json_object_get(model, "vocab"),
                 *merges = json_object_get(model, "merges");
    assert_int_equal(json_object_size(vocab), 400);
    assert_int_equal(json_array_size(merges), 400 - 3 - 256);
    int n_words = naive_words(words, text);
    for (size_t i = 0; i < json_array_size(merges); i++) {
        int left, right;
        char a[64];
        assert_true(naive_merge(words, n_words, 3 + 256 + (int)i, &left, &right));
        const char *merge = json_string_value(json_array_get(merges, i)), *space = strchr(merge, ' ');
        snprintf(a, sizeof a, "%.*s", (int)(space - merge), merge);
        assert_int_equal(json_integer_value(json_object_get(vocab, a)), left);
        assert_int_equal(json_integer_value(json_object_get(vocab, space + 1)), right);
    }
    json_decref(root);
    dmc_free(json);
}

/* ---- the file ---- */

static void test_file(void **state)
{
    (void)state;
    need(shared_data("tokenizer-gpt2/corpus.en"));
    size_t n, n_ids;
    char *text = (char *)get_file(shared_data("tokenizer-gpt2/corpus.en"), &n);
    char *json = train(text, n, 1000), *again = train(text, n, 1000);
    assert_string_equal(json, again);
    dmc_tokenizer *t;
    ASSERT_OK(open_json(&t, json));
    assert_int_equal(dmc_tokenizer_size(t), 1000);
    assert_int_equal(dmc_tokenizer_bos(t), 0);
    assert_true(dmc_tokenizer_adds_bos(t));
    for (int id = 0; id < 1000; id++) assert_int_equal(dmc_tokenizer_is_control(t, id), id < 3);
    CHECK_IDS(t, "<|begin|><|endoftext|><|end|>", true, 0, 2, 1);
    int32_t *ids = encode(t, text, n, false, &n_ids);
    assert_true(n_ids < n * 2 / 5); /* it compresses */
    size_t n_back;
    char *back = decode(t, ids, n_ids, &n_back);
    assert_int_equal(n_back, n);
    assert_memory_equal(back, text, n);
    free(back);
    dmc_free(ids);
    for (int b = 0; b < 256; b++) { /* any byte can be written */
        char c = (char)b;
        ids = encode(t, &c, 1, false, &n_ids);
        assert_int_equal(n_ids, 1);
        assert_int_equal(ids[0], 3 + b);
        dmc_free(ids);
    }
    dmc_tokenizer_close(t);
    dmc_free(json);
    dmc_free(again);
    free(text);
}

/* The merges of another trainer on the same text, which breaks ties otherwise: nearly all are the same. */
static void test_reference(void **state)
{
    (void)state;
    need(shared_data("tokenizer-gpt2/train-bpe-reference-merges.txt"));
    size_t n, n_same = 0, n_lines = 0;
    char *text = (char *)get_file(shared_data("tokenizer-gpt2/corpus.en"), &n);
    char *json = train(text, n, 3 + 256 + 243), line[256], quoted[300];
    FILE *f = fopen(shared_data("tokenizer-gpt2/train-bpe-reference-merges.txt"), "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        snprintf(quoted, sizeof quoted, "\"%s\"", line);
        n_same += strstr(strstr(json, "\"merges\""), quoted) != NULL;
        n_lines++;
    }
    fclose(f);
    print_message("  %zu of %zu merges are the reference's\n", n_same, n_lines);
    assert_int_equal(n_lines, 243);
    assert_true(n_same >= 238);
    dmc_free(json);
    free(text);
}

/* Special tokens in the text teach nothing, and cut it. */
static void test_specials(void **state)
{
    (void)state;
    static const char text[] = "ab<|end|>ab<|end|>ab<|end|>xy xy";
    char *json = train(text, sizeof text - 1, 3 + 256 + 2);
    assert_non_null(strstr(json, "\"a b\""));
    assert_non_null(strstr(json, "\"x y\""));
    assert_null(strstr(json, "\"e n\""));
    dmc_free(json);
}

static void test_errors(void **state)
{
    (void)state;
    char *json;
    size_t n;
    static const char *const one_byte[] = {"a", "bb"}, *const twice[] = {"<s>", "<s>"},
                             *const bad[] = {"<s>", "\xff\xff"}, *const clash[] = {"<s>", "\xc4\xa0x"};
    assert_int_equal(dmc_bpe_train(&json, &n, "ab", 2, 1000, specials, 3), DMC_ERR_ARG); /* too little text */
    assert_non_null(strstr(dmc_last_error(), "260"));
    assert_null(json);
    assert_int_equal(dmc_bpe_train(&json, &n, "", 0, 300, specials, 3), DMC_ERR_ARG);
    assert_int_equal(dmc_bpe_train(&json, &n, "ab", 2, 258, specials, 3), DMC_ERR_ARG);
    assert_int_equal(dmc_bpe_train(&json, &n, "ab", 2, 300, specials, 1), DMC_ERR_ARG);
    assert_int_equal(dmc_bpe_train(&json, &n, "ab", 2, 259, one_byte, 2), DMC_ERR_ARG);
    assert_int_equal(dmc_bpe_train(&json, &n, "ab", 2, 259, twice, 2), DMC_ERR_ARG);
    assert_int_equal(dmc_bpe_train(&json, &n, "ab", 2, 259, bad, 2), DMC_ERR_ARG);
    assert_int_equal(dmc_bpe_train(&json, &n, "x x x", 5, 259, clash, 2), DMC_ERR_ARG); /* " x" is written like that */
    assert_int_equal(dmc_bpe_train(&json, &n, NULL, 0, 259, specials, 3), DMC_OK);      /* bytes alone */
    dmc_free(json);
    static const char bytes[] = "\xff\xfe\xff\xfe\0\0\0\x80";
    assert_int_equal(dmc_bpe_train(&json, &n, bytes, 8, 261, specials, 3), DMC_OK); /* any bytes will do */
    dmc_free(json);
}

static void test_memory(void **state)
{
    (void)state;
    char *json;
    size_t n;
    dmc_status status = DMC_ERR_MEMORY;
    for (long k = 1; status != DMC_OK; k++) {
        dmc_fault_memory(k);
        status = dmc_bpe_train(&json, &n, "ab abc abcd<|end|> abcde\n", 25, 264, specials, 3);
        dmc_fault_memory(0);
        if (status != DMC_OK && (status != DMC_ERR_MEMORY || json)) fail_msg("allocation %ld: %s", k, dmc_last_error());
        assert_true(k < 1000);
    }
    dmc_free(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_naive),    cmocka_unit_test(test_file),   cmocka_unit_test(test_reference),
        cmocka_unit_test(test_specials), cmocka_unit_test(test_errors), cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
