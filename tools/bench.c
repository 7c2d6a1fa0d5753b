/* dmc bench: how fast a model runs, against depth, batch and compression. */
#include "bench.h"

#include "base/base.h"
#include "cli.h"
#include "commands.h"
#include "json_out.h"
#include "progress.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_VALUES = 32, MAX_ROWS = 4096 };

typedef struct {
    const char *work, *depth, *batch, *cr, *kv, *math; /* lists between commas */
    const char *csv;
    bool json, limits, quiet, no_color;
    bench_setup setup;
} command;

/* ---- lists ---- */

/* The next of the values between commas; false behind the last. */
static bool next_value(const char **list, char *out, size_t size)
{
    size_t n = strcspn(*list, ",");
    if (**list == 0) return false;
    snprintf(out, size, "%.*s", (int)n, *list);
    *list += n + ((*list)[n] == ',');
    return true;
}

static int numbers(const char *option, const char *list, double min, double max, bool whole, double *out)
{
    int n = 0;
    char value[32], *end;
    while (next_value(&list, value, sizeof value)) {
        double x = strtod(value, &end);
        if (end == value || *end || !(x >= min && x <= max) || (whole && x != floor(x)))
            cli_usage("--%s: '%s' is no %s from %g to %g", option, value, whole ? "whole number" : "number", min, max);
        if (n == MAX_VALUES) cli_usage("--%s: at most %d values", option, MAX_VALUES);
        out[n++] = x;
    }
    if (n == 0) cli_usage("--%s: the list is empty", option);
    return n;
}

static int names(const char *option, const char *list, const char *const *known, int n_known, int *out)
{
    int n = 0;
    char value[32];
    while (next_value(&list, value, sizeof value)) {
        int i = 0;
        while (i < n_known && strcmp(known[i], value) != 0) i++;
        if (i == n_known) {
            char choices[128] = "";
            for (int k = 0, at = 0; k < n_known && at < (int)sizeof choices; k++)
                at += snprintf(choices + at, sizeof choices - (size_t)at, "%s%s", k ? ", " : "", known[k]);
            cli_usage("--%s: '%s' is none of %s", option, value, choices);
        }
        if (n == MAX_VALUES) cli_usage("--%s: at most %d values", option, MAX_VALUES);
        out[n++] = i;
    }
    if (n == 0) cli_usage("--%s: the list is empty", option);
    return n;
}

/* ---- rows ---- */

typedef struct {
    bench_case *cases;
    int n;
} plan;

static void add_case(plan *p, bench_case c)
{
    if (p->n == MAX_ROWS) cli_usage("more than %d rows", MAX_ROWS);
    p->cases[p->n++] = c;
}

/* Every combination of what matters to each kind of work. */
static plan make_plan(const command *c)
{
    double depths[MAX_VALUES], batches[MAX_VALUES], crs[MAX_VALUES];
    int works[MAX_VALUES], kvs[MAX_VALUES], maths[MAX_VALUES];
    int n_works = names("work", c->work, bench_work_names, BENCH_WORKS, works);
    int n_depths = numbers("depth", c->depth, 0, 1 << 30, true, depths);
    int n_batches = numbers("batch", c->batch, 1, 1 << 16, true, batches);
    int n_crs = numbers("cr", c->cr, 1, 1000, false, crs);
    int n_kvs = names("kv", c->kv, bench_kv_names, DMC_KV_COUNT, kvs);
    int n_maths = names("math", c->math, bench_math_names, 2, maths);
    plan p = {.cases = calloc(MAX_ROWS, sizeof *p.cases)};
    if (!p.cases) cli_die(NULL, "out of memory");
    for (int w = 0; w < n_works; w++) {
        bench_work work = (bench_work)works[w];
        bool cache = work == BENCH_PREFILL || work == BENCH_DECODE, load = work == BENCH_LOAD,
             train = work == BENCH_TRAIN;
        if (load && !c->setup.model) cli_usage("--work load reads a file: name a MODEL");
        for (int m = 0; m < n_maths; m++)
            for (int k = 0; k < (train ? 1 : n_kvs); k++)
                for (int r = 0; r < (load ? 1 : n_crs); r++)
                    for (int b = 0; b < (load ? 1 : n_batches); b++)
                        for (int d = 0; d < (cache ? n_depths : 1); d++)
                            add_case(&p, (bench_case){.work = work,
                                                      .depth = cache ? (int)depths[d] : 0,
                                                      .batch = load ? 1 : (int)batches[b],
                                                      .cr = load ? 1 : crs[r],
                                                      .kv = (dmc_kv_type)kvs[k],
                                                      .math = (dmc_math)maths[m]});
    }
    return p;
}

