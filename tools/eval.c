/* dmc eval: what a model knows and predicts, through the real cache. */
#include "eval.h"
#include "cli.h"
#include "engine_options.h"
#include "commands.h"
#include "eval_extra.h"
#include "eval_report.h"
#include "json_out.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *task, *model;
    cli_list data;
    const char *window_baseline, *reference, *items, *results, *picture;
    int shots, batch;
    bool json, resume;
    dmc_engine_options engine;
    eval_options eval;
    eval_extra extra;
} command;

/* ---- tasks ------------------------------------------------------------------------------------------------------- */

static void measure_ppl(const command *c, dmc_engine *e, const dmc_session_options *so)
{
    char protocol[640];
    eval_tokens stream;
    eval_ppl_result r;
    cli_check(eval_read_stream(&stream, e, c->data.items, c->data.n, c->eval.protocol));
    cli_check(eval_ppl(&r, e, &stream, &c->eval, NULL, NULL));
    eval_protocol_text(protocol, sizeof protocol, &r.windows, so);
    eval_report_ppl(&r, protocol, c->json);
    eval_tokens_free(&stream);
}

static void measure_kld(const command *c, dmc_engine *e, const dmc_session_options *so)
{
    char how[640], protocol[768];
    dmc_engine *reference;
    dmc_engine_options plain = c->engine;
    eval_tokens stream;
    eval_kld_result r;
    plain.kv = DMC_KV_F32;
    const char *path = c->reference ? c->reference : c->model;
    cli_check(dmc_engine_open(&reference, path, &plain));
    cli_check(eval_read_stream(&stream, e, c->data.items, c->data.n, c->eval.protocol));
    if (!c->reference && so->policy.kind == DMC_POLICY_DMC)
        cli_warn(
            "%s was retrofitted, so without its merges it is no useful reference: --reference names the model that it was made from",
            c->model);
    cli_check(eval_kld(&r, e, reference, &stream, &c->eval));
    eval_protocol_text(how, sizeof how, &r.windows, so);
    snprintf(protocol, sizeof protocol,
             "%s; KL(reference || model) of every scored token; the reference: %s, every token in F32", how,
             c->reference ? "another model" : "the same model");
    eval_report_kld(&r, protocol, c->json);
    eval_tokens_free(&stream);
    dmc_engine_close(reference);
}

static int window_slots(const char *text)
{
    char *end;
    if (!text) return EVAL_WINDOW_NONE;
    if (strcmp(text, "auto") == 0) return EVAL_WINDOW_AUTO;
    long slots = strtol(text, &end, 10);
    if (*end || end == text || slots < 8 || slots > 1 << 20)
        cli_usage("--window-baseline: '%s' is neither 'auto' nor a number of slots from 8 on", text);
    return (int)slots;
}

static void measure_recall(const command *c, dmc_engine *e, const dmc_session_options *so, int window)
{
    char protocol[768];
    eval_recall_result r;
    cli_check(eval_recall(&r, e, c->data.items, c->data.n, &c->eval, window));
    eval_recall_protocol(protocol, sizeof protocol, &r, so);
    eval_report_recall(&r, protocol, c->json);
}

/* ---- benchmarks -------------------------------------------------------------------------------------------------- */

static const char *const csqa[] = {"piqa", "boolq", "arc_easy", "arc_challenge", "hellaswag", "winogrande"};
enum { N_CSQA = sizeof csqa / sizeof *csqa };

/* Also before either is there. */
static bool same_file(const char *a, const char *b)
{
    char x[4096], y[4096];
    if (cli_same_place(a, b)) return true;
    const char *slash_a = strrchr(a, '/'), *slash_b = strrchr(b, '/');
    if (strcmp(slash_a ? slash_a + 1 : a, slash_b ? slash_b + 1 : b) != 0) return false;
    snprintf(x, sizeof x, "%.*s.", slash_a ? (int)(slash_a - a) + 1 : 0, a);
    snprintf(y, sizeof y, "%.*s.", slash_b ? (int)(slash_b - b) + 1 : 0, b);
    return cli_same_place(x, y);
}

