/* dmc bench: rows as a table, as JSON, as CSV; the floor that they are held against. */
#include "bench.h"

#include "base/base.h"
#include "cli.h"
#include "json_out.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const bench_work_names[BENCH_WORKS] = {"prefill", "decode", "load", "train"};
const char *const bench_kv_names[DMC_KV_COUNT] = {"auto", "f32", "f16", "bf16", "q8", "q4"};
const char *const bench_math_names[2] = {"f32", "bf16"};

/* ---- figures ---- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(const double *sorted, int n, double q)
{
    double at = q * (n - 1);
    int i = (int)at;
    return i + 1 < n ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[i];
}

void bench_summary(double *values, int n, double *median, double *spread)
{
    qsort(values, (size_t)n, sizeof *values, ascending);
    *median = quantile(values, n, 0.5);
    *spread = (quantile(values, n, 0.75) - quantile(values, n, 0.25)) / *median;
}

static double larger(double a, double b) { return a > b ? a : b; }

double bench_floor(const bench_result *r, const bench_case *c, const dmc_limits *limits)
{
    bool bf16 = c->math == DMC_MATH_BF16 || strcmp(r->type, "BF16") == 0;
    bool block = r->type[0] == 'Q' && c->work != BENCH_TRAIN;
    bool float_cache = r->kv == DMC_KV_F32 || (r->kv == DMC_KV_COUNT && !bf16);
    double products = larger(limits->f32, block ? larger(limits->int8, limits->bf16) : bf16 ? limits->bf16 : 0);
    double attention = float_cache ? limits->f32 : larger(limits->f32, limits->bf16);
    double reading = r->bytes / larger(limits->read, limits->read_streams);
    return larger(reading, r->products / products + r->attention / attention);
}

/* ---- a row as named values ---- */

typedef struct {
    const char *name;
    const char *text; /* NULL: a number */
    double number;
    bool whole;
} field;

enum { MAX_FIELDS = 32 };

static double or_unknown(double x) { return x > 0 ? x : NAN; }

static int fields_of(field *f, const bench_setup *s, const bench_case *c, const bench_result *r)
{
    int n = 0;
    const char *file = s->model ? strrchr(s->model, '/') : NULL;
    bool train = c->work == BENCH_TRAIN;
    f[n++] = (field){"model", .text = s->shape ? s->shape : file && file[1] ? file + 1 : s->model};
    f[n++] = (field){"type", .text = r->type};
    f[n++] = (field){"work", .text = bench_work_names[c->work]};
    f[n++] = (field){"depth", .number = c->depth, .whole = true};
    f[n++] = (field){"batch", .number = c->batch, .whole = true};
    f[n++] = (field){"cr", .number = c->cr};
    f[n++] = (field){"cr_reached", .number = r->cr};
    f[n++] = (field){"kv", .text = r->kv < DMC_KV_COUNT ? bench_kv_names[r->kv] : "none"};
    f[n++] = (field){"math", .text = bench_math_names[c->math]};
    f[n++] = (field){"threads", .number = r->threads, .whole = true};
    f[n++] = (field){"tier", .number = s->engine.tier, .whole = true};
    f[n++] = (field){"tokens",
                     .number = train                     ? s->ctx
                               : c->work == BENCH_DECODE ? s->generate
                                                         : r->tokens / c->batch,
                     .whole = true};
    f[n++] = (field){"repeat", .number = s->repeat, .whole = true};
    f[n++] = (field){"seconds", .number = r->seconds};
    f[n++] = (field){"tokens_per_second", .number = r->tokens / r->seconds};
    f[n++] = (field){"spread", .number = r->spread};
    f[n++] = (field){"bytes_per_second", .number = r->bytes / r->seconds};
    f[n++] = (field){"flops_per_second", .number = (r->products + r->attention) / r->seconds};
    f[n++] = (field){"floor_fraction", .number = or_unknown(r->floor_seconds / r->seconds)};
    f[n++] = (field){"kv_bytes", .number = (double)r->kv_bytes, .whole = true};
    f[n++] = (field){"peak_rss_bytes", .number = (double)r->peak_rss_bytes, .whole = true};
    return n;
}

json_t *bench_json_row(const bench_setup *s, const bench_case *c, const bench_result *r)
{
    field f[MAX_FIELDS];
    int n = fields_of(f, s, c, r);
    json_t *o = json_new_object();
    policy_put_json(o, &r->policy);
    json_put_int(o, "slots", r->slots);
    for (int i = 0; i < n; i++) {
        if (f[i].text) json_put_string(o, f[i].name, f[i].text);
        else if (f[i].whole) json_put_int(o, f[i].name, (int64_t)f[i].number);
        else json_put_real(o, f[i].name, f[i].number);
    }
    return o;
}

/* ---- CSV ---- */

/* Quotes where a comma, a quote or a line end asks for it. */
static void csv_text(char **at, const char *end, const char *s)
{
    bool quote = strpbrk(s, ",\"\n") != NULL;
    char *p = *at;
    if (quote && p < end) *p++ = '"';
    for (; *s && p + 2 < end; s++) {
        if (*s == '"') *p++ = '"';
        *p++ = *s;
    }
    if (quote && p < end) *p++ = '"';
    *at = p;
}

static void csv_lines(char *names, char *values, size_t size, const field *f, int n)
{
    char *a = names, *b = values;
    for (int i = 0; i < n; i++) {
        a += snprintf(a, (size_t)(names + size - a), "%s%s", i ? "," : "", f[i].name);
        if (i) *b++ = ',';
        if (f[i].text) csv_text(&b, values + size, f[i].text);
        else if (f[i].whole) b += snprintf(b, (size_t)(values + size - b), "%.0f", f[i].number);
        else if (isfinite(f[i].number)) b += snprintf(b, (size_t)(values + size - b), "%.5g", f[i].number);
    }
    *b = 0;
}

