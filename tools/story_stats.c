/* What a generated text is made of, and how well one would score who has not understood it. */
#include "story.h"
#include "story_words.h"

#include <ctype.h>
#include <math.h>

/* ---- distinct words: a set of hashes, 0 stands for an empty place ---- */

static bool insert(uint64_t *set, size_t capacity, uint64_t hash)
{
    size_t i = (size_t)hash & (capacity - 1);
    while (set[i] && set[i] != hash) i = (i + 1) & (capacity - 1);
    if (set[i]) return false;
    set[i] = hash;
    return true;
}

static dmc_status grow(story_stats *s)
{
    size_t capacity = s->seen_capacity ? 2 * s->seen_capacity : 4096;
    uint64_t *set;
    DMC_TRY(dmc_array(&set, capacity, sizeof *set));
    for (size_t i = 0; i < s->seen_capacity; i++)
        if (s->seen[i]) insert(set, capacity, s->seen[i]);
    dmc_free(s->seen);
    s->seen = set;
    s->seen_capacity = capacity;
    return DMC_OK;
}

static dmc_status add_words(story_stats *s, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t begin = i;
        while (i < n && isalpha((unsigned char)text[i])) i++;
        if (i == begin) continue;
        if (2 * (s->n_seen + 1) > s->seen_capacity) DMC_TRY(grow(s));
        s->n_seen += insert(s->seen, s->seen_capacity, dmc_checksum(text + begin, i - begin, 0) | 1);
    }
    return DMC_OK;
}

/* ---- questions ---- */

static bool was_asked_before(const story_document *d, int question, int fact)
{
    for (int q = 0; q < question; q++)
        if (d->asked[q].fact == fact) return true;
    return false;
}

static void add_question(story_stats *s, const story_document *d, int question)
{
    const story_asked *asked = &d->asked[question];
    const story_fact *f = &d->facts[asked->fact];
    int values = 0, unasked = 0, first = -1, recent = -1;
    for (int i = 0; i < asked->n_facts; i++) {
        if (d->facts[i].kind != f->kind) continue;
        values++;
        unasked += !was_asked_before(d, question, i);
        if (first < 0) first = i;
        recent = i;
    }
    s->recent += recent == asked->fact;
    s->first += first == asked->fact;
    s->any += 1.0 / values;
    if (!was_asked_before(d, question, asked->fact)) s->unasked += 1.0 / unasked;
    s->answers[f->kind][f->value]++;
    size_t distance = asked->word - f->word;
    int bucket = 0;
    while (bucket < STORY_DISTANCES - 1 && distance >= (size_t)16 << bucket) bucket++;
    s->distances[bucket]++;
    s->quarters[4 * f->story_word / d->n_story_words]++;
    s->questions++;
}

dmc_status story_stats_add(story_stats *s, const story_document *d)
{
    s->documents++;
    s->bytes += d->n;
    s->words += d->n_words;
    s->facts += (uint64_t)d->n_facts;
    for (int q = 0; q < d->n_asked; q++) add_question(s, d, q);
    return add_words(s, d->text, d->n - sizeof STORY_SEPARATOR); /* less the separator and its newline */
}

uint64_t story_stats_questions(const story_stats *s, int kind)
{
    uint64_t n = 0;
    for (int v = 0; v < STORY_ANSWERS_MAX; v++) n += s->answers[kind][v];
    return n;
}

double story_stats_constant(const story_stats *s, int kind)
{
    uint64_t right = 0, all = 0;
    for (int k = 0; k < story_n_kinds; k++) {
        uint64_t best = 0;
        if (kind >= 0 && kind != k) continue;
        for (int v = 0; v < STORY_ANSWERS_MAX; v++)
            if (s->answers[k][v] > best) best = s->answers[k][v];
        right += best;
        all += story_stats_questions(s, k);
    }
    return all ? (double)right / (double)all : 0;
}

double story_stats_entropy(const story_stats *s, int kind)
{
    uint64_t all = story_stats_questions(s, kind);
    double bits = 0;
    for (int v = 0; v < STORY_ANSWERS_MAX; v++) {
        double share = all ? (double)s->answers[kind][v] / (double)all : 0;
        if (share > 0) bits -= share * log2(share);
    }
    return bits;
}

void story_stats_free(story_stats *s)
{
    dmc_free(s->seen);
    *s = (story_stats){0};
}
