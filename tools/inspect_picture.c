#include "inspect_picture.h"

#include <math.h>
#include <string.h>

/* ---- colours ----------------------------------------------------------------------------------------------------- */

typedef struct {
    double r, g, b; /* 0..1 */
} rgb;

/* From dark blue over green to yellow, ever lighter, so that it also reads without colour vision. */
static const rgb ramp[] = {{.267, .004, .329}, {.254, .265, .530}, {.164, .471, .558},
                           {.134, .659, .518}, {.478, .821, .318}, {.993, .906, .144}};
enum { N_RAMP = sizeof ramp / sizeof *ramp };

static double fraction(const picture_map *m, double value)
{
    double f = m->logarithmic ? log(value / m->low) / log(m->high / m->low) : (value - m->low) / (m->high - m->low);
    return f > 0 ? f < 1 ? f : 1 : 0;
}

static rgb color_of(double f)
{
    double at = f * (N_RAMP - 1);
    int i = at < N_RAMP - 2 ? (int)at : N_RAMP - 2;
    double t = at - i;
    return (rgb){ramp[i].r + t * (ramp[i + 1].r - ramp[i].r), ramp[i].g + t * (ramp[i + 1].g - ramp[i].g),
                 ramp[i].b + t * (ramp[i + 1].b - ramp[i].b)};
}

static bool is_light(rgb c) { return 0.3 * c.r + 0.59 * c.g + 0.11 * c.b > 0.5; }

/* ---- terminal ---------------------------------------------------------------------------------------------------- */

enum { LABEL = 9, CELL = 8 }; /* columns */

/* Index into the 6 x 6 x 6 cube that every colour terminal has. */
static int cube(rgb c) { return 16 + 36 * (int)(c.r * 5 + .5) + 6 * (int)(c.g * 5 + .5) + (int)(c.b * 5 + .5); }

static void terminal_cell(const picture_map *m, double value, FILE *out, bool wide, bool color)
{
    static const char *const shades[] = {"░", "▒", "▓", "█"};
    char text[16] = "";
    double f = fraction(m, value);
    rgb c = color_of(f);
    if (wide) snprintf(text, sizeof text, m->format, value);
    if (color) fprintf(out, "\033[48;5;%d;38;5;%dm", cube(c), is_light(c) ? 16 : 231);
    if (color) fprintf(out, "%*s\033[0m", wide ? CELL - 1 : 2, text);
    else fprintf(out, "%s%*s", shades[(int)(f * 3.999)], wide ? CELL - 2 : 0, text);
    if (wide) fputc(' ', out);
}

static void terminal_map(const picture *p, const picture_map *m, FILE *out, int columns, bool color)
{
    char low[16], high[16];
    bool wide = LABEL + CELL * p->n_heads <= columns;
    snprintf(low, sizeof low, m->format, m->low);
    snprintf(high, sizeof high, m->format, m->high);
    fprintf(out, "%s\n", m->title);
    if (wide) {
        fprintf(out, "%*s", LABEL, "");
        for (int ih = 0; ih < p->n_heads; ih++)
            if (p->column_names) fprintf(out, "%-*s", CELL, p->column_names[ih]);
            else fprintf(out, "head %-*d", CELL - 5, ih);
        fputc('\n', out);
    }
    for (int il = 0; il < p->n_layers; il++) {
        if (p->row_names) fprintf(out, "%-*s", LABEL, p->row_names[il]);
        else fprintf(out, "layer %-*d", LABEL - 6, il);
        for (int ih = 0; ih < p->n_heads; ih++) terminal_cell(m, m->values[il * p->n_heads + ih], out, wide, color);
        fputc('\n', out);
    }
    fprintf(out, "%*s%s ", LABEL, "", low);
    for (int i = 0; i < 16; i++) {
        rgb c = color_of(i / 15.0);
        if (color) fprintf(out, "\033[48;5;%dm \033[0m", cube(c));
        else fputs((const char *const[]){"░", "▒", "▓", "█"}[i / 4], out);
    }
    fprintf(out, " %s\n", high);
}

void picture_terminal(const picture *p, FILE *out, int columns, bool color)
{
    fprintf(out, "%s\n%s\n", p->title, p->subtitle);
    for (int i = 0; i < p->n_maps; i++) {
        fputc('\n', out);
        terminal_map(p, &p->maps[i], out, columns, color);
    }
}

/* ---- SVG --------------------------------------------------------------------------------------------------------- */

typedef struct {
    int cell_w, cell_h, top, left, panel, width, height;
} geometry;

static int clamp(int x, int low, int high) { return x < low ? low : x > high ? high : x; }

static geometry lay_out(const picture *p)
{
    geometry g = {.top = 86, .left = p->row_names ? 72 : 40};
    g.cell_w = clamp(360 / p->n_heads, 4, 46);
    g.cell_h = clamp(560 / p->n_layers, 4, 24);
    int map = g.cell_w * p->n_heads;
    g.panel = (map > 200 ? map : 200) + g.left + 24;
    g.width = g.panel * p->n_maps;
    if (g.width < 520) g.width = 520; /* the subtitle's */
    g.height = g.top + g.cell_h * p->n_layers + 56;
    return g;
}

