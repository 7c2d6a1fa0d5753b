/* dmc eval: perplexity and recall of a model, through the real cache. */
#include "eval.h"
#include "cli.h"
#include "engine_options.h"
#include "commands.h"
#include "json_out.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *task, *model;
    cli_list data;
    const char *window_baseline, *reference;
    bool json;
    dmc_engine_options engine;
    eval_options eval;
} command;

/* ---- output ------------------------------------------------------------------------------------------------------ */

static void put_cache(json_t *o, const eval_cache *c)
{
    double n = c->n ? (double)c->n : 1;
    json_put_real(o, "cr", eval_cache_cr(c));
    json_put_int(o, "slots", c->slots);
    json_put_int(o, "slots_uncompressed", c->slots_uncompressed);
    json_put_int(o, "kv_bytes", (int64_t)((double)c->bytes / n + 0.5));
    json_put_int(o, "kv_bytes_uncompressed", (int64_t)((double)c->bytes_uncompressed / n + 0.5));
}

static void bytes_text(double bytes, char *out, size_t size)
{
    if (bytes >= 1 << 20) snprintf(out, size, "%.2f MiB", bytes / (1 << 20));
    else snprintf(out, size, "%.1f KiB", bytes / 1024);
}

static void print_cache(const eval_cache *c, const char *unit)
{
    char held[32], full[32];
    bytes_text((double)c->bytes / (double)c->n, held, sizeof held);
    bytes_text((double)c->bytes_uncompressed / (double)c->n, full, sizeof full);
    printf("cache        %s a %s, %s uncompressed; CR %.3f\n", held, unit, full, eval_cache_cr(c));
}

static void report_ppl(const command *c, const eval_ppl_result *r, const char *protocol)
{
    double nll = eval_ppl_nll(r), rate = (double)r->cache.tokens / r->seconds;
    if (c->json) {
        json_t *o = json_new_object();
        json_put_string(o, "task", "ppl");
        json_put_real(o, "nll", nll);
        json_put_real(o, "ppl", exp(nll));
        json_put_int(o, "tokens", r->tokens);
        json_put_real(o, "bits_per_byte", eval_ppl_bits_per_byte(r));
        json_put_int(o, "bytes", r->bytes);
        json_put_int(o, "windows", r->cache.n);
        json_put_int(o, "ctx", r->ctx);
        put_cache(o, &r->cache);
        json_put_real(o, "tokens_per_second", rate);
        json_put_string(o, "protocol", protocol);
        json_print(o);
        return;
    }
    printf("nll          %.5f nats a token\nperplexity   %.4f\nbits a byte  %.4f\n", nll, exp(nll),
           eval_ppl_bits_per_byte(r));
    printf("tokens       %lld in %lld windows of %d; %.0f a second\n", (long long)r->tokens, (long long)r->cache.n,
           r->ctx, rate);
    print_cache(&r->cache, "window");
    printf("protocol     %s\n", protocol);
}

static void report_kld(const command *c, const eval_kld_result *r, const char *protocol)
{
    double same = (double)r->same / (double)r->tokens;
    if (c->json) {
        json_t *o = json_new_object();
        json_put_string(o, "task", "kld");
        json_put_real(o, "kld", r->kl);
        json_put_real(o, "kld_median", r->median);
        json_put_real(o, "kld_p99", r->p99);
        json_put_real(o, "kld_max", r->worst);
        json_put_real(o, "top_agreement", same);
        json_put_real(o, "nll", r->nll);
        json_put_real(o, "nll_reference", r->nll_reference);
        json_put_int(o, "tokens", r->tokens);
        json_put_int(o, "windows", r->cache.n);
        json_put_int(o, "ctx", r->ctx);
        put_cache(o, &r->cache);
        json_put_int(o, "kv_bytes_reference", (int64_t)(r->reference_bytes / (uint64_t)r->cache.n));
        json_put_string(o, "protocol", protocol);
        json_print(o);
        return;
    }
    printf("kld          %.6f nats a token; median %.6f, 99 %% below %.5f, worst %.4f\n", r->kl, r->median, r->p99,
           r->worst);
    printf("agreement    %.3f %% of the most likely tokens\n", 100 * same);
    printf("nll          %.5f, reference %.5f (%+.3f %%)\n", r->nll, r->nll_reference,
           100 * (r->nll / r->nll_reference - 1));
    printf("tokens       %lld in %lld windows of %d\n", (long long)r->tokens, (long long)r->cache.n, r->ctx);
    print_cache(&r->cache, "window");
    printf("protocol     %s\n", protocol);
}

