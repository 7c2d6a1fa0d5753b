/* dmc inspect: what is in a model file, and how each head compresses a text. */
#include "atlas.h"
#include "cli.h"
#include "engine_options.h"
#include "commands.h"
#include "eval.h"
#include "format/policy_keys.h"
#include "format/checkpoint.h"
#include "inspect_picture.h"
#include "json_out.h"
#include "kernels/kernels.h"

#include <math.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* ---- the file ---------------------------------------------------------------------------------------------------- */

typedef struct {
    int64_t parameters;
    size_t bytes;
    const char *dtype; /* of the largest tensor */
} weights;

static weights sum_weights(const dmc_checkpoint *c)
{
    weights w = {0};
    size_t largest = 0;
    for (size_t i = 0; i < c->n_tensors; i++) {
        const dmc_tensor *t = &c->tensors[i];
        w.parameters += t->shape[0] * t->shape[1];
        w.bytes += t->bytes;
        if (t->bytes <= largest) continue;
        largest = t->bytes;
        w.dtype = dmc_dtype_name(t->dtype);
    }
    return w;
}

static const char *rope_name(const dmc_config *c)
{
    static const char *const names[] = {"plain", "linear", "llama3"};
    return names[c->rope_kind];
}

static const char *tokenizer_name(const dmc_tokenizer_source *t)
{
    if (t->hf_json_path || t->hf_json) return "Hugging Face tokenizer.json";
    if (t->sp_model_path) return "tokenizer.model";
    if (t->llama2c_bin_path) return "llama2.c tokenizer";
    if (t->gguf) return "GGUF";
    return "none";
}

static json_t *policy_json(const dmc_policy *p)
{
    json_t *o = json_new_object();
    json_put_string(o, "kind", dmc_policy_name(p->kind));
    if (p->kind == DMC_POLICY_NONE) return o;
    json_put_string(o, "decision", dmc_decision_name(p->decision));
    for (int i = 0; i < DMC_POLICY_KEYS; i++) {
        const dmc_policy_key *k = &dmc_policy_keys[i];
        const void *field = (const char *)p + k->offset;
        if (k->type == DMC_KEY_INT) json_put_int(o, k->name, *(const int *)field);
        if (k->type == DMC_KEY_FLOAT) json_put_real(o, k->name, (double)*(const float *)field);
        if (k->type == DMC_KEY_BOOL) json_put_bool(o, k->name, *(const bool *)field);
    }
    return o;
}

static void print_policy(const dmc_policy *p)
{
    printf("policy        %s", dmc_policy_name(p->kind));
    switch (p->kind) {
    case DMC_POLICY_DMC:
        printf(": CR %g, channel %d, offset %g, eps %g, window %d, delay %d, first token %s", (double)p->cr, p->channel,
               (double)p->offset, (double)p->eps, p->window, p->delay, p->first_append ? "appends" : "decides");
        break;
    case DMC_POLICY_DMS:
        printf(": CR %g, scale %g, offset %g, evicts behind %d tokens, a token decides on %s", (double)p->cr,
               (double)p->scale, (double)p->offset, p->delay, p->no_shift ? "itself" : "the one before");
        if (p->decision == DMC_DECISION_CHANNEL) printf(", channel %d", p->channel);
        break;
    case DMC_POLICY_FMP: printf(": %d tokens a slot, delay %d", p->period, p->delay); break;
    default: printf(": every token keeps its slot");
    }
    if (p->decision != DMC_DECISION_CHANNEL) printf(", decisions by %s", dmc_decision_name(p->decision));
    putchar('\n');
}