/* ---- a row in a process of its own ----
 * So that its peak memory is its own, and a model that cannot run takes no other row along. */

typedef struct {
    double done;
    bool ended;
    dmc_status status;
    bench_result result;
    char error[512];
} message; /* written at once: shorter than PIPE_BUF */

static void send_message(int to, const message *m)
{
    if (write(to, m, sizeof *m) != (ssize_t)sizeof *m) _exit(1);
}

static void send_progress(void *to, double done) { send_message(*(int *)to, &(message){.done = done}); }

static int64_t peak_rss(void)
{
    char line[128];
    long long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %lld", &kib) == 1) break;
    if (f) fclose(f);
    return kib * 1024;
}

static int threads_of(const bench_setup *s)
{
    return s->engine.n_threads > 0 ? s->engine.n_threads : dmc_threads_cores();
}

/* limits[0] of one thread, limits[1] of all. */
static dmc_status measure_limits(dmc_limits limits[2], const bench_setup *s)
{
    dmc_threads *team;
    const dmc_kernels *tier = dmc_kernels_pick(s->engine.tier);
    if (!tier) return dmc_fail(DMC_ERR_ARG, "this machine cannot run kernel tier %d", s->engine.tier);
    DMC_TRY(dmc_threads_create(&team, threads_of(s), s->engine.pin));
    dmc_status status = dmc_limits_measure(&limits[0], tier, NULL);
    if (status == DMC_OK) status = dmc_limits_measure(&limits[1], tier, team);
    dmc_threads_close(team);
    return status;
}

_Noreturn static void run_child(int to, const bench_setup *s, const bench_case *c, const dmc_limits *limits)
{
    message m = {.ended = true, .result.threads = threads_of(s)};
    bench_run run = {.setup = s, .c = c, .tick = send_progress, .to = &to};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    m.status = c->work == BENCH_TRAIN ? bench_train(&m.result, &run) : bench_serve(&m.result, &run);
    if (m.status != DMC_OK) snprintf(m.error, sizeof m.error, "%s", dmc_last_error());
    else if (limits) m.result.floor_seconds = bench_floor(&m.result, c, limits);
    m.result.peak_rss_bytes = peak_rss();
    send_message(to, &m);
    _exit(0);
}

static pid_t start_child(int *from, const bench_setup *s, const bench_case *c, const dmc_limits *limits)
{
    int ends[2];
    fflush(NULL);
    if (pipe(ends) != 0) cli_die(NULL, "cannot make a pipe: %s", strerror(errno));
    pid_t child = fork();
    if (child < 0) cli_die(NULL, "cannot start a process: %s", strerror(errno));
    if (child == 0) {
        close(ends[0]);
        run_child(ends[1], s, c, limits);
    }
    close(ends[1]);
    *from = ends[0];
    return child;
}

enum { PARTS = 1000 }; /* of a row's progress */

/* Whether there is a result. */
static bool run_row(bench_result *out, const bench_setup *s, const bench_case *c, const dmc_limits *limits, progress *p,
                    int64_t done)
{
    int from, how;
    message m = {0};
    pid_t child = start_child(&from, s, c, limits);
    ssize_t n;
    while (!m.ended && ((n = read(from, &m, sizeof m)) == (ssize_t)sizeof m || (n < 0 && errno == EINTR)))
        if (n > 0)
            progress_update(p, done + (int64_t)(m.done * PARTS), "%s depth %d batch %d CR %g",
                            bench_work_names[c->work], c->depth, c->batch, c->cr);
    close(from);
    while (waitpid(child, &how, 0) < 0 && errno == EINTR) continue;
    if (m.ended && m.status == DMC_OK) {
        *out = m.result;
        return true;
    }
    if (!m.ended && WIFSIGNALED(how))
        snprintf(m.error, sizeof m.error, "the measurement died: %s", strsignal(WTERMSIG(how)));
    else if (!m.ended) snprintf(m.error, sizeof m.error, "the measurement ended early");
    if (p->o.quiet) cli_warn("%s", m.error);
    else progress_note(p, "dmc bench: %s", m.error);
    return false;
}

