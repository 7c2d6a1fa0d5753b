/* The common part of training commands. */
#include "tools/training.h"

#include "tools/json_out.h"
#include "tools/progress.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static volatile sig_atomic_t stop_asked;
static void on_signal(int s)
{
    (void)s;
    stop_asked = 1;
}

static char *with_suffix(const char *path, const char *suffix)
{
    size_t n = strlen(path) + strlen(suffix) + 1;
    char *p = dmc_malloc(n, 1);
    if (!p) cli_die(NULL, "out of memory");
    snprintf(p, n, "%s%s", path, suffix);
    return p;
}

/* ---- log: one CSV row per step; a resumed run drops the rows that it will write again ---- */

/* A run holds a lock on its log: a second one would spoil its state. */
static void refuse_second(const char *path)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        cli_die("let that run finish, or stop it", "%s: another run is writing it", path);
    close(fd);
}

static FILE *log_open(const char *path, bool resume, int64_t step)
{
    dmc_mapping old = {0};
    dmc_writer *w;
    bool have = resume && dmc_exists(path) && dmc_map_file(&old, path) == DMC_OK;
    cli_check(dmc_writer_open(&w, path));
    dmc_writef(
        w, "step,stage,loss,ce,kl,hinge,price,cr,cr_target,lr,grad_norm,val_ce,val_cr,tokens,seconds,uneven,offset\n");
    for (const char *at = (const char *)old.data, *end = have ? at + old.size : at, *next; at < end; at = next) {
        next = memchr(at, '\n', (size_t)(end - at));
        if (!next++) break;
        long long n;
        if (sscanf(at, "%lld,", &n) == 1 && n <= step) dmc_write(w, at, (size_t)(next - at));
    }
    dmc_unmap(&old);
    cli_check(dmc_writer_commit(w));
    FILE *f = fopen(path, "ae");
    if (!f) cli_die("is the directory writable?", "%s: cannot open the log", path);
    (void)flock(fileno(f), LOCK_EX | LOCK_NB); /* not every file system has locks */
    return f;
}

typedef struct {
    progress bar;
    FILE *log;
    dmc_train_report last;
    double *took; /* seconds of each step of this process */
    size_t n_took, room;
} watcher;

