/* Measuring a model through its real cache. doc/evaluation.md says what is measured and why. */
#ifndef EVAL_H
#define EVAL_H

#include "eval_windows.h"
#include "policy_options.h"

/* ---- how ---- */

typedef struct {
    policy_options policy;
    int ctx;   /* tokens of a window, or at most of a document; 0: the model's context, at most 2048 */
    int chunk; /* tokens that are read at once; with F32 slots it changes no result, but of snapkv, whose prompt it is */
    int64_t limit;          /* windows or documents; 0: all */
    int threads;            /* that judge tokens; 0: all cores */
    eval_protocol protocol; /* of perplexity and divergence */
    int stride;             /* of EVAL_SLIDING; 0: half a window */
    bool quiet, no_color;
} eval_options;
eval_options eval_options_default(void);

/* Session options and ctx from o; DMC_ERR_ARG for what the model cannot do. A retrofitted model with policy "none" takes the
 * decision "append" for every token: its decision channel stays out of attention. */
dmc_status eval_prepare(dmc_session_options *out, const dmc_engine *e, const eval_options *o);
/* "policy dmc (W 0, d 16), context 512" for protocols. */
void eval_describe(char *out, size_t size, const dmc_session_options *s);
/* The same for texts that are read a chunk at a time, which rules what snapkv takes for the prompt. */
void eval_describe_windows(char *out, size_t size, const dmc_session_options *s);
/* That, and how the windows were cut. */
void eval_protocol_text(char *out, size_t size, const eval_windows *w, const dmc_session_options *s);

/* ---- the cache at the end of each window or document, summed ---- */

typedef struct {
    int64_t n; /* windows or documents */
    int64_t tokens, slots, slots_uncompressed;
    uint64_t bytes, bytes_uncompressed;
    dmc_policy policy; /* asked for */
} eval_cache;
void eval_cache_add(eval_cache *c, const dmc_session *s);
double eval_cache_cr(const eval_cache *c); /* a ratio of sums */

/* ---- judging tokens ---- */

typedef struct {
    int n_vocab, chunk;
    float *logits; /* [chunk, n_vocab] */
    struct dmc_threads *threads;
} eval_judge;
dmc_status eval_judge_create(eval_judge *j, const dmc_engine *e, int chunk, int threads); /* 0: all cores */
void eval_judge_free(eval_judge *j);
/* n rows of logits, each against the token that followed: nll[i] in nats, hit[i] whether it was the most likely one. */
void eval_judge_rows(eval_judge *j, const float *logits, const int32_t *next, size_t n, double *nll, bool *hit);
/* Feeds the n tokens and judges each but the first: nll[i] in nats, hit[i] whether it was the most likely one. */
dmc_status eval_judge_feed(eval_judge *j, dmc_session *s, const int32_t *ids, size_t n, double *nll, bool *hit);

/* ---- perplexity ---- */

typedef struct {
    double nll;    /* nats, summed over the scored tokens */
    int64_t bytes; /* of their text */
    eval_windows windows;
    eval_cache cache;
    double seconds;
} eval_ppl_result;
/* Called with the session at the end of each window. */
typedef void eval_window_fn(const dmc_session *s, void *user);

/* stream: of eval_read_stream, for o->protocol. */
dmc_status eval_ppl(eval_ppl_result *out, dmc_engine *e, const eval_tokens *stream, const eval_options *o,
                    eval_window_fn *each, void *user);
double eval_ppl_nll(const eval_ppl_result *r); /* nats per token */
double eval_ppl_bits_per_byte(const eval_ppl_result *r);

/* ---- KL divergence ---- */

typedef struct {
    int64_t same;                  /* tokens, of windows.judged, with the same most likely one */
    double kl, median, p99, worst; /* KL(reference || model) of a token, nats */
    double nll, nll_reference;     /* nats a token */
    eval_windows windows;
    eval_cache cache;
    uint64_t reference_bytes; /* its caches, summed */
    double seconds;
} eval_kld_result;
/* e, with the cache that o asks for, against `reference`, whose cache keeps every token; stream and windows
 * as for eval_ppl. */
dmc_status eval_kld(eval_kld_result *out, dmc_engine *e, dmc_engine *reference, const eval_tokens *stream,
                    const eval_options *o);

/* ---- recall ---- */

enum {
    EVAL_DISTANCES = 9
}; /* tokens from the fact to the answer: < 16, < 32, ..., < 2048, more; in [EVAL_DISTANCES]: unknown */

typedef struct {
    int64_t documents, questions, right;
    int64_t beyond; /* questions that stand behind the context: not asked */
    int64_t answer_tokens;
    double nll; /* of the answers' tokens, summed */
    int64_t asked_at[EVAL_DISTANCES + 1], right_at[EVAL_DISTANCES + 1];
    eval_cache cache; /* at the end of the documents */
    int ctx;
    double seconds;
    int window; /* slots of the sliding window by re-reading; 0: not asked for */
    int64_t window_right;
} eval_recall_result;

enum { EVAL_WINDOW_NONE = 0, EVAL_WINDOW_AUTO = -1 };
/* Questions of `dmc story`. window: also with the last `window` tokens alone (EVAL_WINDOW_AUTO: as many as the compressed
 * cache had slots per head). */
dmc_status eval_recall(eval_recall_result *out, dmc_engine *e, const char *const *files, int n_files,
                       const eval_options *o, int window);
void eval_recall_protocol(char *out, size_t size, const eval_recall_result *r, const dmc_session_options *s);

/* Where the fact lies that a question of a text asks for: the answer's last mention before the question's line, outside other
 * questions: one with a name of the question in the same sentence, else in the one before, else any. False: not found. */
bool eval_find_fact(const char *text, size_t answer_begin, size_t answer_end, size_t *at);

#endif
