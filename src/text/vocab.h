/* The inside of a tokenizer: its tokens, the rule that merges them, and what happens to text before it meets them.
 *
 * A token is its bytes: whatever alphabet a file writes its pieces in (GPT-2's printable bytes, SentencePiece's
 * U+2581 for a space, base64), the readers decode it once, so that encoding works on the text itself and decoding is
 * a look-up.
 *
 *     text -> special tokens cut out -> normalised -> pre-tokenised into words -> merged (bpe.c) -> ids */
#ifndef DMC_VOCAB_H
#define DMC_VOCAB_H

#include "text/normalize.h"
#include "text/pair_map.h"
#include "text/pretokenize.h"
#include "text/tokenizer.h"

typedef enum {
    DMC_KIND_UNUSED, /* also a hole between ids */
    DMC_KIND_NORMAL,
    DMC_KIND_UNKNOWN, /* stands for what has no token */
    DMC_KIND_CONTROL, /* no text: begin, end, roles ... */
    DMC_KIND_USER,    /* text that is always one token */
    DMC_KIND_BYTE     /* SentencePiece's <0xNN>: fallback for characters without a token */
} dmc_token_kind;

/* Kinds as SentencePiece and GGUF number them; false for a number that is none. */
static inline bool dmc_token_kind_of(dmc_token_kind *out, int64_t number)
{
    static const dmc_token_kind kinds[] = {DMC_KIND_UNUSED, DMC_KIND_NORMAL, DMC_KIND_UNKNOWN, DMC_KIND_CONTROL,
                                           DMC_KIND_USER,   DMC_KIND_UNUSED, DMC_KIND_BYTE};
    if (number < 0 || number > 6) return false;
    *out = kinds[number];
    return true;
}

enum {
    DMC_TOKEN_MERGES = 1, /* merging may produce it */
    DMC_TOKEN_ADDED =
        2, /* found in the text before anything else; control tokens only where the caller asks for them */
    DMC_TOKEN_LSTRIP = 4, /* ... and swallows white space to its left */
    DMC_TOKEN_RSTRIP = 8,
    DMC_TOKEN_END = 16 /* ends a generation */
};

typedef struct {
    uint32_t start, n; /* bytes in `blob` */
    uint32_t rank;     /* DMC_MERGE_PIECES: a lower rank merges earlier */
    uint8_t kind, flags;
} dmc_token;

typedef struct {
    uint32_t hash;
    int32_t id; /* -1: free */
} dmc_piece_slot;

typedef enum {
    DMC_MERGE_PIECES, /* neighbours merge if their bytes together are a token; its rank decides */
    DMC_MERGE_PAIRS   /* neighbours merge if their ids are in the list of merges; their place decides */
} dmc_merge_rule;

struct dmc_tokenizer {
    dmc_token *tokens; /* [n_tokens] */
    int n_tokens;
    char *blob;
    size_t n_blob, cap_blob;

    dmc_piece_slot *pieces; /* bytes -> id of the tokens that merge; open addressing */
    size_t n_piece_slots;   /* power of two */
    uint32_t longest;       /* bytes of the longest of them */
    uint64_t
        joins[1024]; /* bit a << 8 | b: some of them has byte b after byte a, so text may merge across that place */

    dmc_merge_rule rule;
    dmc_pair_map merges; /* ids -> rank */
    int32_t *merged;     /* [merges.n]: id that the merge of that rank gives */
    size_t cap_merged;
    bool characters;       /* merging starts from characters (SentencePiece); else from bytes */
    bool whole_words;      /* a word that is a token needs no merging */
    bool fuse_unknown;     /* neighbours without a token share one unknown token */
    bool strip_start;      /* the first token's leading space is the prefix's, not the text's */
    int32_t byte_ids[256]; /* token of a single byte; -1: none */

    dmc_pair_map added;    /* trie of the added tokens: (node, byte) -> node; node 0 is the root */
    int32_t *added_ids;    /* [added.n + 1]: token that ends at a node, or -1 */
    bool added_first[256]; /* bytes that added tokens begin with */

    dmc_normalizer normalizer;
    dmc_splitter splitter;
    int bos, unknown; /* -1: none */
    bool adds_bos;
    const char *where; /* the file, for messages while it is read */
};

/* ---- building: reserve, then set every token, then index, then merges, then finish ---- */

/* n holes. Fails where n is 0 or more than a vocabulary can have (2^24). `where` must live until finish. */
dmc_status dmc_vocab_reserve(dmc_tokenizer *t, size_t n, const char *where);
/* Defines token id (out of range: DMC_ERR_FORMAT) by its bytes; a second definition replaces the first. */
dmc_status dmc_vocab_set(dmc_tokenizer *t, int64_t id, const char *bytes, size_t n, dmc_token_kind kind, int flags,
                         uint32_t rank);
