/* Running the commands of a study, one after the other, each with all threads, and keeping what each prints. */
#include "cli.h"
#include "origin.h"
#include "progress.h"
#include "study.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct {
    json_t *arguments;  /* behind the program's name */
    char *result, *log; /* where its output goes, on success, and its messages */
    char *model;        /* that it reads */
    char *other;        /* that it reads too: the reference, or NULL */
    char *state;        /* training: there if it was stopped; else NULL */
    const char *value;  /* what the output must have, or NULL */
    const char *dir;    /* the study's */
    char label[256];
} command;

static void command_free(command *c)
{
    json_decref(c->arguments);
    dmc_free(c->result);
    dmc_free(c->log);
    dmc_free(c->model);
    dmc_free(c->other);
    dmc_free(c->state);
}

/* ---- what to run ---- */

static void add(json_t *list, const char *text) { json_array_append_new(list, json_string(text)); }

static void add_list(json_t *list, json_t *more)
{
    json_array_extend(list, more);
    json_decref(more);
}

/* `dmc train` of the base, or `dmc retrofit` of a cell. A run that was stopped left its state file: it goes on. */
static command training_command(const study *s, int cell)
{
    const study_cell *c = cell >= 0 ? &s->cells[cell] : NULL;
    char *out = study_model_path(s, cell), state[4200], number[32];
    command k = {.arguments = json_array(),
                 .dir = s->dir,
                 .result = study_result_path(s, cell, "training"),
                 .log = study_log_path(s, cell, "training")};
    snprintf(state, sizeof state, "%s.state", out);
    add(k.arguments, c ? "retrofit" : "train");
    if (c) {
        k.model = study_model_path(s, c->from);
        add(k.arguments, k.model);
        add_list(k.arguments, study_expand(s, json_object_get(s->file, "retrofit"), cell));
        add_list(k.arguments, study_expand(s, c->arguments, cell));
        snprintf(number, sizeof number, "%d", c->seed);
        add(k.arguments, "--seed"), add(k.arguments, number);
        snprintf(number, sizeof number, "%g", c->cr);
        if (c->cr > 0) add(k.arguments, "--cr"), add(k.arguments, number);
    } else {
        add_list(k.arguments, study_expand(s, s->base_train, -1));
    }
    add(k.arguments, "-o"), add(k.arguments, out), add(k.arguments, "--json");
    k.state = dmc_strdup(state);
    if (!k.state) cli_die(NULL, "out of memory");
    snprintf(k.label, sizeof k.label, "%s", c ? c->id : "base");
    dmc_free(out);
    return k;
}

static command measure_command(const study *s, int cell, int measure)
{
    const study_cell *c = &s->cells[cell];
    const study_measure *m = &s->measures[measure];
    command k = {.arguments = study_expand(s, m->command, cell),
                 .result = study_result_path(s, cell, m->name),
                 .log = study_log_path(s, cell, m->name),
                 .model = study_model_path(s, cell),
                 .value = m->value,
                 .dir = s->dir};
    for (size_t i = 0; i < json_array_size(m->command) && s->reference >= 0; i++)
        if (!strcmp(json_string_value(json_array_get(m->command, i)), "$reference") && !k.other)
            k.other = study_model_path(s, study_reference_of(s, cell));
    if (!c->trains) add_list(k.arguments, study_expand(s, c->arguments, cell));
    add(k.arguments, "--json");
    snprintf(k.label, sizeof k.label, "%s %s", c->id, m->name);
    return k;
}

/* The order: the base, the cells up to the last reference, then cell by cell training and measures, which may need a reference. What the i-th
 * place is for; measure -1: training; cell -1: the base. false: nothing is to be run there. */
static bool place_of(const study *s, int i, int *cell, int *measure)
{
    const int n_early = 1 + study_last_reference(s) + 1, each = 1 + s->n_measures;
    *cell = i < n_early ? i - 1 : (i - n_early) / each;
    *measure = i < n_early ? -1 : (i - n_early) % each - 1;
    if (*measure >= 0) return study_measures(s, *cell, *measure);
    if (*cell < 0) return s->base_train != NULL;
    return s->cells[*cell].trains && (i < n_early || *cell > n_early - 2);
}

static int n_places(const study *s) { return 1 + study_last_reference(s) + 1 + s->n_cells * (1 + s->n_measures); }

