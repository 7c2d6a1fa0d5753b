/* Reading a text token by token, to see what each head makes of each token. */
#include "atlas.h"
#include "progress.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

const char *const atlas_place_names[ATLAS_PLACES] = {"sentence begins", "word begins", "inside a word", "punctuation"};

/* ---- text ---- */

static bool is_word(unsigned char c) { return isalnum(c) || c >= 0x80; }

/* before: the text that ends where the token begins. */
static atlas_place place_of(const char *before, const char *token)
{
    size_t n = strlen(before), space = strspn(token, " \t\n\r");
    if (!is_word((unsigned char)token[space])) return ATLAS_MARK;
    bool apart = space > 0 || n == 0 || isspace((unsigned char)before[n - 1]);
    bool line = memchr(token, '\n', space) || n == 0 || before[n - 1] == '\n';
    while (n > 0 && strchr(" \"')", before[n - 1])) n--;
    if (apart && (line || n == 0 || strchr(".!?\n", before[n - 1]))) return ATLAS_SENTENCE;
    return apart || !is_word((unsigned char)before[strlen(before) - 1]) ? ATLAS_WORD : ATLAS_INSIDE;
}

/* before, of `size` bytes: the last of the text so far. */
static void remember(char *before, size_t size, const char *piece)
{
    size_t have = strlen(before), n = strlen(piece), keep;
    if (n >= size) piece += n - (size - 1), n = size - 1;
    keep = size - 1 - n < have ? size - 1 - n : have;
    memmove(before, before + have - keep, keep);
    memcpy(before + keep, piece, n + 1);
}

/* Text and place of tokens [begin, end), a window. */
static dmc_status spell(atlas *a, const dmc_engine *e, int64_t begin, int64_t end)
{
    dmc_detok d = {0};
    char before[32] = "", piece[2048];
    for (int64_t t = begin; t < end; t++) {
        size_t n = 0;
        DMC_TRY(dmc_detok_push(e, &d, a->ids[t], piece, sizeof piece - 1, &n));
        a->control[t] = dmc_token_is_control(e, a->ids[t]);
        piece[a->control[t] ? 0 : n] = 0;
        a->text[t] = dmc_strdup(piece);
        if (!a->text[t]) return dmc_fail(DMC_ERR_MEMORY, "out of memory for the text");
        a->place[t] = (uint8_t)place_of(before, piece);
        remember(before, sizeof before, piece);
    }
    return DMC_OK;
}

/* ---- reading ---- */

/* A head while a window is read. */
typedef struct {
    int64_t slots;
    double tokens, weight, squares; /* of its newest settled slot */
} reading;

static void end_slot(atlas_shared *s, reading *r)
{
    if (r->tokens > 1) {
        s->slots++;
        s->tokens += r->tokens;
        s->effective += r->weight * r->weight / r->squares;
    }
    r->tokens = r->weight = r->squares = 0;
}

/* A token settled in head h. */
static void settle(atlas *a, int64_t t, int64_t h, bool begins, double weight, reading *r)
{
    int64_t i = t * a->n_layers * a->n_heads + h;
    a->state[i] = begins ? ATLAS_BEGINS : ATLAS_JOINS;
    if (!a->weighs) return;
    if (begins) end_slot(&a->shared[h], r);
    a->weight[i] = (uint8_t)fmin(10 * weight, 9);
    r->tokens++;
    r->weight += weight;
    r->squares += weight * weight;
}

/* Feeds the tokens of a window; the slots of a head grow by one unless a token joins. */
static dmc_status read_window(atlas *a, dmc_session *s, int delay, int64_t begin, int64_t end, reading *heads)
{
    int64_t H = (int64_t)a->n_layers * a->n_heads;
    memset(heads, 0, (size_t)H * sizeof *heads);
    for (int64_t t = begin; t < end; t++) {
        DMC_TRY(dmc_session_feed(s, &a->ids[t], 1, NULL, false));
        for (int64_t h = 0; h < H; h++) {
            int il = (int)(h / a->n_heads), ih = (int)(h % a->n_heads);
            int64_t now = dmc_session_head_slots(s, il, ih);
            if (t - delay >= begin) /* before its window was full, a head grew by the window alone */
                settle(a, t - delay, h, now > heads[h].slots, (double)dmc_session_head_weight(s, il, ih), &heads[h]);
            heads[h].slots = now;
        }
    }
    for (int64_t h = 0; a->weighs && h < H; h++) end_slot(&a->shared[h], &heads[h]);
    return DMC_OK;
}

