/* Runs a benchmark: item by item through the cache, with progress, a results file and resumption. */
#include "eval_run.h"
#include "origin.h"
#include "progress.h"

#include "format/json.h"

#include <math.h>
#include <string.h>
#include <utf8proc.h>

enum { DEFAULT_BATCH = 8 };

typedef struct {
    const eval_task *t;
    const eval_task_options *o;
    void *data;
    int64_t n;
    eval_reader reader;
    results_db *db;    /* NULL: none */
    dmc_writer *items; /* NULL: none */
    eval_task_result *out;
    eval_job *jobs; /* [batch] */
} runner;

/* ---- what is asked ----------------------------------------------------------------------------------------------- */

static uint64_t add_hash(uint64_t hash, const eval_string *s)
{
    return dmc_checksum(s->text ? s->text : "", s->n + (s->text != NULL),
                        hash); /* with the NUL: texts are told apart */
}

static uint64_t item_hash(const eval_item *item)
{
    uint64_t hash = add_hash(0, &item->prompt);
    for (size_t i = 0; i < item->n_requests; i++)
        hash = add_hash(add_hash(hash, &item->requests[i].context), &item->requests[i].continuation);
    for (int i = 0; i < EVAL_MAX_STOPS && item->stops[i]; i++)
        hash = dmc_checksum(item->stops[i], strlen(item->stops[i]) + 1, hash);
    return dmc_checksum(&item->max_tokens, sizeof item->max_tokens, hash);
}

static dmc_status check_item(const eval_item *item)
{
    if (item->generate) return eval_string_status(&item->prompt);
    for (size_t i = 0; i < item->n_requests; i++) {
        DMC_TRY(eval_string_status(&item->requests[i].context));
        DMC_TRY(eval_string_status(&item->requests[i].continuation));
    }
    return item->n_requests ? DMC_OK : dmc_fail(DMC_ERR_FORMAT, "item %s asks nothing", item->id);
}

/* ---- what was answered ------------------------------------------------------------------------------------------- */

static int n_metrics(const eval_task *t)
{
    int n = 0;
    while (t->metrics[n].name) n++;
    return n;
}

static void put_number(eval_string *out, double x)
{
    if (isfinite(x)) eval_put(out, "%.17g", x);
    else eval_put(out, "null");
}

/* A text as JSON; what is not UTF-8 becomes U+FFFD. */
static void put_quoted(eval_string *out, const char *text)
{
    eval_put(out, "\"");
    for (size_t n = strlen(text); n > 0;) {
        utf8proc_int32_t c;
        const utf8proc_ssize_t step = utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, &c);
        const size_t used = step > 0 ? (size_t)step : 1;
        if (step <= 0) eval_put(out, "\xef\xbf\xbd");
        else if (c == '"' || c == '\\') eval_put(out, "\\%c", *text);
        else if (c < 0x20) eval_put(out, "\\u%04x", (unsigned)c);
        else eval_put_bytes(out, text, used);
        text += used;
        n -= used;
    }
    eval_put(out, "\"");
}

static const char *text_of(const eval_string *s) { return s->text ? s->text : ""; }

/* "[1,null]" */
static void put_values(eval_string *out, const eval_task *t, const eval_outcome *o)
{
    for (int i = 0; i < n_metrics(t); i++) {
        eval_put(out, i ? "," : "[");
        put_number(out, o->value[i]);
    }
    eval_put(out, "]");
}

/* "[[-1.5,true],...]", or the text that was generated. */
static void put_scores(eval_string *out, const eval_job *j)
{
    if (j->item.generate) {
        put_quoted(out, text_of(&j->text));
        return;
    }
    for (size_t i = 0; i < j->n_pairs; i++) {
        eval_put(out, i ? ",[" : "[[");
        put_number(out, j->scores[i].logprob);
        eval_put(out, ",%s]", j->scores[i].greedy ? "true" : "false");
    }
    eval_put(out, "]");
}

static bool read_values(double *values, int n, const json_t *list)
{
    bool fits = json_is_array(list) && json_array_size(list) == (size_t)n;
    for (int i = 0; fits && i < n; i++) {
        const json_t *value = json_array_get(list, (size_t)i);
        fits = json_is_number(value) || json_is_null(value);
        values[i] = json_is_number(value) ? json_number_value(value) : NAN;
    }
    return fits;
}