/* The same in a process of its own: its threads and memory are gone before rows are measured. */
static void limits_in_child(dmc_limits limits[2], const bench_setup *s)
{
    int ends[2], how;
    fflush(NULL);
    if (pipe(ends) != 0) cli_die(NULL, "cannot make a pipe: %s", strerror(errno));
    pid_t child = fork();
    if (child < 0) cli_die(NULL, "cannot start a process: %s", strerror(errno));
    if (child == 0) {
        cli_check(measure_limits(limits, s));
        _exit(write(ends[1], limits, 2 * sizeof *limits) != (ssize_t)(2 * sizeof *limits));
    }
    close(ends[1]);
    bool whole = read(ends[0], limits, 2 * sizeof *limits) == (ssize_t)(2 * sizeof *limits);
    close(ends[0]);
    while (waitpid(child, &how, 0) < 0 && errno == EINTR) continue;
    if (!whole && WIFSIGNALED(how))
        cli_die("free some memory, or allow this memory cgroup more",
                "the limits of the machine: ended by signal %d (%s)", WTERMSIG(how), strsignal(WTERMSIG(how)));
    if (!whole) exit(1); /* the reason was printed */
}

/* ---- the command ---- */

static int print_limits(const command *c)
{
    dmc_limits limits[2];
    cli_check(measure_limits(limits, &c->setup));
    if (c->json) json_print(bench_json_limits(limits, threads_of(&c->setup)));
    else bench_print_limits(limits, threads_of(&c->setup));
    return 0;
}

static void print_rows(const command *c, const plan *p, const bench_result *results)
{
    if (!c->json) {
        bench_print_table(&c->setup, p->cases, results, p->n);
        return;
    }
    json_t *rows = json_new_array();
    for (int i = 0; i < p->n; i++)
        if (results[i].seconds > 0) json_push(rows, bench_json_row(&c->setup, &p->cases[i], &results[i]));
    json_print(rows);
}

static int measure(const command *c)
{
    plan p = make_plan(c);
    bench_result *results = calloc((size_t)p.n, sizeof *results);
    const origin here = origin_here();
    dmc_limits limits[2];
    progress bar;
    int failed = 0;
    if (!results) cli_die(NULL, "out of memory");
    if (c->setup.floor) limits_in_child(limits, &c->setup);
    if (c->setup.floor && !c->json) {
        bench_print_limits(limits, threads_of(&c->setup));
        putchar('\n');
    }
    progress_start(&bar,
                   &(progress_options){
                       .title = "bench", .total = (int64_t)p.n * PARTS, .quiet = c->quiet, .no_color = c->no_color});
    for (int i = 0; i < p.n; i++) {
        if (!run_row(&results[i], &c->setup, &p.cases[i], c->setup.floor ? &limits[1] : NULL, &bar, (int64_t)i * PARTS))
            failed++;
        else if (c->csv) cli_check(bench_append_csv(c->csv, &here, &c->setup, &p.cases[i], &results[i]));
    }
    progress_end(&bar);
    if (failed < p.n || c->json) print_rows(c, &p, results);
    free(results);
    free(p.cases);
    return failed ? 1 : 0;
}

static const char about[] =
    "Measures every combination of --work, --depth, --batch, --cr, --kv and --math, each in a process of its own, which opens the "
    "model, so that peak memory is that of the row alone. With --shape that counts the weights as they were made, too: for memory, name "
    "a MODEL that 'dmc convert --random' wrote.\n\n"
    "prefill times --prompt tokens a sequence behind --depth others. decode times --generate steps from --depth on, one token for each "
    "of the sequences, which have caches of their own. Both repeat from the same state. load times from opening MODEL to the first "
    "token of a prompt of 16. train times steps over --batch sequences of --ctx tokens with random weights.\n\n"
    "--cr above 1 makes any model merge, by a fixed rule that lets heads differ tenfold in length; in training it turns soft decisions "
    "on. Tokens per second count all sequences; the spread is the interquartile range over the median. Bytes are what must be read at "
    "least, weights once a step and every slot; operations likewise. The floor is the larger of the times that both take at the "
    "limits of the machine, measured in the same run; it is passed where a model fits into a cache of the processor.";

