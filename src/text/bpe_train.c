/* Training a byte-level BPE: count the words of the text, then merge the most frequent pair of neighbours again and
 * again. Pair counts are kept up to date from the words that a merge changed; a merge can only lower the count of a
 * pair that was there before it, so a heap entry that is too high is put back with its true count when it comes up. */
#include "text/byte_alphabet.h"
#include "text/families.h"
#include "text/grow.h"
#include "text/hash.h"
#include "text/normalize.h"
#include "text/pair_map.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

#define MAX_TEXT ((size_t)1 << 31)

typedef struct {
    uint32_t hash, start, n; /* bytes of the text */
    uint32_t first, length;  /* its symbols */
    int64_t count;           /* 0: free slot */
} word;

typedef struct {
    int32_t left, right;
    int64_t count;
    uint32_t occurrence; /* newest of the list of words that have it, or have had it; UINT32_MAX: none */
} pair;

typedef struct {
    uint32_t word, next;
} occurrence;

typedef struct {
    int64_t count;
    uint32_t pair;
} heap_entry;

typedef struct {
    uint32_t start, n;   /* bytes in `bytes` */
    int32_t left, right; /* what it was merged from; -1: nothing */
} token;

typedef struct {
    const char *text;
    size_t n_text;
    const char *const *specials;
    int n_specials;
    dmc_splitter splitter;
    dmc_split_state split;
    word *words; /* open addressing while counting, then packed */
    size_t n_words, n_slots;
    int32_t *symbols;
    pair *pairs;
    size_t n_pairs, cap_pairs;
    dmc_pair_map index; /* (left, right) -> pair */
    occurrence *occurrences;
    size_t n_occurrences, cap_occurrences;
    heap_entry *heap;
    size_t n_heap, cap_heap;
    token *tokens;
    int n_tokens;
    dmc_text bytes, json;
} trainer;

/* ---- words ---- */

static word *word_slot(word *words, size_t n_slots, const char *text, uint32_t hash, dmc_span s)
{
    for (size_t i = hash;; i++) {
        word *w = &words[i & (n_slots - 1)];
        if (w->count == 0 || (w->hash == hash && w->n == s.n && memcmp(text + w->start, text + s.start, s.n) == 0))
            return w;
    }
}

static dmc_status count_word(trainer *t, dmc_span s)
{
    if (t->n_words >= t->n_slots / 2) {
        size_t n_slots = t->n_slots ? t->n_slots * 2 : 1024;
        word *words = dmc_calloc(n_slots, sizeof *words);
        if (!words) return dmc_fail(DMC_ERR_MEMORY, "out of memory: %zu words", n_slots);
        for (size_t i = 0; i < t->n_slots; i++) {
            const word *w = &t->words[i];
            if (w->count) *word_slot(words, n_slots, t->text, w->hash, (dmc_span){w->start, w->n}) = *w;
        }
        dmc_free(t->words);
        t->words = words;
        t->n_slots = n_slots;
    }
    uint32_t hash = dmc_hash_bytes(t->text + s.start, s.n);
    word *w = word_slot(t->words, t->n_slots, t->text, hash, s);
    if (w->count == 0) {
        *w = (word){.hash = hash, .start = s.start, .n = s.n};
        t->n_words++;
    }
    w->count++;
    return DMC_OK;
}

/* Length of the special token that the text has at this place, or 0. */
static size_t special_at(const trainer *t, size_t at)
{
    for (int i = 0; i < t->n_specials; i++) {
        size_t n = strlen(t->specials[i]);
        if (n <= t->n_text - at && memcmp(t->text + at, t->specials[i], n) == 0) return n;
    }
    return 0;
}

static dmc_status count_stretch(trainer *t, size_t start, size_t end)
{
    DMC_TRY(dmc_split(&t->split, &t->splitter, t->text, (uint32_t)start, (uint32_t)(end - start)));
    for (size_t i = 0; i < t->split.n_words; i++) DMC_TRY(count_word(t, t->split.words[i]));
    return DMC_OK;
}

