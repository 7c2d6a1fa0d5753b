#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pretokenize.h"

#include "text/grow.h"
#include "text/utf8.h"

#include <pcre2.h>

#define MAX_PATTERN 65536 /* bytes; real ones have 200 */

static void *context_malloc(size_t n, void *unused)
{
    (void)unused;
    return dmc_malloc(n, 1);
}

static void context_free(void *p, void *unused)
{
    (void)unused;
    dmc_free(p);
}

dmc_status dmc_splitter_add(dmc_splitter *s, const char *pattern, size_t n, dmc_split_behavior b, const char *where)
{
    if (s->n == DMC_MAX_SPLITS)
        return dmc_fail(DMC_ERR_UNSUPPORTED, "%s: more than %d pre-tokeniser patterns", where, DMC_MAX_SPLITS);
    if (n > MAX_PATTERN) return dmc_fail(DMC_ERR_UNSUPPORTED, "%s: a pre-tokeniser pattern of %zu bytes", where, n);
    pcre2_general_context *memory = pcre2_general_context_create(context_malloc, context_free, NULL);
    pcre2_compile_context *compile = memory ? pcre2_compile_context_create(memory) : NULL;
    pcre2_code *code = NULL;
    int error = PCRE2_ERROR_NOMEMORY;
    PCRE2_SIZE at = 0;
    /* MULTILINE: in the dialect that these patterns are written in, ^ and $ also match at line ends. */
    uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    if (compile) code = pcre2_compile((PCRE2_SPTR)pattern, n, options, &error, &at, compile);
    pcre2_compile_context_free(compile);
    pcre2_general_context_free(memory);
    if (code) {
        s->codes[s->n] = code;
        s->behavior[s->n++] = b;
        return DMC_OK;
    }
    if (!compile || error == PCRE2_ERROR_HEAP_FAILED || error == PCRE2_ERROR_NOMEMORY)
        return dmc_fail(DMC_ERR_MEMORY, "%s: out of memory for a pre-tokeniser pattern", where);
    char text[128];
    pcre2_get_error_message(error, (PCRE2_UCHAR *)text, sizeof text);
    return dmc_fail(DMC_ERR_UNSUPPORTED, "%s: pre-tokeniser pattern '%.*s', at byte %zu: %s", where,
                    (int)(n < 200 ? n : 200), pattern, at, text);
}

void dmc_splitter_free(dmc_splitter *s)
{
    for (int i = 0; i < s->n; i++) pcre2_code_free(s->codes[i]);
    s->n = 0;
}

static dmc_status push(dmc_split_state *state, size_t start, size_t n)
{
    DMC_TRY(dmc_grow(&state->next, &state->cap_next, state->n_words + 1, sizeof *state->next));
    state->next[state->n_words++] = (dmc_span){(uint32_t)start, (uint32_t)n};
    return DMC_OK;
}

/* One piece of a split, a match or the gap between two, as its behaviour has it. `after_match`, `after_gap`: what the
 * piece in front of it, in the same text, is. */
static dmc_status push_piece(dmc_split_state *state, dmc_split_behavior b, size_t start, size_t n, bool is_match,
                             bool after_match, bool after_gap)
{
    if ((b == DMC_SPLIT_REMOVED && is_match) || (b == DMC_SPLIT_KEEP && !is_match)) return DMC_OK;
    bool joins = (b == DMC_SPLIT_CONTIGUOUS && is_match && after_match) ||
                 (b == DMC_SPLIT_TO_LEFT && is_match && after_gap) ||
                 (b == DMC_SPLIT_TO_RIGHT && !is_match && after_match);
    if (!joins) return push(state, start, n);
    state->next[state->n_words - 1].n += (uint32_t)n;
    return DMC_OK;
}

