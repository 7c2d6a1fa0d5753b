/* The text with its slots as a picture: a panel for a head, slots in two colours in turn, tokens the darker the more they weigh. */
#include "atlas.h"

#include <string.h>

enum { COLUMNS = 96, CELL = 8, LINE = 22, LEFT = 16, TOP = 52, HEAD = 26, GAP = 14 };

typedef struct {
    dmc_writer *w; /* NULL: only count lines */
    double top;
    int line, column;
    int turn;  /* of the two colours */
    int shade; /* 0 to 9: how much the token weighs; -1: in no slot */
    bool edge; /* a slot begins with the next piece */
} pen;

static int columns_of(const char *text, size_t n)
{
    int columns = 0;
    for (size_t i = 0; i < n; i++)
        columns += ((unsigned char)text[i] & 0xc0) != 0x80; /* bytes that begin a character */
    return columns;
}

/* Text of one token that stays on one line; `columns` wide. */
static void piece(pen *p, const char *text, size_t n, int columns)
{
    char one[1024];
    const double x = LEFT + p->column * CELL, y = p->top + p->line * LINE;
    p->column += columns;
    if (!p->w || !columns) return;
    if (p->edge) p->turn++; /* not before something is drawn: two slots that stand side by side differ */
    if (p->shade >= 0)
        dmc_writef(p->w, "<rect x=\"%g\" y=\"%g\" width=\"%d\" height=\"%d\" class=\"%c\" fill-opacity=\"%.2g\"/>\n", x,
                   y - 15, columns * CELL, LINE - 3, "ab"[p->turn % 2], 0.15 + 0.07 * p->shade);
    if (p->edge) dmc_writef(p->w, "<path d=\"M%g %gv%d\" class=\"edge\"/>\n", x + 0.5, y - 15, LINE - 3);
    p->edge = false;
    snprintf(one, sizeof one, "%.*s", (int)n, text);
    dmc_writef(p->w,
               "<text x=\"%g\" y=\"%g\" textLength=\"%d\" lengthAdjust=\"spacingAndGlyphs\" xml:space=\"preserve\">", x,
               y, columns * CELL);
    picture_escape(p->w, one);
    dmc_writef(p->w, "</text>\n");
}

/* Breaks lines where the text does, in front of a token that does not fit, and inside of one that fits on no line. */
static void token(pen *p, const char *text)
{
    const int all = columns_of(text, strcspn(text, "\n"));
    if (p->column + all > COLUMNS && all <= COLUMNS) p->line++, p->column = 0;
    while (*text) {
        size_t n = 0;
        int columns = 0;
        if (*text == '\n') {
            p->line++, p->column = 0, text++;
            continue;
        }
        while (text[n] && text[n] != '\n' && p->column + columns < COLUMNS) {
            for (n++; ((unsigned char)text[n] & 0xc0) == 0x80; n++) continue;
            columns = columns_of(text, n);
        }
        piece(p, text, n, columns);
        text += n;
        if (p->column >= COLUMNS) p->line++, p->column = 0;
    }
}

/* Returns how many lines it takes. */
static int panel(dmc_writer *w, const atlas *a, int head, int64_t n_tokens, double top)
{
    const int64_t H = (int64_t)a->n_layers * a->n_heads;
    pen p = {.w = w, .top = top + HEAD + 14, .turn = 1};
    if (w)
        dmc_writef(w, "<text x=\"%d\" y=\"%g\" class=\"h\">layer %d, head %d: %.1f tokens a slot</text>\n", LEFT,
                   top + HEAD - 10, head / a->n_heads, head % a->n_heads, 1 / a->begin_share[head]);
    for (int64_t t = 0; t < n_tokens; t++) {
        const int state = a->state[t * H + head];
        if (state == ATLAS_BEGINS) p.edge = true;
        p.shade = state == ATLAS_RECENT ? -1 : a->weighs ? a->weight[t * H + head] : 5;
        token(&p, a->text[t]);
    }
    return p.line + (p.column > 0);
}

/* Tokens of the first window that make up about n_bytes and have settled in all heads. */
static int64_t tokens_of(const atlas *a, size_t n_bytes)
{
    const int64_t H = (int64_t)a->n_layers * a->n_heads;
    int64_t t = 0;
    for (size_t n = 0; t < a->window[1] && n < n_bytes; t++) {
        for (int64_t h = 0; h < H; h++)
            if (a->state[t * H + h] == ATLAS_RECENT) return t;
        n += strlen(a->text[t]);
    }
    return t;
}

dmc_status atlas_svg(const atlas *a, const int *heads, int n_heads, const char *title, const char *path)
{
    const int64_t n = tokens_of(a, 560);
    const int width = 2 * LEFT + COLUMNS * CELL;
    double height = TOP;
    dmc_writer *w;
    if (!n)
        return dmc_fail(DMC_ERR_ARG,
                        "no token has left the recent window, so no slot can be drawn: give a longer text");
    for (int i = 0; i < n_heads; i++) height += HEAD + GAP + panel(NULL, a, heads[i], n, 0) * LINE;
    DMC_TRY(dmc_writer_open(&w, path));
    dmc_writef(
        w,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%g\" viewBox=\"0 0 %d %g\">\n<style>\n"
        "text { font: 13px ui-monospace, monospace; fill: #222 }\n.t { font: 600 16px system-ui, sans-serif }\n"
        ".s, .h { font: 12px system-ui, sans-serif }\n.h { font-weight: 600 }\n.a { fill: #2a7fc0 }\n.b { fill: #e08214 }\n"
        ".edge { stroke: #222; stroke-width: 1.5 }\n"
        "@media (prefers-color-scheme: dark) { text { fill: #ddd } .edge { stroke: #ddd } }\n</style>\n",
        width, height, width, height);
    dmc_writef(w, "<text x=\"%d\" y=\"24\" class=\"t\">", LEFT);
    picture_escape(w, title);
    dmc_writef(w, "</text>\n<text x=\"%d\" y=\"42\" class=\"s\">a bar: a slot begins; %s</text>\n", LEFT,
               a->evicts   ? "of the tokens of one colour it keeps the newest"
               : a->weighs ? "tokens of one colour share it, the darker the more they weigh"
                           : "tokens of one colour share it");
    height = TOP;
    for (int i = 0; i < n_heads; i++) height += HEAD + GAP + panel(w, a, heads[i], n, height) * LINE;
    dmc_writef(w, "</svg>\n");
    return dmc_writer_commit(w);
}