/* All words with their counts, in the order of first appearance, as single bytes. */
static int by_start(const void *a, const void *b)
{
    const word *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

static dmc_status count_words(trainer *t)
{
    bool begins[256] = {false};
    size_t start = 0, n_symbols = 0, n = 0;
    for (int i = 0; i < t->n_specials; i++) begins[(uint8_t)t->specials[i][0]] = true;
    for (size_t i = 0; i < t->n_text;) {
        size_t length = begins[(uint8_t)t->text[i]] ? special_at(t, i) : 0;
        if (length) {
            DMC_TRY(count_stretch(t, start, i));
            start = i + length;
        }
        i += length ? length : 1;
    }
    DMC_TRY(count_stretch(t, start, t->n_text));

    for (size_t i = 0; i < t->n_slots; i++)
        if (t->words[i].count) t->words[n++] = t->words[i];
    if (n > 0) qsort(t->words, n, sizeof *t->words, by_start);
    for (size_t i = 0; i < n; i++) n_symbols += t->words[i].n;
    DMC_TRY(dmc_array(&t->symbols, n_symbols, sizeof *t->symbols));
    n_symbols = 0;
    for (size_t i = 0; i < n; i++) {
        word *w = &t->words[i];
        w->first = (uint32_t)n_symbols;
        w->length = w->n;
        for (uint32_t k = 0; k < w->n; k++) t->symbols[n_symbols++] = t->n_specials + (uint8_t)t->text[w->start + k];
    }
    return DMC_OK;
}

/* ---- pairs ---- */

/* More frequent first, then the smaller pair. */
static bool precedes(const trainer *t, heap_entry a, heap_entry b)
{
    const pair *p = &t->pairs[a.pair], *q = &t->pairs[b.pair];
    if (a.count != b.count) return a.count > b.count;
    return p->left != q->left ? p->left < q->left : p->right < q->right;
}

static dmc_status heap_push(trainer *t, heap_entry e)
{
    DMC_TRY(dmc_grow(&t->heap, &t->cap_heap, t->n_heap + 1, sizeof *t->heap));
    size_t i = t->n_heap++;
    for (; i > 0 && precedes(t, e, t->heap[(i - 1) / 2]); i = (i - 1) / 2) t->heap[i] = t->heap[(i - 1) / 2];
    t->heap[i] = e;
    return DMC_OK;
}

static heap_entry heap_pop(trainer *t)
{
    heap_entry top = t->heap[0], last = t->heap[--t->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < t->n_heap; i = child) {
        if (child + 1 < t->n_heap && precedes(t, t->heap[child + 1], t->heap[child])) child++;
        if (!precedes(t, t->heap[child], last)) break;
        t->heap[i] = t->heap[child];
    }
    t->heap[i] = last;
    return top;
}

/* Adds `count` to each pair of word w; new pairs are made, and those from number `first_new` on note the word. */
static dmc_status add_pairs(trainer *t, uint32_t w, int64_t count, size_t first_new)
{
    const word *v = &t->words[w];
    const int32_t *s = t->symbols + v->first;
    for (uint32_t i = 0; i + 1 < v->length; i++) {
        uint32_t p = dmc_pair_get(&t->index, (uint32_t)s[i], (uint32_t)s[i + 1]);
        if (p == DMC_NO_PAIR) {
            p = (uint32_t)t->n_pairs;
            DMC_TRY(dmc_grow(&t->pairs, &t->cap_pairs, t->n_pairs + 1, sizeof *t->pairs));
            DMC_TRY(dmc_pair_add(&t->index, (uint32_t)s[i], (uint32_t)s[i + 1], p));
            t->pairs[t->n_pairs++] = (pair){s[i], s[i + 1], 0, UINT32_MAX};
        }
        pair *q = &t->pairs[p];
        q->count += count;
        if (p < first_new || (q->occurrence != UINT32_MAX && t->occurrences[q->occurrence].word == w)) continue;
        DMC_TRY(dmc_grow(&t->occurrences, &t->cap_occurrences, t->n_occurrences + 1, sizeof *t->occurrences));
        t->occurrences[t->n_occurrences] = (occurrence){w, q->occurrence};
        q->occurrence = (uint32_t)t->n_occurrences++;
    }
    return DMC_OK;
}

static dmc_status push_pairs(trainer *t, size_t first)
{
    for (size_t p = first; p < t->n_pairs; p++) DMC_TRY(heap_push(t, (heap_entry){t->pairs[p].count, (uint32_t)p}));
    return DMC_OK;
}

/* Makes pair p the token `id` in every word. */
static dmc_status merge_pair(trainer *t, uint32_t p, int32_t id)
{
    size_t first_new = t->n_pairs;
    int32_t left = t->pairs[p].left, right = t->pairs[p].right;
    for (uint32_t o = t->pairs[p].occurrence; o != UINT32_MAX; o = t->occurrences[o].next) {
        uint32_t w = t->occurrences[o].word, n = 0;
        word *v = &t->words[w];
        int32_t *s = t->symbols + v->first;
        DMC_TRY(add_pairs(t, w, -v->count, SIZE_MAX));
        for (uint32_t i = 0; i < v->length; i++) {
            bool both = i + 1 < v->length && s[i] == left && s[i + 1] == right;
            s[n++] = both ? id : s[i];
            i += both;
        }
        v->length = n;
        DMC_TRY(add_pairs(t, w, v->count, first_new));
    }
    return push_pairs(t, first_new);
}

/* ---- tokens ---- */

static dmc_status add_token(trainer *t, const char *s, size_t n, int32_t left, int32_t right)
{
    t->tokens[t->n_tokens++] = (token){(uint32_t)t->bytes.n, (uint32_t)n, left, right};
    return dmc_text_append(&t->bytes, s, n);
}

static dmc_status add_merged_token(trainer *t, int32_t left, int32_t right)
{
    token a = t->tokens[left], b = t->tokens[right];
    DMC_TRY(dmc_grow(&t->bytes.s, &t->bytes.cap, t->bytes.n + a.n + b.n, 1)); /* so that the sources do not move */
    DMC_TRY(add_token(t, t->bytes.s + a.start, a.n, left, right));
    t->tokens[t->n_tokens - 1].n += b.n;
    return dmc_text_append(&t->bytes, t->bytes.s + b.start, b.n);
}

static dmc_status train(trainer *t, int n_vocab)
{
    DMC_TRY(dmc_array(&t->tokens, (size_t)n_vocab, sizeof *t->tokens));
    for (int i = 0; i < t->n_specials; i++) DMC_TRY(add_token(t, t->specials[i], strlen(t->specials[i]), -1, -1));
    for (int b = 0; b < 256; b++) DMC_TRY(add_token(t, &(char){(char)b}, 1, -1, -1));
    for (size_t w = 0; w < t->n_words; w++) DMC_TRY(add_pairs(t, (uint32_t)w, t->words[w].count, 0));
    DMC_TRY(push_pairs(t, 0));
    while (t->n_tokens < n_vocab && t->n_heap > 0) {
        heap_entry top = heap_pop(t);
        const pair *p = &t->pairs[top.pair];
        if (p->count < top.count) {
            if (p->count > 0) DMC_TRY(heap_push(t, (heap_entry){p->count, top.pair}));
            continue;
        }
        DMC_TRY(add_merged_token(t, p->left, p->right));
        DMC_TRY(merge_pair(t, top.pair, t->n_tokens - 1));
    }
    if (t->n_tokens < n_vocab)
        return dmc_fail(DMC_ERR_ARG,
                        "the text has only enough words for %d of %d tokens: train on more of it, or ask for fewer",
                        t->n_tokens, n_vocab);
    return DMC_OK;
}

/* ---- tokenizer.json ---- */

static dmc_status put(trainer *t, const char *s) { return dmc_text_append(&t->json, s, strlen(s)); }

static dmc_status put_char(trainer *t, uint32_t code)
{
    char s[8];
    if (code < 0x20 || code == '"' || code == '\\') {
        snprintf(s, sizeof s, "\\u%04x", code);
        return put(t, s);
    }
    return dmc_text_append(&t->json, s, (size_t)dmc_utf8_put(s, code));
}

/* The token as it stands between quotation marks. */
static dmc_status put_token(trainer *t, int id)
{
    const token *k = &t->tokens[id];
    for (uint32_t i = 0; i < k->n;) {
        const char *s = t->bytes.s + k->start + i;
        uint32_t code = id < t->n_specials ? 0 : dmc_alphabet_char((uint8_t)*s);
        int length =
            id < t->n_specials ? dmc_utf8_scan(s, k->n - i, &code) : 1; /* specials have been checked to be UTF-8 */
        DMC_TRY(put_char(t, code));
        i += (uint32_t)length;
    }
    return DMC_OK;
}

static dmc_status put_id(trainer *t, const char *before, int id, const char *after)
{
    char s[16];
    snprintf(s, sizeof s, "%d", id);
    DMC_TRY(put(t, before));
    DMC_TRY(put(t, s));
    return put(t, after);
}

static dmc_status put_added(trainer *t)
{
    for (int id = 0; id < t->n_specials; id++) {
        DMC_TRY(put_id(t, id ? ",\n    {\"id\": " : "\n    {\"id\": ", id, ", \"content\": \""));
        DMC_TRY(put_token(t, id));
        DMC_TRY(put(t, "\", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, "
                       "\"normalized\": false, \"special\": true}"));
    }
    return DMC_OK;
}

/* A BOS in front of every text. */
static dmc_status put_template(trainer *t)
{
    static const char *const parts[] = {
        "{\n    \"type\": \"TemplateProcessing\",\n    \"single\": [{\"SpecialToken\": {\"id\": \"",
        "\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}],\n"
        "    \"pair\": [{\"SpecialToken\": {\"id\": \"",
        "\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}, "
        "{\"Sequence\": {\"id\": \"B\", \"type_id\": 1}}],\n"
        "    \"special_tokens\": {\"",
        "\": {\"id\": \"",
        "\", \"ids\": [0], \"tokens\": [\"",
        "\"]}}\n  }",
    };
    for (int i = 0; i < 6; i++) {
        DMC_TRY(put(t, parts[i]));
        if (i < 5) DMC_TRY(put_token(t, 0));
    }
    return DMC_OK;
}

static dmc_status put_json(trainer *t)
{
    static const char byte_level[] =
        "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": true}";
    DMC_TRY(put(t, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": ["));
    DMC_TRY(put_added(t));
    DMC_TRY(put(t, "\n  ],\n  \"normalizer\": null,\n  \"pre_tokenizer\": "));
    DMC_TRY(put(t, byte_level));
    DMC_TRY(put(t, ",\n  \"post_processor\": "));
    DMC_TRY(put_template(t));
    DMC_TRY(put(t, ",\n  \"decoder\": "));
    DMC_TRY(put(t, byte_level));
    DMC_TRY(
        put(t, ",\n  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": null,\n"
               "    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n    \"fuse_unk\": false,\n"
               "    \"byte_fallback\": false,\n    \"ignore_merges\": false,\n    \"vocab\": {"));
    for (int id = 0; id < t->n_tokens; id++) {
        DMC_TRY(put(t, id ? ",\n      \"" : "\n      \""));
        DMC_TRY(put_token(t, id));
        DMC_TRY(put_id(t, "\": ", id, ""));
    }
    DMC_TRY(put(t, "\n    },\n    \"merges\": ["));
    for (int id = t->n_specials + 256; id < t->n_tokens; id++) {
        DMC_TRY(put(t, id > t->n_specials + 256 ? ",\n      \"" : "\n      \""));
        DMC_TRY(put_token(t, t->tokens[id].left));
        DMC_TRY(put(t, " "));
        DMC_TRY(put_token(t, t->tokens[id].right));
        DMC_TRY(put(t, "\""));
    }
    return put(t, "\n    ]\n  }\n}\n");
}

