/* Writing a document. A story is planned first (people, facts, scenes, where each fact and question goes) and then
 * told. Every choice is a draw of a counter-based generator, the document's index being the stream. */
#define _GNU_SOURCE
#include "story.h"
#include "story_words.h"

#include <ctype.h>
#include <string.h>

enum { SCENES_A_DAY = 6 };

/* Average words of a fact's sentence, of a question line, of opening and ending together, of a scene: they size the
 * plan. */
static const double fact_words = 6.5, question_words = 8.1, frame_words = 44, scene_words = 35, day_words = 15;

story_options story_options_default(void)
{
    return (story_options){.seed = 1, .length = 350, .n_questions = 8, .mix = 0};
}

/* More facts than questions, so that leaving out what was asked already says little about the rest. */
static int wanted_facts(const story_options *o)
{
    int by_length = o->length / 20, least = o->n_questions * 3 / 2;
    int n = by_length > least ? by_length : least;
    return n < 8 ? 8 : n > STORY_FACTS_MAX ? STORY_FACTS_MAX : n;
}

dmc_status story_options_check(const story_options *o)
{
    if (!(o->mix >= 0 && o->mix <= 1)) return dmc_fail(DMC_ERR_ARG, "mix is %g; it is a share between 0 and 1", o->mix);
    if (o->n_questions < 0 || o->n_questions > STORY_QUESTIONS_MAX)
        return dmc_fail(DMC_ERR_ARG, "%d questions per story; give 0 to %d", o->n_questions, STORY_QUESTIONS_MAX);
    if (o->length < 100 || o->length > 100000)
        return dmc_fail(DMC_ERR_ARG, "a length of %d words; give 100 to 100000", o->length);
    if (o->mix == 1 || o->facts) return DMC_OK; /* no story into which questions have to fit */
    story_options shortest = *o;
    shortest.length = 0;
    double least = wanted_facts(&shortest) * fact_words + o->n_questions * question_words + frame_words;
    if (o->length < least)
        return dmc_fail(DMC_ERR_ARG,
                        "%d questions do not fit into a story of %d words; give a length of %d, or fewer questions",
                        o->n_questions, o->length, (int)least + 1);
    return DMC_OK;
}

/* ---- draws ---- */

typedef struct {
    uint64_t seed, stream, counter;
} draws;

static int below(draws *r, int n) { return (int)(dmc_hash64(r->seed, r->stream, r->counter++) % (uint64_t)n); }
static double uniform(draws *r) { return dmc_uniform(r->seed, r->stream, r->counter++); }
static bool chance(draws *r, double p) { return uniform(r) < p; }

static void shuffle(draws *r, int *a, int n)
{
    for (int i = n - 1; i > 0; i--) {
        int j = below(r, i + 1), t = a[i];
        a[i] = a[j];
        a[j] = t;
    }
}

static void permutation(draws *r, int *a, int n)
{
    for (int i = 0; i < n; i++) a[i] = i;
    shuffle(r, a, n);
}

/* ---- text: grows; the caller checks `failed` once ---- */

typedef struct {
    story_document *d;
    bool failed;
    bool in_question; /* words do not count as the story's */
    bool sentence;    /* the next letter begins a sentence */
    int talk;         /* the last phrase of story_talks */
} pen;

static void put(pen *p, const char *s, size_t n)
{
    story_document *d = p->d;
    size_t capacity = d->capacity ? d->capacity : 4096;
    while (capacity < d->n + n) capacity *= 2;
    if (!p->failed && capacity > d->capacity) {
        char *grown = dmc_realloc(d->text, capacity, 1);
        if (grown) {
            d->text = grown;
            d->capacity = capacity;
        } else {
            p->failed = true;
        }
    }
    if (p->failed) return;
    for (size_t i = 0; i < n; i++) {
        char before = d->n ? d->text[d->n - 1] : '\n';
        if (!isspace((unsigned char)s[i]) && isspace((unsigned char)before)) {
            d->n_words++;
            if (!p->in_question) d->n_story_words++;
        }
        d->text[d->n++] = p->sentence && isalpha((unsigned char)s[i]) ? (char)toupper((unsigned char)s[i]) : s[i];
        if (isalpha((unsigned char)s[i])) p->sentence = false;
    }
}