static void run_task(const command *c, dmc_engine *e, const char *name, const char *items, eval_task_result *r)
{
    if (items && c->results && same_file(items, c->results))
        cli_die("give each a file of its own", "--items and --results both name %s", items);
    cli_check(eval_task_run(r, e, eval_task_find(name),
                            &(eval_task_options){.eval = c->eval,
                                                 .data = c->data.n ? c->data.items[0] : NULL,
                                                 .shots = c->shots,
                                                 .items_path = items,
                                                 .db_path = c->results,
                                                 .resume = c->resume,
                                                 .model_path = c->model,
                                                 .batch = c->batch,
                                                 .extra = &c->extra}));
}

static void measure_task(const command *c, dmc_engine *e)
{
    eval_task_result r;
    run_task(c, e, c->task, c->items, &r);
    if (c->json) json_print(eval_task_json(&r));
    else eval_report_task(&r);
    if (strcmp(c->task, "needle") == 0 && !c->json) cli_check(eval_needle_picture(&r, NULL));
    if (c->picture) cli_check(eval_needle_picture(&r, c->picture));
    eval_task_result_free(&r);
}

/* Six tasks and the mean of their main metrics: by length where the task has that. */
static void measure_csqa(const command *c, dmc_engine *e)
{
    json_t *o = json_new_object(), *tasks = json_new_object();
    double main_sum = 0, acc_sum = 0;
    for (int i = 0; i < N_CSQA; i++) {
        char items[4096];
        eval_task_result r;
        if (c->items) snprintf(items, sizeof items, "%s.%s", c->items, csqa[i]);
        run_task(c, e, csqa[i], c->items ? items : NULL, &r);
        main_sum += eval_metric_value(r.task, &r.all, r.task->headline);
        acc_sum += eval_metric_value(r.task, &r.all, 0);
        json_put(tasks, csqa[i], eval_task_json(&r));
        if (!c->json) eval_report_task(&r), printf("\n");
        eval_task_result_free(&r);
    }
    json_put_string(o, "task", "csqa");
    json_put_real(o, "average", main_sum / N_CSQA);
    json_put_real(o, "average_acc", acc_sum / N_CSQA);
    json_put(o, "tasks", tasks);
    if (c->json) json_print(o);
    else {
        json_decref(o);
        printf("csqa         average %.4f (acc_norm where a task has it), %.4f of acc alone\n", main_sum / N_CSQA,
               acc_sum / N_CSQA);
    }
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static const char about[] =
    "ppl reads text in windows and says how well the model predicts it: nats a token, perplexity, bits a byte. The windows are "
    "those that training measures its held-out loss on; for a model trained on separate documents: --protocol separate.\n\n"
    "kld says how far the cache moves the predictions from those with every token held in F32: divergence, and how often the "
    "most likely token is the same.\n\n"
    "recall asks the questions that the stories of 'dmc story' hold: the answer stands anywhere before, so what the cache has "
    "forgotten shows.\n\n"
    "The others are benchmarks, with the prompts and scores of lm-evaluation-harness: csqa is the six commonsense tasks from piqa to "
    "winogrande and their average.\n\n"
    "All run through the real cache, compressed exactly as when text is generated, and say how large it became.";

static const char *const text_tasks[] = {"ppl", "kld", "recall", "csqa"};

/* "ppl|kld|recall|csqa|mmlu|..." */
static void list_tasks(char *out, size_t size)
{
    size_t n = 0;
    *out = 0;
    for (size_t i = 0; i < sizeof text_tasks / sizeof *text_tasks; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%s", i ? "|" : "", text_tasks[i]);
    for (int i = 0; eval_tasks[i]; i++) n += (size_t)snprintf(out + n, size - n, "|%s", eval_tasks[i]->name);
}

static void check_benchmark(const command *c)
{
    const bool made = c->data.n == 0 && strcmp(c->task, "kv-retrieval") == 0;
    if (c->data.n != 1 && !made) cli_usage("eval %s: --data names one directory", c->task);
    if (c->resume && !c->results) cli_usage("--resume needs -o FILE, where the earlier run was kept");
}

int cmd_eval(int argc, char **argv)
{
    static char tasks[512];
    list_tasks(tasks, sizeof tasks);
    command c = {.shots = -1,
                 .engine = dmc_engine_options_default(),
                 .eval = eval_options_default(),
                 .extra = eval_extra_default()};
    const cli_option options[] = {
        CLI_OPTION("data", 0, &c.data, .arg = "FILE|DIR",
                   .help =
                       "text, documents separated by lines <|endoftext|>; for benchmarks the directory of their files"),
        CLI_OPTION(
            "ctx", 0, &c.eval.ctx, .arg = "N", .min = 2, .max = 1 << 30, .def = "the model's, at most 2048",
            .help =
                "tokens of a window (ppl, kld), at most of a document (separate, recall) or of a prompt (benchmarks: the model's "
                "context)"),
        CLI_OPTION(
            "limit", 0, &c.eval.limit, .arg = "N", .min = 1, .max = HUGE_VAL, .def = "all",
            .help =
                "windows or separate documents (ppl, kld), documents (recall), or items of each subject (benchmarks)"),
        CLI_OPTION(
            "protocol", 0, &c.eval.protocol, .choices = "packed|separate|windows|sliding",
            .help =
                "ppl, kld: documents packed or separate, as in training; windows: as llama.cpp cuts and scores a text; "
                "sliding: as Hugging Face does"),
        CLI_OPTION("stride", 0, &c.eval.stride, .arg = "N", .min = 1, .max = 1 << 30, .def = "half a window",
                   .help = "sliding: tokens from one window to the next"),
        CLI_OPTION("window-baseline", 0, &c.window_baseline, .arg = "SLOTS",
                   .help =
                       "recall: also answer each question from the first 4 and the last tokens alone, SLOTS in all; "
                       "'auto': as many as the cache had slots a head"),
        CLI_OPTION("reference", 0, &c.reference, .arg = "MODEL", .def = "the same model",
                   .help = "kld: the model whose predictions, with every token in its cache, are compared with"),
        CLI_HEADING("Benchmarks"),
        CLI_OPTION("shots", 0, &c.shots, .arg = "N", .min = 0, .max = 64, .def = "the task's",
                   .help = "examples before each question"),
        CLI_OPTION("results", 'o', &c.results, .arg = "FILE", .def = "none",
                   .help = "SQLite file that keeps the run and each item"),
        CLI_OPTION("resume", 0, &c.resume,
                   .help = "go on with the last such run in that file; what it answered is not asked again"),
        CLI_OPTION("items", 0, &c.items, .arg = "FILE", .def = "none",
                   .help = "write a JSON line for each item (csqa: FILE.TASK each)"),
        CLI_OPTION("batch", 0, &c.batch, .arg = "N", .min = 1, .max = EVAL_MAX_BATCH, .def = "8",
                   .help = "items that are read at once"),
        CLI_OPTION("run-programs", 0, &c.extra.run_programs,
                   .help = "humaneval: run what the model writes, in a sandbox; without it nothing is scored"),
        CLI_OPTION("lengths", 0, &c.extra.lengths, .arg = "N,N...", .def = "1/8, 1/4, 1/2 and all of the context",
                   .help = "needle: tokens of the prompts"),
        CLI_OPTION("depths", 0, &c.extra.depths, .arg = "P,P...", .def = "0,25,50,75,100",
                   .help = "needle: where it hides, in percent of the text"),
        CLI_OPTION("picture", 0, &c.picture, .arg = "FILE", .def = "none",
                   .help = "needle: lengths and depths as an SVG"),
        CLI_OPTION("keys", 0, &c.extra.keys, .arg = "N", .min = 1, .max = 1 << 20, .def = "75",
                   .help = "kv-retrieval: pairs of a prompt; without --data they are made"),
        CLI_OPTION("positions", 0, &c.extra.positions, .arg = "N", .min = 1, .max = 16, .def = "as published",
                   .help = "kv-retrieval: places of the pair that is asked for"),
        CLI_OPTION("seed", 0, &c.extra.seed, .arg = "N", .min = 0, .max = HUGE_VAL,
                   .help = "needle, kv-retrieval: of what is made"),
        CLI_POLICY_OPTIONS(c.eval.policy),
        CLI_HEADING("Running"),
        CLI_OPTION(
            "chunk", 0, &c.eval.chunk, .arg = "N", .min = 1, .max = 512,
            .help = "tokens read at once; with F32 slots it changes no result, but of snapkv: the first ones are its "
                    "prompt in ppl, kld and recall"),
        CLI_ENGINE_OPTIONS(c.engine),
        CLI_OPTION("json", 0, &c.json, .help = "print the result as one JSON object"),
        CLI_OPTION("quiet", 'q', &c.eval.quiet, .help = "no progress"),
        CLI_OPTION("no-color", 0, &c.eval.no_color, .help = "no colours on the terminal"),
        {0}};
    const cli_operand operands[] = {{.name = "TASK", .value = &c.task, .choices = tasks, .help = "what to measure"},
                                    CLI_MODEL_OPERAND(&c.model),
                                    {0}};
    cli_parse(&(cli_command){.options = options,
                             .operands = operands,
                             .about = about,
                             .examples =
                                 "dmc eval ppl models/story-dmc4.gguf --data heldout.txt --json\n"
                                 "dmc eval recall models/story-dmc4.gguf --data heldout.txt --window-baseline auto"},
              argc, argv);
    if (strcmp(c.task, "recall") != 0 && c.window_baseline) cli_usage("--window-baseline belongs to eval recall");
    if (strcmp(c.task, "kld") != 0 && c.reference) cli_usage("--reference belongs to eval kld");
    if (strcmp(c.task, "ppl") != 0 && strcmp(c.task, "kld") != 0 && (c.eval.protocol || c.eval.stride))
        cli_usage("--protocol and --stride belong to eval ppl and kld");
    if (c.eval.stride && c.eval.protocol != EVAL_SLIDING) cli_usage("--stride belongs to --protocol sliding");
    int window = window_slots(c.window_baseline);
    if (c.data.n == 0 && strcmp(c.task, "kv-retrieval") != 0) cli_usage("--data FILE is missing");
    if (c.picture && strcmp(c.task, "needle") != 0) cli_usage("--picture belongs to eval needle");
    if (c.extra.run_programs && strcmp(c.task, "humaneval") != 0) cli_usage("--run-programs belongs to eval humaneval");
    const bool benchmark = strcmp(c.task, "csqa") == 0 || eval_task_find(c.task);
    if (benchmark) check_benchmark(&c);
    else if (c.results || c.resume || c.items || c.batch || c.shots >= 0)
        cli_usage("--shots, --results, --resume, --items and --batch belong to benchmarks");
    if (strcmp(c.task, "humaneval") == 0 && !c.extra.run_programs)
        cli_warn("programs are written, not run, so nothing is scored: --run-programs runs them in a sandbox");
    c.eval.threads = c.engine.n_threads;
    dmc_engine *e;
    dmc_session_options so;
    cli_check(dmc_engine_open(&e, c.model, &c.engine));
    cli_check(eval_prepare(&so, e, &c.eval));
    policy_warn(&so.policy, dmc_engine_info(e), c.model);
    if (strcmp(c.task, "ppl") == 0) measure_ppl(&c, e, &so);
    else if (strcmp(c.task, "kld") == 0) measure_kld(&c, e, &so);
    else if (strcmp(c.task, "recall") == 0) measure_recall(&c, e, &so, window);
    else if (strcmp(c.task, "csqa") == 0) measure_csqa(&c, e);
    else measure_task(&c, e);
    dmc_engine_close(e);
    return 0;
}