static void note_time(watcher *w, double seconds)
{
    if (w->n_took == w->room) {
        w->room = w->room ? 2 * w->room : 1024;
        w->took = dmc_realloc(w->took, w->room, sizeof *w->took);
        if (!w->took) cli_die(NULL, "out of memory");
    }
    w->took[w->n_took++] = seconds;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* NaN where nothing was left to do */
static double median_ms(watcher *w)
{
    if (!w->n_took) return NAN;
    qsort(w->took, w->n_took, sizeof *w->took, by_value);
    return 1e3 * w->took[w->n_took / 2];
}

static bool on_step(const dmc_train_report *r, void *user)
{
    watcher *w = user;
    w->last = *r;
    note_time(w, r->step_seconds);
    fprintf(w->log, "%lld,%s,%.6f,%.6f,%.6f,%.5f,%.4f,%.4f,%.4f,%.4g,%.4f,", (long long)r->step,
            dmc_stage_name(r->stage), r->loss, r->ce, r->kl, r->hinge, r->price, r->cr, r->cr_target, r->lr,
            r->grad_norm);
    if (r->measured) fprintf(w->log, "%.6f,%.4f", r->val_ce, r->val_cr);
    else fprintf(w->log, ",");
    fprintf(w->log, ",%.0f,%.1f,%.4f,%.4f\n", r->tokens, r->seconds, r->uneven, r->offset);
    fflush(w->log);
    if (r->measured && r->stage >= DMC_STAGE_RAMP)
        progress_note(&w->bar, "step %lld: held-out loss %.4f at CR %.2f", (long long)r->step, r->val_ce, r->val_cr);
    else if (r->measured) progress_note(&w->bar, "step %lld: held-out loss %.4f", (long long)r->step, r->val_ce);
    if (r->warning) progress_note(&w->bar, "step %lld: warning: %s", (long long)r->step, r->warning);
    if (r->stage >= DMC_STAGE_RAMP)
        progress_update(&w->bar, r->step, "%s  loss %.4f  short %.3f  CR %.2f of %.2f", dmc_stage_name(r->stage),
                        r->ce + r->kl, r->hinge, r->cr, r->cr_target);
    else progress_update(&w->bar, r->step, "%s  loss %.4f", dmc_stage_name(r->stage), r->ce);
    return !stop_asked;
}

training training_default(void)
{
    return (training){
        .dtype = "f32", .documents = "packed", .accumulate = 1, .save_seconds = 30, .seed = 1, .eval_every = -1};
}

void training_apply(training *t)
{
    dmc_train_options *o = &t->o;
    if (t->lr > 0) { /* rows that decide keep theirs */
        o->adamw.decision_scale *= o->lr / (float)t->lr;
        o->lr = (float)t->lr;
        o->lr_min = 0.05f * o->lr;
    }
    if (t->eval_every >= 0) o->eval_every = t->eval_every;
    o->seed = (uint64_t)t->seed;
    o->save_seconds = t->save_seconds;
    o->accumulate = t->accumulate;
    o->packed = !strcmp(t->documents, "packed");
    o->math = (dmc_math)t->math;
    o->recompute = t->recompute;
}

void training_check_out(const training *t, const char *model)
{
    char *state = with_suffix(t->out, ".state");
    bool gguf = cli_ends_with(t->out, ".gguf");
    if (model && cli_same_place(model, t->out)) cli_die("choose another OUT", "%s: is the model itself", t->out);
    if (!gguf && t->dtype[0] == 'q') cli_usage("--type %s needs an OUT that ends in .gguf", t->dtype);
    if (gguf && dmc_is_dir(t->out)) cli_die("choose a name that is free", "%s: is a directory", t->out);
    if (dmc_exists(t->out) && !t->overwrite) cli_die("--overwrite replaces it", "%s: is there already", t->out);
    if (dmc_exists(state) && !t->resume && !t->overwrite)
        cli_die("--resume goes on with it, --overwrite begins anew", "%s: the state of a run that has not ended",
                state);
    dmc_free(state);
}

static void write_model(const training *t, const dmc_checkpoint *model, const dmc_checkpoint *tokenizer_of)
{
    dmc_dtype type = DMC_F32;
    if (!dmc_dtype_parse(&type, t->dtype)) cli_usage("--type: '%s' is no weight type", t->dtype);
    if (cli_ends_with(t->out, ".gguf")) cli_check(dmc_write_gguf(t->out, model, tokenizer_of, type));
    else cli_check(dmc_write_hf(t->out, model, tokenizer_of, type));
}

static void print_result(const training *t, const char *name, const dmc_checkpoint *model, watcher *w, double before,
                         double after, double cr)
{
    const dmc_train_report *r = &w->last;
    bool dmc = !t->o.steps_train;
    if (dmc && cr < 0.97 * t->o.policy.cr)
        cli_warn("CR %.2f of %.2f: give it more steps (--steps), or raise --decision-scale (with --steer 0: --price)",
                 cr, (double)t->o.policy.cr);
    if (t->json) {
        json_t *o = json_new_object();
        json_put_string(o, "out", t->out);
        json_put_int(o, "steps", r->step);
        json_put_real(o, "tokens", r->tokens);
        json_put_real(o, "seconds", r->seconds);
        json_put_real(o, "tokens_per_second", r->tokens / r->seconds);
        json_put_real(o, "step_ms", median_ms(w));
        json_put_string(o, "math", t->o.math == DMC_MATH_BF16 ? "bf16" : "f32");
        json_put_real(o, "held_out_nll_before", before);
        json_put_real(o, "held_out_nll", after);
        json_put_real(o, "cr", cr);
        json_put_real(o, "cr_target", dmc ? t->o.policy.cr : 1);
        json_put_int(o, "delay", model->config.policy.delay);
        json_put_int(o, "window", model->config.policy.window);
        json_put_string(o, "policy", dmc_policy_name(model->config.policy.kind));
        json_put_int(o, "kv_heads", model->config.n_kv_heads);
        json_print(o);
        return;
    }
    printf("%s: %lld steps, %.2f M tokens, %.1f minutes, %.0f tokens/s", name, (long long)r->step, r->tokens / 1e6,
           r->seconds / 60, r->tokens / r->seconds);
    if (w->n_took) printf(", %.4g ms a step (median)", median_ms(w));
    printf("\n");
    printf("held-out loss  %.4f before, %.4f after (%+.2f %%)", before, after, 100 * (after / before - 1));
    if (dmc)
        printf(", at CR %.2f of %.2f asked, recent window of %d counted", cr, (double)t->o.policy.cr,
               t->o.policy.delay);
    printf("\nwritten: %s (log: %s.csv)\n", t->out, t->out);
}

int training_run(training *t, const char *name, dmc_checkpoint *model, const dmc_checkpoint *tokenizer_of)
{
    dmc_tokenizer *tok;
    dmc_corpus train, held;
    dmc_trainer *trainer;
    dmc_cpu cpu = {.kernels = dmc_kernels_pick(0)};
    watcher w = {0};
    char *state = with_suffix(t->out, ".state"), *log = with_suffix(t->out, ".csv");
    refuse_second(log);
    cli_check(dmc_threads_create(&cpu.threads, t->threads > 0 ? t->threads : dmc_threads_cores(), false));
    cli_check(dmc_tokenizer_open(&tok, &tokenizer_of->tokenizer, &model->config));
    cli_check(dmc_corpus_load(&train, tok, &model->config, t->data.items, (size_t)t->data.n));
    if (t->held_out.n) cli_check(dmc_corpus_load(&held, tok, &model->config, t->held_out.items, (size_t)t->held_out.n));
    else cli_check(dmc_corpus_split(&train, &held, 0.05));
    cli_check(dmc_trainer_create(&trainer, model, &train, &held, &t->o, &cpu));
    if (!t->quiet)
        fprintf(stderr, "%s: %zu tokens in %zu documents, %zu held out; context %d, %d x %d samples a step\n", name,
                train.n, train.n_docs, held.n, t->o.ctx, t->o.batch, t->o.accumulate);
    double before, after, cr;
    cli_check(dmc_trainer_measure(trainer, false, &before, &cr));
    if (t->resume && dmc_exists(state)) cli_check(dmc_trainer_resume(trainer, state));
    else if (t->resume) cli_warn("%s: nothing to resume, starting anew", state);
    w.log = log_open(log, t->resume, dmc_trainer_step(trainer));
    int64_t steps = t->o.steps_train ? t->o.steps_train : t->o.steps_zero + t->o.steps_ramp + t->o.steps_hold;
    progress_start(&w.bar, &(progress_options){.title = name,
                                               .first = dmc_trainer_step(trainer),
                                               .total = steps,
                                               .unit = "tok",
                                               .per_item = (double)t->o.ctx * t->o.batch * t->o.accumulate,
                                               .quiet = t->quiet,
                                               .no_color = t->no_color});
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    dmc_status s = dmc_trainer_run(trainer, state, on_step, &w);
    progress_end(&w.bar);
    if (fclose(w.log)) cli_die("is the disk full?", "%s: the log could not be written", log);
    if (s == DMC_ERR_INTERRUPTED) cli_die("the same command with --resume goes on from here", "%s", dmc_last_error());
    cli_check(s);
    cli_check(dmc_trainer_measure(trainer, !t->o.steps_train, &after, &cr));
    w.last.step =
        dmc_trainer_step(trainer); /* nothing was left to do where the run had only failed to write its model */
    dmc_trainer_work(trainer, &w.last.tokens, &w.last.seconds);
    write_model(t, model, tokenizer_of);
    remove(state);
    print_result(t, name, model, &w, before, after, cr);
    dmc_trainer_close(trainer);
    dmc_threads_close(cpu.threads);
    dmc_free(w.took);
    dmc_corpus_free(&train);
    dmc_corpus_free(&held);
    dmc_tokenizer_close(tok);
    dmc_free(state);
    dmc_free(log);
    return 0;
}
