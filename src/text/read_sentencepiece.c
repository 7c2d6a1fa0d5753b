/* SentencePiece's tokenizer.model: a protobuf message, of which these fields matter:
 *   1 pieces, repeated: { 1 piece, 2 score, 3 type }
 *   2 trainer: { 3 model type, 40 unk id, 41 bos id, 42 eos id }
 *   3 normaliser: { 2 compiled character map, 3 add dummy prefix, 4 remove extra white space } */
#include "text/hf_config.h"
#include "text/vocab.h"

#include <string.h>

typedef struct {
    const uint8_t *p, *end;
} proto;

typedef struct {
    uint32_t number;
    uint64_t value; /* varint */
    float real;     /* 32-bit */
    proto bytes;    /* length-delimited */
} field;

static bool read_varint(proto *m, uint64_t *v)
{
    *v = 0;
    for (int shift = 0; shift < 64 && m->p < m->end; shift += 7) {
        uint8_t byte = *m->p++;
        *v |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) return true;
    }
    return false;
}

/* The next field; false at the end of the message or where it is malformed (then m->p < m->end). */
static bool next_field(proto *m, field *f)
{
    proto at = *m;
    uint64_t tag, n;
    *f = (field){0};
    if (at.p == at.end || !read_varint(&at, &tag)) return false;
    f->number = tag >> 3 > UINT32_MAX ? UINT32_MAX : (uint32_t)(tag >> 3);
    switch (tag & 7) {
    case 0:
        if (!read_varint(&at, &f->value)) return false;
        break;
    case 1:
    case 5:
        n = (tag & 7) == 1 ? 8 : 4;
        if ((uint64_t)(at.end - at.p) < n) return false;
        if (n == 4) memcpy(&f->real, at.p, 4);
        at.p += n;
        break;
    case 2:
        if (!read_varint(&at, &n) || n > (uint64_t)(at.end - at.p)) return false;
        f->bytes = (proto){at.p, at.p + n};
        at.p += n;
        break;
    default: return false;
    }
    *m = at;
    return true;
}

static dmc_status malformed(const char *where, const uint8_t *data, const uint8_t *at)
{
    return dmc_fail(DMC_ERR_FORMAT, "%s: not a SentencePiece model, or damaged: byte %zu", where, (size_t)(at - data));
}

typedef struct {
    size_t n_pieces;
    uint64_t model_type;
    int64_t unk, bos, eos;
    bool dummy_prefix, squeeze, character_map;
} header;

static dmc_status read_header(header *h, const uint8_t *data, size_t n, const char *where)
{
    *h = (header){
        .model_type = 1, .unk = 0, .bos = 1, .eos = 2, .dummy_prefix = true, .squeeze = true}; /* protobuf's defaults */
    proto m = {data, data + n};
    field f, g;
    while (next_field(&m, &f)) {
        proto inner = f.bytes;
        if (f.number == 1) h->n_pieces++;
        while (f.number == 2 && next_field(&inner, &g)) {
            if (g.number == 3) h->model_type = g.value;
            if (g.number == 40) h->unk = (int32_t)g.value;
            if (g.number == 41) h->bos = (int32_t)g.value;
            if (g.number == 42) h->eos = (int32_t)g.value;
        }
        while (f.number == 3 && next_field(&inner, &g)) {
            if (g.number == 2) h->character_map = g.bytes.p != g.bytes.end;
            if (g.number == 3) h->dummy_prefix = g.value != 0;
            if (g.number == 4) h->squeeze = g.value != 0;
        }
        if ((f.number == 2 || f.number == 3) && inner.p != inner.end) return malformed(where, data, inner.p);
    }
    if (m.p != m.end) return malformed(where, data, m.p);
    return DMC_OK;
}

static dmc_status read_piece(dmc_tokenizer *t, int64_t id, proto m, const uint8_t *data, const char *where)
{
    proto piece = {(const uint8_t *)"", (const uint8_t *)""};
    float score = 0;
    uint64_t type = 1;
    field f;
    while (next_field(&m, &f)) {
        if (f.number == 1 && f.bytes.p) piece = f.bytes;
        if (f.number == 2) score = f.real;
        if (f.number == 3) type = f.value;
    }
    if (m.p != m.end) return malformed(where, data, m.p);
    dmc_token_kind kind;
    if (!dmc_token_kind_of(&kind, (int64_t)type))
        return dmc_fail(DMC_ERR_FORMAT, "%s: piece %lld has no known type", where, (long long)id);
    return dmc_vocab_set_sp(t, id, (const char *)piece.p, (size_t)(piece.end - piece.p), kind, score);
}

dmc_status dmc_read_sentencepiece(dmc_tokenizer *t, const uint8_t *data, size_t n, const dmc_tokenizer_source *src,
                                  const char *where)
{
    header h;
    DMC_TRY(read_header(&h, data, n, where));
    if (h.model_type != 2)
        return dmc_fail(DMC_ERR_UNSUPPORTED, "%s: a SentencePiece model of type %s; only BPE is supported", where,
                        h.model_type == 1   ? "unigram"
                        : h.model_type == 3 ? "word"
                                            : "character");
    if (h.character_map)
        return dmc_fail(DMC_ERR_UNSUPPORTED,
                        "%s: normalises text by a compiled character map; only 'identity' is supported (is there a "
                        "tokenizer.json for it?)",
                        where);
    dmc_hf_config config;
    dmc_status status;
    DMC_TRY(dmc_hf_config_open(&config, src));
    DMC_GOTO(dmc_vocab_reserve(t, dmc_hf_config_room(&config, h.n_pieces), where));
    proto m = {data, data + n};
    field f;
    for (int64_t id = 0; next_field(&m, &f);)
        if (f.number == 1) DMC_GOTO(read_piece(t, id++, f.bytes, data, where));

    t->rule = DMC_MERGE_PIECES;
    t->characters = t->fuse_unknown = t->strip_start = true;
    t->normalizer = (dmc_normalizer){.space_mark = true, .squeeze = h.squeeze};
    t->normalizer.prefix = h.dummy_prefix ? DMC_PREFIX_ALWAYS : DMC_PREFIX_NEVER;
    t->strip_start = h.dummy_prefix;
    t->unknown = (int)h.unk;
    t->bos = (int)h.bos;
    t->adds_bos = true;
    dmc_vocab_mark_end(t, h.eos);
    DMC_GOTO(dmc_hf_config_apply(&config, t));
    DMC_GOTO(dmc_vocab_index(t));
    DMC_GOTO(dmc_vocab_finish(t));
done:
    dmc_hf_config_close(&config);
    return status;
}
