/* The report of a study, from its results: CSV for programs, Markdown for documents, a page for people. */
#include "cli.h"
#include "inspect_picture.h"
#include "study.h"

#include <math.h>
#include <string.h>

/* ---- numbers ---- */

/* A key of a command's result; NAN: not there. */
static double result_of(const study *s, int cell, const char *name, const char *key)
{
    char *path = study_result_path(s, cell, name);
    json_t *r = json_load_file(path, 0, NULL);
    const json_t *v = study_find(r, key);
    double value = json_is_number(v) ? json_number_value(v) : NAN;
    json_decref(r);
    dmc_free(path);
    return value;
}

/* The measure that tells bytes; -1: none does. */
static int measure_of_bytes(const study *s)
{
    int m = s->n_measures - 1;
    while (m >= 0 && !s->measures[m].bytes) m--;
    return m;
}

/* The share of the reference's uncompressed cache that a cell keeps while it is measured, or, where that result does not say, in the measure
 * that tells bytes. */
static double bytes_of(const study *s, int cell, int measure)
{
    const int from = s->reference >= 0 ? s->reference : cell;
    for (int m = measure; m >= 0; m = measure_of_bytes(s)) {
        const char *name = s->measures[m].result;
        const double share = result_of(s, cell, name, "kv_bytes") / result_of(s, from, name, "kv_bytes_uncompressed");
        if (isfinite(share) || m == measure_of_bytes(s)) return share;
    }
    return NAN;
}

static double value_of(const study *s, int cell, int measure)
{
    return result_of(s, cell, s->measures[measure].result, s->measures[measure].value);
}

/* Over the seeds of a row at a ratio: `of` each cell. */
static study_number over_seeds(const study *s, int row, double cr, int measure,
                               double of(const study *s, int cell, int measure))
{
    study_number out = {0, NAN, NAN};
    double sum = 0, squares = 0;
    for (int i = 0; i < s->n_cells; i++) {
        if (s->cells[i].row != row || s->cells[i].cr != cr) continue;
        const double v = of(s, i, measure);
        if (!isfinite(v)) continue;
        out.n++;
        sum += v;
        squares += v * v;
    }
    if (out.n) out.mean = sum / out.n;
    if (out.n > 1) out.deviation = sqrt(fmax(0, (squares - sum * sum / out.n) / (out.n - 1)));
    return out;
}

study_number study_value(const study *s, int row, double cr, int measure)
{
    return over_seeds(s, row, cr, measure, value_of);
}

study_number study_bytes(const study *s, int row, double cr, int measure)
{
    return over_seeds(s, row, cr, measure, bytes_of);
}

int study_ratios(const study *s, int row, double *ratios, int capacity)
{
    int n = 0;
    for (int i = 0; i < s->n_cells; i++)
        if (s->cells[i].row == row && (n == 0 || ratios[n - 1] != s->cells[i].cr) && n < capacity)
            ratios[n++] = s->cells[i].cr;
    return n;
}

double study_over(const study *s, int row, double cr)
{
    double ratio = 0, sum = 0, control_sum = 0;
    const int m = measure_of_bytes(s), control = study_control(s, row);
    if (m < 0 || control < 0 || control == row || !study_ratios(s, control, &ratio, 1)) return NAN;
    for (int i = 0; i < s->n_cells; i++)
        for (int k = 0; k < s->n_cells; k++) {
            const study_cell *a = &s->cells[i], *b = &s->cells[k];
            if (a->row != row || a->cr != cr || b->row != control || b->cr != ratio || a->seed != b->seed) continue;
            const double value = value_of(s, i, m), other = value_of(s, k, m);
            if (isfinite(value) && isfinite(other)) sum += value, control_sum += other;
        }
    return control_sum > 0 ? sum / control_sum - 1 : NAN;
}

/* ---- tables ---- */

enum { MAX_RATIOS = 64 };

static void number_text(char *out, size_t size, study_number v, bool percent)
{
    double scale = percent ? 100 : 1;
    if (!v.n) snprintf(out, size, "-");
    else if (v.n == 1) snprintf(out, size, percent ? "%.1f %%" : "%.4f", scale * v.mean);
    else snprintf(out, size, percent ? "%.1f ± %.1f %%" : "%.4f ± %.4f", scale * v.mean, scale * v.deviation);
}