static bool are_scores(const eval_item *item, const json_t *scores)
{
    if (item->generate) return json_is_string(scores);
    bool fits = json_is_array(scores) && json_array_size(scores) == item->n_requests;
    for (size_t i = 0; fits && i < item->n_requests; i++) {
        const json_t *score = json_array_get(scores, i);
        fits = json_array_size(score) == 2 && json_is_number(json_array_get(score, 0)) &&
               json_is_boolean(json_array_get(score, 1));
    }
    return fits;
}

/* A file may have been edited or damaged: what it says is read as strictly as any other. */
static dmc_status read_answers(const runner *r, eval_job *j, const results_item *item)
{
    json_t *both;
    eval_string text = {0};
    eval_put(&text, "[%s,%s]", item->metrics, item->scores);
    dmc_status status = eval_string_status(&text);
    if (status == DMC_OK) status = dmc_json_load(&both, text.text, text.n, r->o->db_path);
    if (status == DMC_OK) {
        const bool fits = json_array_size(both) == 2 &&
                          read_values(j->outcome.value, n_metrics(r->t), json_array_get(both, 0)) &&
                          are_scores(&j->item, json_array_get(both, 1));
        json_decref(both);
        if (!fits) status = DMC_ERR_FORMAT;
    }
    eval_string_free(&text);
    if (status != DMC_ERR_FORMAT) return status;
    return dmc_fail(status,
                    "%s: item %s: its metrics '%.40s' and scores '%.40s' are none of %s: run anew without --resume",
                    r->o->db_path, j->item.id, item->metrics, item->scores, r->t->name);
}

/* Takes over what an earlier run has answered. */
static dmc_status recall_item(runner *r, eval_job *j, bool *found)
{
    results_item item;
    DMC_TRY(results_db_find(r->db, j->item.id, &item, found));
    if (!*found) return DMC_OK;
    if (item.hash != j->hash)
        return dmc_fail(DMC_ERR_ARG, "item %s was another one when %s was written: run anew without --resume",
                        j->item.id, r->o->db_path);
    DMC_TRY(read_answers(r, j, &item));
    eval_put(&j->scores_text, "%s", item.scores);
    eval_put(&j->outcome.answer, "%s", item.answer);
    j->outcome.correct = item.correct;
    j->truncated = item.truncated;
    j->cache = (eval_cache){.n = 1,
                            .tokens = item.tokens,
                            .slots = item.slots,
                            .slots_uncompressed = item.slots_uncompressed,
                            .bytes = (uint64_t)item.bytes,
                            .bytes_uncompressed = (uint64_t)item.bytes_uncompressed};
    j->known = true;
    DMC_TRY(eval_string_status(&j->scores_text));
    return eval_string_status(&j->outcome.answer);
}

static dmc_status keep_item(runner *r, const eval_job *j)
{
    eval_string values = {0};
    put_values(&values, r->t, &j->outcome);
    dmc_status status = eval_string_status(&values);
    if (status == DMC_OK)
        status = results_db_put(r->db, &(results_item){.id = j->item.id,
                                                       .hash = j->hash,
                                                       .metrics = values.text,
                                                       .scores = j->scores_text.text,
                                                       .answer = text_of(&j->outcome.answer),
                                                       .correct = j->outcome.correct,
                                                       .truncated = j->truncated,
                                                       .tokens = j->cache.tokens,
                                                       .slots = j->cache.slots,
                                                       .slots_uncompressed = j->cache.slots_uncompressed,
                                                       .bytes = (int64_t)j->cache.bytes,
                                                       .bytes_uncompressed = (int64_t)j->cache.bytes_uncompressed});
    eval_string_free(&values);
    return status;
}

