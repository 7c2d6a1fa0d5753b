/* The study's file, checked, and its cells. */
#include "cli.h"
#include "study.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static char *copy_of(const char *text)
{
    char *copy = dmc_strdup(text);
    if (!copy) cli_die(NULL, "out of memory");
    return copy;
}

/* ---- reading with a reason where it is wrong ---- */

static const char *string_of(const json_t *object, const char *key, const char *where)
{
    const json_t *v = json_object_get(object, key);
    if (!v) return NULL;
    if (!json_is_string(v)) cli_die(NULL, "%s: \"%s\" must be a string", where, key);
    return json_string_value(v);
}

static const char *need_string(const json_t *object, const char *key, const char *where)
{
    const char *s = string_of(object, key, where);
    if (!s) cli_die("doc/study.md describes the file", "%s: \"%s\" is missing", where, key);
    return s;
}

static json_t *list_of(const json_t *object, const char *key, const char *where)
{
    json_t *v = json_object_get(object, key);
    if (v && !json_is_array(v)) cli_die(NULL, "%s: \"%s\" must be a list", where, key);
    return v;
}

static void check_keys(json_t *object, const char *const *known, const char *where)
{
    const char *key;
    json_t *value;
    int n = 0;
    if (!json_is_object(object)) cli_die(NULL, "%s must be an object", where);
    while (known[n]) n++;
    json_object_foreach(object, key, value)
    {
        int i = 0;
        while (i < n && strcmp(known[i], key)) i++;
        const char *near = i < n ? NULL : cli_nearest(key, known, n);
        if (i == n)
            cli_die(NULL, "%s: unknown key \"%s\"%s%s%s", where, key, near ? "; did you mean \"" : "", near ? near : "",
                    near ? "\"?" : "");
    }
}

/* Names become names of files. */
static void check_name(const char *name, const char *where)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    if (!*name || name[strspn(name, allowed)] || strlen(name) > 64)
        cli_die(NULL, "%s: the name \"%.80s\" must be made of letters, digits, - and _, 64 at most", where, name);
}

/* ---- cells ---- */

static int find_cell(const study *s, const char *id)
{
    for (int i = 0; i < s->n_cells; i++)
        if (!strcmp(s->cells[i].id, id)) return i;
    return -1;
}

static void name_cell(char *out, size_t size, const char *row, double cr, int seed)
{
    if (cr > 0) snprintf(out, size, "%s.cr%g.s%d", row, cr, seed);
    else snprintf(out, size, "%s.s%d", row, seed);
}

/* "from": a row, or a row at a ratio ("gqa.cr2"); its cell with the same seed, else with the first. */
static int parent_of(const study *s, const char *from, int seed, const char *where)
{
    char id[256];
    if (!from) return -1;
    snprintf(id, sizeof id, "%s.s%d", from, seed);
    int i = find_cell(s, id);
    for (int k = 0; i < 0 && k < s->n_cells; k++) {
        size_t n = strlen(from);
        if (!strncmp(s->cells[k].id, from, n) && !strncmp(s->cells[k].id + n, ".s", 2)) i = k;
    }
    if (i < 0)
        cli_die("rows can start from rows above them, \"NAME\" or \"NAME.cr4\"", "%s: nothing is called \"%s\"", where,
                from);
    return i;
}

static void add_cell(study *s, study_cell c)
{
    s->cells = dmc_realloc(s->cells, (size_t)s->n_cells + 1, sizeof *s->cells);
    if (!s->cells) cli_die(NULL, "out of memory");
    s->cells[s->n_cells++] = c;
}

/* "seeds" of a row: how many of the study's, for all of its ratios or a list with a number for each. */
static size_t seeds_of(const json_t *row, size_t ratio, size_t n_ratios, size_t most, const char *where)
{
    const json_t *seeds = json_object_get(row, "seeds");
    if (!seeds) return 1;
    if (json_is_array(seeds) && json_array_size(seeds) != n_ratios)
        cli_die(NULL, "%s: \"seeds\" has %zu numbers for %zu ratios", where, json_array_size(seeds), n_ratios);
    const json_t *n = json_is_array(seeds) ? json_array_get(seeds, ratio) : seeds;
    if (!json_is_integer(n) || json_integer_value(n) < 1 || (size_t)json_integer_value(n) > most)
        cli_die(NULL, "%s: \"seeds\" must lie between 1 and the number of the study's seeds, %zu", where, most);
    return (size_t)json_integer_value(n);
}