/* "<16", ..., "<2048", ">=2048", "unknown" */
static void distance_name(int i, char *out, size_t size)
{
    if (i == EVAL_DISTANCES) snprintf(out, size, "unknown");
    else if (i == EVAL_DISTANCES - 1) snprintf(out, size, ">=%d", 16 << (i - 1));
    else snprintf(out, size, "<%d", 16 << i);
}

static double share(int64_t part, int64_t all) { return all ? (double)part / (double)all : NAN; }

static void report_recall_json(const eval_recall_result *r, const char *protocol)
{
    json_t *o = json_new_object(), *distances = json_new_object();
    json_put_string(o, "task", "recall");
    json_put_real(o, "recall", share(r->right, r->questions));
    json_put_int(o, "questions", r->questions);
    json_put_int(o, "right", r->right);
    json_put_int(o, "documents", r->documents);
    json_put_int(o, "questions_beyond_context", r->beyond);
    for (int i = 0; i <= EVAL_DISTANCES; i++) {
        char name[16];
        json_t *d = json_new_object();
        distance_name(i, name, sizeof name);
        json_put_int(d, "questions", r->asked_at[i]);
        json_put_real(d, "recall", share(r->right_at[i], r->asked_at[i]));
        json_put(distances, name, d);
    }
    json_put(o, "distance_tokens", distances);
    json_put_real(o, "nll", r->nll / (double)r->questions);
    json_put_real(o, "nll_per_token", r->nll / (double)r->answer_tokens);
    json_put_int(o, "ctx", r->ctx);
    put_cache(o, &r->cache);
    json_put_real(o, "tokens_per_second", (double)r->cache.tokens / r->seconds);
    if (r->window) {
        json_t *w = json_new_object();
        json_put_int(w, "slots", r->window);
        json_put_real(w, "recall", share(r->window_right, r->questions));
        json_put_int(w, "right", r->window_right);
        json_put(o, "sliding_window_by_rereading", w);
    }
    json_put_string(o, "protocol", protocol);
    json_print(o);
}

static void report_recall(const command *c, const eval_recall_result *r, const char *protocol)
{
    if (c->json) {
        report_recall_json(r, protocol);
        return;
    }
    printf("recall       %.2f %% (%lld of %lld questions in %lld documents", 100 * share(r->right, r->questions),
           (long long)r->right, (long long)r->questions, (long long)r->documents);
    if (r->beyond) printf("; %lld more stand behind the context", (long long)r->beyond);
    printf(")\nnll          %.4f nats an answer, %.4f a token\n", r->nll / (double)r->questions,
           r->nll / (double)r->answer_tokens);
    if (r->window)
        printf("window       %.2f %% with the last %d tokens alone, read anew\n",
               100 * share(r->window_right, r->questions), r->window);
    print_cache(&r->cache, "document");
    printf("\n%14s  %9s  %8s\n", "tokens to fact", "questions", "recall");
    for (int i = 0; i <= EVAL_DISTANCES; i++) {
        char name[16];
        if (!r->asked_at[i]) continue;
        distance_name(i, name, sizeof name);
        printf("%14s  %9lld  %6.2f %%\n", name, (long long)r->asked_at[i], 100 * share(r->right_at[i], r->asked_at[i]));
    }
    printf("\nprotocol     %s\n", protocol);
}

/* ---- tasks ------------------------------------------------------------------------------------------------------- */

static void measure_ppl(const command *c, dmc_engine *e, const dmc_session_options *so)
{
    char protocol[512];
    eval_tokens stream;
    eval_ppl_result r;
    cli_check(eval_read_files(&stream, e, c->data.items, c->data.n));
    cli_check(eval_ppl(&r, e, &stream, &c->eval, NULL, NULL));
    eval_ppl_protocol(protocol, sizeof protocol, &r, so);
    report_ppl(c, &r, protocol);
    eval_tokens_free(&stream);
}

