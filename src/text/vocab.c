#include "text/vocab.h"

#include "text/byte_alphabet.h"
#include "text/grow.h"
#include "text/hash.h"

#define MAX_TOKENS (1u << 24)
#define MAX_ADDED_BYTES 1024 /* of an added token: the trie has a node per byte */

/* ---- tokens ---- */

dmc_status dmc_vocab_reserve(dmc_tokenizer *t, size_t n, const char *where)
{
    if (n == 0 || n > MAX_TOKENS) return dmc_fail(DMC_ERR_FORMAT, "%s: a vocabulary of %zu tokens", where, n);
    DMC_TRY(dmc_array(&t->tokens, n, sizeof *t->tokens));
    t->n_tokens = (int)n;
    t->where = where;
    return DMC_OK;
}

dmc_status dmc_vocab_set(dmc_tokenizer *t, int64_t id, const char *bytes, size_t n, dmc_token_kind kind, int flags,
                         uint32_t rank)
{
    if (id < 0 || id >= t->n_tokens)
        return dmc_fail(DMC_ERR_FORMAT, "%s: token id %lld in a vocabulary of %d", t->where, (long long)id,
                        t->n_tokens);
    if (n > UINT32_MAX - t->n_blob) return dmc_fail(DMC_ERR_FORMAT, "%s: a vocabulary of more than 4 GiB", t->where);
    DMC_TRY(dmc_grow(&t->blob, &t->cap_blob, t->n_blob + n + 1, 1)); /* + 1: never NULL */
    if (n > 0) memcpy(t->blob + t->n_blob, bytes, n);
    if (n == 0) flags &= ~(DMC_TOKEN_MERGES | DMC_TOKEN_ADDED);
    t->tokens[id] = (dmc_token){(uint32_t)t->n_blob, (uint32_t)n, rank, (uint8_t)kind, (uint8_t)flags};
    t->n_blob += n;
    return DMC_OK;
}