static void add_row(study *s, int i, const json_t *seeds)
{
    static const char *const known[] = {"name", "title",  "cr",      "seeds", "args", "policy",
                                        "from", "define", "control", "draw",  NULL};
    char where[64], id[256];
    json_t *row = json_array_get(s->rows, (size_t)i);
    snprintf(where, sizeof where, "row %d", i + 1);
    check_keys(row, known, where);
    const char *name = need_string(row, "name", where), *from = string_of(row, "from", where);
    check_name(name, where);
    snprintf(where, sizeof where, "row \"%.40s\"", name);
    json_t *crs = list_of(row, "cr", where), *args = list_of(row, "args", where),
           *policy = list_of(row, "policy", where);
    if (!args == !policy)
        cli_die(NULL, "%s: want either \"args\" (of dmc retrofit) or \"policy\" (of a model as it is)", where);
    const size_t n_ratios = crs ? json_array_size(crs) : 1;
    for (size_t k = 0; k < n_ratios; k++) {
        double cr = crs ? json_number_value(json_array_get(crs, k)) : 0;
        if (crs && !(cr >= 1 && cr <= 1024)) cli_die(NULL, "%s: compression ratios lie between 1 and 1024", where);
        const size_t n_seeds = seeds_of(row, k, n_ratios, json_array_size(seeds), where);
        for (size_t j = 0; j < n_seeds; j++) {
            int seed = (int)json_integer_value(json_array_get(seeds, j));
            name_cell(id, sizeof id, name, cr, seed);
            if (find_cell(s, id) >= 0) cli_die(NULL, "%s: two cells would be called %s", where, id);
            add_cell(s, (study_cell){.id = copy_of(id),
                                     .row = i,
                                     .cr = cr,
                                     .seed = seed,
                                     .from = parent_of(s, from, seed, where),
                                     .trains = args,
                                     .arguments = args ? args : policy});
        }
    }
}

static int find_row(const study *s, const char *name)
{
    for (int i = 0; i < (int)json_array_size(s->rows); i++)
        if (!strcmp(study_row_name(s, i), name)) return i;
    return -1;
}

int study_control(const study *s, int row)
{
    const char *name = string_of(json_array_get(s->rows, (size_t)row), "control", study_row_name(s, row));
    if (!name) return s->reference >= 0 ? s->cells[s->reference].row : -1;
    const int control = find_row(s, name);
    if (control < 0) cli_die(NULL, "row \"%s\": its \"control\" \"%s\" is no row", study_row_name(s, row), name);
    return control;
}

static bool is_reference(const study *s, int cell)
{
    const study_cell *c = &s->cells[cell], *first = &s->cells[s->reference];
    return c->row == first->row && c->cr == first->cr;
}

int study_reference_of(const study *s, int cell)
{
    while (!s->cells[cell].trains && s->cells[cell].from >= 0) cell = s->cells[cell].from; /* whose model it is */
    for (int i = 0; s->reference >= 0 && i < s->n_cells; i++)
        if (is_reference(s, i) && s->cells[i].seed == s->cells[cell].seed) return i;
    return s->reference;
}

int study_last_reference(const study *s)
{
    int last = s->reference;
    for (int i = last; last >= 0 && i < s->n_cells; i++)
        if (is_reference(s, i)) last = i;
    return last;
}

bool study_drawn(const study *s, int row)
{
    return !json_is_false(json_object_get(json_array_get(s->rows, (size_t)row), "draw"));
}

static void check_rows(const study *s, const json_t *rows, const char *where)
{
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const char *name = json_string_value(json_array_get(rows, i));
        if (!name || find_row(s, name) < 0)
            cli_die(NULL, "%s: \"rows\" must hold names of rows; \"%s\" is none", where, name ? name : "?");
    }
}

bool study_measures(const study *s, int cell, int measure)
{
    const study_measure *m = &s->measures[measure];
    if (!m->command) return false;
    for (size_t i = 0; i < json_array_size(m->rows); i++)
        if (find_row(s, json_string_value(json_array_get(m->rows, i))) == s->cells[cell].row) return true;
    return !m->rows;
}

/* The measure takes another value from the result of one above it. */
static void take_over(const study *s, study_measure *m, const char *of, const char *where)
{
    const study_measure *other = s->measures;
    if (m->command) cli_die(NULL, "%s: want either \"command\" or \"of\"", where);
    while (other < m && (other->result != other->name || strcmp(other->name, of) != 0)) other++;
    if (other == m) cli_die(NULL, "%s: no measure with a command above it is called \"%s\"", where, of);
    m->result = other->name;
}

