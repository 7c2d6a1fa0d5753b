/* A study: a table of models, methods, compression ratios and seeds, made by running the program's own commands. doc/study.md says what
 * its file looks like. Every command's result is one file; what is there already is not run again. */
#ifndef DMC_TOOLS_STUDY_H
#define DMC_TOOLS_STUDY_H

#include "base/base.h"

#include <jansson.h>

/* One model of the table: a row of the study's file at one ratio and with one seed. */
typedef struct {
    char *id;  /* "dmc.cr4.s1": names its files */
    int row;   /* of study.rows */
    double cr; /* 0: the row has none */
    int seed;
    int from;          /* cell that it starts from; -1: the base */
    bool trains;       /* else it is the model of `from`, with a policy */
    json_t *arguments; /* trains: of `dmc retrofit` behind MODEL; else what is added to each measure */
} study_cell;

typedef struct {
    const char *name, *title; /* in the file's JSON */
    const char *result;       /* the measure whose command it reads: itself, or one above */
    bool higher;              /* is better */
    bool bytes;               /* its result has the bytes of the cache */
    const char *value;        /* key of the result */
    json_t *command;          /* NULL: it is another's */
    json_t *rows;             /* names of the rows that it measures; NULL: all */
} study_measure;

typedef struct {
    json_t *file;
    char *dir;
    const char *title;
    const char *base;   /* a model's path, or NULL: it is trained */
    json_t *base_train; /* of `dmc train` */
    json_t *rows;
    study_cell *cells;
    int n_cells, reference; /* reference: the cell whose cache is 100 % */
    study_measure *measures;
    int n_measures;
} study;

/* study_plan.c: dies on a file that is wrong, naming the place. */
void study_read(study *s, const char *path, const char *dir);
void study_free(study *s);
const char *study_row_name(const study *s, int row);
bool study_measures(const study *s, int cell, int measure); /* whether the measure has a command for the cell */
const char *study_row_title(const study *s, int row);
/* The row that a row's loss is compared with: its "control", else the reference's; -1: none. */
int study_control(const study *s, int row);
/* The cell whose model is $reference for this one: of the reference's row and ratio, with the same seed if it has that, else its first. -1: none. */
int study_reference_of(const study *s, int cell);
int study_last_reference(const study *s);  /* the last cell that is one; -1: none */
bool study_drawn(const study *s, int row); /* whether the curves have a line for it */
/* The arguments of a list of the file with every $word replaced: a new array of strings. cell: -1 for the base. */
json_t *study_expand(const study *s, const json_t *list, int cell);
/* "DIR/models/ID.gguf", "DIR/results/ID.NAME.json", "DIR/logs/ID.NAME.log"; dmc_free. cell -1: the base. */
char *study_model_path(const study *s, int cell);
char *study_result_path(const study *s, int cell, const char *name);
char *study_log_path(const study *s, int cell, const char *name);

/* The file beside a result that says which command made it, on which machine, from which commit; what stands in it, or NULL: nothing. */
enum { STUDY_PATH = 4200 };
void study_record_path(char out[STUDY_PATH], const char *result);
json_t *study_record(const char *result);

/* What stands at "key", "key.key" or "list.0.key" of a result; NULL: nothing. */
const json_t *study_find(const json_t *result, const char *key);

/* study_run.c: runs what is not there yet. dry: prints the commands instead. Returns the number of commands that failed. */
int study_run(const study *s, bool dry, bool quiet, bool no_color);

/* study_report.c: DIR/results.csv, DIR/report.md, DIR/report.html and a curve for each measure, from what is there. */
void study_report(const study *s);

/* ---- numbers of the report, shared by table and curves ---- */

typedef struct {
    int n;                  /* seeds that have a result */
    double mean, deviation; /* of a sample; NAN below two */
} study_number;
/* Of a row at a ratio, over its seeds: the measure, and the share of the reference's uncompressed bytes that was kept meanwhile (where its
 * result does not say: in the measure that tells bytes). */
study_number study_value(const study *s, int row, double cr, int measure);
study_number study_bytes(const study *s, int row, double cr, int measure);
/* By what share of its control's the row's measure of bytes is larger (0.01: 1 %), of the seeds that both have; NAN: there are none. */
double study_over(const study *s, int row, double cr);
/* Ratios of a row, in the file's order; {0} if it has none. Returns how many. */
int study_ratios(const study *s, int row, double *ratios, int capacity);
/* study_curve.c. One measure against the share of bytes kept, a line for each row. false: nothing to draw. */
bool study_curve(const study *s, int measure, dmc_writer *w);
/* Of a row, from what `dmc inspect` printed: maps of its heads as the ratio grows; with --spans, tokens a slot against the position. */
bool study_heads(const study *s, int row, int measure, dmc_writer *w);
bool study_positions(const study *s, int row, int measure, dmc_writer *w);

#endif
