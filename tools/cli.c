#include "cli.h"
#include "cli_page.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *command_name = "", *command_summary = "";

void cli_begin(const char *command, const char *summary)
{
    command_name = command;
    command_summary = summary;
}

/* ---- ways to end ------------------------------------------------------------------------------------------------- */

static void say(const char *fmt, va_list args)
{
    fflush(stdout);
    fprintf(stderr, *command_name ? "dmc %s: " : "dmc: ", command_name);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
}

void cli_die(const char *hint, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    say(fmt, args);
    va_end(args);
    if (hint) fprintf(stderr, "hint: %s\n", hint);
    exit(1);
}

void cli_usage(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    say(fmt, args);
    va_end(args);
    fprintf(stderr, *command_name ? "Try 'dmc %s --help'.\n" : "Try 'dmc --help'.\n", command_name);
    exit(2);
}

void cli_warn(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    say(fmt, args);
    va_end(args);
}

void cli_check(dmc_status s)
{
    if (s != DMC_OK) cli_die(NULL, "%s", dmc_last_error());
}

void cli_close_stdout(void)
{
    bool failed = ferror(stdout);
    if (fclose(stdout) != 0 || failed) {
        fprintf(stderr, "dmc: cannot write the output: %s\n", errno ? strerror(errno) : "write error");
        exit(1);
    }
}

