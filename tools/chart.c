#include "chart.h"
#include "inspect_picture.h"

#include <math.h>
#include <stdlib.h>

enum { LEFT = 64, TOP = 46, WIDTH = 520, HEIGHT = 320, LEGEND = 230, LEGEND_LINE = 18, TICKS = 4 };

static const char *const colors[] = {"#2a7fc0", "#c05621", "#2f855a", "#805ad5", "#b83280", "#718096",
                                     "#b7791f", "#00838f", "#9b2c2c", "#4a5568", "#d69e2e", "#22c1a0"};
enum { N_COLORS = sizeof colors / sizeof *colors };

typedef struct {
    double low, high;
} range;

/* ---- collecting ---- */

bool chart_begin(chart *c, const char *name)
{
    if (c->n_lines == CHART_MAX_LINES) return false;
    c->lines[c->n_lines++] = (chart_line){.name = name};
    return true;
}

void chart_add(chart *c, double x, double y, double deviation)
{
    if (c->n_lines == 0) return;
    chart_line *l = &c->lines[c->n_lines - 1];
    if (l->n == CHART_MAX_POINTS || !isfinite(x) || !isfinite(y) || (c->shares && !(x > 0))) return;
    l->points[l->n++] = (chart_point){x, y, deviation};
}

/* ---- drawing ---- */

static double scaled(const chart *c, double x) { return c->shares ? log2(x) : x; }

static void widen(range *r, double v)
{
    if (v < r->low) r->low = v;
    if (v > r->high) r->high = v;
}

static void add_margin(range *r, double share)
{
    double margin = (r->high - r->low) * share;
    if (!(margin > 0)) margin = fabs(r->high) * 0.05 + 1e-9;
    r->low -= margin, r->high += margin;
}

static int ranges(const chart *c, range *x, range *y)
{
    int n = 0;
    *x = *y = (range){INFINITY, -INFINITY};
    for (int i = 0; i < c->n_lines; i++)
        for (int k = 0; k < c->lines[i].n; k++, n++) {
            const chart_point *p = &c->lines[i].points[k];
            double spread = isfinite(p->deviation) ? p->deviation : 0;
            widen(x, scaled(c, p->x));
            widen(y, p->y - spread);
            widen(y, p->y + spread);
        }
    add_margin(x, 0.05), add_margin(y, 0.05);
    return n;
}

static double place_x(const range *x, double v) { return LEFT + WIDTH * (v - x->low) / (x->high - x->low); }
static double place_y(const range *y, double v) { return TOP + HEIGHT * (1 - (v - y->low) / (y->high - y->low)); }

static void text_at(dmc_writer *w, double x, double y, const char *anchor, const char *text)
{
    dmc_writef(w, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    picture_escape(w, text);
    dmc_writef(w, "</text>\n");
}

static void number_at(dmc_writer *w, double x, double y, const char *anchor, const char *format, double number)
{
    char text[32];
    snprintf(text, sizeof text, format, number);
    text_at(w, x, y, anchor, text);
}

/* 1, 2 or 5 times a power of ten, so that a range has about as many steps as TICKS. Adding 0.0 below makes -0 a 0. */
static double tick_step(const range *r)
{
    const double rough = (r->high - r->low) / TICKS, power = pow(10, floor(log10(rough)));
    return power * (rough < 1.5 * power ? 1 : rough < 3.5 * power ? 2 : rough < 7.5 * power ? 5 : 10);
}

static void axes(dmc_writer *w, const chart *c, const range *x, const range *y)
{
    const double up = tick_step(y), along = tick_step(x);
    for (double i = ceil(y->low / up); i * up <= y->high; i++) {
        number_at(w, LEFT - 6, place_y(y, i * up) + 4, "end", "%.5g", i * up + 0.0);
        dmc_writef(w, "<path d=\"M%d %.1fh%d\" stroke=\"#8884\"/>\n", LEFT, place_y(y, i * up), WIDTH);
    }
    for (double i = ceil(x->low / along); !c->shares && i * along <= x->high; i++)
        number_at(w, place_x(x, i * along), TOP + HEIGHT + 18, "middle", "%.5g", i * along + 0.0);
    for (int e = (int)ceil(x->low); c->shares && e <= (int)floor(x->high); e++)
        number_at(w, place_x(x, e), TOP + HEIGHT + 18, "middle", e < 0 ? "1/%g" : "%g", exp2(abs(e)));
    text_at(w, LEFT + WIDTH / 2.0, TOP + HEIGHT + 36, "middle", c->x_title);
}

static const char *dash(const chart_line *l) { return l->dashed ? " stroke-dasharray=\"5 4\"" : ""; }

static void draw_line(dmc_writer *w, const chart *c, const chart_line *l, const char *color, const range *x,
                      const range *y)
{
    dmc_writef(w, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"1.8\"%s d=\"", color, dash(l));
    for (int i = 0; i < l->n; i++)
        dmc_writef(w, "%c%.1f %.1f", i ? 'L' : 'M', place_x(x, scaled(c, l->points[i].x)), place_y(y, l->points[i].y));
    dmc_writef(w, "\"/>\n");
    for (int i = 0; i < l->n; i++) {
        const chart_point *p = &l->points[i];
        double px = place_x(x, scaled(c, p->x));
        if (isfinite(p->deviation))
            dmc_writef(w, "<path stroke=\"%s\" d=\"M%.1f %.1fV%.1f\"/>\n", color, px, place_y(y, p->y - p->deviation),
                       place_y(y, p->y + p->deviation));
        dmc_writef(w, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" fill=\"%s\"/>\n", px, place_y(y, p->y), color);
    }
}

bool chart_write(dmc_writer *w, const chart *c)
{
    range x, y;
    int drawn = 0, height = TOP + HEIGHT + 50;
    if (ranges(c, &x, &y) == 0) return false;
    for (int i = 0; i < c->n_lines; i++) drawn += c->lines[i].n > 0;
    if (TOP + 20 + LEGEND_LINE * drawn > height) height = TOP + 20 + LEGEND_LINE * drawn;
    dmc_writef(
        w,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" "
        "font-size=\"12\" fill=\"#777\">\n",
        LEFT + WIDTH + LEGEND, height, LEFT + WIDTH + LEGEND, height);
    text_at(w, LEFT, 24, "start", c->title);
    axes(w, c, &x, &y);
    drawn = 0;
    for (int i = 0; i < c->n_lines; i++) {
        const chart_line *l = &c->lines[i];
        const char *color = colors[i % N_COLORS];
        const int at = TOP + 10 + LEGEND_LINE * drawn;
        if (!l->n) continue;
        draw_line(w, c, l, color, &x, &y);
        dmc_writef(w, "<path stroke=\"%s\" stroke-width=\"1.8\"%s d=\"M%d %dh24\"/>\n", color, dash(l),
                   LEFT + WIDTH + 8, at);
        dmc_writef(w, "<circle cx=\"%d\" cy=\"%d\" r=\"3.5\" fill=\"%s\"/>\n", LEFT + WIDTH + 20, at, color);
        text_at(w, LEFT + WIDTH + 38, at + 4, "start", l->name);
        drawn++;
    }
    dmc_writef(w, "</svg>\n");
    return true;
}
