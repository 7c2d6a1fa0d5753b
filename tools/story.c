/* dmc story: writes stories with questions, and drills in copying, for training and for judging recall. */
#include "cli.h"
#include "commands.h"
#include "json_out.h"
#include "story.h"
#include "story_words.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static dmc_status write_documents(const char *path, const story_options *o, int64_t n, story_stats *stats)
{
    story_document d = {0};
    dmc_writer *w;
    dmc_status status;
    DMC_TRY(dmc_writer_open(&w, path));
    for (int64_t i = 0; i < n; i++) {
        DMC_GOTO(story_write(&d, o, (uint64_t)i));
        DMC_GOTO(story_stats_add(stats, &d));
        dmc_write(w, d.text, d.n);
    }
    status = dmc_writer_commit(w);
    w = NULL;
done:
    dmc_writer_abort(w);
    story_document_free(&d);
    return status;
}

static json_t *kinds_json(const story_stats *s)
{
    json_t *kinds = json_new_object();
    for (int k = 0; k < story_n_kinds; k++) {
        json_t *kind = json_new_object();
        json_put_int(kind, "questions", (int64_t)story_stats_questions(s, k));
        json_put_int(kind, "alternatives", story_n_answers(&story_kinds[k]));
        json_put_real(kind, "entropy_bits", story_stats_entropy(s, k));
        json_put_real(kind, "best_constant", story_stats_constant(s, k));
        json_put(kinds, story_kinds[k].name, kind);
    }
    return kinds;
}

static void print_json(const story_stats *s)
{
    double documents = (double)s->documents, questions = s->questions ? (double)s->questions : 1;
    json_t *o = json_new_object(), *distances = json_new_object(), *quarters = json_new_array(),
           *baselines = json_new_object();
    json_put_int(o, "documents", (int64_t)s->documents);
    json_put_int(o, "bytes", (int64_t)s->bytes);
    json_put_int(o, "words", (int64_t)s->words);
    json_put_int(o, "distinct_words", (int64_t)s->n_seen);
    json_put_real(o, "words_per_document", (double)s->words / documents);
    json_put_int(o, "facts", (int64_t)s->facts);
    json_put_int(o, "questions", (int64_t)s->questions);
    json_put(o, "kinds", kinds_json(s));
    for (int i = 0; i < STORY_DISTANCES; i++) {
        char name[32];
        bool last = i == STORY_DISTANCES - 1;
        snprintf(name, sizeof name, last ? ">=%d" : "<%d", 16 << (last ? i - 1 : i));
        json_put_int(distances, name, (int64_t)s->distances[i]);
    }
    json_put(o, "distance_words", distances);
    for (int i = 0; i < 4; i++) json_push_real(quarters, (double)s->quarters[i] / questions);
    json_put(o, "story_quarters", quarters);
    json_put_real(baselines, "constant", story_stats_constant(s, -1));
    json_put_real(baselines, "recent", s->recent / questions);
    json_put_real(baselines, "first", s->first / questions);
    json_put_real(baselines, "any", s->any / questions);
    json_put_real(baselines, "unasked", s->unasked / questions);
    json_put(o, "baselines", baselines);
    json_print(o);
}

int cmd_story(int argc, char **argv)
{
    story_options o = story_options_default();
    const char *path = NULL, *kind = "story";
    int64_t n = 1000;
    double mix = 0.3;
    bool json = false;
    const cli_option options[] = {
        CLI_OPTION("out", 'o', &path, .arg = "FILE", .required = true, .help = "text file to write"),
        CLI_OPTION("n", 'n', &n, .arg = "DOCS", .min = 1, .max = 1e9, .help = "documents"),
        CLI_OPTION("seed", 0, &o.seed, .arg = "S", .min = 0, .max = HUGE_VAL,
                   .help = "another seed, other documents; the same seed, the same bytes"),
        CLI_OPTION(
            "kind", 0, &kind, .choices = "story|facts|copy|mix",
            .help =
                "story: stories with questions; facts: facts and questions alone, again and again, from which a model "
                "learns to look back; copy: random words said again and again; mix: stories and copy"),
        CLI_OPTION("mix", 0, &mix, .arg = "SHARE", .min = 0, .max = 1,
                   .help = "share of copy documents of the kind mix"),
        CLI_OPTION("length", 0, &o.length, .arg = "WORDS", .min = 100, .max = 100000,
                   .help = "words of a document, about"),
        CLI_OPTION("questions", 0, &o.n_questions, .arg = "N", .min = 0, .max = STORY_QUESTIONS_MAX,
                   .help = "questions in a story, one for each of its facts (12 to 24) at most"),
        CLI_OPTION("json", 0, &json, .help = "print statistics as one JSON object"),
        {0}};
    cli_parse(&(cli_command){.options = options,
                             .about =
                                 "Every document is a short story in which facts are told anywhere, with lines such as "
                                 "'Question: Who is the dog? Answer: the dog Star.' at its end and between.\n\n"
                                 "A model that forgets what was told answers wrongly: 'dmc eval recall' counts.",
                             .examples = "dmc story -o train.txt --n 20000\n"
                                         "dmc story -o heldout.txt --n 200 --seed 2 --json\n"
                                         "dmc story -o warmup.txt --n 5000 --kind facts --length 150"},
              argc, argv);
    o.mix = strcmp(kind, "mix") == 0 ? mix : strcmp(kind, "copy") == 0;
    o.facts = strcmp(kind, "facts") == 0;
    cli_check(story_options_check(&o));
    story_stats stats = {0};
    cli_check(write_documents(path, &o, n, &stats));
    if (json) print_json(&stats);
    else
        printf("%s: %llu documents, %llu words, %zu of them distinct, %llu questions\n", path,
               (unsigned long long)stats.documents, (unsigned long long)stats.words, stats.n_seen,
               (unsigned long long)stats.questions);
    story_stats_free(&stats);
    return 0;
}