/* ---- the whole ---- */

/* A special token must be a name of its own: UTF-8, two bytes at least, none of the others and no token of text. */
static dmc_status check_specials(const char *const *specials, int n_specials)
{
    for (int i = 0; i < n_specials; i++) {
        const char *s = specials[i];
        size_t n = strlen(s), k = 0;
        uint32_t code;
        while (k < n && dmc_utf8_scan(s + k, n - k, &code) > 0) k += (size_t)dmc_utf8_scan(s + k, n - k, &code);
        if (n < 2 || k < n) return dmc_fail(DMC_ERR_ARG, "special token %d must be UTF-8 and longer than one byte", i);
        for (int j = 0; j < i; j++)
            if (strcmp(s, specials[j]) == 0) return dmc_fail(DMC_ERR_ARG, "special token '%s' is given twice", s);
    }
    return DMC_OK;
}

static dmc_status check_clashes(const trainer *t)
{
    for (int i = 0; i < t->n_specials; i++) {
        const char *s = t->specials[i];
        char *bytes = dmc_malloc(strlen(s), 1);
        size_t n;
        bool clash = false;
        if (!bytes) return dmc_fail(DMC_ERR_MEMORY, "out of memory");
        if (dmc_alphabet_decode(bytes, &n, s, strlen(s)))
            for (int id = t->n_specials; id < t->n_tokens; id++)
                clash |= t->tokens[id].n == n && memcmp(t->bytes.s + t->tokens[id].start, bytes, n) == 0;
        dmc_free(bytes);
        if (clash)
            return dmc_fail(DMC_ERR_ARG, "special token '%s' is written like a token of the text: choose another name",
                            s);
    }
    return DMC_OK;
}