static void put_string(pen *p, const char *s) { put(p, s, strlen(s)); }

/* A blank, unless a line begins. */
static void put_blank(pen *p)
{
    if (p->d->n && p->d->text[p->d->n - 1] != '\n') put(p, " ", 1);
}

/* What the braces of a template stand for. */
typedef struct {
    int a, b; /* people; < 0: none */
    const char *value, *object, *all;
    size_t value_word, value_story_word; /* out: where {v} came to stand */
} filling;

static const char *name_of(int person) { return person < 0 ? "" : story_person(person); }
static const char *by_sex(int person, const char *girl, const char *boy)
{
    return person < 0 ? "" : story_is_girl(person) ? girl : boy;
}

static void put_field(pen *p, const char *name, size_t n, filling *f)
{
    const struct {
        const char *name, *text;
    } fields[] = {
        {"n", name_of(f->a)},
        {"a", name_of(f->a)},
        {"b", name_of(f->b)},
        {"v", f->value},
        {"o", f->object},
        {"all", f->all},
        {"he", by_sex(f->a, "she", "he")},
        {"his", by_sex(f->a, "her", "his")},
        {"bhis", by_sex(f->b, "her", "his")},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (strlen(fields[i].name) != n || memcmp(fields[i].name, name, n) != 0) continue;
        if (*name == 'v') {
            f->value_word = p->d->n_words;
            f->value_story_word = p->d->n_story_words;
        }
        put_string(p, fields[i].text);
        return;
    }
}

/* The template, up to its final full stop if `clause`. */
static void put_template(pen *p, const char *t, bool clause, filling *f)
{
    const char *end = t + strlen(t);
    if (clause && end > t && end[-1] == '.') end--;
    while (t < end) {
        size_t plain = strcspn(t, "{");
        if (plain > (size_t)(end - t)) plain = (size_t)(end - t);
        put(p, t, plain);
        t += plain;
        if (t == end) break;
        const char *close = strchr(t, '}');
        put_field(p, t + 1, (size_t)(close - t - 1), f);
        t = close + 1;
    }
}

static void put_sentence(pen *p, const char *t, filling *f)
{
    put_blank(p);
    p->sentence = true;
    put_template(p, t, false, f);
}

/* ---- the plan ---- */

typedef struct {
    int scene, choice[STORY_SLOTS]; /* choice < 0: the slot is left out */
    int last_pause;                 /* at its end */
    bool new_day;
} planned_scene;

typedef struct {
    int cast[STORY_CAST_MAX], n_cast;
    planned_scene *scenes;
    int n_scenes, n_pauses;
    int pause[STORY_FACTS_MAX];                                 /* when fact i is told */
    bool joined[STORY_FACTS_MAX];                               /* in one sentence with the next fact */
    int asked[STORY_QUESTIONS_MAX], after[STORY_QUESTIONS_MAX]; /* fact, and the scene after which it is asked */
    int n_asked;
} plan;

static void plan_cast(plan *s, draws *r, int n_facts)
{
    int people[32], n = story_n_people();
    permutation(r, people, n);
    s->n_cast = STORY_CAST_MIN + n_facts / 16 + below(r, 2);
    if (s->n_cast > STORY_CAST_MAX) s->n_cast = STORY_CAST_MAX;
    memcpy(s->cast, people, (size_t)s->n_cast * sizeof *people);
}

