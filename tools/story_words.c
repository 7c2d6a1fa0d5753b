#include "story_words.h"

#include <stddef.h>

#define LIST(array)                                   \
    {                                                 \
        array, (int)(sizeof(array) / sizeof *(array)) \
    }

static const char *const girls[] = {"Mia",  "Ann",  "Lily", "Eva",  "Zoe",  "Nina",
                                    "Kate", "Lucy", "Sara", "Rosa", "Jane", "Ida"};
static const char *const boys[] = {"Tom", "Ben",  "Sam", "Max", "Leo",   "Jack",
                                   "Tim", "Finn", "Bob", "Dan", "Peter", "Hugo"};
enum { N_GIRLS = sizeof girls / sizeof *girls, N_BOYS = sizeof boys / sizeof *boys };

int story_n_people(void) { return N_GIRLS + N_BOYS; }
bool story_is_girl(int i) { return i < N_GIRLS; }
const char *story_person(int i) { return i < N_GIRLS ? girls[i] : boys[i - N_GIRLS]; }
const char *story_answer(const story_kind *kind, int value) { return kind->answers.words[value]; }
int story_n_answers(const story_kind *kind) { return kind->answers.n; }

/* ---- keys and answers: at least 16 of each sort ---- */

static const char *const surnames[] = {"Miller", "Baker", "Fisher", "Wood",  "Stone", "Field", "King",
                                       "Bell",   "Fox",   "Brook",  "Frost", "Shaw",  "Reed",  "Lane",
                                       "Marsh",  "Cole",  "Grant",  "Hunt",  "Sharp", "Young"};
static const char *const animals[] = {"cat",  "dog",  "goat",  "hen",  "duck",   "fox",  "frog",   "pig",
                                      "pony", "hare", "mouse", "lamb", "rabbit", "crow", "turtle", "snake"};
static const char *const animal_names[] = {"Spot", "Rex",   "Dot",    "Coco", "Snow", "Star",  "Pip",  "Socks",
                                           "Mimi", "Fluff", "Button", "Bear", "Gus",  "Lucky", "Momo", "Tiny"};
static const char *const places[] = {"lake", "river", "beach",  "hill",   "garden", "pond", "valley", "harbour",
                                     "park", "inn",   "bridge", "forest", "meadow", "farm", "castle", "city"};
static const char *const place_names[] = {"Mora",  "Tavi", "Lune",  "Dova", "Rilla", "Sern", "Bela", "Coro",
                                          "Pella", "Nima", "Vesta", "Kora", "Dalen", "Fenn", "Galo", "Hesta"};

/* ---- kinds of facts: a key and, right behind it, the value that it has in this story ---- */

const story_kind story_kinds[] = {
    {.name = "person",
     .question = "Who is {n}?",
     .answer = "{n} {v}",
     .sayings = {"{n} {v} was there too.", "{n} {v} lived close by.", "they all knew {n} {v}.",
                 "\"I am {n} {v},\" {he} said.", "Then {n} {v} came along."},
     .n_plain = 3,
     .answers = LIST(surnames)},
    {.name = "animal",
     .question = "Who is the {o}?",
     .answer = "the {o} {v}",
     .sayings = {"the {o} {v} ran by.", "they saw the {o} {v} on the road.", "they heard the {o} {v} far away.",
                 "\"Look, the {o} {v}!\" said {n}.", "{n} gave the {o} {v} some bread."},
     .n_plain = 3,
     .answers = LIST(animal_names),
     .objects = LIST(animals)},
    {.name = "place",
     .question = "Where is the {o}?",
     .answer = "the {o} {v}",
     .sayings = {"they walked past the {o} {v}.", "they saw the {o} {v} from far away.", "{n} liked the {o} {v} most.",
                 "\"I was born at the {o} {v},\" said {n}.", "After that, they came to the {o} {v}."},
     .n_plain = 3,
     .answers = LIST(place_names),
     .objects = LIST(places)},
};
const int story_n_kinds = sizeof story_kinds / sizeof *story_kinds;