/* What was asked, exactly, for programs that compare evaluators. Contexts that are the same stand there once. */
static void put_question(eval_string *out, const eval_item *item)
{
    if (item->generate) {
        eval_put(out, ",\"prompt\":");
        put_quoted(out, text_of(&item->prompt));
        return;
    }
    bool same = true;
    for (size_t i = 1; i < item->n_requests; i++)
        same &= strcmp(text_of(&item->requests[i].context), text_of(&item->requests[0].context)) == 0;
    for (size_t i = 0; i < (same ? 1 : item->n_requests); i++) {
        eval_put(out, i ? "," : ",\"contexts\":[");
        put_quoted(out, text_of(&item->requests[i].context));
    }
    for (size_t i = 0; i < item->n_requests; i++) {
        eval_put(out, i ? "," : "],\"continuations\":[");
        put_quoted(out, text_of(&item->requests[i].continuation));
    }
    eval_put(out, "]");
}

/* A line of --items. */
static dmc_status write_item(runner *r, const eval_job *j)
{
    eval_string line = {0};
    eval_put(&line, "{\"id\":");
    put_quoted(&line, j->item.id);
    if (r->t->group) {
        eval_put(&line, ",\"group\":");
        put_quoted(&line, r->t->group(r->data, j->item.group));
    }
    eval_put(&line, ",\"correct\":%s", j->outcome.correct ? "true" : "false");
    for (int i = 0; i < n_metrics(r->t); i++) {
        eval_put(&line, "%s\"%s\":", i ? "," : ",\"metrics\":{", r->t->metrics[i].name);
        put_number(&line, j->outcome.value[i]);
    }
    eval_put(&line, "}");
    put_question(&line, &j->item);
    eval_put(&line, ",\"%s\":%s,\"answer\":", j->item.generate ? "text" : "scores", j->scores_text.text);
    put_quoted(&line, text_of(&j->outcome.answer));
    eval_put(&line, ",\"truncated\":%s,\"tokens\":%lld,\"cr\":%.6g}\n", j->truncated ? "true" : "false",
             (long long)j->cache.tokens, eval_cache_cr(&j->cache));
    dmc_status status = eval_string_status(&line);
    if (status == DMC_OK) dmc_write(r->items, line.text, line.n);
    eval_string_free(&line);
    return status;
}

static void add_to_group(const eval_task *t, eval_group *g, const eval_outcome *o)
{
    g->n++;
    for (int i = 0; i < n_metrics(t); i++) {
        if (isnan(o->value[i])) continue;
        g->sum[i] += o->value[i];
        g->squares[i] += o->value[i] * o->value[i];
        g->counted[i]++;
    }
}

static void add_up(runner *r, const eval_job *j)
{
    eval_task_result *out = r->out;
    add_to_group(r->t, &out->all, &j->outcome);
    add_to_group(r->t, &out->groups[j->item.group], &j->outcome);
    out->truncated += j->truncated;
    out->resumed += j->known;
    out->cache.n += j->cache.n;
    out->cache.tokens += j->cache.tokens;
    out->cache.slots += j->cache.slots;
    out->cache.slots_uncompressed += j->cache.slots_uncompressed;
    out->cache.bytes += j->cache.bytes;
    out->cache.bytes_uncompressed += j->cache.bytes_uncompressed;
}

/* ---- a batch ----------------------------------------------------------------------------------------------------- */

static void drop_batch(runner *r)
{
    for (int i = 0; i < r->reader.batch; i++) eval_job_free(&r->jobs[i]);
}

static dmc_status score(runner *r, eval_job *j)
{
    const eval_answer answer = {
        .scores = j->scores, .text = j->text.text ? j->text.text : "", .n_text = j->text.n, .n_tokens = j->n_generated};
    DMC_TRY(r->t->score(&j->outcome, r->data, j->index, &j->item, &answer));
    put_scores(&j->scores_text, j);
    DMC_TRY(eval_string_status(&j->scores_text));
    return eval_string_status(&j->outcome.answer);
}