/* Facts of one kind: some of the people, or some animals or places, each with another value. */
static void plan_kind(plan *s, draws *r, story_document *d, int n_facts, int kind)
{
    const story_kind *k = &story_kinds[kind];
    int keys[STORY_ANSWERS_MAX], values[STORY_ANSWERS_MAX], most = k->objects.n ? k->objects.n : s->n_cast;
    permutation(r, keys, most);
    permutation(r, values, k->answers.n);
    int n = 4 + below(r, 5);
    for (int i = 0; i < n && i < most && d->n_facts < n_facts; i++) {
        int person = s->cast[k->objects.n ? below(r, s->n_cast) : keys[i]];
        d->facts[d->n_facts++] =
            (story_fact){.kind = kind, .object = k->objects.n ? keys[i] : 0, .person = person, .value = values[i]};
    }
}

static bool same_sort(const story_fact *a, const story_fact *b) { return a->kind == b->kind; }

static void swap_facts(story_document *d, int i, int j)
{
    story_fact f = d->facts[i];
    d->facts[i] = d->facts[j];
    d->facts[j] = f;
}

static void plan_facts(plan *s, draws *r, story_document *d, int n_facts)
{
    int order[STORY_KINDS_MAX];
    permutation(r, order, story_n_kinds);
    for (int i = 0; i < story_n_kinds; i++) plan_kind(s, r, d, n_facts, order[i]);
    for (int i = d->n_facts - 1; i > 0; i--) swap_facts(d, i, below(r, i + 1));
    for (int i = 0; i + 1 < d->n_facts; i++) {
        if ((i > 0 && s->joined[i - 1]) || !chance(r, 0.3)) continue;
        int j = i + 1;
        while (j < d->n_facts && !same_sort(&d->facts[i], &d->facts[j])) j++;
        if (j == d->n_facts) continue;
        swap_facts(d, i + 1, j);
        s->joined[i] = true;
    }
}

static int count_words(const char *s)
{
    int n = 0;
    for (; *s; s++) n += s[0] != ' ' && (s[1] == ' ' || s[1] == 0);
    return n;
}

/* One scene's choices; returns its words. */
static int plan_scene(planned_scene *p, draws *r, int scene)
{
    int words = 0;
    p->scene = scene;
    for (int i = 0; i < STORY_SLOTS; i++) {
        const story_slot *slot = &story_scenes[scene].slots[i];
        int n = 0;
        while (n < STORY_CHOICES && slot->choices[n]) n++;
        bool left_out = n == 0 || ((slot->flags & STORY_MAY) && chance(r, 0.35));
        p->choice[i] = left_out ? -1 : below(r, n);
        if (!left_out) words += count_words(slot->choices[p->choice[i]]);
    }
    return words;
}

static dmc_status plan_scenes(plan *s, draws *r, double words)
{
    int order[32], used = story_n_scenes, capacity = 0;
    while (s->n_scenes == 0 || words > scene_words / 2) {
        if (s->n_scenes == capacity) {
            capacity = capacity ? 2 * capacity : 16;
            planned_scene *grown = dmc_realloc(s->scenes, (size_t)capacity, sizeof *grown);
            if (!grown)
                return dmc_fail(DMC_ERR_MEMORY, "no memory for a story of %d scenes; give a shorter length", capacity);
            s->scenes = grown;
        }
        if (used == story_n_scenes) {
            permutation(r, order, story_n_scenes);
            used = 0;
        }
        planned_scene *p = &s->scenes[s->n_scenes++];
        words -= plan_scene(p, r, order[used++]);
        p->new_day = s->n_scenes > 1 && (s->n_scenes - 1) % SCENES_A_DAY == 0;
        if (p->new_day) words -= day_words;
    }
    return DMC_OK;
}

static bool is_told(const planned_scene *p, int slot) { return p->choice[slot] >= 0; }

static bool is_talk(const planned_scene *p, int slot)
{
    return is_told(p, slot) && (story_scenes[p->scene].slots[slot].flags & STORY_TALK);
}

/* Facts are told at pauses: after the opening, after each slot of talk, at the end of each scene. They go evenly over
 * the pauses, each to a random one of its own stretch. */