static json_t *model_json(const dmc_checkpoint *k)
{
    const dmc_config *c = &k->config;
    weights w = sum_weights(k);
    char architecture[32];
    dmc_config_name(architecture, c);
    json_t *o = json_new_object(), *rope = json_new_object();
    json_put_string(o, "path", k->path);
    json_put_string(o, "architecture", architecture);
    json_put_int(o, "parameters", w.parameters);
    json_put_int(o, "bytes", (int64_t)w.bytes);
    json_put_string(o, "dtype", w.dtype);
    json_put_int(o, "layers", c->n_layers);
    json_put_int(o, "heads", c->n_heads);
    json_put_int(o, "kv_heads", c->n_kv_heads);
    json_put_int(o, "head_dim", c->head_dim);
    json_put_int(o, "width", c->n_embd);
    json_put_int(o, "ff", c->n_ff);
    json_put_int(o, "vocab", c->n_vocab);
    json_put_int(o, "ctx", c->n_ctx);
    json_put_bool(o, "tied", c->tied);
    json_put_bool(o, "qkv_bias", c->qkv_bias);
    json_put_bool(o, "qk_norm", c->qk_norm);
    json_put_int(o, "sliding_window", c->sliding_window);
    json_put_string(rope, "kind", rope_name(c));
    json_put_real(rope, "theta", c->rope_theta);
    if (c->rope_kind != DMC_ROPE_PLAIN) json_put_real(rope, "factor", (double)c->rope_factor);
    json_put_string(rope, "rows", c->rope_interleaved ? "interleaved" : "half-split");
    json_put(o, "rope", rope);
    json_put_string(o, "tokenizer", tokenizer_name(&k->tokenizer));
    json_put(o, "policy", policy_json(&c->policy));
    return o;
}

static void print_model(const dmc_checkpoint *k)
{
    const dmc_config *c = &k->config;
    weights w = sum_weights(k);
    char architecture[32];
    dmc_config_name(architecture, c);
    printf("%s\n", k->path);
    printf("architecture  %s, %lld parameters, %s, %.2f MiB\n", architecture, (long long)w.parameters, w.dtype,
           (double)w.bytes / (1 << 20));
    printf("shape         %d layers, width %d, ff %d, vocabulary %d%s\n", c->n_layers, c->n_embd, c->n_ff, c->n_vocab,
           c->tied ? ", output tied to the embedding" : "");
    printf("attention     %d heads on %d KV heads of dimension %d%s%s, context %d%s\n", c->n_heads, c->n_kv_heads,
           c->head_dim, c->qk_norm ? ", q and k normed" : "", c->qkv_bias ? ", with biases" : "", c->n_ctx,
           c->sliding_window ? " (the window of its sliding attention)" : "");
    printf("rope          %s, theta %g, rows %s\n", rope_name(c), c->rope_theta,
           c->rope_interleaved ? "interleaved" : "half-split");
    printf("tokenizer     %s\n", tokenizer_name(&k->tokenizer));
    printf("cache         %zu bytes a token uncompressed, in F32\n",
           2 * sizeof(float) * (size_t)c->n_layers * (size_t)c->n_kv_heads * (size_t)c->head_dim);
    print_policy(&c->policy);
}

/* ---- the heads --------------------------------------------------------------------------------------------------- */

/* Sums over the windows. */
typedef struct {
    int n_layers, n_heads, delay;
    double tokens, settled;      /* of one head; that have left the recent window */
    double *slots, *cr, *merged; /* [n_layers, n_heads] */
} heads;

static void add_window(const dmc_session *s, void *user)
{
    heads *h = user;
    int64_t n = dmc_session_stats(s).n_tokens;
    h->tokens += (double)n;
    h->settled += n > h->delay ? (double)(n - h->delay) : 0;
    for (int il = 0; il < h->n_layers; il++)
        for (int ih = 0; ih < h->n_heads; ih++)
            h->slots[il * h->n_heads + ih] += (double)dmc_session_head_slots(s, il, ih);
}

static void measure(heads *h, eval_ppl_result *r, dmc_engine *e, const eval_tokens *stream, const eval_options *o)
{
    const dmc_info *info = dmc_engine_info(e);
    int n = info->n_layers * info->n_kv_heads;
    *h = (heads){.n_layers = info->n_layers, .n_heads = info->n_kv_heads, .delay = info->policy.delay};
    cli_check(dmc_array(&h->slots, (size_t)n, sizeof *h->slots));
    cli_check(dmc_array(&h->cr, (size_t)n, sizeof *h->cr));
    cli_check(dmc_array(&h->merged, (size_t)n, sizeof *h->merged));
    cli_check(eval_ppl(r, e, stream, o, add_window, h));
    for (int i = 0; i < n; i++) {
        h->cr[i] = h->tokens / h->slots[i];
        h->merged[i] = h->settled > 0 ? 100 * (h->tokens - h->slots[i]) / h->settled : 0;
    }
}

