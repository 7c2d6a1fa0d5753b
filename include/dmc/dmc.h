/* dmc: run language models that compress their own key-value cache.
 *
 * Public interface. An engine is a loaded model: immutable, shared by threads. A session is one timeline of tokens
 * with its cache: one thread at a time. Nothing here prints, exits or reads the environment.
 * Every fallible function returns a dmc_status and writes its result through the first pointer; dmc_last_error() then
 * says, for the calling thread, what was wrong, where, and what to do. close() functions take NULL.
 */
#ifndef DMC_DMC_H
#define DMC_DMC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DMC_VERSION "0.1.0"

/* ---- status ---------------------------------------------------------------------------------------------------- */

#define DMC_STATUS_LIST(X)                        \
    X(DMC_OK, "ok")                               \
    X(DMC_ERR_ARG, "invalid argument")            \
    X(DMC_ERR_MEMORY, "out of memory")            \
    X(DMC_ERR_IO, "input/output error")           \
    X(DMC_ERR_FORMAT, "malformed file")           \
    X(DMC_ERR_UNSUPPORTED, "not supported")       \
    X(DMC_ERR_CONTEXT, "context length exceeded") \
    X(DMC_ERR_POOL, "cache pool exhausted")       \
    X(DMC_ERR_NUMERIC, "not a number")            \
    X(DMC_ERR_INTERRUPTED, "interrupted")

typedef enum {
#define DMC_STATUS_ENUM(name, text) name,
    DMC_STATUS_LIST(DMC_STATUS_ENUM)
#undef DMC_STATUS_ENUM
} dmc_status;

const char *dmc_status_text(dmc_status s); /* static string */
const char *dmc_last_error(void);          /* message of this thread's last failure; valid until its next one */

/* ---- policy: how a head's cache stays short ----------------------------------------------------------------------
 * METHOD: a head's cache is a recent window of `delay` tokens, held exactly, and a settled part. A token that leaves the window settles:
 * 'none' appends it; 'dmc' appends it or merges it into the newest settled slot (arXiv 2403.09636, section 3); 'dms' lets it take the
 * place of the one before, if that one is to be evicted (arXiv 2506.05345); 'fmp' merges by a fixed rule, `period` tokens a slot.
 * The others are for any model, without training: they have no window, and evict settled slots to keep within a budget. */
typedef enum {
    DMC_POLICY_NONE,
    DMC_POLICY_DMC,
    DMC_POLICY_DMS,
    DMC_POLICY_FMP,
    DMC_POLICY_H2O,  /* the least attended so far goes, but not the newest `recent` (arXiv 2306.14048) */
    DMC_POLICY_TOVA, /* per layer, the least attended by the newest token goes (arXiv 2401.06104) */
    DMC_POLICY_STREAMING, /* the first `sinks` tokens stay, and the newest; positions count within the cache (arXiv 2309.17453) */
    DMC_POLICY_SNAPKV, /* once, behind the prompt: what its last `recent` tokens attend to stays, and they (arXiv 2404.14469) */
    DMC_POLICY_COUNT
} dmc_policy_kind;
const char *dmc_policy_name(dmc_policy_kind kind); /* "none", "dmc", ...; "?" beyond */
/* Whether the policy evicts from any model to keep within a budget: h2o and those behind it. */
bool dmc_policy_has_budget(dmc_policy_kind kind);

/* Where the decision on a token comes from. All but the first two are for models trained so. */
typedef enum {
    DMC_DECISION_CHANNEL, /* dmc: k[channel] - offset; dms: scale * q[channel] - offset, of the group's first query head */
    DMC_DECISION_LAYER, /* dmc: the mean of k[channel] over the layer's heads, - offset: one decision for all (DMC-HardC) */
    DMC_DECISION_ADAPTER, /* dms: scale * W RMSNorm(x) - offset, of the residual stream, with weights of its own */
    DMC_DECISION_NOISE,   /* by chance, one token in `period` appends: what is a learned decision worth? */
    DMC_DECISION_PERIOD,  /* one token in `period` appends, in turn */
    DMC_DECISION_COUNT
} dmc_decision;

typedef enum { DMC_BUDGET_RATIO, DMC_BUDGET_SLOTS, DMC_BUDGET_BYTES } dmc_budget_unit;