/* false: nothing is to be run at this place. */
static bool command_at(command *out, const study *s, int i)
{
    int cell, measure;
    if (!place_of(s, i, &cell, &measure)) return false;
    *out = measure < 0 ? training_command(s, cell) : measure_command(s, cell, measure);
    return true;
}

/* ---- what is there ---- */

/* The arguments with DIR/ in the place of the study's folder, so that it may be moved, or named in another way. */
static json_t *within(const json_t *arguments, const char *dir)
{
    json_t *out = json_array();
    const size_t n = strlen(dir);
    for (size_t i = 0; i < json_array_size(arguments); i++) {
        const char *a = json_string_value(json_array_get(arguments, i));
        const bool inside = a && strncmp(a, dir, n) == 0 && a[n] == '/';
        json_array_append_new(out, inside ? json_sprintf("DIR%s", a + n) : json_string(a));
    }
    return out;
}

/* The command that a result was made by stands beside it, and where it was made; written before the command runs. */
static bool is_recorded(const command *k)
{
    json_t *was = study_record(k->result), *now = within(k->arguments, k->dir);
    /* older folders have the arguments alone, with the folder's name in them */
    json_t *then = within(json_is_array(was) ? was : json_object_get(was, "arguments"), k->dir);
    const bool same = was && json_equal(then, now);
    json_decref(was), json_decref(then), json_decref(now);
    return same;
}

static dmc_status record(const command *k)
{
    const origin here = origin_here();
    json_t *o = json_pack("{s:o, s:s, s:i, s:s}", "arguments", within(k->arguments, k->dir), "machine", here.machine,
                          "cores", here.cores, "commit", here.commit);
    char path[STUDY_PATH], *text = o ? json_dumps(o, JSON_INDENT(1)) : NULL;
    dmc_writer *w;
    dmc_status status;
    json_decref(o);
    study_record_path(path, k->result);
    if (!text) return dmc_fail(DMC_ERR_MEMORY, "out of memory");
    status = dmc_writer_open(&w, path);
    if (status == DMC_OK) {
        dmc_write(w, text, strlen(text));
        status = dmc_writer_commit(w);
    }
    free(text);
    return status;
}

static bool is_newer(const char *a, const char *b)
{
    struct stat x, y;
    if (!a || stat(a, &x) != 0 || stat(b, &y) != 0) return false;
    return x.st_mtim.tv_sec != y.st_mtim.tv_sec ? x.st_mtim.tv_sec > y.st_mtim.tv_sec
                                                : x.st_mtim.tv_nsec > y.st_mtim.tv_nsec;
}

/* Made by this very command from the models that are there now. */
static bool is_done(const command *k)
{
    return dmc_exists(k->result) && is_recorded(k) && !is_newer(k->model, k->result) && !is_newer(k->other, k->result);
}

/* A training run that was stopped goes on, unless its command is another now. */
static const char *last_argument(const command *k)
{
    if (!k->state) return NULL;
    return dmc_exists(k->state) && is_recorded(k) ? "--resume" : "--overwrite";
}

/* ---- running ---- */

static volatile sig_atomic_t stopped;
static volatile pid_t running; /* the command's process; 0: none */

/* For the child too, if it was meant for the study alone; from a terminal it has it already. */
static void stop(int signal)
{
    stopped = signal;
    if (running > 0) kill(running, signal);
}

/* The child's side: does not come back. It does not outlive the study; a training saves its state. */
static _Noreturn void become(const command *k, const char *last, const char *out, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGINT, SIG_DFL), signal(SIGTERM, SIG_DFL);
    if (getppid() != parent || stopped) _exit(126); /* what came before these lines */
    size_t n = json_array_size(k->arguments);
    const char **argv = dmc_malloc(n + 3, sizeof(char *));
    int fd_out = open(out, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666),
        fd_log = open(k->log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (!argv || fd_out < 0 || fd_log < 0 || dup2(fd_out, STDOUT_FILENO) < 0 || dup2(fd_log, STDERR_FILENO) < 0)
        _exit(126);
    argv[0] = "dmc";
    for (size_t i = 0; i < n; i++) argv[i + 1] = json_string_value(json_array_get(k->arguments, i));
    argv[n + 1] = last;
    argv[n + 2] = NULL;
    execv("/proc/self/exe", (char *const *)argv);
    _exit(127);
}