/* Memory that lives until the program ends, and is still referred to then. */
static void *keep(size_t bytes)
{
    typedef struct kept {
        struct kept *next;
        max_align_t data[];
    } kept;
    static kept *all;
    kept *k = malloc(sizeof *k + bytes);
    if (!k) cli_die(NULL, "out of memory");
    k->next = all;
    all = k;
    return k->data;
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

/* Edit distance where two letters that changed places count once; a name cut short counts once too. */
static int distance(const char *a, const char *b)
{
    enum { LONGEST = 48 };
    int n = (int)strlen(a), m = (int)strlen(b), d[LONGEST + 1][LONGEST + 1];
    if (n > LONGEST || m > LONGEST) return LONGEST;
    if (n >= 2 && strncmp(a, b, (size_t)n) == 0) return 1;
    for (int i = 0; i <= n; i++) d[i][0] = i;
    for (int j = 0; j <= m; j++) d[0][j] = j;
    for (int i = 1; i <= n; i++) {
        for (int j = 1; j <= m; j++) {
            int best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (d[i - 1][j] + 1 < best) best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best) best = d[i][j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    }
    return d[n][m];
}

const char *cli_nearest(const char *word, const char *const *names, int n)
{
    const char *nearest = NULL;
    int limit = 1 + (int)strlen(word) / 4;
    for (int i = 0; i < n; i++) {
        int d = distance(word, names[i]);
        if (d > limit) continue;
        nearest = names[i];
        limit = d - 1;
    }
    return nearest;
}

/* ---- parsing ----------------------------------------------------------------------------------------------------- */

enum { MOST_OPTIONS = 128 };
static const void *given[MOST_OPTIONS]; /* variables that the user set, in the order of setting */
static int n_given;

bool cli_given(const void *variable)
{
    for (int i = 0; i < n_given; i++)
        if (given[i] == variable) return true;
    return false;
}

typedef struct {
    const cli_command *c;
    bool apply;         /* false: only look for --config and --help */
    int first_given;    /* what this source (file, command line) set starts here in given[] */
    const char *config; /* --config */
    cli_page_kind page; /* --help, --man */
    const char *greedy; /* the last list option that took the arguments after it */
    int n_operands;
    char *message;
    size_t size;
} parser;

static bool wrong(parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool wrong(parser *p, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(p->message, p->size, fmt, args);
    va_end(args);
    return false;
}

static bool is_end(const cli_option *o) { return !o->name && !o->help; }

static const cli_option *find(const cli_command *c, const char *name, size_t n)
{
    for (const cli_option *o = c->options; !is_end(o); o++)
        if (o->name && strlen(o->name) == n && strncmp(o->name, name, n) == 0) return o;
    return NULL;
}

static const cli_option *find_short(const cli_command *c, char letter)
{
    for (const cli_option *o = c->options; !is_end(o); o++)
        if (o->name && letter && o->short_name == letter) return o;
    return NULL;
}

/* "; did you mean --temp?" or "" */
static const char *suggestion(const cli_command *c, const char *name, const char *dashes)
{
    static char text[80];
    const char *names[MOST_OPTIONS + 2];
    int n = 0;
    for (const cli_option *o = c->options; !is_end(o); o++)
        if (o->name && n < MOST_OPTIONS) names[n++] = o->name;
    names[n++] = "help";
    names[n++] = "config";
    const char *nearest = cli_nearest(name, names, n);
    text[0] = 0;
    if (nearest) snprintf(text, sizeof text, "; did you mean %s%s?", dashes, nearest);
    return text;
}

/* Index of value in "a|b|c", or -1. */
static int choice_index(const char *choices, const char *value)
{
    size_t n = strlen(value);
    for (int i = 0;; i++) {
        const char *bar = strchr(choices, '|');
        size_t length = bar ? (size_t)(bar - choices) : strlen(choices);
        if (length == n && strncmp(choices, value, n) == 0) return i;
        if (!bar) return -1;
        choices = bar + 1;
    }
}

static bool parse_flag(bool *out, const char *value)
{
    static const char *const words[2][4] = {{"false", "no", "off", "0"}, {"true", "yes", "on", "1"}};
    for (int truth = 0; truth < 2; truth++)
        for (int i = 0; i < 4; i++)
            if (strcmp(value, words[truth][i]) == 0) {
                *out = truth;
                return true;
            }
    return false;
}

static bool check_range(parser *p, const cli_option *o, const char *shown, const char *value, double x)
{
    char range[64];
    if (!(o->min < o->max) || (x >= o->min && x <= o->max)) return true;
    cli_range_text(o, range, sizeof range);
    return wrong(p, "%s: %s is out of range, it must be %s", shown, value, range);
}

static bool set_integer(parser *p, const cli_option *o, const char *value, const char *shown)
{
    char *end;
    errno = 0;
    long long x = o->choices ? choice_index(o->choices, value) : strtoll(value, &end, 10);
    if (o->choices && x < 0) return wrong(p, "%s: '%s' is not one of %s", shown, value, o->choices);
    if (!o->choices && (end == value || *end)) return wrong(p, "%s: '%s' is not a whole number", shown, value);
    if (!o->choices && !check_range(p, o, shown, value, (double)x)) return false;
    bool fits = errno == 0 && (o->kind == CLI_INT64 || (o->kind == CLI_INT && x >= INT32_MIN && x <= INT32_MAX) ||
                               (o->kind == CLI_UNSIGNED && x >= 0 && x <= UINT32_MAX));
    if (!fits) return wrong(p, "%s: %s is too large", shown, value);
    if (o->kind == CLI_INT64) *(int64_t *)o->value = x;
    if (o->kind == CLI_INT) *(int *)o->value = (int)x;
    if (o->kind == CLI_UNSIGNED) *(unsigned *)o->value = (unsigned)x;
    return true;
}

static bool set_real(parser *p, const cli_option *o, const char *value, const char *shown)
{
    char *end;
    double x = strtod(value, &end);
    if (end == value || *end || !isfinite(x)) return wrong(p, "%s: '%s' is not a number", shown, value);
    if (!check_range(p, o, shown, value, x)) return false;
    if (o->kind == CLI_FLOAT) *(float *)o->value = (float)x;
    if (o->kind == CLI_DOUBLE) *(double *)o->value = x;
    return true;
}

static void append(cli_list *list, const char *value)
{
    if ((list->n & (list->n - 1)) == 0) { /* full: the capacity is the next power of two */
        const char **items = keep(sizeof *items * (list->n ? 2 * (size_t)list->n : 1));
        if (list->n) memcpy(items, list->items, sizeof *items * (size_t)list->n);
        list->items = items;
    }
    list->items[list->n++] = value;
}

/* Gives an option its value. `shown` is how the user wrote the option. */
static bool set(parser *p, const cli_option *o, const char *value, const char *shown)
{
    if (!p->apply) return true;
    bool again = false;
    for (int i = p->first_given; i < n_given; i++) again |= given[i] == o->value;
    if (!again && n_given < MOST_OPTIONS) given[n_given++] = o->value;

    switch (o->kind) {
    case CLI_FLAG:
        if (!parse_flag(o->value, value)) return wrong(p, "%s: '%s' is neither true nor false", shown, value);
        return true;
    case CLI_INT:
    case CLI_UNSIGNED:
    case CLI_INT64: return set_integer(p, o, value, shown);
    case CLI_FLOAT:
    case CLI_DOUBLE: return set_real(p, o, value, shown);
    case CLI_STRING:
        if (o->choices && choice_index(o->choices, value) < 0)
            return wrong(p, "%s: '%s' is not one of %s", shown, value, o->choices);
        *(const char **)o->value = value;
        return true;
    case CLI_LIST:
        if (!again) *(cli_list *)o->value = (cli_list){0}; /* the command line replaces what the file listed */
        append(o->value, value);
        return true;
    }
    return true;
}

static bool looks_like_option(const cli_command *c, const char *arg)
{
    if (arg[0] != '-' || !arg[1]) return false;
    if (arg[1] != '-') return !arg[2] && find_short(c, arg[1]);
    if (strncmp(arg, "--no-", 5) == 0 && find(c, arg + 5, strlen(arg + 5))) return true;
    return find(c, arg + 2, strcspn(arg + 2, "=")) != NULL;
}

/* Values of an option from the arguments after it; *i is the last argument used. */
static bool take_values(parser *p, const cli_option *o, const char *shown, int argc, char **argv, int *i)
{
    if (*i + 1 >= argc) return wrong(p, "%s needs a value", shown);
    if (looks_like_option(p->c, argv[*i + 1]))
        return wrong(p, "%s needs a value, but %s follows (if that is the value, write %s=%s)", shown, argv[*i + 1],
                     shown, argv[*i + 1]);
    if (!set(p, o, argv[++*i], shown)) return false;
    if (o->kind != CLI_LIST) return true;
    while (*i + 1 < argc && (argv[*i + 1][0] != '-' || !argv[*i + 1][1])) {
        if (!set(p, o, argv[++*i], shown)) return false;
        p->greedy = shown;
    }
    return true;
}

static bool long_option(parser *p, int argc, char **argv, int *i)
{
    char *arg = argv[*i], *name = arg + 2;
    size_t n = strcspn(name, "=");
    const char *value = name[n] ? name + n + 1 : NULL;
    const cli_option *o = find(p->c, name, n);
    char *shown = keep(n + 3);
    memcpy(shown, arg, n + 2);
    shown[n + 2] = 0;

    if (o && value) return set(p, o, value, shown);
    if (o && o->kind == CLI_FLAG) return set(p, o, "true", shown);
    if (o) return take_values(p, o, shown, argc, argv, i);
    if (strncmp(name, "no-", 3) == 0 && (o = find(p->c, name + 3, n - 3)) && o->kind == CLI_FLAG && !value)
        return set(p, o, "false", shown);
    if (strcmp(name, "help") == 0) {
        p->page = CLI_PAGE_HELP;
        return true;
    }
    if (strcmp(name, "man") == 0) {
        p->page = CLI_PAGE_MAN;
        return true;
    }
    if (strcmp(shown, "--config") == 0) {
        if (!value && *i + 1 < argc) value = argv[++*i];
        p->config = value;
        return value ? true : wrong(p, "--config needs a value");
    }
    return wrong(p, "unknown option %s%s", shown, suggestion(p->c, shown + 2, "--"));
}

/* -n 5, -n5, and flags in a row. */
static bool short_options(parser *p, int argc, char **argv, int *i)
{
    for (char *letter = argv[*i] + 1; *letter; letter++) {
        const cli_option *o = find_short(p->c, *letter);
        char *shown = keep(3);
        memcpy(shown, (char[]){'-', *letter, 0}, 3);
        if (!o && *letter == 'h') {
            p->page = CLI_PAGE_HELP;
            return true;
        }
        if (!o) return wrong(p, "unknown option %s", shown);
        if (o->kind != CLI_FLAG && letter[1]) return set(p, o, letter + 1, shown);
        if (o->kind != CLI_FLAG) return take_values(p, o, shown, argc, argv, i);
        if (!set(p, o, "true", shown)) return false;
    }
    return true;
}

static bool operand(parser *p, const char *arg)
{
    const cli_operand *o = p->c->operands;
    for (int i = 0; o && o->name && i < p->n_operands; i++) o++;
    if (!o || !o->name) return wrong(p, "'%s' is one argument too many", arg);
    if (o->choices && choice_index(o->choices, arg) < 0)
        return wrong(p, "%s: '%s' is not one of %s", o->name, arg, o->choices);
    if (p->apply) *o->value = arg;
    p->n_operands++;
    return true;
}

static bool command_line(parser *p, int argc, char **argv)
{
    bool options = true;
    p->n_operands = 0;
    p->first_given = n_given;
    for (int i = 1; i < argc; i++) {
        bool ok;
        if (options && strcmp(argv[i], "--") == 0) {
            options = false;
            continue;
        }
        if (!options || argv[i][0] != '-' || !argv[i][1]) ok = operand(p, argv[i]);
        else if (argv[i][1] == '-') ok = long_option(p, argc, argv, &i);
        else ok = short_options(p, argc, argv, &i);
        if (p->page) return true; /* whatever else is wrong: the user wants to read */
        if (!ok) return false;
    }
    return true;
}

/* ---- configuration files ----------------------------------------------------------------------------------------- */

static char *trim(char *s)
{
    while (isspace((unsigned char)*s)) s++;
    char *end = s + strlen(s);
    while (end > s && isspace((unsigned char)end[-1])) *--end = 0;
    return s;
}

/* The value with its comment cut off; in quotes, what is between them. NULL if a quote is not closed. */
static char *config_value(char *s)
{
    if (*s == '"') {
        char *close = strchr(s + 1, '"');
        if (!close) return NULL;
        char *rest = trim(close + 1);
        if (*rest && *rest != '#') return NULL;
        *close = 0;
        return s + 1;
    }
    for (char *c = s; *c; c++)
        if (*c == '#' && (c == s || isspace((unsigned char)c[-1]))) {
            *c = 0;
            break;
        }
    return trim(s);
}

static bool config_line(parser *p, char *line, int number)
{
    char shown[256], *key = trim(line);
    if (!*key || *key == '#') return true;
    char *equals = strchr(key, '=');
    if (!equals) return wrong(p, "%s:%d: expected 'name = value', found '%.60s'", p->config, number, key);
    *equals = 0;
    char *value = config_value(trim(equals + 1));
    key = trim(key);
    if (!value) return wrong(p, "%s:%d: %s: the quotes do not match", p->config, number, key);
    const cli_option *o = find(p->c, key, strlen(key));
    if (!o) return wrong(p, "%s:%d: unknown option '%.60s'%s", p->config, number, key, suggestion(p->c, key, ""));
    snprintf(shown, sizeof shown, "%.180s:%d: %s", p->config, number, o->name);
    char *kept = strcpy(keep(strlen(value) + 1), value);
    return set(p, o, kept, shown);
}

static bool config_file(parser *p)
{
    p->first_given = n_given;
    FILE *f = fopen(p->config, "r");
    if (!f) return wrong(p, "--config: cannot read %s: %s", p->config, strerror(errno));
    char *line = NULL;
    size_t cap = 0;
    bool ok = true;
    for (int number = 1; ok && getline(&line, &cap, f) >= 0; number++) ok = config_line(p, line, number);
    if (ok && ferror(f)) ok = wrong(p, "--config: cannot read %s: %s", p->config, strerror(errno));
    free(line);
    fclose(f);
    return ok;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static bool check_complete(parser *p)
{
    const cli_operand *operands = p->c->operands;
    for (int i = 0; operands && operands[i].name; i++) {
        if (i < p->n_operands || operands[i].optional) continue;
        if (p->greedy)
            return wrong(p, "%s is missing (%s takes every argument up to the next option: put %s before it)",
                         operands[i].name, p->greedy, operands[i].name);
        return wrong(p, "%s is missing", operands[i].name);
    }
    for (const cli_option *o = p->c->options; !is_end(o); o++)
        if (o->name && o->required && !cli_given(o->value))
            return wrong(p, "--%s %s is missing", o->name, o->arg ? o->arg : "");
    return true;
}

cli_result cli_try_parse(const cli_command *c, int argc, char **argv, char *message, size_t size)
{
    parser p = {.c = c, .message = message, .size = size};
    n_given = 0;
    bool ok = command_line(&p, argc, argv);
    if (ok && p.page) {
        cli_page(p.page, command_name, command_summary, c);
        return CLI_PAGE;
    }
    p.apply = true;
    ok = ok && (!p.config || config_file(&p)) && command_line(&p, argc, argv) && check_complete(&p);
    return ok ? CLI_OK : CLI_WRONG;
}

void cli_parse(const cli_command *c, int argc, char **argv)
{
    char message[512];
    switch (cli_try_parse(c, argc, argv, message, sizeof message)) {
    case CLI_OK: return;
    case CLI_WRONG: cli_usage("%s", message);
    case CLI_PAGE: cli_close_stdout(); exit(0);
    }
}

bool cli_same_place(const char *a, const char *b)
{
    char *x = realpath(a, NULL), *y = realpath(b, NULL);
    bool same = x && y && strcmp(x, y) == 0;
    free(x);
    free(y);
    return same;
}

bool cli_ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n > m && strcmp(text + n - m, end) == 0;
}