static void count(atlas *a)
{
    int64_t H = (int64_t)a->n_layers * a->n_heads;
    a->n_bins = a->ctx < ATLAS_BINS ? a->ctx : ATLAS_BINS;
    for (int64_t h = 0; h < H; h++) {
        int64_t settled = 0, begins = 0;
        for (int64_t t = 0, i = 0; t < a->n; t++) {
            while (t >= a->window[i + 1]) i++;
            int bin = (int)((t - a->window[i]) * a->n_bins / a->ctx), state = a->state[t * H + h],
                begin = state == ATLAS_BEGINS;
            if (state == ATLAS_RECENT) continue;
            settled++;
            begins += begin;
            a->settled_at[a->place[t]]++;
            a->begins_at[a->place[t]] += begin;
            a->settled_in[bin]++;
            a->begins_in[bin] += begin;
        }
        a->settled += settled;
        a->begins += begins;
        a->begin_share[h] = atlas_begin_rate(begins, settled);
    }
}

static dmc_status make_room(atlas *a)
{
    size_t n = (size_t)a->n, H = (size_t)a->n_layers * (size_t)a->n_heads, all;
    if (!dmc_mul(&all, n, H)) return dmc_fail(DMC_ERR_ARG, "too many tokens for an atlas of %zu heads", H);
    DMC_TRY(dmc_array(&a->ids, n, sizeof *a->ids));
    DMC_TRY(dmc_array(&a->control, n, sizeof *a->control));
    DMC_TRY(dmc_array(&a->text, n, sizeof(char *)));
    DMC_TRY(dmc_array(&a->place, n, 1));
    DMC_TRY(dmc_array(&a->state, all, 1));
    if (a->weighs) DMC_TRY(dmc_array(&a->weight, all, 1));
    if (a->weighs) DMC_TRY(dmc_array(&a->shared, H, sizeof *a->shared));
    return dmc_array(&a->begin_share, H, sizeof *a->begin_share);
}

/* The i-th window; packed, behind the last one, what is left of the stream. n 0: no more. */
static eval_window window_at(const eval_windows *all, const eval_tokens *stream, size_t i)
{
    if (i >= all->n && all->protocol != EVAL_PACKED) return (eval_window){0};
    eval_window w = eval_window_of(all, stream, i);
    const size_t left = w.at < stream->n ? stream->n - w.at : 0;
    if (w.n > left) w.n = left;
    return w;
}

/* Windows until they have n_tokens of the stream, the last one cut off there: how many, and where each begins in the atlas. */
static dmc_status lay_out(atlas *a, const eval_windows *all, const eval_tokens *stream, int64_t n_tokens)
{
    const size_t most = all->n + 1;
    int64_t left = n_tokens;
    DMC_TRY(dmc_array(&a->window, most + 1, sizeof *a->window));
    for (size_t i = 0; i < most && left > 0; i++) {
        const eval_window w = window_at(all, stream, i);
        if (!w.n) break;
        const int64_t n = (int64_t)w.n < left ? (int64_t)w.n : left;
        left -= n;
        a->n += w.front + n;
        a->window[++a->n_windows] = a->n;
    }
    return DMC_OK;
}