static void read_measures(study *s)
{
    static const char *const known[] = {"name", "title", "command", "of", "rows", "value", "better", "bytes", NULL};
    json_t *list = list_of(s->file, "measures", "the study");
    s->n_measures = list ? (int)json_array_size(list) : 0;
    if (!s->n_measures) cli_die(NULL, "the study has no \"measures\"");
    cli_check(dmc_array(&s->measures, (size_t)s->n_measures, sizeof *s->measures));
    for (int i = 0; i < s->n_measures; i++) {
        char where[64];
        json_t *m = json_array_get(list, (size_t)i);
        snprintf(where, sizeof where, "measure %d", i + 1);
        check_keys(m, known, where);
        study_measure *out = &s->measures[i];
        const char *better = string_of(m, "better", where), *of = string_of(m, "of", where);
        *out = (study_measure){.name = need_string(m, "name", where),
                               .title = string_of(m, "title", where),
                               .result = string_of(m, "name", where),
                               .value = need_string(m, "value", where),
                               .command = list_of(m, "command", where),
                               .rows = list_of(m, "rows", where),
                               .bytes = json_is_true(json_object_get(m, "bytes")),
                               .higher = better && !strcmp(better, "higher")};
        check_name(out->name, where);
        if (!out->title) out->title = out->name;
        if (better && strcmp(better, "higher") && strcmp(better, "lower"))
            cli_die(NULL, "%s: \"better\" is \"higher\" or \"lower\"", where);
        check_rows(s, out->rows, where);
        if (of) take_over(s, out, of, where);
        else if (!out->command || !json_array_size(out->command))
            cli_die(NULL, "%s: \"command\" is missing, or \"of\", a measure above it", where);
    }
}

void study_read(study *s, const char *path, const char *dir)
{
    static const char *const known[] = {"title", "define",   "base",      "retrofit", "seeds",
                                        "rows",  "measures", "reference", NULL};
    static const char *const base_known[] = {"model", "train", NULL};
    json_error_t error;
    *s = (study){.dir = copy_of(dir), .reference = -1};
    if (!dmc_exists(path)) cli_die(NULL, "%s: there is no such file", path);
    s->file = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (!s->file) cli_die(NULL, "%s: line %d: %s", path, error.line, error.text);
    check_keys(s->file, known, path);
    json_t *base = json_object_get(s->file, "base"), *seeds = list_of(s->file, "seeds", path);
    if (!base)
        cli_die(NULL, "%s: \"base\" is missing: {\"model\": PATH} or {\"train\": [arguments of dmc train]}", path);
    check_keys(base, base_known, "\"base\"");
    s->title = string_of(s->file, "title", path);
    if (!s->title) s->title = "study";
    s->base = string_of(base, "model", "\"base\"");
    s->base_train = list_of(base, "train", "\"base\"");
    if (!s->base == !s->base_train) cli_die(NULL, "\"base\": want either \"model\" or \"train\"");
    s->rows = list_of(s->file, "rows", path);
    if (!s->rows || !json_array_size(s->rows)) cli_die(NULL, "%s: there are no \"rows\"", path);
    json_t *one = seeds ? NULL : json_pack("[i]", 1);
    for (size_t i = 0; seeds && i < json_array_size(seeds); i++) {
        json_int_t seed = json_integer_value(json_array_get(seeds, i));
        if (seed < 1 || seed > 1000000000) cli_die(NULL, "%s: seeds are whole numbers from 1 to 1000000000", path);
    }
    for (int i = 0; i < (int)json_array_size(s->rows); i++) add_row(s, i, seeds ? seeds : one);
    json_decref(one);
    read_measures(s);
    const char *reference = string_of(s->file, "reference", path);
    if (reference) s->reference = parent_of(s, reference, s->cells[0].seed, "\"reference\"");
    for (int i = 0; i < (int)json_array_size(s->rows); i++) study_control(s, i); /* dies if it is no row */
    for (int i = 0; i < s->n_cells; i++) /* every $word is known, before anything runs */
        for (int m = -1; m < s->n_measures; m++)
            if (m < 0 || study_measures(s, i, m))
                json_decref(study_expand(s, m < 0 ? s->cells[i].arguments : s->measures[m].command, i));
}

void study_free(study *s)
{
    for (int i = 0; i < s->n_cells; i++) dmc_free(s->cells[i].id);
    dmc_free(s->cells);
    dmc_free(s->measures);
    dmc_free(s->dir);
    json_decref(s->file);
    *s = (study){0};
}