static void plan_pauses(plan *s, draws *r, int n_facts)
{
    s->n_pauses = 1;
    for (int i = 0; i < s->n_scenes; i++) {
        for (int j = 0; j < STORY_SLOTS; j++) s->n_pauses += is_talk(&s->scenes[i], j);
        s->scenes[i].last_pause = s->n_pauses++;
    }
    for (int i = 0; i < n_facts; i++) {
        s->pause[i] = (int)((i + uniform(r)) * s->n_pauses / n_facts);
        if (i > 0 && s->joined[i - 1]) s->pause[i] = s->pause[i - 1];
    }
}

/* Which facts are asked, one of each stretch of the story, and where: most in the block at the end, a third after a
 * scene, once at least three values of the kind are known. */
static void plan_questions(plan *s, draws *r, const story_document *d, int n_questions)
{
    int order[STORY_QUESTIONS_MAX];
    s->n_asked = n_questions < d->n_facts ? n_questions : d->n_facts;
    permutation(r, order, s->n_asked);
    for (int q = 0; q < s->n_asked; q++) {
        int from = order[q] * d->n_facts / s->n_asked, to = (order[q] + 1) * d->n_facts / s->n_asked;
        int fact = from + below(r, to - from), same = 0, needed = fact, scene = 0;
        for (int i = 0; i < d->n_facts && same < 3; i++)
            if (same_sort(&d->facts[i], &d->facts[fact])) {
                same++;
                if (i > needed) needed = i;
            }
        while (s->scenes[scene].last_pause < s->pause[needed]) scene++;
        s->asked[q] = fact;
        s->after[q] = s->n_scenes; /* the end */
        if (scene + 1 < s->n_scenes && chance(r, 1.0 / 3)) s->after[q] = scene + below(r, s->n_scenes - 1 - scene);
    }
}

/* ---- telling it ---- */

static const char *pick(draws *r, const story_list *l) { return l->words[below(r, l->n)]; }

static filling fact_filling(const story_fact *f)
{
    const story_kind *k = &story_kinds[f->kind];
    return (filling){.a = f->person,
                     .b = -1,
                     .value = story_answer(k, f->value),
                     .object = k->objects.n ? k->objects.words[f->object] : NULL};
}

static void tell_value(story_fact *f, const filling *with)
{
    f->word = with->value_word;
    f->story_word = with->value_story_word;
}

/* One fact, or two in one sentence. Returns how many. */
static int tell_fact(pen *p, draws *r, story_fact *f, bool joined)
{
    const story_kind *k = &story_kinds[f->kind];
    int n = 0;
    while (k->sayings[n]) n++;
    int saying = below(r, joined ? k->n_plain : n);
    filling with = fact_filling(f);
    put_blank(p);
    p->sentence = true;
    if (!joined && saying < k->n_plain && chance(r, 0.2)) {
        put_string(p, pick(r, &story_leads));
        put(p, " ", 1);
    }
    put_template(p, k->sayings[saying], joined, &with);
    tell_value(f, &with);
    if (!joined) return 1;
    put_string(p, chance(r, 0.5) ? ", and " : ", but ");
    with = fact_filling(&f[1]);
    put_template(p, k->sayings[below(r, k->n_plain)], false, &with);
    tell_value(&f[1], &with);
    return 2;
}

/* The facts of a pause; where they are many, the people are said to talk. */
static void tell_facts(pen *p, draws *r, const plan *s, int pause, int *told)
{
    const story_document *d = p->d;
    bool many = *told + 2 < d->n_facts && s->pause[*told] == pause && s->pause[*told + 2] == pause;
    if (many && pause > 0) {
        p->talk = (p->talk + 1 + below(r, story_talks.n - 1)) % story_talks.n; /* not the same again */
        put_sentence(p, story_talks.words[p->talk], NULL);
    }
    while (*told < d->n_facts && s->pause[*told] == pause)
        *told += tell_fact(p, r, &p->d->facts[*told], s->joined[*told]);
}

static void new_line(pen *p)
{
    if (p->d->n && p->d->text[p->d->n - 1] != '\n') put(p, "\n", 1);
}

