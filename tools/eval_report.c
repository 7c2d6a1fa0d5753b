/* What the commands of dmc eval print. */
#include "eval_report.h"
#include "json_out.h"

#include <math.h>
#include <string.h>

/* ---- caches ------------------------------------------------------------------------------------------------------ */

static void put_cache(json_t *o, const eval_cache *c)
{
    double n = c->n ? (double)c->n : 1;
    policy_put_json(o, &c->policy);
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

static const char *windows_unit(const eval_windows *w) { return w->protocol == EVAL_SEPARATE ? "document" : "window"; }

/* n: of the windows, those with a token to judge. */
static void print_windows(const eval_windows *w, int64_t n)
{
    printf("tokens       %lld in %lld %ss of %s%d", (long long)w->judged, (long long)n, windows_unit(w),
           w->protocol == EVAL_SEPARATE ? "at most " : "", w->ctx);
}

void eval_report_ppl(const eval_ppl_result *r, const char *protocol, bool json)
{
    double nll = eval_ppl_nll(r), rate = (double)r->cache.tokens / r->seconds;
    if (json) {
        json_t *o = json_new_object();
        json_put_string(o, "task", "ppl");
        json_put_real(o, "nll", nll);
        json_put_real(o, "ppl", exp(nll));
        json_put_int(o, "tokens", r->windows.judged);
        json_put_real(o, "bits_per_byte", eval_ppl_bits_per_byte(r));
        json_put_int(o, "bytes", r->bytes);
        json_put_int(o, "windows", r->cache.n);
        json_put_int(o, "ctx", r->windows.ctx);
        put_cache(o, &r->cache);
        json_put_real(o, "tokens_per_second", rate);
        json_put_string(o, "protocol", protocol);
        json_print(o);
        return;
    }
    printf("nll          %.5f nats a token\nperplexity   %.4f\nbits a byte  %.4f\n", nll, exp(nll),
           eval_ppl_bits_per_byte(r));
    print_windows(&r->windows, r->cache.n);
    printf("; %.0f tokens read a second\n", rate);
    print_cache(&r->cache, windows_unit(&r->windows));
    printf("protocol     %s\n", protocol);
}

void eval_report_kld(const eval_kld_result *r, const char *protocol, bool json)
{
    double same = (double)r->same / (double)r->windows.judged;
    if (json) {
        json_t *o = json_new_object();
        json_put_string(o, "task", "kld");
        json_put_real(o, "kld", r->kl);
        json_put_real(o, "kld_median", r->median);
        json_put_real(o, "kld_p99", r->p99);
        json_put_real(o, "kld_max", r->worst);
        json_put_real(o, "top_agreement", same);
        json_put_real(o, "nll", r->nll);
        json_put_real(o, "nll_reference", r->nll_reference);
        json_put_int(o, "tokens", r->windows.judged);
        json_put_int(o, "windows", r->cache.n);
        json_put_int(o, "ctx", r->windows.ctx);
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
    print_windows(&r->windows, r->cache.n);
    printf("\n");
    print_cache(&r->cache, windows_unit(&r->windows));
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

void eval_report_recall(const eval_recall_result *r, const char *protocol, bool json)
{
    if (json) {
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

/* ---- benchmarks -------------------------------------------------------------------------------------------------- */

static void put_metrics(json_t *o, const eval_task *t, const eval_group *g)
{
    for (int i = 0; t->metrics[i].name; i++) {
        char name[64];
        const double error = eval_metric_stderr(t, g, i);
        json_put_real(o, t->metrics[i].name, eval_metric_value(t, g, i));
        snprintf(name, sizeof name, "%s_stderr", t->metrics[i].name);
        if (!isnan(error)) json_put_real(o, name, error);
    }
}

json_t *eval_task_json(const eval_task_result *r)
{
    json_t *o = json_new_object();
    json_put_string(o, "task", r->task->name);
    json_put_int(o, "items", r->all.n);
    json_put_int(o, "shots", r->shots);
    put_metrics(o, r->task, &r->all);
    if (r->n_groups > 1) {
        json_t *groups = json_new_object(), *macro = json_new_object();
        for (int i = 0; i < r->n_groups; i++) {
            json_t *group = json_new_object();
            json_put_int(group, "items", r->groups[i].n);
            put_metrics(group, r->task, &r->groups[i]);
            json_put(groups, r->groups[i].name, group);
        }
        for (int i = 0; r->task->metrics[i].name; i++)
            json_put_real(macro, r->task->metrics[i].name, eval_metric_macro(r, i));
        json_put(o, "mean_of_groups", macro);
        json_put(o, "groups", groups);
    }
    json_put_int(o, "truncated", r->truncated);
    put_cache(o, &r->cache);
    json_put_real(o, "seconds", r->seconds);
    json_put_string(o, "protocol", r->protocol);
    return o;
}

static void print_metrics(const eval_task *t, const eval_group *g)
{
    for (int i = 0; t->metrics[i].name; i++) {
        const double value = eval_metric_value(t, g, i), error = eval_metric_stderr(t, g, i);
        printf("%s%s %.4f", i ? "  " : "", t->metrics[i].name, value);
        if (!isnan(error)) printf(" (+-%.4f)", error);
    }
    printf("\n");
}

void eval_report_task(const eval_task_result *r)
{
    printf("%-12s ", r->task->name);
    print_metrics(r->task, &r->all);
    for (int i = 0; r->n_groups > 1 && i < r->n_groups; i++) {
        printf("  %-36s %5lld items  ", r->groups[i].name, (long long)r->groups[i].n);
        print_metrics(r->task, &r->groups[i]);
    }
    printf("items        %lld, %d-shot; %lld tokens read in %.1f s", (long long)r->all.n, r->shots,
           (long long)r->tokens, r->seconds);
    if (r->resumed) printf("; %lld were answered before", (long long)r->resumed);
    if (r->truncated) printf("; %lld contexts cut on the left", (long long)r->truncated);
    printf("\n");
    print_cache(&r->cache, "context");
    printf("protocol     %s\n", r->protocol);
}
