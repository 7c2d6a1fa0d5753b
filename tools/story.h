/* Stories with questions: the text that the small models of this project learn from, and the yardstick of what they
 * remember.
 *
 * A document is a short story in which facts are stated anywhere, and questions about them, each on a line
 *
 *     Question: Who is the dog? Answer: the dog Star.
 *
 * Documents end with the line "<|endoftext|>". Format and the definition of recall: doc/stories.md. */
#ifndef STORY_H
#define STORY_H

#include "base/base.h"

#define STORY_SEPARATOR "<|endoftext|>"

/* ---- reading ---- */

/* The next question line at or after text[*pos]. A line counts when it is exactly "Question: ...? Answer: WORDS." (the
 * first "? Answer: " in it), WORDS not empty and without a full stop, and ends with a newline or the text. Sets
 * [*answer_begin, *answer_end) to WORDS and *pos to the line's end, ready for the next call. A model is asked with all
 * that comes before the blank at answer_begin - 1. Any bytes are allowed; *pos that is not at a line's begin skips
 * that line. False: no more. */
bool story_next_question(const char *text, size_t n, size_t *pos, size_t *answer_begin, size_t *answer_end);

/* The next document that is not empty at or after text[*pos]: [*begin, *end) without its separator line. *pos moves
 * on. */
bool story_next_document(const char *text, size_t n, size_t *pos, size_t *begin, size_t *end);

/* ---- writing ---- */

typedef struct {
    uint64_t seed;
    int length;      /* words of a document, about */
    int n_questions; /* per story, if it has so many facts: a story of 350 words and more has 12 to 24 */
    double mix;      /* share of documents that are copying drills: 0 stories alone, 1 drills alone */
    bool facts;      /* instead of stories: facts and questions alone, told and asked again and again, whatever
                      * n_questions says */
} story_options;
story_options story_options_default(void); /* seed 1, 350 words, 8 questions, mix 0 */
dmc_status story_options_check(const story_options *o);

enum { STORY_FACTS_MAX = 160, STORY_KINDS_MAX = 12, STORY_ANSWERS_MAX = 24, STORY_QUESTIONS_MAX = 100 };

/* Words count from 0 in the document; story words leave question lines out. */
typedef struct {
    int kind, object; /* object: index into the kind's objects, 0 if it is about people */
    int person;       /* whom it is about, or who tells it */
    int value;        /* index into the kind's answers */
    size_t word;      /* of the value, where it is told first */
    size_t story_word;
} story_fact;

typedef struct {
    int fact;
    size_t word; /* of the answer's first word */
    int n_facts; /* facts stated before the question */
} story_asked;

typedef struct {
    char *text;
    size_t n, capacity;
    size_t n_words, n_story_words;
    int n_facts, n_asked;
    story_fact facts[STORY_FACTS_MAX];      /* in the order of the text */
    story_asked asked[STORY_QUESTIONS_MAX]; /* likewise */
} story_document;

/* Document `index` of the seed, separator included: depends on nothing but the options and the index. `d` is used
 * again and again: zero it first, story_document_free at the end. */
dmc_status story_write(story_document *d, const story_options *o, uint64_t index);
void story_document_free(story_document *d);

/* ---- statistics ---- */

enum { STORY_DISTANCES = 8 }; /* words from value to answer: < 16, < 32, < 64, ..., < 1024, more */

typedef struct {
    uint64_t documents, bytes, words, facts, questions;
    uint64_t answers[STORY_KINDS_MAX][STORY_ANSWERS_MAX];
    uint64_t distances[STORY_DISTANCES];
    uint64_t quarters[4]; /* of the story, question lines left out, in which the asked fact stands */
    /* Right answers of one who has not understood: the kind's last, first, any or any not yet asked value before the
     * question */
    double recent, first, any, unasked;
    uint64_t *seen; /* hashes of distinct words, open addressing */
    size_t n_seen, seen_capacity;
} story_stats;
dmc_status story_stats_add(story_stats *s, const story_document *d);
/* Share of questions that the most frequent answer of each kind gets right; kind -1: all kinds. Entropy in bits. */
double story_stats_constant(const story_stats *s, int kind);
double story_stats_entropy(const story_stats *s, int kind);
uint64_t story_stats_questions(const story_stats *s, int kind);
void story_stats_free(story_stats *s);

#endif
