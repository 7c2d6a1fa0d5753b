/* What the story generator knows: names, lists of answers, kinds of facts with their sentences, scenes.
 *
 * Sentences are templates. In a sentence about a fact: {n} a person, {o} the animal or place, {v} the value.
 * In a scene: {a} and {b} two people; {all} in an opening is the list of people. {he} and {his} are the pronouns of
 * {n} and {a}, {bhis} is {b}'s.
 *
 * A fact is a pair of words, the key ("Ann", "dog", "river") and its value in this story ("Miller", "Star", "Lune"),
 * which always stand side by side: a small model learns to look such pairs up within minutes, and loses them when its
 * cache does. Scenes hold no value of any kind. */
#ifndef STORY_WORDS_H
#define STORY_WORDS_H

#include <stdbool.h>

enum { STORY_CAST_MIN = 4, STORY_CAST_MAX = 8, STORY_SLOTS = 7, STORY_CHOICES = 3, STORY_SAYINGS = 8 };

typedef struct {
    const char *const *words;
    int n;
} story_list;

typedef struct {
    const char *name;     /* in statistics */
    const char *question; /* {n} {o} */
    const char *answer;   /* {n} {o} {v}: the key, as the story has it, and its value */
    const char *sayings[STORY_SAYINGS + 1];
    int n_plain; /* the first so many sayings are plain clauses: two of them make a sentence */
    story_list answers;
    story_list objects; /* what the kind is about; no list: people */
} story_kind;

/* A value of a kind, in the order of its answers. */
const char *story_answer(const story_kind *kind, int value);
int story_n_answers(const story_kind *kind);
/* People: girls first. */
int story_n_people(void);
const char *story_person(int i);
bool story_is_girl(int i);

/* A scene: what happens, in order. Slot 0 opens it and begins with a word that is no name. One of a slot's choices is
 * told. Facts are told after slots of talk and at the end of the scene. */
enum { STORY_MAY = 1 /* may be left out */, STORY_TALK = 2 };
typedef struct {
    int flags;
    const char *choices[STORY_CHOICES];
} story_slot;
typedef struct {
    story_slot slots[STORY_SLOTS];
} story_scene;

extern const story_kind story_kinds[];
extern const int story_n_kinds;
extern const story_scene story_scenes[];
extern const int story_n_scenes;
extern const story_list story_openings, story_mornings, story_evenings, story_endings, story_leads, story_talks;

#endif
