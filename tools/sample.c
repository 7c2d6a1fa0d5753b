/* dmc sample: text of a model's own, for a retrofit where no other text is at hand.
 *
 * Documents are numbered. Each has a seed of its own and they are written in order, so that neither the number of sequences at a time nor
 * which of them ends first changes the file (where passes of all sizes have the same bits: dmc_engine_options.same_bits). */
#include "base/base.h"
#include "cli.h"
#include "commands.h"
#include "engine_options.h"
#include "json_out.h"
#include "progress.h"

#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *model, *out, *prompt;
    int64_t tokens;
    int length, batch;
    dmc_sampler_options sampler;
    dmc_engine_options engine;
    bool json, quiet, no_color;
} command;

/* A document while it grows; done ones wait until those before them are done. */
typedef struct {
    dmc_session *session;
    dmc_sampler *sampler;
    dmc_detok detok;
    char *text;
    size_t n_text, capacity;
    int n_tokens; /* of the prompt and after it */
    int32_t next; /* to be read; the prompt first */
    bool begun, done;
} document;

typedef struct {
    const command *c;
    dmc_engine *engine;
    const dmc_info *info;
    int32_t *prompt;
    size_t n_prompt;
    document **open; /* [n_open] from the first that is not written on; those that are not done are at most `batch` */
    size_t n_open, open_capacity;
    int64_t first; /* the number of open[0] */
    dmc_writer *w;
    int64_t n_documents, n_tokens, n_empty; /* written; left out */
} sampling;

static void free_document(document *d)
{
    if (!d) return;
    dmc_session_close(d->session);
    dmc_sampler_close(d->sampler);
    dmc_free(d->text);
    dmc_free(d);
}

static dmc_status make_room(document *d, size_t n)
{
    if (d->capacity - d->n_text >= n) return DMC_OK;
    const size_t capacity = 2 * d->capacity + n + 256;
    char *p = dmc_realloc(d->text, capacity, 1);
    if (!p) return dmc_fail(DMC_ERR_MEMORY, "out of memory for a document of %zu bytes", capacity);
    d->text = p, d->capacity = capacity;
    return DMC_OK;
}

static dmc_status add_token(const sampling *s, document *d, int32_t id)
{
    const char *bytes;
    size_t n;
    DMC_TRY(dmc_token_bytes(s->engine, id, &bytes, &n));
    DMC_TRY(make_room(d, 3 * (n + 4)));
    DMC_TRY(dmc_detok_push(s->engine, &d->detok, id, d->text + d->n_text, d->capacity - d->n_text, &n));
    d->n_text += n;
    d->n_tokens++;
    return DMC_OK;
}

/* Its text may have to wait; what made it need not. */
static dmc_status end_document(document *d)
{
    d->done = true;
    dmc_session_close(d->session);
    dmc_sampler_close(d->sampler);
    d->session = NULL, d->sampler = NULL;
    DMC_TRY(make_room(d, 32));
    d->n_text += dmc_detok_flush(&d->detok, d->text + d->n_text, d->capacity - d->n_text);
    return DMC_OK;
}

static dmc_status begin_document(sampling *s)
{
    dmc_session_options so = dmc_session_options_default();
    dmc_sampler_options sampler = s->c->sampler;
    document *d = dmc_calloc(1, sizeof *d);
    if (!d) return dmc_fail(DMC_ERR_MEMORY, "out of memory for a document");
    sampler.seed = dmc_hash64(s->c->sampler.seed, 0, (uint64_t)s->first + s->n_open);
    s->open[s->n_open++] = d;
    so.n_ctx = s->c->length;
    DMC_TRY(dmc_sampler_create(&d->sampler, s->info->n_vocab, &sampler));
    DMC_TRY(dmc_session_create(&d->session, s->engine, &so));
    for (size_t i = 0; i < s->n_prompt; i++) DMC_TRY(add_token(s, d, s->prompt[i]));
    return DMC_OK;
}

/* One token of each document that is not done. */
static dmc_status step(sampling *s, dmc_session **sessions, document **live, int32_t *ids, size_t *n, float *logits,
                       dmc_status *results)
{
    size_t n_live = 0, n_ids = 0;
    for (size_t i = 0; i < s->n_open; i++) {
        document *d = s->open[i];
        if (d->done) continue;
        sessions[n_live] = d->session;
        n[n_live] = d->begun ? 1 : s->n_prompt;
        memcpy(ids + n_ids, d->begun ? &d->next : s->prompt, n[n_live] * sizeof *ids);
        n_ids += n[n_live];
        d->begun = true;
        live[n_live++] = d;
    }
    DMC_TRY(dmc_batch_feed(sessions, n_live, ids, n, logits, results));
    for (size_t i = 0; i < n_live; i++) {
        document *d = live[i];
        DMC_TRY(results[i]);
        d->next = dmc_sample(d->sampler, logits + i * (size_t)s->info->n_vocab);
        if (dmc_token_is_end(s->engine, d->next) || dmc_token_is_control(s->engine, d->next)) {
            DMC_TRY(end_document(d));
            continue;
        }
        DMC_TRY(add_token(s, d, d->next));
        if (d->n_tokens >= s->c->length) DMC_TRY(end_document(d));
    }
    return DMC_OK;
}