/* Keeps the result only if the command succeeded and printed JSON. */
static dmc_status run(const command *k)
{
    char out[4200];
    int status;
    json_error_t error;
    const char *last = last_argument(k);
    snprintf(out, sizeof out, "%s.tmp", k->result);
    remove(k->result);
    if (!last || strcmp(last, "--resume") != 0) DMC_TRY(record(k)); /* a training keeps the commit that began it */
    const pid_t parent = getpid(), child = fork();
    if (child < 0) return dmc_fail(DMC_ERR_IO, "cannot start a process: %s", strerror(errno));
    if (child == 0) become(k, last, out, parent);
    running = child;
    if (stopped) kill(child, stopped); /* between the fork and here */
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) return dmc_fail(DMC_ERR_IO, "cannot wait for the process: %s", strerror(errno));
    running = 0;
    if (WIFSIGNALED(status) && (WTERMSIG(status) == SIGINT || WTERMSIG(status) == SIGTERM)) return DMC_ERR_INTERRUPTED;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) return dmc_fail(DMC_ERR_IO, "it failed; %s says why", k->log);
    json_t *printed = json_load_file(out, 0, &error);
    if (!printed) return dmc_fail(DMC_ERR_FORMAT, "%s is no JSON: %s", out, error.text);
    bool there = !k->value || json_is_number(study_find(printed, k->value));
    json_decref(printed);
    if (!there) return dmc_fail(DMC_ERR_FORMAT, "%s has no number \"%s\"", out, k->value);
    return rename(out, k->result) == 0 ? DMC_OK : dmc_fail(DMC_ERR_IO, "%s: %s", k->result, strerror(errno));
}

/* The command as a shell takes it. */
static void print(const command *k)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=:,+%";
    printf("dmc");
    for (size_t i = 0; i < json_array_size(k->arguments); i++) {
        const char *a = json_string_value(json_array_get(k->arguments, i));
        if (*a && !a[strspn(a, plain)]) {
            printf(" %s", a);
            continue;
        }
        printf(" '");
        for (; *a; a++) *a == '\'' ? (void)fputs("'\\''", stdout) : (void)putchar(*a);
        printf("'");
    }
    printf("%s%s > %s\n", k->state ? " " : "", k->state ? last_argument(k) : "", k->result);
}

static void make_folders(const study *s)
{
    static const char *const folders[] = {"", "/models", "/results", "/logs"};
    char path[4200];
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        snprintf(path, sizeof path, "%s%s", s->dir, folders[i]);
        cli_check(dmc_make_dir(path));
    }
}

/* Until the process ends. */
static void hold(const char *dir)
{
    const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        cli_die("let it finish, or stop it", "%s: another study is running there", dir);
}

int study_run(const study *s, bool dry, bool quiet, bool no_color)
{
    int n = 0, done = 0, failed = 0;
    progress bar;
    if (!dry) make_folders(s), hold(s->dir);
    for (int i = 0; i < n_places(s); i++) {
        command k;
        if (!command_at(&k, s, i)) continue;
        bool there = is_done(&k);
        n++;
        done += there;
        if (dry && !there) print(&k);
        command_free(&k);
    }
    if (dry) return 0;
    sigaction(SIGINT, &(struct sigaction){.sa_handler = stop}, NULL);
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = stop}, NULL);
    progress_start(
        &bar, &(progress_options){
                  .title = "study", .first = done, .total = n, .quiet = quiet, .no_color = no_color, .interval = 60});
    done = 0;
    for (int i = 0; i < n_places(s) && !stopped; i++) {
        command k;
        if (!command_at(&k, s, i)) continue;
        if (is_done(&k)) {
            done++;
            command_free(&k);
            continue;
        }
        progress_update(&bar, done, "%s", k.label);
        dmc_status status = run(&k);
        if (status == DMC_ERR_INTERRUPTED) stopped = SIGINT;
        else if (status != DMC_OK && !stopped) {
            failed++;
            if (quiet) cli_warn("%s: %s", k.label, dmc_last_error());
            else progress_note(&bar, "%s: %s", k.label, dmc_last_error());
        }
        progress_update(&bar, ++done, "%s", k.label);
        command_free(&k);
    }
    progress_end(&bar);
    if (stopped) cli_die("the same command goes on where it stopped", "interrupted");
    return failed;
}
