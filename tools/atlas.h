/* The atlas: what every head does with every token of a text. Which tokens share a slot, where along a context and at which places of
 * the text slots begin. */
#ifndef ATLAS_H
#define ATLAS_H

#include "eval.h"
#include "inspect_picture.h"

/* What became of a token in a head. */
typedef enum {
    ATLAS_RECENT, /* still in the recent window when its reading ended */
    ATLAS_BEGINS, /* began a slot */
    ATLAS_JOINS   /* joined the slot of the token before: merged into it, or took its place */
} atlas_state;

/* Where in the text a token stands. */
typedef enum {
    ATLAS_SENTENCE, /* begins a sentence: behind . ! ? or a line end */
    ATLAS_WORD,     /* begins another word */
    ATLAS_INSIDE,   /* goes on with a word */
    ATLAS_MARK,     /* punctuation, or not text at all */
    ATLAS_PLACES
} atlas_place;
extern const char *const atlas_place_names[ATLAS_PLACES];

enum { ATLAS_BINS = 24 }; /* of positions in a window */

/* The slots of a head that hold two tokens and more, summed over them. */
typedef struct {
    double slots, tokens;
    double effective; /* tokens of equal weight that each is like: (sum of weights)^2 / sum of squared weights */
} atlas_shared;

typedef struct {
    int n_layers, n_heads, ctx, n_windows;
    int64_t n;            /* tokens, window after window of at most ctx */
    int64_t *window;      /* [n_windows + 1] where each begins; n */
    int32_t *ids;         /* [n] */
    bool *control;        /* [n] begin or end of text and the like: adds no text */
    char **text;          /* [n] what each adds to the text, UTF-8 */
    uint8_t *place;       /* [n] atlas_place */
    uint8_t *state;       /* [n][n_layers * n_heads] atlas_state */
    bool evicts;          /* a token that joins takes the slot's place: nothing is shared */
    bool weighs;          /* slots are averages of whole runs, and what follows is known */
    uint8_t *weight;      /* [n][n_layers * n_heads] importance of a settled token in tenths, at most 9 */
    atlas_shared *shared; /* [n_layers * n_heads] */
    /* settled tokens and those of them that begin a slot, over all heads */
    int64_t settled, begins;
    int64_t settled_at[ATLAS_PLACES], begins_at[ATLAS_PLACES];
    int n_bins;
    int64_t settled_in[ATLAS_BINS], begins_in[ATLAS_BINS]; /* by position in the window */
    double *begin_share;                                   /* [n_layers * n_heads] of its settled tokens */
} atlas;

/* Reads at most n_tokens of the stream one by one, in windows or documents as eval_windows cuts them (EVAL_PACKED or EVAL_SEPARATE; what is left
 * behind the last packed window is one more), and looks at the heads after each. */
dmc_status atlas_read(atlas *out, dmc_engine *e, const eval_tokens *stream, const eval_options *o, int64_t n_tokens);
void atlas_free(atlas *a);

/* The share of tokens that begin a slot. */
double atlas_begin_rate(int64_t begins, int64_t settled);
/* The shared slots of heads [from, to) together. */
atlas_shared atlas_shared_of(const atlas *a, int from, int to);
/* Slots that begin where a regular expression matches: at the token that holds the first byte of a match, or of its first group. */
typedef struct {
    int64_t tokens;            /* that have settled, each looked at in every head */
    int64_t *settled, *begins; /* [n_layers] over the layer's heads */
} atlas_at_result;
/* pattern: an extended regular expression of POSIX; lines end at line ends and at begins and ends of text. DMC_ERR_ARG: it is none. The caller
 * frees out with atlas_at_free. */
dmc_status atlas_at(atlas_at_result *out, const atlas *a, const char *pattern);
dmc_status atlas_at_check(const char *pattern);
void atlas_at_free(atlas_at_result *r);
/* Of layers [from, to): the share of these tokens that begin a slot, and that against the share of all tokens; NAN: nothing has settled. */
double atlas_at_rate(const atlas_at_result *r, int from, int to);
double atlas_at_against(const atlas_at_result *r, const atlas *a, int from, int to);

/* Of heads [from, to), the one whose share of slots is nearest to that of all of them. */
int atlas_typical_head(const atlas *a, int from, int to);
/* The first tokens of the text, in about n_bytes, with the slots of one head: [in brackets], or coloured in turn. */
void atlas_terminal(const atlas *a, int head, size_t n_bytes, FILE *out, bool color);
/* The beginning of the text with the slots of these heads, one below the other, as SVG. Atomic; DMC_ERR_ARG where nothing has settled. */
dmc_status atlas_svg(const atlas *a, const int *heads, int n_heads, const char *title, const char *path);
/* A page for a browser, with everything in it: maps of the heads, curve, and the text with the slots of any head. Atomic. */
dmc_status atlas_page(const atlas *a, const picture *maps, const char *path);

#endif
