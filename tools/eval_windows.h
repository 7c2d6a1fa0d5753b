/* Windows of a text: which tokens are read together, each time through a fresh cache, and which of them are judged. */
#ifndef EVAL_WINDOWS_H
#define EVAL_WINDOWS_H

#include "eval_text.h"

typedef enum {
    EVAL_PACKED, /* as training sees it: documents with begin and end of text in one stream, every token but a window's first judged */
    EVAL_SEPARATE, /* as training on separate documents sees it: each alone, cut off at the context */
    EVAL_HALVES,   /* llama.cpp's: one text, windows that do not overlap, the second half of each judged */
    EVAL_SLIDING /* Hugging Face's: one text, overlapping windows, each token judged once, where it has most before it */
} eval_protocol;

typedef struct {
    eval_protocol protocol;
    size_t n, all;    /* that are read, and that the text gives: more where there is a limit */
    int ctx;          /* tokens of a window, BOS included; EVAL_SEPARATE: at most */
    int stride;       /* of EVAL_SLIDING */
    int bos;          /* put in front of each, or in place of its first; -1: none */
    int64_t tokens;   /* that the n windows read */
    int64_t judged;   /* of them */
    int64_t left_out; /* tokens that no window reads, `limit` aside */
} eval_windows;

typedef struct {
    size_t at, n;       /* of the stream */
    bool front, inside; /* BOS in front of these, or in place of the first */
    size_t
        from; /* the first that is judged, counted in the window with its BOS; none: not less than eval_window_tokens() */
} eval_window;

/* The stream that a protocol cuts: of eval_read_files or eval_read_texts. The caller frees it with eval_tokens_free. */
dmc_status eval_read_stream(eval_tokens *out, const dmc_engine *e, const char *const *files, int n_files,
                            eval_protocol protocol);

/* Windows of at most ctx tokens; stride 0: half a window; limit 0: all. DMC_ERR_ARG where nothing can be judged. */
dmc_status eval_windows_cut(eval_windows *out, const eval_tokens *stream, const dmc_info *info, eval_protocol protocol,
                            int ctx, int stride, int64_t limit);
eval_window eval_window_of(const eval_windows *w, const eval_tokens *stream, size_t i);
/* Tokens of the window, BOS included; ids [ctx] receives them. */
size_t eval_window_tokens(const eval_window *w);
void eval_window_ids(const eval_windows *windows, const eval_window *w, const eval_tokens *stream, int32_t *ids);

/* "documents one after the other ..., cut into 12 windows of 512 tokens ..." */
void eval_windows_describe(const eval_windows *w, char *out, size_t size);

#endif