static void free_heads(heads *h)
{
    dmc_free(h->slots);
    dmc_free(h->cr);
    dmc_free(h->merged);
}

static double layer_cr(const heads *h, int il)
{
    double slots = 0;
    for (int ih = 0; ih < h->n_heads; ih++) slots += h->slots[il * h->n_heads + ih];
    return h->tokens * h->n_heads / slots;
}

static void put_heads(json_t *o, const heads *h, const eval_ppl_result *r, const char *protocol)
{
    json_t *each = json_new_array(), *layers = json_new_array();
    for (int il = 0; il < h->n_layers; il++) {
        json_push_real(layers, layer_cr(h, il));
        for (int ih = 0; ih < h->n_heads; ih++) {
            json_t *head = json_new_object();
            int i = il * h->n_heads + ih;
            json_put_int(head, "layer", il);
            json_put_int(head, "head", ih);
            json_put_int(head, "tokens", (int64_t)h->tokens);
            json_put_int(head, "slots", (int64_t)h->slots[i]);
            json_put_real(head, "cr", h->cr[i]);
            json_put_real(head, "merge_rate", h->merged[i] / 100);
            json_push(each, head);
        }
    }
    json_put_real(o, "cr", eval_cache_cr(&r->cache));
    json_put_real(o, "nll", eval_ppl_nll(r));
    json_put_string(o, "protocol", protocol);
    json_put(o, "layer_cr", layers);
    json_put(o, "per_head", each);
}

/* Columns of the terminal that stdout is, 0 if it is none. */
static int terminal_columns(void)
{
    struct winsize w;
    if (!isatty(STDOUT_FILENO)) return 0;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80;
}

/* What is wanted beside the file's facts. */
typedef struct {
    const char *svg, *atlas, *spans_svg, *head, *at;
    bool json, spans, no_color;
    int64_t tokens;
} wishes;

static void put_shared(json_t *o, const atlas *a, int from, int to)
{
    const atlas_shared s = atlas_shared_of(a, from, to);
    json_put_real(o, "shared_slot_tokens", s.slots > 0 ? s.tokens / s.slots : NAN);
    json_put_real(o, "effective_tokens", s.slots > 0 ? s.effective / s.slots : NAN);
}

static void put_weights(json_t *o, const atlas *a)
{
    json_t *layers = json_new_array();
    put_shared(o, a, 0, a->n_layers * a->n_heads);
    for (int il = 0; il < a->n_layers; il++) {
        json_t *layer = json_new_object();
        put_shared(layer, a, il * a->n_heads, (il + 1) * a->n_heads);
        json_push(layers, layer);
    }
    json_put(o, "layers_shared", layers);
}

static void put_at_rates(json_t *o, const atlas_at_result *r, const atlas *a, int from, int to)
{
    json_put_real(o, "begin_rate", atlas_at_rate(r, from, to));
    json_put_real(o, "against_all", atlas_at_against(r, a, from, to));
}

static void put_at(json_t *o, const atlas *a, const char *pattern)
{
    json_t *at = json_new_object(), *layers = json_new_array();
    atlas_at_result r;
    cli_check(atlas_at(&r, a, pattern));
    json_put_string(at, "regex", pattern);
    json_put_int(at, "tokens", r.tokens);
    put_at_rates(at, &r, a, 0, a->n_layers);
    for (int il = 0; il < a->n_layers; il++) {
        json_t *layer = json_new_object();
        put_at_rates(layer, &r, a, il, il + 1);
        json_push(layers, layer);
    }
    json_put(at, "layers", layers);
    json_put(o, "at", at);
    atlas_at_free(&r);
}

static void put_atlas(json_t *o, const atlas *a)
{
    json_t *places = json_new_array(), *positions = json_new_array();
    double all = atlas_begin_rate(a->begins, a->settled);
    for (int i = 0; i < ATLAS_PLACES; i++) {
        json_t *p = json_new_object();
        double rate = atlas_begin_rate(a->begins_at[i], a->settled_at[i]);
        json_put_string(p, "place", atlas_place_names[i]);
        json_put_int(p, "tokens", a->settled_at[i] / (a->n_layers * a->n_heads));
        json_put_real(p, "begin_rate", rate);
        json_put_real(p, "against_all", all > 0 ? rate / all : NAN);
        json_push(places, p);
    }
    for (int i = 0; i < a->n_bins; i++) {
        json_t *p = json_new_object();
        json_put_int(p, "from", (int64_t)i * a->ctx / a->n_bins);
        json_put_real(p, "tokens_per_slot", a->begins_in[i] ? (double)a->settled_in[i] / (double)a->begins_in[i] : NAN);
        json_push(positions, p);
    }
    if (a->weighs) put_weights(o, a);
    json_put_int(o, "atlas_tokens", a->n);
    json_put(o, "places", places);
    json_put(o, "positions", positions);
}