int dmc_byte_piece(const char *piece, size_t n)
{
    if (n != 6 || memcmp(piece, "<0x", 3) != 0 || piece[5] != '>') return -1;
    int value = 0;
    for (int i = 3; i < 5; i++) {
        char c = piece[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                           : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

uint32_t dmc_rank_of_score(float score)
{
    if (score != score) return UINT32_MAX;
    score += 0.0f; /* -0 is 0 */
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    return bits & 0x80000000u ? bits : 0x7FFFFFFFu - bits;
}

dmc_status dmc_vocab_set_sp(dmc_tokenizer *t, int64_t id, const char *piece, size_t n, dmc_token_kind kind, float score)
{
    int byte = kind == DMC_KIND_BYTE ? dmc_byte_piece(piece, n) : -1;
    if (kind == DMC_KIND_BYTE && byte < 0)
        return dmc_fail(DMC_ERR_FORMAT, "%s: token %lld, '%.*s', is no byte piece", t->where, (long long)id,
                        (int)(n < 32 ? n : 32), piece);
    char c = (char)byte;
    if (byte >= 0) return dmc_vocab_set(t, id, &c, 1, kind, 0, 0);
    int flags = kind == DMC_KIND_NORMAL ? DMC_TOKEN_MERGES : kind == DMC_KIND_UNUSED ? 0 : DMC_TOKEN_ADDED;
    /* Text has no literal space left when it meets the pieces, so one that has is never found. */
    if (n > 0 && memchr(piece, ' ', n)) flags &= ~DMC_TOKEN_MERGES;
    DMC_TRY(dmc_vocab_set(t, id, piece, n, kind, flags, dmc_rank_of_score(score)));
    dmc_token *token = &t->tokens[id];
    token->n = (uint32_t)dmc_unmark(t->blob + token->start, n);
    t->n_blob = token->start + token->n;
    return DMC_OK;
}

dmc_status dmc_vocab_set_bytes(dmc_tokenizer *t, int64_t id, const char *piece, size_t n)
{
    DMC_TRY(dmc_vocab_set(t, id, piece, n, DMC_KIND_NORMAL, DMC_TOKEN_MERGES, 0));
    dmc_token *token = &t->tokens[id];
    size_t n_bytes;
    if (dmc_alphabet_decode(t->blob + token->start, &n_bytes, piece, n)) {
        token->n = (uint32_t)n_bytes;
        t->n_blob = token->start + token->n;
    } else { /* not of the alphabet: no text leads there, but it may be shown */
        memcpy(t->blob + token->start, piece, n);
        token->flags &= (uint8_t)~DMC_TOKEN_MERGES;
    }
    return DMC_OK;
}

dmc_status dmc_vocab_set_added(dmc_tokenizer *t, int64_t id, const char *content, size_t n, bool special, int extra)
{
    dmc_token *token = id >= 0 && id < t->n_tokens ? &t->tokens[id] : NULL;
    bool known = token && token->n == n && n > 0 && memcmp(t->blob + token->start, content, n) == 0;
    if (!known) DMC_TRY(dmc_vocab_set(t, id, content, n, DMC_KIND_USER, DMC_TOKEN_ADDED, 0));
    token = &t->tokens[id];
    if (n > 0) token->flags |= (uint8_t)(DMC_TOKEN_ADDED | extra);
    if (special) token->flags &= (uint8_t)~DMC_TOKEN_MERGES;
    if (special && token->kind != DMC_KIND_UNKNOWN) token->kind = DMC_KIND_CONTROL;
    return DMC_OK;
}

void dmc_vocab_mark_end(dmc_tokenizer *t, int64_t id)
{
    if (id >= 0 && id < t->n_tokens) t->tokens[id].flags |= DMC_TOKEN_END;
}

/* ---- bytes -> id ---- */

/* Where the piece stands, or the free slot where it would. */
static dmc_piece_slot *find_slot(const dmc_tokenizer *t, uint32_t hash, const char *s, size_t n)
{
    for (size_t i = hash;; i++) {
        dmc_piece_slot *slot = &t->pieces[i & (t->n_piece_slots - 1)];
        if (slot->id < 0) return slot;
        const dmc_token *token = &t->tokens[slot->id];
        if (slot->hash == hash && token->n == n && memcmp(t->blob + token->start, s, n) == 0) return slot;
    }
}

int32_t dmc_vocab_find(const dmc_tokenizer *t, const char *bytes, size_t n)
{
    if (n == 0 || n > t->longest) return -1;
    return find_slot(t, dmc_hash_bytes(bytes, n), bytes, n)->id;
}

int dmc_vocab_find_any(const dmc_tokenizer *t, const char *bytes, size_t n)
{
    for (int id = 0; n > 0 && id < t->n_tokens; id++)
        if (t->tokens[id].n == n && memcmp(t->blob + t->tokens[id].start, bytes, n) == 0) return id;
    return -1;
}

dmc_status dmc_vocab_index(dmc_tokenizer *t)
{
    t->n_piece_slots = 64;
    while (t->n_piece_slots < 2 * (size_t)t->n_tokens) t->n_piece_slots *= 2;
    t->pieces = dmc_malloc(t->n_piece_slots, sizeof *t->pieces);
    if (!t->pieces) return dmc_fail(DMC_ERR_MEMORY, "out of memory: index of %d tokens", t->n_tokens);
    for (size_t i = 0; i < t->n_piece_slots; i++) t->pieces[i].id = -1;
    for (int id = 0; id < t->n_tokens; id++) {
        const dmc_token *token = &t->tokens[id];
        if (!(token->flags & DMC_TOKEN_MERGES)) continue;
        const char *s = t->blob + token->start;
        uint32_t hash = dmc_hash_bytes(s, token->n);
        dmc_piece_slot *slot = find_slot(t, hash, s, token->n);
        if (slot->id >= 0) continue; /* the first of equal pieces counts */
        *slot = (dmc_piece_slot){hash, id};
        if (token->n > t->longest) t->longest = token->n;
        for (uint32_t i = 1; i < token->n; i++) {
            unsigned pair = (unsigned)(uint8_t)s[i - 1] << 8 | (uint8_t)s[i];
            t->joins[pair >> 6] |= (uint64_t)1 << (pair & 63);
        }
    }
    return DMC_OK;
}

/* ---- merges ---- */

/* A piece of a merge as the vocabulary's tokens were decoded. */
static bool decode_piece(const dmc_tokenizer *t, char *out, size_t *n_out, const char *piece, size_t n)
{
    if (!t->characters) return dmc_alphabet_decode(out, n_out, piece, n);
    memcpy(out, piece, n);
    *n_out = t->normalizer.space_mark ? dmc_unmark(out, n) : n;
    return true;
}

dmc_status dmc_vocab_merge(dmc_tokenizer *t, const char *left, size_t n_left, const char *right, size_t n_right)
{
    char buffer[4096];
    size_t n_a = 0, n_b = 0;
    int32_t a = -1, b = -1, both = -1;
    if (n_left > 0 && n_right > 0 && n_left <= sizeof buffer && n_right <= sizeof buffer - n_left &&
        decode_piece(t, buffer, &n_a, left, n_left) && decode_piece(t, buffer + n_a, &n_b, right, n_right)) {
        a = dmc_vocab_find(t, buffer, n_a);
        b = dmc_vocab_find(t, buffer + n_a, n_b);
        both = dmc_vocab_find(t, buffer, n_a + n_b);
    }
    if (a < 0 || b < 0 || both < 0)
        return dmc_fail(DMC_ERR_FORMAT, "%s: merge %zu, '%.*s' and '%.*s': %s not in the vocabulary", t->where,
                        t->merges.n, (int)(n_left < 64 ? n_left : 64), left, (int)(n_right < 64 ? n_right : 64), right,
                        a < 0 || b < 0 ? "they are" : "their result is");
    DMC_TRY(dmc_grow(&t->merged, &t->cap_merged, t->merges.n + 1, sizeof *t->merged));
    t->merged[t->merges.n] = both; /* a pair that comes twice keeps its first rank */
    return dmc_pair_add(&t->merges, (uint32_t)a, (uint32_t)b, (uint32_t)t->merges.n);
}

dmc_status dmc_vocab_merge_line(dmc_tokenizer *t, const char *line, size_t n)
{
    const char *space = n > 1 ? memchr(line + 1, ' ', n - 1) : NULL;
    if (!space)
        return dmc_fail(DMC_ERR_FORMAT, "%s: merge %zu, '%.*s', is not two pieces", t->where, t->merges.n,
                        (int)(n < 64 ? n : 64), line);
    size_t n_left = (size_t)(space - line);
    return dmc_vocab_merge(t, line, n_left, space + 1, n - n_left - 1);
}

/* ---- the rest follows ---- */

static dmc_status add_to_trie(dmc_tokenizer *t, int id)
{
    const dmc_token *token = &t->tokens[id];
    const char *s = t->blob + token->start;
    if (token->n > MAX_ADDED_BYTES)
        return dmc_fail(DMC_ERR_FORMAT, "%s: added token %d has %u bytes, more than %d", t->where, id, token->n,
                        MAX_ADDED_BYTES);
    t->added_first[(uint8_t)s[0]] = true;
    uint32_t node = 0;
    for (uint32_t i = 0; i < token->n; i++) {
        uint32_t next = dmc_pair_get(&t->added, node, (uint8_t)s[i]);
        if (next == DMC_NO_PAIR) {
            next = (uint32_t)t->added.n + 1;
            DMC_TRY(dmc_pair_add(&t->added, node, (uint8_t)s[i], next));
        }
        node = next;
    }
    return DMC_OK;
}

static uint32_t trie_node(const dmc_tokenizer *t, const dmc_token *token)
{
    uint32_t node = 0;
    for (uint32_t i = 0; i < token->n; i++) node = dmc_pair_get(&t->added, node, (uint8_t)t->blob[token->start + i]);
    return node;
}

static dmc_status index_added(dmc_tokenizer *t)
{
    for (int id = 0; id < t->n_tokens; id++)
        if (t->tokens[id].flags & DMC_TOKEN_ADDED) DMC_TRY(add_to_trie(t, id));
    t->added_ids = dmc_malloc(t->added.n + 1, sizeof *t->added_ids);
    if (!t->added_ids) return dmc_fail(DMC_ERR_MEMORY, "out of memory: %zu added tokens' bytes", t->added.n);
    for (size_t i = 0; i <= t->added.n; i++) t->added_ids[i] = -1;
    for (int id = t->n_tokens - 1; id >= 0; id--) /* the first of equal tokens counts */
        if (t->tokens[id].flags & DMC_TOKEN_ADDED) t->added_ids[trie_node(t, &t->tokens[id])] = id;
    return DMC_OK;
}

/* Tokens that end a turn or a text in the well-known vocabularies; files name only one of theirs. */
static void mark_known_ends(dmc_tokenizer *t)
{
    static const char *const names[] = {"<|eot_id|>",    "<|eom_id|>",      "<|im_end|>",   "<|end|>",
                                        "<end_of_turn>", "<|end_of_text|>", "<|endoftext|>"};
    for (int id = 0; id < t->n_tokens; id++)
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            if (t->tokens[id].kind == DMC_KIND_CONTROL && t->tokens[id].n == strlen(names[i]) &&
                memcmp(t->blob + t->tokens[id].start, names[i], strlen(names[i])) == 0)
                dmc_vocab_mark_end(t, id);
}

dmc_status dmc_vocab_finish(dmc_tokenizer *t)
{
    bool all_bytes = true, any = false;
    for (int b = 0; b < 256; b++) {
        char c = (char)b;
        t->byte_ids[b] = t->characters ? -1 : dmc_vocab_find(t, &c, 1);
    }
    for (int id = t->n_tokens - 1; id >= 0; id--) {
        const dmc_token *token = &t->tokens[id];
        if (token->kind == DMC_KIND_BYTE) t->byte_ids[(uint8_t)t->blob[token->start]] = id;
        any |= token->kind == DMC_KIND_BYTE || (token->flags & DMC_TOKEN_MERGES);
    }
    if (!any) return dmc_fail(DMC_ERR_FORMAT, "%s: a vocabulary without a token of text", t->where);
    for (int b = 0; b < 256; b++) all_bytes &= t->byte_ids[b] >= 0;
    t->normalizer.replace_invalid = !all_bytes;
    if (t->bos < 0 || t->bos >= t->n_tokens) t->bos = -1;
    if (t->unknown < 0 || t->unknown >= t->n_tokens) t->unknown = -1;
    mark_known_ends(t);
    DMC_TRY(index_added(t));
    t->where = NULL;
    return DMC_OK;
}
