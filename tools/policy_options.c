/* From the options of a command to a policy, and from a policy to words. */
#include "policy_options.h"

#include "base/base.h"
#include "json_out.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

policy_options policy_options_default(void)
{
    return (policy_options){.recent = -1, .sinks = -1, .delay = -1, .window = -1};
}

static const struct {
    const char *name;
    double bytes;
} units[] = {{"B", 1}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}};
enum { UNITS = sizeof units / sizeof *units };

static dmc_status read_budget(dmc_policy *p, const char *text)
{
    size_t digits = strspn(text, "0123456789.");
    const char *unit = text + digits, *dot = memchr(text, '.', digits);
    char *end;
    p->budget = strtod(text, &end);
    p->budget_unit = *unit ? DMC_BUDGET_BYTES : dot ? DMC_BUDGET_RATIO : DMC_BUDGET_SLOTS;
    bool known = !*unit;
    for (int i = 0; i < UNITS && *unit; i++) {
        if (strcasecmp(unit, units[i].name) != 0) continue;
        p->budget *= units[i].bytes;
        known = true;
    }
    if (end != unit || !known)
        return dmc_fail(
            DMC_ERR_ARG,
            "--budget '%s' is no budget: give a ratio such as 0.25, a number of slots such as 512, or bytes "
            "such as 64MiB",
            text);
    if (p->budget_unit == DMC_BUDGET_RATIO && p->budget > 1)
        return dmc_fail(DMC_ERR_ARG, "--budget %s: a ratio is at most 1; slots are a whole number", text);
    return p->budget > 0 ? DMC_OK : dmc_fail(DMC_ERR_ARG, "--budget %s: nothing would be left to attend to", text);
}

/* What the options ask for must be something that the policy has. */
static dmc_status check(const dmc_policy *p, const policy_options *o)
{
    bool budget = dmc_policy_has_budget(p->kind), trained = p->kind != DMC_POLICY_NONE && !budget;
    if ((o->delay >= 0 || o->window >= 0) && !trained)
        return dmc_fail(DMC_ERR_ARG, "--delay and --window need a model that compresses, or --policy dmc");
    if (o->budget && !budget)
        return dmc_fail(DMC_ERR_ARG, "--budget belongs to the policies h2o, tova, streaming and snapkv");
    if (o->recent >= 0 && p->kind != DMC_POLICY_H2O && p->kind != DMC_POLICY_SNAPKV)
        return dmc_fail(DMC_ERR_ARG, "--recent belongs to the policies h2o and snapkv");
    if (o->sinks >= 0 && p->kind != DMC_POLICY_STREAMING)
        return dmc_fail(DMC_ERR_ARG, "--sinks belongs to the policy streaming");
    return DMC_OK;
}

static dmc_status kind_of(dmc_policy_kind *out, const char *name)
{
    for (int k = 0; k < DMC_POLICY_COUNT; k++) {
        if (strcmp(dmc_policy_name((dmc_policy_kind)k), name) != 0) continue;
        *out = (dmc_policy_kind)k;
        return DMC_OK;
    }
    return dmc_fail(DMC_ERR_ARG, "no policy is called '%s'", name);
}

dmc_status policy_choose(dmc_policy *out, const dmc_info *info, const policy_options *o)
{
    dmc_policy p = info->policy;
    dmc_policy_kind kind = p.kind;
    if (o->name) DMC_TRY(kind_of(&kind, o->name));
    if (kind == DMC_POLICY_NONE) p.kind = kind; /* what else is known of the model's own policy stays */
    else if (kind != p.kind) p = dmc_policy_default(kind, info->head_dim);
    DMC_TRY(check(&p, o));
    if (o->budget) DMC_TRY(read_budget(&p, o->budget));
    if (o->recent >= 0) p.recent = o->recent ? o->recent : -1; /* 0 would be the default */
    if (o->sinks >= 0) p.sinks = o->sinks ? o->sinks : -1;
    if (o->delay >= 0) p.delay = o->delay;
    if (o->window >= 0) p.window = o->window;
    *out = p;
    return DMC_OK;
}

bool policy_untrained(const dmc_policy *p, const dmc_info *info)
{
    bool learned = p->kind == DMC_POLICY_DMC || p->kind == DMC_POLICY_DMS || p->kind == DMC_POLICY_FMP;
    return learned && p->kind != info->policy.kind;
}

void policy_warn(const dmc_policy *p, const dmc_info *info, const char *model)
{
    if (policy_untrained(p, info))
        cli_warn("%s was not trained to compress so; what it %s is left to chance (dmc retrofit teaches it)", model,
                 p->kind == DMC_POLICY_DMS ? "evicts" : "merges");
}

/* ---- words ---- */

static void describe_budget(char *out, size_t size, const dmc_policy *p)
{
    int u = UNITS - 1;
    switch (p->budget_unit) {
    case DMC_BUDGET_RATIO: snprintf(out, size, "%g", p->budget); break;
    case DMC_BUDGET_SLOTS: snprintf(out, size, "%.0f slots", p->budget); break;
    default:
        while (u > 0 && p->budget < units[u].bytes) u--;
        snprintf(out, size, "%.10g %s", p->budget / units[u].bytes, units[u].name);
    }
}

void policy_describe(char *out, size_t size, const dmc_policy *p)
{
    char budget[48], more[32] = "";
    const char *name = dmc_policy_name(p->kind);
    describe_budget(budget, sizeof budget, p);
    if (p->recent) snprintf(more, sizeof more, ", recent %d", p->recent > 0 ? p->recent : 0);
    if (p->sinks) snprintf(more, sizeof more, ", sinks %d", p->sinks > 0 ? p->sinks : 0);
    if (p->kind == DMC_POLICY_DMC) snprintf(out, size, "policy dmc (W %d, d %d)", p->window, p->delay);
    else if (p->kind == DMC_POLICY_DMS) snprintf(out, size, "policy dms (d %d)", p->delay);
    else if (p->kind == DMC_POLICY_FMP) snprintf(out, size, "policy fmp (%d a slot, d %d)", p->period, p->delay);
    else if (dmc_policy_has_budget(p->kind)) snprintf(out, size, "policy %s (budget %s%s)", name, budget, more);
    else snprintf(out, size, "policy %s", name);
}

void policy_put_json(json_t *object, const dmc_policy *p)
{
    static const char *const names[] = {"ratio", "slots", "bytes"};
    json_put_string(object, "policy", dmc_policy_name(p->kind));
    if (!dmc_policy_has_budget(p->kind)) return;
    json_put_real(object, "budget", p->budget);
    json_put_string(object, "budget_unit", names[p->budget_unit]);
}