dmc_status dmc_bpe_train(char **json, size_t *json_bytes, const char *text, size_t n, int n_vocab,
                         const char *const *specials, int n_specials)
{
    trainer t = {.text = text, .n_text = n, .specials = specials, .n_specials = n_specials};
    dmc_status status;
    *json = NULL;
    *json_bytes = 0;
    if (n > MAX_TEXT)
        return dmc_fail(DMC_ERR_ARG, "%zu bytes of text, more than %zu: train on a part of it", n, MAX_TEXT);
    if (n_specials < 2) return dmc_fail(DMC_ERR_ARG, "a tokenizer needs two special tokens, BOS and EOS");
    if (n_specials > 65536 || n_vocab < n_specials + 256 || n_vocab > 1 << 24)
        return dmc_fail(DMC_ERR_ARG,
                        "a vocabulary of %d tokens: it needs %d special tokens, 256 bytes, and at most 2^24 in all",
                        n_vocab, n_specials);
    DMC_TRY(check_specials(specials, n_specials));
    DMC_GOTO(dmc_splitter_add_family(&t.splitter, dmc_family_find("gpt-2", 5)));
    DMC_GOTO(count_words(&t));
    DMC_GOTO(train(&t, n_vocab));
    DMC_GOTO(check_clashes(&t));
    DMC_GOTO(put_json(&t));
    *json = t.json.s;
    *json_bytes = t.json.n;
    t.json.s = NULL;
done:
    dmc_splitter_free(&t.splitter);
    dmc_split_state_free(&t.split);
    dmc_free(t.words);
    dmc_free(t.symbols);
    dmc_free(t.pairs);
    dmc_pair_free(&t.index);
    dmc_free(t.occurrences);
    dmc_free(t.heap);
    dmc_free(t.tokens);
    dmc_free(t.bytes.s);
    dmc_free(t.json.s);
    return status;
}
