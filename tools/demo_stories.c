/* Two models side by side: their text as it comes, and how many cache slots it takes. */
#define _GNU_SOURCE
#include "demo.h"

#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { TEXT_LINES = 12, PIECE = 512 };

/* One model that tells its story. */
typedef struct {
    dmc_engine *e;
    const char *name;
    dmc_session *s;
    dmc_sampler *sampler;
    dmc_detok detok;
    float *logits;
    char *text; /* [capacity], n used */
    size_t n, capacity;
    int told, most; /* tokens generated; at most */
    bool ended;
} teller;

/* ---- telling ----------------------------------------------------------------------------------------------------- */

static dmc_status add_text(teller *t, const char *bytes, size_t n)
{
    if (t->n + n > t->capacity) {
        size_t capacity = 2 * (t->n + n) + 1024;
        char *bigger = dmc_realloc(t->text, capacity, 1);
        if (!bigger) return dmc_fail(DMC_ERR_MEMORY, "out of memory for the text");
        t->text = bigger;
        t->capacity = capacity;
    }
    for (size_t i = 0; i < n; i++) /* nothing that moves the cursor */
        t->text[t->n++] = (unsigned char)bytes[i] < ' ' && bytes[i] != '\n' ? ' ' : bytes[i];
    return DMC_OK;
}

static dmc_status read_prompt(teller *t, const char *prompt)
{
    size_t n, n_ids, room = strlen(prompt) + 16;
    char piece[PIECE];
    int32_t *ids;
    dmc_status status;
    DMC_TRY(dmc_array(&ids, room, sizeof *ids));
    DMC_GOTO(dmc_encode(t->e, prompt, strlen(prompt), true, false, ids, room, &n_ids));
    for (size_t i = 0; i < n_ids; i++) {
        DMC_GOTO(dmc_detok_push(t->e, &t->detok, ids[i], piece, sizeof piece, &n));
        DMC_GOTO(add_text(t, piece, n));
    }
    DMC_GOTO(dmc_session_feed(t->s, ids, n_ids, t->logits, false));
done:
    dmc_free(ids);
    return status;
}

static dmc_status start(teller *t, dmc_engine *e, const char *name, const demo_options *o)
{
    int n_vocab = dmc_engine_info(e)->n_vocab;
    *t = (teller){.e = e, .name = name, .most = o->n_tokens};
    DMC_TRY(dmc_session_create(&t->s, e, NULL));
    DMC_TRY(dmc_sampler_create(&t->sampler, n_vocab, &o->sampler));
    DMC_TRY(dmc_array(&t->logits, (size_t)n_vocab, sizeof *t->logits));
    return read_prompt(t, o->prompt);
}

static void stop(teller *t)
{
    dmc_session_close(t->s);
    dmc_sampler_close(t->sampler);
    dmc_free(t->logits);
    dmc_free(t->text);
}

static dmc_status tell(teller *t)
{
    char piece[PIECE];
    size_t n;
    int32_t id = dmc_sample(t->sampler, t->logits);
    if (t->ended || dmc_token_is_end(t->e, id)) {
        t->ended = true;
        return DMC_OK;
    }
    DMC_TRY(dmc_detok_push(t->e, &t->detok, id, piece, sizeof piece, &n));
    DMC_TRY(add_text(t, piece, n));
    dmc_status status = dmc_session_feed(t->s, &id, 1, t->logits, false);
    t->ended = ++t->told == t->most || status == DMC_ERR_CONTEXT;
    return status == DMC_ERR_CONTEXT ? DMC_OK : status;
}

/* ---- drawing ----------------------------------------------------------------------------------------------------- */

typedef struct {
    size_t begin, end;
} line;

static int columns_of(const char *text, size_t n)
{
    int columns = 0;
    for (size_t i = 0; i < n; i++) columns += ((unsigned char)text[i] & 0xc0) != 0x80;
    return columns;
}

/* Wraps the text at spaces; the last TEXT_LINES lines go to lines[line number % TEXT_LINES]. Returns how many there are. */
static int wrap(const teller *t, int width, line lines[TEXT_LINES])
{
    int n = 0;
    size_t at = 0;
    while (at < t->n) {
        size_t begin = at, end = at, space = 0;
        while (end < t->n && t->text[end] != '\n' && columns_of(t->text + begin, end - begin) < width) {
            if (t->text[end] == ' ') space = end;
            end++;
            while (end < t->n && ((unsigned char)t->text[end] & 0xc0) == 0x80) end++;
        }
        bool full = end < t->n && t->text[end] != '\n' && t->text[end] != ' ';
        if (full && space > begin) end = space;
        lines[n++ % TEXT_LINES] = (line){begin, end};
        at = end + (end < t->n && (t->text[end] == '\n' || t->text[end] == ' '));
    }
    return n;
}

static void pad(int columns, int width) { printf("%*s", width > columns ? width - columns : 0, ""); }