static void measure_kld(const command *c, dmc_engine *e, const dmc_session_options *so)
{
    char how[96], protocol[512];
    dmc_engine *reference;
    dmc_engine_options plain = c->engine;
    eval_tokens stream;
    eval_kld_result r;
    plain.kv = DMC_KV_F32;
    const char *path = c->reference ? c->reference : c->model;
    cli_check(dmc_engine_open(&reference, path, &plain));
    cli_check(eval_read_files(&stream, e, c->data.items, c->data.n));
    cli_check(eval_kld(&r, e, reference, &stream, &c->eval));
    eval_describe(how, sizeof how, so);
    snprintf(protocol, sizeof protocol,
             "%s; KL(reference || model) of every token but a window's first; the reference: %s, every token in F32",
             how, c->reference ? "another model" : "the same model");
    report_kld(c, &r, protocol);
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
    report_recall(c, &r, protocol);
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static const char about[] =
    "ppl reads text in windows and says how well the model predicts it: nats a token, perplexity, bits a byte. The windows are "
    "those that training measures its held-out loss on.\n\n"
    "kld says how far the cache moves the predictions from those with every token held in F32: divergence, and how often the "
    "most likely token is the same.\n\n"
    "recall asks the questions that the stories of 'dmc story' hold: the answer stands anywhere before, so what the cache has "
    "forgotten shows.\n\n"
    "All run through the real cache, compressed exactly as when text is generated, and say how large it became.";

int cmd_eval(int argc, char **argv)
{
    command c = {.engine = dmc_engine_options_default(), .eval = eval_options_default()};
    const cli_option options[] = {
        CLI_OPTION("data", 0, &c.data, .arg = "FILE", .required = true,
                   .help = "text; documents are separated by lines <|endoftext|>"),
        CLI_OPTION("ctx", 0, &c.eval.ctx, .arg = "N", .min = 2, .max = 1 << 30, .def = "the model's, at most 2048",
                   .help = "tokens of a window (ppl, kld), or that are read of a document (recall)"),
        CLI_OPTION("limit", 0, &c.eval.limit, .arg = "N", .min = 1, .max = HUGE_VAL, .def = "all",
                   .help = "windows (ppl, kld) or documents (recall)"),
        CLI_OPTION("window-baseline", 0, &c.window_baseline, .arg = "SLOTS",
                   .help =
                       "recall: also answer each question from the first 4 and the last tokens alone, SLOTS in all; "
                       "'auto': as many as the cache had slots a head"),
        CLI_OPTION("reference", 0, &c.reference, .arg = "MODEL", .def = "the same model",
                   .help = "kld: the model whose predictions, with every token in its cache, are compared with"),
        CLI_HEADING("Cache"),
        CLI_OPTION("policy", 0, &c.eval.policy, .choices = "none|dmc", .def = "the model's",
                   .help = "none: every token keeps its own slot"),
        CLI_OPTION("delay", 0, &c.eval.delay, .arg = "D", .min = 0, .max = 1 << 20, .def = "the model's",
                   .help = "recent tokens held exactly"),
        CLI_OPTION("window", 0, &c.eval.window, .arg = "W", .min = 0, .max = 1 << 20, .def = "the model's",
                   .help = "a merged slot averages the last W tokens of its run; 0: all"),
        CLI_HEADING("Running"),
        CLI_OPTION("chunk", 0, &c.eval.chunk, .arg = "N", .min = 1, .max = 512,
                   .help = "tokens read at once; with F32 slots it changes no result"),
        CLI_ENGINE_OPTIONS(c.engine),
        CLI_OPTION("json", 0, &c.json, .help = "print the result as one JSON object"),
        CLI_OPTION("quiet", 'q', &c.eval.quiet, .help = "no progress"),
        CLI_OPTION("no-color", 0, &c.eval.no_color, .help = "no colours on the terminal"),
        {0}};
    const cli_operand operands[] = {
        {.name = "TASK", .value = &c.task, .choices = "ppl|kld|recall", .help = "what to measure"},
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
    int window = window_slots(c.window_baseline);
    dmc_engine *e;
    dmc_session_options so;
    cli_check(dmc_engine_open(&e, c.model, &c.engine));
    cli_check(eval_prepare(&so, e, &c.eval));
    if (so.policy.kind == DMC_POLICY_DMC && dmc_engine_info(e)->policy.kind == DMC_POLICY_NONE)
        cli_warn("%s was not trained to compress; what it merges is left to chance (dmc retrofit teaches it)", c.model);
    if (strcmp(c.task, "ppl") == 0) measure_ppl(&c, e, &so);
    else if (strcmp(c.task, "kld") == 0) measure_kld(&c, e, &so);
    else measure_recall(&c, e, &so, window);
    dmc_engine_close(e);
    return 0;
}
