/* dmc demo: a model beside its compressed self. */
#include "demo.h"
#include "cli.h"
#include "engine_options.h"
#include "commands.h"
#include "eval.h"
#include "progress.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MOST_MODELS = 3 };
static const char *const model_names[MOST_MODELS] = {"vanilla", "compressed", "yours"};

/* ---- the table --------------------------------------------------------------------------------------------------- */

/* A column; NAN: not measured. */
typedef struct {
    char name[24];
    double kib, cr;      /* of the cache at the end of a document */
    double loss, recall; /* nats a token; per cent */
    double rate;         /* tokens a second, one at a time */
} column;

/* Tokens a second, one after the other, as when text is generated. */
static double decode_rate(dmc_engine *e, const eval_tokens *text)
{
    const dmc_info *info = dmc_engine_info(e);
    size_t n = 0, most = text->n < (size_t)info->n_ctx ? text->n : (size_t)info->n_ctx;
    dmc_session *s;
    float *logits;
    cli_check(dmc_array(&logits, (size_t)info->n_vocab, sizeof *logits));
    cli_check(dmc_session_create(&s, e, NULL));
    double start = dmc_now();
    for (; n < most; n++) cli_check(dmc_session_feed(s, &text->ids[n], 1, logits, false));
    double rate = (double)n / (dmc_now() - start);
    dmc_session_close(s);
    dmc_free(logits);
    return rate;
}

static column measure(dmc_engine *e, const char *name, const cli_list *data, const eval_options *o,
                      eval_recall_result *recall)
{
    eval_tokens text;
    eval_ppl_result ppl;
    column c;
    cli_check(eval_read_stream(&text, e, data->items, data->n, o->protocol));
    c.rate = decode_rate(e, &text);
    cli_check(eval_ppl(&ppl, e, &text, o, NULL, NULL));
    cli_check(eval_recall(recall, e, data->items, data->n, o, EVAL_WINDOW_NONE));
    eval_tokens_free(&text);
    snprintf(c.name, sizeof c.name, "%s", name);
    c.kib = (double)recall->cache.bytes / (double)recall->cache.n / 1024;
    c.cr = eval_cache_cr(&recall->cache);
    c.loss = eval_ppl_nll(&ppl);
    c.recall = 100 * (double)recall->right / (double)recall->questions;
    return c;
}

/* The vanilla model with no more tokens in its cache than the compressed one has slots. */
static column measure_window(dmc_engine *e, const cli_list *data, const eval_options *o,
                             const eval_recall_result *compressed)
{
    const dmc_info *info = dmc_engine_info(e);
    const eval_cache *c = &compressed->cache;
    eval_recall_result r;
    double per_head = (double)c->slots / ((double)c->n * info->n_layers * info->n_kv_heads);
    column w = {.loss = NAN, .rate = NAN, .cr = eval_cache_cr(c)};
    cli_check(eval_recall(&r, e, data->items, data->n, o, (int)(per_head + 0.5) > 8 ? (int)(per_head + 0.5) : 8));
    snprintf(w.name, sizeof w.name, "last %d", r.window);
    w.kib = (double)c->bytes_uncompressed / (double)c->n / 1024 / w.cr;
    w.recall = 100 * (double)r.window_right / (double)r.questions;
    return w;
}

static void print_row(const char *title, const char *format, const column *columns, int n, size_t offset)
{
    printf("%-26s", title);
    for (int i = 0; i < n; i++) {
        double value;
        memcpy(&value, (const char *)&columns[i] + offset, sizeof value);
        printf("  ");
        if (isnan(value)) printf("%12s", "-");
        else printf(format, value);
    }
    putchar('\n');
}

static void print_table(const column *columns, int n)
{
    printf("%-26s", "");
    for (int i = 0; i < n; i++) printf("  %12s", columns[i].name);
    putchar('\n');
    print_row("cache of a story, KiB", "%12.1f", columns, n, offsetof(column, kib));
    print_row("compression ratio", "%12.2f", columns, n, offsetof(column, cr));
    print_row("held-out loss, nats/token", "%12.4f", columns, n, offsetof(column, loss));
    print_row("questions answered, %", "%12.1f", columns, n, offsetof(column, recall));
    print_row("tokens a second", "%12.0f", columns, n, offsetof(column, rate));
}