/* Slots as a bar, on the scale of tokens that a full cache would hold. */
static void meter(const teller *t, int width, int64_t full, bool color)
{
    dmc_stats st = dmc_session_stats(t->s);
    double per_head = (double)st.n_slots * (double)st.n_tokens / (double)st.n_slots_uncompressed;
    int bar = (int)(per_head / (double)full * width + .5),
        tokens = (int)((double)st.n_tokens / (double)full * width + .5);
    if (color) printf("\033[32m");
    for (int i = 0; i < width; i++) {
        if (i == bar && color) printf("\033[0m\033[2m");
        fputs(i < bar ? "█" : i < tokens ? "░" : " ", stdout);
    }
    if (color) printf("\033[0m");
}

static int numbers(const teller *t, char *out, size_t size)
{
    dmc_stats st = dmc_session_stats(t->s);
    return snprintf(out, size, "%lld tokens, %.0f slots a head, CR %.2f", (long long)st.n_tokens,
                    (double)st.n_slots * (double)st.n_tokens / (double)st.n_slots_uncompressed, st.cr);
}

enum { VIEW_LINES = TEXT_LINES + 5 };

static void draw_view(const teller tellers[DEMO_STORIES], int width, int64_t full, bool color, bool again)
{
    line lines[DEMO_STORIES][TEXT_LINES];
    int n[DEMO_STORIES], column = (width - 4) / DEMO_STORIES;
    for (int i = 0; i < DEMO_STORIES; i++) n[i] = wrap(&tellers[i], column, lines[i]);
    if (again) printf("\033[%dA", VIEW_LINES);
    for (int row = 0; row < VIEW_LINES; row++) {
        printf("\r");
        for (int i = 0; i < DEMO_STORIES; i++) {
            const teller *t = &tellers[i];
            int first = n[i] > TEXT_LINES ? n[i] - TEXT_LINES : 0, l = first + row - 2;
            if (i) printf("  │ ");
            if (row == 0) {
                printf(color ? "\033[1m%s\033[0m" : "%s", t->name);
                pad(columns_of(t->name, strlen(t->name)), column);
            } else if (row >= 2 && row < TEXT_LINES + 2 && l < n[i]) {
                line w = lines[i][l % TEXT_LINES];
                printf("%.*s", (int)(w.end - w.begin), t->text + w.begin);
                pad(columns_of(t->text + w.begin, w.end - w.begin), column);
            } else if (row == TEXT_LINES + 3) {
                meter(t, column, full, color);
            } else if (row == TEXT_LINES + 4) {
                char text[128];
                int used = numbers(t, text, sizeof text);
                printf("%.*s", column, text);
                pad(used, column);
            } else pad(0, column);
        }
        printf("\033[K\n");
    }
    fflush(stdout);
}

static void print_plain(const teller *t)
{
    char text[128];
    dmc_stats st = dmc_session_stats(t->s);
    numbers(t, text, sizeof text);
    printf("%s: %.*s\n", t->name, (int)t->n, t->text);
    printf("%s: %s, %.1f KiB of cache\n\n", t->name, text, (double)st.kv_bytes / 1024);
}

static void wait_until(double when)
{
    double left = when - dmc_now();
    if (left <= 0) return;
    nanosleep(&(struct timespec){(time_t)left, (long)((left - (double)(time_t)left) * 1e9)}, NULL);
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

/* Columns to draw on; 0: stdout is no terminal, or one too small. */
static int view_width(void)
{
    struct winsize w;
    if (!isatty(STDOUT_FILENO) || ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) != 0 || w.ws_col < 60 || w.ws_row <= VIEW_LINES)
        return 0;
    return w.ws_col < 140 ? w.ws_col : 140;
}

dmc_status demo_stories(dmc_engine *const engines[DEMO_STORIES], const char *const names[DEMO_STORIES],
                        const demo_options *o)
{
    teller tellers[DEMO_STORIES] = {0};
    dmc_status status = DMC_OK;
    const int width = view_width();
    int64_t full = 0;
    double begin = dmc_now(), drawn = 0;
    for (int i = 0; i < DEMO_STORIES; i++) {
        DMC_GOTO(start(&tellers[i], engines[i], names[i], o));
        int64_t most = dmc_session_stats(tellers[i].s).n_tokens + o->n_tokens;
        full = most > full ? most : full;
    }
    if (width) draw_view(tellers, width, full, !o->no_color, false);
    for (int step = 1, open = DEMO_STORIES; open > 0; step++) {
        open = 0;
        for (int i = 0; i < DEMO_STORIES; i++) {
            if (!tellers[i].ended) DMC_GOTO(tell(&tellers[i]));
            open += !tellers[i].ended;
        }
        if (!width) continue;
        if (open == 0 || dmc_now() - drawn > 0.03) {
            draw_view(tellers, width, full, !o->no_color, true);
            drawn = dmc_now();
        }
        if (o->speed > 0) wait_until(begin + step / o->speed);
    }
    for (int i = 0; i < DEMO_STORIES && !width; i++) print_plain(&tellers[i]);
done:
    for (int i = 0; i < DEMO_STORIES; i++) stop(&tellers[i]);
    return status;
}