void picture_escape(dmc_writer *w, const char *text)
{
    for (; *text; text++) {
        if (*text == '<') dmc_writef(w, "&lt;");
        else if (*text == '>') dmc_writef(w, "&gt;");
        else if (*text == '&') dmc_writef(w, "&amp;");
        else if (strncmp(text, "\xef\xbf\xbe", 3) == 0 || strncmp(text, "\xef\xbf\xbf", 3) == 0)
            text += 2; /* no characters of XML */
        else if ((unsigned char)*text >= ' ') dmc_write(w, text, 1);
    }
}

static void text_at(dmc_writer *w, double x, double y, const char *class, const char *text)
{
    dmc_writef(w, "<text x=\"%g\" y=\"%g\" class=\"%s\">", x, y, class);
    picture_escape(w, text);
    dmc_writef(w, "</text>\n");
}

static void svg_cell(dmc_writer *w, const picture *p, const picture_map *m, const geometry *g, int x0, int il, int ih)
{
    char value[32];
    double v = m->values[il * p->n_heads + ih];
    rgb c = color_of(fraction(m, v));
    int x = x0 + ih * g->cell_w, y = g->top + il * g->cell_h;
    snprintf(value, sizeof value, m->format, v);
    dmc_writef(w, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"#%02x%02x%02x\">", x, y, g->cell_w - 1,
               g->cell_h - 1, (int)(255 * c.r), (int)(255 * c.g), (int)(255 * c.b));
    if (p->row_names) dmc_writef(w, "<title>%s, %s: %s</title></rect>\n", p->row_names[il], p->column_names[ih], value);
    else dmc_writef(w, "<title>layer %d, head %d: %s</title></rect>\n", il, ih, value);
    if (g->cell_w >= 40 && g->cell_h >= 14)
        text_at(w, x + (g->cell_w - 1) / 2.0, y + g->cell_h / 2.0 + 4, is_light(c) ? "v ink" : "v paper", value);
}

static void svg_map(dmc_writer *w, const picture *p, int index, const geometry *g)
{
    const picture_map *m = &p->maps[index];
    char label[32];
    int x0 = index * g->panel + g->left, bottom = g->top + g->cell_h * p->n_layers;
    int every_h = g->cell_w >= 18 ? 1 : 8, every_l = g->cell_h >= 11 ? 1 : 8;
    text_at(w, x0, g->top - 24, "b", m->title);
    for (int ih = 0; ih < p->n_heads; ih += every_h) {
        snprintf(label, sizeof label, "%d", ih);
        text_at(w, x0 + (ih + .5) * g->cell_w, g->top - 6, "m", p->column_names ? p->column_names[ih] : label);
    }
    for (int il = 0; il < p->n_layers; il += every_l) {
        snprintf(label, sizeof label, "%d", il);
        text_at(w, x0 - 6, g->top + (il + .5) * g->cell_h + 4, "e", p->row_names ? p->row_names[il] : label);
        for (int k = il; k < il + every_l && k < p->n_layers; k++)
            for (int ih = 0; ih < p->n_heads; ih++) svg_cell(w, p, m, g, x0, k, ih);
    }
    dmc_writef(w, "<rect x=\"%d\" y=\"%d\" width=\"160\" height=\"10\" fill=\"url(#ramp)\"/>\n", x0, bottom + 16);
    snprintf(label, sizeof label, m->format, m->low);
    text_at(w, x0, bottom + 42, "s", label);
    snprintf(label, sizeof label, m->format, m->high);
    text_at(w, x0 + 160, bottom + 42, "e", label);
}

void picture_write_svg(dmc_writer *w, const picture *p)
{
    geometry g = lay_out(p);
    dmc_writef(
        w,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\">\n"
        "<style>\ntext { font: 12px system-ui, sans-serif; fill: #333 }\n.t { font-size: 16px; font-weight: 600 }\n"
        ".b { font-weight: 600 }\n.m, .v { text-anchor: middle }\n.e { text-anchor: end }\n.v { font-size: 11px }\n"
        "@media (prefers-color-scheme: dark) { text { fill: #ddd } }\n.ink { fill: #111 }\n.paper { fill: #fff }\n"
        "</style>\n<defs><linearGradient id=\"ramp\">",
        g.width, g.height, g.width, g.height);
    for (int i = 0; i < N_RAMP; i++)
        dmc_writef(w, "<stop offset=\"%g\" stop-color=\"#%02x%02x%02x\"/>", (double)i / (N_RAMP - 1),
                   (int)(255 * ramp[i].r), (int)(255 * ramp[i].g), (int)(255 * ramp[i].b));
    dmc_writef(w, "</linearGradient></defs>\n");
    text_at(w, g.left, 24, "t", p->title);
    text_at(w, g.left, 42, "s", p->subtitle);
    for (int i = 0; i < p->n_maps; i++) svg_map(w, p, i, &g);
    dmc_writef(w, "</svg>\n");
}

dmc_status picture_svg(const picture *p, const char *path)
{
    dmc_writer *w;
    DMC_TRY(dmc_writer_open(&w, path));
    picture_write_svg(w, p);
    return dmc_writer_commit(w);
}
