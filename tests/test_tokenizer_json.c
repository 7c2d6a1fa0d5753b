/* The parts of tokenizer.json, each in a vocabulary small enough to see what must come out. */
#include "tokenizer_support.h"

#define MARK "\xe2\x96\x81" /* U+2581 */
#define SPACE "\xc4\xa0"    /* a space in GPT-2's alphabet */

/* Ids 0..8 of both vocabularies; special tokens that swallow the space in front of them, or behind. */
#define ADDED                                                                             \
    "{\"added_tokens\":[{\"id\":9,\"content\":\"<A>\",\"special\":true,\"lstrip\":true}," \
    "{\"id\":10,\"content\":\"<B>\",\"special\":true,\"rstrip\":true}],"
#define MARKED                                                                                     \
    "\"model\":{\"type\":\"BPE\",\"unk_token\":\"?\",\"fuse_unk\":true,\"vocab\":{\"?\":0,\"" MARK \
    "\":1,\"a\":2,\"b\":3,\"" MARK "a\":4,\"b" MARK "\":5,\"ab\":6,\"\xc3\xa9\":7,\"e\":8},"       \
    "\"merges\":[\"b " MARK "\",[\"" MARK "\",\"a\"],\"a b\"]}}"
#define BYTES                                                                                                  \
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"" SPACE "\":0,\"a\":1,\"b\":2,\"1\":3,\"2\":4,\"12\":5,\".\":6," \
    "\"..\":7,\"ab\":8},\"merges\":[\"1 2\",\". .\",\"a b\"]}}"

static void check_json(const char *parts, const char *model, const char *text, const int32_t *want)
{
    char json[4096];
    dmc_tokenizer *t;
    snprintf(json, sizeof json, ADDED "%s,%s", parts, model);
    ASSERT_OK(open_json(&t, json));
    check_ids(t, text, true, want);
    dmc_tokenizer_close(t);
}
#define CHECK_JSON(parts, model, text, ...) check_json(parts, model, text, (const int32_t[]){__VA_ARGS__, -1})

/* Spaces as marks: prepended by the normaliser, or by the pre-tokeniser; the text merged as a whole, or by words. */
#define PREPEND                                                                                               \
    "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"" MARK "\"}," \
    "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"" MARK "\"}]}"
#define METASPACE(more) "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"" MARK "\"" more "}"
#define NEVER ",\"prepend_scheme\":\"never\""

static void test_marked(void **state)
{
    (void)state;
    CHECK_JSON(PREPEND, MARKED, "a ab a", 4, 4, 5, 2);
    CHECK_JSON(PREPEND, MARKED, "b a", 1, 5, 2);
    CHECK_JSON(METASPACE(""), MARKED, "b a", 1, 3, 4);
    CHECK_JSON(METASPACE(",\"split\":false"), MARKED, "b a", 1, 5, 2);
    CHECK_JSON(METASPACE(NEVER), MARKED, "b a", 3, 4);
    CHECK_JSON(METASPACE(",\"prepend_scheme\":\"first\""), MARKED, "b<B>b", 1, 3, 10, 3);
    CHECK_JSON(METASPACE(""), MARKED, " b", 1, 3); /* there is one */
    CHECK_JSON(METASPACE(""), MARKED, "xy b", 1, 0, 1, 3);
    CHECK_JSON(METASPACE(NEVER), MARKED, "b <A> b <B> b", 3, 9, 1, 3, 1, 10, 3);
}

static void test_normal_forms(void **state)
{
    (void)state;
#define FORM(name) "\"normalizer\":{\"type\":\"" name "\"}," METASPACE(NEVER)
    CHECK_JSON(METASPACE(NEVER), MARKED, "e\xcc\x81\xc3\xa9", 8, 0, 7);
    CHECK_JSON(FORM("NFC"), MARKED, "e\xcc\x81\xc3\xa9", 7, 7);
    CHECK_JSON(FORM("NFD"), MARKED, "e\xcc\x81\xc3\xa9", 8, 0, 8, 0);
    CHECK_JSON(FORM("NFKC"), MARKED, "\xef\xbd\x81\xe3\x80\x80\xc2\xa0", 2, 1, 1); /* full width, two kinds of space */
    CHECK_JSON(FORM("NFKD"), MARKED, "\xef\xbd\x85\xcc\x81", 8, 0);
    CHECK_JSON(FORM("NFC"), MARKED,
               "\xff"
               "e\xcc\x81\xff",
               0, 7, 0); /* bad bytes pass */
}

