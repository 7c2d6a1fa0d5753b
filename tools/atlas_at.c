/* How often slots begin where a regular expression matches. */
#include "atlas.h"

#include <math.h>
#include <regex.h>
#include <string.h>

/* The text of tokens [from, to), control tokens as line ends, and where each begins in it; dmc_free both. */
static dmc_status join(const atlas *a, int64_t from, int64_t to, char **text, size_t **begins)
{
    size_t n = 0;
    dmc_status status = DMC_OK;
    for (int64_t t = from; t < to; t++) n += a->control[t] ? 1 : strlen(a->text[t]);
    DMC_TRY(dmc_array(text, n + 1, 1));
    DMC_GOTO(dmc_array(begins, (size_t)(to - from), sizeof **begins));
    n = 0;
    for (int64_t t = from; t < to; t++) {
        const char *piece = a->control[t] ? "\n" : a->text[t];
        const size_t bytes = strlen(piece);
        (*begins)[t - from] = n;
        memcpy(*text + n, piece, bytes);
        n += bytes;
    }
    (*text)[n] = 0;
    return DMC_OK;
done:
    dmc_free(*text);
    return status;
}

/* One window: the token that holds the first byte of each match, or of its first group, is looked at in every head. */
static dmc_status look(const atlas *a, const regex_t *regex, int64_t from, int64_t to, atlas_at_result *out)
{
    const int H = a->n_layers * a->n_heads;
    regmatch_t m[2];
    char *text = NULL;
    size_t *begins = NULL, at = 0;
    int64_t t = 0, last = -1;
    int found = 0;
    DMC_TRY(join(a, from, to, &text, &begins));
    const size_t n = strlen(text);
    while (at < n) {
        m[0] = (regmatch_t){.rm_so = (regoff_t)at, .rm_eo = (regoff_t)n};
        found = regexec(regex, text, 2, m, REG_STARTEND | (at ? REG_NOTBOL : 0)); /* STARTEND: of glibc and the BSDs */
        if (found != 0) break;
        const size_t match = (size_t)(m[1].rm_so >= 0 ? m[1].rm_so : m[0].rm_so), end = (size_t)m[0].rm_eo;
        at = end > at ? end : at + 1;
        if (match >= n) break;
        while (t + 1 < to - from && begins[t + 1] <= match) t++;
        if (t == last) continue;
        last = t;
        if (a->state[(from + t) * H] == ATLAS_RECENT) continue; /* as it is in every head */
        out->tokens++;
        for (int h = 0; h < H; h++) {
            out->settled[h / a->n_heads]++;
            out->begins[h / a->n_heads] += a->state[(from + t) * H + h] == ATLAS_BEGINS;
        }
    }
    dmc_free(text);
    dmc_free(begins);
    return found == 0 || found == REG_NOMATCH ? DMC_OK
                                              : dmc_fail(DMC_ERR_MEMORY, "out of memory for a regular expression");
}

void atlas_at_free(atlas_at_result *r)
{
    dmc_free(r->settled);
    dmc_free(r->begins);
    *r = (atlas_at_result){0};
}

/* On success the caller frees it with regfree. */
static dmc_status compile(regex_t *regex, const char *pattern)
{
    char why[128];
    const int error = regcomp(regex, pattern, REG_EXTENDED | REG_NEWLINE);
    if (!error) return DMC_OK;
    regerror(error, regex, why, sizeof why);
    return dmc_fail(DMC_ERR_ARG, "'%s' is no extended regular expression: %s", pattern, why);
}

dmc_status atlas_at_check(const char *pattern)
{
    regex_t regex;
    DMC_TRY(compile(&regex, pattern));
    regfree(&regex);
    return DMC_OK;
}

dmc_status atlas_at(atlas_at_result *out, const atlas *a, const char *pattern)
{
    regex_t regex;
    dmc_status status;
    *out = (atlas_at_result){0};
    DMC_TRY(compile(&regex, pattern));
    DMC_GOTO(dmc_array(&out->settled, (size_t)a->n_layers, sizeof *out->settled));
    DMC_GOTO(dmc_array(&out->begins, (size_t)a->n_layers, sizeof *out->begins));
    for (int i = 0; i < a->n_windows; i++) DMC_GOTO(look(a, &regex, a->window[i], a->window[i + 1], out));
done:
    regfree(&regex);
    if (status != DMC_OK) atlas_at_free(out);
    return status;
}

double atlas_at_rate(const atlas_at_result *r, int from, int to)
{
    int64_t settled = 0, begins = 0;
    for (int il = from; il < to; il++) settled += r->settled[il], begins += r->begins[il];
    return settled ? (double)begins / (double)settled : NAN;
}

double atlas_at_against(const atlas_at_result *r, const atlas *a, int from, int to)
{
    double all = 0;
    for (int h = from * a->n_heads; h < to * a->n_heads; h++) all += a->begin_share[h] / ((to - from) * a->n_heads);
    return all > 0 ? atlas_at_rate(r, from, to) / all : NAN;
}