dmc_status atlas_read(atlas *out, dmc_engine *e, const eval_tokens *stream, const eval_options *o, int64_t n_tokens)
{
    const dmc_info *info = dmc_engine_info(e);
    atlas a = {.n_layers = info->n_layers, .n_heads = info->n_kv_heads};
    reading *heads = NULL;
    eval_windows all;
    dmc_session_options so;
    dmc_session *s = NULL;
    progress bar = {0};
    dmc_status status;
    *out = a;
    DMC_TRY(eval_prepare(&so, e, o));
    DMC_TRY(eval_windows_cut(&all, stream, info, o->protocol, so.n_ctx, 0, 0));
    a.ctx = all.ctx;
    a.evicts = so.policy.kind == DMC_POLICY_DMS;
    a.weighs = so.policy.window == 0 && (so.policy.kind == DMC_POLICY_DMC || so.policy.kind == DMC_POLICY_FMP);
    DMC_GOTO(lay_out(&a, &all, stream, n_tokens));
    progress_start(&bar, &(progress_options){.title = "spans",
                                             .total = a.n_windows,
                                             .unit = "tok",
                                             .per_item = (double)a.n / a.n_windows,
                                             .quiet = o->quiet,
                                             .no_color = o->no_color});
    DMC_GOTO(make_room(&a));
    DMC_GOTO(dmc_array(&heads, (size_t)a.n_layers * (size_t)a.n_heads, sizeof *heads));
    for (int i = 0; i < a.n_windows; i++) {
        const int64_t begin = a.window[i], end = a.window[i + 1];
        eval_window w = window_at(&all, stream, (size_t)i);
        w.n = (size_t)(end - begin) - w.front;
        eval_window_ids(&all, &w, stream, a.ids + begin);
        DMC_GOTO(spell(&a, e, begin, end));
        DMC_GOTO(dmc_session_create(&s, e, &so));
        DMC_GOTO(read_window(&a, s, so.policy.delay, begin, end, heads));
        dmc_session_close(s);
        s = NULL;
        progress_update(&bar, i + 1, "%lld tokens", (long long)end);
    }
    count(&a);
done:
    progress_end(&bar);
    dmc_session_close(s);
    dmc_free(heads);
    if (status == DMC_OK) *out = a;
    else atlas_free(&a);
    return status;
}

void atlas_free(atlas *a)
{
    for (int64_t t = 0; a->text && t < a->n; t++) dmc_free(a->text[t]);
    dmc_free(a->window);
    dmc_free(a->ids);
    dmc_free(a->control);
    dmc_free(a->text);
    dmc_free(a->place);
    dmc_free(a->state);
    dmc_free(a->begin_share);
    dmc_free(a->weight);
    dmc_free(a->shared);
    *a = (atlas){0};
}

/* ---- looking ---- */

double atlas_begin_rate(int64_t begins, int64_t settled) { return settled ? (double)begins / (double)settled : 0; }

atlas_shared atlas_shared_of(const atlas *a, int from, int to)
{
    atlas_shared all = {0};
    for (int h = from; a->weighs && h < to; h++) {
        all.slots += a->shared[h].slots;
        all.tokens += a->shared[h].tokens;
        all.effective += a->shared[h].effective;
    }
    return all;
}

int atlas_typical_head(const atlas *a, int from, int to)
{
    int best = from;
    double all = 0;
    for (int h = from; h < to; h++) all += a->begin_share[h] / (to - from); /* heads settle equally many tokens */
    for (int h = from + 1; h < to; h++)
        if (fabs(a->begin_share[h] - all) < fabs(a->begin_share[best] - all)) best = h;
    return best;
}

void atlas_terminal(const atlas *a, int head, size_t n_bytes, FILE *out, bool color)
{
    static const char *const backgrounds[] = {"\033[48;5;24;38;5;231m", "\033[48;5;58;38;5;231m"};
    int64_t H = (int64_t)a->n_layers * a->n_heads;
    bool open = false;
    int turn = 0;
    for (int64_t t = 0; t < a->window[1]; t++) {
        int state = a->state[t * H + head];
        if (state != ATLAS_JOINS) { /* ends what was open */
            if (n_bytes == 0) break;
            if (open) fputs(color ? "\033[0m" : "]", out);
            open = state == ATLAS_BEGINS;
            if (open) fputs(color ? backgrounds[turn++ % 2] : "[", out);
        }
        for (const char *p = a->text[t]; *p; p++) {
            if (*p == '\n') fputs("⏎", out);
            else fputc((unsigned char)*p < ' ' || *p == 0x7f ? ' ' : *p, out); /* what a terminal would obey */
        }
        size_t n = strlen(a->text[t]);
        n_bytes = n < n_bytes ? n_bytes - n : 0;
    }
    if (open) fputs(color ? "\033[0m" : "]", out);
    fputc('\n', out);
}