int cmd_bench(int argc, char **argv)
{
    command c = {.work = "prefill,decode", .depth = "0", .batch = "1", .cr = "1", .kv = "auto", .math = "f32"};
    bench_setup *s = &c.setup;
    *s = (bench_setup){.type = "q8_0",
                       .prompt = 512,
                       .generate = 32,
                       .ctx = 256,
                       .chunk = 512,
                       .repeat = 5,
                       .floor = true,
                       .policy = policy_options_default()};
    s->engine = dmc_engine_options_default();
    const cli_option options[] = {
        CLI_OPTION("shape", 0, &s->shape, .choices = "tiny|15m|110m|1b|llama2-7b|llama3-8b", .arg = "SHAPE", .def = "",
                   .help = "random weights of this shape instead of MODEL"),
        CLI_OPTION("type", 't', &s->type, .choices = "f32|f16|bf16|q8_0|q4_0|q4_k|q5_k|q6_k",
                   .help = "of their matrices"),
        CLI_OPTION("work", 0, &c.work, .arg = "LIST", .help = "of prefill, decode, load, train"),
        CLI_OPTION("depth", 0, &c.depth, .arg = "LIST", .help = "tokens that are in the cache before"),
        CLI_OPTION("batch", 0, &c.batch, .arg = "LIST", .help = "sequences at a time"),
        CLI_OPTION("cr", 0, &c.cr, .arg = "LIST", .help = "compression ratios"),
        CLI_OPTION("kv", 0, &c.kv, .arg = "LIST", .help = "types of the cache: auto, f32, f16, bf16, q8, q4"),
        CLI_OPTION("math", 0, &c.math, .arg = "LIST",
                   .help = "products with F32 and F16 weights, and training: f32, bf16"),
        CLI_POLICY_OPTIONS(s->policy),
        CLI_HEADING("Amounts"),
        CLI_OPTION("prompt", 0, &s->prompt, .min = 1, .max = 1 << 20, .help = "tokens of a prefill"),
        CLI_OPTION("generate", 0, &s->generate, .min = 1, .max = 1 << 20, .help = "steps of a decode"),
        CLI_OPTION("ctx", 0, &s->ctx, .min = 2, .max = 1 << 20, .help = "tokens of a training sequence"),
        CLI_OPTION("repeat", 0, &s->repeat, .min = 1, .max = 1000, .help = "timed repetitions, after one that is not"),
        CLI_OPTION("chunk", 0, &s->chunk, .min = 1, .max = 512, .help = "tokens of a pass through the model"),
        CLI_OPTION("recompute", 0, &s->recompute, .help = "train: compute activations again instead of keeping them"),
        CLI_HEADING("Machine"),
        CLI_OPTION("limits", 0, &c.limits, .help = "print the machine's limits and measure nothing else"),
        CLI_OPTION("floor", 0, &s->floor, .help = "do without the limits and the floor"),
        CLI_OPTION("threads", 0, &s->engine.n_threads, .arg = "N", .min = 0, .max = 1024, .def = "all cores",
                   .help = "CPU threads"),
        CLI_OPTION("pin", 0, &s->engine.pin, .help = "keep threads on cores of their own"),
        CLI_OPTION("tier", 0, &s->engine.tier, .arg = "N", .min = 0, .max = 4,
                   .help = "kernels: 0 the best there are, 1 reference, 2 AVX2, 3 AVX-512, 4 AMX"),
        CLI_HEADING("Output"),
        CLI_OPTION("json", 0, &c.json, .help = "print one JSON array of rows"),
        CLI_OPTION("csv", 0, &c.csv, .arg = "FILE", .help = "add the rows to a file, with machine, commit and date"),
        CLI_OPTION("quiet", 'q', &c.quiet, .help = "no progress"),
        CLI_OPTION("no-color", 0, &c.no_color, .help = "no colours on the terminal"),
        {0}};
    const cli_operand operands[] = {
        {.name = "MODEL",
         .value = &s->model,
         .optional = true,
         .help = "a Hugging Face directory, a .gguf file, or a llama2.c .bin with its tokenizer beside it"},
        {0}};
    cli_parse(&(cli_command){.options = options,
                             .operands = operands,
                             .about = about,
                             .examples = "dmc bench --shape 110m --depth 0,8192 --cr 1,4\n"
                                         "dmc bench Llama-3.2-1B-dmc8 --work decode --batch 1,16 --json\n"
                                         "dmc bench --limits"},
              argc, argv);
    if (c.limits) return print_limits(&c);
    if (s->policy.name && cli_given(&c.cr)) cli_usage("--cr forces merges; it does not go with --policy");
    if (s->policy.name && c.csv) cli_usage("--csv has no column for --policy; --json shows it");
    if (!s->model == !s->shape)
        cli_usage(s->model ? "MODEL and --shape exclude each other" : "which MODEL, or which --shape?");
    if (s->model && cli_given(&s->type)) cli_usage("--type belongs to --shape");
    if (s->policy.name) { /* what is wrong whatever the model is, before anything is measured */
        dmc_policy p;
        cli_check(policy_choose(&p, &(dmc_info){.head_dim = 2, .policy = dmc_policy_none()}, &s->policy));
    }
    return measure(&c);
}