static void over_text(char *out, size_t size, double over)
{
    if (isfinite(over)) snprintf(out, size, "%+.2f %%", 100 * over);
    else snprintf(out, size, "-");
}

/* What stands above the measures. */
static void heads(const study *s, dmc_writer *w, const char *open, const char *close, bool html)
{
    for (int m = 0; m < s->n_measures; m++) {
        dmc_writef(w, "%s", open);
        if (html) picture_escape(w, s->measures[m].title);
        else dmc_writef(w, "%s", s->measures[m].title);
        dmc_writef(w, "%s", close);
        if (m == measure_of_bytes(s)) dmc_writef(w, "%sover its control%s", open, close);
    }
}

static void csv_text(dmc_writer *w, const char *text)
{
    dmc_write(w, "\"", 1);
    for (; *text; text++) dmc_write(w, "\"\"", *text == '"' ? 1 : 0), dmc_write(w, text, 1);
    dmc_write(w, "\"", 1);
}

static json_t *record_of(const study *s, int cell, const char *name)
{
    char *result = study_result_path(s, cell, name);
    json_t *record = study_record(result);
    dmc_free(result);
    return record;
}

static const char *text_of(const json_t *record, const char *key)
{
    const char *text = json_string_value(json_object_get(record, key));
    return text ? text : "";
}

/* The cell whose training made the model that a cell measures; -1: the base. */
static int trained_of(const study *s, int cell)
{
    while (cell >= 0 && !s->cells[cell].trains) cell = s->cells[cell].from;
    return cell;
}

static void csv(const study *s, const char *path)
{
    dmc_writer *w;
    cli_check(dmc_writer_open(&w, path));
    dmc_writef(w, "row,title,cr,seed,measure,value,bytes,machine,cores,commit,model_commit\n");
    for (int i = 0; i < s->n_cells; i++) {
        const study_cell *c = &s->cells[i];
        const char *name = study_row_name(s, c->row);
        json_t *training = record_of(s, trained_of(s, i), "training");
        for (int m = 0; m < s->n_measures; m++) {
            const double v = value_of(s, i, m), bytes = bytes_of(s, i, m);
            if (!isfinite(v)) continue;
            json_t *record = record_of(s, i, s->measures[m].result);
            dmc_writef(w, "%s,", name);
            csv_text(w, study_row_title(s, c->row));
            dmc_writef(w, ",%g,%d,%s,%.10g,", c->cr, c->seed, s->measures[m].name, v);
            if (isfinite(bytes)) dmc_writef(w, "%.6g", bytes);
            dmc_writef(w, ",");
            csv_text(w, text_of(record, "machine"));
            dmc_writef(w, ",%d,%s,%s\n", (int)json_integer_value(json_object_get(record, "cores")),
                       text_of(record, "commit"), text_of(training, "commit"));
            json_decref(record);
        }
        json_decref(training);
    }
    cli_check(dmc_writer_commit(w));
}

/* One line of the table between `open`, `middle` and `close`. */
static void table_line(const study *s, dmc_writer *w, int row, double cr, const char *open, const char *middle,
                       const char *close, bool html)
{
    char text[64];
    dmc_writef(w, "%s", open);
    if (html) picture_escape(w, study_row_title(s, row));
    else dmc_writef(w, "%s", study_row_title(s, row));
    if (cr > 0) dmc_writef(w, "%s%gx", middle, cr);
    else dmc_writef(w, "%s", middle);
    for (int m = -1; m < s->n_measures; m++) {
        const study_number v = m < 0 ? study_bytes(s, row, cr, measure_of_bytes(s)) : study_value(s, row, cr, m);
        number_text(text, sizeof text, v, m < 0);
        dmc_writef(w, "%s%s", middle, text);
        if (m >= 0 && m == measure_of_bytes(s))
            over_text(text, sizeof text, study_over(s, row, cr)), dmc_writef(w, "%s%s", middle, text);
    }
    dmc_writef(w, "%s\n", close);
}

static void table(const study *s, dmc_writer *w, const char *open, const char *middle, const char *close, bool html)
{
    double ratios[MAX_RATIOS];
    for (int row = 0; row < (int)json_array_size(s->rows); row++)
        for (int i = 0, n = study_ratios(s, row, ratios, MAX_RATIOS); i < n; i++)
            table_line(s, w, row, ratios[i], open, middle, close, html);
}