/* Documents that are done and behind no other that is not, until there are tokens enough. */
static dmc_status write_done(sampling *s)
{
    size_t n = 0;
    for (; n < s->n_open && s->open[n]->done && s->n_tokens < s->c->tokens; n++) {
        document *d = s->open[n];
        if (d->n_text) {
            dmc_write(s->w, d->text, d->n_text);
            dmc_writef(s->w, "\n<|endoftext|>\n");
            s->n_tokens += d->n_tokens;
            s->n_documents++;
        } else if (++s->n_empty > 100 && s->n_empty > 10 * s->n_documents) {
            return dmc_fail(DMC_ERR_ARG,
                            "the model ends its documents before they begin; say with --prompt how they do");
        }
        free_document(d);
        s->open[n] = NULL;
    }
    s->n_open -= n;
    s->first += (int64_t)n;
    memmove(s->open, s->open + n, s->n_open * sizeof(*s->open));
    return DMC_OK;
}

/* New documents, up to the batch and as long as those that are there may not be enough. */
static dmc_status fill(sampling *s)
{
    size_t live = 0;
    int64_t tokens = s->n_tokens;
    for (size_t i = 0; i < s->n_open; i++) live += !s->open[i]->done, tokens += s->open[i]->n_tokens;
    for (; live < (size_t)s->c->batch && (!live || tokens < s->c->tokens); live++) {
        if (s->n_open == s->open_capacity) {
            const size_t capacity = 2 * s->open_capacity + 64;
            document **p = dmc_realloc(s->open, capacity, sizeof(*p));
            if (!p) return dmc_fail(DMC_ERR_MEMORY, "out of memory for %zu documents", capacity);
            s->open = p, s->open_capacity = capacity;
        }
        DMC_TRY(begin_document(s));
        tokens += s->open[s->n_open - 1]->n_tokens;
    }
    return DMC_OK;
}

static volatile sig_atomic_t stopped;
static void stop(int signal) { stopped = signal; }

static dmc_status write_documents(sampling *s, progress *p)
{
    const size_t batch = (size_t)s->c->batch;
    dmc_session **sessions = NULL;
    document **live = NULL;
    int32_t *ids = NULL;
    size_t *n = NULL;
    float *logits = NULL;
    dmc_status status, *results = NULL;
    DMC_GOTO(dmc_array(&sessions, batch, sizeof(*sessions)));
    DMC_GOTO(dmc_array(&live, batch, sizeof(*live)));
    DMC_GOTO(dmc_array(&ids, batch * s->n_prompt, sizeof *ids));
    DMC_GOTO(dmc_array(&n, batch, sizeof *n));
    DMC_GOTO(dmc_array(&logits, batch * (size_t)s->info->n_vocab, sizeof *logits));
    DMC_GOTO(dmc_array(&results, batch, sizeof *results));
    DMC_GOTO(dmc_writer_open(&s->w, s->c->out));
    while (s->n_tokens < s->c->tokens && !stopped) {
        DMC_GOTO(fill(s));
        DMC_GOTO(step(s, sessions, live, ids, n, logits, results));
        DMC_GOTO(write_done(s));
        progress_update(p, s->n_tokens < s->c->tokens ? s->n_tokens : s->c->tokens, "%" PRId64 " documents",
                        s->n_documents);
    }
    if (!s->n_documents) DMC_GOTO(dmc_fail(DMC_ERR_INTERRUPTED, "interrupted before a document was done"));
    status = dmc_writer_commit(s->w);
    s->w = NULL;
done:
    dmc_writer_abort(s->w);
    dmc_free(sessions);
    dmc_free(live);
    dmc_free(ids);
    dmc_free(n);
    dmc_free(logits);
    dmc_free(results);
    return status;
}

static void encode_prompt(sampling *s)
{
    const char *text = s->c->prompt;
    const size_t n = strlen(text), most = 3 * n + 16;
    cli_check(dmc_array(&s->prompt, most, sizeof *s->prompt));
    cli_check(dmc_encode(s->engine, text, n, s->info->adds_bos, false, s->prompt, most, &s->n_prompt));
    if (s->n_prompt == 0 && s->info->bos >= 0) s->prompt[s->n_prompt++] = s->info->bos;
    if (s->n_prompt == 0)
        cli_die("say with --prompt how documents begin", "the model has no beginning-of-text token to begin with");
    if (s->n_prompt >= (size_t)s->c->length)
        cli_die("raise --length", "the prompt has %zu tokens of the %d of a document", s->n_prompt, s->c->length);
}

static void print_report(const sampling *s, double seconds)
{
    if (!s->c->json) {
        printf("%s: %" PRId64 " documents, %" PRId64 " tokens, %.0f tok/s\n", s->c->out, s->n_documents, s->n_tokens,
               (double)s->n_tokens / seconds);
        return;
    }
    json_t *j = json_new_object();
    json_put_string(j, "out", s->c->out);
    json_put_int(j, "documents", s->n_documents);
    json_put_int(j, "tokens", s->n_tokens);
    json_put_int(j, "seed", (int64_t)s->c->sampler.seed);
    json_put_real(j, "seconds", seconds);
    json_put_real(j, "tokens_per_second", (double)s->n_tokens / seconds);
    json_print(j);
}