/* "L.H" */
static int chosen_head(const char *text, int n_layers, int n_heads)
{
    int layer, head, end = 0;
    if (sscanf(text, "%d.%d%n", &layer, &head, &end) != 2 || text[end] || layer < 0 || head < 0 || layer >= n_layers ||
        head >= n_heads)
        cli_usage("--head %s: want LAYER.HEAD, from 0.0 to %d.%d", text, n_layers - 1, n_heads - 1);
    return layer * n_heads + head;
}

/* How far slots are averages, and how far a choice. */
static void print_weights(const atlas *a)
{
    printf("\nslots of 2 tokens and more: layer   tokens of a slot   effective\n");
    for (int il = 0; il < a->n_layers; il++) {
        const atlas_shared s = atlas_shared_of(a, il * a->n_heads, (il + 1) * a->n_heads);
        if (s.slots > 0) printf("%33d %18.1f %11.1f\n", il, s.tokens / s.slots, s.effective / s.slots);
        else printf("%33d %18s\n", il, "none");
    }
}

static void print_at(const atlas *a, const char *pattern)
{
    atlas_at_result r;
    cli_check(atlas_at(&r, a, pattern));
    printf("\nwhere '%s' matches, %lld tokens: begin a slot  against all\n", pattern, (long long)r.tokens);
    for (int il = -1; il < a->n_layers && r.tokens; il++) {
        const int from = il < 0 ? 0 : il, to = il < 0 ? a->n_layers : il + 1;
        char name[32];
        snprintf(name, sizeof name, il < 0 ? "all heads" : "layer %d", il);
        printf("%21s %25.1f %% %11.2fx\n", name, 100 * atlas_at_rate(&r, from, to), atlas_at_against(&r, a, from, to));
    }
    atlas_at_free(&r);
}

static void print_spans(const atlas *a, const wishes *w)
{
    const int H = a->n_layers * a->n_heads,
              head = w->head ? chosen_head(w->head, a->n_layers, a->n_heads) : atlas_typical_head(a, 0, H);
    printf("\nslots of layer %d, head %d (%.0f %% of its tokens begin one)\n", head / a->n_heads, head % a->n_heads,
           100 * a->begin_share[head]);
    atlas_terminal(a, head, 600, stdout, terminal_columns() && !w->no_color);
    printf("\nall heads: %-16s  tokens  begin a slot  against all\n", "token");
    for (int i = 0; i < ATLAS_PLACES; i++) {
        double rate = atlas_begin_rate(a->begins_at[i], a->settled_at[i]),
               all = atlas_begin_rate(a->begins, a->settled);
        printf("           %-16s %7lld  %10.1f %%  %10.2fx\n", atlas_place_names[i],
               (long long)(a->settled_at[i] / (a->n_layers * a->n_heads)), 100 * rate, all > 0 ? rate / all : 0);
    }
    if (w->at) print_at(a, w->at);
    if (a->weighs) print_weights(a);
}

/* The head that was asked for, or the typical ones of the lowest, the middle and the highest layer. */
static dmc_status draw_spans(const atlas *a, const char *path, const wishes *w)
{
    const int layers[] = {0, a->n_layers / 2, a->n_layers - 1};
    int drawn[3], n = 0;
    char title[4200];
    snprintf(title, sizeof title, "%s: what shares a slot", path);
    for (int i = 0; i < 3 && !w->head; i++)
        if (!n || layers[i] != drawn[n - 1] / a->n_heads)
            drawn[n++] = atlas_typical_head(a, layers[i] * a->n_heads, (layers[i] + 1) * a->n_heads);
    if (w->head) drawn[n++] = chosen_head(w->head, a->n_layers, a->n_heads);
    return atlas_svg(a, drawn, n, title, w->spans_svg);
}