/* Splits valid UTF-8. */
static dmc_status split_valid(dmc_split_state *state, const pcre2_code *code, dmc_split_behavior b, const char *text,
                              size_t start, size_t n)
{
    size_t done = 0;
    bool after_match = false, after_gap = false;
    while (done < n) {
        size_t from = n, to = n; /* the next match */
        int rc = pcre2_match(code, (PCRE2_SPTR)text + start, n, done, PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, state->match,
                             state->limits);
        if (rc == PCRE2_ERROR_NOMEMORY)
            return dmc_fail(DMC_ERR_MEMORY, "out of memory while splitting text into words");
        if (rc == PCRE2_ERROR_MATCHLIMIT || rc == PCRE2_ERROR_DEPTHLIMIT || rc == PCRE2_ERROR_HEAPLIMIT)
            return dmc_fail(
                DMC_ERR_UNSUPPORTED,
                "the tokenizer's pre-tokeniser pattern backtracks without end on this text; the pattern, in its "
                "'pre_tokenizer', is broken");
        if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
            return dmc_fail(DMC_ERR_UNSUPPORTED,
                            "the tokenizer's pre-tokeniser pattern fails on this text (PCRE2 error %d)", rc);
        if (rc >= 0) {
            const PCRE2_SIZE *range = pcre2_get_ovector_pointer(state->match);
            from = range[0];
            to = range[1];
            if (from < done || to <= from || to > n) /* \K can do this */
                return dmc_fail(DMC_ERR_UNSUPPORTED, "the tokenizer's pre-tokeniser pattern matches backwards");
        }
        if (from > done) {
            DMC_TRY(push_piece(state, b, start + done, from - done, false, after_match, after_gap));
            after_match = false;
            after_gap = true;
        }
        if (to > from) {
            DMC_TRY(push_piece(state, b, start + from, to - from, true, after_match, after_gap));
            after_match = true;
            after_gap = false;
        }
        done = to;
    }
    return DMC_OK;
}

static dmc_status split_word(dmc_split_state *state, const pcre2_code *code, dmc_split_behavior b, const char *text,
                             dmc_span word)
{
    size_t end = (size_t)word.start + word.n;
    for (size_t i = word.start; i < end;) {
        uint32_t c;
        size_t start = i;
        int length = 0;
        while (i < end && (length = dmc_utf8_scan(text + i, end - i, &c)) > 0) i += (size_t)length;
        if (i > start) DMC_TRY(split_valid(state, code, b, text, start, i - start));
        start = i;
        while (i < end && (length = dmc_utf8_scan(text + i, end - i, &c)) <= 0) i += length ? (size_t)-length : end - i;
        if (i > start) DMC_TRY(push(state, start, i - start));
    }
    return DMC_OK;
}

static dmc_status prepare(dmc_split_state *state)
{
    if (state->match && state->limits) return DMC_OK;
    pcre2_general_context *memory = pcre2_general_context_create(context_malloc, context_free, NULL);
    if (memory && !state->match) state->match = pcre2_match_data_create(1, memory);
    if (memory && !state->limits) state->limits = pcre2_match_context_create(memory);
    pcre2_general_context_free(memory);
    if (!state->match || !state->limits)
        return dmc_fail(DMC_ERR_MEMORY, "out of memory while splitting text into words");
    return DMC_OK;
}

dmc_status dmc_split(dmc_split_state *state, const dmc_splitter *s, const char *text, uint32_t start, uint32_t n)
{
    state->n_words = 0;
    if (n == 0) return DMC_OK;
    DMC_TRY(dmc_grow(&state->words, &state->cap_words, 1, sizeof *state->words));
    state->words[0] = (dmc_span){start, n};
    state->n_words = 1;
    if (s->n == 0) return DMC_OK;

    /* Honest patterns take a few steps per character of a match. */
    DMC_TRY(prepare(state));
    pcre2_set_match_limit(state->limits, n < 100000000 ? 100000 + 16 * n : UINT32_MAX);
    pcre2_set_heap_limit(state->limits, 256 * 1024); /* KiB */
    for (int i = 0; i < s->n; i++) {
        size_t n_before = state->n_words;
        state->n_words = 0;
        for (size_t w = 0; w < n_before; w++)
            DMC_TRY(split_word(state, s->codes[i], s->behavior[i], text, state->words[w]));
        dmc_span *words = state->words;
        size_t cap = state->cap_words;
        state->words = state->next;
        state->cap_words = state->cap_next;
        state->next = words;
        state->cap_next = cap;
    }
    return DMC_OK;
}

void dmc_split_state_free(dmc_split_state *state)
{
    dmc_free(state->words);
    dmc_free(state->next);
    pcre2_match_data_free(state->match);
    pcre2_match_context_free(state->limits);
    *state = (dmc_split_state){0};
}