/* Items [first, first + n): answered, counted, kept. */
static dmc_status run_batch(runner *r, int64_t first, size_t n)
{
    eval_job *asked[EVAL_MAX_BATCH];
    size_t n_asked = 0;
    const double start = dmc_now();
    for (size_t k = 0; k < n; k++) {
        eval_job *j = &r->jobs[k];
        bool found = false;
        j->index = first + (int64_t)k;
        DMC_TRY(r->t->item(&j->item, r->data, j->index));
        DMC_TRY(check_item(&j->item));
        j->hash = item_hash(&j->item);
        if (r->db) DMC_TRY(recall_item(r, j, &found));
        if (found) continue;
        DMC_TRY(eval_job_encode(j, &r->reader));
        asked[n_asked++] = j;
    }
    DMC_TRY(eval_reader_answer(&r->reader, asked, n_asked));
    for (size_t k = 0; k < n; k++) {
        eval_job *j = &r->jobs[k];
        if (!j->known) DMC_TRY(score(r, j));
        if (!j->known && r->db) DMC_TRY(keep_item(r, j));
        if (r->items) DMC_TRY(write_item(r, j));
        add_up(r, j);
    }
    if (n_asked == 0) return DMC_OK;
    r->out->seconds += dmc_now() - start;
    return r->db ? results_db_commit(r->db, dmc_now() - start) : DMC_OK;
}

static dmc_status run_all(runner *r)
{
    const int batch = r->reader.batch;
    const int show = r->t->headline;
    dmc_status status = DMC_OK;
    char title[64];
    progress bar;
    snprintf(title, sizeof title, "eval %s", r->t->name);
    progress_start(
        &bar,
        &(progress_options){
            .title = title, .total = r->n, .unit = "item", .quiet = r->o->eval.quiet, .no_color = r->o->eval.no_color});
    for (int64_t first = 0; first < r->n && status == DMC_OK; first += batch) {
        const int64_t n = r->n - first < batch ? r->n - first : batch;
        status = run_batch(r, first, (size_t)n);
        drop_batch(r);
        if (status == DMC_OK)
            progress_update(&bar, first + n, "%s %.4f  CR %.2f", r->t->metrics[show].name,
                            eval_metric_value(r->t, &r->out->all, show), eval_cache_cr(&r->out->cache));
    }
    progress_end(&bar);
    return status;
}

/* ---- the run ----------------------------------------------------------------------------------------------------- */

static dmc_status set_up_groups(runner *r)
{
    eval_task_result *out = r->out;
    out->n_groups = r->t->n_groups ? r->t->n_groups(r->data) : 1;
    DMC_TRY(dmc_array(&out->groups, (size_t)out->n_groups, sizeof *out->groups));
    for (int i = 0; i < out->n_groups; i++) {
        out->groups[i].name = dmc_strdup(r->t->group ? r->t->group(r->data, i) : r->t->name);
        if (!out->groups[i].name) return dmc_fail(DMC_ERR_MEMORY, "out of memory");
    }
    return DMC_OK;
}

static dmc_status write_protocol(runner *r, const eval_source *source)
{
    char how[160];
    eval_string s = {0};
    eval_describe(how, sizeof how, &r->reader.so);
    eval_put(&s, "%s; %d-shot; %s", how, source->shots, r->t->prompt);
    if (r->reader.so.policy.kind == DMC_POLICY_SNAPKV)
        eval_put(&s, "; the policy's prompt is each context but its last token");
    if (r->t->note) r->t->note(r->data, &s);
    if (source->limit) eval_put(&s, "; the first %lld items of each group", (long long)source->limit);
    r->out->protocol = s.text;
    return eval_string_status(&s);
}

static dmc_status open_outputs(runner *r)
{
    const eval_task_options *o = r->o;
    static const char *const kv[] = {"auto", "f32", "f16", "bf16", "q8", "q4"};
    char hash[17], policy[160];
    if (o->items_path) DMC_TRY(dmc_writer_open(&r->items, o->items_path));
    if (!o->db_path) return DMC_OK;
    DMC_TRY(results_model_hash(hash, o->model_path));
    eval_describe(policy, sizeof policy, &r->reader.so);
    DMC_TRY(results_db_open(&r->db, o->db_path));
    return results_db_begin(r->db,
                            &(results_run){.model = o->model_path,
                                           .model_hash = hash,
                                           .task = r->t->name,
                                           .protocol = r->out->protocol,
                                           .policy = policy,
                                           .kv = kv[dmc_engine_info(r->reader.e)->kv],
                                           .commit = origin_commit,
                                           .version = DMC_VERSION},
                            o->resume);
}