typedef struct {
    dmc_policy_kind kind;
    dmc_decision decision;
    int channel;  /* decision / importance channel of k and q; 0 <= channel < head_dim (default head_dim - 1) */
    float offset; /* c: subtracted from k[channel] (decision), added to mean q[channel] (importance); 5 */
    float scale;  /* dms: of the decision logit; 100 */
    float eps;    /* dmc: added to the importance; 2^-7 */
    int window;   /* W, dmc: a merged slot averages the last W tokens of its run; 0 = all of them */
    int delay; /* d: tokens settle d steps after they came; 0 = the paper's DMC. dms: the window that a flagged token stays visible in */
    int period; /* fmp, and decisions by chance or in turn: tokens a slot */
    bool
        no_shift; /* dms: the decision made at a token is on that token, not on the one before (checkpoints of other trainers) */
    bool first_append; /* the first token of an empty cache always appends */
    float cr;          /* compression ratio that the model was trained for; 1 = unknown. Informative. */
    dmc_budget_unit
        budget_unit; /* ratio: slots a token that came so far; slots: of each head; bytes: of all that the session holds */
    double budget; /* of the policies that have one */
    int recent;    /* h2o, snapkv: newest tokens that stay; 0: half of the budget, for snapkv at most 32; -1: none */
    int sinks;     /* streaming: first tokens that stay; 0: 4; -1: none */
} dmc_policy;
dmc_policy dmc_policy_none(void);
dmc_policy dmc_policy_default(dmc_policy_kind kind,
                              int head_dim); /* channel head_dim - 1, W 0, d 0, the constants above; budget 0.25 */

/* ---- arithmetic and storage -------------------------------------------------------------------------------------- */

/* How products with F32 and F16 weights are computed. Other types bring their own arithmetic: BF16 that of
 * bf16; block types int8, and bf16 for many tokens at a time where that is faster. */
typedef enum {
    DMC_MATH_F32, /* float32 throughout: training and serving agree bit for bit */
    DMC_MATH_BF16 /* both factors rounded to bf16, sums in float32: half the memory, and what matrix units do */
} dmc_math;

/* What a slot of the cache is stored in. Open accumulators and recent windows are float32 always. */
typedef enum {
    DMC_KV_AUTO, /* F32 for models computed in float32, else BF16 */
    DMC_KV_F32,
    DMC_KV_F16,
    DMC_KV_BF16,
    DMC_KV_Q8, /* int8, a scale per slot */
    DMC_KV_Q4, /* 4 bits, a scale and an offset per slot and 32 channels */
    DMC_KV_COUNT
} dmc_kv_type;

/* ---- model facts ------------------------------------------------------------------------------------------------ */

typedef struct {
    char architecture[32]; /* "llama", "qwen2", "qwen3" or, once retrofitted, "dmc-llama" etc. */
    int n_layers, n_heads, n_kv_heads, head_dim, n_embd, n_ff, n_vocab, n_ctx;
    int64_t n_params;
    size_t weight_bytes;
    const char *dtype; /* of the largest tensor, e.g. "F32" */
    dmc_kv_type kv;    /* what the engine's cache slots are stored in */
    int bos;           /* beginning-of-text id, -1: none */
    bool adds_bos;     /* the model's own settings put it in front of a text */
    int eos;           /* end-of-text id, -1: none */
    dmc_policy policy;
} dmc_info;

/* ---- engine ----------------------------------------------------------------------------------------------------- */

typedef struct dmc_engine dmc_engine;
typedef struct dmc_session dmc_session;

typedef struct {
    int n_threads; /* 0: all cores this process may use */
    bool pin;      /* threads stay on cores of their own, the one that opens the engine included */
    int tier;      /* CPU kernels: 0 the best that this machine runs, 1 reference, 2 AVX2, 3 AVX-512, 4 AMX */
    dmc_math math; /* DMC_MATH_F32 */
    bool
        same_bits; /* block types: products of a token do not depend on how many others are in the pass. With F32 slots a timeline
                          then has the same bits however its tokens come, and whoever shares its batches; prefill is slower (false) */
    dmc_kv_type kv;    /* DMC_KV_AUTO */
    size_t pool_bytes; /* limit of the page pool that all sessions share; 0: none */
} dmc_engine_options;
dmc_engine_options dmc_engine_options_default(void);

/* Opens a model: a Hugging Face directory, a .gguf file, or a llama2.c .bin with its tokenizer beside it. */
dmc_status dmc_engine_open(dmc_engine **out, const char *path, const dmc_engine_options *opts);
/* A model in memory with random weights, to measure speed with: shape "15m", "110m", "1b", "llama2-7b", "llama3-8b",
 * "qwen2-7b", "qwen3-0.6b" or "qwen3-8b", its matrices of a type such as "q8_0". The same arguments give the same model. */
dmc_status dmc_engine_open_random(dmc_engine **out, const char *shape, const char *type, uint64_t seed,
                                  const dmc_engine_options *opts);
void dmc_engine_close(dmc_engine *e);
const dmc_info *dmc_engine_info(const dmc_engine *e);

/* ---- text ------------------------------------------------------------------------------------------------------- */

/* Encodes n bytes of UTF-8 (invalid bytes are kept as bytes or replaced by U+FFFD, never refused). Writes at most cap
 * ids; *n_ids is the number needed (DMC_ERR_ARG if above cap). special: parse special tokens written in the text. */
dmc_status dmc_encode(const dmc_engine *e, const char *text, size_t n, bool add_bos, bool special, int32_t *ids,
                      size_t cap, size_t *n_ids);