static void draw(const heads *h, const eval_ppl_result *r, const char *path, const wishes *w, const atlas *a)
{
    char title[4200], subtitle[200];
    double most = 2;
    int columns = terminal_columns();
    for (int i = 0; i < h->n_layers * h->n_heads; i++) most = h->cr[i] > most ? h->cr[i] : most;
    const picture_map maps[] = {
        {.title = "compression ratio", .values = h->cr, .low = 1, .high = most, .logarithmic = true, .format = "%.2f"},
        {.title = r->cache.policy.kind == DMC_POLICY_DMS ? "evicted, of settled tokens" : "merged, of settled tokens",
         .values = h->merged,
         .low = 0,
         .high = 100,
         .format = "%.0f %%"}};
    const picture p = {.title = title,
                       .subtitle = subtitle,
                       .n_layers = h->n_layers,
                       .n_heads = h->n_heads,
                       .maps = maps,
                       .n_maps = 2};
    snprintf(title, sizeof title, "%s: CR %.2f", path, eval_cache_cr(&r->cache));
    snprintf(subtitle, sizeof subtitle, "layers down, KV heads across; %lld windows of %d tokens, nll %.4f",
             (long long)r->cache.n, r->windows.ctx, eval_ppl_nll(r));
    if (!w->json) putchar('\n');
    if (!w->json) picture_terminal(&p, stdout, columns ? columns : 120, columns && !w->no_color);
    if (w->svg) cli_check(picture_svg(&p, w->svg));
    if (w->spans_svg) cli_check(draw_spans(a, path, w));
    if (w->atlas) cli_check(atlas_page(a, &p, w->atlas));
}

/* Drawings are not to take the place of what they are drawn from. */
static void refuse_inputs(const char *out, const char *model, const cli_list *data)
{
    if (!out) return;
    if (cli_same_place(out, model)) cli_die("choose another FILE", "%s: is the model itself", out);
    for (int i = 0; i < data->n; i++)
        if (cli_same_place(out, data->items[i])) cli_die("choose another FILE", "%s: is the text itself", out);
}

static void inspect_text(json_t *object, const char *path, const cli_list *data, const eval_options *o,
                         const dmc_engine_options *engine, const wishes *w)
{
    char protocol[640];
    dmc_session_options so;
    dmc_engine *e;
    heads h;
    atlas a = {0};
    eval_tokens stream;
    eval_ppl_result r;
    const char *const outputs[] = {w->svg, w->spans_svg, w->atlas};
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs; i++) refuse_inputs(outputs[i], path, data);
    cli_check(dmc_engine_open(&e, path, engine));
    cli_check(eval_prepare(&so, e, o));
    if (w->head) (void)chosen_head(w->head, dmc_engine_info(e)->n_layers, dmc_engine_info(e)->n_kv_heads);
    cli_check(eval_read_stream(&stream, e, data->items, data->n, o->protocol));
    measure(&h, &r, e, &stream, o);
    if (w->atlas || w->spans || w->spans_svg) cli_check(atlas_read(&a, e, &stream, o, w->tokens));
    eval_tokens_free(&stream);
    eval_protocol_text(protocol, sizeof protocol, &r.windows, &so);
    if (w->json) put_heads(object, &h, &r, protocol);
    if (w->json && a.n) put_atlas(object, &a);
    if (w->json && w->at) put_at(object, &a, w->at);
    draw(&h, &r, path, w, &a);
    if (!w->json && w->spans) print_spans(&a, w);
    if (!w->json) printf("\n%s\n", protocol);
    if (w->svg && !w->json) printf("%s: written\n", w->svg);
    if (w->spans_svg && !w->json) printf("%s: written\n", w->spans_svg);
    if (w->atlas && !w->json) printf("%s: written\n", w->atlas);
    atlas_free(&a);
    free_heads(&h);
    dmc_engine_close(e);
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

