/* Lines over an axis, as SVG: readable on a light and on a dark page. */
#ifndef DMC_TOOLS_CHART_H
#define DMC_TOOLS_CHART_H

#include "base/base.h"

enum { CHART_MAX_POINTS = 64, CHART_MAX_LINES = 64 };

typedef struct {
    double x, y, deviation; /* of y; NAN: none is drawn */
} chart_point;

typedef struct {
    const char *name; /* for the legend */
    bool dashed;
    int n;
    chart_point points[CHART_MAX_POINTS];
} chart_line;

typedef struct {
    const char *title, *x_title; /* any text */
    bool shares;                 /* x lies in (0, 1], on a logarithmic scale with ticks 1, 1/2, 1/4 ... */
    int n_lines;
    chart_line lines[CHART_MAX_LINES];
} chart;

/* A new point of the chart's last line; what does not fit or is not finite is left out. */
void chart_add(chart *c, double x, double y, double deviation);
/* A new line, with the points that follow; false: no room. */
bool chart_begin(chart *c, const char *name);
/* Lines without points are left out. false: no points, and nothing was written. */
bool chart_write(dmc_writer *w, const chart *c);

#endif