static void ask(pen *p, int fact, int told)
{
    story_document *d = p->d;
    const story_fact *f = &d->facts[fact];
    filling with = fact_filling(f);
    p->in_question = true;
    put_string(p, "Question: ");
    put_template(p, story_kinds[f->kind].question, false, &with);
    put_string(p, " Answer: ");
    d->asked[d->n_asked++] = (story_asked){.fact = fact, .word = d->n_words, .n_facts = told};
    put_template(p, story_kinds[f->kind].answer, false, &with);
    put_string(p, ".\n");
    p->in_question = false;
}

static void tell_questions(pen *p, const plan *s, int scene, int told)
{
    new_line(p);
    for (int q = 0; q < s->n_asked; q++)
        if (s->after[q] == scene) ask(p, s->asked[q], told);
}

/* The first person of whom something is told up to that pause plays in the scene, with another one. */
static filling scene_people(draws *r, const plan *s, const story_document *d, int told, int last_pause)
{
    int a = s->cast[below(r, s->n_cast)], b;
    if (told < d->n_facts && s->pause[told] <= last_pause) a = d->facts[told].person;
    do b = s->cast[below(r, s->n_cast)];
    while (b == a);
    return (filling){.a = a, .b = b};
}

static void tell_opening(pen *p, draws *r, const plan *s)
{
    char all[STORY_CAST_MAX * 12] = "";
    for (int i = 0; i < s->n_cast; i++) {
        if (i > 0) strcat(all, i == s->n_cast - 1 ? " and " : ", ");
        strcat(all, story_person(s->cast[i]));
    }
    filling with = {.a = s->cast[0], .b = -1, .all = all};
    put_sentence(p, pick(r, &story_openings), &with);
}

static void tell_story(pen *p, draws *r, const plan *s)
{
    int told = 0, pause = 0;
    tell_opening(p, r, s);
    tell_facts(p, r, s, pause++, &told);
    for (int i = 0; i < s->n_scenes; i++) {
        const planned_scene *scene = &s->scenes[i];
        filling people = scene_people(r, s, p->d, told, scene->last_pause);
        new_line(p);
        if (scene->new_day) {
            put_sentence(p, pick(r, &story_evenings), &people);
            new_line(p);
            put_sentence(p, pick(r, &story_mornings), &people);
        }
        for (int j = 0; j < STORY_SLOTS; j++) {
            if (!is_told(scene, j)) continue;
            put_sentence(p, story_scenes[scene->scene].slots[j].choices[scene->choice[j]], &people);
            if (is_talk(scene, j)) tell_facts(p, r, s, pause++, &told);
        }
        tell_facts(p, r, s, pause++, &told);
        tell_questions(p, s, i, told);
    }
    filling people = scene_people(r, s, p->d, told, 0);
    put_sentence(p, pick(r, &story_endings), &people);
    tell_questions(p, s, s->n_scenes, told);
}

static dmc_status write_story(pen *p, draws *r, const story_options *o)
{
    plan s = {0};
    int n_facts = wanted_facts(o);
    plan_cast(&s, r, n_facts);
    plan_facts(&s, r, p->d, n_facts);
    double words = o->length - fact_words * p->d->n_facts - question_words * o->n_questions - frame_words;
    dmc_status status = plan_scenes(&s, r, words);
    if (status == DMC_OK) {
        plan_pauses(&s, r, p->d->n_facts);
        plan_questions(&s, r, p->d, o->n_questions);
        tell_story(p, r, &s);
    }
    dmc_free(s.scenes);
    return status;
}

/* ---- drills: random words, said again and again ---- */

typedef struct {
    const char *s;
    size_t n;
} word;