static const char legend[] =
    "Mean and standard deviation over seeds where there are several. Bytes kept: the cache's bytes, windows, page slack and "
    "accumulators counted, over those of the reference without compression. Over its control: over the same training without "
    "compression, of the seeds that both have.";

static void markdown(const study *s, const char *path)
{
    dmc_writer *w;
    cli_check(dmc_writer_open(&w, path));
    dmc_writef(w, "# %s\n\n| method | ratio | bytes kept |", s->title);
    heads(s, w, " ", " |", false);
    dmc_writef(w, "\n|---|---|---|");
    for (int m = measure_of_bytes(s) < 0 ? 0 : -1; m < s->n_measures; m++) dmc_writef(w, "---|");
    dmc_writef(w, "\n");
    table(s, w, "| ", " | ", " |", false);
    dmc_writef(w, "\n%s\n", legend);
    cli_check(dmc_writer_commit(w));
}

static void page(const study *s, const char *path)
{
    dmc_writer *w;
    cli_check(dmc_writer_open(&w, path));
    dmc_writef(w, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>");
    picture_escape(w, s->title);
    dmc_writef(
        w,
        "</title><style>\n:root { color-scheme: light dark }\nbody { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; "
        "margin: 2rem auto; padding: 0 1rem }\ntable { border-collapse: collapse } td, th { padding: .2rem .8rem; text-align: right; "
        "border-bottom: 1px solid #8884 }\ntd:first-child, th:first-child { text-align: left }\nsvg { max-width: 100%% }\n</style></head>"
        "<body>\n<h1>");
    picture_escape(w, s->title);
    dmc_writef(w, "</h1>\n<table><tr><th>method</th><th>ratio</th><th>bytes kept</th>");
    heads(s, w, "<th>", "</th>", true);
    dmc_writef(w, "</tr>\n");
    table(s, w, "<tr><td>", "</td><td>", "</td></tr>", true);
    dmc_writef(w, "</table>\n<p>%s</p>\n", legend);
    for (int m = 0; m < s->n_measures; m++) {
        study_curve(s, m, w);
        for (int row = 0; s->measures[m].command && row < (int)json_array_size(s->rows); row++)
            study_heads(s, row, m, w), study_positions(s, row, m, w);
    }
    dmc_writef(w, "</body></html>\n");
    cli_check(dmc_writer_commit(w));
}

/* A picture of a row and a measure. */
typedef bool draw_row(const study *s, int row, int measure, dmc_writer *w);

static bool draw_curve(const study *s, int row, int measure, dmc_writer *w)
{
    (void)row;
    return study_curve(s, measure, w);
}

/* DIR/NAME.svg, if there is something to draw. */
static void picture_file(const study *s, const char *name, draw_row *draw, int row, int measure)
{
    char path[4200];
    dmc_writer *w;
    snprintf(path, sizeof path, "%s/%s.svg", s->dir, name);
    cli_check(dmc_writer_open(&w, path));
    if (draw(s, row, measure, w)) cli_check(dmc_writer_commit(w));
    else dmc_writer_abort(w), remove(path); /* what an older report drew */
}

static void pictures(const study *s)
{
    char name[256];
    for (int m = 0; m < s->n_measures; m++) {
        picture_file(s, s->measures[m].name, draw_curve, 0, m);
        for (int row = 0; s->measures[m].command && row < (int)json_array_size(s->rows); row++) {
            snprintf(name, sizeof name, "%s-%s-heads", s->measures[m].name, study_row_name(s, row));
            picture_file(s, name, study_heads, row, m);
            snprintf(name, sizeof name, "%s-%s-positions", s->measures[m].name, study_row_name(s, row));
            picture_file(s, name, study_positions, row, m);
        }
    }
}

void study_report(const study *s)
{
    char path[4200];
    cli_check(dmc_make_dir(s->dir));
    snprintf(path, sizeof path, "%s/results.csv", s->dir);
    csv(s, path);
    pictures(s);
    snprintf(path, sizeof path, "%s/report.html", s->dir);
    page(s, path);
    snprintf(path, sizeof path, "%s/report.md", s->dir);
    markdown(s, path);
    printf("%s: written\n", path);
}