dmc_status bench_append_csv(const char *path, const origin *m, const bench_setup *s, const bench_case *c,
                            const bench_result *r)
{
    enum { SIZE = 4096 };
    char names[SIZE], values[SIZE];
    field f[MAX_FIELDS];
    int n = fields_of(f, s, c, r);
    dmc_mapping old = {0};
    dmc_writer *w;
    f[n++] = (field){"machine", .text = m->machine};
    f[n++] = (field){"cores", .number = m->cores, .whole = true};
    f[n++] = (field){"commit", .text = m->commit};
    f[n++] = (field){"date", .text = m->date};
    csv_lines(names, values, SIZE, f, n);
    if (dmc_exists(path)) DMC_TRY(dmc_map_file(&old, path));
    size_t head = strlen(names);
    if (old.size && (old.size <= head || memcmp(old.data, names, head) != 0 || old.data[head] != '\n' ||
                     old.data[old.size - 1] != '\n')) {
        dmc_unmap(&old);
        return dmc_fail(DMC_ERR_FORMAT, "%s: has other columns than these rows; name another file", path);
    }
    dmc_status status = dmc_writer_open(&w, path);
    if (status == DMC_OK) {
        if (old.size) dmc_write(w, old.data, old.size);
        else dmc_writef(w, "%s\n", names);
        dmc_writef(w, "%s\n", values);
        status = dmc_writer_commit(w);
    }
    dmc_unmap(&old);
    return status;
}

/* ---- for people ---- */

static void number(double x, char out[16]) { snprintf(out, 16, x >= 1000 ? "%.0f" : x >= 100 ? "%.1f" : "%.2f", x); }

void bench_print_table(const bench_setup *s, const bench_case *cases, const bench_result *results, int n)
{
    printf("%-8s %-6s %6s %5s %5s %-5s %-5s %10s %7s %8s %9s %6s %9s %8s\n", "work", "type", "depth", "batch", "CR",
           "cache", "math", "tokens/s", "spread", "GB/s", "GFLOP/s", "floor", "KV MiB", "RSS MiB");
    for (int i = 0; i < n; i++) {
        const bench_case *c = &cases[i];
        const bench_result *r = &results[i];
        char rate[16], fraction[16] = "", spread[16];
        if (r->seconds == 0) continue; /* it failed, and was told */
        number(r->tokens / r->seconds, rate);
        snprintf(spread, sizeof spread, "%.1f %%", 100 * r->spread);
        if (r->floor_seconds > 0) snprintf(fraction, sizeof fraction, "%.0f %%", 100 * r->floor_seconds / r->seconds);
        printf("%-8s %-6s %6d %5d %5.2f %-5s %-5s %10s %7s %8.2f %9.1f %6s %9.1f %8.1f\n", bench_work_names[c->work],
               r->type, c->depth, c->batch, r->cr, r->kv < DMC_KV_COUNT ? bench_kv_names[r->kv] : "",
               bench_math_names[c->math], rate, spread, 1e-9 * r->bytes / r->seconds,
               1e-9 * (r->products + r->attention) / r->seconds, fraction, (double)r->kv_bytes / (1 << 20),
               (double)r->peak_rss_bytes / (1 << 20));
        if (c->work == BENCH_LOAD || c->work == BENCH_TRAIN)
            printf("%-8s %.3f s %s\n", "", r->seconds, c->work == BENCH_LOAD ? "to the first token" : "a step");
    }
    if (s->floor) printf("\nfloor: what the measured limits of this machine allow, as a share of the time taken\n");
}

static const struct {
    const char *name, *what, *unit;
    size_t at;
} limit_rows[] = {
    {"read_bytes_per_second", "memory, one stream a thread", "GB/s", offsetof(dmc_limits, read)},
    {"read_streams_bytes_per_second", "memory, eight streams a thread", "GB/s", offsetof(dmc_limits, read_streams)},
    {"f32_flops_per_second", "float32", "GFLOP/s", offsetof(dmc_limits, f32)},
    {"int8_ops_per_second", "int8", "Gop/s", offsetof(dmc_limits, int8)},
    {"bf16_flops_per_second", "bf16", "GFLOP/s", offsetof(dmc_limits, bf16)},
};

static double limit_at(const dmc_limits *l, int i) { return *(const double *)((const char *)l + limit_rows[i].at); }

void bench_print_limits(const dmc_limits *limits, int n_threads)
{
    printf("%-32s %12s %9d threads\n", "limits", "1 thread", n_threads);
    for (int i = 0; i < (int)(sizeof limit_rows / sizeof limit_rows[0]); i++) {
        if (limit_at(&limits[0], i) == 0) continue;
        printf("%-32s %12.1f %9.1f %s\n", limit_rows[i].what, 1e-9 * limit_at(&limits[0], i),
               1e-9 * limit_at(&limits[1], i), limit_rows[i].unit);
    }
}

json_t *bench_json_limits(const dmc_limits *limits, int n_threads)
{
    json_t *o = json_new_object(), *sides[2];
    for (int t = 0; t < 2; t++) {
        sides[t] = json_new_object();
        for (int i = 0; i < (int)(sizeof limit_rows / sizeof limit_rows[0]); i++)
            json_put_real(sides[t], limit_rows[i].name, or_unknown(limit_at(&limits[t], i)));
    }
    json_put_int(o, "threads", n_threads);
    json_put(o, "one_thread", sides[0]);
    json_put(o, "all_threads", sides[1]);
    return o;
}