/* Byte-level: digits, punctuation, regular expressions, and what becomes of their matches. */
#define BYTE_LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}"
#define FIRST(part) "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[" part "," BYTE_LEVEL "]}"
#define SPLIT(pattern, behavior, invert) \
    FIRST("{\"type\":\"Split\",\"pattern\":" pattern ",\"behavior\":\"" behavior "\",\"invert\":" invert "}")

static void test_splits(void **state)
{
    (void)state;
    CHECK_JSON("\"pre_tokenizer\":" BYTE_LEVEL, BYTES, "a12..", 1, 5, 7);
    CHECK_JSON("\"pre_tokenizer\":{\"type\":\"ByteLevel\"}", BYTES, "ab12", 0, 8,
               5); /* prefix and pattern by default */
    CHECK_JSON(FIRST("{\"type\":\"Digits\",\"individual_digits\":true}"), BYTES, "12", 3, 4);
    CHECK_JSON(FIRST("{\"type\":\"Digits\"}"), BYTES, "12", 5);
    CHECK_JSON(FIRST("{\"type\":\"Punctuation\"}"), BYTES, "..", 6, 6);
    CHECK_JSON(FIRST("{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"}"), BYTES, "..", 7);
    CHECK_JSON(SPLIT("{\"Regex\":\"b\"}", "Isolated", "false"), BYTES, "abab", 1, 2, 1, 2);
    CHECK_JSON(SPLIT("{\"String\":\".\"}", "MergedWithNext", "false"), BYTES, "ab..ab", 8, 6, 6, 8);
    CHECK_JSON(SPLIT("{\"Regex\":\"b\"}", "MergedWithPrevious", "false"), BYTES, "abab", 8, 8);
    CHECK_JSON(SPLIT("{\"Regex\":\"b\"}", "Removed", "false"), BYTES, "abab", 1, 1);
    CHECK_JSON(SPLIT("{\"Regex\":\"b\"}", "Removed", "true"), BYTES, "abab", 2, 2);
    CHECK_JSON(SPLIT("{\"Regex\":\"x*\"}", "Isolated", "false"), BYTES, "abab", 8, 8); /* empty matches cut nothing */
}

/* A word that is a token, though no merge makes it. */
static void test_whole_words(void **state)
{
    (void)state;
    static const char parts[] = "\"pre_tokenizer\":" BYTE_LEVEL;
    static const char merge[] = "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ba\":2},\"merges\":[]}}";
    static const char ignore[] =
        "\"model\":{\"type\":\"BPE\",\"ignore_merges\":true,\"vocab\":{\"a\":0,\"b\":1,\"ba\":2},\"merges\":[]}}";
    CHECK_JSON(parts, merge, "ba", 1, 0);
    CHECK_JSON(parts, ignore, "ba", 2);
    CHECK_JSON(parts, ignore, "bab", 1, 0, 1);
}

/* What would be cut elsewhere is refused, by name. */
static void test_refused(void **state)
{
    (void)state;
#define EMPTY "\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}"
    static const char *const cases[][2] = {
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", "Unigram"},
        {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", "WordPiece"},
        {"{\"normalizer\":{\"type\":\"Lowercase\"}," EMPTY, "Lowercase"},
        {"{\"normalizer\":{\"type\":\"Precompiled\"}," EMPTY, "Precompiled"},
        {"{\"normalizer\":{\"type\":\"Prepend\",\"prepend\":\"x\"}," EMPTY, "Prepend"},
        {"{\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"}," EMPTY, "BertPreTokenizer"},
        {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Odd\"}," EMPTY, "Split"},
        {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"}," EMPTY,
         "parenth"},
        {"{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\"},"
         "{\"type\":\"ByteLevel\"}]}," EMPTY,
         "ByteLevel"}, /* a prefix for every word */
        {"{" EMPTY, "byte-level"},
        {"{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"end_of_word_suffix\":\"</w>\","
         "\"vocab\":{},\"merges\":[]}}",
         "</w>"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dmc_tokenizer *t;
        assert_int_equal(open_json(&t, cases[i][0]), DMC_ERR_UNSUPPORTED);
        if (!strstr(dmc_last_error(), cases[i][1])) fail_msg("'%s' does not name '%s'", dmc_last_error(), cases[i][1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_marked),      cmocka_unit_test(test_normal_forms), cmocka_unit_test(test_splits),
        cmocka_unit_test(test_whole_words), cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