/* The same for a piece of a SentencePiece vocabulary: U+2581 is a space, a byte piece is its byte, and the flags
 * follow from the kind. A higher score merges earlier. */
dmc_status dmc_vocab_set_sp(dmc_tokenizer *t, int64_t id, const char *piece, size_t n, dmc_token_kind kind,
                            float score);
/* The same for a piece of byte-level BPE in GPT-2's alphabet. */
dmc_status dmc_vocab_set_bytes(dmc_tokenizer *t, int64_t id, const char *piece, size_t n);
/* Makes token id one that is found in the text as it stands there. If it is defined by the same bytes already it may
 * still come out of merging, too, unless it is special. extra: DMC_TOKEN_LSTRIP, DMC_TOKEN_RSTRIP or 0. */
dmc_status dmc_vocab_set_added(dmc_tokenizer *t, int64_t id, const char *content, size_t n, bool special, int extra);
dmc_status dmc_vocab_index(dmc_tokenizer *t);
/* The next merge, of two pieces written as the vocabulary's are. One whose pieces or result are no tokens:
 * DMC_ERR_FORMAT. */
dmc_status dmc_vocab_merge(dmc_tokenizer *t, const char *left, size_t n_left, const char *right, size_t n_right);
/* The same from "left right". */
dmc_status dmc_vocab_merge_line(dmc_tokenizer *t, const char *line, size_t n);
dmc_status dmc_vocab_finish(dmc_tokenizer *t);

/* ---- looking up ---- */
int32_t dmc_vocab_find(const dmc_tokenizer *t, const char *bytes, size_t n); /* among the tokens that merge; -1: none */
/* The id of a token by its bytes, whatever its kind; slow; -1: none. */
int dmc_vocab_find_any(const dmc_tokenizer *t, const char *bytes, size_t n);
void dmc_vocab_mark_end(dmc_tokenizer *t, int64_t id); /* ids out of range are ignored */
uint32_t dmc_rank_of_score(float score);               /* the same order, downwards; not-a-number comes last */
/* "<0x0A>" -> 10; -1 for anything else. */
int dmc_byte_piece(const char *piece, size_t n);
static inline bool dmc_vocab_joins(const dmc_tokenizer *t, char a, char b)
{
    unsigned i = (unsigned)(uint8_t)a << 8 | (uint8_t)b;
    return t->joins[i >> 6] >> (i & 63) & 1;
}

/* ---- merging (bpe.c): what one call of encode carries along ---- */

typedef struct {
    uint32_t start, n; /* bytes of text */
    int32_t id;        /* -1: no token */
    int32_t prev, next;
} dmc_symbol;

typedef struct {
    uint32_t rank;
    int32_t left, right; /* symbols */
    uint32_t n;          /* bytes of both, to see that neither has changed since */
    int32_t id;
} dmc_candidate;

typedef struct {
    uint32_t hash, start, n; /* a word of the text that was merged before ... */
    uint32_t ids, n_ids;     /* ... and its ids, where they stand in the result */
} dmc_cached_word;

typedef struct {
    const dmc_tokenizer *t;
    int32_t *ids;
    size_t n_ids, cap_ids;
    dmc_text text; /* normalised */
    dmc_split_state split;
    dmc_symbol *symbols;
    size_t cap_symbols;
    dmc_candidate *heap;
    size_t n_heap, cap_heap;
    dmc_cached_word *cache; /* open addressing; n_ids UINT32_MAX: free */
    size_t n_cached, n_cache_slots;
    bool after_unknown; /* the last id is the unknown token, given to text that had none */
} dmc_encoder;

dmc_status dmc_encoder_push(dmc_encoder *e, int32_t id);
/* Appends the ids of one word, bytes [start, start + n) of e->text. */
dmc_status dmc_encode_word(dmc_encoder *e, uint32_t start, uint32_t n);

/* ---- readers, one per kind of file; each leaves a finished vocabulary ---- */
struct dmc_gguf;
dmc_status dmc_read_hf_json(dmc_tokenizer *t, const char *json, size_t n, const char *where);
dmc_status dmc_read_vocab_merges(dmc_tokenizer *t, const char *dir, const dmc_tokenizer_source *src);
dmc_status dmc_read_sentencepiece(dmc_tokenizer *t, const uint8_t *data, size_t n, const dmc_tokenizer_source *src,
                                  const char *where);
dmc_status dmc_read_tiktoken(dmc_tokenizer *t, const uint8_t *data, size_t n, const char *where);
dmc_status dmc_read_llama2c(dmc_tokenizer *t, const uint8_t *data, size_t n, int n_vocab, const char *where);
dmc_status dmc_read_gguf_vocab(dmc_tokenizer *t, const struct dmc_gguf *g, const char *where);

#endif