/* ---- what happens ---- */

static const char *const openings[] = {
    "Once there were some friends in a small village. They were called {all}.",
    "Once upon a time, {all} were good friends.",
    "One day, {all} met in the village.",
    "On a cold day, {all} met and went for a walk.",
    "Once upon a time, there were some friends called {all}.",
    "This is a story about some good friends: {all}.",
    "It was a warm day, and {all} met on the road.",
};
static const char *const mornings[] = {
    "The next day, they all met again.",
    "The next day, the sun was out and they met again.",
};
static const char *const evenings[] = {
    "When it was late, they all went home.",
    "Then it was time to go home.",
};
static const char *const endings[] = {
    "In the end, they all went home. It was a good day.",
    "When the sun went down, it was time to go. \"Come again soon!\" called {a}.",
    "Then they were all tired and went home.",
    "So they walked home in the dark, and {a} held {b} by the hand.",
    "At last it was late. \"That was a good day,\" said {a}.",
    "After that, they were friends for a long time.",
    "Then the day was over, and everyone was happy.",
};
static const char *const leads[] = {"Everyone knew that", "They all knew that"};
static const char *const talks[] = {"So they talked.",           "Then they talked for a while.",
                                    "They sat down and talked.", "They talked about this and that.",
                                    "There was time to talk.",   "Soon they talked and laughed."};

const story_list story_openings = LIST(openings), story_mornings = LIST(mornings), story_evenings = LIST(evenings),
                 story_endings = LIST(endings), story_leads = LIST(leads), story_talks = LIST(talks);

enum { MUST = 0, MAY = STORY_MAY, TALK = STORY_TALK };

