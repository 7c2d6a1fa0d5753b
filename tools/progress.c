#include "progress.h"

#include "base/base.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { LINE = 512, LONGEST_BAR = 28 };
static const double REDRAW = 0.1;  /* seconds between two drawings on a terminal */
static const double MEMORY = 10.0; /* seconds over which the rate is smoothed */

/* Width of the terminal, 0 if there is none. */
static int terminal_columns(const progress *p)
{
    struct winsize w;
    if (p->o.columns) return p->o.columns > 0 ? p->o.columns : 0;
    if (!isatty(fileno(p->o.out))) return 0;
    return ioctl(fileno(p->o.out), TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80;
}

void progress_start(progress *p, const progress_options *o)
{
    *p = (progress){.o = *o, .done = o->first, .drawn_done = o->first};
    if (!p->o.out) p->o.out = stderr;
    if (!p->o.now) p->o.now = dmc_now;
    if (!(p->o.per_item > 0)) p->o.per_item = 1;
    if (!(p->o.interval > 0)) p->o.interval = 10;
    p->start = p->drawn = p->o.now();
}

/* ---- words ------------------------------------------------------------------------------------------------------- */

/* 0:52, 12:03, 1:02:03 */
static void duration_text(double seconds, char *out, size_t size)
{
    long long s = seconds > 0 && seconds < 1e9 ? (long long)(seconds + 0.5) : 0;
    if (s >= 3600) snprintf(out, size, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    else snprintf(out, size, "%lld:%02lld", s / 60, s % 60);
}

static void rate_text(double rate, const char *unit, char *out, size_t size)
{
    if (rate >= 1e6) snprintf(out, size, "%.1fM %s/s", rate / 1e6, unit);
    else if (rate >= 1e4) snprintf(out, size, "%.1fk %s/s", rate / 1e3, unit);
    else snprintf(out, size, rate < 10 ? "%.1f %s/s" : "%.0f %s/s", rate, unit);
}

/* Columns that a UTF-8 text takes. */
static int columns_of(const char *s)
{
    int n = 0;
    for (; *s; s++) n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

/* Cuts a UTF-8 text to at most n columns. */
static void cut(char *s, int n)
{
    for (; *s; s++)
        if (((unsigned char)*s & 0xc0) != 0x80 && n-- == 0) {
            *s = 0;
            return;
        }
}

static void add(char *line, const char *word)
{
    size_t n = strlen(line);
    if (*word) snprintf(line + n, LINE - n, n ? "  %s" : "%s", word);
}

/* "450/1000", the caller's fields, rate, time passed and time left. */
static void state_text(const progress *p, double now, char line[LINE])
{
    char word[80], time[32];
    line[0] = 0;
    if (p->o.total > 0) snprintf(word, sizeof word, "%lld/%lld", (long long)p->done, (long long)p->o.total);
    else snprintf(word, sizeof word, "%lld", (long long)p->done);
    add(line, word);
    add(line, p->fields);
    if (p->o.unit && p->rate > 0) {
        rate_text(p->rate * p->o.per_item, p->o.unit, word, sizeof word);
        add(line, word);
    }
    duration_text(now - p->start, time, sizeof time);
    add(line, time);
    if (p->o.total > p->done && p->rate > 0) {
        duration_text((double)(p->o.total - p->done) / p->rate, time, sizeof time);
        snprintf(word, sizeof word, "%s left", time);
        add(line, word);
    }
}

static double fraction(const progress *p)
{
    double f = p->o.total > 0 ? (double)p->done / (double)p->o.total : 0;
    return f < 0 ? 0 : f > 1 ? 1 : f;
}

/* ---- drawing ----------------------------------------------------------------------------------------------------- */

static void draw_bar(const progress *p, int width)
{
    int full = (int)(fraction(p) * width);
    const char *on = p->o.no_color ? "" : "\033[32m", *dim = p->o.no_color ? "" : "\033[2m";
    const char *off = p->o.no_color ? "" : "\033[0m";
    fprintf(p->o.out, "  %s", on);
    for (int i = 0; i < full; i++) fputs("━", p->o.out);
    fprintf(p->o.out, "%s%s", off, dim);
    for (int i = full; i < width; i++) fputs("╌", p->o.out);
    fputs(off, p->o.out);
}

static void draw(progress *p, double now)
{
    char head[128], state[LINE];
    int columns = terminal_columns(p);
    state_text(p, now, state);
    if (p->o.total > 0) snprintf(head, sizeof head, "%s %3.0f%%", p->o.title, floor(100 * fraction(p)));
    else snprintf(head, sizeof head, "%s", p->o.title);

    if (columns == 0) {
        fprintf(p->o.out, "%s  %s\n", head, state);
    } else { /* the last column stays free: writing there wraps on some terminals */
        int room = columns - 1 - columns_of(head) - columns_of(state) - 4;
        if (room < 0) cut(state, columns_of(state) + room + 2 > 0 ? columns_of(state) + room + 2 : 0);
        cut(head, columns - 1);
        fprintf(p->o.out, "\r%s", head);
        if (p->o.total > 0 && room >= 6) draw_bar(p, room < LONGEST_BAR ? room : LONGEST_BAR);
        if (*state) fprintf(p->o.out, "  %s", state);
        fputs("\033[K", p->o.out);
        p->line_open = true;
    }
    fflush(p->o.out);
    p->drawn = now;
    p->drawn_done = p->done;
}

static void measure(progress *p, double now)
{
    double dt = now - p->drawn, items = (double)(p->done - p->drawn_done);
    if (dt <= 0 || items < 0) return;
    double weight = p->rate > 0 ? 1 - exp(-dt / MEMORY) : 1;
    p->rate += weight * (items / dt - p->rate);
}

void progress_update(progress *p, int64_t done, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(p->fields, sizeof p->fields, fmt, args);
    va_end(args);
    p->done = done;
    if (p->o.quiet) return;
    double now = p->o.now();
    if (now - p->drawn < (terminal_columns(p) ? REDRAW : p->o.interval)) return;
    measure(p, now);
    draw(p, now);
}

void progress_note(progress *p, const char *fmt, ...)
{
    va_list args;
    if (p->o.quiet) return;
    if (p->line_open) fputs("\r\033[K", p->o.out);
    va_start(args, fmt);
    vfprintf(p->o.out, fmt, args);
    va_end(args);
    fputc('\n', p->o.out);
    if (p->line_open) draw(p, p->o.now());
    fflush(p->o.out);
}

void progress_end(progress *p)
{
    if (p->o.quiet) return;
    double now = p->o.now(), passed = now - p->start;
    if (passed > 0) p->rate = (double)(p->done - p->o.first) / passed; /* the whole run's average */
    if (terminal_columns(p) || p->drawn_done != p->done) draw(p, now); /* a log has this line already */
    if (p->line_open) fputc('\n', p->o.out);
    p->line_open = false;
    fflush(p->o.out);
}