static void put_summary(eval_string *out, const eval_task *t, const eval_group *g)
{
    eval_put(out, "{\"items\":%lld", (long long)g->n);
    for (int i = 0; i < n_metrics(t); i++) {
        eval_put(out, ",\"%s\":", t->metrics[i].name);
        put_number(out, eval_metric_value(t, g, i));
    }
}

/* The metrics of the run and of its groups, with its CR. */
static dmc_status keep_summary(runner *r)
{
    const eval_task_result *out = r->out;
    eval_string s = {0};
    put_summary(&s, r->t, &out->all);
    eval_put(&s, ",\"cr\":%.10g", eval_cache_cr(&out->cache));
    for (int i = 0; out->n_groups > 1 && i < out->n_groups; i++) {
        eval_put(&s, i ? "," : ",\"groups\":{");
        put_quoted(&s, out->groups[i].name);
        eval_put(&s, ":");
        put_summary(&s, r->t, &out->groups[i]);
        eval_put(&s, i + 1 < out->n_groups ? "}" : "}}");
    }
    eval_put(&s, "}");
    dmc_status status = eval_string_status(&s);
    if (status == DMC_OK) status = results_db_finish(r->db, s.text);
    eval_string_free(&s);
    return status;
}

static dmc_status close_outputs(runner *r)
{
    if (r->items) {
        dmc_writer *w = r->items;
        r->items = NULL;
        DMC_TRY(dmc_writer_commit(w));
    }
    if (!r->db) return DMC_OK;
    r->out->seconds = results_db_seconds(r->db);
    return keep_summary(r);
}

static dmc_status choose_shots(int *shots, const eval_task *t, int asked)
{
    *shots = asked >= 0 ? asked : t->shots;
    if (*shots > t->max_shots)
        return dmc_fail(DMC_ERR_ARG, "--shots %d: %s has %s%d", *shots, t->name, t->max_shots ? "at most " : "",
                        t->max_shots);
    return DMC_OK;
}

dmc_status eval_task_run(eval_task_result *out, dmc_engine *e, const eval_task *t, const eval_task_options *o)
{
    const dmc_info *info = dmc_engine_info(e);
    const size_t batch = o->batch ? (size_t)o->batch : DEFAULT_BATCH;
    eval_options eval = o->eval;
    dmc_session_options so;
    dmc_status status;
    runner r = {.t = t, .o = o, .out = out};
    eval_source source = {.engine = e, .dir = o->data, .limit = eval.limit, .extra = o->extra};
    *out = (eval_task_result){.task = t};
    if (batch > EVAL_MAX_BATCH)
        DMC_GOTO(dmc_fail(DMC_ERR_ARG, "a batch of %zu items: at most %d", batch, EVAL_MAX_BATCH));
    if (eval.ctx == 0) eval.ctx = info->n_ctx;
    DMC_GOTO(eval_prepare(&so, e, &eval));
    out->cache.policy = so.policy;
    DMC_GOTO(choose_shots(&source.shots, t, o->shots));
    source.n_ctx = so.n_ctx;
    out->shots = source.shots;
    DMC_GOTO(t->open(&r.data, &source));
    r.n = t->count(r.data);
    if (r.n < 1) DMC_GOTO(dmc_fail(DMC_ERR_FORMAT, "%s: %s has no items there", o->data, t->name));
    DMC_GOTO(eval_reader_create(&r.reader, e, &so, &eval, (int)batch));
    DMC_GOTO(dmc_array(&r.jobs, batch, sizeof *r.jobs));
    DMC_GOTO(set_up_groups(&r));
    DMC_GOTO(write_protocol(&r, &source));
    DMC_GOTO(open_outputs(&r));
    DMC_GOTO(run_all(&r));
    out->tokens = r.reader.tokens;
    DMC_GOTO(close_outputs(&r));
done:
    if (r.data) t->close(r.data);
    eval_reader_free(&r.reader);
    dmc_writer_abort(r.items);
    results_db_close(r.db);
    dmc_free(r.jobs);
    if (status != DMC_OK) eval_task_result_free(out);
    return status;
}