const char *study_row_name(const study *s, int row)
{
    return json_string_value(json_object_get(json_array_get(s->rows, (size_t)row), "name"));
}

const char *study_row_title(const study *s, int row)
{
    const json_t *r = json_array_get(s->rows, (size_t)row), *title = json_object_get(r, "title");
    return json_string_value(title ? title : json_object_get(r, "name"));
}

/* ---- paths ---- */

static char *path_of(const study *s, const char *folder, int cell, const char *name, const char *ending)
{
    char path[4096];
    int n = snprintf(path, sizeof path, "%s/%s/%s%s%s%s", s->dir, folder, cell < 0 ? "base" : s->cells[cell].id,
                     name ? "." : "", name ? name : "", ending);
    if (n >= (int)sizeof path) cli_die(NULL, "%s: the path is too long", s->dir);
    return copy_of(path);
}

char *study_model_path(const study *s, int cell)
{
    if (cell >= 0 && !s->cells[cell].trains) return study_model_path(s, s->cells[cell].from);
    if (cell >= 0 || !s->base) return path_of(s, "models", cell, NULL, ".gguf");
    return copy_of(s->base);
}

void study_record_path(char out[STUDY_PATH], const char *result) { snprintf(out, STUDY_PATH, "%s.command", result); }

json_t *study_record(const char *result)
{
    char path[STUDY_PATH];
    study_record_path(path, result);
    return json_load_file(path, 0, NULL);
}

char *study_result_path(const study *s, int cell, const char *name)
{
    return path_of(s, "results", cell, name, ".json");
}
char *study_log_path(const study *s, int cell, const char *name) { return path_of(s, "logs", cell, name, ".log"); }

const json_t *study_find(const json_t *result, const char *key)
{
    char part[128];
    while (result && *key) {
        const size_t n = strcspn(key, ".");
        if (n >= sizeof part) return NULL;
        memcpy(part, key, n), part[n] = 0;
        char *end = part;
        const size_t item = strtoul(part, &end, 10);
        if (!json_is_array(result)) result = json_object_get(result, part);
        else result = end != part && !*end ? json_array_get(result, item) : NULL;
        key += n + (key[n] == '.');
    }
    return result;
}

/* ---- $words ---- */

static void push(json_t *list, const char *text)
{
    if (json_array_append_new(list, json_string(text))) cli_die(NULL, "\"%s\" is not UTF-8", text);
}

/* A word of the file: "define" of the row, then of the study, then those of the cell. */
static void put_word(json_t *out, const study *s, const char *word, int cell)
{
    const study_cell *c = cell >= 0 ? &s->cells[cell] : NULL;
    const json_t *row = c ? json_array_get(s->rows, (size_t)c->row) : NULL;
    const json_t *defined = json_object_get(json_object_get(row, "define"), word);
    if (!defined) defined = json_object_get(json_object_get(s->file, "define"), word);
    char number[32] = "", *path = NULL;
    if (json_is_string(defined)) {
        push(out, json_string_value(defined));
        return;
    }
    if (json_is_array(defined)) {
        for (size_t i = 0; i < json_array_size(defined); i++) {
            if (!json_is_string(json_array_get(defined, i)))
                cli_die(NULL, "\"define\": \"%s\" must hold strings", word);
            push(out, json_string_value(json_array_get(defined, i)));
        }
        return;
    }
    if (!strcmp(word, "dir")) path = copy_of(s->dir);
    else if (!strcmp(word, "model")) path = study_model_path(s, cell);
    else if (c && !strcmp(word, "reference") && s->reference >= 0)
        path = study_model_path(s, study_reference_of(s, cell));
    else if (c && !strcmp(word, "cr") && c->cr > 0) snprintf(number, sizeof number, "%g", c->cr);
    else if (c && !strcmp(word, "budget") && c->cr > 0) snprintf(number, sizeof number, "%.6f", 1 / c->cr);
    else if (c && !strcmp(word, "seed")) snprintf(number, sizeof number, "%d", c->seed);
    else
        cli_die(
            "\"define\" adds words; $model, $reference, $dir, $cr, $budget and $seed are there where they make sense",
            "%s: nothing is called $%s", c ? c->id : "base", word);
    push(out, path ? path : number);
    dmc_free(path);
}

json_t *study_expand(const study *s, const json_t *list, int cell)
{
    json_t *out = json_array();
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (!text) cli_die(NULL, "%s: arguments are strings, in quotes", cell < 0 ? "base" : s->cells[cell].id);
        if (*text == '$') put_word(out, s, text + 1, cell);
        else push(out, text);
    }
    return out;
}
