/* Inside of engine and session, and doors for those who hold a model in memory: trainer, tests. */
#ifndef DMC_ENGINE_H
#define DMC_ENGINE_H

#include "model/forward.h"
#include "text/tokenizer.h"

#include <pthread.h>

/* Things that sessions share and that come into being when they are first needed. */
typedef struct dmc_rope_node {
    dmc_rope rope;
    struct dmc_rope_node *next;
} dmc_rope_node;

typedef struct dmc_feed dmc_feed; /* feed.c: what a call that feeds tokens works with */

enum { DMC_MAX_CHUNK = 512 }; /* tokens of one pass */

struct dmc_engine {
    dmc_checkpoint *checkpoint;
    dmc_tokenizer *tokenizer; /* NULL: none */
    char *no_tokenizer;       /* why there is none */
    dmc_model model;
    dmc_pool *pool;
    dmc_info info;
    int n_threads;
    dmc_threads *threads;
    pthread_mutex_t lock; /* of what follows */
    dmc_rope_node *ropes;
    dmc_feed *feeds;   /* idle ones; as many exist as calls ever ran at the same time */
    size_t n_scratch;  /* floats per thread that the largest session so far needs */
    int64_t n_parts;   /* parts of heads that the longest session so far can have in a pass */
    uint64_t identity; /* of the weights; 0: not computed yet */
};

struct dmc_session {
    dmc_engine *e;
    dmc_seq *seq;
    int chunk;
    bool fed; /* stands in the batch that is being put together */
};

/* Takes the checkpoint over, in failure too. */
dmc_status dmc_engine_of_checkpoint(dmc_engine **out, dmc_checkpoint *c, const dmc_engine_options *opts);

/* A table of at least n_pos positions that lives as long as the engine. */
dmc_status dmc_engine_rope(dmc_engine *e, int64_t n_pos, const dmc_rope **out);
/* Tells models apart whose weights or configuration differ: a checksum over all bytes up to 64 MiB, over samples beyond. */
uint64_t dmc_engine_identity(dmc_engine *e);

void dmc_feeds_free(dmc_feed *f); /* the whole list */

/* The bytes of a state file, without the file. */
dmc_status dmc_state_parse(dmc_session **out, dmc_engine *e, const uint8_t *data, size_t n, const char *where);

#endif