/* The bytes of a token as they continue a text; not NUL-terminated; valid while the engine is. */
dmc_status dmc_token_bytes(const dmc_engine *e, int32_t id, const char **bytes, size_t *n);
bool dmc_token_is_end(const dmc_engine *e, int32_t id);
bool dmc_token_is_control(const dmc_engine *e, int32_t id);

/* Streaming detokeniser: never splits a UTF-8 character. */
typedef struct {
    char held[8]; /* bytes of a character that is not complete */
    int n_held;
    bool started; /* something was written: the one leading space of SentencePiece has been dealt with */
} dmc_detok;
/* Adds one token; writes the bytes that are ready, bad ones as U+FFFD (n_out <= cap; a cap of 3 * (the token's bytes
 * + 4) always suffices). */
dmc_status dmc_detok_push(const dmc_engine *e, dmc_detok *d, int32_t id, char *out, size_t cap, size_t *n_out);
size_t dmc_detok_flush(dmc_detok *d, char *out, size_t cap); /* what is still held, each bad byte as U+FFFD */

/* ---- session ---------------------------------------------------------------------------------------------------- */

typedef struct {
    int n_ctx; /* longest timeline in tokens; 0: the model's */
    int chunk; /* tokens per prefill chunk; 0: 512 */
    double
        forced_cr; /* benchmarks, any model: > 1 merges by a fixed rule, whatever the model decides, so that heads keep
                             between 1 and 10 parts of slots, together 1/forced_cr of the tokens; 0: off */
    bool override_policy; /* use `policy` instead of the model file's; none on a retrofitted model: nothing merges, its
                             channel stays out of attention */
    dmc_policy policy;
} dmc_session_options;
dmc_session_options dmc_session_options_default(void);

dmc_status dmc_session_create(dmc_session **out, dmc_engine *e, const dmc_session_options *opts);
void dmc_session_close(dmc_session *s);

/* Appends n tokens to the timeline. Policy snapkv: the first call is the prompt, behind which it evicts; later calls are appended to what
 * is left, however long they are. logits: [n_vocab] of the last token, or all: [n, n_vocab]; may be NULL.
 * All or nothing: where it fails, with DMC_ERR_CONTEXT or DMC_ERR_POOL for example, the timeline is as it was. */
dmc_status dmc_session_feed(dmc_session *s, const int32_t *ids, size_t n, float *logits, bool all);

/* One forward pass over a ragged batch: sessions[b] receives the next n[b] ids of `ids`. logits: [n_sessions, n_vocab],
 * each sequence's last token. Sessions that cannot go on get their own status in results[b]; all others finish. */
dmc_status dmc_batch_feed(dmc_session *const *sessions, size_t n_sessions, const int32_t *ids, const size_t *n,
                          float *logits, dmc_status *results);

dmc_status dmc_session_fork(dmc_session **out, const dmc_session *s); /* shares pages, copy on write */
/* Goes back to the state that `snapshot` (a fork taken earlier) holds; the snapshot stays usable. */
dmc_status dmc_session_rewind(dmc_session *s, const dmc_session *snapshot);
dmc_status dmc_session_save(const dmc_session *s,
                            const char *path); /* atomic; with checksum and the model's identity */
dmc_status dmc_session_restore(dmc_session **out, dmc_engine *e, const char *path);

typedef struct {
    int64_t n_tokens;             /* logical length */
    int64_t n_slots;              /* physical: settled slots and recent tokens, summed over layers and heads */
    int64_t n_slots_uncompressed; /* tokens x layers x KV heads */
    size_t kv_bytes;              /* pages, accumulators and windows that this session holds, shared pages included */
    size_t kv_bytes_uncompressed; /* the same tokens, one slot each */
    size_t pool_bytes;            /* memory that the pool holds from the operating system */
    double cr;                    /* n_slots_uncompressed / n_slots */
} dmc_stats;
dmc_stats dmc_session_stats(const dmc_session *s);
/* Slots of one head, settled plus recent. */
int64_t dmc_session_head_slots(const dmc_session *s, int il, int ih);
/* Importance (the paper's omega) of the token that left the recent window of a head last: what it weighs in its slot, where slots are
 * averages; else 0. 0 too until a token has settled since the session was restored. */
float dmc_session_head_weight(const dmc_session *s, int il, int ih);

/* ---- sampling --------------------------------------------------------------------------------------------------- */

typedef struct {
    float temp;  /* 0: greedy */
    int top_k;   /* 0: off */
    float top_p; /* 1: off */
    uint64_t seed;
} dmc_sampler_options;
dmc_sampler_options dmc_sampler_options_default(void);
typedef struct dmc_sampler dmc_sampler;
dmc_status dmc_sampler_create(dmc_sampler **out, int n_vocab, const dmc_sampler_options *opts);
void dmc_sampler_close(dmc_sampler *s);
int32_t dmc_sample(dmc_sampler *s, const float *logits);

#ifdef __cplusplus
}
#endif
#endif