const story_scene story_scenes[] = {
    /* rain */
    {{{MUST, {"Later, it began to rain.", "Then the sky was dark and it began to rain."}},
      {MUST, {"{a} and {b} ran to a dry house.", "{a} took {b} by the hand, and they ran."}},
      {MAY, {"\"I am all wet!\" said {a}.", "\"My feet are cold,\" said {b}."}},
      {TALK, {"They sat close together and waited.", "There they sat for a long time."}},
      {MAY, {"{b} sang a little song.", "{a} danced in the rain and {b} laughed."}},
      {MUST, {"At last the rain was over.", "At last the sun came out again."}},
      {MAY, {"The grass was wet and the road was wet.", "There was water on the road."}}}},
    /* the hurt bird */
    {{{MUST, {"On the road, they found a small bird.", "Then they heard a small bird cry."}},
      {MAY, {"The bird was hurt and could not fly.", "The bird sat in the grass and did not move."}},
      {MUST, {"\"We can help it,\" said {a}.", "{a} was sorry for the bird.", "\"Look how small it is!\" said {a}."}},
      {MAY | TALK, {"{b} found some water for the bird.", "{b} held the bird in {bhis} warm hands."}},
      {MUST, {"{a} sang to the bird for a long time.", "At last the bird was strong again."}},
      {MUST, {"In the end, the bird flew up into the sky.", "Then the bird flew away."}},
      {MAY, {"Everyone was happy.", "They looked up until it was gone."}}}},
    /* the river */
    {{{MUST, {"After a long walk, they came to fast water.", "Then there was water in their way."}},
      {MAY, {"The water was fast and cold.", "There was no way around it."}},
      {MUST, {"\"I am afraid,\" said {a}.", "{a} was afraid to jump."}},
      {MUST, {"{b} jumped first.", "\"Hold my hand,\" said {b}."}},
      {MUST, {"{a} closed {his} eyes and jumped too.", "\"One, two, three!\" called {a} and jumped."}},
      {MAY, {"They all fell into the water and laughed.", "Everyone had wet feet."}},
      {MAY, {"Then they sat in the sun.", "The sun was warm, and soon they were dry again."}}}},
    /* the race */
    {{{MUST, {"Later, they had a race.", "Then they had a race on the long road."}},
      {MAY, {"\"One, two, three!\" called {a}.", "\"Run!\" called the others."}},
      {MAY, {"{b} ran as fast as the wind.", "{a} was fast, but {b} was very fast."}},
      {MUST, {"Then {a} fell and hurt {his} foot.", "{a} did not look down and fell."}},
      {MUST, {"{b} came back and helped {a} up.", "{b} ran back to help {a}."}},
      {TALK, {"\"You are kind,\" said {a}.", "\"You are a good friend,\" said {a}."}},
      {MAY, {"In the end, no one was first, and no one was sad.", "They walked to the end together."}}}},
    /* the quarrel */
    {{{MUST, {"Soon {b} and {a} began to fight.", "Then {a} and {b} began to fight."}},
      {MAY, {"\"That was not good!\" said {a}.", "\"I do not like you!\" said {a}."}},
      {MUST, {"{b} began to cry.", "{b} walked away and said nothing."}},
      {MAY | TALK, {"The others did not know what to do.", "It was quiet, and no one laughed."}},
      {MAY, {"{a} sat down and was sad too.", "Then {a} was sad about it."}},
      {MUST, {"\"I am sorry,\" said {a}.", "{a} said that {he} was sorry."}},
      {MUST, {"{b} smiled, and they were friends again.", "They took hands and all was good again."}}}},
    /* lunch */
    {{{MUST, {"Soon they were hungry and made a big lunch.", "Then everyone was hungry, and they made lunch."}},
      {MAY, {"{a} made a fire and {b} found some water.", "{b} helped {a} to make a fire."}},
      {MAY, {"\"It is too warm,\" said {b}.", "\"It is so good!\" said {b}."}},
      {TALK, {"They ate until they were full.", "Everyone ate and ate."}},
      {MAY, {"\"Can I have some more?\" asked {a}.", "{a} ate more than all the others."}},
      {MUST, {"After lunch, they lay in the grass.", "Then they were too full to move."}}}},
    /* the story in the story */
    {{{MUST, {"Then it was time for a story.", "After that, they sat down and wanted a story."}},
      {MUST, {"{a} told them about a giant.", "{a} knew a story about a kind giant."}},
      {MAY, {"\"Is that true?\" asked {b}.", "{b} was a little afraid."}},
      {MAY, {"\"Yes, it is true,\" said {a}.", "{a} only smiled."}},
      {TALK, {"\"I like that giant,\" said {b}.", "\"That was a good story,\" said {b}."}},
      {MUST, {"Then they heard a noise in the grass.", "Then there was a loud noise."}},
      {MUST, {"But that was only the wind.", "There was only a bird, and they laughed."}}}},
    /* the house of wood */
    {{{MUST, {"Then they built a small house of wood.", "After that, they began to build a house of wood."}},
      {MAY, {"{a} carried the wood, and {b} helped.", "{b} helped {a} with the wood."}},
      {TALK, {"It took a long time.", "It took them all day."}},
      {MUST, {"\"Look at our house!\" called {a}.", "At last they had a house."}},
      {MUST, {"But the wind came, and the house fell down.", "Then the house fell down with a loud noise."}},
      {MAY, {"{b} was sad, but {a} laughed.", "{b} began to laugh, and soon they all laughed."}},
      {MUST, {"So they built a new house, and it was strong.", "\"We can build a new house,\" said {b}."}}}},
    /* the old woman */
    {{{MUST, {"On the way, they met a very old woman.", "Then a very old woman came down the road."}},
      {MAY, {"The woman was tired and could not walk far.", "The woman was cold and tired."}},
      {MUST, {"\"Can you help me?\" she asked.", "\"My house is far away,\" said the woman."}},
      {MUST, {"\"Yes, we can,\" said {a}.", "{a} took the woman by the hand."}},
      {TALK, {"{b} carried some wood for the woman.", "{b} sang for them all the way."}},
      {MAY, {"The old woman told them a long story.", "At last they came to a small house."}},
      {MUST, {"\"You are so kind,\" said the old woman.", "The old woman was very happy."}}}},
    /* the dark woods */
    {{{MUST, {"After that, they walked into the dark woods.", "Later, they came into the dark woods."}},
      {MUST, {"Soon no one knew the way.", "Then the way was gone."}},
      {MAY, {"\"Where are we?\" asked {a}.", "\"I am afraid,\" said {a}."}},
      {MUST, {"\"Do not be afraid,\" said {b}.", "\"Hold my hand,\" said {b}."}},
      {MAY, {"{b} jumped up and looked around.", "{b} walked first and looked around."}},
      {MUST, {"\"I see the road!\" called {b}.", "At last they saw the road."}},
      {MAY, {"{a} was glad and ran fast.", "They walked fast and did not look back."}}}},
    /* music */
    {{{MUST, {"Then they heard music and began to dance.", "After a while, they heard music."}},
      {MUST, {"{a} took {b} by the hand.", "{a} danced with {b}."}},
      {MAY, {"{b} jumped up and down.", "{b} sang a loud song."}},
      {MAY, {"\"We want more!\" called the others.", "The others sang and laughed."}},
      {MAY, {"{a} danced and danced and fell down.", "{a} danced with the wind."}},
      {TALK, {"They danced until their feet hurt.", "Everyone laughed, and {a} laughed most."}}}},
    /* hide and seek */
    {{{MUST, {"Then they played a game in the grass.", "Soon they played a new game."}},
      {MUST, {"{a} closed {his} eyes and waited.", "{a} closed {his} eyes, and the others ran away."}},
      {MAY, {"{b} lay in the grass and did not move.", "{b} sat still and did not laugh."}},
      {MAY, {"\"I can see you!\" called {a}.", "\"Where are you?\" called {a}."}},
      {MUST, {"It took a long time to find {b}.", "At last {a} found them all."}},
      {MAY | TALK, {"\"That was a good game,\" said {b}.", "\"I like this game,\" said {a}."}}}},
    /* rest */
    {{{MUST, {"For a while, it was quiet.", "Then they were tired and sat down."}},
      {MAY | TALK, {"{a} looked at the clouds.", "{a} lay in the grass and looked up."}},
      {MAY, {"One of the clouds looked like a giant.", "The clouds were big."}},
      {MUST, {"{b} lay in the sun.", "{b} closed {bhis} eyes."}},
      {MUST, {"A small bird came and sat on {b}'s foot.", "A small bird sang a song."}},
      {MAY, {"\"Do not move,\" said {a}.", "\"Look at that bird!\" said {a}."}},
      {MAY, {"Then the bird flew away.", "The bird was not afraid."}}}},
    /* wind */
    {{{MUST, {"Later, there was a strong wind.", "Soon the wind was very strong."}},
      {MAY, {"The wind was in their eyes.", "The wind was so loud that no one could talk."}},
      {MUST, {"{a} fell down, and {b} laughed.", "{b} could not walk."}},
      {MAY, {"\"Hold my hand!\" called {a}.", "\"Come with me!\" called {b}."}},
      {TALK, {"They sat close together with their eyes closed.", "They ran to a warm house and waited."}},
      {MUST, {"At last it was still again.", "Then the wind was gone."}}}},
    /* the light */
    {{{MUST, {"Then they saw a light far away.", "After a while, they came to a house with no light."}},
      {MAY, {"\"What is it?\" asked {b}.", "{b} was afraid of the dark."}},
      {MUST, {"{a} was not afraid and walked first.", "\"Come with me,\" said {a}."}},
      {MUST, {"Then an old man came out.", "There was only an old man in the house."}},
      {TALK, {"The old man was glad to see them.", "They sat down with the old man."}},
      {MAY, {"The old man told them about the sun and the sky.", "The old man sang them a song."}},
      {MAY, {"\"Come again soon,\" said the old man.", "Then they walked on."}}}},
};
const int story_n_scenes = sizeof story_scenes / sizeof *story_scenes;