int cmd_inspect(int argc, char **argv)
{
    const char *path = NULL;
    cli_list data = {0};
    wishes w = {.tokens = 4096};
    bool kernels = false;
    dmc_engine_options engine = dmc_engine_options_default();
    eval_options o = eval_options_default();
    o.limit = 32;
    const cli_option options[] = {
        CLI_OPTION("data", 0, &data, .arg = "FILE",
                   .help = "text to read; then the compression of each layer and head is shown"),
        CLI_OPTION("svg", 0, &w.svg, .arg = "FILE", .help = "with --data: draw the compression into this file"),
        CLI_OPTION("spans", 0, &w.spans,
                   .help = "with --data: show the text with its slots, and at which places of the text slots begin"),
        CLI_OPTION(
            "spans-svg", 0, &w.spans_svg, .arg = "FILE",
            .help =
                "with --data: draw the beginning of the text with its slots, for a head of the lowest, middle and highest layer"),
        CLI_OPTION("head", 0, &w.head, .arg = "L.H", .def = "the most typical ones",
                   .help = "layer and head for --spans and --spans-svg"),
        CLI_OPTION(
            "at", 0, &w.at, .arg = "REGEX",
            .help =
                "with --spans: how often slots begin where this extended regular expression, or its first group, matches"),
        CLI_OPTION("atlas", 0, &w.atlas, .arg = "FILE",
                   .help =
                       "with --data: a page for a browser (HTML) with maps, positions, and the slots of every head"),
        CLI_OPTION("tokens", 0, &w.tokens, .arg = "N", .min = 1, .max = 1 << 24,
                   .help = "tokens to read one by one for --spans, --spans-svg and --atlas"),
        CLI_OPTION("protocol", 0, &o.protocol, .choices = "packed|separate",
                   .help = "documents one after the other in windows, or each alone; as the model was trained"),
        CLI_OPTION("ctx", 0, &o.ctx, .arg = "N", .min = 2, .max = 1 << 30, .def = "the model's, at most 2048",
                   .help = "tokens of a window, or at most of a document"),
        CLI_OPTION("limit", 0, &o.limit, .arg = "N", .min = 1, .max = HUGE_VAL, .help = "windows or documents to read"),
        CLI_OPTION("kernels", 0, &kernels, .help = "also tell which CPU kernels run here"),
        CLI_ENGINE_OPTIONS(engine),
        CLI_OPTION("json", 0, &w.json, .help = "print one JSON object"),
        CLI_OPTION("quiet", 'q', &o.quiet, .help = "no progress"),
        CLI_OPTION("no-color", 0, &w.no_color, .help = "no colours on the terminal"),
        {0}};
    const cli_operand operands[] = {CLI_MODEL_OPERAND(&path), {0}};
    cli_parse(
        &(cli_command){
            .options = options,
            .operands = operands,
            .about = "Shows the architecture of a model and how it compresses its cache. With a text, the model "
                     "reads it, and a map shows the compression that each layer and KV head chose.",
            .examples =
                "dmc inspect models/story-dmc4.gguf\n"
                "dmc inspect models/story-dmc4.gguf --data heldout.txt --svg heads.svg\n"
                "dmc inspect models/story-dmc4.gguf --data heldout.txt --spans --at 'the [a-z]+ ([A-Z][a-z]+)'\n"
                "dmc inspect models/story-dmc4.gguf --data heldout.txt --spans-svg spans.svg --atlas atlas.html"},
        argc, argv);
    o.no_color = w.no_color;
    if (w.at && !w.spans) cli_usage("--at belongs to --spans");
    if (w.head && !w.spans && !w.spans_svg) cli_usage("--head belongs to --spans and --spans-svg");
    if (w.at && atlas_at_check(w.at) != DMC_OK) cli_usage("--at: %s", dmc_last_error());
    const char *shows = w.svg ? "svg" : w.atlas ? "atlas" : w.spans_svg ? "spans-svg" : w.spans ? "spans" : NULL;
    if (shows && !data.n) cli_usage("--%s needs a text to show the compression of: --data FILE", shows);
    dmc_checkpoint *c;
    cli_check(dmc_checkpoint_open(&c, path));
    json_t *object = w.json ? model_json(c) : NULL;
    if (!w.json) print_model(c);
    const char *tier = dmc_kernels_pick(0)->name;
    if (kernels && w.json) json_put_string(object, "kernels", tier);
    else if (kernels) printf("kernels       %s\n", tier);
    dmc_checkpoint_close(c);
    if (data.n) inspect_text(object, path, &data, &o, &engine, &w);
    if (w.json) json_print(object);
    return 0;
}