/* Any word of the stories: a third of them keys, a third values, the others words of scenes. */
static word draw_word(draws *r)
{
    const story_kind *k = &story_kinds[below(r, story_n_kinds)];
    int sort = below(r, 3);
    if (sort < 2) {
        const char *s = sort == 0      ? story_answer(k, below(r, story_n_answers(k)))
                        : k->objects.n ? k->objects.words[below(r, k->objects.n)]
                                       : story_person(below(r, story_n_people()));
        return (word){s, strlen(s)};
    }
    for (;;) { /* every slot 0 has words without braces, so this ends */
        const char *s = story_scenes[below(r, story_n_scenes)].slots[below(r, STORY_SLOTS)].choices[0];
        if (!s) continue;
        int skip = below(r, count_words(s));
        while (skip--) s = strchr(s, ' ') + 1;
        s += strspn(s, "\"");
        size_t n = 0;
        while (isalpha((unsigned char)s[n])) n++;
        if (n > 0) return (word){s, n};
    }
}

enum { SEGMENTS_MAX = 64, SEGMENT_MIN = 4, SEGMENT_MAX = 24, REPEATS = 4 };

/* From two segments in turn, which is easy and near, to so many that each comes about REPEATS times, far apart. */
static void write_drill(pen *p, draws *r, const story_options *o)
{
    word words[SEGMENTS_MAX][SEGMENT_MAX];
    int lengths[SEGMENTS_MAX], most = o->length / ((SEGMENT_MIN + SEGMENT_MAX) / 2 * REPEATS), last = -1;
    most = most < 2 ? 2 : most > SEGMENTS_MAX ? SEGMENTS_MAX : most;
    int n = 2 + below(r, 1 + below(r, most - 1));
    for (int i = 0; i < n; i++) {
        lengths[i] = SEGMENT_MIN + below(r, SEGMENT_MAX - SEGMENT_MIN + 1);
        for (int j = 0; j < lengths[i]; j++) words[i][j] = draw_word(r);
    }
    while (!p->failed && p->d->n_words < (size_t)o->length) {
        int i = below(r, n - (last >= 0));
        if (last >= 0 && i >= last) i++;
        for (int j = 0; j < lengths[i]; j++) {
            put_blank(p);
            put(p, words[i][j].s, words[i][j].n);
        }
        put(p, ".", 1);
        last = i;
    }
}

/* Facts alone, plainly told, told again and asked again, so that most sentences end in something that was said
 * before. */
static void write_facts(pen *p, draws *r, const story_options *o)
{
    plan s = {0};
    story_document *d = p->d;
    int told = 0;
    plan_cast(&s, r, 0);
    plan_facts(&s, r, d, o->length / 15 > 4 ? o->length / 15 : 4);
    while (!p->failed && d->n_words < (size_t)o->length) {
        bool fresh = told < d->n_facts && (told < 2 || chance(r, 0.25));
        int i = fresh ? told++ : below(r, told);
        if (fresh || chance(r, 0.4) || d->n_asked == STORY_QUESTIONS_MAX) {
            const story_kind *k = &story_kinds[d->facts[i].kind];
            filling with = fact_filling(&d->facts[i]);
            put_sentence(p, k->sayings[below(r, k->n_plain)], &with);
            if (fresh) tell_value(&d->facts[i], &with);
        } else {
            new_line(p);
            ask(p, i, told);
        }
    }
    d->n_facts = told; /* no room for the others */
}

dmc_status story_write(story_document *d, const story_options *o, uint64_t index)
{
    draws r = {.seed = o->seed, .stream = index};
    pen p = {.d = d};
    d->n = d->n_words = d->n_story_words = 0;
    d->n_facts = d->n_asked = 0;
    if (chance(&r, o->mix)) write_drill(&p, &r, o);
    else if (o->facts) write_facts(&p, &r, o);
    else DMC_TRY(write_story(&p, &r, o));
    new_line(&p);
    size_t words = d->n_words;
    put_string(&p, STORY_SEPARATOR "\n");
    d->n_words = words; /* the separator is no word */
    return p.failed ? dmc_fail(DMC_ERR_MEMORY, "no memory for a document of %d words; give a shorter length", o->length)
                    : DMC_OK;
}

void story_document_free(story_document *d)
{
    dmc_free(d->text);
    *d = (story_document){0};
}
