/* Pictures of a study: each measure against the share of the cache's bytes that is kept, and how heads compress as the ratio grows. */
#include "chart.h"
#include "inspect_picture.h"
#include "study.h"

#include <math.h>
#include <string.h>

enum { MAX_RATIOS = 16 };

/* ---- a measure against bytes ---- */

bool study_curve(const study *s, int measure, dmc_writer *w)
{
    static chart c;
    char title[200];
    double ratios[CHART_MAX_POINTS];
    snprintf(title, sizeof title, "%.100s (%s is better)", s->measures[measure].title,
             s->measures[measure].higher ? "higher" : "lower");
    c = (chart){.title = title, .x_title = "bytes of the cache that are kept", .shares = true};
    for (int row = 0; row < (int)json_array_size(s->rows); row++) {
        if (!study_drawn(s, row) || !chart_begin(&c, study_row_title(s, row))) continue;
        c.lines[c.n_lines - 1].dashed = !json_object_get(json_array_get(s->rows, (size_t)row), "args");
        for (int i = 0, n = study_ratios(s, row, ratios, CHART_MAX_POINTS); i < n; i++) {
            study_number y = study_value(s, row, ratios[i], measure);
            chart_add(&c, study_bytes(s, row, ratios[i], measure).mean, y.mean, y.deviation);
        }
    }
    return chart_write(w, &c);
}

/* ---- heads, from results that have "per_head" and "positions": those of dmc inspect ---- */

/* The result of a row at a ratio, of its first seed; NULL: none. The caller owns it. */
static json_t *load(const study *s, int row, double cr, int measure)
{
    for (int i = 0; i < s->n_cells; i++) {
        if (s->cells[i].row != row || s->cells[i].cr != cr) continue;
        char *path = study_result_path(s, i, s->measures[measure].result);
        json_t *r = json_load_file(path, 0, NULL);
        dmc_free(path);
        return r;
    }
    return NULL;
}

static double number(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

/* [layers, heads] of "per_head", which stands in that order; NULL: something else stands there. dmc_free. */
static double *head_ratios(const json_t *result, int *n_layers, int *n_heads)
{
    const json_t *list = json_object_get(result, "per_head");
    const size_t n = json_array_size(list);
    const json_t *last = n ? json_array_get(list, n - 1) : NULL;
    const double layer = number(last, "layer"), head = number(last, "head");
    *n_layers = layer >= 0 && layer < 1 << 20 ? (int)layer + 1 : 0;
    *n_heads = head >= 0 && head < 1 << 20 ? (int)head + 1 : 0;
    double *values = NULL;
    if (!n || (size_t)*n_layers * (size_t)*n_heads != n || dmc_array(&values, n, sizeof *values) != DMC_OK) return NULL;
    for (size_t i = 0; i < n; i++) {
        values[i] = number(json_array_get(list, i), "cr");
        if (values[i] > 0) continue;
        dmc_free(values);
        return NULL;
    }
    return values;
}

bool study_heads(const study *s, int row, int measure, dmc_writer *w)
{
    double ratios[MAX_RATIOS], high = 2;
    picture_map maps[MAX_RATIOS];
    char titles[MAX_RATIOS][32], title[200];
    picture p = {.title = title,
                 .subtitle = "tokens a slot of each layer (down) and KV head (across), as the ratio asked for grows",
                 .maps = maps};
    for (int i = 0, n = study_ratios(s, row, ratios, MAX_RATIOS); i < n; i++) {
        int n_layers, n_heads;
        json_t *result = load(s, row, ratios[i], measure);
        double *values = head_ratios(result, &n_layers, &n_heads);
        json_decref(result);
        if (!values || (p.n_maps && (n_layers != p.n_layers || n_heads != p.n_heads))) {
            dmc_free(values);
            continue;
        }
        p.n_layers = n_layers, p.n_heads = n_heads;
        for (int k = 0; k < n_layers * n_heads; k++) high = fmax(high, values[k]);
        snprintf(titles[p.n_maps], sizeof titles[0], "CR %g", ratios[i]);
        maps[p.n_maps] =
            (picture_map){.title = titles[p.n_maps], .values = values, .low = 1, .logarithmic = true, .format = "%.1f"};
        p.n_maps++;
    }
    snprintf(title, sizeof title, "%.150s", study_row_title(s, row));
    for (int i = 0; i < p.n_maps; i++) maps[i].high = high;
    if (p.n_maps) picture_write_svg(w, &p);
    for (int i = 0; i < p.n_maps; i++) dmc_free((void *)maps[i].values);
    return p.n_maps > 0;
}

bool study_positions(const study *s, int row, int measure, dmc_writer *w)
{
    static chart c;
    double ratios[MAX_RATIOS];
    char title[200], names[MAX_RATIOS][32];
    snprintf(title, sizeof title, "%.100s: settled tokens a slot, by their place in the window",
             study_row_title(s, row));
    c = (chart){.title = title, .x_title = "position of the token"};
    for (int i = 0, n = study_ratios(s, row, ratios, MAX_RATIOS); i < n; i++) {
        json_t *result = load(s, row, ratios[i], measure), *place;
        const json_t *list = json_object_get(result, "positions");
        size_t k;
        snprintf(names[i], sizeof names[i], "CR %g", ratios[i]);
        chart_begin(&c, names[i]);
        json_array_foreach(list, k, place) chart_add(&c, number(place, "from"), number(place, "tokens_per_slot"), NAN);
        json_decref(result);
    }
    return chart_write(w, &c);
}
