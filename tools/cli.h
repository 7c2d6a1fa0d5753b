/* Command lines: one table per subcommand says which options it has; parsing, --help, --config files, man pages and error
 * messages all follow from that table.
 *
 * The default of an option is what its variable holds before cli_parse, so a table points straight into an options
 * struct filled by its _default():
 *
 *     dmc_sampler_options sampler = dmc_sampler_options_default();
 *     cli_list data = {0};
 *     const char *model = NULL;
 *     const cli_option options[] = {
 *         CLI_OPTION("temp", 0, &sampler.temp, .arg = "T", .min = 0, .max = 100, .help = "softmax temperature, 0 is greedy"),
 *         CLI_HEADING("Text"),
 *         CLI_OPTION("data", 0, &data, .arg = "FILE", .required = true, .help = "text to train on"),
 *         {0}};
 *     const cli_operand operands[] = {CLI_MODEL_OPERAND(&model), {0}};
 *     cli_parse(&(cli_command){.options = options, .operands = operands, .about = "..."}, argc, argv);
 *
 * Every command also has --help, --config FILE and, unlisted, --man (its man page as troff).
 * Exit status of the program: 0 done, 1 it failed, 2 it was called wrongly. Strings point into argv or into memory that
 * lives until the program ends.
 */
#ifndef DMC_TOOLS_CLI_H
#define DMC_TOOLS_CLI_H

#include "dmc/dmc.h"

typedef enum { CLI_FLAG, CLI_INT, CLI_UNSIGNED, CLI_INT64, CLI_FLOAT, CLI_DOUBLE, CLI_STRING, CLI_LIST } cli_kind;

/* Values of an option that may be repeated and takes every argument up to the next option. */
typedef struct {
    const char **items;
    int n;
} cli_list;

typedef struct {
    const char *name;    /* without dashes */
    char short_name;     /* 0: none */
    cli_kind kind;       /* follows from the variable */
    void *value;         /* the variable, holding the default */
    const char *arg;     /* what --help calls the value; "N", "X" or "TEXT" if NULL */
    const char *choices; /* "none|dmc": a string is one of them, an integer variable receives the index */
    double min, max;     /* range of a number; unchecked unless min < max. HUGE_VAL is no limit */
    const char *def;     /* the default in words, where its value says too little ("" to say nothing) */
    const char *help;
    bool required;
} cli_option;

/* A flag that is on by default is shown as --no-NAME; --NAME and --no-NAME are understood for every flag.
 * An int64_t variable may be unsigned (seeds, byte counts) if min is 0. */
/* clang-format off */
#define CLI_OPTION(long_name, letter, variable, ...) \
    {.name = long_name, .short_name = letter, .value = variable, .kind = CLI_KIND(variable), __VA_ARGS__}
#define CLI_KIND(variable)                                                                                         \
    _Generic((variable), bool *: CLI_FLAG, int *: CLI_INT, unsigned *: CLI_UNSIGNED, int64_t *: CLI_INT64,         \
             uint64_t *: CLI_INT64, float *: CLI_FLOAT, double *: CLI_DOUBLE, const char **: CLI_STRING,           \
             cli_list *: CLI_LIST)
/* Starts a group of options in --help. */
#define CLI_HEADING(text) {.help = text}
#define CLI_MODEL_OPERAND(variable)            \
    {.name = "MODEL", .value = variable,       \
     .help = "a Hugging Face directory, a .gguf file, or a llama2.c .bin with its tokenizer beside it"}
/* clang-format on */

typedef struct {
    const char *name;    /* "MODEL" */
    const char **value;  /* holding the default, if optional */
    const char *choices; /* as above, or NULL */
    const char *help;
    bool optional; /* only after those that are not */
} cli_operand;

typedef struct {
    const cli_option *options;   /* ends with {0} */
    const cli_operand *operands; /* ends with {0}; NULL: none */
    const char *about;           /* paragraphs between empty lines, for --help and the man page; may be NULL */
    const char *examples;        /* one command a line; may be NULL */
} cli_command;

/* Said once by main before the command runs: "run", "generate text". */
void cli_begin(const char *command, const char *summary);

/* Fills the variables. Prints and exits 0 on --help, exits 2 on an error. The configuration file is read first: the command
 * line wins. */
void cli_parse(const cli_command *c, int argc, char **argv);
/* The same without exiting, for main and tests: the page asked for goes to stdout, an error into message. */
typedef enum { CLI_OK, CLI_PAGE, CLI_WRONG } cli_result;
cli_result cli_try_parse(const cli_command *c, int argc, char **argv, char *message, size_t size);
/* Whether the user set this variable, on the command line or in the configuration file of the last parse. */
bool cli_given(const void *variable);

/* "dmc run: MESSAGE" to stderr and exit status 1; 2 for cli_usage, with a pointer to --help. hint: what to do, or NULL. */
_Noreturn void cli_die(const char *hint, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
_Noreturn void cli_usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void cli_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Dies with dmc_last_error() unless s is DMC_OK. */
void cli_check(dmc_status s);
/* Flushes and closes stdout; dies if something that was printed could not be written. */
void cli_close_stdout(void);

/* Whether two paths name one existing file or directory; whether s ends so. */
bool cli_same_place(const char *a, const char *b);
bool cli_ends_with(const char *s, const char *end);

/* Which of n names the user may have meant by `word`: the nearest by edit distance, or NULL if none is near. */
const char *cli_nearest(const char *word, const char *const *names, int n);

#endif