static void parse(command *c, int argc, char **argv)
{
    const cli_option options[] = {
        CLI_OPTION("out", 'o', &c->out, .arg = "FILE", .required = true, .help = "text file to write"),
        CLI_OPTION("tokens", 'n', &c->tokens, .arg = "N", .min = 1, .max = 1e15,
                   .help = "at least so many; the last document is written to its end"),
        CLI_OPTION("length", 0, &c->length, .arg = "N", .min = 2, .max = 1 << 30, .def = "512, or the model's context",
                   .help = "tokens of a document at most"),
        CLI_OPTION("prompt", 'p', &c->prompt, .arg = "TEXT", .def = "",
                   .help = "what every document begins with, as plain text"),
        CLI_HEADING("Sampling"),
        CLI_OPTION("temp", 0, &c->sampler.temp, .arg = "T", .min = 0, .max = 100, .help = "softmax temperature"),
        CLI_OPTION("top-k", 0, &c->sampler.top_k, .arg = "K", .min = 0, .max = 1 << 30,
                   .help = "sample from the K likeliest tokens; 0 is off"),
        CLI_OPTION("top-p", 0, &c->sampler.top_p, .arg = "P", .min = 0, .max = 1,
                   .help = "sample from the likeliest tokens that together have probability P; 1 is off"),
        CLI_OPTION("seed", 0, &c->sampler.seed, .min = 0, .max = HUGE_VAL,
                   .help =
                       "the same seed gives the same text; block types at another --batch: with --same-bits --kv f32"),
        CLI_HEADING("Running"),
        CLI_OPTION("batch", 0, &c->batch, .arg = "B", .min = 1, .max = 4096, .help = "documents at a time"),
        CLI_OPTION("json", 0, &c->json, .help = "print one JSON object"),
        CLI_OPTION("quiet", 'q', &c->quiet, .help = "no progress"),
        CLI_OPTION("no-color", 0, &c->no_color, .help = "no colours"),
        CLI_ENGINE_OPTIONS(c->engine),
        {0}};
    const cli_operand operands[] = {CLI_MODEL_OPERAND(&c->model), {0}};
    cli_parse(
        &(cli_command){
            .options = options,
            .operands = operands,
            .about =
                "Writes documents that the model makes up. Where there is no text like that which a model was trained on, its "
                "own can take its place: 'dmc retrofit --loss distill' learns from it to compress, and keeps near the model as it was.\n\nStopped by a signal, it keeps the "
                "documents that are done.",
            .examples = "dmc sample Llama-3.2-1B -o own.txt --tokens 4000000\n"
                        "dmc retrofit Llama-3.2-1B --data own.txt --loss distill --cr 4 -o Llama-3.2-1B-dmc4.gguf"},
        argc, argv);
}

int cmd_sample(int argc, char **argv)
{
    command c = {.prompt = "",
                 .tokens = 500000,
                 .batch = 16,
                 .sampler = {.temp = 1, .top_p = 1},
                 .engine = dmc_engine_options_default()};
    sampling s = {.c = &c};
    progress p;
    parse(&c, argc, argv);
    if (cli_same_place(c.model, c.out)) cli_die("choose another FILE", "%s: is the model itself", c.out);
    if (dmc_is_dir(c.out)) cli_die("give a file's name", "%s: is a directory", c.out);
    cli_check(dmc_engine_open(&s.engine, c.model, &c.engine));
    s.info = dmc_engine_info(s.engine);
    if (!c.length) c.length = s.info->n_ctx < 512 ? s.info->n_ctx : 512;
    if (c.length > s.info->n_ctx)
        cli_usage("--length %d is above the model's context of %d tokens", c.length, s.info->n_ctx);
    encode_prompt(&s);
    progress_start(&p,
                   &(progress_options){
                       .title = "sample", .total = c.tokens, .unit = "tok", .quiet = c.quiet, .no_color = c.no_color});
    const double start = dmc_now();
    const struct sigaction once = {.sa_handler = stop,
                                   .sa_flags = (int)SA_RESETHAND}; /* the second time it ends the program */
    sigaction(SIGINT, &once, NULL);
    sigaction(SIGTERM, &once, NULL);
    dmc_status status = write_documents(&s, &p);
    progress_end(&p);
    cli_check(status);
    if (s.n_tokens < c.tokens)
        cli_die("what is done is kept", "interrupted: %s has %" PRId64 " documents, %" PRId64 " tokens of %" PRId64,
                c.out, s.n_documents, s.n_tokens, c.tokens);
    print_report(&s, dmc_now() - start);
    for (size_t i = 0; i < s.n_open; i++) free_document(s.open[i]);
    dmc_free(s.open);
    dmc_free(s.prompt);
    dmc_engine_close(s.engine);
    return 0;
}
