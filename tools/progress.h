/* Progress of a long operation: on a terminal one line that is rewritten in place (bar, fields, rate, time left), elsewhere
 * a plain line now and then. Goes to stderr. One thread. */
#ifndef DMC_TOOLS_PROGRESS_H
#define DMC_TOOLS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct {
    const char *title;    /* "retrofit" */
    int64_t first, total; /* items that were done before (a resumed run), items in all; total 0: not known */
    const char *unit;     /* what the rate counts: "tok"; NULL: no rate */
    double per_item;      /* units in one item: tokens of a step; 0: 1 */
    bool quiet;           /* print nothing */
    bool no_color;
    double interval;     /* seconds between lines where there is no terminal; 0: 10 */
    FILE *out;           /* NULL: stderr */
    int columns;         /* > 0: draw for a terminal of this width; < 0: plain lines; 0: see what `out` is */
    double (*now)(void); /* seconds; NULL: the monotonic clock */
} progress_options;

typedef struct {
    progress_options o;
    int64_t done;
    double start, drawn; /* seconds: of the first item, of the last line */
    double rate;         /* items per second, smoothed; 0: not known */
    int64_t drawn_done;  /* items at the last line */
    bool line_open;      /* the cursor stands on a line that will be rewritten */
    char fields[256];
} progress;

void progress_start(progress *p, const progress_options *o);
/* done counts from 0 to total, first included. The text is printed as it is: "loss 1.234  CR 2.31". Cheap to call often. */
void progress_update(progress *p, int64_t done, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* A line of its own above the progress line: warnings, milestones. */
void progress_note(progress *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Prints the last state, with the average rate of the whole run, unless a log has that line already; ends the line. */
void progress_end(progress *p);

#endif