static void show_table(dmc_engine *const *engines, int n, const cli_list *data, int64_t limit, bool no_color)
{
    eval_options o = eval_options_default();
    eval_recall_result recall;
    column columns[MOST_MODELS + 1];
    int used = 0;
    progress bar;
    o.limit = limit;
    o.quiet = true;
    o.protocol = EVAL_SEPARATE; /* as its models are trained */
    progress_start(&bar, &(progress_options){.title = "measuring", .total = n + 1, .no_color = no_color});
    for (int i = 0; i < n; i++) {
        progress_update(&bar, used, "%s", model_names[i]);
        columns[used++] = measure(engines[i], model_names[i], data, &o, &recall);
        if (i != 1) continue;
        columns[2] = columns[1];
        columns[1] = measure_window(engines[0], data, &o, &recall);
        used++;
    }
    progress_update(&bar, used, "%s", "");
    progress_end(&bar);
    print_table(columns, used);
    printf(
        "\n'%s': the vanilla model with as many tokens in its cache as the compressed one has slots a head (the first 4 and "
        "the last).\n",
        columns[1].name);
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

int cmd_demo(int argc, char **argv)
{
    const char *task = NULL, *paths[MOST_MODELS] = {NULL};
    cli_list data = {0};
    int64_t limit = 60;
    demo_options o = {
        .prompt = "Once upon a time", .n_tokens = 220, .speed = 30, .sampler = dmc_sampler_options_default()};
    dmc_engine_options engine = dmc_engine_options_default();
    o.sampler.seed = 7;
    const cli_option options[] = {
        CLI_HEADING("Stories"),
        CLI_OPTION("prompt", 'p', &o.prompt, .arg = "TEXT", .help = "how the story begins"),
        CLI_OPTION("n", 'n', &o.n_tokens, .min = 1, .max = 1 << 20, .help = "tokens to generate"),
        CLI_OPTION("temp", 0, &o.sampler.temp, .arg = "T", .min = 0, .max = 100,
                   .help = "softmax temperature, 0 is greedy"),
        CLI_OPTION("seed", 0, &o.sampler.seed, .arg = "S", .min = 0, .max = HUGE_VAL,
                   .help = "of both, so that only the cache differs"),
        CLI_OPTION("speed", 0, &o.speed, .arg = "X", .min = 0, .max = 1e6,
                   .help = "tokens a second on a terminal; 0: as fast as they come"),
        CLI_HEADING("Table"),
        CLI_OPTION("data", 0, &data, .arg = "FILE", .help = "stories of 'dmc story' to measure on"),
        CLI_OPTION("limit", 0, &limit, .arg = "N", .min = 1, .max = HUGE_VAL, .help = "documents"),
        CLI_HEADING("Both"),
        CLI_ENGINE_OPTIONS(engine),
        CLI_OPTION("no-color", 0, &o.no_color, .help = "no colours on the terminal"),
        {0}};
    const cli_operand operands[] = {
        {.name = "TASK", .value = &task, .choices = "stories|table", .help = "what to show"},
        {.name = "VANILLA", .value = &paths[0], .help = "the original model"},
        {.name = "COMPRESSED", .value = &paths[1], .help = "the same after 'dmc retrofit'"},
        {.name = "YOURS", .value = &paths[2], .help = "one more for the table", .optional = true},
        {0}};
    cli_parse(
        &(cli_command){.options = options,
                       .operands = operands,
                       .about =
                           "stories: both models tell a story; on a terminal side by side, with a meter of cache slots "
                           "against tokens.\n\n"
                           "table: cache, held-out loss, recall and speed of the models beside each other.",
                       .examples = "dmc demo stories models/story.gguf models/story-dmc4.gguf\n"
                                   "dmc demo table models/story.gguf models/story-dmc4.gguf --data heldout.txt"},
        argc, argv);
    bool stories = strcmp(task, "stories") == 0;
    int n = paths[2] ? 3 : 2;
    if (stories && n > 2) cli_usage("stories takes two models");
    if (!stories && !data.n) cli_usage("--data FILE is missing");
    dmc_engine *engines[MOST_MODELS];
    for (int i = 0; i < n; i++) cli_check(dmc_engine_open(&engines[i], paths[i], &engine));
    if (stories) cli_check(demo_stories(engines, model_names, &o));
    else show_table(engines, n, &data, limit, o.no_color);
    for (int i = 0; i < n; i++) dmc_engine_close(engines[i]);
    return 0;
}
