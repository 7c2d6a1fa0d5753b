/* dmc bench: what stands between the measurements (bench_serve.c, bench_train.c), their command (bench.c) and their output (bench_out.c). */
#ifndef DMC_TOOLS_BENCH_H
#define DMC_TOOLS_BENCH_H

#include "kernels/limits.h"
#include "origin.h"
#include "policy_options.h"

#include <jansson.h>

typedef enum { BENCH_PREFILL, BENCH_DECODE, BENCH_LOAD, BENCH_TRAIN, BENCH_WORKS } bench_work;
extern const char *const bench_work_names[BENCH_WORKS];
extern const char *const bench_kv_names[DMC_KV_COUNT];
extern const char *const bench_math_names[2];

/* What all rows share. */
typedef struct {
    const char *model, *shape, *type; /* a file, or a shape and the type of its matrices */
    int prompt, generate;             /* tokens of a prefill, steps of a decode */
    int ctx;                          /* tokens of a training sequence */
    int chunk, repeat;
    bool recompute; /* activations of a training step */
    policy_options policy;
    bool floor; /* measure the machine's limits first */
    dmc_engine_options engine;
} bench_setup;

/* What a row measures... */
typedef struct {
    bench_work work;
    int depth, batch;
    double cr;
    dmc_kv_type kv;
    dmc_math math;
} bench_case;

/* ...and what it found. Of bytes and operations counts what must be moved and done at least. */
typedef struct {
    char type[16];  /* of the largest matrix */
    dmc_kv_type kv; /* never DMC_KV_AUTO; DMC_KV_COUNT: no cache */
    int threads;
    double seconds, spread;     /* of a repetition: median; interquartile range over median */
    double tokens;              /* of a repetition, all sequences together */
    double bytes;               /* read from memory: weights, slots */
    double products, attention; /* operations; a multiply-add counts as 2 */
    double floor_seconds;       /* 0: not known */
    double cr;                  /* reached */
    dmc_policy policy;          /* in force */
    int64_t slots, kv_bytes, peak_rss_bytes;
} bench_result;

/* Called by measurements now and then, done from 0 to 1. */
typedef void bench_tick(void *to, double done);

typedef struct {
    const bench_setup *setup;
    const bench_case *c;
    bench_tick *tick;
    void *to;
} bench_run;

/* Measures all but limits and peak RSS. */
dmc_status bench_serve(bench_result *out, const bench_run *run);
dmc_status bench_train(bench_result *out, const bench_run *run);

/* Sorts. Median and interquartile range over median of n >= 1 values. */
void bench_summary(double *values, int n, double *median, double *spread);
/* Seconds that the machine needs at least: the larger of the time to read and the time to calculate. */
double bench_floor(const bench_result *r, const bench_case *c, const dmc_limits *limits);

/* ---- output ---- */
void bench_print_table(const bench_setup *s, const bench_case *cases, const bench_result *results, int n);
json_t *bench_json_row(const bench_setup *s, const bench_case *c, const bench_result *r);
/* Adds a line to a CSV file, which is made if it is not there; atomic. Fails where the file has other columns. */
dmc_status bench_append_csv(const char *path, const origin *m, const bench_setup *s, const bench_case *c,
                            const bench_result *r);

/* limits: of one thread, of n_threads. */
void bench_print_limits(const dmc_limits *limits, int n_threads);
json_t *bench_json_limits(const dmc_limits *limits, int n_threads);

#endif
